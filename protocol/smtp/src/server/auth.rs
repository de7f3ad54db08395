//! AUTH (RFC 4954).

use std::time::{Duration, Instant};

use machine::Step;
use sasl::scram::ScramVerifier;
use sasl::server::{Failure, ServerStep};
use sasl::{Mechanism, wire};

use super::{Event, Phase, Server};
use crate::line::Line;
use crate::reply::{Reply, bad_sequence, bad_syntax};
use crate::status::status;

/// A login under way.
#[derive(Debug)]
pub(super) struct AuthState {
    exchange: sasl::server::Server,
    /// The service has been asked, and the client is not read from until it answers.
    asked: bool,
    /// A verifier has been looked up, so that the service wants to hear of a failure.
    looked_up: bool,
    /// A token was refused, of which the client is being told; this follows.
    refused: Option<Reply>,
}

impl Server {
    /// The login was right.
    pub fn authenticated(&mut self) {
        assert!(matches!(&self.phase, Phase::Auth(auth) if auth.asked), "an answer without a question");
        self.authenticated = true;
        self.counts.login_failures = 0;
        self.phase = Phase::Command;
        self.write(&Reply::new(235, status(2, 7, 0), "Authentication successful"));
    }

    /// The login was right, and the session goes on elsewhere: nothing more is heard here, and what has come already is
    /// for [`Server::into_input`].
    pub fn authenticated_and_hand_over(&mut self) {
        self.authenticated();
        self.phase = Phase::HandedOver;
    }

    /// The login was wrong, or cannot be decided now.
    pub fn authentication_failed(&mut self, reply: &Reply) {
        let Phase::Auth(auth) = &mut self.phase else { unreachable!("an answer without a question") };
        assert!(auth.asked, "an answer without a question");
        // RFC 7628 §3.2.3: why comes first, and the client answers that it has heard. A token that cannot be checked now is
        // not wrong, and a client that were told so would forget it.
        if reply.code == 535
            && let Some(challenge) = auth.exchange.refused()
        {
            auth.asked = false;
            auth.refused = Some(reply.clone());
            return self.challenge(&challenge);
        }
        self.fail_auth(reply);
    }

    /// Answers [`Event::ScramLookUp`].
    pub fn scram_verifier(&mut self, verifier: ScramVerifier) {
        let Phase::Auth(auth) = &mut self.phase else { unreachable!("an answer without a question") };
        auth.asked = false;
        auth.looked_up = true;
        match auth.exchange.verifier(verifier) {
            ServerStep::Challenge(challenge) => self.challenge(&challenge),
            step => unreachable!("{step:?} does not follow a verifier"),
        }
    }

    /// The mechanisms that the client may use now.
    pub(super) fn mechanisms(&self) -> impl Iterator<Item = Mechanism> {
        let passwords = self.encrypted || self.settings.passwords_in_clear;
        let bound = self.binding != sasl::server::Binding::None;
        self.settings
            .mechanisms
            .iter()
            .copied()
            .filter(move |mechanism| passwords || !mechanism.sends_password())
            .filter(move |mechanism| bound || *mechanism != Mechanism::ScramSha256Plus)
    }

    pub(super) fn begin_auth(
        &mut self,
        name: &str,
        initial: Option<&str>,
    ) -> Result<Option<Step<Event>>, Reply> {
        if self.settings.mechanisms.is_empty() {
            return Err(Reply::new(502, status(5, 5, 1), "AUTH not available"));
        }
        if self.hello.is_none() {
            return Err(bad_sequence("Say hello first"));
        }
        if self.authenticated {
            return Err(bad_sequence("Already authenticated"));
        }
        if self.transaction.is_some() {
            return Err(bad_sequence("Not within a transaction"));
        }
        let mechanism = name
            .parse()
            .ok()
            .filter(|mechanism| self.settings.mechanisms.contains(mechanism))
            .ok_or_else(|| Reply::new(504, status(5, 5, 4), "Mechanism not available"))?;
        if !self.mechanisms().any(|offered| offered == mechanism) {
            return Err(Reply::new(538, status(5, 7, 11), "Encryption required for this mechanism"));
        }
        let initial = initial
            .map(|text| wire::decode_initial(text.as_bytes()))
            .transpose()
            .map_err(|_| bad_syntax("Not base64"))?;
        let (exchange, step) = sasl::server::Server::start(mechanism, self.binding, initial.as_deref());
        self.phase =
            Phase::Auth(Box::new(AuthState { exchange, asked: false, looked_up: false, refused: None }));
        Ok(self.follow(step))
    }

