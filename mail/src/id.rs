//! Identifiers. Each is a newtype, so that one cannot stand where another is meant.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh random id.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_simple().fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.as_simple())
            }
        }
    };
}

uuid_id! {
    /// An account: the owner of mailboxes, and the partition key (`user_id`) of everything that belongs to it. It is
    /// also the id of the account's log, so a restored account gets a new one.
    AccountId
}
uuid_id! {
    /// A message in the queue, from its acceptance on, whatever it is expanded into.
    QueueId
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id! {
    /// A mailbox (a folder) within its account. Numbers are given out in the account's log and never used again; the
    /// JMAP id is `M` followed by the number (RFC 8621 §2), the OBJECTID MAILBOXID the same (RFC 8474 §4).
    MailboxId, u32
}
number_id! {
    /// An email within its account (JMAP Email id, RFC 8474 EMAILID): immutable, one per message and copy into a
    /// mailbox that already holds it.
    EmailId, u64
}
number_id! {
    /// A thread within its account (JMAP Thread id, RFC 8474 THREADID).
    ThreadId, u64
}
number_id! {
    /// The number of an operation in a log. In an account's log it is at once the IMAP MODSEQ (RFC 7162), the JMAP
    /// state string and the order of all writes. Zero is the state before the first operation.
    ModSeq, u64
}

/// A unique identifier of a message in a mailbox (RFC 9051 §2.3.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Uid(pub NonZeroU32);

impl Uid {
    /// The first UID of a mailbox.
    pub const MIN: Self = Self(NonZeroU32::MIN);
    /// The last possible UID.
    pub const MAX: Self = Self(NonZeroU32::MAX);

    /// `None` for zero, which is not a UID.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uid({})", self.0)
    }
}

/// The unique identifier validity value of a mailbox (RFC 9051 §2.3.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct UidValidity(pub NonZeroU32);

impl fmt::Display for UidValidity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
