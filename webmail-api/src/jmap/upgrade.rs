//! The handshake that makes a WebSocket of a connection (RFC 6455 §4.2), and how text is written to one.
//!
//! Long text goes in pieces (RFC 6455 §5.4): each is copied where it waits to be taken, so that a client which takes little
//! at a time costs no more than a piece.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::SinkExt as _;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::problem::Problem;

/// The only version there is (RFC 6455 §4.1).
const VERSION: &str = "13";
/// What the client's key is put together with (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Octets that are read at once.
const READ: usize = 16 << 10;
/// Octets of a piece.
const PIECE: usize = 64 << 10;

/// A connection that is a WebSocket.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;
pub(super) use tokio_tungstenite::tungstenite::Error as SocketError;

/// A handshake that was asked for.
pub(super) struct Upgrade {
    on: OnUpgrade,
    protocol: &'static str,
    accept: String,
}

impl Upgrade {
    /// Reads the client's part; it has to offer the subprotocol.
    pub(super) fn read(parts: &mut Parts, protocol: &'static str) -> Result<Self, Problem> {
        let headers = &parts.headers;
        let wrong = |why: &str| Err(Problem::new(StatusCode::BAD_REQUEST, why));
        let is_asked_for =
            has(headers, &header::CONNECTION, "upgrade") && has(headers, &header::UPGRADE, "websocket");
        if !is_asked_for {
            return wrong("no WebSocket is asked for");
        }
        if !has(headers, &header::SEC_WEBSOCKET_VERSION, VERSION) {
            return Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "another version of WebSocket is needed"));
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
        let Some(key) = key.filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16)) else {
            return wrong("Sec-WebSocket-Key is missing or is none");
        };
        if !has(headers, &header::SEC_WEBSOCKET_PROTOCOL, protocol) {
            return wrong("the subprotocol is not asked for");
        }
        let accept = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat()));
        match parts.extensions.remove::<OnUpgrade>() {
            Some(on) => Ok(Self { on, protocol, accept }),
            // RFC 8441, which has it over HTTP/2, is not here.
            None => wrong("a WebSocket is to be had over HTTP/1.1"),
        }
    }

    /// The server's part of the handshake.
    pub(super) fn answer(&self) -> Response {
        let headers = [
            (header::CONNECTION, "upgrade"),
            (header::UPGRADE, "websocket"),
            (header::SEC_WEBSOCKET_ACCEPT, self.accept.as_str()),
            (header::SEC_WEBSOCKET_PROTOCOL, self.protocol),
        ];
        (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
    }

    /// The WebSocket, once the answer is written. It reads messages of up to `most` octets.
    pub(super) async fn socket(self, most: usize) -> Result<Socket, hyper::Error> {
        let stream = TokioIo::new(self.on.await?);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ)
            .write_buffer_size(0)
            .max_message_size(Some(most))
            .max_frame_size(Some(most));
        Ok(WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await)
    }
}

/// An answer to who has no WebSocket: it says which version there would be (RFC 6455 §4.4).
pub(super) fn refusal(problem: Problem) -> Response {
    let mut response = problem.into_response();
    response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
    response
}

/// Writes a text.
pub(super) async fn write(socket: &mut Socket, text: String) -> Result<(), SocketError> {
    let mut rest = Bytes::from(text);
    let mut kind = Data::Text;
    loop {
        let piece = rest.split_to(rest.len().min(PIECE));
        let is_last = rest.is_empty();
        socket.send(Message::Frame(Frame::message(piece, OpCode::Data(kind), is_last))).await?;
        if is_last {
            return Ok(());
        }
        kind = Data::Continue;
    }
}

/// Whether a list in a header has this word.
fn has(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let lists = headers.get_all(name).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|given| given.trim().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn read(headers: &[(&str, &str)]) -> StatusCode {
        let mut request = Request::get("/jmap/ws");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        match Upgrade::read(&mut parts, "jmap") {
            Ok(upgrade) => upgrade.answer().status(),
            Err(problem) => refusal(problem).status(),
        }
    }

    #[test]
    fn handshakes_that_are_none() {
        let good = [
            ("Connection", "keep-alive, Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Protocol", "chat, jmap"),
        ];
        // Without a connection that can become one.
        assert_eq!(read(&good), StatusCode::BAD_REQUEST);
        for (at, value, status) in [
            (0, "close", 400),
            (1, "h2c", 400),
            (2, "8", 426),
            (3, "x", 400),
            (3, "AAAA", 400),
            (4, "chat", 400),
        ] {
            let mut bad = good;
            bad[at].1 = value;
            assert_eq!(read(&bad).as_u16(), status, "{bad:?}");
        }
    }
}
