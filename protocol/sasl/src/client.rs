//! The client's side of one exchange: for tests and for relays that want a login.

use std::num::NonZeroU32;

use crate::scram;
use crate::server::{Binding, PlainLogin};
use crate::{Mechanism, Password, bearer, plain, wire};

/// Why a client goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The server's message cannot be understood.
    #[error("malformed challenge: {0}")]
    Malformed(&'static str),
    /// The server does not know the password: it is not the one it says it is.
    #[error("the server's signature is wrong")]
    ServerSignature,
    /// The server asks for so many rounds that it must mean harm.
    #[error("the server asks for too many iterations")]
    TooManyIterations,
}

/// PBKDF2 rounds that a server may make us do; a second of work.
const ITERATIONS_MAX: u32 = 2_000_000;

/// One exchange.
#[derive(Debug)]
pub struct Client {
    mechanism: Mechanism,
    login: PlainLogin,
    binding: Binding,
    state: State,
}

#[derive(Debug)]
enum State {
    Start,
    LoginPassword,
    ServerFirst { nonce: String, bare: String },
    ServerFinal { signature: [u8; 32] },
    TokenSent,
    Over,
}

impl Client {
    /// Begins an exchange for `login`. The password is taken as it is: whoever sets and whoever enters it prepare it
    /// alike (RFC 4013).
    pub fn new(mechanism: Mechanism, login: PlainLogin, binding: Binding) -> Self {
        Self { mechanism, login, binding, state: State::Start }
    }

    /// A login without an authorisation identity.
    pub fn plain_login(authcid: &str, password: Password) -> PlainLogin {
        PlainLogin { authzid: None, authcid: authcid.to_owned(), password }
    }

    /// The mechanism of this exchange.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The first message, for protocols that carry it in the command. `None`: the server asks first.
    pub fn initial(&mut self) -> Option<Vec<u8>> {
        self.initial_with_nonce(scram::nonce())
    }

    fn initial_with_nonce(&mut self, nonce: String) -> Option<Vec<u8>> {
        match self.mechanism {
            Mechanism::Login => None,
            Mechanism::Plain => {
                self.state = State::Over;
                Some(plain::message(&self.login))
            }
            Mechanism::OAuthBearer | Mechanism::XOAuth2 => {
                self.state = State::TokenSent;
                Some(bearer::message(self.mechanism, &self.login))
            }
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => {
                let bare = format!("n={},r={nonce}", scram::encode_name(&self.login.authcid));
                let message = format!("{}{bare}", self.gs2_header());
                self.state = State::ServerFirst { nonce, bare };
                Some(message.into_bytes())
            }
        }
    }

