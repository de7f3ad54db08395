//! The summary of a header: the content of IMAP's ENVELOPE (RFC 9051 §7.5.2).

use serde::{Deserialize, Serialize};

use super::text::RawText;

/// What IMAP's ENVELOPE tells, as it stood in the message. (Our Envelope is SMTP's; hence the other name.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderSummary {
    /// The Date field.
    pub date: Option<RawText>,
    /// The Subject field, unfolded, encoded words left as they are.
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
