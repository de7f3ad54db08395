//! The PLAIN message (RFC 4616 §2): `[authzid] NUL authcid NUL password`.

use crate::Password;
use crate::server::{Failure, PlainLogin};

/// RFC 4616 §2 gives each part up to 255 characters; passwords made by programs are longer.
pub(crate) const NAME_BYTES_MAX: usize = 255;
pub(crate) const PASSWORD_BYTES_MAX: usize = 1024;

pub(crate) fn parse(message: &[u8]) -> Result<PlainLogin, Failure> {
    let message = std::str::from_utf8(message).map_err(|_| Failure::Malformed("not UTF-8"))?;
    let mut parts = message.split('\0');
    let (Some(authzid), Some(authcid), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Failure::Malformed("not three parts"));
    };
    login(Some(authzid).filter(|name| !name.is_empty()), authcid, password)
}

pub(crate) fn login(authzid: Option<&str>, authcid: &str, password: &str) -> Result<PlainLogin, Failure> {
    if authcid.is_empty() || password.is_empty() {
        return Err(Failure::Malformed("name or password is empty"));
    }
    if authcid.len() > NAME_BYTES_MAX
        || authzid.is_some_and(|name| name.len() > NAME_BYTES_MAX)
        || password.len() > PASSWORD_BYTES_MAX
    {
        return Err(Failure::Malformed("name or password is too long"));
    }
    Ok(PlainLogin {
        authzid: authzid.map(str::to_owned),
        authcid: authcid.to_owned(),
        password: Password::from(password),
    })
}

pub(crate) fn message(login: &PlainLogin) -> Vec<u8> {
    let authzid = login.authzid.as_deref().unwrap_or_default();
    format!("{authzid}\0{}\0{}", login.authcid, login.password.expose()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let check = |message: &[u8], expected: Option<(Option<&str>, &str, &str)>| {
            let parsed = parse(message).ok();
            let parts = parsed
                .as_ref()
                .map(|login| (login.authzid.as_deref(), login.authcid.as_str(), login.password.expose()));
            assert_eq!(parts, expected, "{}", String::from_utf8_lossy(message));
        };
        // The examples of RFC 4616 §4.
        check(b"\0tim\0tanstaaftanstaaf", Some((None, "tim", "tanstaaftanstaaf")));
        check(b"Ursel\0Kurt\0xipj3plmq", Some((Some("Ursel"), "Kurt", "xipj3plmq")));
        check("\0jürgen\0p ä".as_bytes(), Some((None, "jürgen", "p ä")));
        check(b"", None);
        check(b"tim\0x", None);
        check(b"\0\0x", None);
        check(b"\0tim\0", None);
        check(b"\0tim\0a\0b", None);
        check(b"\0t\xff\0a", None);
        check(&[b"\0".as_slice(), &[b'a'; 256], b"\0x"].concat(), None);
    }
}
