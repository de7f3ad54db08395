//! Users whose accounts are in other regions: their password is checked there, and what they submit is taken there. What
//! is left here is to copy octets.

use std::time::Duration;

use ::mail::address::Address;
use ::mail::region::Region;
use directory::{AuthError, Temporary};
use metrics::gauge;
use net::pump::PumpError;
use net::stream::Stream;
use region::call::{
    Answer, Client as Spoken, LogIn, Password, Proof, Proved, Recipient, Request, Session as Going,
};
use region::{Link, RelayLimits};
use sasl::scram::ScramVerifier;
use smtp_protocol::command::HelloKind;
use smtp_protocol::reply::Reply;
use tracing::{debug, info, warn};

use crate::policy;
use crate::service::Inner;
use crate::session::Session;

/// How much longer than the other side we wait for a client that says nothing: it says goodbye, and we do not.
const PATIENCE_BEYOND: Duration = Duration::from_secs(60);

/// What is asked of the other region.
const SERVICE: &str = "submission";

/// Somebody of another region is proving by SCRAM who they are.
pub(crate) struct Proving {
    region: Region,
    link: Link,
}

/// Logs in at another region with a password; `Ok`: the session goes on there.
pub(crate) async fn log_in(
    session: &mut Session,
    region: &Region,
    login: &str,
    password: &str,
) -> Result<(), AuthError> {
    let proof = Proof::Password(Password(password.to_owned()));
    let (answer, link) = ask(session, region, login, proof).await?;
    entered(session, region, answer, link)
}

/// SCRAM begins: what has to be known of the user.
pub(crate) async fn look_up(
    session: &mut Session,
    region: &Region,
    login: &str,
) -> Result<ScramVerifier, AuthError> {
    let (answer, link) = ask(session, region, login, Proof::Scram).await?;
    match answer {
        Answer::Verifier(kept) => {
            session.proving = Some(Box::new(Proving { region: region.clone(), link }));
            Ok(ScramVerifier {
                iterations: kept.iterations,
                salt: kept.salt,
                stored_key: kept.stored_key,
                server_key: kept.server_key,
            })
        }
        answer => Err(answer.refusal(SERVICE)),
    }
}

/// SCRAM ends: the client knows the password. `Ok`: the session goes on there.
pub(crate) async fn proved(session: &mut Session, proving: Proving) -> Result<(), AuthError> {
    let Proving { region, mut link } = proving;
    link.send(&Proved {}).await?;
    let answer = link.receive().await?;
    entered(session, &region, answer, link)
}

async fn ask(
    session: &mut Session,
    region: &Region,
    login: &str,
    proof: Proof,
) -> Result<(Answer, Link), AuthError> {
    let Some(regions) = session.service.regions.clone() else {
        return Err(AuthError::Temporary(Temporary("the account is in another region".to_owned())));
    };
    let (kind, name) = session.client.hello.clone().unwrap_or((HelloKind::Helo, String::new()));
    let request = Request::LogIn(LogIn {
        login: login.to_owned(),
        proof,
        session: Going::Submission { extended: kind == HelloKind::Ehlo, name },
        client: Spoken::of(&session.client.peer),
    });
    Ok(regions.ask(region, request).await?)
}

fn entered(session: &mut Session, region: &Region, answer: Answer, link: Link) -> Result<(), AuthError> {
    match answer {
        Answer::LoggedIn { .. } => {
            info!(%region, "logged in at another region");
            session.elsewhere = Some(Box::new(link.into_stream()));
            Ok(())
        }
        answer => Err(answer.refusal(SERVICE)),
    }
}

/// Whether an address of another region may have a message of this size. Only its region knows; what that does not answer
/// is to come again.
pub(crate) async fn recipient(
    service: &Inner,
    region: &Region,
    address: &Address,
    size: u64,
) -> Result<(), Reply> {
    let Some(regions) = &service.regions else {
        warn!(%region, "a recipient is in another region, which cannot be asked");
        return Err(policy::later());
    };
    let request = Request::Recipient { address: address.to_string(), size };
    let answer = regions.ask(region, request).await.map_err(|error| {
        warn!(%error, "recipient not decided");
        policy::later()
    })?;
    match answer.0 {
        Answer::Recipient(Recipient::Good) => Ok(()),
        Answer::Recipient(Recipient::Full) => Err(policy::mailbox_full()),
        Answer::Recipient(Recipient::Disabled) => Err(policy::mailbox_disabled()),
        Answer::Recipient(Recipient::Unknown) => Err(policy::no_such_user()),
        answer => {
            warn!(%region, ?answer, "recipient not decided");
            Err(policy::later())
        }
    }
}

/// Copies between the client and the node that holds its session, until one of them has gone.
pub(crate) async fn hand_over(session: Session, home: Stream) -> Result<(), PumpError> {
    let Session { service, mut pump, guard, .. } = session;
    pump.flush().await?;
    let (client, machine) = pump.into_parts();
    let limits = RelayLimits {
        idle_max: Duration::from_secs(service.config.limits.command_seconds_max) + PATIENCE_BEYOND,
        write_stall_max: Duration::from_secs(service.config.write_stall_seconds_max),
    };
    gauge!("postrider_smtp_sessions_elsewhere").increment(1.0);
    let ended = region::relay(client, machine.into_input(), home, &limits, &guard).await;
    gauge!("postrider_smtp_sessions_elsewhere").decrement(1.0);
    if let Err(error) = ended {
        debug!(%error, "connection lost");
    }
    Ok(())
}
