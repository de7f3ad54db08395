//! Logins. The protocol's exchange is the machine's; whether it is right is the directory's to say.

use directory::{AuthError, PlainLogin, Principal, Service};
use metrics::counter;
use sasl::scram::ScramVerifier;
use smtp_protocol::server::rejected;
use tracing::{info, warn};

use crate::elsewhere;
use crate::policy;
use crate::session::Session;

/// A name and a password.
pub(crate) async fn login(session: &mut Session, login: sasl::server::PlainLogin) {
    let result = if acts_as_oneself(login.authzid.as_deref(), &login.authcid) {
        let plain = PlainLogin {
            login: login.authcid.clone(),
            password: login.password.expose().to_owned(),
            service: Service::Smtp,
        };
        match session.service.directory.authenticate(&plain, session.client.remote_ip()).await {
            Err(AuthError::Elsewhere(region)) => {
                let there = elsewhere::log_in(session, &region, &plain.login, &plain.password).await;
                return go_there(session, &login.authcid, there);
            }
            result => result,
        }
    } else {
        Err(AuthError::Rejected)
    };
    finish(session, &login.authcid, result);
}

/// SCRAM begins: what the server has to know of the user.
pub(crate) async fn look_up(session: &mut Session, authcid: &str) {
    let remote = session.client.remote_ip();
    match session.service.directory.scram(authcid, Service::Smtp, remote).await {
        Ok(login) => {
            let kept = login.verifier();
            let verifier = ScramVerifier {
                iterations: kept.iterations,
                salt: kept.salt.clone(),
                stored_key: kept.stored_key,
                server_key: kept.server_key,
            };
            session.scram = Some(login);
            session.pump.machine().scram_verifier(verifier);
        }
        Err(AuthError::Elsewhere(region)) => match elsewhere::look_up(session, &region, authcid).await {
            Ok(verifier) => session.pump.machine().scram_verifier(verifier),
            Err(error) => finish(session, authcid, Err(error)),
        },
        Err(error) => finish(session, authcid, Err(error)),
    }
}

/// SCRAM ends: the client knows the password.
pub(crate) async fn proved(session: &mut Session, authzid: Option<&str>, authcid: &str) {
    if let Some(proving) = session.proving.take() {
        let there = if acts_as_oneself(authzid, authcid) {
            elsewhere::proved(session, *proving).await
        } else {
            Err(AuthError::Rejected)
        };
        return go_there(session, authcid, there);
    }
    let result = match session.scram.take() {
        Some(login) if acts_as_oneself(authzid, authcid) => login.succeeded(),
        _ => Err(AuthError::Rejected),
    };
    finish(session, authcid, result);
}

/// Acting as somebody else needs rights that nobody has yet.
fn acts_as_oneself(authzid: Option<&str>, authcid: &str) -> bool {
    authzid.is_none_or(|authzid| authzid.eq_ignore_ascii_case(authcid))
}

/// A login was decided at another region.
fn go_there(session: &mut Session, name: &str, there: Result<(), AuthError>) {
    match there {
        Ok(()) => {
            counter!("postrider_smtp_logins_total", "outcome" => "elsewhere").increment(1);
            session.pump.machine().authenticated_and_hand_over();
        }
        Err(error) => finish(session, name, Err(error)),
    }
}

fn finish(session: &mut Session, name: &str, result: Result<Principal, AuthError>) {
    let outcome = match &result {
        Ok(_) => "success",
        Err(AuthError::Rejected) => "rejected",
        Err(_) => "temporary",
    };
    counter!("postrider_smtp_logins_total", "outcome" => outcome).increment(1);
    match result {
        Ok(principal) if principal.services.contains(Service::Smtp) => {
            info!(account_id = %principal.account, "logged in");
            session.login = Some(session.service.directory.logged_in(&principal));
            session.client.principal = Some(principal);
            session.pump.machine().authenticated();
        }
        Ok(_) | Err(AuthError::Rejected) => {
            info!(login = name, "login rejected");
            session.pump.machine().authentication_failed(&rejected());
        }
        Err(error) => {
            warn!(login = name, %error, "login not decided");
            session.pump.machine().authentication_failed(&policy::login_later());
        }
    }
}
