//! The summary of a header: the content of IMAP's ENVELOPE (RFC 9051 §7.5.2).

use serde::{Deserialize, Serialize};

use super::address_list::parse_address_list;
use super::text::{RawText, collapse, without_line_ends};

/// What IMAP's ENVELOPE tells, as it stood in the message. (Our Envelope is SMTP's; hence the other name.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderSummary {
    /// The Date field.
    pub date: Option<RawText>,
    /// The Subject field, unfolded, runs of white space as one space, encoded words left as they are.
    pub subject: Option<RawText>,
    /// From.
    pub from: Vec<HeaderAddress>,
    /// Sender. Empty when there is none: IMAP then shows From in its place.
    pub sender: Vec<HeaderAddress>,
    /// Reply-To. Empty when there is none: IMAP then shows From in its place.
    pub reply_to: Vec<HeaderAddress>,
    /// To.
    pub to: Vec<HeaderAddress>,
    /// Cc.
    pub cc: Vec<HeaderAddress>,
    /// Bcc.
    pub bcc: Vec<HeaderAddress>,
    /// The In-Reply-To field.
    pub in_reply_to: Option<RawText>,
    /// The Message-ID field, with its angle brackets.
    pub message_id: Option<RawText>,
}

/// One element of an address list in IMAP's form (RFC 9051 §7.5.2 `address`).
///
/// The beginning of a group has its name in `mailbox` and no `host`; its end has neither.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderAddress {
    /// The display name, unquoted, encoded words left as they are.
    pub name: Option<RawText>,
    /// The source route of RFC 822, `@one,@two`.
    pub route: Option<RawText>,
    /// The local part, unquoted; or the group's name.
    pub mailbox: Option<RawText>,
    /// The domain.
    pub host: Option<RawText>,
}

impl HeaderAddress {
    /// Whether this opens a group.
    pub fn is_group_start(&self) -> bool {
        self.host.is_none() && self.mailbox.is_some()
    }

    /// Whether this closes a group.
    pub fn is_group_end(&self) -> bool {
        self.host.is_none() && self.mailbox.is_none()
    }
}

/// The fields that make a [`HeaderSummary`].
pub(crate) fn is_summary_field(name: &[u8]) -> bool {
    const NAMES: [&str; 10] =
        ["Date", "Subject", "From", "Sender", "Reply-To", "To", "Cc", "Bcc", "In-Reply-To", "Message-ID"];
    NAMES.into_iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

impl HeaderSummary {
    /// Takes a field into the summary; others than [`is_summary_field`] are ignored.
    ///
    /// Of several fields of one name the last counts, except that address lists are joined: who writes two From fields
    /// must not be able to show one to a filter and the other to the reader.
    pub(crate) fn apply(&mut self, name: &[u8], value: &[u8], addresses_max: usize) {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        let raw = || Some(RawText::from(without_line_ends(value)));
        let lists = [
            ("From", &mut self.from),
            ("Sender", &mut self.sender),
            ("Reply-To", &mut self.reply_to),
            ("To", &mut self.to),
            ("Cc", &mut self.cc),
            ("Bcc", &mut self.bcc),
        ];
        for (known, list) in lists {
            if is(known) {
                return parse_address_list(value, addresses_max, list);
            }
        }
        if is("Date") {
            self.date = raw();
        } else if is("Subject") {
            self.subject = Some(RawText::from(collapse(value)));
        } else if is("In-Reply-To") {
            self.in_reply_to = raw();
        } else if is("Message-ID") {
            self.message_id = raw();
        }
    }
}
