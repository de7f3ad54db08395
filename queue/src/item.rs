//! What a shard holds: items and what became of their targets.

use std::net::IpAddr;
use std::sync::Arc;

use blob::{BlobAddress, Nonce};
use mail::address::{Address, ReversePath};
use mail::envelope::{BodyType, DeliverBy, Envelope, Recipient, Ret};
use mail::id::{AccountId, QueueId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::entry::Departure;
use crate::submission::Origin;

/// An unfinished item of a shard. Stored in pages and in operations: fields are only added behind a new version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Item {
    /// The `seq` of the operation that brought it: grows within the shard, and is never used again.
    pub number: u64,
    /// What never changes.
    pub message: Arc<Message>,
    /// Not to be worked on before (unix seconds). Never later than the message expires.
    pub due: u64,
    /// How often it was put off after temporary trouble.
    pub attempts: u32,
    /// The boot that began to work on it with care and has not finished. Another boot's: the process crashed meanwhile.
    pub began: Option<Uuid>,
    /// Crashes that it was part of.
    pub crashes: u8,
    /// How far it is.
    pub progress: Progress,
}

/// What does not change about a message while it is in the queue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Its id, the same in all shards that it comes through.
    pub queue_id: QueueId,
    /// When it was accepted (unix seconds).
    pub accepted: u64,
    /// When its undelivered recipients are given up (unix seconds).
    pub expires: u64,
    /// Where its bytes lie, under a queue key.
    pub body: BlobAddress,
    /// This shard's reference to them.
    pub reference: Nonce,
    /// The envelope without its recipients.
    pub sender: Sender,
    /// Recipients and header fields to put before the message.
    pub details: Details,
    /// Where it came from.
    pub origin: Origin,
    /// Which item of which shard it was derived from.
    pub derived: Option<Derivation>,
}

/// An envelope without its recipients.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sender {
    /// Where notifications go.
    pub reverse_path: ReversePath,
    /// `BODY=`.
    pub body: BodyType,
    /// `SMTPUTF8`.
    pub smtputf8: bool,
    /// `RET=`.
    pub ret: Option<Ret>,
    /// `ENVID=`.
    pub envid: Option<String>,
    /// `REQUIRETLS`.
    pub require_tls: bool,
}

impl Sender {
    /// What an envelope says besides its recipients.
    pub fn of(envelope: &Envelope) -> Self {
        Self {
            reverse_path: envelope.reverse_path.clone(),
            body: envelope.body,
            smtputf8: envelope.smtputf8,
            ret: envelope.ret,
            envid: envelope.envid.clone(),
            require_tls: envelope.require_tls,
        }
    }
}

/// Which item of another shard caused an item, so that a second attempt is recognised.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Derivation {
    /// The producer's log.
    pub producer: Uuid,
    /// The item's number in it.
    pub number: u64,
    /// Which of its targets; [`WHOLE_ITEM`] for an item that moved as a whole.
    pub part: u32,
}

/// The `part` of an item that moves to another shard as a whole.
pub const WHOLE_ITEM: u32 = u32::MAX;

/// What can be large about an item: in the entry while it is small, else in a blob of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Details {
    /// In the item itself.
    Here(MessageDetails),
    /// In a blob under the same queue key.
    Apart {
        /// Where.
        address: BlobAddress,
        /// This shard's reference to it.
        reference: Nonce,
        /// How many recipients it holds.
        recipients: u32,
    },
    /// As [`Self::Here`], with notes about the message.
    NotedHere {
        /// The notes.
        notes: Notes,
        /// The details.
        details: MessageDetails,
    },
    /// As [`Self::Apart`], with notes about the message.
    NotedApart {
        /// The notes.
        notes: Notes,
        /// Where.
        address: BlobAddress,
        /// This shard's reference to it.
        reference: Nonce,
        /// How many recipients it holds.
        recipients: u32,
    },
}

impl Details {
    /// Number of recipients.
    pub fn recipients(&self) -> u32 {
        match self {
            Self::Here(details) | Self::NotedHere { details, .. } => details.recipients.len() as u32,
            Self::Apart { recipients, .. } | Self::NotedApart { recipients, .. } => *recipients,
        }
    }

