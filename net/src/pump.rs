//! Moving bytes between a stream and a machine.
//!
//! The pump holds no buffer while it waits: it reads into its stack, and what is not yet written is what the machine
//! gave out. So an idle session costs the stream, the machine and the service, and nothing else.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use machine::{Machine, Step};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::{Peer, Stream};
use crate::tls::{TlsClient, TlsServer};

/// Most bytes taken from the socket at one time. Lives on the stack during one poll.
const READ_BYTES: usize = 16 * 1024;
/// Slices handed to one vectored write.
const SLICES_MAX: usize = 32;
/// How long a peer has to take our goodbye; it is courtesy only.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// What a pump does about slow peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PumpLimits {
    /// How long the peer may take nothing of what is to be written.
    pub write_stall_max: Duration,
    /// How long a TLS handshake may take that the machine asked for.
    pub handshake_max: Duration,
    /// Bytes that may wait to be written before [`Pump::send`] waits.
    pub output_bytes_max: usize,
}

impl Default for PumpLimits {
    fn default() -> Self {
        Self {
            // A client on a bad mobile link can stall for a minute and come back; after five it will not.
            write_stall_max: Duration::from_mins(5),
            handshake_max: Duration::from_secs(30),
            // Enough to fill several TLS records at once, small against the memory of many slow readers.
            output_bytes_max: 64 * 1024,
        }
    }
}

/// Why a pump stopped.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// The connection failed.
    #[error("connection lost")]
    Io(#[from] io::Error),
    /// The peer did not read.
    #[error("peer took nothing of our output for {} seconds", .0.as_secs())]
    WriteStalled(Duration),
    /// The TLS handshake failed.
    #[error("TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// The TLS handshake took too long.
    #[error("TLS handshake took too long")]
    HandshakeStalled,
    /// The machine asked for TLS and there is none.
    #[error("no TLS is configured for this connection")]
    NoTls,
}

/// Which side of a TLS handshake the pump plays when its machine asks for one.
#[derive(Debug, Clone)]
enum Tls {
    None,
    Server(TlsServer),
    Client(TlsClient),
}

/// Drives one machine over one stream.
pub struct Pump<M: Machine> {
    stream: Stream,
    machine: M,
    tls: Tls,
    limits: PumpLimits,
    /// What is to be written, oldest first; never holds an empty piece.
    output: VecDeque<Bytes>,
    output_bytes: usize,
    /// Written to the TLS layer or the kernel, but not flushed yet.
    unflushed: bool,
    /// Since when the peer takes nothing. Kept here, so that a cancelled call does not set the clock back.
    stalled_since: Option<tokio::time::Instant>,
    /// A step that [`Pump::flush`] met while it looked for output; given out by the next [`Pump::next`].
    held: Option<Step<M::Event>>,
    handshake_until: Option<tokio::time::Instant>,
    ended: bool,
    closed: bool,
}

impl<M: Machine> Pump<M> {
    /// Joins a stream and a machine.
    pub fn new(stream: Stream, machine: M, limits: PumpLimits) -> Self {
        Self {
            stream,
            machine,
            tls: Tls::None,
            limits,
            output: VecDeque::new(),
            output_bytes: 0,
            unflushed: false,
            stalled_since: None,
            held: None,
            handshake_until: None,
            ended: false,
            closed: false,
        }
    }

    /// What to do as a server when the machine asks for TLS.
    #[must_use]
    pub fn with_tls_server(mut self, tls: TlsServer) -> Self {
        self.tls = Tls::Server(tls);
        self
    }

    /// What to do as a client when the machine asks for TLS.
    #[must_use]
    pub fn with_tls_client(mut self, tls: TlsClient) -> Self {
        self.tls = Tls::Client(tls);
        self
    }

    /// The machine, to answer events.
    pub fn machine(&mut self) -> &mut M {
        &mut self.machine
    }

    /// Who is on the other side.
    pub fn peer(&self) -> &Peer {
        self.stream.peer()
    }

    /// Bytes that wait to be written.
    pub fn output_bytes(&self) -> usize {
        self.output_bytes
    }

