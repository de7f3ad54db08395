//! AUTHENTICATE (RFC 9051 §6.2.2) with SASL-IR (RFC 4959).

use imap_protocol::server::Event;
use sasl::Mechanism;
use sasl::server::{Binding, Failure, Server, ServerStep};

use super::login;
use crate::reply::{Reply, Stop};
use crate::session::Session;

pub(crate) async fn run(
    session: &mut Session,
    mechanism: &str,
    initial: Option<Vec<u8>>,
) -> Result<(), Stop> {
    metrics::counter!("postrider_imap_commands_total", "command" => "authenticate").increment(1);
    let reply = match mechanism.parse::<Mechanism>() {
        Ok(Mechanism::Plain) if !session.may_send_password() => {
            Some(Reply::no("[PRIVACYREQUIRED] Use STARTTLS first"))
        }
        Ok(Mechanism::Plain) => exchange(session, Mechanism::Plain, initial).await?,
        _ => Some(Reply::no("[CANNOT] Mechanism is not supported")),
    };
    // Without a reply the machine has answered already.
    if let Some(reply) = reply {
        session.finish(&reply);
    }
    Ok(())
}

async fn exchange(
    session: &mut Session,
    mechanism: Mechanism,
    initial: Option<Vec<u8>>,
) -> Result<Option<Reply>, Stop> {
    let (mut exchange, mut step) = Server::start(mechanism, Binding::None, initial.as_deref());
    loop {
        match step {
            ServerStep::Challenge(challenge) => {
                session.pump.machine().challenge(&challenge);
                match session.pump.next().await? {
                    Some(Event::AuthenticateResponse(response)) => step = exchange.respond(&response),
                    Some(_) => return Ok(None),
                    None => return Err(Stop::Disconnected),
                }
            }
            ServerStep::Verify(plain) => {
                // Acting for somebody else is not offered; to name oneself twice is no such thing.
                if plain.authzid.as_ref().is_some_and(|authzid| *authzid != plain.authcid) {
                    return Ok(Some(Reply::no("[AUTHORIZATIONFAILED] Not permitted to act for others")));
                }
                return login::check(session, plain.authcid, &plain.password).await.map(Some);
            }
            ServerStep::Failed(Failure::Malformed(_)) => {
                return Ok(Some(Reply::bad("Malformed authentication exchange")));
            }
            ServerStep::Failed(_) | ServerStep::LookUp { .. } | ServerStep::Proved { .. } => {
                return Ok(Some(Reply::no("[AUTHENTICATIONFAILED] Authentication failed")));
            }
        }
    }
}
