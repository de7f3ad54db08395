//! One connection: the loop over the machine's events.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use directory::{Login, Principal};
use imap_protocol::command::{Command, Fetch, Store, Tag};
use imap_protocol::server::{Event, Server, State};
use net::pump::Pump;
use net::shutdown::ShutdownGuard;
use net::stream::Stream;
use storage::Account;
use tracing::{debug, info};

use crate::appends::{Answers, Appends, Received};
use crate::command as commands;
use crate::elsewhere;
use crate::news::{Expunges, Telling};
use crate::reply::{Answer, Reply, Stop};
use crate::selected::Selected;
use crate::service::Inner;

/// Octets of responses that are gathered before they are handed on.
const GATHER_BYTES: usize = 16 * 1024;

/// A session.
pub(crate) struct Session {
    pub(crate) imap: Arc<Inner>,
    pub(crate) pump: Pump<Server>,
    pub(crate) shutdown: ShutdownGuard,
    /// Who has logged in.
    pub(crate) user: Option<User>,
    pub(crate) failed_logins: u32,
    pub(crate) selected: Option<Box<Selected>>,
    /// The client has shown that it knows CONDSTORE (RFC 7162 §3.1): MODSEQ is said with flags from then on.
    pub(crate) condstore: bool,
    /// QRESYNC was enabled (RFC 7162 §3.2.3): VANISHED instead of EXPUNGE.
    pub(crate) qresync: bool,
    /// The node of another region that goes on with this session, once the login has been answered.
    pub(crate) elsewhere: Option<Box<Stream>>,
    /// APPENDs that are not answered yet; only there while there are any.
    appends: Option<Box<Appends>>,
}

/// Who has logged in.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) principal: Principal,
    pub(crate) account: Account,
    /// Until the session watches it.
    pub(crate) login: Option<Login>,
}

/// Why a session ends whose login was withdrawn.
pub(crate) const WITHDRAWN: Stop = Stop::Bye("The login was withdrawn");

impl Session {
    pub(crate) fn new(
        imap: Arc<Inner>,
        pump: Pump<Server>,
        shutdown: ShutdownGuard,
        user: Option<User>,
    ) -> Self {
        Self {
            imap,
            pump,
            shutdown,
            user,
            failed_logins: 0,
            selected: None,
            condstore: false,
            qresync: false,
            elsewhere: None,
            appends: None,
        }
    }

    /// Serves the connection to its end.
    pub(crate) async fn run(mut self) {
        // Whoever has logged in has been greeted.
        if self.user.is_none() {
            let greeting = format!("OK [CAPABILITY {}] Postrider ready", self.capabilities());
            imap_protocol::response::untagged(self.out(), &greeting);
        }
        let ended = self.serve().await;
        if let Some(home) = self.elsewhere.take() {
            return Box::pin(elsewhere::hand_over(self, *home)).await;
        }
        // What was received goes on to its mailbox, as it would after a crash that comes a moment later. A client that
        // is still there hears of it.
        let ended = match (ended, Box::pin(self.answer_all_appends()).await) {
            (Ok(()), answered) => answered,
            (stopped, _) => stopped,
        };
        match ended {
            Ok(()) | Err(Stop::Disconnected) => debug!("connection closed"),
            Err(Stop::Connection(error)) => debug!(%error, "connection lost"),
            Err(Stop::Bye(text)) => {
                info!(reason = text, "session ended");
                self.pump.machine().bye(text);
                // The machine closes after its goodbye; nothing else can come of it.
                while let Ok(Some(_)) = self.pump.next().await {}
            }
        }
        if let Some(user) = &self.user {
            debug!(login = %user.principal.address, "logged out");
        }
    }

    async fn serve(&mut self) -> Result<(), Stop> {
        let shutdown = self.shutdown.clone();
        let mut login = None;
        loop {
            if let Some(entered) = self.user.as_mut().and_then(|user| user.login.take()) {
                login = Some(entered);
            }
            let event = tokio::select! {
                biased;
                event = self.next_event() => event?,
                () = withdrawn(&mut login) => return Err(WITHDRAWN),
                () = shutdown.requested() => return Err(Stop::Bye("[UNAVAILABLE] The server is shutting down")),
            };
            let Some(event) = event else { return Ok(()) };
            // Boxed, so that a session that waits here is not as large as the largest command; IDLE apart, since that
            // is where sessions spend their days.
            if let Event::Idle { .. } = event {
                metrics::counter!("postrider_imap_commands_total", "command" => "idle").increment(1);
                tokio::select! {
                    idled = Box::pin(commands::idle::run(self)) => idled?,
                    () = withdrawn(&mut login) => return Err(WITHDRAWN),
                }
            } else {
                Box::pin(self.handle(event)).await?;
            }
            if self.elsewhere.is_some() {
                return Ok(());
            }
        }
    }

