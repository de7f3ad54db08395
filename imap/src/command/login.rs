//! LOGIN (RFC 9051 §6.2.3), and what happens after a proof of any kind.

use std::net::{IpAddr, Ipv4Addr};

use directory::{AuthError, PlainLogin, Principal, Service};
use imap_protocol::server::State;
use sasl::Password;
use storage::OpenError;
use tracing::{info, warn};

use crate::elsewhere;
use crate::reply::{Answer, Reply, Stop, open_failure};
use crate::service::Inner;
use crate::session::{Session, User};

pub(crate) async fn run(session: &mut Session, user: String, password: &Password) -> Answer {
    if !session.may_send_password() {
        return Ok(Reply::no("[PRIVACYREQUIRED] Use STARTTLS first"));
    }
    check(session, user, password).await
}

/// Checks a name and a password.
pub(crate) async fn check(session: &mut Session, user: String, password: &Password) -> Answer {
    let login = PlainLogin { login: user, password: password.expose().to_owned(), service: Service::Imap };
    let remote = session.remote();
    match session.imap.directory.authenticate(&login, remote).await {
        Ok(principal) => enter(session, principal).await,
        Err(AuthError::Elsewhere(region)) => Box::pin(elsewhere::log_in(session, &region, login)).await,
        Err(error) => refuse(session, &error),
    }
}

/// Somebody has proved who they are: opens their account.
pub(crate) async fn enter(session: &mut Session, principal: Principal) -> Answer {
    match open(&session.imap, principal).await {
        Ok(user) => session.user = Some(user),
        Err(error) => return open_failure(&error),
    }
    session.pump.machine().set_state(State::Authenticated);
    Ok(Reply::ok(welcome(&session.capabilities())))
}

/// Opens somebody's account.
pub(crate) async fn open(imap: &Inner, principal: Principal) -> Result<User, OpenError> {
    let owner = storage::Principal::Owner(principal.account);
    let account = imap.storage.account(&owner, principal.account).await?;
    info!(account_id = %principal.account, login = %principal.address, "logged in");
    let login = Some(imap.directory.logged_in(&principal));
    Ok(User { principal, account, login })
}

/// What is said behind OK.
pub(crate) fn welcome(capabilities: &str) -> String {
    format!("[CAPABILITY {capabilities}] Logged in")
}

/// A login has failed.
pub(crate) fn refuse(session: &mut Session, error: &AuthError) -> Answer {
    session.failed_logins += 1;
    let reply = match error {
        AuthError::Rejected => Reply::no("[AUTHENTICATIONFAILED] Wrong name or password"),
        AuthError::Throttled { retry_after } => {
            let seconds = retry_after.as_secs().max(1);
            Reply::no(format!("[UNAVAILABLE] Too many failed logins, try again in {seconds} seconds"))
        }
        AuthError::Busy => Reply::no("[UNAVAILABLE] Too many logins at one time, try again later"),
        AuthError::Elsewhere(region) => {
            warn!(%region, "the account is in another region, which was not asked");
            Reply::no("[UNAVAILABLE] Temporary failure, try again later")
        }
        AuthError::Temporary(error) => {
            warn!(%error, "directory unavailable");
            Reply::no("[UNAVAILABLE] Temporary failure, try again later")
        }
    };
    if session.failed_logins >= session.imap.config.failed_logins_max {
        session.finish(&reply);
        return Err(Stop::Bye("Too many failed logins"));
    }
    Ok(reply)
}

impl Session {
    /// Where the client is, for throttling. What has no address is on this machine.
    pub(crate) fn remote(&self) -> IpAddr {
        self.pump.peer().remote.ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}
