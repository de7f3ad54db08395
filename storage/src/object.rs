//! Objects of an account that are no mail: identities, the vacation response, submissions, push subscriptions, scripts.
//!
//! To storage each is a kind, an id and some bytes; what they say is the affair of the service that has put them. They
//! stand in the account's root, which is read and written whole, so they are small and not many (see
//! [`crate::Config::objects_bytes_max`]). What is larger than [`crate::Config::object_bytes_max`], as a long script, is
//! refused: it belongs into a blob, whose address the object would name; that is for the release that needs it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mail::id::ModSeq;
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::compose::{ChangeSet, ChangesError, Event, Events, Since};
use crate::draft::{Draft, Refusal};
use crate::entry::Operation;
use crate::error::StorageError;
use crate::history::HistoryTrace;
use crate::state::{AccountState, Part};

/// Longest id (RFC 8620 §1.2).
const ID_BYTES_MAX: usize = 255;
/// What an object takes beside its id and value.
const OBJECT_EXTRA_BYTES: usize = 24;
/// What one commit may put, below the limit of 256 KiB for a commit.
const COMMIT_BYTES: usize = 200 << 10;

/// What an object is. Numbers are stored and never change their meaning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ObjectKind(pub u8);

impl ObjectKind {
    /// RFC 8621 §6.
    pub const IDENTITY: Self = Self(1);
    /// RFC 8621 §8.
    pub const VACATION_RESPONSE: Self = Self(2);
    /// RFC 8621 §7.
    pub const EMAIL_SUBMISSION: Self = Self(3);
    /// RFC 8620 §7.2.
    pub const PUSH_SUBSCRIPTION: Self = Self(4);
    /// RFC 5804, RFC 9661.
    pub const SIEVE_SCRIPT: Self = Self(5);
    /// Who has had a vacation response (RFC 5230 §4.2).
    pub const VACATION_ANSWERED: Self = Self(6);
}

/// An object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Object {
    /// What it says.
    pub value: Bytes,
    /// The operation that created it.
    pub created: u64,
    /// The operation that last put it.
    pub changed: u64,
}

/// All objects of an account.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Objects {
    values: BTreeMap<(u8, String), Object>,
    /// For each kind, the last operation that changed something of it.
    latest: BTreeMap<u8, u64>,
}

impl Objects {
    /// Whether there was none before.
    pub(crate) fn put(&mut self, seq: u64, kind: u8, id: &str, value: &Bytes) -> bool {
        self.latest.insert(kind, seq);
        // The operation that it came with must not be held in memory for it.
        let value = Bytes::copy_from_slice(value);
        match self.values.get_mut(&(kind, id.to_owned())) {
            Some(object) => {
                object.value = value;
                object.changed = seq;
                false
            }
            None => {
                let object = Object { value, created: seq, changed: seq };
                self.values.insert((kind, id.to_owned()), object);
                true
            }
        }
    }

    /// Whether there was one.
    pub(crate) fn remove(&mut self, seq: u64, kind: u8, id: &str) -> bool {
        self.latest.insert(kind, seq);
        self.values.remove(&(kind, id.to_owned())).is_some()
    }

    pub(crate) fn stored_bytes(&self) -> usize {
        self.values.iter().map(|((_, id), object)| cost(id, &object.value)).sum()
    }

    pub(crate) fn weight(&self) -> usize {
        self.stored_bytes() + self.values.len() * 128
    }
}

fn cost(id: &str, value: &Bytes) -> usize {
    id.len() + value.len() + OBJECT_EXTRA_BYTES
}

/// A change of an object that is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ObjectWrite {
    /// A new one.
    Create {
        /// Its id; `None`: one that no object of the account has had.
        id: Option<String>,
        /// Its value.
        value: Bytes,
    },
    /// Another value for one that there is.
    Replace {
        /// Its id.
        id: String,
        /// Its value.
        value: Bytes,
        /// Refused if it has been changed since it was so (see [`Object::changed`]): a value is put together from what
        /// was read before, and what another client has written meanwhile must not be undone by that.
        unchanged_since: Option<u64>,
    },
    /// It goes.
    Remove {
        /// Its id.
        id: String,
    },
}

