//! A submission as the account keeps it: an object of storage, in JSON.
//!
//! It says what was sent, where in the queue it was put, and what the queue said of it when somebody last looked (`look`).

use bytes::Bytes;
use jmap_protocol::Id;
use jmap_protocol::object::submission::{Envelope, EnvelopeAddress, Parameters};
use mail::id::{EmailId, QueueId, ThreadId};
use queue::ShardId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use storage::{AccountState, Object, ObjectKind};

use super::SendingRules;
use super::status::{Told, Undo};

/// DSNs that are kept of one submission.
pub(crate) const DSNS_MAX: usize = 50;

/// A submission. Fields are only added, and each that is has a default: what is stored stays readable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The identity's id.
    pub(crate) identity: String,
    /// The email.
    pub(crate) email: u64,
    /// Its thread.
    pub(crate) thread: u64,
    /// Where it is in the queue.
    pub(crate) queue_id: QueueId,
    /// The ingest shard.
    pub(crate) shard: u16,
    /// When it leaves, or left (unix seconds).
    pub(crate) send_at: u64,
    /// It was to be held until then.
    #[serde(default)]
    pub(crate) held: bool,
    /// It was taken back.
    #[serde(default)]
    pub(crate) canceled: bool,
    /// What became of it; `None`: nothing yet.
    #[serde(default)]
    pub(crate) told: Option<Told>,
    /// The emails that are DSNs about it, in the order in which they were received.
    #[serde(default)]
    pub(crate) dsns: Vec<u64>,
    /// `MAIL`
    pub(crate) from: Party,
    /// `RCPT`
    pub(crate) to: Vec<Party>,
}

/// An address of the envelope, with its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Party(String, #[serde(default)] Option<Parameters>);

impl Record {
    pub(crate) fn decode(object: &Object) -> Option<Self> {
        let decoded = serde_json::from_slice(&object.value);
        decoded.inspect_err(|error| tracing::error!(%error, "stored submission cannot be read")).ok()
    }

    pub(crate) fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("texts and numbers are JSON").into()
    }

    /// Octets that may come to it later, in what is stored.
    pub(crate) fn more_bytes_max(recipients: usize) -> usize {
        Told::bytes_max(recipients) + DSNS_MAX * 21
    }

    /// All of an account, in the order of their ids.
    pub(crate) fn all(state: &AccountState) -> impl Iterator<Item = (Id, Self)> + '_ {
        let objects = state.objects(ObjectKind::EMAIL_SUBMISSION);
        objects.filter_map(|(id, object)| Some((Id::new(id)?, Self::decode(object)?)))
    }

    pub(crate) fn find(state: &AccountState, id: &Id) -> Option<Self> {
        state.object(ObjectKind::EMAIL_SUBMISSION, id.as_str()).and_then(Self::decode)
    }

    /// Whether it can be taken back, as far as the account knows. `now` in unix seconds.
    pub(crate) fn undo(&self, now: u64, rules: &SendingRules) -> Undo {
        match &self.told {
            _ if self.canceled => Undo::Canceled,
            Some(told) => told.undo,
            None => Undo::at_first(self, now, rules),
        }
    }

    /// `deliveryStatus`
    pub(crate) fn deliveries(&self) -> Value {
        match &self.told {
            _ if self.canceled => Value::Null,
            Some(told) => told.deliveries(self),
            None => Told::at_first(self).deliveries(self),
        }
    }

    /// Nothing more happens to it in the queue.
    pub(crate) fn is_settled(&self) -> bool {
        self.canceled || self.told.as_ref().is_some_and(|told| told.settled)
    }

    /// Whether the sender asked to hear of more than failures (RFC 3461 §4.1).
    pub(crate) fn asks_for_reports(&self) -> bool {
        let notify = |Party(_, parameters): &Party| {
            let mut named = parameters.iter().flatten();
            named.find(|(name, _)| name.eq_ignore_ascii_case("NOTIFY")).and_then(|(_, value)| value.clone())
        };
        self.to.iter().filter_map(notify).any(|value| {
            let value = value.to_ascii_uppercase();
            value.contains("SUCCESS") || value.contains("DELAY")
        })
    }

    pub(crate) fn email(&self) -> EmailId {
        EmailId(self.email)
    }

    pub(crate) fn thread(&self) -> ThreadId {
        ThreadId(self.thread)
    }

    pub(crate) fn shard(&self) -> ShardId {
        ShardId::ingest(self.shard)
    }

    /// The addresses that it went to, as they were given.
    pub(crate) fn recipients(&self) -> impl Iterator<Item = &str> {
        self.to.iter().map(|Party(email, _)| email.as_str())
    }

    pub(crate) fn envelope(&self) -> Envelope {
        Envelope { mail_from: self.from.address(), rcpt_to: self.to.iter().map(Party::address).collect() }
    }
}

impl Party {
    fn address(&self) -> EnvelopeAddress {
        EnvelopeAddress { email: self.0.clone(), parameters: self.1.clone() }
    }
}

impl From<EnvelopeAddress> for Party {
    fn from(EnvelopeAddress { email, parameters }: EnvelopeAddress) -> Self {
        Self(email, parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is stored has to stay readable.
    #[test]
    fn the_stored_form_is_frozen() {
        let text = br#"{"identity":"default","email":5,"thread":4,"queue_id":"00000000-0000-0000-0000-000000000007","shard":3,"send_at":9,"from":["a@x.test",{"RET":"HDRS"}],"to":[["b@x.test",null]]}"#;
        let object = Object { value: Bytes::from_static(text), created: 1, changed: 1 };
        let record = Record::decode(&object).unwrap();
        assert_eq!((record.email(), record.thread()), (EmailId(5), ThreadId(4)));
        assert_eq!(record.shard(), ShardId::ingest(3));
        assert!(!record.held && !record.canceled && !record.is_settled() && !record.asks_for_reports());
        assert_eq!(record.recipients().collect::<Vec<_>>(), ["b@x.test"]);
        let again = Object { value: record.encode(), created: 1, changed: 1 };
        assert_eq!(Record::decode(&again), Some(record));
        assert_eq!(
            Record::decode(&Object { value: Bytes::from_static(b"{}"), created: 1, changed: 1 }),
            None
        );
    }
}
