//! Copying octets between a client and the node that serves it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use net::shutdown::ShutdownGuard;
use net::stream::Stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

/// Octets held in each direction: what one side has sent and the other has not taken.
const BUFFER_BYTES: usize = 8 * 1024;
/// A shutdown ends a session when so long nothing was said.
const QUIET: Duration = Duration::from_millis(500);

/// What a relay does about peers that say nothing or take nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    /// Silence of both sides. Longer than the service's own, which says goodbye first.
    pub idle_max: Duration,
    /// How long one side may take nothing of what the other has sent.
    pub write_stall_max: Duration,
}

/// Copies until both sides have ended, or one of the limits ends them. What `client` has said already goes first. When
/// one side says no more, the other is told so and may still speak.
pub async fn relay(
    client: Stream,
    said: Bytes,
    home: Stream,
    limits: &RelayLimits,
    shutdown: &ShutdownGuard,
) -> io::Result<()> {
    let activity = Activity::begin();
    let (from_client, to_client) = tokio::io::split(client);
    let (from_home, mut to_home) = tokio::io::split(home);
    let stall = limits.write_stall_max;
    let up = async {
        write(&mut to_home, &said, stall).await?;
        copy(from_client, to_home, stall, &activity).await
    };
    let down = copy(from_home, to_client, stall, &activity);
    let both = async {
        tokio::try_join!(up, down)?;
        Ok(())
    };
    tokio::select! {
        ended = both => ended,
        () = activity.silent_for(limits.idle_max) => Err(io::Error::new(io::ErrorKind::TimedOut, "idle for too long")),
        () = async {
            shutdown.requested().await;
            activity.silent_for(QUIET).await;
        } => Ok(()),
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    stall: Duration,
    activity: &Activity,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) => count,
            // Who leaves without closing TLS has left.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        };
        activity.happened();
        write(&mut to, &buffer[..count], stall).await?;
        activity.happened();
    }
    timeout(stall, to.shutdown()).await.map_err(|_| stalled())?
}

async fn write(to: &mut (impl AsyncWrite + Unpin), mut octets: &[u8], stall: Duration) -> io::Result<()> {
    while !octets.is_empty() {
        match timeout(stall, to.write(octets)).await.map_err(|_| stalled())?? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => octets = &octets[count..],
        }
    }
    timeout(stall, to.flush()).await.map_err(|_| stalled())?
}

fn stalled() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "nothing is taken")
}

/// When something was said last.
struct Activity {
    began: Instant,
    /// Milliseconds since then.
    last: AtomicU64,
}

impl Activity {
    fn begin() -> Self {
        Self { began: Instant::now(), last: AtomicU64::new(0) }
    }

    fn happened(&self) {
        self.last.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Returns when nothing has been said for so long.
    async fn silent_for(&self, long: Duration) {
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let silent = self.began.elapsed().saturating_sub(last);
            if silent >= long {
                return;
            }
            sleep(long.saturating_sub(silent)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use net::shutdown::Shutdown;
    use tokio::task::JoinHandle;

    use super::*;

    const LIMITS: RelayLimits =
        RelayLimits { idle_max: Duration::from_secs(3600), write_stall_max: Duration::from_secs(3600) };

    /// A client, the node that serves it, and what copies between them.
    fn scene(
        said: &'static [u8],
        limits: RelayLimits,
        shutdown: &Shutdown,
    ) -> (Stream, Stream, JoinHandle<io::Result<()>>) {
        let (client, here) = Stream::memory_pair(1024);
        let (there, home) = Stream::memory_pair(1024);
        let guard = shutdown.guard();
        let task =
            tokio::spawn(async move { relay(here, Bytes::from_static(said), there, &limits, &guard).await });
        (client, home, task)
    }

    async fn hears(stream: &mut Stream, expected: &[u8]) {
        let mut heard = vec![0; expected.len()];
        stream.read_exact(&mut heard).await.expect("octets");
        assert_eq!(heard, expected);
    }

    #[tokio::test]
    async fn each_side_ends_by_itself() {
        let (mut client, mut home, task) = scene(b"one ", LIMITS, &Shutdown::new());
        client.write_all(b"two").await.expect("sent");
        hears(&mut home, b"one two").await;
        client.shutdown().await.expect("no more");
        assert_eq!(home.read(&mut [0; 8]).await.expect("an end"), 0);
        home.write_all(b"still there").await.expect("sent");
        hears(&mut client, b"still there").await;
        drop(home);
        assert_eq!(client.read(&mut [0; 8]).await.expect("an end"), 0);
        task.await.expect("no panic").expect("in good order");
    }

    #[tokio::test]
    async fn both_may_send_much_at_once() {
        let (client, home, task) = scene(b"", LIMITS, &Shutdown::new());
        let much = |stream: Stream| async move {
            let (mut from, mut to) = tokio::io::split(stream);
            let send = async {
                to.write_all(&[b'x'; 300_000]).await?;
                to.shutdown().await
            };
            let mut heard = Vec::new();
            let (sent, received) = tokio::join!(send, from.read_to_end(&mut heard));
            sent.and(received.map(drop)).expect("all of it");
            heard.len()
        };
        let (one, other) = tokio::join!(much(client), much(home));
        assert_eq!((one, other), (300_000, 300_000));
        task.await.expect("no panic").expect("in good order");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_stalls_have_an_end() {
        let limits = RelayLimits { idle_max: Duration::from_secs(60), ..LIMITS };
        let (_client, _home, task) = scene(b"", limits, &Shutdown::new());
        assert_eq!(task.await.expect("no panic").expect_err("idle").kind(), io::ErrorKind::TimedOut);
        let limits = RelayLimits { write_stall_max: Duration::from_secs(60), ..LIMITS };
        let (mut client, _home, task) = scene(b"", limits, &Shutdown::new());
        // The other side holds a thousand octets of it and takes no more.
        client.write_all(&[0; 1500]).await.expect("sent");
        assert_eq!(task.await.expect("no panic").expect_err("stalled").kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_waits_for_a_quiet_moment() {
        let shutdown = Shutdown::new();
        let (mut client, mut home, task) = scene(b"", LIMITS, &shutdown);
        shutdown.begin();
        client.write_all(b"a command").await.expect("sent");
        hears(&mut home, b"a command").await;
        home.write_all(b"its answer").await.expect("sent");
        hears(&mut client, b"its answer").await;
        task.await.expect("no panic").expect("in good order");
    }
}