    /// Moves bytes until the machine has an event. `None`: the connection has ended in good order.
    ///
    /// Cancel-safe: nothing is lost when the future is dropped, so it may stand in a `select!`.
    pub async fn next(&mut self) -> Result<Option<M::Event>, PumpError> {
        loop {
            if self.closed {
                return Ok(None);
            }
            let step = match self.held.take() {
                Some(step) => step,
                None => self.machine.next(Instant::now()),
            };
            match step {
                Step::Write(bytes) => {
                    self.push(bytes);
                    if self.output_bytes > self.limits.output_bytes_max {
                        self.write_down_to(0).await?;
                    }
                }
                Step::Event(event) => {
                    if !self.is_flushed() {
                        self.held = Some(Step::Event(event));
                        self.write_down_to(0).await?;
                        continue;
                    }
                    return Ok(Some(event));
                }
                Step::StartTls => {
                    self.held = Some(Step::StartTls);
                    self.write_down_to(0).await?;
                    self.start_tls().await?;
                    self.held = None;
                    self.machine.tls_started(Instant::now());
                }
                Step::Wait { until } => {
                    self.write_down_to(0).await?;
                    self.read(until).await?;
                }
                Step::Close => {
                    self.held = Some(Step::Close);
                    self.write_down_to(0).await?;
                    self.close().await;
                    self.held = None;
                    self.closed = true;
                }
            }
        }
    }