/// Why an object was not changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ObjectError {
    /// There is none of this id.
    #[error("no such object")]
    Missing,
    /// There is one of this id already.
    #[error("the object exists")]
    Exists,
    /// Not an id (RFC 8620 §1.2).
    #[error("not an id")]
    InvalidId,
    /// It was changed meanwhile.
    #[error("the object was changed meanwhile")]
    Changed,
    /// Its value is too long.
    #[error("the object is too large")]
    TooLarge,
    /// The account cannot have more objects, or more octets of them.
    #[error("too many objects")]
    TooMany,
}

/// Objects were changed.
#[derive(Clone, Debug)]
pub struct ObjectsWritten {
    /// The state of the kind before.
    pub old_state: Since,
    /// The state of the kind after it.
    pub new_state: Since,
    /// For each change, in the order asked for, the id of the object.
    pub results: Vec<Result<String, ObjectError>>,
}

/// Why nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteObjectsError {
    /// The state is not the one that was named (RFC 8620 §5.3 `stateMismatch`).
    #[error("the state is another")]
    StateMismatch,
    /// Together they would not fit into a commit; fewer at a time do.
    #[error("too much at once")]
    TooLarge,
    /// Trouble below.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl AccountState {
    /// Objects of a kind, ascending by id.
    pub fn objects(&self, kind: ObjectKind) -> impl Iterator<Item = (&str, &Object)> {
        let from = (kind.0, String::new());
        let all = self.objects.values.range(from..).take_while(move |((found, _), _)| *found == kind.0);
        all.map(|((_, id), object)| (id.as_str(), object))
    }

    /// An object.
    pub fn object(&self, kind: ObjectKind, id: &str) -> Option<&Object> {
        self.objects.values.get(&(kind.0, id.to_owned()))
    }

    /// The state of a kind: the last operation that changed something of it. Zero: none ever did.
    pub fn objects_state(&self, kind: ObjectKind) -> Since {
        Since::operation(self.objects.latest.get(&kind.0).copied().unwrap_or(0))
    }
}

impl Account {
    /// Changes objects of a kind in one commit, each on its own: one that is refused does not hold back the others.
    pub async fn write_objects(
        &self,
        kind: ObjectKind,
        writes: Vec<ObjectWrite>,
        if_in_state: Option<Since>,
    ) -> Result<ObjectsWritten, WriteObjectsError> {
        let bytes: usize = writes.iter().map(ObjectWrite::bytes).sum();
        let config = self.storage.config().clone();
        if bytes > COMMIT_BYTES {
            return Err(WriteObjectsError::TooLarge);
        }
        let build = move |state: &AccountState| -> Result<_, Refusal<WriteObjectsError>> {
            let mut draft = Draft::new::<WriteObjectsError>(state)?;
            let old_state = state.objects_state(kind);
            if if_in_state.is_some_and(|wanted| wanted != old_state) {
                return Err(WriteObjectsError::StateMismatch.into());
            }
            let mut new_state = old_state;
            let mut results = Vec::with_capacity(writes.len());
            for write in &writes {
                let number = draft.last() + 1;
                let objects = &draft.state::<WriteObjectsError>()?.objects;
                let decided = decide(objects, kind.0, write, number, &config);
                results.push(decided.map(|(id, operation)| {
                    if let Some(operation) = operation {
                        new_state = Since::operation(draft.push(operation));
                    }
                    id
                }));
            }
            Ok(draft.build(ObjectsWritten { old_state, new_state, results }))
        };
        Ok(self.commit(Vec::new(), build).await?.answer)
    }

    /// What has changed among the objects of a kind since a state, at most so many of them.
    pub async fn object_changes(
        &self,
        kind: ObjectKind,
        since: Since,
        at_most: usize,
    ) -> Result<ChangeSet<String>, ChangesError> {
        let state = self.log.with(&[Part::HistorySince(since.needs())]).await.map_err(StorageError::from)?;
        state.object_changes(kind, since, at_most)
    }
}

