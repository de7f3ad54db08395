//! The server's side of one exchange.

use crate::scram::{self, BindingFlag, ClientFinal, ClientFirst, ScramVerifier};
use crate::{Mechanism, Password, bearer, plain};

/// A name and a password, as PLAIN and LOGIN bring them. OAUTHBEARER and XOAUTH2 bring an access token in place of the
/// password, and perhaps no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainLogin {
    /// As whom the client wants to act, if it says so.
    pub authzid: Option<String>,
    /// Who the client says it is.
    pub authcid: String,
    /// How it proves that.
    pub password: Password,
}

/// What is to be done next in an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerStep {
    /// Send this; then give the response to [`Server::respond`].
    Challenge(Vec<u8>),
    /// Is this login right? The exchange is over; the answer goes to the client in the language's own words, but for a token
    /// that is refused: see [`Server::refused`].
    Verify(PlainLogin),
    /// Look the verifier up and give it to [`Server::verifier`]. A user who does not exist, or has no verifier, gets
    /// [`ScramVerifier::of_nobody`], so that nothing is told before the proof.
    LookUp {
        /// Who the client says it is.
        authcid: String,
    },
    /// The client knows the password of `authcid`. The exchange is over.
    Proved {
        /// As whom the client wants to act, if it says so.
        authzid: Option<String>,
        /// Who the client is.
        authcid: String,
    },
    /// The exchange has failed and is over.
    Failed(Failure),
}

/// Why an exchange failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The client's message cannot be understood: a protocol error, and no attempt at a password.
    #[error("malformed authentication exchange: {0}")]
    Malformed(&'static str),
    /// The proof is wrong: a failed login, to be counted.
    #[error("wrong password")]
    WrongProof,
    /// The TLS channel is not the client's, or the client was told that there is no binding: somebody is between.
    #[error("channel binding does not match")]
    ChannelBinding,
}

/// One exchange.
#[derive(Debug)]
pub struct Server {
    mechanism: Mechanism,
    binding: Binding,
    state: State,
}

/// What the server knows and has offered of channel binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Binding {
    /// No `-PLUS` mechanism was offered.
    #[default]
    None,
    /// The connection's `tls-exporter` value (RFC 9266); a `-PLUS` mechanism was offered.
    Exporter([u8; 32]),
}

#[derive(Debug)]
enum State {
    Start,
    LoginName,
    LoginPassword { authcid: String },
    LookingUp { first: ClientFirst },
    ScramProof { first: ClientFirst, server_first: String, nonce: String, verifier: ScramVerifier },
    ScramAcknowledge { authzid: Option<String>, authcid: String },
    Bearer,
    BearerRefused,
    Over,
}

impl Server {
    /// Begins an exchange. `initial` is the response that came with the command, decoded.
    pub fn start(mechanism: Mechanism, binding: Binding, initial: Option<&[u8]>) -> (Self, ServerStep) {
        let mut server = Self { mechanism, binding, state: State::Start };
        let step = match (initial, mechanism) {
            (Some(initial), _) => server.respond(initial),
            (None, Mechanism::Login) => {
                server.state = State::LoginName;
                ServerStep::Challenge(b"Username:".to_vec())
            }
            // RFC 4422 §5: a mechanism in which the client speaks first begins with an empty challenge.
            (None, _) => ServerStep::Challenge(Vec::new()),
        };
        (server, step)
    }

    /// The mechanism of this exchange.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Takes the client's response to the last challenge, decoded.
    pub fn respond(&mut self, response: &[u8]) -> ServerStep {
        self.advance(response).unwrap_or_else(|failure| {
            self.state = State::Over;
            ServerStep::Failed(failure)
        })
    }

    /// The answer to [`ServerStep::Verify`] is no. With a token there is something to be said and heard before the language
    /// says so (RFC 7628 §3.2.2): `Some` is the challenge, and what the client responds is given to [`Server::respond`].
    pub fn refused(&mut self) -> Option<Vec<u8>> {
        if !matches!(self.state, State::Bearer) {
            return None;
        }
        self.state = State::BearerRefused;
        Some(bearer::refusal(self.mechanism))
    }

    /// Answers [`ServerStep::LookUp`].
    pub fn verifier(&mut self, verifier: ScramVerifier) -> ServerStep {
        self.verifier_with_nonce(verifier, &scram::nonce())
    }