    /// What is in the item itself.
    pub fn here(&self) -> Option<&MessageDetails> {
        match self {
            Self::Here(details) | Self::NotedHere { details, .. } => Some(details),
            Self::Apart { .. } | Self::NotedApart { .. } => None,
        }
    }

    /// The blob that they are in, if they are in one.
    pub fn apart(&self) -> Option<(&BlobAddress, &Nonce)> {
        match self {
            Self::Here(_) | Self::NotedHere { .. } => None,
            Self::Apart { address, reference, .. } | Self::NotedApart { address, reference, .. } => {
                Some((address, reference))
            }
        }
    }

    /// As [`Self::apart`], to be changed.
    pub(crate) fn apart_mut(&mut self) -> Option<(&mut BlobAddress, &mut Nonce)> {
        match self {
            Self::Here(_) | Self::NotedHere { .. } => None,
            Self::Apart { address, reference, .. } | Self::NotedApart { address, reference, .. } => {
                Some((address, reference))
            }
        }
    }

    /// What is noted about the message.
    pub fn notes(&self) -> Option<&Notes> {
        match self {
            Self::NotedHere { notes, .. } | Self::NotedApart { notes, .. } => Some(notes),
            Self::Here(_) | Self::Apart { .. } => None,
        }
    }

    /// The same with notes, unless there is nothing to note.
    pub(crate) fn noted(self, notes: Notes) -> Self {
        match self {
            kept if notes == Notes::default() => kept,
            Self::Here(details) | Self::NotedHere { details, .. } => Self::NotedHere { notes, details },
            Self::Apart { address, reference, recipients }
            | Self::NotedApart { address, reference, recipients, .. } => {
                Self::NotedApart { notes, address, reference, recipients }
            }
        }
    }
}

/// What is noted about a message, so that it can be found and treated as its sender wishes without reading it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Notes {
    /// Its Message-ID without the angle brackets, where it has one of a sane length.
    pub message_id: Option<String>,
    /// MT-PRIORITY (RFC 6710), -9 to 9.
    pub priority: i8,
    /// DELIVERBY (RFC 2852).
    pub deliver_by: Option<DeliverBy>,
}

/// Message-IDs that are longer are not noted.
pub(crate) const MESSAGE_ID_BYTES_MAX: usize = 250;

/// Recipients of a message and what is put before it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MessageDetails {
    /// The recipients that it was accepted for.
    pub recipients: Vec<Recipient>,
    /// Header fields that stand before the message's own.
    pub prefix: Vec<u8>,
}

/// How far an item is. The order of the variants is part of the stored format.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Progress {
    /// In an ingest shard.
    Ingest(Expansion),
    /// In an outbound shard: the recipients at one domain.
    Outbound(Vec<OutboundRecipient>),
    /// In the quarantine shard, with the reason.
    Quarantined(Quarantined),
    /// In an outbound shard, with what attempts need. What is read as [`Self::Outbound`] becomes this.
    Sending(Sending),
}

impl Progress {
    /// Recipients that it holds itself.
    pub fn recipients(&self) -> u32 {
        match self {
            Self::Outbound(recipients) => recipients.len() as u32,
            Self::Sending(sending) => sending.recipients.len() as u32,
            Self::Ingest(_) | Self::Quarantined(_) => 0,
        }
    }

    /// In the form that is worked with.
    #[must_use]
    pub fn current(self) -> Self {
        match self {
            Self::Outbound(recipients) => {
                let recipients = recipients.into_iter().map(RemoteRecipient::from).collect();
                Self::Sending(Sending { route: None, recipients })
            }
            other => other,
        }
    }
}

/// What waits to be sent to the hosts of one domain.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Sending {
    /// Where an operator sends it instead: `host`, `host:port`, `[address]:port`.
    pub route: Option<String>,
    /// The recipients.
    pub recipients: Vec<RemoteRecipient>,
}

/// A recipient elsewhere.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RemoteRecipient {
    /// Number of the target that it was in the ingest shard, which its notifications are named after.
    pub target: u32,
    /// The address it is sent to, with what the sender asked for.
    pub recipient: Recipient,
    /// How far it is.
    pub state: RemoteState,
    /// Not to be tried before (unix seconds).
    pub not_before: u64,
    /// Attempts that ended in a deferral.
    pub deferrals: u32,
    /// Attempts of which nobody knows whether the other host took the message.
    pub doubts: u32,
    /// The sender was told of the delay.
    pub delay_told: bool,
    /// What the last attempt heard.
    pub last: Option<Said>,
}

