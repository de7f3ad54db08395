//! JMAP over a WebSocket (RFC 8887): requests and their answers on one connection, and push on it too.
//!
//! One task has the socket. While it writes it does not read, so that a client that does not take its answers is not asked
//! for more; requests run beside it, no more of them than `maxConcurrentRequests`, and each counts until its answer is
//! written.

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, WebSocketUpgrade, close_code};
use axum::http::StatusCode;
use axum::response::Response;
use directory::Login;
use jmap_protocol::websocket::{Message, Refused, answer};
use serde_json::{Value, json};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Error as SocketError;

use super::auth::User;
use super::calls::{Kind, Permit};
use super::eventsource::at;
use super::news::{self, News};
use super::problem::Problem;
use super::serve::{Ending, Open};
use super::service::Jmap;
use super::{api, session};

/// The subprotocol (RFC 8887 §4.1).
const PROTOCOL: &str = "jmap";
/// Messages within a minute that are refused. A program that is in order has none; one that is not would go on for ever.
const REFUSED_MAX: u32 = 100;
/// Control frames within a minute.
const CONTROLS_MAX: u32 = 600;
/// Octets of a message that are read as they come; longer ones are read where nobody waits.
const FEW: usize = 64 << 10;
/// Seconds for the client to take the last word.
const FAREWELL_SECONDS: u64 = 5;

