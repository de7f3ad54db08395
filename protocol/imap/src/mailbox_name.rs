//! Mailbox names: Unicode inside, modified UTF-7 (RFC 3501 §5.1.3) or UTF-8 on the wire.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::IMAP_MUTF7;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Base64 of modified UTF-7: `,` for `/`, no padding. Spare bits that are not zero are let pass, since Courier and some
/// old clients wrote them.
const MUTF7: GeneralPurpose = GeneralPurpose::new(
    &IMAP_MUTF7,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// The separator of the hierarchy.
pub const DELIMITER: char = '/';

/// How names travel on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum NameForm {
    /// Modified UTF-7, the form of IMAP4rev1.
    #[default]
    Utf7,
    /// UTF-8, after ENABLE IMAP4rev2 or UTF8=ACCEPT.
    Utf8,
}

/// A mailbox name, decoded. `INBOX` in any case, alone or as the first of a path, is held as `INBOX`
/// (RFC 9051 §5.1).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailboxName(String);

impl MailboxName {
    /// Takes a name in Unicode.
    pub fn new(name: impl Into<String>) -> Self {
        let mut name = name.into();
        let first = name.split(DELIMITER).next().unwrap_or_default();
        if first.eq_ignore_ascii_case("INBOX") && first != "INBOX" {
            name.replace_range(..5, "INBOX");
        }
        Self(name)
    }

    /// Decodes a name from the wire. `None` if it is not valid in that form.
    ///
    /// Valid UTF-8 is let pass in the UTF-7 form too: it cannot be mistaken for modified UTF-7, which is ASCII, and
    /// some clients send it.
    pub fn decode(raw: &[u8], form: NameForm) -> Option<Self> {
        let text = std::str::from_utf8(raw).ok()?;
        if text.chars().any(char::is_control) {
            return None;
        }
        match form {
            NameForm::Utf8 => Some(Self::new(text)),
            NameForm::Utf7 => decode_utf7(text).map(Self::new),
        }
    }

    /// The name as it goes on the wire, before quoting.
    pub fn encode(&self, form: NameForm) -> String {
        match form {
            NameForm::Utf8 => self.0.clone(),
            NameForm::Utf7 => encode_utf7(&self.0),
        }
    }

    /// The name in Unicode.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is INBOX.
    pub fn is_inbox(&self) -> bool {
        self.0 == "INBOX"
    }
}

impl fmt::Display for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Decodes modified UTF-7; also used for LIST patterns, whose wildcards are never inside a shifted run.
pub(crate) fn decode_utf7(text: &str) -> Option<String> {
    if !text.contains('&') {
        return Some(text.to_owned());
    }
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(shift) = rest.find('&') {
        decoded.push_str(&rest[..shift]);
        let run_and_rest = &rest[shift + 1..];
        let end = run_and_rest.find('-')?;
        let run = &run_and_rest[..end];
        if run.is_empty() {
            decoded.push('&');
        } else {
            let bytes = MUTF7.decode(run).ok()?;
            if bytes.len() % 2 != 0 {
                return None;
            }
            let units = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            for unit in char::decode_utf16(units) {
                decoded.push(unit.ok().filter(|character| !character.is_control())?);
            }
        }
        rest = &run_and_rest[end + 1..];
    }
    decoded.push_str(rest);
    Some(decoded)
}

/// Encodes as modified UTF-7.
pub(crate) fn encode_utf7(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    let mut run: Vec<u8> = Vec::new();
    let flush = |run: &mut Vec<u8>, encoded: &mut String| {
        if !run.is_empty() {
            encoded.push('&');
            MUTF7.encode_string(&*run, encoded);
            encoded.push('-');
            run.clear();
        }
    };
    for character in text.chars() {
        if (' '..='~').contains(&character) {
            flush(&mut run, &mut encoded);
            encoded.push(character);
            if character == '&' {
                encoded.push('-');
            }
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                run.extend_from_slice(&unit.to_be_bytes());
            }
        }
    }
    flush(&mut run, &mut encoded);
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_rfc_3501_5_1_3() {
        let check = |wire: &str, name: &str| {
            assert_eq!(MailboxName::decode(wire.as_bytes(), NameForm::Utf7).unwrap().as_str(), name);
            assert_eq!(MailboxName::new(name).encode(NameForm::Utf7), wire);
        };
        check("~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/台北/日本語");
        check("Entw&APw-rfe", "Entwürfe");
        check("Tom &- Jerry", "Tom & Jerry");
        check("&2D3eCg-", "😊");
        check("", "");
    }

    #[test]
    fn broken_names_are_refused() {
        for wire in ["&", "&AB", "&AAA", "&2D0-", "&!!!-", "&AA-", "&AAAAQQ-", "a\tb", "a\x7fb"] {
            assert_eq!(MailboxName::decode(wire.as_bytes(), NameForm::Utf7), None, "{wire}");
        }
        assert_eq!(MailboxName::decode(b"\xff", NameForm::Utf7), None);
        assert_eq!(MailboxName::decode("ü".as_bytes(), NameForm::Utf7), Some(MailboxName::new("ü")));
    }

    #[test]
    fn inbox_has_one_spelling() {
        assert!(MailboxName::new("inBox").is_inbox());
        assert_eq!(MailboxName::new("inbox/Sub").as_str(), "INBOX/Sub");
        assert_eq!(MailboxName::new("inboxes").as_str(), "inboxes");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn encoding_is_reversible(name in "[^\\p{Cc}]{0,20}") {
            let name = MailboxName::new(name);
            for form in [NameForm::Utf7, NameForm::Utf8] {
                let wire = name.encode(form);
                prop_assert_eq!(MailboxName::decode(wire.as_bytes(), form), Some(name.clone()));
            }
        }
    }
}
