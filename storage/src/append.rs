//! Putting messages into mailboxes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use engine::{Build, CommitOptions};
use mail::flag::FlagSet;
use mail::id::{EmailId, MailboxId, ModSeq, ThreadId, Uid, UidValidity};
use mail::uid::UidSet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::account::Account;
use crate::body::StoredBody;
use crate::config::Config;
use crate::date::InternalDate;
use crate::draft::{Draft, Refusal};
use crate::email::EmailRecord;
use crate::entry::{AppendMessage, CopyMessages, Ingest, Operation, Placed, PlacedRow};
use crate::error::StorageError;
use crate::flags::name_keywords;
use crate::ingest::Outcome;
use crate::mailbox::{self, INBOX, Role};
use crate::mailbox_name;
use crate::marks::Marks;
use crate::state::{AccountState, Part};
use crate::store::unix_now;
use crate::thread::thread_keys;

/// Records that go into one commit, below the limit of 256 KiB for a commit.
pub(crate) const RECORDS_BYTES_MAX: usize = 200 << 10;
/// What each further mailbox takes that a message is put into.
const PLACE_BYTES: usize = 64;
/// What an append takes besides its record, at most: thread keys above all.
const RECORD_EXTRA_BYTES: usize = 200;

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

/// An append that happens once, however often it is asked for. Each time it is asked for it needs a body with a
/// reference of its own: when the message is there already, that one is given up.
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

impl From<Outcome> for Delivered {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Placed { .. } | Outcome::Done => Self::Already,
            Outcome::Rejected => Self::Rejected,
        }
    }
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

/// A message as the commit needs it: all that can be computed before is.
#[derive(Clone)]
pub(crate) struct Prepared {
    target: Target,
    /// Other mailboxes that it is put into as well, as the same email.
    also: Vec<MailboxId>,
    flags: FlagSet,
    record: Bytes,
    pub(crate) size: u32,
    internal_date: InternalDate,
    pub(crate) thread_keys: Vec<u64>,
}

impl Account {
    /// Puts one message.
    pub async fn append(&self, request: AppendRequest) -> Result<Appended, AppendError> {
        let appended = self.append_many(vec![request]).await?.pop();
        appended.ok_or(AppendError::NoMailbox)
    }

    /// Puts many at once, all or none (MULTIAPPEND). Together they may have some hundred messages; more are refused as
    /// too large.
    pub async fn append_many(&self, requests: Vec<AppendRequest>) -> Result<Vec<Appended>, AppendError> {
        self.append_sets(vec![requests]).await.pop().unwrap_or(Err(AppendError::NoMailbox))
    }

    /// Puts sets of messages in as few commits as they fit into. Each set is put whole or not at all, in the order
    /// given; what is refused of one does not touch the others.
    pub async fn append_sets(
        &self,
        sets: Vec<Vec<AppendRequest>>,
    ) -> Vec<Result<Vec<Appended>, AppendError>> {
        let bodies: Vec<Vec<_>> = sets
            .iter()
            .map(|set| set.iter().map(|request| (request.body.address, request.body.reference)).collect())
            .collect();
        let results = self.append_prepared(sets).await;
        let refused = results.iter().zip(bodies).filter_map(|(result, bodies)| match result {
            Ok(_) | Err(AppendError::Storage(StorageError::Undecided)) => None,
            Err(_) => Some(bodies),
        });
        let refused: Vec<_> = refused.flatten().collect();
        if !refused.is_empty() {
            self.unreference(&refused).await;
        }
        results
    }

    /// Prepares the sets and commits them, as many at a time as fit into a commit.
    async fn append_prepared(
        &self,
        sets: Vec<Vec<AppendRequest>>,
    ) -> Vec<Result<Vec<Appended>, AppendError>> {
        let now = unix_now();
        let mut results = Vec::with_capacity(sets.len());
        let mut group: Vec<Result<Vec<Prepared>, AppendError>> = Vec::new();
        let mut group_bytes = 0;
        for set in sets {
            let prepared = self.prepare_set(set, now);
            let bytes = prepared.as_deref().map_or(0, records_bytes);
            if group_bytes + bytes > RECORDS_BYTES_MAX {
                results.extend(self.append_group(std::mem::take(&mut group), now).await);
                group_bytes = 0;
            }
            group_bytes += bytes;
            group.push(prepared);
        }
        results.extend(self.append_group(group, now).await);
        results
    }