    async fn handle(&mut self, event: Event) -> Result<(), Stop> {
        match event {
            Event::Command { tag, command } => {
                let started = Instant::now();
                let (verb, expunges) = describe(&command);
                // What the command changed may be told only here, where its own look at the changes failed; and then too
                // with the UID (RFC 9051 §6.4.9).
                let telling = if names_uids(&command) { Telling::AllWithUid } else { Telling::All };
                let reply = self.command(&tag, command).await?;
                self.tell_news_but(expunges, |_| telling).await?;
                self.finish(&reply);
                metrics::counter!("postrider_imap_commands_total", "command" => verb).increment(1);
                metrics::histogram!("postrider_imap_command_seconds", "command" => verb)
                    .record(started.elapsed().as_secs_f64());
            }
            Event::Authenticate { mechanism, initial, .. } => {
                commands::authenticate::run(self, &mechanism, initial).await?;
            }
            Event::Append { append, .. } => {
                metrics::counter!("postrider_imap_commands_total", "command" => "append").increment(1);
                commands::append::run(self, append).await?;
            }
            Event::AnswersDue => self.answer_all_appends().await?,
            Event::TlsStarted => debug!("TLS started"),
            // These come inside of the flows above only; IDLE has been taken out before.
            Event::AuthenticateResponse(_)
            | Event::AuthenticateEnded
            | Event::AppendChunk(_)
            | Event::AppendNext(_)
            | Event::AppendEnd
            | Event::AppendBroken
            | Event::Idle { .. }
            | Event::IdleDone
            | Event::IdleBroken => debug!("event outside of its command"),
        }
        Ok(())
    }

    async fn command(&mut self, tag: &Tag, command: Command) -> Answer {
        match command {
            Command::Capability => Ok(commands::capability::run(self)),
            Command::Noop | Command::Check => commands::noop::run(self).await,
            Command::Id(fields) => Ok(commands::id::run(self, &fields)),
            Command::Login { user, password } => commands::login::run(self, user, &password).await,
            Command::Enable(names) => Ok(commands::enable::run(self, &names)),
            Command::Select(select) => commands::select::run(self, select).await,
            Command::Create { mailbox, uses, .. } => commands::create::run(self, &mailbox, &uses).await,
            Command::Delete(mailbox) => commands::delete::run(self, &mailbox).await,
            Command::Rename { from, to } => commands::rename::run(self, &from, &to).await,
            Command::Subscribe(mailbox) => commands::subscribe::run(self, &mailbox, true).await,
            Command::Unsubscribe(mailbox) => commands::subscribe::run(self, &mailbox, false).await,
            Command::List(list) => commands::list::run(self, list).await,
            Command::Lsub { reference, pattern } => commands::lsub::run(self, &reference, &pattern).await,
            Command::Namespace => Ok(commands::namespace::run(self)),
            Command::Status { mailbox, items } => commands::status::run(self, &mailbox, &items).await,
            Command::Close => commands::close::run(self).await,
            Command::Unselect => Ok(commands::unselect::run(self)),
            Command::Expunge => commands::expunge::run(self, None).await,
            Command::UidExpunge(set) => commands::expunge::run(self, Some(set)).await,
            Command::Fetch(fetch) => commands::fetch::run(self, fetch).await,
            Command::Store(store) => commands::store::run(self, store).await,
            Command::Copy(copy) => commands::copy::copy(self, copy).await,
            Command::Move(copy) => commands::copy::move_messages(self, copy).await,
            Command::Search(search) => commands::search::run(self, tag, *search).await,
            Command::MultiSearch(search) => commands::esearch::run(self, tag, *search).await,
            Command::Sort(sort) => commands::sort::run(self, tag, *sort).await,
            Command::Thread(thread) => commands::thread::run(self, *thread).await,
        }
    }

    /// The client's next event; answers to earlier APPENDs are written as they are ready. Cancel-safe.
    pub(crate) async fn next_event(&mut self) -> Result<Option<Event>, Stop> {
        loop {
            let Some(appends) = &mut self.appends else { return Ok(self.pump.next().await?) };
            let answers = tokio::select! {
                biased;
                answers = appends.next() => answers,
                event = self.pump.next() => return Ok(event?),
            };
            Box::pin(self.answer_appends(answers)).await?;
        }
    }

    /// APPENDs that are not answered yet.
    pub(crate) fn appends_owed(&self) -> usize {
        self.appends.as_ref().map_or(0, |appends| appends.len())
    }

    /// Takes note of an APPEND that is to be answered.
    pub(crate) fn owe_append(&mut self, account: Account, received: Received) {
        self.appends.get_or_insert_with(|| Box::new(Appends::new(account))).push(received);
    }

    /// Waits for answers to earlier APPENDs and writes them.
    pub(crate) async fn answer_some_appends(&mut self) -> Result<(), Stop> {
        let Some(appends) = &mut self.appends else { return Ok(()) };
        let answers = appends.next().await;
        self.answer_appends(answers).await
    }

    async fn answer_all_appends(&mut self) -> Result<(), Stop> {
        let mut ended = Ok(());
        while self.appends.is_some() {
            let answered = self.answer_some_appends().await;
            ended = ended.and(answered);
        }
        ended
    }

    async fn answer_appends(&mut self, answers: Answers) -> Result<(), Stop> {
        if self.appends_owed() == 0 {
            self.appends = None;
        }
        self.tell_news(Expunges::Tell).await?;
        for (tag, answer) in answers {
            let reply = answer?;
            self.pump.machine().answer_deferred(&tag, reply.outcome, &reply.text);
        }
        Ok(())
    }