pub(super) async fn open(
    State(jmap): State<Jmap>,
    user: User,
    axum::Extension(ending): axum::Extension<Ending>,
    axum::Extension(open): axum::Extension<Open>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Problem> {
    let config = &jmap.inner.config;
    let most = config.request_bytes_max;
    let upgrade = upgrade.protocols([PROTOCOL]).max_message_size(most).max_frame_size(most);
    if upgrade.selected_protocol().is_none() {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the subprotocol jmap is not asked for"));
    }
    let permit = jmap.inner.calls.begin(user.principal.account, Kind::WebSocket, config.web_sockets_max);
    let permit = permit.ok_or_else(|| Problem::too_many("maxConcurrentRequests"))?;
    let login = jmap.inner.directory.logged_in(&user.principal);
    let now = Instant::now();
    let session = Session {
        until: now + Duration::from_secs(config.event_source_seconds_max.max(1)),
        heard: now,
        minute: Minute { until: now, refused: 0, controls: 0 },
        running: JoinSet::new(),
        push: None,
        jmap,
        user,
    };
    Ok(upgrade.on_upgrade(move |socket| async move {
        let (_open, _permit) = (open, permit);
        session.run(socket, login, ending).await;
    }))
}

struct Session {
    jmap: Jmap,
    user: User,
    /// Requests under way, each with what counts it.
    running: JoinSet<(Value, Permit)>,
    push: Option<News>,
    /// When the client has to log in anew.
    until: Instant,
    /// When something came last.
    heard: Instant,
    minute: Minute,
}

/// What came since the minute began that should not have come, or not so often.
struct Minute {
    until: Instant,
    refused: u32,
    controls: u32,
}

/// Why the connection ends.
#[derive(Debug)]
enum End {
    /// The client has closed it, or it is broken.
    Gone,
    /// This is said to the client.
    Say(u16, &'static str),
}

impl Session {
    async fn run(mut self, mut socket: WebSocket, mut login: Login, ending: Ending) {
        let end = self.talk(&mut socket, &mut login, &ending).await;
        let End::Say(code, reason) = end else {
            // The answer to the client's Close (RFC 6455 §5.5.1) goes out with the next look at the socket.
            let _ = tokio::time::timeout(Duration::from_secs(FAREWELL_SECONDS), socket.recv()).await;
            return;
        };
        // Nobody is there to take what has no answer yet.
        self.running.shutdown().await;
        tracing::debug!(account_id = %self.user.principal.account, code, reason, "websocket ends");
        let last = Frame::Close(Some(CloseFrame { code, reason: reason.into() }));
        let farewell = async {
            if socket.send(last).await.is_err() {
                return;
            }
            // RFC 6455 §7.1.1: the client's Close is waited for, or what is on the way to it may be lost.
            while let Some(Ok(_)) = socket.recv().await {}
        };
        let _ = tokio::time::timeout(Duration::from_secs(FAREWELL_SECONDS), farewell).await;
    }

    async fn talk(&mut self, socket: &mut WebSocket, login: &mut Login, ending: &Ending) -> End {
        let config = &self.jmap.inner.config;
        let idle = Duration::from_secs(config.idle_seconds_max.max(2));
        let poll = (config.idle_poll_seconds > 0).then(|| Duration::from_secs(config.idle_poll_seconds));
        let mut changes = self.user.account.watch();
        let mut next_ping = Instant::now() + idle / 2;
        loop {
            if self.user.account.is_stopped() {
                return End::Say(close_code::AWAY, "the account is not served here any more");
            }
            drop(changes.borrow_and_update());
            let said = match self.news() {
                Some(news) => Some(Frame::text(news.to_string())),
                None => {
                    let poll = poll.filter(|_| self.push.is_some()).map(|poll| Instant::now() + poll);
                    tokio::select! {
                        biased;
                        () = login.withdrawn() => return End::Say(close_code::POLICY, "the login was withdrawn"),
                        () = ending.0.requested() => return End::Say(close_code::AWAY, "the server ends"),
                        () = sleep_until(self.until) => {
                            return End::Say(close_code::AWAY, "log in again");
                        }
                        Some(done) = self.running.join_next() => {
                            if let Err(end) = self.say(socket, done, login).await {
                                return end;
                            }
                            None
                        }
                        frame = socket.recv() => {
                            self.heard = Instant::now();
                            match self.hear(frame).await {
                                Ok(refused) => refused.map(|refused| Frame::text(refused.to_string())),
                                Err(end) => return end,
                            }
                        }
                        changed = changes.changed(), if self.push.is_some() => {
                            if changed.is_err() {
                                return End::Say(close_code::AWAY, "the account is not served here any more");
                            }
                            None
                        }
                        () = at(poll) => {
                            // Other nodes' commits come to light here where their hint was lost.
                            let _ = self.user.account.refresh().await;
                            None
                        }
                        () = sleep_until(next_ping) => {
                            next_ping = Instant::now() + idle / 2;
                            if self.heard.elapsed() >= idle && self.running.is_empty() {
                                return End::Say(close_code::AWAY, "nothing was heard for too long");
                            }
                            Some(Frame::Ping(bytes::Bytes::new()))
                        }
                    }
                }
            };
            if let Some(said) = said
                && let Err(end) = write(socket, said, login).await
            {
                return end;
            }
        }
    }

    /// Takes what came, and gives what is to be said of it at once.
    async fn hear(&mut self, frame: Option<Result<Frame, axum::Error>>) -> Result<Option<Value>, End> {
        let text = match frame {
            None | Some(Ok(Frame::Close(_))) => return Err(End::Gone),
            Some(Err(error)) => return Err(broken(error)),
            Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {
                self.minute.turn();
                self.minute.controls += 1;
                if self.minute.controls > CONTROLS_MAX {
                    return Err(End::Say(close_code::POLICY, "too many control frames"));
                }
                return Ok(None);
            }
            // RFC 8887 §4.2: binary data is not JMAP.
            Some(Ok(Frame::Binary(_))) => {
                return Err(End::Say(close_code::UNSUPPORTED, "binary data is not taken"));
            }
            Some(Ok(Frame::Text(text))) => text,
        };
        let limits = self.jmap.inner.config.limits();
        let is_short = text.len() <= FEW;
        let parse = move || {
            Message::parse(text.as_bytes(), limits, |capability| session::CAPABILITIES.contains(&capability))
        };
        let message = if is_short {
            parse()
        } else {
            // Ten megabytes take a moment to read, during which others are not to wait.
            match api::run_aside(parse).await {
                Ok(message) => message,
                Err(problem) => return self.refuse(problem, None),
            }
        };
        match message {
            Ok(Message::Request { id, request }) => {
                let most = self.jmap.inner.config.requests_at_once_max;
                let account = self.user.principal.account;
                let Some(permit) = self.jmap.inner.calls.begin(account, Kind::Request, most) else {
                    return self.refuse(Problem::too_many("maxConcurrentRequests"), id.as_deref());
                };
                let (jmap, user) = (self.jmap.clone(), self.user.clone());
                self.running.spawn(async move {
                    let said = match api::perform(&jmap, user, request).await {
                        Ok(response) => answer("Response", response, id.as_deref()),
                        Err(problem) => answer("RequestError", problem.into_body(), id.as_deref()),
                    };
                    (said, permit)
                });
                Ok(None)
            }
            Ok(Message::PushEnable { types, push_state }) => {
                // So that what is known now is what is so, whichever node made it so. Trouble shows at the next try.
                let _ = self.user.account.refresh().await;
                let state = self.user.account.state();
                self.push = Some(News::since(push_state.as_deref(), self.user.account_id(), types, &state));
                Ok(None)
            }
            Ok(Message::PushDisable) => {
                self.push = None;
                Ok(None)
            }
            Err(Refused { error, request_id }) => self.refuse(error.into(), request_id.as_deref()),
        }
    }

    /// A message is refused; a client that goes on with such is not listened to any more.
    fn refuse(&mut self, problem: Problem, request_id: Option<&str>) -> Result<Option<Value>, End> {
        self.minute.turn();
        self.minute.refused += 1;
        if self.minute.refused > REFUSED_MAX {
            return Err(End::Say(close_code::POLICY, "too many messages were refused"));
        }
        Ok(Some(answer("RequestError", problem.into_body(), request_id)))
    }

    /// Says what a request has come to.
    async fn say(
        &self,
        socket: &mut WebSocket,
        done: Result<(Value, Permit), JoinError>,
        login: &mut Login,
    ) -> Result<(), End> {
        let Ok((said, permit)) = done else {
            tracing::error!(account_id = %self.user.principal.account, "a request broke off");
            return Err(End::Say(close_code::ERROR, "a request broke off"));
        };
        let written = write(socket, Frame::text(said.to_string()), login).await;
        drop(permit);
        written
    }

    /// A StateChange (RFC 8887 §4.3.5.1), where one is due.
    fn news(&mut self) -> Option<Value> {
        let state = self.user.account.state();
        let mut change = self.push.as_mut()?.next(&state)?;
        change["pushState"] = json!(news::moment(&state));
        Some(change)
    }
}

impl Minute {
    fn turn(&mut self) {
        let now = Instant::now();
        if now >= self.until {
            *self = Self { until: now + Duration::from_secs(60), refused: 0, controls: 0 };
        }
    }
}

/// Writes, for as long as the login holds. A client that takes nothing is given up by the stream below.
async fn write(socket: &mut WebSocket, frame: Frame, login: &mut Login) -> Result<(), End> {
    tokio::select! {
        biased;
        written = socket.send(frame) => written.map_err(|_| End::Gone),
        // Part of a frame may be written, so that nothing can be said any more.
        () = login.withdrawn() => Err(End::Gone),
    }
}

/// What a broken frame or message is answered with (RFC 6455 §7.4.1).
fn broken(error: axum::Error) -> End {
    let error = error.into_inner();
    match error.downcast_ref::<SocketError>() {
        Some(SocketError::Capacity(_)) => End::Say(close_code::SIZE, "beyond maxSizeRequest"),
        Some(SocketError::Utf8(_)) => End::Say(close_code::INVALID, "not UTF-8"),
        Some(SocketError::Protocol(_)) => End::Say(close_code::PROTOCOL, "not a frame that may come"),
        _ => End::Gone,
    }
}
