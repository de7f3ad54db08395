//! Putting messages into mailboxes.

use mail::flag::FlagSet;
use mail::id::{EmailId, MailboxId, ModSeq, ThreadId, Uid, UidValidity};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::account::Account;
use crate::body::StoredBody;
use crate::date::InternalDate;
use crate::error::StorageError;
use crate::mailbox::Role;

/// Where a message goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// This mailbox.
    Mailbox(MailboxId),
    /// The mailbox with this role; INBOX when there is none.
    Role(Role),
    /// The mailbox with this name; created when missing where `create` is set, else INBOX.
    Name {
        /// Its full name.
        name: String,
        /// Whether to create it.
        create: bool,
    },
}

/// A message to be put into a mailbox.
#[derive(Clone, Debug)]
pub struct AppendRequest {
    /// Where.
    pub target: Target,
    /// The message.
    pub body: StoredBody,
    /// Its flags and keywords.
    pub flags: FlagSet,
    /// Its internal date; now when `None`.
    pub internal_date: Option<InternalDate>,
}

/// Which item of which queue shard a delivery comes from: a second one with the same id does nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct IngestId {
    /// The shard's log.
    pub producer: Uuid,
    /// The item's number in it; only grows.
    pub item: u64,
    /// Which of the item's local recipients (or copies for one).
    pub part: u32,
}

/// An append that happens once, however often it is asked for.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its identity.
    pub ingest: IngestId,
    /// All of the producer's items below this are done: their ids are forgotten, and what still comes with one of them
    /// is refused as already done.
    pub watermark: u64,
    /// The message.
    pub request: AppendRequest,
}

/// A message was put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Into this mailbox.
    pub mailbox: MailboxId,
    /// Its UIDVALIDITY.
    pub uid_validity: UidValidity,
    /// The message's UID.
    pub uid: Uid,
    /// The email it is.
    pub email: EmailId,
    /// Its thread.
    pub thread: ThreadId,
    /// Its MODSEQ.
    pub modseq: ModSeq,
}

/// What became of a delivery, now or the first time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivered {
    /// Put by this call.
    Placed(Appended),
    /// Put by an earlier one.
    Already,
    /// Refused by an earlier `reject_ingest`: it must not be put any more.
    Rejected,
}

/// Why a message was not put.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// There is no such mailbox.
    #[error("no such mailbox")]
    NoMailbox,
    /// The account has no room for it.
    #[error("over quota")]
    OverQuota,
    /// The account cannot have more keywords.
    #[error("too many keywords")]
    TooManyKeywords,
    /// The record of the message would not fit into an entry.
    #[error("the message's record is too large")]
    TooLarge,
    /// The mailbox has given out all its UIDs.
    #[error("the mailbox has no UIDs left")]
    NoUids,
    /// The name for the mailbox to create is not one.
    #[error("the mailbox could not be created")]
    Mailbox(#[source] crate::mailbox::MailboxError),
    /// Trouble below.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Account {
    /// Puts one message.
    pub async fn append(&self, request: AppendRequest) -> Result<Appended, AppendError> {
        let _ = request;
        unimplemented!()
    }

    /// Puts many at once, all or none (MULTIAPPEND).
    pub async fn append_many(&self, requests: Vec<AppendRequest>) -> Result<Vec<Appended>, AppendError> {
        let _ = requests;
        unimplemented!()
    }

    /// Puts a message that the queue is responsible for, unless that happened before.
    pub async fn deliver(&self, delivery: Delivery) -> Result<Delivered, AppendError> {
        let _ = delivery;
        unimplemented!()
    }

    /// Says that a delivery will not happen, so that what follows (a DSN) can be trusted: from now on `deliver` with
    /// this id answers [`Delivered::Rejected`]. Answers what is true now: [`Delivered::Already`] if it had been put.
    pub async fn reject_ingest(&self, ingest: IngestId, watermark: u64) -> Result<Delivered, StorageError> {
        let _ = (ingest, watermark);
        unimplemented!()
    }
}
