//! SASL exchanges (RFC 4422) without I/O: PLAIN, LOGIN, SCRAM-SHA-256, OAUTHBEARER and XOAUTH2, both ends.
//!
//! SMTP, IMAP, POP3 and ManageSieve carry the same exchange in different clothes: they bring the mechanism's name and
//! decoded responses, and carry challenges back. What needs a look into the directory is asked as a
//! [`server::ServerStep`], so that the service can answer it whenever it likes.
//!
//! Not here: who exists, which password is right, and what anybody may do.
//!
//! Start reading at [`server`].

mod bearer;
pub mod client;
mod plain;
pub mod scram;
mod secret;
pub mod server;
pub mod wire;

use std::fmt;
use std::str::FromStr;

pub use secret::Password;

/// The mechanisms that are spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// RFC 4616. The password travels, so it belongs under TLS.
    Plain,
    /// The same in two questions (draft-murchison-sasl-login); old Outlooks and many devices know nothing else.
    Login,
    /// RFC 5802 and 7677: the password does not travel, and the server proves itself.
    ScramSha256,
    /// The same, bound to the TLS channel by `tls-exporter` (RFC 9266).
    ScramSha256Plus,
    /// RFC 7628: an access token of OAuth 2.
    OAuthBearer,
    /// The same as it was before the RFC; Thunderbird and Outlook know nothing else.
    XOAuth2,
}

impl Mechanism {
    /// All of them; those with a password first, and of these the strongest.
    pub const ALL: [Self; 6] = [
        Self::ScramSha256Plus,
        Self::ScramSha256,
        Self::Plain,
        Self::Login,
        Self::OAuthBearer,
        Self::XOAuth2,
    ];

    /// The registered name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::OAuthBearer => "OAUTHBEARER",
            Self::XOAuth2 => "XOAUTH2",
        }
    }

    /// Whether the client's first message is part of the first command when there is room for it.
    pub const fn client_first(self) -> bool {
        !matches!(self, Self::Login)
    }

    /// Whether what is sent is good for whoever reads it on its way: a password, or a token.
    pub const fn sends_password(self) -> bool {
        matches!(self, Self::Plain | Self::Login) || self.takes_token()
    }

    /// Whether it carries an access token in place of a password.
    pub const fn takes_token(self) -> bool {
        matches!(self, Self::OAuthBearer | Self::XOAuth2)
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No mechanism has this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown mechanism")]
pub struct UnknownMechanism;

impl FromStr for Mechanism {
    type Err = UnknownMechanism;

    fn from_str(name: &str) -> Result<Self, UnknownMechanism> {
        Self::ALL
            .into_iter()
            .find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
            .ok_or(UnknownMechanism)
    }
}