impl From<OutboundRecipient> for RemoteRecipient {
    fn from(OutboundRecipient { target, recipient, state }: OutboundRecipient) -> Self {
        let (not_before, deferrals, doubts, delay_told, last) = (0, 0, 0, false, None);
        Self { target, recipient, state, not_before, deferrals, doubts, delay_told, last }
    }
}

/// What another host said at the end of an attempt, or what was found instead of a host.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Said {
    /// When (unix seconds).
    pub at: u64,
    /// The attempt's number.
    pub attempt: u32,
    /// The host's name.
    pub host: Option<String>,
    /// Its address.
    pub address: Option<IpAddr>,
    /// How the connection was secured.
    pub tls: Option<Tls>,
    /// Its words, code first; or ours, where it said nothing.
    pub reply: String,
}

impl Said {
    /// Something that was said now, cut where it is longer than a notification should quote. Host, address and TLS are
    /// set afterwards.
    pub fn new(at: u64, reply: impl Into<String>) -> Self {
        Self { at, reply: cut(reply.into()), ..Self::default() }
    }
}

/// How a connection was secured.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Tls {
    /// `TLSv1.3`.
    pub version: String,
    /// The cipher suite.
    pub cipher: String,
    /// Whether the certificate was verified.
    pub verified: bool,
    /// By which policy, such as `opportunistic`.
    pub policy: String,
}

/// What the recipients of an ingest item became: resolved and committed once, in slices.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Expansion {
    /// Recipients that are expanded: those before this index.
    pub expanded: u32,
    /// Reverse-paths that lists put in the place of the sender's; targets name them by index.
    pub owners: Vec<Address>,
    /// The targets, slice after slice. Those of all but the last are settled.
    pub slices: Vec<Slice>,
}

impl Expansion {
    /// Number of targets so far; the next one gets this number.
    pub fn targets(&self) -> u32 {
        self.slices.last().map_or(0, |slice| slice.first + slice.count)
    }

    /// Targets that are not settled.
    pub fn pending(&self) -> u32 {
        self.slices.iter().map(Slice::pending).sum()
    }
}

/// Some targets of an item.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Slice {
    /// Number of its first target.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// The targets themselves.
    pub targets: Targets,
    /// What became of those that are settled, by number.
    pub outcomes: Vec<(u32, Outcome)>,
    /// Targets without an outcome are where their destination says: nothing is left to do.
    pub placed: bool,
}

impl Slice {
    /// Targets that are not settled.
    pub fn pending(&self) -> u32 {
        if self.placed { 0 } else { self.count - self.outcomes.len() as u32 }
    }

    /// Whether it holds this target.
    pub fn holds(&self, target: u32) -> bool {
        (self.first..self.first + self.count).contains(&target)
    }

    /// Whether this target is settled.
    pub fn is_settled(&self, target: u32) -> bool {
        self.placed || self.outcome(target).is_some()
    }

    /// What was said to have become of a target.
    pub fn outcome(&self, target: u32) -> Option<&Outcome> {
        let at = self.outcomes.binary_search_by_key(&target, |(number, _)| *number).ok()?;
        Some(&self.outcomes[at].1)
    }
}

/// The targets of a slice: in the item while they are few, else in a blob.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Targets {
    /// In the item itself.
    Here(Arc<Vec<Target>>),
    /// In a blob under the message's queue key.
    Apart {
        /// Where.
        address: BlobAddress,
        /// This shard's reference to it.
        reference: Nonce,
    },
}

/// One end of an expansion.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Target {
    /// The recipient it comes from, by index.
    pub recipient: u32,
    /// The reverse-path that a list put there, as index into [`Expansion::owners`]; `None`: the sender's.
    pub owner: Option<u16>,
    /// Where it goes.
    pub to: Destination,
}

