//! Accounts of other regions: the password is checked there, and the session is held there. What is left here is to copy
//! octets.

use std::time::Duration;

use directory::{AuthError, PlainLogin, Principal, Temporary};
use imap_protocol::server::State;
use mail::region::Region;
use net::shutdown::ShutdownGuard;
use net::stream::Stream;
use region::RelayLimits;
use region::call::{Answer, Client, LogIn, Password, Proof, Request, Session as Spoken};
use tracing::{debug, info};

use crate::capability;
use crate::command::login;
use crate::reply::{Answer as Answered, Reply};
use crate::service::Imap;
use crate::session::{Session, User};

/// How much longer than the other side we wait for a client that says nothing: it says goodbye, and we do not.
const PATIENCE_BEYOND: Duration = Duration::from_secs(60);

/// Logs in at another region. Where that succeeds, the session is handed over with the reply.
pub(crate) async fn log_in(session: &mut Session, region: &Region, login: PlainLogin) -> Answered {
    let Some(regions) = session.imap.regions.clone() else {
        let nobody = AuthError::Temporary(Temporary("the account is in another region".to_owned()));
        return login::refuse(session, &nobody);
    };
    let request = Request::LogIn(LogIn {
        login: login.login.clone(),
        proof: Proof::Password(Password(login.password.clone())),
        session: Spoken::Imap,
        client: Client::of(session.pump.peer()),
    });
    let (answer, link) = match regions.ask(region, request).await {
        Ok(answered) => answered,
        Err(error) => return login::refuse(session, &error.into()),
    };
    let Answer::LoggedIn { text } = answer else {
        return login::refuse(session, &answer.refusal("IMAP"));
    };
    info!(login = login.login, %region, "logged in at another region");
    session.elsewhere = Some(Box::new(link.into_stream()));
    session.pump.machine().set_state(State::Authenticated);
    // What comes from another node is a line as long as it is asked to be one.
    let line: String = text.chars().filter(|c| !c.is_control()).collect();
    Ok(Reply::ok(line))
}

/// Copies between the client and the node that holds its session, until one of them has gone.
pub(crate) async fn hand_over(session: Session, home: Stream) {
    let Session { imap, mut pump, shutdown, .. } = session;
    if let Err(error) = pump.flush().await {
        debug!(%error, "connection lost");
        return;
    }
    let (client, machine) = pump.into_parts();
    let limits = RelayLimits {
        idle_max: Duration::from_secs(imap.config.autologout_seconds) + PATIENCE_BEYOND,
        write_stall_max: Duration::from_secs(imap.config.write_stall_seconds_max),
    };
    metrics::gauge!("postrider_imap_sessions_elsewhere").increment(1.0);
    let ended = region::relay(client, machine.into_input(), home, &limits, &shutdown).await;
    metrics::gauge!("postrider_imap_sessions_elsewhere").decrement(1.0);
    match ended {
        Ok(()) => debug!("connection closed"),
        Err(error) => debug!(%error, "connection lost"),
    }
}

/// Somebody who has logged in by way of another region, with their account opened.
#[derive(Debug)]
pub struct Entered {
    pub(crate) user: User,
    text: String,
}

impl Entered {
    /// What is said to the client when its login succeeds, without the tag.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl Imap {
    /// Opens the account of somebody who has logged in by way of another region. `None`: it cannot be opened now.
    pub async fn enter(&self, principal: Principal) -> Option<Entered> {
        let user = login::open(&self.inner, principal).await.ok()?;
        let text = login::welcome(&capability::logged_in(&self.inner));
        Some(Entered { user, text })
    }

    /// Serves a connection that another region hands over; the client has been told that it is logged in.
    pub async fn serve_entered(&self, entered: Entered, stream: Stream, shutdown: ShutdownGuard) {
        Box::pin(self.clone().session(stream, shutdown, Some(entered.user))).await;
    }
}