    fn prepare_set(&self, set: Vec<AppendRequest>, now: u32) -> Result<Vec<Prepared>, AppendError> {
        let messages =
            set.into_iter().map(|request| self.prepare(request, now)).collect::<Result<Vec<_>, _>>()?;
        if records_bytes(&messages) > RECORDS_BYTES_MAX {
            return Err(AppendError::TooLarge);
        }
        Ok(messages)
    }

    /// One commit of what is prepared; what could not be prepared keeps its place among the answers.
    async fn append_group(
        &self,
        sets: Vec<Result<Vec<Prepared>, AppendError>>,
        now: u32,
    ) -> Vec<Result<Vec<Appended>, AppendError>> {
        let messages = sets.iter().flatten().flatten();
        let parts: Vec<_> = messages.flat_map(|message| key_parts(&message.thread_keys)).collect();
        if sets.iter().all(Result::is_err) {
            return sets.into_iter().map(|set| set.map(|_| Vec::new())).collect();
        }
        let count = sets.len();
        let sets: Arc<[_]> = sets.into();
        let config = self.storage.config().clone();
        let build = move |state: &AccountState| -> Result<_, Refusal<AppendError>> {
            let mut draft = Draft::new::<AppendError>(state)?;
            let mut answers = Vec::with_capacity(sets.len());
            for set in &*sets {
                let answer = match set {
                    Ok(messages) => put_set(&mut draft, messages, now, &config),
                    Err(error) => Err(error.clone().into()),
                };
                match answer {
                    Ok(appended) => answers.push(Ok(appended)),
                    Err(Refusal::Error(error)) => answers.push(Err(error)),
                    Err(load) => return Err(load),
                }
            }
            Ok(draft.build(answers))
        };
        match self.commit(parts, build).await {
            Ok(committed) => committed.answer,
            Err(error) => vec![Err(error); count],
        }
    }

    /// Puts a message that the queue is responsible for, unless that happened before.
    pub async fn deliver(&self, delivery: Delivery) -> Result<Delivered, AppendError> {
        let body = (delivery.request.body.address, delivery.request.body.reference);
        let proposed = Arc::new(AtomicBool::new(false));
        let result = self.deliver_once(delivery, Arc::clone(&proposed)).await;
        // A commit that was built again may find what its own first proposal has put: then the message there has this
        // reference. One too many is found by upkeep, one too few loses the bytes.
        let not_put =
            !matches!(result, Ok(Delivered::Placed(_)) | Err(AppendError::Storage(StorageError::Undecided)));
        if not_put && !proposed.load(Ordering::SeqCst) {
            self.unreference(&[body]).await;
        }
        result
    }

    async fn deliver_once(
        &self,
        delivery: Delivery,
        proposed: Arc<AtomicBool>,
    ) -> Result<Delivered, AppendError> {
        let Delivery { ingest, watermark, request } = delivery;
        let now = unix_now();
        let message = self.prepare(request, now)?;
        let mut parts = key_parts(&message.thread_keys);
        parts.push(Part::Producers);
        let config = self.storage.config().clone();
        let build = move |state: &AccountState| -> Result<_, Refusal<AppendError>> {
            let mut draft = Draft::new::<AppendError>(state)?;
            if let Some(known) = known(state, ingest)? {
                return Ok(Build::nothing(known));
            }
            if !state.quota().has_room_for_delivery(1, message.size.into()) {
                return Err(AppendError::OverQuota.into());
            }
            let ingest = Ingest { id: ingest, watermark };
            let appended = put(&mut draft, &message, Some(ingest), now, &config)?;
            proposed.store(true, Ordering::SeqCst);
            Ok(draft.build(Delivered::Placed(appended)))
        };
        // The ingest id tells an attempt that had been applied, so that one whose fate nobody knows may be made again.
        let options = CommitOptions { repeatable: true, ..CommitOptions::default() };
        Ok(self.commit_with(options, parts, build).await?.answer)
    }

    /// What became of a delivery, if anything is known: a look before the work. A closed account does not say: it may be
    /// under way to here, and know of another region's items.
    pub async fn delivered(&self, ingest: IngestId) -> Result<Option<Delivered>, StorageError> {
        let mut state = self.log.with(&[Part::Producers]).await?;
        if state.is_closed() {
            // Whoever has closed it may have opened it again, and nobody tells those who only keep it in memory.
            state = self.log.refresh(&[Part::Producers]).await?;
        }
        if state.is_closed() {
            return Err(StorageError::Closed);
        }
        known(&state, ingest).map_err(|refusal| match refusal {
            Refusal::Error(error) => error,
            Refusal::Load(_) => StorageError::Unavailable("the account changes too fast".to_owned()),
        })
    }

