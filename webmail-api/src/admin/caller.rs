//! Who calls, and what they may do.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// How a request came in. The serving side puts it into each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Over the Unix socket, from a process of this user.
    Unix {
        /// The user, where the system tells.
        uid: Option<u32>,
    },
    /// Over TCP.
    Tcp {
        /// From there.
        remote: SocketAddr,
        /// Whether it is encrypted, or never left this machine.
        private: bool,
    },
    /// From this process, which holds the lock of the store.
    Process,
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A user of this machine who may do everything.
    User(u32),
    /// The operator's own command, working on the store itself.
    Process,
    /// Whoever has this token.
    Token {
        /// What the token is called.
        name: String,
        /// What it is good for.
        scopes: Vec<Scope>,
        /// From where.
        remote: SocketAddr,
    },
    /// Nobody: only health can be asked for.
    Anonymous,
}

impl Caller {
    /// Whether this caller may use endpoints of a scope.
    pub(crate) fn may(&self, scope: Scope) -> bool {
        match self {
            Self::User(_) | Self::Process => true,
            Self::Token { scopes, .. } => scopes.contains(&scope),
            Self::Anonymous => false,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "uid {uid}"),
            Self::Process => f.write_str("this process"),
            Self::Token { name, remote, .. } => write!(f, "token {name:?} from {remote}"),
            Self::Anonymous => f.write_str("nobody"),
        }
    }
}

/// What a token can be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Looking at domains, accounts, aliases and lists.
    Read,
    /// Changing them.
    Write,
    /// Setting passwords, making and withdrawing application passwords.
    Passwords,
    /// Reading metrics.
    Metrics,
    /// Making and withdrawing tokens: as good as everything.
    Tokens,
    /// Looking at the queue, which tells who writes to whom, and acting on it.
    Queue,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Write, Self::Passwords, Self::Metrics, Self::Tokens, Self::Queue];

    /// The name on the command line and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Passwords => "passwords",
            Self::Metrics => "metrics",
            Self::Tokens => "tokens",
            Self::Queue => "queue",
        }
    }
}
