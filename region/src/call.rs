//! What a node asks a node of another region, and what it is answered. JSON, so that a later release may add fields.

use std::fmt;
use std::net::SocketAddr;

use mail::region::Region;
use net::stream::{End, Peer};
use net::tls::TlsInfo;
use serde::{Deserialize, Serialize};

/// The first thing that is said on a link.
#[derive(Debug, Serialize, Deserialize)]
pub struct Call {
    /// The region that asks.
    pub from: Region,
    /// The region that is asked: a link that leads somewhere else is of no use.
    pub to: Region,
    /// What is asked.
    pub request: Request,
}

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Is this login right, and if so, take the client over: after [`Answer::LoggedIn`] the link is its connection.
    LogIn(LogIn),
    /// May this address have a message? Answered with [`Answer::Recipient`].
    Recipient {
        /// The address.
        address: String,
        /// How large the message is, as far as that is known.
        size: u64,
    },
    /// Take mail: after [`Answer::Mail`] the link is a connection for SMTP, as from any host.
    Mail,
}

/// A client that has given a name.
#[derive(Debug, Serialize, Deserialize)]
pub struct LogIn {
    /// The name.
    pub login: String,
    /// How it proves that it is its own.
    pub proof: Proof,
    /// What the client speaks, and how far it has come.
    pub session: Session,
    /// Where it is.
    pub client: Client,
}

/// How a client proves who it is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// With a password.
    Password(Password),
    /// By SCRAM-SHA-256, with the node that it has connected to: it is answered with [`Answer::Verifier`], and says
    /// [`Proved`] when the client has proved it. A link that ends before that was a failed login.
    Scram,
}

/// The client has proved by SCRAM who it is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Proved {}

/// What a client speaks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Session {
    /// IMAP, before any command but the login.
    Imap,
    /// Submission, before any transaction.
    Submission {
        /// The client has said EHLO, and not HELO.
        extended: bool,
        /// What it calls itself.
        name: String,
    },
}

/// A client, as the node sees it that it has connected to: limits, logs and trace fields are about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Where it is; none for a local socket.
    pub remote: Option<SocketAddr>,
    /// Where it has connected to.
    pub local: Option<SocketAddr>,
    /// How its connection is encrypted, if it is.
    pub tls: Option<ClientTls>,
}

/// TLS between client and node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientTls {
    /// Whether it is TLS 1.3; 1.2 otherwise.
    pub is_1_3: bool,
    /// The cipher suite.
    pub cipher: String,
}

/// A password on its way.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The client is logged in, and the session goes on here.
    LoggedIn {
        /// What the service has to say to it, without tag or code.
        text: String,
    },
    /// What SCRAM needs to know of the user.
    Verifier(Verifier),
    /// Of a recipient.
    Recipient(Recipient),
    /// SMTP begins.
    Mail,
    /// Wrong name or password.
    Rejected,
    /// Too many failures.
    Throttled {
        /// When one more would be allowed, in seconds.
        seconds: u64,
    },
    /// Too many logins at one time.
    Busy,
    /// Not now.
    Unavailable,
    /// A service like this is not there, or a request like this not known.
    NotServed,
}

/// What an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipient {
    /// It gets mail.
    Good,
    /// Its mailbox has no room.
    Full,
    /// It is there and takes no mail.
    Disabled,
    /// There is none.
    Unknown,
}

/// A SCRAM-SHA-256 verifier (RFC 5802 §3).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verifier {
    /// How often the password was hashed.
    pub iterations: u32,
    /// With what.
    pub salt: Vec<u8>,
    /// What the client's proof is checked by.
    pub stored_key: [u8; 32],
    /// What the server proves itself by.
    pub server_key: [u8; 32],
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(…)")
    }
}

impl Client {
    /// The client at the other end of a connection.
    pub fn of(peer: &Peer) -> Self {
        let address = |end: &End| match end {
            End::Tcp(address) => Some(*address),
            End::Unix { .. } | End::Memory => None,
        };
        let tls = peer.tls.as_ref();
        Self {
            remote: address(&peer.remote),
            local: address(&peer.local),
            tls: tls.map(|tls| ClientTls { is_1_3: tls.version == TLS_1_3, cipher: tls.cipher.clone() }),
        }
    }

    /// The same, as the connection's end here would have it.
    pub fn peer(&self) -> Peer {
        let end = |address: Option<SocketAddr>| address.map_or(End::Unix { uid: None, pid: None }, End::Tcp);
        let tls = self.tls.as_ref().map(|tls| TlsInfo {
            version: if tls.is_1_3 { TLS_1_3 } else { "TLSv1.2" },
            cipher: tls.cipher.clone(),
            server_name: None,
            exporter: None,
        });
        Peer { remote: end(self.remote), local: end(self.local), tls }
    }
}

/// As [`TlsInfo`] says it.
const TLS_1_3: &str = "TLSv1.3";

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_the_same_on_the_other_side() {
        let client = Client {
            remote: Some(([192, 0, 2, 1], 1000).into()),
            local: Some(([192, 0, 2, 2], 993).into()),
            tls: Some(ClientTls { is_1_3: true, cipher: "TLS13_AES_256_GCM_SHA384".to_owned() }),
        };
        assert_eq!(Client::of(&client.peer()), client);
        let local = Client { remote: None, local: None, tls: None };
        assert_eq!(Client::of(&local.peer()), local);
    }
}
