//! One connection of the admin API.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use net::shutdown::ShutdownGuard;
use net::stream::{End, Stream};
use tower::ServiceExt as _;

use super::caller::Connection;

/// How long a request's header may take to arrive, and an idle connection may stay.
const HEADER_SECONDS_MAX: u64 = 30;

/// Serves HTTP/1.1 until the peer has enough or the process wants to end. `plain` says that requests with tokens are
/// taken without TLS, which is for listeners that nobody outside this machine reaches.
pub async fn serve(stream: Stream, router: Router, plain: bool, guard: ShutdownGuard) {
    let encrypted = stream.is_encrypted();
    let connection = match &stream.peer().remote {
        End::Unix { uid, .. } => Connection::Unix { uid: *uid },
        End::Tcp(remote) => {
            Connection::Tcp { remote: *remote, private: encrypted || (plain && remote.ip().is_loopback()) }
        }
        End::Memory => Connection::Unix { uid: None },
    };
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(connection.clone());
        router.clone().oneshot(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEADER_SECONDS_MAX))
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = guard.requested() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "admin connection ended");
    }
}
