//! Connections: dialled, greeted, encrypted, logged in, and ready for a transaction.
//!
//! mail-send's `SmtpClient` makes the TCP connection, from the address that it is to come from; the dialogue over it is
//! that of `protocol/smtp`'s client machine, moved by `net`'s pump (see `docs/adr/0005-mail-send-connects.md`).

use std::error::Error as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mail_send::SmtpClient;
use net::pump::{Pump, PumpError, PumpLimits};
use net::stream::Stream;
use net::tls::TlsClient;
use queue::item::Tls;
use queue::{Clock, Dialogues};
use sasl::Mechanism;
use sasl::server::Binding;
use smtp_protocol::client::{Client, Event, Failure, Sent};
use smtp_protocol::command::HelloKind;
use smtp_protocol::extension::Extensions;
use smtp_protocol::reply::Reply;
use smtp_protocol::status::{Status, status};

use crate::across::{Elsewhere, Place};
use crate::config::Timeouts;
use crate::mx::Candidate;
use crate::outcome::{Stage, Verdict, judge, status_of};
use crate::pool::Key;
use crate::route::{Login, Route};
use crate::throttle::Slot;
use crate::tls_policy::{Connectors, TlsPolicy};

/// What is to be connected to, and how.
pub(crate) struct Dial<'a> {
    pub(crate) candidate: &'a Candidate,
    pub(crate) route: &'a Route,
    pub(crate) policy: TlsPolicy,
    /// The address to come from, and our name there.
    pub(crate) source: Option<IpAddr>,
    pub(crate) hostname: &'a str,
    pub(crate) timeouts: &'a Timeouts,
    pub(crate) connectors: &'a Connectors,
    /// The other regions, where there are any.
    pub(crate) elsewhere: Option<&'a Elsewhere>,
    pub(crate) view: View,
}

/// Where the dialogue of a connection can be watched.
#[derive(Clone, Debug)]
pub(crate) struct View {
    dialogues: Dialogues,
    clock: Clock,
    connection: u64,
}

impl View {
    pub(crate) fn new(dialogues: &Dialogues, clock: &Clock) -> Self {
        Self { dialogues: dialogues.clone(), clock: clock.clone(), connection: dialogues.connection() }
    }

    fn say(&self, host: &str, text: impl FnOnce() -> String) {
        self.dialogues.say(self.clock.now(), self.connection, host, text);
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) struct NotConnected {
    pub(crate) status: Status,
    pub(crate) text: String,
    /// TLS has failed, and a connection in plain may do better.
    pub(crate) tls_failed: bool,
    /// What the host itself said.
    pub(crate) reply: Option<Reply>,
}

/// An open connection between two transactions.
pub(crate) struct Connection {
    pub(crate) pump: Pump<Client>,
    pub(crate) key: Key,
    /// The TLS of this connection, for the record of a delivery.
    pub(crate) verified: bool,
    /// Transactions that ended with a message.
    pub(crate) messages: u32,
    /// The last transaction did not end with a message, so the host still remembers it.
    pub(crate) needs_reset: bool,
    /// It was used by another message before.
    pub(crate) reused: bool,
    pub(crate) last_used: Instant,
    /// The time that has to be left for the answer to a message.
    pub(crate) answer_time: Duration,
    pub(crate) view: View,
    /// Counts it for its site while it is open.
    pub(crate) _slot: Slot,
}

/// The connection is of no use any more.
#[derive(Debug)]
pub(crate) struct Lost(pub(crate) String);

impl NotConnected {
    fn lost(stage: &str, lost: &Lost) -> Self {
        // RFC 3463 §3.5: 4.1 no answer from host, 4.2 bad connection.
        let text = format!("{stage}: {}", lost.0);
        Self { status: status(4, 4, 2), text, tls_failed: false, reply: None }
    }

    fn refused(stage: Stage, reply: Reply) -> Self {
        // What is said before MAIL is about us or the host and never about the message, so it is never final.
        let own = status_of(stage, &reply);
        let status = Status { class: 4, ..own };
        Self { status, text: reply.to_string(), tls_failed: false, reply: Some(reply) }
    }