    /// Says that a delivery will not happen, so that what follows (a DSN) can be trusted: from now on `deliver` with
    /// this id answers [`Delivered::Rejected`]. Answers what is true now: [`Delivered::Already`] if it had been put.
    pub async fn reject_ingest(&self, ingest: IngestId, watermark: u64) -> Result<Delivered, StorageError> {
        let build = move |state: &AccountState| -> Result<_, Refusal<StorageError>> {
            let mut draft = Draft::new::<StorageError>(state)?;
            if let Some(known) = known(state, ingest)? {
                return Ok(Build::nothing(known));
            }
            draft.push(Operation::IngestRejected(Ingest { id: ingest, watermark }));
            Ok(draft.build(Delivered::Rejected))
        };
        let options = CommitOptions { repeatable: true, ..CommitOptions::default() };
        Ok(self.commit_with(options, vec![Part::Producers], build).await?.answer)
    }

    pub(crate) fn prepare(&self, request: AppendRequest, now: u32) -> Result<Prepared, AppendError> {
        let config = self.storage.config();
        let AppendRequest { target, body, flags, internal_date } = request;
        let size = body.facts.size + body.prefix.len() as u64;
        let size = u32::try_from(size).map_err(|_| AppendError::TooLarge)?;
        if body.prefix.len() > config.prefix_bytes_max {
            return Err(AppendError::TooLarge);
        }
        let target = match target {
            Target::Name { name, create } => {
                let name = mailbox_name::normal(&name, config).map_err(AppendError::Mailbox)?;
                Target::Name { name, create }
            }
            target => target,
        };
        let record = EmailRecord::encode(
            &body.address,
            body.reference,
            &body.prefix,
            &body.facts,
            config.inline_facts_bytes,
        );
        Ok(Prepared {
            target,
            also: Vec::new(),
            flags,
            record,
            size,
            internal_date: internal_date.unwrap_or_else(|| InternalDate::utc(now.into())),
            thread_keys: thread_keys(&body.facts),
        })
    }
}

/// Octets that the records of messages take in a commit, at most.
pub(crate) fn records_bytes(messages: &[Prepared]) -> usize {
    messages.iter().map(|message| message.bytes()).sum()
}

impl Prepared {
    /// The same message in other mailboxes too.
    pub(crate) fn also_in(self, also: Vec<MailboxId>) -> Self {
        Self { also, ..self }
    }

    fn bytes(&self) -> usize {
        self.record.len() + RECORD_EXTRA_BYTES + self.also.len() * PLACE_BYTES
    }

    /// For how many messages it counts.
    fn places(&self) -> u64 {
        1 + self.also.len() as u64
    }
}

pub(crate) fn key_parts(keys: &[u64]) -> Vec<Part> {
    keys.iter().map(|key| Part::ThreadKey(*key)).collect()
}

/// What is known of an item of the queue.
fn known<E>(state: &AccountState, ingest: IngestId) -> Result<Option<Delivered>, Refusal<E>> {
    match state.ingest_outcome(ingest) {
        Ok(outcome) => Ok(outcome.map(Delivered::from)),
        Err(part) => Err(Refusal::Load(vec![part])),
    }
}

/// Puts a set of messages, or leaves the draft as it was.
pub(crate) fn put_set(
    draft: &mut Draft,
    messages: &[Prepared],
    now: u32,
    config: &Config,
) -> Result<Vec<Appended>, Refusal<AppendError>> {
    let bytes = messages.iter().map(|message| u64::from(message.size) * message.places()).sum();
    let count = messages.iter().map(Prepared::places).sum();
    if !draft.state::<AppendError>()?.quota().has_room(count, bytes) {
        return Err(AppendError::OverQuota.into());
    }
    if let [message] = messages
        && !matches!(message.target, Target::Name { create: true, .. })
    {
        // Refused before anything is decided, or not at all: the draft need not remember where it stood.
        return Ok(vec![put(draft, message, None, now, config)?]);
    }
    let before = draft.mark();
    let appended = messages.iter().map(|message| put(draft, message, None, now, config)).collect();
    if matches!(appended, Err(Refusal::Error(_))) {
        draft.return_to(before);
    }
    appended
}

