//! Names of mailboxes.

use crate::config::Config;
use crate::mailbox::{INBOX, MailboxError, SEPARATOR};

/// The name as it is stored: INBOX in its only spelling, without a separator at the end. Refuses what could not be
/// listed or addressed again.
pub(crate) fn normal(name: &str, config: &Config) -> Result<String, MailboxError> {
    let name = name.strip_suffix(SEPARATOR).unwrap_or(name);
    let invalid = |reason| Err(MailboxError::InvalidName(reason));
    if name.is_empty() {
        return invalid("empty");
    }
    if name.len() > config.mailbox_name_bytes_max {
        return invalid("too long");
    }
    // `%` and `*` are wildcards of LIST (RFC 9051 §5.1): such a mailbox could not be asked for by its own name.
    if name.chars().any(|character| character.is_control() || matches!(character, '%' | '*')) {
        return invalid("a character that no mailbox name can have");
    }
    let (first, rest) = match name.split_once(SEPARATOR) {
        Some((first, rest)) => (first, Some(rest)),
        None => (name, None),
    };
    let levels = name.split(SEPARATOR).count();
    if name.split(SEPARATOR).any(str::is_empty) {
        return invalid("an empty level");
    }
    if levels > config.mailbox_depth_max {
        return invalid("too many levels");
    }
    let first = if first.eq_ignore_ascii_case(INBOX) { INBOX } else { first };
    Ok(match rest {
        Some(rest) => format!("{first}{SEPARATOR}{rest}"),
        None => first.to_owned(),
    })
}

/// The names above this one, highest first.
pub(crate) fn superiors(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices(SEPARATOR).map(|(at, _)| &name[..at])
}

/// What follows `superior` and a separator in `name`, if that is above it.
pub(crate) fn below<'a>(name: &'a str, superior: &str) -> Option<&'a str> {
    name.strip_prefix(superior)?.strip_prefix(SEPARATOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_normal_or_refused() {
        let config = Config { mailbox_name_bytes_max: 20, mailbox_depth_max: 3, ..Config::default() };
        let check = |name: &str| normal(name, &config).ok();
        for (name, expected) in [
            ("inbox", Some("INBOX")),
            ("iNbOx/a", Some("INBOX/a")),
            ("Inboxes", Some("Inboxes")),
            ("a/b/", Some("a/b")),
            ("Entwürfe", Some("Entwürfe")),
            ("a.b c", Some("a.b c")),
            ("", None),
            ("/", None),
            ("/a", None),
            ("a//b", None),
            ("a/b/c/d", None),
            ("a*", None),
            ("50%", None),
            ("a\0", None),
            ("a\r\nb", None),
            ("123456789012345678901", None),
        ] {
            assert_eq!(check(name).as_deref(), expected, "{name:?}");
        }
        assert_eq!(superiors("a/b/c").collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!((below("a/b/c", "a"), below("ab/c", "a"), below("a", "a")), (Some("b/c"), None, None));
    }
}
