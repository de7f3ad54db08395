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
        Ok(Mechanism::Plain | Mechanism::OAuthBearer | Mechanism::XOAuth2)
            if !session.may_send_password() =>
        {
            Some(Reply::no("[PRIVACYREQUIRED] Use STARTTLS first"))
        }
        Ok(mechanism @ (Mechanism::Plain | Mechanism::OAuthBearer | Mechanism::XOAuth2)) => {
            exchange(session, mechanism, initial).await?
        }
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
            ServerStep::Challenge(challenge) => match respond(session, &challenge).await? {
                Some(response) => step = exchange.respond(&response),
                None => return Ok(None),
            },
            ServerStep::Verify(plain) => {
                // Acting for somebody else is not offered; to name oneself twice is no such thing.
                if plain.authzid.as_ref().is_some_and(|authzid| *authzid != plain.authcid) {
                    return Ok(Some(Reply::no("[AUTHORIZATIONFAILED] Not permitted to act for others")));
                }
                let reply = login::check(session, plain.authcid, &plain.password).await?;
                // RFC 7628 §3.2.3: why a token is refused comes first, and the client answers that it has heard. One that cannot
                // be checked now is not wrong.
                if reply.is_wrong_login()
                    && let Some(challenge) = exchange.refused()
                    && respond(session, &challenge).await?.is_none()
                {
                    return Ok(None);
                }
                return Ok(Some(reply));
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

/// Sends a challenge and gives the response. `None`: the client gave up, and the machine has answered already.
async fn respond(session: &mut Session, challenge: &[u8]) -> Result<Option<Vec<u8>>, Stop> {
    session.pump.machine().challenge(challenge);
    match session.pump.next().await? {
        Some(Event::AuthenticateResponse(response)) => Ok(Some(response)),
        Some(_) => Ok(None),
        None => Err(Stop::Disconnected),
    }
}
