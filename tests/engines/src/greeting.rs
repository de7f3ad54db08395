//! How an engine says that it is ready.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// What is asked, and what a ready engine answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Greeting {
    /// An OPTIONS frame of version 4 is answered by SUPPORTED. Cassandra opens the port last, when it has joined the ring.
    Cql,
    /// Any HTTP answer, though it be a refusal for want of a signature.
    Http,
    /// The INFO line that NATS begins with.
    Nats,
}

/// How long one attempt may take: a paused engine accepts connections, by the kernel, and says nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// More than any of them says.
const ANSWER_BYTES_MAX: u64 = 1 << 16;
/// Header of a frame of CQL: version, flags, stream (2), opcode, length of the body (4).
const HEADER_BYTES: usize = 9;

/// How many other nodes this node of Cassandra knows to have joined: those whose tokens it has noted. It places copies on no
/// others. None where it does not answer.
pub(crate) fn joined_others(address: SocketAddr) -> Option<u64> {
    const STARTUP: u8 = 1;
    const QUERY: u8 = 7;
    const COUNT: &[u8] = b"SELECT count(tokens) FROM system.peers_v2";
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    // A map of one string to another.
    ask(&mut stream, STARTUP, b"\x00\x01\x00\x0bCQL_VERSION\x00\x053.0.0")?;
    // The text as a long string, consistency ONE, no flags.
    let length = u32::try_from(COUNT.len()).ok()?.to_be_bytes();
    let answer = ask(&mut stream, QUERY, &[&length, COUNT, &[0, 1, 0]].concat())?;
    // One row of one bigint is the end of it.
    Some(u64::from_be_bytes(*answer.last_chunk()?))
}

/// The body of the answer to one frame; none where that is an error.
fn ask(stream: &mut TcpStream, opcode: u8, body: &[u8]) -> Option<Vec<u8>> {
    const ERROR: u8 = 0;
    let length = u32::try_from(body.len()).ok()?.to_be_bytes();
    stream.write_all(&[&[4, 0, 0, 0, opcode], &length[..], body].concat()).ok()?;
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).ok()?;
    let length = u64::from(u32::from_be_bytes(*header.last_chunk()?));
    let mut answer = Vec::new();
    stream.take(length.min(ANSWER_BYTES_MAX)).read_to_end(&mut answer).ok()?;
    (header[4] != ERROR && answer.len() as u64 == length).then_some(answer)
}

impl Greeting {
    /// Whether who listens there answers as it should.
    pub(crate) fn is_heard_at(self, address: SocketAddr) -> bool {
        let (question, answer): (&[u8], &[u8]) = match self {
            // Version, flags, stream (2), opcode, length (4); of the answer the first five.
            Self::Cql => (&[4, 0, 0, 0, 5, 0, 0, 0, 0], &[0x84, 0, 0, 0, 6]),
            Self::Http => (b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"HTTP/1.1 "),
            Self::Nats => (b"", b"INFO {"),
        };
        let Ok(mut stream) = TcpStream::connect_timeout(&address, PATIENCE) else { return false };
        let mut heard = vec![0; answer.len()];
        let is_right = stream.set_read_timeout(Some(PATIENCE)).is_ok()
            && stream.write_all(question).is_ok()
            && stream.read_exact(&mut heard).is_ok()
            && heard == answer;
        if is_right {
            // Closing with bytes unread would reset the connection, which Cassandra logs as a warning each time.
            let _ = stream.shutdown(Shutdown::Write);
            let _ = std::io::copy(&mut stream.take(ANSWER_BYTES_MAX), &mut std::io::sink());
        }
        is_right
    }
}