impl AccountState {
    fn object_changes(
        &self,
        kind: ObjectKind,
        since: Since,
        at_most: usize,
    ) -> Result<ChangeSet<String>, ChangesError> {
        let latest = self.objects_state(kind);
        let Some(history) = self.history_since(since, latest.seq())? else {
            return Ok(ChangeSet::nothing(since.max(latest)));
        };
        let mut events = Events::default();
        for (seq, trace) in history {
            match trace {
                HistoryTrace::ObjectPut { kind: found, id, created } if *found == kind.0 => {
                    events.push(seq, id.clone(), if *created { Event::Created } else { Event::Changed });
                }
                HistoryTrace::ObjectRemoved { kind: found, id } if *found == kind.0 => {
                    events.push(seq, id.clone(), Event::Destroyed);
                }
                _ => {}
            }
        }
        Ok(events.compose(since, latest.seq(), at_most, |_, _| {}))
    }

    /// The kinds of which something has changed after an operation.
    pub fn object_kinds_since(&self, seq: ModSeq) -> BTreeSet<ObjectKind> {
        let changed = self.objects.latest.iter().filter(|(_, latest)| **latest > seq.0);
        changed.map(|(kind, _)| ObjectKind(*kind)).collect()
    }
}

impl ObjectWrite {
    fn bytes(&self) -> usize {
        match self {
            Self::Create { id, value } => value.len() + id.as_ref().map_or(16, String::len) + 16,
            Self::Replace { id, value, .. } => value.len() + id.len() + 16,
            Self::Remove { id } => id.len() + 16,
        }
    }
}

/// What a change comes to: the id, and the operation unless nothing changes.
fn decide(
    objects: &Objects,
    kind: u8,
    write: &ObjectWrite,
    number: u64,
    config: &crate::Config,
) -> Result<(String, Option<Operation>), ObjectError> {
    let (id, value) = match write {
        ObjectWrite::Create { id, value } => (id.clone().unwrap_or_else(|| format!("o{number}")), value),
        ObjectWrite::Replace { id, value, .. } => (id.clone(), value),
        ObjectWrite::Remove { id } => {
            let found = objects.values.contains_key(&(kind, id.clone()));
            let removed = (id.clone(), Some(Operation::ObjectRemove { kind, id: id.clone() }));
            return if found { Ok(removed) } else { Err(ObjectError::Missing) };
        }
    };
    let known = objects.values.get(&(kind, id.clone()));
    match (write, known) {
        (ObjectWrite::Create { .. }, Some(_)) => return Err(ObjectError::Exists),
        (ObjectWrite::Replace { .. }, None) => return Err(ObjectError::Missing),
        (ObjectWrite::Replace { unchanged_since: Some(since), .. }, Some(known))
            if known.changed > *since =>
        {
            return Err(ObjectError::Changed);
        }
        (_, Some(known)) if known.value == *value => return Ok((id, None)),
        _ => {}
    }
    if !is_id(&id) {
        return Err(ObjectError::InvalidId);
    }
    if value.len() > config.object_bytes_max {
        return Err(ObjectError::TooLarge);
    }
    let freed = known.map_or(0, |known| cost(&id, &known.value));
    let is_full = known.is_none() && objects.values.len() >= config.objects_max;
    if is_full || objects.stored_bytes() - freed + cost(&id, value) > config.objects_bytes_max {
        return Err(ObjectError::TooMany);
    }
    let operation = Operation::ObjectPut { kind, id: id.clone(), value: value.clone() };
    Ok((id, Some(operation)))
}

/// RFC 8620 §1.2.
fn is_id(id: &str) -> bool {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(is_safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_rfc() {
        for (id, expected) in
            [("o12", true), ("singleton", true), ("a-_9", true), ("", false), ("a/b", false)]
        {
            assert_eq!(is_id(id), expected, "{id:?}");
        }
        assert!(is_id(&"x".repeat(255)) && !is_id(&"x".repeat(256)));
    }
}
