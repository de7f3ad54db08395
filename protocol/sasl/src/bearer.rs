//! Access tokens: OAUTHBEARER (RFC 7628) and XOAUTH2, which came before it.
//!
//! ```text
//! OAUTHBEARER  "n,a=user@example.org," 0x01 "host=…" 0x01 "auth=Bearer token" 0x01 0x01
//! XOAUTH2      "user=user@example.org" 0x01 "auth=Bearer token" 0x01 0x01
//! ```

use crate::plain::{NAME_BYTES_MAX, PASSWORD_BYTES_MAX};
use crate::server::{Failure, PlainLogin};
use crate::{Mechanism, Password, scram};

/// What separates key-value pairs (RFC 7628 §3.1: `kvsep`).
const SEPARATOR: char = '\x01';
/// What a client says when it has been told why its token was refused (RFC 7628 §3.2.3).
pub(crate) const DUMMY: &[u8] = b"\x01";

/// What the client sent. The token stands where a password would; the name may be missing, since a token says whose it
/// is.
pub(crate) fn parse(mechanism: Mechanism, message: &[u8]) -> Result<PlainLogin, Failure> {
    let malformed = Failure::Malformed;
    let message = std::str::from_utf8(message).map_err(|_| malformed("not UTF-8"))?;
    let (name, pairs) = message.split_once(SEPARATOR).ok_or(malformed("no key-value pairs"))?;
    let name = match mechanism {
        Mechanism::XOAuth2 => Some(name.strip_prefix("user=").ok_or(malformed("no user"))?.to_owned()),
        _ => gs2_name(name)?,
    };
    let name = name.unwrap_or_default();
    // Each pair ends in a separator, and one more ends the message.
    let pairs = pairs.strip_suffix(SEPARATOR).ok_or(malformed("it does not end"))?;
    if !pairs.is_empty() && !pairs.ends_with(SEPARATOR) {
        return Err(malformed("it does not end"));
    }
    let mut authorization = None;
    for pair in pairs.split_terminator(SEPARATOR) {
        let (key, value) = pair.split_once('=').ok_or(malformed("a key without a value"))?;
        // Host and port are for proofs that cover them, and this is none.
        if key == "auth" && authorization.replace(value).is_some() {
            return Err(malformed("two tokens"));
        }
    }
    let authorization = authorization.ok_or(malformed("no token"))?;
    let (scheme, token) = authorization.split_once(' ').ok_or(malformed("no token"))?;
    let token = token.trim_matches(' ');
    if !scheme.eq_ignore_ascii_case("Bearer") || token.is_empty() || !token.bytes().all(is_token) {
        return Err(malformed("not a bearer token"));
    }
    if name.len() > NAME_BYTES_MAX || token.len() > PASSWORD_BYTES_MAX {
        return Err(malformed("name or token is too long"));
    }
    Ok(PlainLogin { authzid: None, authcid: name, password: Password::from(token) })
}

/// The name in a GS2 header without channel binding (RFC 5801 §4): `n,a=name,`.
fn gs2_name(header: &str) -> Result<Option<String>, Failure> {
    let mut parts = header.split(',');
    let (Some("n" | "y"), Some(name), Some(""), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Failure::Malformed("not a GS2 header"));
    };
    match name.strip_prefix("a=") {
        Some(name) => scram::decode_name(name).map(Some),
        None if name.is_empty() => Ok(None),
        None => Err(Failure::Malformed("not a GS2 header")),
    }
}

/// `b64token` of RFC 6750 §2.1.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

/// What the client sends.
pub(crate) fn message(mechanism: Mechanism, login: &PlainLogin) -> Vec<u8> {
    let header = match mechanism {
        Mechanism::XOAuth2 => format!("user={}", login.authcid),
        _ => format!("n,a={},", scram::encode_name(&login.authcid)),
    };
    format!("{header}{SEPARATOR}auth=Bearer {}{SEPARATOR}{SEPARATOR}", login.password.expose()).into_bytes()
}

/// What a client whose token was refused is told before the exchange fails (RFC 7628 §3.2.2). Which of the reasons it was
/// is not said.
pub(crate) fn refusal(mechanism: Mechanism) -> Vec<u8> {
    match mechanism {
        // Clients look for this very status to fetch a new token.
        Mechanism::XOAuth2 => br#"{"status":"401","schemes":"bearer"}"#.to_vec(),
        _ => br#"{"status":"invalid_token"}"#.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let check = |mechanism, message: &str, expected: Option<(&str, &str)>| {
            let message = message.replace("^A", "\x01");
            let parsed = parse(mechanism, message.as_bytes()).ok();
            let parts = parsed.as_ref().map(|login| (login.authcid.as_str(), login.password.expose()));
            assert_eq!(parts, expected, "{message:?}");
        };
        let bearer = Mechanism::OAuthBearer;
        // The example of RFC 7628 §4.1.
        check(
            bearer,
            "n,a=user@example.com,^Ahost=server.example.com^Aport=143^Aauth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==^A^A",
            Some(("user@example.com", "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==")),
        );
        check(bearer, "n,,^Aauth=bearer abc^A^A", Some(("", "abc")));
        check(bearer, "n,a=a=2Cb=3Dc,^Aauth=Bearer abc^A^A", Some(("a,b=c", "abc")));
        check(bearer, "p=tls-exporter,,^Aauth=Bearer abc^A^A", None);
        check(bearer, "n,,^Aauth=Bearer abc^A", None);
        check(bearer, "n,,^A^A", None);
        check(bearer, "n,,^Aauth=Basic abc^A^A", None);
        check(bearer, "n,,^Aauth=Bearer a b^A^A", None);
        check(bearer, "n,,^Aauth=Bearer a^Aauth=Bearer b^A^A", None);
        check(bearer, "^A", None);
        check(bearer, "", None);
        let old = Mechanism::XOAuth2;
        check(
            old,
            "user=someuser@example.com^Aauth=Bearer ya29.vF9dft4qmTc2Nvb3Rl^A^A",
            Some(("someuser@example.com", "ya29.vF9dft4qmTc2Nvb3Rl")),
        );
        check(old, "n,a=user,^Aauth=Bearer abc^A^A", None);
        let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
        check(old, &format!("user=u^Aauth=Bearer {long}^A^A"), None);
    }

    #[test]
    fn both_ends() {
        let login = PlainLogin {
            authzid: None,
            authcid: "a=b,c@example.org".to_owned(),
            password: "t.o-k~en==".into(),
        };
        for mechanism in [Mechanism::OAuthBearer, Mechanism::XOAuth2] {
            assert_eq!(parse(mechanism, &message(mechanism, &login)), Ok(login.clone()));
        }
    }
}
