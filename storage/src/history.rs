//! What happened to an account, for clients that ask what has changed since (RFC 8620 §5.2): the memory of it.
//!
//! Most of it needs none. A message says by its MODSEQ when it last changed, and the emails that came after an operation
//! are those whose numbers were not given out then. What leaves no such trace stands in a trail: how many emails an
//! operation brought, which it took away, and what it did to mailboxes and objects. From these and the state of today
//! `email_changes`, `mailbox_changes` and `object` say what has changed since any operation, as far as the trail reaches.

use mail::flag::{Flag, Flags};
use mail::id::ModSeq;
use serde::{Deserialize, Serialize};

use crate::compose::{ChangesError, Since};
use crate::entry::Operation;
use crate::error::StorageError;
use crate::marks::Marks;
use crate::pack::packed_numbers;
use crate::state::AccountState;
use crate::trail::Trace;

/// Something that an operation did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum HistoryTrace {
    /// Emails, numbered one after the other.
    EmailsCreated { count: u32 },
    /// Emails that are nowhere any more, with their threads (as differences), and emails that have left a mailbox and
    /// are in another.
    EmailsGone {
        #[serde(with = "packed_numbers")]
        destroyed: Vec<u64>,
        #[serde(with = "packed_numbers")]
        threads: Vec<u64>,
        #[serde(with = "packed_numbers")]
        left: Vec<u64>,
    },
    /// A mailbox.
    MailboxCreated { mailbox: u32 },
    /// Mailboxes that have another name, role, place or subscription. What they hold is not meant.
    MailboxesChanged { mailboxes: Vec<u32> },
    /// A mailbox.
    MailboxDestroyed { mailbox: u32 },
    /// An object.
    ObjectPut { kind: u8, id: String, created: bool },
    /// An object.
    ObjectRemoved { kind: u8, id: String },
}

impl Trace for HistoryTrace {
    const TABLE: u8 = 7;
    const NAME: &'static str = "page of history";
}

/// The last operation that changed something of a kind: what clients are given as the state of that kind (RFC 8620
/// §5.1), so that none of them looks for changes of emails because an identity has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Latest {
    /// An email was put, moved, marked or taken away.
    pub emails: u64,
    /// An email came to a thread or left it.
    pub threads: u64,
    /// A mailbox, or how much it holds or how much of that is unread.
    pub mailboxes: u64,
    /// A message was delivered (RFC 8621 §1.5 `EmailDelivery`).
    pub deliveries: u64,
}

impl Latest {
    /// Nothing is known from before this operation.
    pub(crate) fn unknown_before(seq: u64) -> Self {
        Self { emails: seq, threads: seq, mailboxes: seq, deliveries: seq }
    }
}

impl AccountState {
    /// When something of each kind last changed.
    pub fn latest(&self) -> Latest {
        self.latest
    }

    /// The oldest state since which changes can be said. Of a kind in which nothing has changed since, older ones can.
    pub fn history_horizon(&self) -> ModSeq {
        ModSeq(self.history.horizon())
    }

    /// What happened since a state, as far as it is remembered. `None`: nothing that counts, since the last of its kind
    /// was not after it.
    pub(crate) fn history_since(
        &self,
        since: Since,
        latest: u64,
    ) -> Result<Option<Vec<(u64, &HistoryTrace)>>, ChangesError> {
        if since.seq() > self.seq {
            return Err(ChangesError::Forgotten);
        }
        if since >= Since::operation(latest) {
            return Ok(None);
        }
        if since.needs() < self.history.horizon() {
            return Err(ChangesError::Forgotten);
        }
        let history = self.history.since(since.needs());
        let history =
            history.map_err(|_| StorageError::Unavailable("the account changes too fast".to_owned()))?;
        Ok(Some(history))
    }

