//! What an operator can set, each with its default and the reason for it.

use serde::{Deserialize, Serialize};

/// The issuer of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether any program may make itself known (RFC 7591). Its user is shown where the answer goes, and decides. Without it
    /// only the clients below can ask for tokens.
    pub registration: bool,
    /// Programs that are known by a name of yours.
    pub clients: Vec<ConfiguredClient>,
    /// Redirect URIs that one client may name.
    pub redirect_uris_max: usize,
    /// Octets of a request to register, or for a token.
    pub body_bytes_max: usize,
}

/// A program that an operator knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfiguredClient {
    /// Its `client_id`.
    pub id: String,
    /// What users are shown.
    pub name: String,
    /// Where a code may go: `https:` URIs as they are, `http:` ones of this machine (`127.0.0.1`, `[::1]`) with any port, and
    /// those of a scheme of its own (RFC 8252 §7).
    pub redirect_uris: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self { registration: true, clients: Vec::new(), redirect_uris_max: 8, body_bytes_max: 16 * 1024 }
    }
}
