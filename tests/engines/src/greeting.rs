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