/// Where a target goes. The order of the variants is part of the stored format.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Destination {
    /// An account here.
    Local {
        /// The account.
        account: AccountId,
        /// What followed the subaddress delimiter.
        detail: Option<String>,
    },
    /// An address elsewhere, with the shard that it waits in: decided here, so that it stays the same if the number of
    /// shards ever changes.
    Remote {
        /// The address.
        address: Address,
        /// Index of the outbound shard.
        shard: u16,
    },
    /// It could not be resolved; whoever is to hear of it is told so.
    Unreachable {
        /// The address that was not found, if it is another than the recipient's.
        address: Option<Address>,
        /// Why.
        failure: Failure,
    },
    /// The same as another target, which the message goes to once.
    Same {
        /// Number of that target.
        target: u32,
    },
}

/// Why a target failed, in the words of a notification.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// Enhanced status code (RFC 3463), such as `5.2.2`.
    pub status: String,
    /// In words.
    pub text: String,
}

impl Failure {
    /// A failure with this status and text; the text is cut where it is longer than a notification should quote.
    pub fn new(status: &str, text: impl Into<String>) -> Self {
        Self { status: status.to_owned(), text: cut(text.into()) }
    }
}

/// A text from outside, no longer than a notification should quote.
fn cut(mut text: String) -> String {
    const TEXT_BYTES_MAX: usize = 512;
    if text.len() > TEXT_BYTES_MAX {
        let cut = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
        text.shrink_to_fit();
    }
    text
}

/// What became of a target of an ingest item. The order of the variants is part of the stored format.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// In the account's mailbox.
    Delivered,
    /// In the outbound shard.
    Queued,
    /// The same as another target.
    Merged,
    /// Failed, with or without a notification.
    Failed {
        /// Why.
        failure: Failure,
        /// Whether a notification was queued. There is none for a null reverse-path or `NOTIFY=NEVER`.
        notified: bool,
    },
    /// Given up after too long a time.
    Expired {
        /// Whether a notification was queued.
        notified: bool,
    },
    /// Taken back by an operator.
    Cancelled,
    /// Moved to quarantine, where it is counted from now on.
    Quarantined,
    /// Taken by another host.
    Sent {
        /// What it said.
        said: Box<Said>,
        /// Attempts before of which nobody knows whether it took the message: it may have come as often again.
        doubts: u32,
    },
}

impl Outcome {
    /// What became of a target that was placed where it was to go.
    pub fn placed(destination: &Destination) -> Self {
        match destination {
            Destination::Local { .. } => Self::Delivered,
            Destination::Remote { .. } => Self::Queued,
            Destination::Same { .. } => Self::Merged,
            Destination::Unreachable { failure, .. } => {
                Self::Failed { failure: failure.clone(), notified: false }
            }
        }
    }

    /// One word for traces and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Queued => "queued",
            Self::Merged => "merged",
            Self::Failed { .. } => "failed",
            Self::Expired { .. } => "expired",
            Self::Cancelled => "cancelled",
            Self::Quarantined => "quarantined",
            Self::Sent { .. } => "sent",
        }
    }
}

/// A recipient of an outbound item, as it came before attempts were recorded with it. Read only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OutboundRecipient {
    /// Number of the target that it was in the ingest shard, which its notification is named after.
    pub target: u32,
    /// The address it is sent to, with what the sender asked for.
    pub recipient: Recipient,
    /// How far it is.
    pub state: RemoteState,
}

/// How far a remote recipient is; `state` says what may follow what. The order of the variants is part of the stored
/// format.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RemoteState {
    /// Waits.
    Pending,
    /// Another host has taken it.
    Delivered,
    /// Failed for good.
    Failed {
        /// Why.
        failure: Failure,
        /// Whether whoever is to hear of it has been told (or nobody is).
        settled: bool,
    },
    /// Given up after too long a time.
    Expired {
        /// As for a failure.
        settled: bool,
    },
    /// Taken back by an operator.
    Cancelled,
    /// Somebody tries to deliver it, and nobody else may: committed before dialling.
    Leased {
        /// The attempt's number, which its result names.
        attempt: u32,
        /// The process that tries.
        boot: Uuid,
        /// How long it has, counted by whoever looks from when they first see it.
        seconds: u32,
    },
    /// An attempt may have delivered it, and its result is not known: it lapsed, or the connection was lost behind the
    /// final dot.
    InDoubt {
        /// The attempt's number.
        attempt: u32,
    },
    /// An operator keeps it back.
    Held,
    /// Another host has taken it, and whoever asked to hear of that has not been told yet.
    Relayed,
}