    /// Answers a challenge.
    pub fn respond(&mut self, challenge: &[u8]) -> Result<Vec<u8>, ClientError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Start if self.mechanism == Mechanism::Login => {
                self.state = State::LoginPassword;
                Ok(self.login.authcid.clone().into_bytes())
            }
            State::Start => {
                if !challenge.is_empty() {
                    return Err(ClientError::Malformed("the client speaks first"));
                }
                self.initial().ok_or(ClientError::Malformed("nothing to say"))
            }
            State::LoginPassword => Ok(self.login.password.expose().as_bytes().to_vec()),
            State::ServerFirst { nonce, bare } => self.prove(&nonce, &bare, challenge),
            State::ServerFinal { signature } => {
                let expected = format!("v={}", wire::encode(&signature));
                // Nothing secret here: the server has just sent it.
                if challenge == expected.as_bytes() {
                    Ok(Vec::new())
                } else {
                    Err(ClientError::ServerSignature)
                }
            }
            // Why the token is refused is said, and then that it is (RFC 7628 §3.2.3).
            State::TokenSent if self.mechanism == Mechanism::OAuthBearer => Ok(bearer::DUMMY.to_vec()),
            State::TokenSent => Ok(Vec::new()),
            State::Over => Err(ClientError::Malformed("the exchange is over")),
        }
    }

    /// Whether the server has nothing more to prove: a success before that is a false one.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Over | State::TokenSent)
    }

    fn gs2_header(&self) -> String {
        let flag = if self.mechanism == Mechanism::ScramSha256Plus { "p=tls-exporter" } else { "n" };
        match &self.login.authzid {
            Some(authzid) => format!("{flag},a={},", scram::encode_name(authzid)),
            None => format!("{flag},,"),
        }
    }

    fn prove(&mut self, nonce: &str, bare: &str, challenge: &[u8]) -> Result<Vec<u8>, ClientError> {
        let malformed = || ClientError::Malformed("not a server-first message");
        let server_first = std::str::from_utf8(challenge).map_err(|_| malformed())?;
        let mut attributes = server_first.split(',');
        let mut attribute =
            |prefix| attributes.next().and_then(|text: &str| text.strip_prefix(prefix)).ok_or_else(malformed);
        let full_nonce = attribute("r=")?;
        let salt = wire::decode(attribute("s=")?.as_bytes()).map_err(|_| malformed())?;
        let iterations: NonZeroU32 = attribute("i=")?.parse().map_err(|_| malformed())?;
        if iterations.get() > ITERATIONS_MAX {
            return Err(ClientError::TooManyIterations);
        }
        if !full_nonce.starts_with(nonce) || full_nonce.len() == nonce.len() {
            return Err(ClientError::Malformed("not our nonce"));
        }
        let mut binding = self.gs2_header().into_bytes();
        if let (Mechanism::ScramSha256Plus, Binding::Exporter(exporter)) = (self.mechanism, self.binding) {
            binding.extend_from_slice(&exporter);
        }
        let without_proof = format!("c={},r={full_nonce}", wire::encode(&binding));
        let auth_message = scram::auth_message(bare, server_first, &without_proof);
        let (proof, signature) = scram::prove(&self.login.password, &salt, iterations, &auth_message);
        self.state = State::ServerFinal { signature };
        Ok(format!("{without_proof},p={}", wire::encode(&proof)).into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scram::ScramVerifier;
    use crate::server::{Failure, Server, ServerStep};

    /// The example of RFC 7677 §3, from the client's side.
    #[test]
    fn rfc7677_example() {
        let login = Client::plain_login("user", "pencil".into());
        let mut client = Client::new(Mechanism::ScramSha256, login, Binding::None);
        let first = client.initial_with_nonce("rOprNGfwEbeRWgbNEkqO".into()).unwrap();
        assert_eq!(first, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let last = client
            .respond(
                b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            )
            .unwrap();
        assert_eq!(
            String::from_utf8(last).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(!client.is_complete());
        assert_eq!(client.respond(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap(), b"");
        assert!(client.is_complete());
    }

    /// Runs both ends until the server has decided.
    fn run(mechanism: Mechanism, bindings: [Binding; 2], password: &str, with_initial: bool) -> ServerStep {
        let login = PlainLogin {
            authzid: (mechanism != Mechanism::Login).then(|| "boss".into()),
            authcid: "a=b,c".into(),
            password: password.into(),
        };
        let mut client = Client::new(mechanism, login, bindings[0]);
        let initial = if with_initial { client.initial() } else { None };
        let (mut server, mut step) = Server::start(mechanism, bindings[1], initial.as_deref());
        loop {
            step = match step {
                ServerStep::Challenge(challenge) => server.respond(&client.respond(&challenge).unwrap()),
                ServerStep::LookUp { authcid } => {
                    assert_eq!(authcid, "a=b,c");
                    let iterations = NonZeroU32::new(4096).unwrap();
                    server.verifier(ScramVerifier::derive(&"secret".into(), vec![5; 16], iterations))
                }
                decided => {
                    assert!(matches!(decided, ServerStep::Failed(_)) || client.is_complete());
                    return decided;
                }
            };
        }
    }

    #[test]
    fn both_ends() {
        let bound = Binding::Exporter([3; 32]);
        for with_initial in [true, false] {
            for (mechanism, binding) in [
                (Mechanism::ScramSha256, Binding::None),
                (Mechanism::ScramSha256, bound),
                (Mechanism::ScramSha256Plus, bound),
            ] {
                let proved = ServerStep::Proved { authzid: Some("boss".into()), authcid: "a=b,c".into() };
                assert_eq!(run(mechanism, [binding; 2], "secret", with_initial), proved);
                let failed = ServerStep::Failed(Failure::WrongProof);
                assert_eq!(run(mechanism, [binding; 2], "sesame", with_initial), failed);
            }
            for mechanism in [Mechanism::Plain, Mechanism::Login] {
                let ServerStep::Verify(login) = run(mechanism, [Binding::None; 2], "secret", with_initial)
                else {
                    panic!("{mechanism}")
                };
                assert_eq!((login.authcid.as_str(), login.password.expose()), ("a=b,c", "secret"));
            }
        }
        let between = [Binding::Exporter([4; 32]), bound];
        let failed = ServerStep::Failed(Failure::ChannelBinding);
        assert_eq!(run(Mechanism::ScramSha256Plus, between, "secret", true), failed);
    }

    #[test]
    fn hostile_server() {
        let check = |challenge: &str| {
            let login = Client::plain_login("user", "pencil".into());
            let mut client = Client::new(Mechanism::ScramSha256, login, Binding::None);
            client.initial_with_nonce("abc".into());
            client.respond(challenge.as_bytes())
        };
        assert!(check("r=abcd,s=AAAA,i=4096").is_ok());
        assert_eq!(check("r=abcd,s=AAAA,i=4000000000"), Err(ClientError::TooManyIterations));
        for malformed in
            ["", "r=abc,s=AAAA,i=4096", "r=xbcd,s=AAAA,i=4096", "r=abcd,s=AAAA,i=0", "e=other-error"]
        {
            assert!(matches!(check(malformed), Err(ClientError::Malformed(_))), "{malformed}");
        }
    }
}