    /// Reads the next response. `None`: look again.
    pub(super) fn auth(&mut self, now: Instant) -> Option<Step<Event>> {
        let Phase::Auth(auth) = &mut self.phase else { unreachable!("called in this phase only") };
        if auth.asked {
            return Some(self.take_output().unwrap_or(Step::Wait { until: None }));
        }
        let Some(line) = self.lines.take(&mut self.input, self.settings.limits.auth_line_bytes_max) else {
            let limit = Duration::from_secs(self.limits().command_seconds_max);
            return Some(self.wait(limit, now));
        };
        let refusal = match line {
            // RFC 4954 §4: the client gives up.
            Line::Whole(line) if &line[..] == b"*" => {
                Reply::new(501, status(5, 0, 0), "Authentication cancelled")
            }
            Line::Whole(line) => match wire::decode(&line) {
                Ok(_) if auth.refused.is_some() => auth.refused.take().unwrap_or_else(rejected),
                Ok(response) => {
                    let step = auth.exchange.respond(&response);
                    return self.follow(step);
                }
                Err(_) => bad_syntax("Not base64"),
            },
            // RFC 4954 §6.
            Line::TooLong => Reply::new(500, status(5, 5, 6), "Authentication exchange line is too long"),
            Line::Forbidden => Reply::new(500, status(5, 5, 2), "Bare CR or NUL in line"),
            Line::BareLf => {
                self.close(&Reply::new(500, status(5, 5, 2), "Lines end in CRLF, goodbye"));
                return None;
            }
        };
        self.end_failed(&refusal)
    }

    fn follow(&mut self, step: ServerStep) -> Option<Step<Event>> {
        let event = match step {
            ServerStep::Challenge(challenge) => {
                self.challenge(&challenge);
                return None;
            }
            ServerStep::Failed(failure) => {
                let reply = match failure {
                    Failure::Malformed(_) => bad_syntax(failure.to_string()),
                    Failure::WrongProof | Failure::ChannelBinding => rejected(),
                };
                return self.end_failed(&reply);
            }
            ServerStep::Verify(login) => Event::Login(login),
            ServerStep::LookUp { authcid } => Event::ScramLookUp { authcid },
            ServerStep::Proved { authzid, authcid } => Event::ScramProved { authzid, authcid },
        };
        if let Phase::Auth(auth) = &mut self.phase {
            auth.asked = true;
        }
        Some(self.give(event))
    }

    fn challenge(&mut self, challenge: &[u8]) {
        self.write(&Reply::bare(334, wire::encode(challenge)));
    }

    /// Fails without being told to by the service, which hears of it if it has looked something up.
    fn end_failed(&mut self, reply: &Reply) -> Option<Step<Event>> {
        let looked_up = matches!(&self.phase, Phase::Auth(auth) if auth.looked_up);
        self.fail_auth(reply);
        looked_up.then_some(Step::Event(Event::LoginFailed))
    }

    fn fail_auth(&mut self, reply: &Reply) {
        self.phase = Phase::Command;
        self.answer(reply);
        self.counts.login_failures += 1;
        if self.counts.login_failures >= self.limits().login_failures_max
            && !matches!(self.phase, Phase::Closing)
        {
            self.close(&Reply::new(421, status(4, 7, 0), "Too many failed logins"));
        }
    }
}

/// The one answer to every login that is wrong, so that it does not tell what was wrong.
pub fn rejected() -> Reply {
    Reply::new(535, status(5, 7, 8), "Authentication credentials invalid")
}
