//! Programs that ask for tokens, and how they make themselves known (RFC 7591).
//!
//! A registered client's id says what was registered and is signed, so nothing is stored and there is nothing to fill up.
//! All are public clients (RFC 6749 §2.1): no secret, PKCE instead (RFC 9700 §2.1.1).

use aws_lc_rs::hmac;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::token::{OAuthError, no_store};
use super::{Config, Issuer};

const PREFIX: &str = "postrider-client-";
const MAC: usize = 16;
const NAME_BYTES_MAX: usize = 64;
const REDIRECT_BYTES_MAX: usize = 512;
/// Longer ids are nobody's.
const ID_BYTES_MAX: usize = 8 * 1024;

/// A client as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Client {
    /// What users are shown.
    pub(super) name: String,
    pub(super) redirect_uris: Vec<String>,
}

/// What a client says of itself (RFC 7591 §2). What is not known here is ignored, as the RFC has it.
#[derive(Deserialize)]
struct Registration {
    #[serde(default)]
    client_name: Option<String>,
    #[serde(default)]
    redirect_uris: Vec<String>,
    #[serde(default)]
    token_endpoint_auth_method: Option<String>,
}

/// `POST /oauth/register`.
pub(super) async fn register(State(issuer): State<Issuer>, body: Bytes) -> Response {
    match issuer.registered(&body) {
        Ok((id, client)) => {
            let answer = json!({
                "client_id": id,
                "client_name": client.name,
                "redirect_uris": client.redirect_uris,
                "token_endpoint_auth_method": "none",
                "grant_types": ["authorization_code", "refresh_token"],
                "response_types": ["code"],
            });
            no_store((StatusCode::CREATED, Json(answer)).into_response())
        }
        Err(error) => error.into_response(),
    }
}

impl Issuer {
    fn registered(&self, body: &[u8]) -> Result<(String, Client), OAuthError> {
        let Config { registration, redirect_uris_max, body_bytes_max, .. } = self.inner.config;
        let refused = |why: &str| OAuthError::new("invalid_client_metadata", why);
        if !registration {
            return Err(OAuthError::new("access_denied", "clients are known by their operator here"));
        }
        if body.len() > body_bytes_max {
            return Err(refused("too long"));
        }
        let said: Registration = serde_json::from_slice(body).map_err(|error| refused(&error.to_string()))?;
        if said.token_endpoint_auth_method.is_some_and(|method| method != "none") {
            return Err(refused("token_endpoint_auth_method: clients have no secrets here, so none"));
        }
        let name = said.client_name.unwrap_or_else(|| "A program without a name".to_owned());
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(refused("client_name: empty, longer than 64 octets, or with control characters"));
        }
        if said.redirect_uris.is_empty() || said.redirect_uris.len() > redirect_uris_max {
            return Err(OAuthError::new("invalid_redirect_uri", "none, or too many"));
        }
        if let Some(uri) = said.redirect_uris.iter().find(|uri| !is_redirect_uri(uri)) {
            return Err(OAuthError::new("invalid_redirect_uri", &format!("not taken: {uri:?}")));
        }
        let client = Client { name, redirect_uris: said.redirect_uris };
        Ok((client.sign(&self.inner.key), client))
    }

    /// The client of this id.
    pub(super) fn client(&self, id: &str) -> Option<Client> {
        let configured = self.inner.config.clients.iter().find(|client| client.id == id);
        match configured {
            Some(client) if !client.id.is_empty() => {
                Some(Client { name: client.name.clone(), redirect_uris: client.redirect_uris.clone() })
            }
            _ if self.inner.config.registration => Client::verify(id, &self.inner.key),
            _ => None,
        }
    }
}

impl Client {
    /// Whether a code may go there.
    pub(super) fn may_redirect_to(&self, uri: &str) -> bool {
        let loopback = without_port(uri);
        is_redirect_uri(uri)
            && self.redirect_uris.iter().any(|known| {
                // RFC 8252 §7.3: a program learns its port when it starts.
                known == uri || (loopback.is_some() && without_port(known) == loopback)
            })
    }