    fn verifier_with_nonce(&mut self, verifier: ScramVerifier, own: &str) -> ServerStep {
        let State::LookingUp { first } = std::mem::replace(&mut self.state, State::Over) else {
            return ServerStep::Failed(Failure::Malformed("no verifier was asked for"));
        };
        let nonce = format!("{}{own}", first.nonce);
        let salt = crate::wire::encode(&verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let challenge = server_first.clone().into_bytes();
        self.state = State::ScramProof { first, server_first, nonce, verifier };
        ServerStep::Challenge(challenge)
    }

    fn advance(&mut self, response: &[u8]) -> Result<ServerStep, Failure> {
        match (std::mem::replace(&mut self.state, State::Over), self.mechanism) {
            (State::Start, Mechanism::Plain) => Ok(ServerStep::Verify(plain::parse(response)?)),
            (State::Start, Mechanism::OAuthBearer | Mechanism::XOAuth2) => {
                let login = bearer::parse(self.mechanism, response)?;
                self.state = State::Bearer;
                Ok(ServerStep::Verify(login))
            }
            // Whatever the client has to say about it.
            (State::BearerRefused, _) => Err(Failure::WrongProof),
            (State::Start | State::LoginName, Mechanism::Login) => {
                self.state = State::LoginPassword { authcid: text(response)?.to_owned() };
                Ok(ServerStep::Challenge(b"Password:".to_vec()))
            }
            (State::LoginPassword { authcid }, _) => {
                Ok(ServerStep::Verify(plain::login(None, &authcid, text(response)?)?))
            }
            (State::Start, Mechanism::ScramSha256 | Mechanism::ScramSha256Plus) => {
                let first = ClientFirst::parse(response)?;
                self.check_flag(&first.flag)?;
                let authcid = first.authcid.clone();
                self.state = State::LookingUp { first };
                Ok(ServerStep::LookUp { authcid })
            }
            (State::ScramProof { first, server_first, nonce, verifier }, _) => {
                self.prove(first, &server_first, &nonce, &verifier, response)
            }
            (State::ScramAcknowledge { authzid, authcid }, _) => {
                if response.is_empty() {
                    Ok(ServerStep::Proved { authzid, authcid })
                } else {
                    Err(Failure::Malformed("a response to the last message is empty"))
                }
            }
            (State::LoginName | State::LookingUp { .. } | State::Bearer | State::Over, _) => {
                Err(Failure::Malformed("no response was asked for"))
            }
        }
    }

    /// RFC 5802 §6: `y` where binding was offered means that somebody has removed the offer on its way.
    fn check_flag(&self, flag: &BindingFlag) -> Result<(), Failure> {
        match (flag, self.mechanism, self.binding) {
            (BindingFlag::Used(name), Mechanism::ScramSha256Plus, Binding::Exporter(_))
                if name == "tls-exporter" =>
            {
                Ok(())
            }
            (BindingFlag::NotSupported, Mechanism::ScramSha256, _)
            | (BindingFlag::NotOffered, Mechanism::ScramSha256, Binding::None) => Ok(()),
            _ => Err(Failure::ChannelBinding),
        }
    }

    fn prove(
        &mut self,
        first: ClientFirst,
        server_first: &str,
        nonce: &str,
        verifier: &ScramVerifier,
        response: &[u8],
    ) -> Result<ServerStep, Failure> {
        let last = ClientFinal::parse(response)?;
        if last.nonce != nonce {
            return Err(Failure::Malformed("another nonce"));
        }
        let mut binding = first.gs2_header.clone().into_bytes();
        if let (BindingFlag::Used(_), Binding::Exporter(exporter)) = (&first.flag, self.binding) {
            binding.extend_from_slice(&exporter);
        }
        if last.binding != binding {
            return Err(Failure::ChannelBinding);
        }
        let auth_message = scram::auth_message(&first.bare, server_first, &last.without_proof);
        if !scram::proof_is_right(verifier, &auth_message, &last.proof) {
            return Err(Failure::WrongProof);
        }
        let signature = scram::mac(&verifier.server_key, &auth_message);
        self.state = State::ScramAcknowledge { authzid: first.authzid, authcid: first.authcid };
        Ok(ServerStep::Challenge(format!("v={}", crate::wire::encode(&signature)).into_bytes()))
    }
}

fn text(response: &[u8]) -> Result<&str, Failure> {
    match std::str::from_utf8(response) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(Failure::Malformed("not text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn verifier(password: &str, salt: &str) -> ScramVerifier {
        ScramVerifier::derive(
            &Password::from(password),
            crate::wire::decode(salt.as_bytes()).unwrap(),
            NonZeroU32::new(4096).unwrap(),
        )
    }

    /// The example of RFC 7677 §3.
    #[test]
    fn rfc7677_example() {
        let (mut server, step) =
            Server::start(Mechanism::ScramSha256, Binding::None, Some(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"));
        assert_eq!(step, ServerStep::LookUp { authcid: "user".into() });
        let verifier = verifier("pencil", "W22ZaJ0SNY7soEsUEjb6gQ==");
        let step = server.verifier_with_nonce(verifier, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
        let expected =
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(step, ServerStep::Challenge(expected.into()));
        let step = server.respond(
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        );
        let expected = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(step, ServerStep::Challenge(expected.into()));
        assert_eq!(server.respond(b""), ServerStep::Proved { authzid: None, authcid: "user".into() });
        assert!(matches!(server.respond(b""), ServerStep::Failed(_)), "an exchange happens once");
    }

    #[test]
    fn rfc7677_example_gone_wrong() {
        let run = |last: &str| {
            let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
            let (mut server, _) = Server::start(Mechanism::ScramSha256, Binding::None, Some(first));
            let verifier = verifier("pencil", "W22ZaJ0SNY7soEsUEjb6gQ==");
            server.verifier_with_nonce(verifier, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
            server.respond(last.as_bytes())
        };
        const NONCE: &str = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        const PROOF: &str = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let wrong = PROOF.replace('d', "e");
        assert_eq!(run(&format!("c=biws,r={NONCE},p={wrong}")), ServerStep::Failed(Failure::WrongProof));
        assert_eq!(run(&format!("c=eSws,r={NONCE},p={PROOF}")), ServerStep::Failed(Failure::ChannelBinding));
        for malformed in [
            "",
            "c=biws",
            &format!("c=biws,r={NONCE}"),
            &format!("c=biws,r={NONCE}x,p={PROOF}"),
            &format!("c=biws,r={NONCE},p=AAAA"),
            &format!("r={NONCE},c=biws,p={PROOF}"),
        ] {
            assert!(matches!(run(malformed), ServerStep::Failed(Failure::Malformed(_))), "{malformed}");
        }
    }

    #[test]
    fn login_in_two_questions() {
        let expected = PlainLogin { authzid: None, authcid: "tim".into(), password: "pass".into() };
        for initial in [None, Some(&b"tim"[..])] {
            let (mut server, mut step) = Server::start(Mechanism::Login, Binding::None, initial);
            if initial.is_none() {
                assert_eq!(step, ServerStep::Challenge(b"Username:".to_vec()));
                step = server.respond(b"tim");
            }
            assert_eq!(step, ServerStep::Challenge(b"Password:".to_vec()));
            assert_eq!(server.respond(b"pass"), ServerStep::Verify(expected.clone()));
        }
    }

    /// The failing example of RFC 7628 §4.3.
    #[test]
    fn a_refused_token() {
        let message = b"n,a=user@example.com,\x01auth=Bearer vF9d==\x01\x01";
        let (mut server, step) = Server::start(Mechanism::OAuthBearer, Binding::None, Some(message));
        assert!(matches!(step, ServerStep::Verify(_)));
        assert_eq!(server.refused().unwrap(), br#"{"status":"invalid_token"}"#);
        assert_eq!(server.respond(b"\x01"), ServerStep::Failed(Failure::WrongProof));
        assert_eq!(server.refused(), None, "it is over");
        let (mut server, _) = Server::start(Mechanism::Plain, Binding::None, Some(b"\0tim\0secret"));
        assert_eq!(server.refused(), None, "a password has nothing more to be told");
    }

    #[test]
    fn downgrade_is_noticed() {
        let binding = Binding::Exporter([1; 32]);
        let check = |mechanism, binding, flag: &str, accepted: bool| {
            let first = format!("{flag},,n=u,r=abc");
            let (_, step) = Server::start(mechanism, binding, Some(first.as_bytes()));
            assert_eq!(matches!(step, ServerStep::LookUp { .. }), accepted, "{mechanism} {flag}");
        };
        check(Mechanism::ScramSha256, binding, "y", false);
        check(Mechanism::ScramSha256, Binding::None, "y", true);
        check(Mechanism::ScramSha256, binding, "n", true);
        check(Mechanism::ScramSha256, binding, "p=tls-exporter", false);
        check(Mechanism::ScramSha256Plus, binding, "p=tls-exporter", true);
        check(Mechanism::ScramSha256Plus, binding, "p=tls-unique", false);
        check(Mechanism::ScramSha256Plus, binding, "n", false);
        check(Mechanism::ScramSha256Plus, Binding::None, "p=tls-exporter", false);
    }
}