    /// Writes the tagged reply.
    pub(crate) fn finish(&mut self, reply: &Reply) {
        let machine = self.pump.machine();
        if self.elsewhere.is_some() {
            machine.finish_and_hand_over(reply.outcome, &reply.text);
        } else {
            machine.finish(reply.outcome, &reply.text);
        }
    }

    /// Where untagged responses are written.
    pub(crate) fn out(&mut self) -> &mut BytesMut {
        self.pump.machine().output()
    }

    /// Hands on what has been gathered once it is enough, and waits for a reader that is slower than we are. Called
    /// between responses by whoever writes many.
    pub(crate) async fn throttle(&mut self) -> Result<(), Stop> {
        if self.out().len() >= GATHER_BYTES {
            self.pump.send(Bytes::new()).await?;
        }
        Ok(())
    }

    /// The account of the user. The machine lets no command through that needs one before login.
    pub(crate) fn account(&self) -> Result<Account, Stop> {
        match &self.user {
            Some(user) => Ok(user.account.clone()),
            None => Err(Stop::Bye("Not logged in")),
        }
    }

    /// The selected mailbox. The machine lets no command through that needs one while there is none.
    pub(crate) fn selected(&mut self) -> Result<&mut Selected, Stop> {
        self.selected.as_deref_mut().ok_or(Stop::Bye("No mailbox is selected"))
    }

    /// Leaves the selected mailbox.
    pub(crate) fn deselect(&mut self) {
        self.selected = None;
        self.pump.machine().set_state(State::Authenticated);
    }

    /// The client has shown that it knows CONDSTORE. With a mailbox selected it is told where that stands
    /// (RFC 7162 §3.1.2: every enabling command but SELECT itself).
    pub(crate) fn enable_condstore(&mut self) {
        if self.condstore {
            return;
        }
        self.condstore = true;
        if let Some(selected) = &self.selected {
            let synced = selected.view.synced().0.max(1);
            imap_protocol::response::select::code_number(self.out(), "HIGHESTMODSEQ", synced, "Highest");
        }
    }
}

/// Waits until the login is withdrawn; before there is one, for ever.
async fn withdrawn(login: &mut Option<Login>) {
    match login {
        Some(login) => login.withdrawn().await,
        None => std::future::pending().await,
    }
}

/// Whether messages are named by UID, and changed or read: what is told of them has the UID too.
fn names_uids(command: &Command) -> bool {
    matches!(command, Command::Store(Store { uid: true, .. }) | Command::Fetch(Fetch { uid: true, .. }))
}

/// The verb for the metrics, and whether expunges may be told with the answer.
fn describe(command: &Command) -> (&'static str, Expunges) {
    use Expunges::{Hold, Tell};
    match command {
        Command::Capability => ("capability", Tell),
        Command::Noop => ("noop", Tell),
        Command::Id(_) => ("id", Tell),
        Command::Login { .. } => ("login", Tell),
        Command::Enable(_) => ("enable", Tell),
        Command::Select(select) if select.read_only => ("examine", Tell),
        Command::Select(_) => ("select", Tell),
        Command::Create { .. } => ("create", Tell),
        Command::Delete(_) => ("delete", Tell),
        Command::Rename { .. } => ("rename", Tell),
        Command::Subscribe(_) => ("subscribe", Tell),
        Command::Unsubscribe(_) => ("unsubscribe", Tell),
        Command::List(_) => ("list", Tell),
        Command::Lsub { .. } => ("lsub", Tell),
        Command::Namespace => ("namespace", Tell),
        Command::Status { .. } => ("status", Tell),
        Command::Check => ("check", Tell),
        Command::Close => ("close", Tell),
        Command::Unselect => ("unselect", Tell),
        Command::Expunge | Command::UidExpunge(_) => ("expunge", Tell),
        Command::Search(search) => ("search", if search.uid { Tell } else { Hold }),
        // Its keys may name messages by number.
        Command::MultiSearch(_) => ("esearch", Hold),
        Command::Sort(sort) => ("sort", if sort.uid { Tell } else { Hold }),
        Command::Thread(thread) => ("thread", if thread.uid { Tell } else { Hold }),
        Command::Fetch(fetch) => ("fetch", if fetch.uid { Tell } else { Hold }),
        Command::Store(store) => ("store", if store.uid { Tell } else { Hold }),
        Command::Copy(_) => ("copy", Tell),
        Command::Move(_) => ("move", Tell),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session that waits holds its own future, that of IDLE and itself. TLS and buffers are the pump's affair.
    #[test]
    fn waiting_sessions_are_small() {
        fn output_size<T, F: Future>(_: impl Fn(T) -> F) -> usize {
            size_of::<F>()
        }
        let run = output_size(Session::run);
        assert!(run < 4 * 1024, "run: {run}");
        let session = size_of::<Session>();
        assert!(session < 2 * 1024, "session: {session}");
        assert!(size_of::<Selected>() < 256);
    }
}