    fn sign(&self, key: &hmac::Key) -> String {
        let mut octets = serde_json::to_vec(self).unwrap_or_default();
        let mac = hmac::sign(key, &octets);
        octets.extend_from_slice(&mac.as_ref()[..MAC]);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(octets))
    }

    fn verify(id: &str, key: &hmac::Key) -> Option<Self> {
        if id.len() > ID_BYTES_MAX {
            return None;
        }
        let mut octets = URL_SAFE_NO_PAD.decode(id.strip_prefix(PREFIX)?).ok()?;
        let mac = octets.split_off(octets.len().checked_sub(MAC)?);
        let expected = hmac::sign(key, &octets);
        aws_lc_rs::constant_time::verify_slices_are_equal(&expected.as_ref()[..MAC], &mac).ok()?;
        serde_json::from_slice(&octets).ok()
    }
}

/// What a code may be sent to at all: nothing that a browser would run, and nothing in clear over a network.
fn is_redirect_uri(uri: &str) -> bool {
    if uri.len() > REDIRECT_BYTES_MAX || !uri.bytes().all(|byte| byte.is_ascii_graphic()) || uri.contains('#')
    {
        return false;
    }
    let Some((scheme, rest)) = uri.split_once(':') else { return false };
    match scheme {
        "https" => rest.strip_prefix("//").is_some_and(|rest| {
            let host = rest.split(['/', '?']).next().unwrap_or_default();
            !host.is_empty() && !host.contains('@')
        }),
        "http" => without_port(uri).is_some(),
        // RFC 8252 §7.1: a scheme of one's own is a domain of one's own, in reverse.
        scheme => {
            scheme.contains('.')
                && scheme.starts_with(|first: char| first.is_ascii_lowercase())
                && scheme
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-+".contains(&byte))
        }
    }
}

/// A URI of this machine, without its port.
fn without_port(uri: &str) -> Option<(&str, &str)> {
    let rest = uri.strip_prefix("http://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = ["127.0.0.1", "[::1]"].into_iter().find(|host| authority.starts_with(host))?;
    let port = &authority[host.len()..];
    let is_port = port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    (port.is_empty() || is_port).then_some((host, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_uris() {
        let check = |uri: &str, expected: bool| assert_eq!(is_redirect_uri(uri), expected, "{uri}");
        check("https://app.example/done?x=1", true);
        check("https://", false);
        check("https:///x", false);
        check("https://user@app.example/", false);
        check("https://app.example/#x", false);
        check("http://app.example/done", false);
        check("http://127.0.0.1/done", true);
        check("http://127.0.0.1:8080/done", true);
        check("http://[::1]:80/", true);
        check("http://127.0.0.1.evil.example/", false);
        check("http://127.0.0.1:80@evil.example/", false);
        check("http://127.0.0.1:99999/", false);
        check("http://localhost/", false);
        check("org.example.app:/done", true);
        check("javascript:alert(1)", false);
        check("data:text/html,x", false);
        check("https://app.example/\n", false);
        check(&format!("https://app.example/{}", "x".repeat(600)), false);
    }

    #[test]
    fn a_port_may_change_and_nothing_else() {
        let client = Client {
            name: "a".to_owned(),
            redirect_uris: vec!["http://127.0.0.1/done".to_owned(), "https://app.example/done".to_owned()],
        };
        let check = |uri: &str, expected: bool| assert_eq!(client.may_redirect_to(uri), expected, "{uri}");
        check("http://127.0.0.1:4711/done", true);
        check("http://127.0.0.1/done", true);
        check("http://127.0.0.1:4711/other", false);
        check("http://[::1]:4711/done", false);
        check("https://app.example/done", true);
        check("https://app.example/done/", false);
        check("https://app.example:444/done", false);
    }

    #[test]
    fn an_id_cannot_be_made_or_changed() {
        let key = |byte: u8| hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32]);
        let client = Client { name: "a".to_owned(), redirect_uris: vec!["https://app.example/".to_owned()] };
        let id = client.sign(&key(1));
        assert_eq!(Client::verify(&id, &key(1)), Some(client));
        assert_eq!(Client::verify(&id, &key(2)), None);
        for at in PREFIX.len()..id.len() {
            let mut changed = id.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'Q' } else { b'A' };
            assert_eq!(Client::verify(&String::from_utf8(changed).unwrap(), &key(1)), None, "{at}");
        }
    }
}
