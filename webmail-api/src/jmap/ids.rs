//! Ids as clients see them (RFC 8620 §1.2): a letter that says what it is, and the number that it has in the account.
//!
//! They begin with a letter, so that none looks like a number to a client that is careless with types.

use std::fmt;

use directory::SubscriptionId;
use jmap_protocol::Id;
use mail::id::{AccountId, EmailId, MailboxId, ThreadId};
use storage::UploadId;

/// Messages within messages that a blob id can lead into.
const BLOB_DEPTH_MAX: usize = 16;

pub(crate) fn account(account: AccountId) -> Id {
    id(format!("A{account}"))
}

pub(crate) fn email(email: EmailId) -> Id {
    id(format!("E{email}"))
}

pub(crate) fn thread(thread: ThreadId) -> Id {
    id(format!("T{thread}"))
}

pub(crate) fn mailbox(mailbox: MailboxId) -> Id {
    id(format!("M{mailbox}"))
}

pub(crate) fn subscription(subscription: SubscriptionId) -> Id {
    id(format!("P{subscription}"))
}

fn id(text: String) -> Id {
    Id::new(text).expect("a letter with hexadecimal or decimal digits behind it is an id")
}

pub(crate) fn parse_email(id: &Id) -> Option<EmailId> {
    number(id.as_str().strip_prefix('E')?).map(EmailId)
}

pub(crate) fn parse_thread(id: &Id) -> Option<ThreadId> {
    number(id.as_str().strip_prefix('T')?).map(ThreadId)
}

pub(crate) fn parse_mailbox(id: &Id) -> Option<MailboxId> {
    let number = number(id.as_str().strip_prefix('M')?)?;
    u32::try_from(number).ok().map(MailboxId)
}

pub(crate) fn parse_subscription(id: &Id) -> Option<SubscriptionId> {
    let parsed: SubscriptionId = id.as_str().strip_prefix('P')?.parse().ok()?;
    // Only as it is written, so that nothing has two ids.
    (subscription(parsed) == *id).then_some(parsed)
}

/// Only as it is written: no sign, no leading zero, so that nothing has two ids.
fn number(text: &str) -> Option<u64> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

/// What a blob id names: an email, or a part of it, or a part of a message that is a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlobName {
    /// What all of it lies in.
    pub(crate) root: BlobRoot,
    /// From outside to inside, the number of a part in the order in which parts stand in the message.
    pub(crate) path: Vec<u32>,
}

/// What a blob is, or lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlobRoot {
    /// The bytes of an email.
    Email(EmailId),
    /// What was uploaded.
    Upload(UploadId),
}

impl BlobName {
    pub(crate) fn email(email: EmailId) -> Self {
        Self { root: BlobRoot::Email(email), path: Vec::new() }
    }

    pub(crate) fn upload(upload: UploadId) -> Self {
        Self { root: BlobRoot::Upload(upload), path: Vec::new() }
    }

    /// A part of what this is.
    pub(crate) fn part(&self, number: u32) -> Self {
        let mut path = self.path.clone();
        path.push(number);
        Self { root: self.root, path }
    }

    pub(crate) fn parse(id: &Id) -> Option<Self> {
        let mut pieces = id.as_str().split('-');
        let root = pieces.next()?;
        let root = match (root.strip_prefix('G'), root.strip_prefix('U')) {
            (Some(email), _) => BlobRoot::Email(EmailId(number(email)?)),
            (None, Some(upload)) => BlobRoot::Upload(UploadId(number(upload)?)),
            (None, None) => return None,
        };
        let path: Vec<u32> =
            pieces.map(|piece| number(piece).and_then(|n| u32::try_from(n).ok())).collect::<Option<_>>()?;
        (path.len() <= BLOB_DEPTH_MAX).then_some(Self { root, path })
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.root {
            BlobRoot::Email(email) => write!(f, "G{email}")?,
            BlobRoot::Upload(upload) => write!(f, "U{}", upload.0)?,
        }
        self.path.iter().try_for_each(|number| write!(f, "-{number}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_spelling() {
        let id = |text: &str| Id::new(text).unwrap();
        assert_eq!(parse_email(&id("E12")), Some(EmailId(12)));
        for bad in ["E", "E012", "E-1", "M12", "12", "E18446744073709551616", "e12"] {
            assert_eq!(parse_email(&id(bad)), None, "{bad}");
        }
        assert_eq!(parse_mailbox(&id("M4294967296")), None);
        for text in ["G5", "G5-1", "G5-1-20", "U7", "U7-0"] {
            assert_eq!(BlobName::parse(&id(text)).unwrap().to_string(), text);
        }
        for bad in ["G", "G5-", "G-5", "G5--1", "G5-01", "E5"] {
            assert_eq!(BlobName::parse(&id(bad)), None, "{bad}");
        }
    }
}
