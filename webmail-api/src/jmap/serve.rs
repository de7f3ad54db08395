//! One connection: HTTP/1.1, or HTTP/2 where the client offers it in the TLS handshake.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use net::shutdown::ShutdownGuard;
use net::stream::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};
use tower::ServiceExt as _;

use super::service::Jmap;
use crate::request::Remote;

/// What may be said in the TLS handshake (RFC 7301), the better one first.
pub(super) const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Seconds for the header of a request to arrive.
const HEADER_SECONDS_MAX: u64 = 30;
/// Octets of a request's header; a path with an id and a name of a file fits many times.
const HEADER_BYTES_MAX: usize = 32 << 10;

impl Jmap {
    /// What the TLS handshake of its listeners is to offer.
    pub fn protocols() -> &'static [&'static [u8]] {
        &PROTOCOLS
    }

    /// Serves one connection until the client has enough or the process wants to end.
    pub async fn serve(&self, stream: Stream, guard: ShutdownGuard) {
        let config = &self.inner.config;
        let remote = Remote(stream.peer().remote.ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let (router, shutdown) = (self.router(), guard.clone());
        // A WebSocket goes on in a task of its own when HTTP is done, and is still this connection: it holds one of these.
        let (open, mut all_closed) = mpsc::channel::<()>(1);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(remote);
            request.extensions_mut().insert(Ending(shutdown.clone()));
            request.extensions_mut().insert(Open(open.clone()));
            router.clone().oneshot(request)
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(HEADER_SECONDS_MAX))
            .max_buf_size(HEADER_BYTES_MAX * 2);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(config.streams_max.max(1))
            .max_header_list_size(HEADER_BYTES_MAX as u32)
            .max_send_buf_size(256 << 10)
            .keep_alive_interval(Some(Duration::from_secs(config.idle_seconds_max.max(10))))
            .keep_alive_timeout(Duration::from_secs(20));
        let stall = Duration::from_secs(config.write_stall_seconds_max.max(1));
        let io = TokioIo::new(Patient::new(stream, stall));
        let mut served = Box::pin(builder.serve_connection_with_upgrades(io, service));
        let result = tokio::select! {
            result = served.as_mut() => result,
            () = guard.requested() => {
                served.as_mut().graceful_shutdown();
                served.as_mut().await
            }
        };
        if let Err(error) = result {
            tracing::debug!(remote_ip = %remote.0, error = %error, "connection ended");
        }
        drop(served);
        // Nothing is ever sent: this ends when nobody holds one any more.
        let _ = all_closed.recv().await;
    }
}

/// Tells long answers that the process wants to end.
#[derive(Clone)]
pub(super) struct Ending(pub(super) ShutdownGuard);

/// Says that the connection goes on, as long as it is held.
#[derive(Clone)]
pub(super) struct Open(#[allow(dead_code, reason = "it is held, not used")] mpsc::Sender<()>);

/// A stream that gives up when nothing of what is written to it is taken for too long. A client that does not read
/// would hold what it is sent for ever.
struct Patient {
    stream: Stream,
    patience: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: Stream, patience: Duration) -> Self {
        Self { stream, patience, stalled: None }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