    pub(crate) fn ours(status: Status, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), tls_failed: false, reply: None }
    }
}

/// Connects, and goes as far as the first MAIL. Cancelled, it leaves nothing.
pub(crate) async fn connect(dial: &Dial<'_>, key: Key, slot: Slot) -> Result<Connection, NotConnected> {
    let Dial { candidate, route, policy, timeouts, .. } = *dial;
    if let Some(place) = &route.place {
        let stream = dial_place(dial, place).await?;
        return Box::pin(begin(dial, stream, None, key, slot)).await;
    }
    let tls = dial
        .connectors
        .client(policy, &route.trust, &candidate.host)
        .or_else(|error| match policy {
            // Names such as `mx_1.example` are none that a certificate could be for.
            TlsPolicy::IfOffered => Ok(None),
            _ => Err(error),
        })
        .map_err(|error| NotConnected::ours(status(4, 7, 5), error.to_string()))?;
    let mut stream = dial_tcp(dial.source, candidate.address, Duration::from_secs(timeouts.connect)).await?;
    dial.view.say(&candidate.host, || format!("connected to {}", candidate.address));
    if policy == TlsPolicy::Implicit
        && let Some(tls) = &tls
    {
        let handshake =
            tokio::time::timeout(Duration::from_secs(timeouts.tls), stream.connect_tls(tls)).await;
        let failed = match handshake {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("it took too long".to_owned()),
        };
        if let Some(reason) = failed {
            return Err(NotConnected::ours(status(4, 7, 5), format!("TLS handshake: {reason}")));
        }
    }
    begin(dial, stream, tls, key, slot).await
}

/// Over a connection: hears who is there, says who we are, and logs in where that is asked.
async fn begin(
    dial: &Dial<'_>,
    stream: Stream,
    tls: Option<TlsClient>,
    key: Key,
    slot: Slot,
) -> Result<Connection, NotConnected> {
    let Dial { route, policy, timeouts, .. } = *dial;
    let machine = Client::new(false).with_patience(timeouts.patience());
    let limits = PumpLimits {
        write_stall_max: Duration::from_secs(timeouts.block),
        handshake_max: Duration::from_secs(timeouts.tls),
        ..PumpLimits::default()
    };
    let can_encrypt = tls.is_some() && policy != TlsPolicy::Implicit;
    let mut pump = Pump::new(stream, machine, limits);
    if let Some(tls) = tls {
        pump = pump.with_tls_client(tls);
    }
    let mut connection = Connection {
        pump,
        key,
        verified: matches!(policy, TlsPolicy::Required { verified: true } | TlsPolicy::Implicit),
        messages: 0,
        needs_reset: false,
        reused: false,
        last_used: Instant::now(),
        answer_time: dial.timeouts.answer(),
        view: dial.view.clone(),
        _slot: slot,
    };
    let greeting = connection.hear("greeting").await?;
    if judge(Stage::Greeting, &greeting) != Verdict::Accepted {
        return Err(NotConnected::refused(Stage::Greeting, greeting));
    }
    hello(&mut connection, dial.hostname).await?;
    if can_encrypt {
        encrypt(&mut connection, dial).await?;
    }
    let login = route.smart_host.as_ref().and_then(|smart| smart.login.as_ref());
    if let Some(login) = login {
        log_in(&mut connection, login).await?;
    }
    Ok(connection)
}

/// A connection to a node of another region.
async fn dial_place(dial: &Dial<'_>, place: &Place) -> Result<Stream, NotConnected> {
    let failed = |reason: String| NotConnected::ours(status(4, 4, 1), reason);
    let elsewhere = dial.elsewhere.ok_or_else(|| failed(format!("{place} is not configured")))?;
    let stream = elsewhere.connect(place).await.map_err(failed)?;
    dial.view.say(&dial.candidate.host, || format!("connected to {place}"));
    Ok(stream)
}