    /// Sends bytes after all that the machine has given out. Returns when no more than the configured number of bytes
    /// waits to be written, so that a producer goes no faster than its reader. Cancelled, it has still taken `bytes`.
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), PumpError> {
        self.collect();
        self.push(bytes);
        if self.output_bytes > self.limits.output_bytes_max {
            self.write_down_to(self.limits.output_bytes_max / 2).await?;
        }
        Ok(())
    }

    /// Writes all that the machine has given out. Cancel-safe.
    pub async fn flush(&mut self) -> Result<(), PumpError> {
        self.collect();
        self.write_down_to(0).await
    }

    /// Stream and machine apart, for a connection that goes on without the machine. What was not [flushed](Self::flush)
    /// is lost.
    pub fn into_parts(self) -> (Stream, M) {
        (self.stream, self.machine)
    }

    /// Drops what waits to be written, since the peer takes nothing more. What it has said is still read.
    pub fn abandon_output(&mut self) {
        self.output.clear();
        self.output_bytes = 0;
        self.unflushed = false;
        self.stalled_since = None;
    }

    /// Takes the machine's output without going beyond it.
    fn collect(&mut self) {
        while self.held.is_none() {
            match self.machine.next(Instant::now()) {
                Step::Write(bytes) => self.push(bytes),
                Step::Wait { .. } => return,
                step => self.held = Some(step),
            }
        }
    }

    fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.output_bytes += bytes.len();
            self.output.push_back(bytes);
        }
    }

    fn is_flushed(&self) -> bool {
        self.output.is_empty() && !self.unflushed
    }

    /// Writes until no more than `left` bytes wait; with 0 also flushes the TLS layer.
    async fn write_down_to(&mut self, left: usize) -> Result<(), PumpError> {
        while self.output_bytes > left || (left == 0 && self.unflushed) {
            let since = *self.stalled_since.get_or_insert_with(tokio::time::Instant::now);
            let deadline = since + self.limits.write_stall_max;
            match tokio::time::timeout_at(deadline, self.write_some()).await {
                Ok(result) => result?,
                Err(_) => return Err(PumpError::WriteStalled(self.limits.write_stall_max)),
            }
            self.stalled_since = None;
        }
        Ok(())
    }

    /// One write, or one flush when all is written.
    async fn write_some(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            let stream = Pin::new(&mut self.stream);
            if self.output.is_empty() {
                ready!(stream.poll_flush(cx))?;
                self.unflushed = false;
                return Poll::Ready(Ok(()));
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, bytes) in slices.iter_mut().zip(&self.output) {
                *slice = IoSlice::new(bytes);
                count += 1;
            }
            let mut written = ready!(stream.poll_write_vectored(cx, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.output_bytes -= written;
            while written > 0 {
                let first = self.output.front_mut().expect("no more is written than was there");
                let taken = written.min(first.len());
                first.advance(taken);
                written -= taken;
                if first.is_empty() {
                    self.output.pop_front();
                }
            }
            if self.output.is_empty() && self.output.capacity() > SLICES_MAX {
                self.output = VecDeque::new();
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Reads once and gives it to the machine, or returns when `until` has passed.
    async fn read(&mut self, until: Option<Instant>) -> io::Result<()> {
        if self.ended {
            // The machine waits for a peer that says nothing any more.
            self.closed = true;
            return Ok(());
        }
        let read = std::future::poll_fn(|cx| {
            let mut space = [const { MaybeUninit::<u8>::uninit() }; READ_BYTES];
            let mut buffer = ReadBuf::uninit(&mut space);
            let result = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            let now = Instant::now();
            match result {
                Ok(()) if buffer.filled().is_empty() => {
                    self.ended = true;
                    self.machine.end_of_input(now);
                }
                Ok(()) => self.machine.input(buffer.filled(), now),
                // A peer that leaves without closing TLS has left; the protocols above have their own ends of data.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.ended = true;
                    self.machine.end_of_input(now);
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            Poll::Ready(Ok(()))
        });
        match until {
            None => read.await,
            // When the time is over there is nothing to do here: the machine sees it by `now`.
            Some(until) => tokio::time::timeout_at(until.into(), read).await.unwrap_or(Ok(())),
        }
    }

    async fn start_tls(&mut self) -> Result<(), PumpError> {
        let until = *self
            .handshake_until
            .get_or_insert_with(|| tokio::time::Instant::now() + self.limits.handshake_max);
        let result = match &self.tls {
            Tls::None => return Err(PumpError::NoTls),
            Tls::Server(tls) => tokio::time::timeout_at(until, self.stream.accept_tls(tls)).await,
            Tls::Client(tls) => tokio::time::timeout_at(until, self.stream.connect_tls(tls)).await,
        };
        match result {
            Ok(Ok(())) => {
                self.handshake_until = None;
                Ok(())
            }
            Ok(Err(error)) => Err(PumpError::Handshake(error)),
            Err(_) => Err(PumpError::HandshakeStalled),
        }
    }

    async fn close(&mut self) {
        let shutdown = std::future::poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx));
        let _ = tokio::time::timeout(CLOSE_WAIT, shutdown).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Certificate;
    use bytes::BytesMut;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Lines come back as events; `tls` starts TLS, `bye` closes; silence for a minute is an event of its own.
    #[derive(Default)]
    struct Lines {
        input: BytesMut,
        output: VecDeque<Step<String>>,
        deadline: Option<Instant>,
        ended: bool,
    }

    impl Machine for Lines {
        type Event = String;

        fn input(&mut self, bytes: &[u8], now: Instant) {
            self.input.extend_from_slice(bytes);
            self.deadline = Some(now + Duration::from_mins(1));
        }

        fn end_of_input(&mut self, _: Instant) {
            self.ended = true;
        }

        fn next(&mut self, now: Instant) -> Step<String> {
            if let Some(step) = self.output.pop_front() {
                return step;
            }
            if let Some(at) = self.input.iter().position(|&byte| byte == b'\n') {
                let line = self.input.split_to(at + 1);
                return match &line[..] {
                    b"tls\n" => {
                        self.output.push_back(Step::StartTls);
                        Step::Write(Bytes::from_static(b"go\n"))
                    }
                    b"bye\n" => Step::Close,
                    line => Step::Event(String::from_utf8(line.to_vec()).unwrap()),
                };
            }
            if self.ended {
                return Step::Close;
            }
            if self.deadline.is_some_and(|deadline| now >= deadline) {
                self.deadline = None;
                return Step::Event("silence".into());
            }
            Step::Wait { until: self.deadline }
        }

        fn tls_started(&mut self, _: Instant) {
            self.output.push_back(Step::Event("encrypted".into()));
        }
    }

    fn pair(buffer: usize) -> (Pump<Lines>, Stream) {
        let (here, there) = Stream::memory_pair(buffer);
        (Pump::new(here, Lines::default(), PumpLimits::default()), there)
    }

    #[tokio::test]
    async fn events_output_and_end() {
        let (mut pump, mut peer) = pair(1024);
        peer.write_all(b"one\ntwo\nbye\n").await.unwrap();
        assert_eq!(pump.next().await.unwrap().as_deref(), Some("one\n"));
        pump.machine().output.push_back(Step::Write(Bytes::from_static(b"1\n")));
        pump.send(Bytes::from_static(b"literal")).await.unwrap();
        pump.flush().await.unwrap();
        let mut got = [0; 9];
        peer.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"1\nliteral", "output of the machine goes first");
        assert_eq!(pump.next().await.unwrap().as_deref(), Some("two\n"));
        assert_eq!(pump.next().await.unwrap(), None);
        assert_eq!(pump.next().await.unwrap(), None);
        assert_eq!(peer.read(&mut got).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn cancelled_next_loses_nothing() {
        let (mut pump, mut peer) = pair(1024);
        for _ in 0..3 {
            let waited = tokio::time::timeout(Duration::from_millis(1), pump.next()).await;
            assert!(waited.is_err());
        }
        peer.write_all(b"o").await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(1), pump.next()).await.is_err());
        peer.write_all(b"ne\n").await.unwrap();
        drop(peer);
        assert_eq!(pump.next().await.unwrap().as_deref(), Some("one\n"));
        assert_eq!(pump.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn slow_reader_is_left() {
        let (mut pump, _peer) = pair(16);
        pump.limits.write_stall_max = Duration::from_millis(20);
        let mut sent = 0;
        let error = loop {
            match pump.send(Bytes::from(vec![0; 10_000])).await {
                Ok(()) => sent += 10_000,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, PumpError::WriteStalled(_)), "{error}");
        assert!(sent <= pump.limits.output_bytes_max);
    }

    #[tokio::test]
    async fn last_words_of_a_peer_that_takes_no_more() {
        let (mut pump, mut peer) = pair(16);
        pump.limits.write_stall_max = Duration::from_millis(20);
        peer.write_all(b"enough\n").await.unwrap();
        while pump.send(Bytes::from(vec![0; 10_000])).await.is_ok() {}
        assert!(pump.output_bytes() > 0);
        pump.abandon_output();
        assert_eq!(pump.output_bytes(), 0);
        assert_eq!(pump.next().await.unwrap().as_deref(), Some("enough\n"));
    }

    #[tokio::test]
    async fn upgrade() {
        let made = Certificate::self_signed(&["localhost".to_owned()]).unwrap();
        let (pump, mut peer) = pair(64 * 1024);
        let mut pump = pump.with_tls_server(TlsServer::new(&[made.certificate().unwrap()]).unwrap());
        let task = tokio::spawn(async move {
            assert_eq!(pump.next().await.unwrap().as_deref(), Some("encrypted"));
            assert!(pump.peer().tls.is_some());
            assert_eq!(pump.next().await.unwrap().as_deref(), Some("secret\n"));
            pump.send(Bytes::from_static(b"yes")).await.unwrap();
            pump.flush().await.unwrap();
            assert_eq!(pump.next().await.unwrap(), None);
        });
        peer.write_all(b"tls\n").await.unwrap();
        let mut go = [0; 3];
        peer.read_exact(&mut go).await.unwrap();
        peer.connect_tls(&TlsClient::trusting_self_signed("localhost", &made).unwrap()).await.unwrap();
        peer.write_all(b"secret\n").await.unwrap();
        peer.flush().await.unwrap();
        let mut yes = [0; 3];
        peer.read_exact(&mut yes).await.unwrap();
        // Leaving without a word of TLS is an end like another.
        drop(peer);
        task.await.unwrap();
    }
}