/// Decides where a message goes: mailbox, UID, email, thread.
fn put(
    draft: &mut Draft,
    message: &Prepared,
    ingest: Option<Ingest>,
    now: u32,
    config: &Config,
) -> Result<Appended, Refusal<AppendError>> {
    let mailbox = find_target(draft, &message.target, now, config)?;
    let state = draft.state::<AppendError>()?;
    let (marks, named) = name_keywords(state, &message.flags).ok_or(AppendError::TooManyKeywords)?;
    let email = state.base.next_email;
    let threads = find_threads(state, &message.thread_keys)?;
    let thread = threads.iter().find_map(|(_, thread)| *thread).unwrap_or(email);
    let new_keys = threads.into_iter().filter(|(_, thread)| thread.is_none()).map(|(key, _)| key).collect();
    let root = &state.mailboxes.get(&mailbox.0).ok_or(AppendError::NoMailbox)?.root;
    let uid_validity = UidValidity(root.uid_validity);
    let uid = u32::try_from(root.uid_next).ok().and_then(Uid::new).ok_or(AppendError::NoUids)?;
    let also = further_places(state, &message.also)?;
    let marks = if also.is_empty() { marks } else { marks.union(Marks::SHARED) };
    for operation in named {
        draft.push(operation);
    }
    let mut modseq = draft.push(Operation::AppendMessage(AppendMessage {
        mailbox: mailbox.0,
        uid: uid.get(),
        email,
        thread,
        marks,
        size: message.size,
        internal_date: message.internal_date.packed(),
        saved_date: now,
        record: message.record.clone(),
        thread_keys: new_keys,
        ingest,
    }));
    for (also, first_uid) in also {
        let (size, internal_date) = (message.size, message.internal_date.packed());
        let rows = vec![PlacedRow { email, thread, marks, size, internal_date }];
        let placed = Placed { mailbox: also, first_uid, saved_date: now, rows, records: Vec::new() };
        let copy = CopyMessages { from: mailbox.0, shared: UidSet::new(), placed };
        modseq = draft.push(Operation::Copy(copy));
    }
    Ok(Appended {
        mailbox,
        uid_validity,
        uid,
        email: EmailId(email),
        thread: ThreadId(thread),
        modseq: ModSeq(modseq),
    })
}

/// Other mailboxes, each with the UID that a message gets there.
fn further_places(state: &AccountState, also: &[MailboxId]) -> Result<Vec<(u32, u32)>, AppendError> {
    also.iter()
        .map(|mailbox| {
            let root = &state.mailboxes.get(&mailbox.0).ok_or(AppendError::NoMailbox)?.root;
            let uid = u32::try_from(root.uid_next).map_err(|_| AppendError::NoUids)?;
            Ok((mailbox.0, uid))
        })
        .collect()
}

fn find_target(
    draft: &mut Draft,
    target: &Target,
    now: u32,
    config: &Config,
) -> Result<MailboxId, Refusal<AppendError>> {
    let state = draft.state::<AppendError>()?;
    let inbox = || state.mailbox_by_role(Role::Inbox).or_else(|| state.mailbox_by_name(INBOX));
    let found = match target {
        Target::Mailbox(id) => state.mailbox(*id),
        Target::Role(role) => state.mailbox_by_role(*role).or_else(inbox),
        Target::Name { name, create: false } => state.mailbox_by_name(name).or_else(inbox),
        Target::Name { name, create: true } => match state.mailbox_by_name(name) {
            Some(mailbox) => Some(mailbox),
            None => {
                Some(mailbox::create(draft, name, None, now, config).map_err(|refusal| match refusal {
                    Refusal::Load(parts) => Refusal::Load(parts),
                    Refusal::Error(error) => Refusal::Error(AppendError::Mailbox(error)),
                })?)
            }
        },
    };
    Ok(found.ok_or(AppendError::NoMailbox)?.id)
}

/// The threads that keys lead to.
fn find_threads(state: &AccountState, keys: &[u64]) -> Result<Vec<(u64, Option<u64>)>, Refusal<AppendError>> {
    let look = |key: &u64| state.threads.get(*key).map(|thread| (*key, thread));
    keys.iter().map(look).collect::<Result<_, _>>().map_err(|_| Refusal::Load(key_parts(keys)))
}