async fn dial_tcp(
    source: Option<IpAddr>,
    target: SocketAddr,
    patience: Duration,
) -> Result<Stream, NotConnected> {
    let dialled = match source {
        Some(source) => SmtpClient::connect_using(source, target, patience).await,
        None => SmtpClient::connect(target, patience).await,
    };
    // RFC 3463 §3.5: 4.1, no answer from host.
    let failed =
        |reason: String| NotConnected::ours(status(4, 4, 1), format!("connect to {target}: {reason}"));
    let connected = dialled.map_err(|error| match error {
        mail_send::Error::Timeout => failed("no answer".to_owned()),
        mail_send::Error::Io(error) => failed(error.to_string()),
        other => failed(other.to_string()),
    })?;
    Stream::from_tcp(connected.stream).map_err(|error| failed(error.to_string()))
}

/// EHLO, or HELO where that is not known (RFC 5321 §3.2).
async fn hello(connection: &mut Connection, hostname: &str) -> Result<(), NotConnected> {
    connection.say(&format!("EHLO {hostname}"));
    connection.pump.machine().hello(HelloKind::Ehlo, hostname);
    let reply = connection.hear("EHLO").await?;
    match judge(Stage::Hello, &reply) {
        Verdict::Accepted => return Ok(()),
        Verdict::TryHelo if !connection.pump.machine().is_closing() => {}
        _ => return Err(NotConnected::refused(Stage::Hello, reply)),
    }
    connection.say(&format!("HELO {hostname}"));
    connection.pump.machine().hello(HelloKind::Helo, hostname);
    let reply = connection.hear("HELO").await?;
    if judge(Stage::Hello, &reply) != Verdict::Accepted {
        return Err(NotConnected::refused(Stage::Hello, reply));
    }
    Ok(())
}

/// STARTTLS, as far as the policy wants it.
async fn encrypt(connection: &mut Connection, dial: &Dial<'_>) -> Result<(), NotConnected> {
    let required = matches!(dial.policy, TlsPolicy::Required { .. });
    if !connection.extensions().starttls {
        if required {
            return Err(NotConnected::ours(status(4, 7, 5), "TLS is required, and the host offers none"));
        }
        return Ok(());
    }
    connection.say("STARTTLS");
    connection.pump.machine().start_tls();
    match connection.event().await {
        Ok(Event::TlsStarted) => {}
        Ok(Event::Reply { reply, .. }) => {
            connection.heard(&reply);
            if required || connection.pump.machine().is_closing() {
                return Err(NotConnected::refused(Stage::StartTls, reply));
            }
            return Ok(());
        }
        // Bytes in front of the handshake were put there by somebody in between; plain would be what they want.
        Ok(Event::Failed(failure @ Failure::Injected)) => {
            return Err(NotConnected::ours(status(4, 7, 5), failure.to_string()));
        }
        Ok(Event::Failed(failure)) => return Err(tls_failed(failure.to_string(), required)),
        Err(lost) => return Err(tls_failed(lost.0, required)),
    }
    if let Some(info) = &connection.pump.peer().tls {
        let secured = || format!("encrypted with {} {}", info.version, info.cipher);
        connection.view.say(&connection.key.host, secured);
    }
    // A host that breaks off now has a TLS that does not work, whatever it says about it.
    match hello(connection, dial.hostname).await {
        Err(error) if error.reply.is_none() => Err(tls_failed(error.text, required)),
        other => other,
    }
}

fn tls_failed(text: String, required: bool) -> NotConnected {
    NotConnected { status: status(4, 7, 5), text: format!("TLS: {text}"), tls_failed: !required, reply: None }
}