    /// Remembers what an operation has done that the state does not show.
    pub(crate) fn note(&mut self, seq: u64, operation: &Operation) {
        match operation {
            Operation::AppendMessage(append) => {
                self.note_created(seq, 1);
                if append.ingest.is_some() {
                    self.latest.deliveries = seq;
                }
            }
            Operation::Flags(change) => {
                self.latest.emails = seq;
                // Only these two count as read or not (RFC 8621 §2).
                let counted = Marks::from_flags(Flags::from(Flag::Seen).union(Flag::Draft.into()));
                if !change.add.union(change.remove).intersection(counted).is_empty() {
                    self.latest.mailboxes = seq;
                }
            }
            Operation::Copy(copy) => self.note_created(seq, copy.placed.records.len()),
            Operation::Move(moved) => self.note_created(seq, moved.placed.records.len()),
            Operation::MoveShared { moved, left } => {
                self.note_created(seq, moved.placed.records.len());
                let (destroyed, threads) = (Vec::new(), Vec::new());
                self.remember(seq, HistoryTrace::EmailsGone { destroyed, threads, left: left.clone() });
            }
            Operation::Expunge(_) => {
                // It does not say which emails are still elsewhere, nor of which threads the others were.
                self.history.forget(seq);
                self.note_created(seq, 0);
                self.latest.threads = seq;
            }
            Operation::ExpungeEmails(expunge) => {
                self.note_created(seq, 0);
                if !expunge.destroyed.is_empty() {
                    self.latest.threads = seq;
                }
                if !(expunge.destroyed.is_empty() && expunge.left.is_empty()) {
                    let trace = HistoryTrace::EmailsGone {
                        destroyed: expunge.destroyed.clone(),
                        threads: expunge.threads.clone(),
                        left: expunge.left.clone(),
                    };
                    self.remember(seq, trace);
                }
            }
            Operation::MailboxCreate(create) => {
                self.note_mailbox(seq, HistoryTrace::MailboxCreated { mailbox: create.mailbox });
            }
            Operation::MailboxRename { names } => {
                let mailboxes = names.iter().map(|(mailbox, _)| *mailbox).collect();
                self.note_mailbox(seq, HistoryTrace::MailboxesChanged { mailboxes });
            }
            Operation::MailboxRole { mailbox, .. } | Operation::MailboxOrder { mailbox, .. } => {
                self.note_mailbox(seq, HistoryTrace::MailboxesChanged { mailboxes: vec![*mailbox] });
            }
            Operation::Subscribe { name, .. } => {
                let mailbox = self.root_by_name(name).map(|root| root.id);
                if let Some(mailbox) = mailbox {
                    self.note_mailbox(seq, HistoryTrace::MailboxesChanged { mailboxes: vec![mailbox] });
                }
            }
            Operation::MailboxDelete { mailbox } => {
                self.note_mailbox(seq, HistoryTrace::MailboxDestroyed { mailbox: *mailbox });
            }
            Operation::ForgetHistory { to } => self.history.forget(*to),
            _ => {}
        }
    }

    /// Messages came, went or moved, and among them so many emails that there were not before.
    fn note_created(&mut self, seq: u64, count: usize) {
        self.latest.emails = seq;
        self.latest.mailboxes = seq;
        if count > 0 {
            self.latest.threads = seq;
            self.remember(seq, HistoryTrace::EmailsCreated { count: count as u32 });
        }
    }

    fn note_mailbox(&mut self, seq: u64, trace: HistoryTrace) {
        self.latest.mailboxes = seq;
        self.remember(seq, trace);
    }

    /// Notes that an object was put; whether there was none before.
    pub(crate) fn note_object(&mut self, seq: u64, kind: u8, id: &str, created: bool) {
        self.remember(seq, HistoryTrace::ObjectPut { kind, id: id.to_owned(), created });
    }

    /// Notes that an object is gone.
    pub(crate) fn note_object_removed(&mut self, seq: u64, kind: u8, id: &str) {
        self.remember(seq, HistoryTrace::ObjectRemoved { kind, id: id.to_owned() });
    }

    fn remember(&mut self, seq: u64, trace: HistoryTrace) {
        let number = match &trace {
            HistoryTrace::EmailsCreated { .. } => 0,
            _ => 1,
        };
        self.history.push((seq, number), trace);
    }
}
