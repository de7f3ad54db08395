//! JMAP over a WebSocket (RFC 8887): requests and their answers on one connection, and push on it too.
//!
//! One task has the socket. While it writes it does not read, so that a client that does not take its answers is not asked
//! for more; requests run beside it, no more of them than `maxConcurrentRequests`, and each counts until its answer is
//! written.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use directory::Login;
use futures_util::{SinkExt as _, StreamExt as _};
use jmap_protocol::websocket::{Message, Refused, answer};
use serde_json::{Value, json};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::auth::User;
use super::calls::{Kind, Permit};
use super::eventsource::at;
use super::news::{self, News};
use super::problem::Problem;
use super::serve::{Ending, Open};
use super::service::Jmap;
use super::upgrade::{Socket, SocketError, Upgrade, refusal};
use super::{api, session, upgrade};

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
    request: Request,
) -> Response {
    match begin(jmap, user, ending, open, request) {
        Ok(answer) => answer,
        Err(problem) => refusal(problem),
    }
}

fn begin(jmap: Jmap, user: User, ending: Ending, open: Open, request: Request) -> Result<Response, Problem> {
    let config = &jmap.inner.config;
    let most = config.request_bytes_max;
    let (mut parts, _) = request.into_parts();
    let upgrade = Upgrade::read(&mut parts, PROTOCOL)?;
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
    let answer = upgrade.answer();
    tokio::spawn(async move {
        let (_open, _permit) = (open, permit);
        match upgrade.socket(most).await {
            Ok(socket) => session.run(socket, login, ending).await,
            Err(error) => tracing::debug!(%error, "a connection did not become a WebSocket"),
        }
    });
    Ok(answer)
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
    Say(CloseCode, &'static str),
}

/// What is said to the client.
enum Said {
    Text(Value),
    /// So that it shows that it is still there.
    Ping,
}

impl Session {
    async fn run(mut self, mut socket: Socket, mut login: Login, ending: Ending) {
        let end = self.talk(&mut socket, &mut login, &ending).await;
        let End::Say(code, reason) = end else {
            // The answer to the client's Close (RFC 6455 §5.5.1) goes out with the next look at the socket.
            let _ = tokio::time::timeout(Duration::from_secs(FAREWELL_SECONDS), socket.next()).await;
            return;
        };
        // Nobody is there to take what has no answer yet.
        self.running.shutdown().await;
        let number = u16::from(code);
        tracing::debug!(account_id = %self.user.principal.account, code = number, reason, "websocket ends");
        let last = Frame::Close(Some(CloseFrame { code, reason: reason.into() }));
        let farewell = async {
            if socket.send(last).await.is_err() {
                return;
            }
            // RFC 6455 §7.1.1: the client's Close is waited for, or what is on the way to it may be lost.
            while let Some(Ok(_)) = socket.next().await {}
        };
        let _ = tokio::time::timeout(Duration::from_secs(FAREWELL_SECONDS), farewell).await;
    }

    async fn talk(&mut self, socket: &mut Socket, login: &mut Login, ending: &Ending) -> End {
        let config = &self.jmap.inner.config;
        let idle = Duration::from_secs(config.idle_seconds_max.max(2));
        let poll = (config.idle_poll_seconds > 0).then(|| Duration::from_secs(config.idle_poll_seconds));
        let mut changes = self.user.account.watch();
        let mut next_ping = Instant::now() + idle / 2;
        loop {
            if self.user.account.is_stopped() {
                return End::Say(CloseCode::Away, "the account is not served here any more");
            }
            drop(changes.borrow_and_update());
            let said = match self.news() {
                Some(news) => Some(Said::Text(news)),
                None => {
                    let poll = poll.filter(|_| self.push.is_some()).map(|poll| Instant::now() + poll);
                    tokio::select! {
                        biased;
                        () = login.withdrawn() => return End::Say(CloseCode::Policy, "the login was withdrawn"),
                        () = ending.0.requested() => return End::Say(CloseCode::Away, "the server ends"),
                        () = sleep_until(self.until) => {
                            return End::Say(CloseCode::Away, "log in again");
                        }
                        Some(done) = self.running.join_next() => {
                            if let Err(end) = self.say(socket, done, login).await {
                                return end;
                            }
                            None
                        }
                        frame = socket.next() => {
                            self.heard = Instant::now();
                            match self.hear(frame).await {
                                Ok(refused) => refused.map(Said::Text),
                                Err(end) => return end,
                            }
                        }
                        changed = changes.changed(), if self.push.is_some() => {
                            if changed.is_err() {
                                return End::Say(CloseCode::Away, "the account is not served here any more");
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
                                return End::Say(CloseCode::Away, "nothing was heard for too long");
                            }
                            Some(Said::Ping)
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
    async fn hear(&mut self, frame: Option<Result<Frame, SocketError>>) -> Result<Option<Value>, End> {
        let text = match frame {
            None | Some(Ok(Frame::Close(_))) => return Err(End::Gone),
            Some(Err(error)) => return Err(broken(&error)),
            Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => {
                self.minute.turn();
                self.minute.controls += 1;
                if self.minute.controls > CONTROLS_MAX {
                    return Err(End::Say(CloseCode::Policy, "too many control frames"));
                }
                return Ok(None);
            }
            // RFC 8887 §4.2: binary data is not JMAP.
            Some(Ok(Frame::Binary(_))) => {
                return Err(End::Say(CloseCode::Unsupported, "binary data is not taken"));
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
            return Err(End::Say(CloseCode::Policy, "too many messages were refused"));
        }
        Ok(Some(answer("RequestError", problem.into_body(), request_id)))
    }

    /// Says what a request has come to.
    async fn say(
        &self,
        socket: &mut Socket,
        done: Result<(Value, Permit), JoinError>,
        login: &mut Login,
    ) -> Result<(), End> {
        let Ok((said, permit)) = done else {
            tracing::error!(account_id = %self.user.principal.account, "a request broke off");
            return Err(End::Say(CloseCode::Error, "a request broke off"));
        };
        let written = write(socket, Said::Text(said), login).await;
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
async fn write(socket: &mut Socket, said: Said, login: &mut Login) -> Result<(), End> {
    let write = async {
        match said {
            Said::Text(said) => upgrade::write(socket, said.to_string()).await,
            Said::Ping => socket.send(Frame::Ping(Bytes::new())).await,
        }
    };
    tokio::select! {
        biased;
        written = write => written.map_err(|_| End::Gone),
        // Part of a message may be written, so that nothing can be said any more.
        () = login.withdrawn() => Err(End::Gone),
    }
}

/// What a broken frame or message is answered with (RFC 6455 §7.4.1).
fn broken(error: &SocketError) -> End {
    match error {
        SocketError::Capacity(_) => End::Say(CloseCode::Size, "beyond maxSizeRequest"),
        SocketError::Utf8(_) => End::Say(CloseCode::Invalid, "not UTF-8"),
        SocketError::Protocol(_) => End::Say(CloseCode::Protocol, "not a frame that may come"),
        _ => End::Gone,
    }
}