impl RemoteState {
    /// Whether it may be tried when its time has come.
    pub fn is_waiting(&self) -> bool {
        matches!(self, Self::Pending | Self::InDoubt { .. })
    }

    /// Whether somebody is to be told something about it.
    pub fn owes(&self) -> bool {
        matches!(self, Self::Failed { settled: false, .. } | Self::Expired { settled: false } | Self::Relayed)
    }

    /// Whether nothing remains to be done.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Pending | Self::Leased { .. } | Self::InDoubt { .. } | Self::Held | Self::Relayed => false,
            Self::Delivered | Self::Cancelled => true,
            Self::Failed { settled, .. } | Self::Expired { settled } => *settled,
        }
    }

    /// One word for traces.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed { .. } => "failed",
            Self::Expired { .. } => "expired",
            Self::Cancelled => "cancelled",
            Self::Leased { .. } => "leased",
            Self::InDoubt { .. } => "in doubt",
            Self::Held => "held",
            Self::Relayed => "relayed",
        }
    }
}

/// What lies in quarantine: the targets that were left, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Quarantined {
    /// Why it is here.
    pub reason: QuarantineReason,
    /// Since when (unix seconds).
    pub since: u64,
    /// What was left of it: recipients not expanded yet, and targets not settled.
    pub rest: Expansion,
}

/// Why something is in quarantine. The order of the variants is part of the stored format.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum QuarantineReason {
    /// The process crashed this often while working on it.
    Crashed {
        /// How often.
        crashes: u8,
    },
    /// It cannot be delivered, and its reverse-path is empty, so that nobody can be told.
    Undeliverable {
        /// Why not.
        failure: Failure,
    },
}

/// A finished item, as it stays in history.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finished {
    /// Its number.
    pub number: u64,
    /// Its id.
    pub queue_id: QueueId,
    /// When it was accepted.
    pub accepted: u64,
    /// When its last target was settled.
    pub finished: u64,
    /// Octets of the message.
    pub size: u64,
    /// Who sent it.
    pub reverse_path: ReversePath,
    /// How often it was put off.
    pub attempts: u32,
    /// What it was derived from.
    pub derived: Option<Derivation>,
    /// Targets in all.
    pub targets: u32,
    /// Where it went with what was left of it; `None`: nothing was left.
    pub departure: Option<Departure>,
    /// What became of the first of them.
    pub fates: Vec<Fate>,
    /// The message's Message-ID, if it was noted.
    pub message_id: Option<String>,
}

/// How many fates a finished item keeps.
pub const FATES_MAX: usize = 100;

/// What became of one target.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fate {
    /// The recipient's or target's address, where the item held it itself.
    pub address: Option<Address>,
    /// The account, if it was one here.
    pub account: Option<AccountId>,
    /// What became of it.
    pub outcome: Outcome,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reordering variants would change what is stored.
    #[test]
    fn variant_numbers_are_frozen() {
        fn number(value: &impl Serialize) -> u8 {
            postcard::to_stdvec(value).unwrap()[0]
        }
        assert_eq!(number(&RemoteState::Cancelled), 4);
        assert_eq!(number(&RemoteState::Leased { attempt: 1, boot: Uuid::nil(), seconds: 1 }), 5);
        assert_eq!(number(&RemoteState::InDoubt { attempt: 1 }), 6);
        assert_eq!(number(&RemoteState::Held), 7);
        assert_eq!(number(&RemoteState::Relayed), 8);
        assert_eq!(number(&Progress::Outbound(Vec::new())), 1);
        assert_eq!(number(&Progress::Sending(Sending::default())), 3);
        assert_eq!(number(&Outcome::Quarantined), 6);
        assert_eq!(number(&Outcome::Sent { said: Box::default(), doubts: 0 }), 7);
        let details = Details::Here(MessageDetails::default());
        assert_eq!(number(&details), 0);
        let notes = Notes { priority: 1, ..Notes::default() };
        assert_eq!(number(&details.clone().noted(notes)), 2);
        assert_eq!(details.clone().noted(Notes::default()), details);
        use crate::entry::Change;
        assert_eq!(number(&Change::Expired), 6);
        assert_eq!(number(&Change::DelayTold), 11);
    }
}
