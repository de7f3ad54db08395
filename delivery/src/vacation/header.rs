//! What the header of a message says about whether it wants an answer.

use mail::address::Address;
use mail::header::address_list::parse_address_list;

/// Addresses of one field that are looked at.
const ADDRESSES_MAX: usize = 1_000;

/// What was found in a header.
#[derive(Debug, Default)]
pub(super) struct Header {
    automatic: bool,
    /// Addresses of those it was written to, folded.
    written_to: Vec<String>,
}

impl Header {
    /// Takes a field, with its unfolded value.
    pub(super) fn take(&mut self, name: &[u8], value: &[u8]) {
        let name = name.to_ascii_lowercase();
        let text = value.trim_ascii().to_ascii_lowercase();
        match name.as_slice() {
            // RFC 3834 §5: `no` may have a comment behind it.
            b"auto-submitted" => {
                let word = text.split(|byte| matches!(byte, b';' | b'(' | b' ' | b'\t')).next();
                self.automatic |= word != Some(b"no");
            }
            b"precedence" => self.automatic |= matches!(text.as_slice(), b"bulk" | b"list" | b"junk"),
            b"to" | b"cc" | b"bcc" | b"resent-to" | b"resent-cc" | b"resent-bcc" => {
                let mut found = Vec::new();
                parse_address_list(value, ADDRESSES_MAX, &mut found);
                self.written_to.extend(found.iter().filter_map(|it| {
                    let (local, host) = (it.mailbox.as_ref()?, it.host.as_ref()?);
                    let text = [local.as_bytes(), b"@", host.as_bytes()].concat();
                    Some(Address::parse(std::str::from_utf8(&text).ok()?).ok()?.key())
                }));
            }
            // RFC 5230 §4.6: what has fields of RFC 2369 or RFC 2919 came through a list.
            other => self.automatic |= other.starts_with(b"list-"),
        }
    }

    /// A program has sent it, or a list.
    pub(super) fn is_automatic(&self) -> bool {
        self.automatic
    }

    /// RFC 5230 §4.5: an address of the user stands in it. What is sent to many without naming them is not answered.
    pub(super) fn is_written_to(&self, recipient: &Address) -> bool {
        let key = recipient.key();
        self.written_to.contains(&key)
    }
}

/// RFC 3834 §2, RFC 5230 §4.6: addresses behind which nobody reads what comes.
pub(super) fn is_of_a_program(address: &Address) -> bool {
    let local = address.local().to_ascii_lowercase();
    local.starts_with("owner-")
        || ["-request", "-owner", "-bounces"].iter().any(|end| local.ends_with(end))
        || ["mailer-daemon", "listserv", "majordomo", "noreply", "no-reply"].contains(&local.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_not_to_answer() {
        let check = |fields: &str, expected: (bool, bool)| {
            let mut header = Header::default();
            let mut read = mail::header::Fields::default();
            read.push(fields.as_bytes(), &mut |name, value| header.take(name, value));
            read.finish(&mut |name, value| header.take(name, value));
            let alice = Address::parse("alice@x.test").unwrap();
            assert_eq!((header.is_automatic(), header.is_written_to(&alice)), expected, "{fields}");
        };
        check("To: Alice <Alice@X.test>\r\n\r\n", (false, true));
        check("To: undisclosed-recipients:;\r\n\r\n", (false, false));
        check("Cc: bob@x.test,\r\n alice@x.test\r\nAuto-Submitted: no (by hand)\r\n\r\n", (false, true));
        check("To: alice@x.test\r\nAuto-Submitted: auto-generated\r\n\r\n", (true, true));
        check("To: alice@x.test\r\nauto-submitted: auto-replied; x=y\r\n\r\n", (true, true));
        check("To: alice@x.test\r\nPrecedence: Bulk\r\n\r\n", (true, true));
        check("To: alice@x.test\r\nList-Id: <a.x.test>\r\n\r\n", (true, true));
        check("To: alice@x.test\r\nList-Unsubscribe: <mailto:a@x.test>\r\n\r\n", (true, true));
        check("To: alice@x.test\r\nPrecedence: first-class\r\n\r\n", (false, true));
        check("", (false, false));
    }

    #[test]
    fn programs_are_not_answered() {
        for (address, expected) in [
            ("MAILER-DAEMON@x.test", true),
            ("owner-list@x.test", true),
            ("list-request@x.test", true),
            ("no-reply@x.test", true),
            ("bob@x.test", false),
            ("request@x.test", false),
        ] {
            assert_eq!(is_of_a_program(&Address::parse(address).unwrap()), expected, "{address}");
        }
    }
}