/// AUTH, by the best of what both sides know.
async fn log_in(connection: &mut Connection, login: &Login) -> Result<(), NotConnected> {
    let offered = connection.extensions().auth.clone();
    let tls = connection.pump.peer().tls.clone();
    let exporter = tls.as_ref().and_then(|tls| tls.exporter);
    let usable = |mechanism: &Mechanism| match mechanism {
        Mechanism::ScramSha256Plus => exporter.is_some(),
        // What is configured is a password.
        mechanism if mechanism.takes_token() => false,
        mechanism => tls.is_some() || !mechanism.sends_password(),
    };
    let Some(mechanism) = Mechanism::ALL.into_iter().find(|one| offered.contains(one) && usable(one)) else {
        let text = "the smart host offers no login that can be used";
        return Err(NotConnected::ours(status(4, 7, 0), text));
    };
    let binding = match (mechanism, exporter) {
        (Mechanism::ScramSha256Plus, Some(exporter)) => Binding::Exporter(exporter),
        _ => Binding::None,
    };
    let plain = sasl::client::Client::plain_login(&login.user, login.password.clone());
    connection.say(&format!("AUTH {mechanism} (not shown)"));
    connection.pump.machine().auth(sasl::client::Client::new(mechanism, plain, binding));
    let reply = connection.hear("AUTH").await?;
    if judge(Stage::Auth, &reply) != Verdict::Accepted {
        tracing::warn!(host = %connection.key.host, user = login.user, %reply, "login at the smart host failed");
        return Err(NotConnected::refused(Stage::Auth, reply));
    }
    Ok(())
}

impl Connection {
    /// What the host has announced.
    pub(crate) fn extensions(&mut self) -> &Extensions {
        self.pump.machine().extensions()
    }

    /// Puts a command into the live view. Never a secret, never a message.
    pub(crate) fn say(&self, line: &str) {
        self.view.say(&self.key.host, || format!("C: {line}"));
    }

    /// The same for a reply.
    pub(crate) fn heard(&self, reply: &Reply) {
        self.view.say(&self.key.host, || format!("S: {reply}"));
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> Result<Event, Lost> {
        match self.pump.next().await {
            Ok(Some(event)) => Ok(event),
            Ok(None) => Err(Lost("the host has closed the connection".to_owned())),
            Err(error) => Err(Lost(lost_by(&error))),
        }
    }

    /// The next reply, to whatever it is.
    pub(crate) async fn reply(&mut self) -> Result<(Sent, Reply), Lost> {
        match self.event().await? {
            Event::Reply { to, reply } => {
                self.heard(&reply);
                Ok((to, reply))
            }
            Event::TlsStarted => Err(Lost("TLS began unasked".to_owned())),
            Event::Failed(failure) => {
                let cause = failure.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                self.view.say(&self.key.host, || format!("broken off: {failure}"));
                Err(Lost(format!("{failure}{cause}")))
            }
        }
    }

    async fn hear(&mut self, stage: &str) -> Result<Reply, NotConnected> {
        self.reply().await.map(|(_, reply)| reply).map_err(|lost| NotConnected::lost(stage, &lost))
    }

    /// Clears what the host remembers of the last transaction, and finds out whether it still listens.
    pub(crate) async fn reset(&mut self) -> Result<(), Lost> {
        self.say("RSET");
        self.pump.machine().reset();
        let (_, reply) = self.reply().await?;
        if !reply.is_positive() || self.pump.machine().is_closing() {
            return Err(Lost(format!("RSET: {reply}")));
        }
        self.needs_reset = false;
        Ok(())
    }

    /// Says goodbye and does not wait for long.
    pub(crate) async fn quit(mut self, patience: Duration) {
        if self.pump.machine().is_closing() {
            return;
        }
        self.say("QUIT");
        self.pump.machine().quit();
        let _ =
            tokio::time::timeout(patience, async { while let Ok(Some(_)) = self.pump.next().await {} }).await;
    }

    /// The TLS of this connection, for the history of a recipient.
    pub(crate) fn tls(&self) -> Option<Tls> {
        self.pump.peer().tls.as_ref().map(|info| Tls {
            version: info.version.to_owned(),
            cipher: info.cipher.clone(),
            verified: self.verified,
            policy: self.key.policy.name().to_owned(),
        })
    }
}

fn lost_by(error: &PumpError) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
