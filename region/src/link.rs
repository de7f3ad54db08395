//! A connection between nodes of two regions.
//!
//! TLS 1.3, where the node that is asked shows a certificate; then frames, each way:
//!
//! ```text
//! length of the body u32 (BE) · body · keyed BLAKE3 32 of exporter 32, direction 1, number 8 (BE), body
//! ```
//!
//! The exporter is that of this TLS connection, so what is said on one counts on no other, and whoever says it has the
//! regions' secret and ends the TLS itself. When a session is handed over, no more frames follow, and the rest of the
//! connection is the session's.

use std::io;
use std::time::Duration;

use net::stream::Stream;
use net::tls::{TlsClient, TlsServer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::secret::RegionSecret;

/// Larger than any request: names and passwords are bounded by the services that ask.
const BODY_BYTES_MAX: usize = 64 * 1024;
const MAC_BYTES: usize = 32;
/// For what needs nobody to think: connecting, a handshake, the first frame.
pub(crate) const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// For an answer: a slow hash behind others, and an engine that has to be asked twice.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// Why a link is of no use.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The connection failed.
    #[error("connection lost")]
    Io(#[from] io::Error),
    /// Nothing came in time.
    #[error("no answer")]
    Slow,
    /// Without TLS 1.3 nothing ties what is said to the connection.
    #[error("not TLS 1.3")]
    OldTls,
    /// Whoever is on the other side has not the regions' secret.
    #[error("the other side does not know the regions' secret")]
    Forged,
    /// What was said is not understood.
    #[error("what was said is not understood: {0}")]
    Malformed(String),
}

/// A connection to a node of another region, on which frames are exchanged.
pub struct Link {
    stream: Stream,
    key: Zeroizing<[u8; 32]>,
    exporter: [u8; 32],
    /// Who sends here; the other sends with the other.
    direction: Direction,
    sent: u64,
    received: u64,
}

#[derive(Clone, Copy)]
enum Direction {
    Asks = 0,
    Answers = 1,
}

impl Direction {
    fn other(self) -> Self {
        match self {
            Self::Asks => Self::Answers,
            Self::Answers => Self::Asks,
        }
    }
}

impl Link {
    /// The asking side, over a connection that has just been made.
    pub async fn connect(
        mut stream: Stream,
        tls: &TlsClient,
        secret: &RegionSecret,
    ) -> Result<Self, LinkError> {
        timeout(OPEN_PATIENCE, stream.connect_tls(tls)).await.map_err(|_| LinkError::Slow)??;
        Self::over(stream, secret, Direction::Asks)
    }

    /// The answering side, over a connection that has just been accepted.
    pub async fn accept(
        mut stream: Stream,
        tls: &TlsServer,
        secret: &RegionSecret,
    ) -> Result<Self, LinkError> {
        timeout(OPEN_PATIENCE, stream.accept_tls(tls)).await.map_err(|_| LinkError::Slow)??;
        Self::accepted(stream, secret)
    }

    /// The answering side, where TLS is in use already.
    pub fn accepted(stream: Stream, secret: &RegionSecret) -> Result<Self, LinkError> {
        Self::over(stream, secret, Direction::Answers)
    }

    fn over(stream: Stream, secret: &RegionSecret, direction: Direction) -> Result<Self, LinkError> {
        let exporter = stream.peer().tls.as_ref().and_then(|tls| tls.exporter).ok_or(LinkError::OldTls)?;
        Ok(Self { stream, key: secret.link_key(), exporter, direction, sent: 0, received: 0 })
    }

    /// Says something.
    pub async fn send(&mut self, said: &impl Serialize) -> Result<(), LinkError> {
        // A password may be in it.
        let body = serde_json::to_vec(said).map_err(|error| LinkError::Malformed(error.to_string()))?;
        let body = Zeroizing::new(body);
        if body.len() > BODY_BYTES_MAX {
            return Err(LinkError::Malformed(format!("{} octets are too much", body.len())));
        }
        let mac = self.mac(self.direction, self.sent, &body);
        self.sent += 1;
        let mut frame = Zeroizing::new(Vec::with_capacity(4 + body.len() + MAC_BYTES));
        frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
        frame.extend_from_slice(&body);
        frame.extend_from_slice(mac.as_bytes());
        let written = async {
            self.stream.write_all(&frame).await?;
            self.stream.flush().await
        };
        timeout(OPEN_PATIENCE, written).await.map_err(|_| LinkError::Slow)??;
        Ok(())
    }

    /// Hears what the other side says next; not an octet behind it is read.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, LinkError> {
        let patience = match self.direction {
            Direction::Asks => ANSWER_PATIENCE,
            Direction::Answers => OPEN_PATIENCE,
        };
        let (body, mac) = timeout(patience, self.frame()).await.map_err(|_| LinkError::Slow)??;
        // Hashes are compared in constant time.
        if self.mac(self.direction.other(), self.received, &body) != blake3::Hash::from_bytes(mac) {
            return Err(LinkError::Forged);
        }
        self.received += 1;
        serde_json::from_slice(&body).map_err(|error| LinkError::Malformed(error.to_string()))
    }

    /// The connection, from behind the last frame on.
    pub fn into_stream(self) -> Stream {
        self.stream
    }

    async fn frame(&mut self) -> Result<(Zeroizing<Vec<u8>>, [u8; MAC_BYTES]), LinkError> {
        let length = self.stream.read_u32().await? as usize;
        if length > BODY_BYTES_MAX {
            return Err(LinkError::Malformed(format!("{length} octets are too much")));
        }
        let mut body = Zeroizing::new(vec![0; length]);
        self.stream.read_exact(&mut body).await?;
        let mut mac = [0; MAC_BYTES];
        self.stream.read_exact(&mut mac).await?;
        Ok((body, mac))
    }

    fn mac(&self, direction: Direction, number: u64, body: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&self.exporter).update(&[direction as u8]).update(&number.to_be_bytes());
        hasher.update(body).finalize()
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("stream", &self.stream).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use net::tls::Certificate;

    use super::*;

    fn secret(octet: u8) -> RegionSecret {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, format!("{octet:02x}").repeat(32)).expect("a file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, mode).expect("its mode");
        RegionSecret::read(&path).expect("a secret")
    }

    /// Both ends of a link, whose sides have these secrets.
    async fn links(asks: &RegionSecret, answers: &RegionSecret) -> (Link, Link) {
        let made = Certificate::self_signed(&["node.test".to_owned()]).expect("a certificate");
        let server = TlsServer::new(&[made.certificate().expect("it is one")]).expect("TLS");
        let client = TlsClient::trusting_self_signed("node.test", &made).expect("TLS");
        let (here, there) = Stream::memory_pair(64 * 1024);
        let (here, there) =
            tokio::join!(Link::connect(here, &client, asks), Link::accept(there, &server, answers));
        (here.expect("a link"), there.expect("a link"))
    }

    #[tokio::test]
    async fn frames_then_octets() {
        let (mut here, mut there) = links(&secret(1), &secret(1)).await;
        for said in ["one", "two"] {
            here.send(&said).await.expect("sent");
            assert_eq!(there.receive::<String>().await.expect("heard"), said);
            there.send(&said).await.expect("sent");
            assert_eq!(here.receive::<String>().await.expect("heard"), said);
        }
        let (mut here, mut there) = (here.into_stream(), there.into_stream());
        here.write_all(b"octets").await.expect("sent");
        here.flush().await.expect("sent");
        let mut octets = [0; 6];
        there.read_exact(&mut octets).await.expect("heard");
        assert_eq!(&octets, b"octets");
    }

    #[tokio::test]
    async fn strangers_are_not_heard() {
        let (mut here, mut there) = links(&secret(1), &secret(2)).await;
        here.send(&"one").await.expect("sent");
        assert!(matches!(there.receive::<String>().await, Err(LinkError::Forged)));
    }

    #[tokio::test]
    async fn nothing_is_said_twice_or_back() {
        let (mut here, mut there) = links(&secret(1), &secret(1)).await;
        here.send(&"one").await.expect("sent");
        here.sent = 0;
        here.send(&"one").await.expect("sent");
        there.receive::<String>().await.expect("heard");
        assert!(matches!(there.receive::<String>().await, Err(LinkError::Forged)));
        // What we have said ourselves is not taken for an answer.
        there.direction = Direction::Asks;
        there.sent = 0;
        there.send(&"one").await.expect("sent");
        assert!(matches!(here.receive::<String>().await, Err(LinkError::Forged)));
    }
}
