//! An account's state: its stored forms, and what its log folds into.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use blob::keys::KeyEncryptionKey;
use blob::memory::MemoryBlobs;
use blob::{BlobStore, KeyRing};
use bytes::Bytes;
use engine::memory::MemoryEngine;
use engine::{LogId, LogOptions, PageId, PartPages, State};
use mail::flag::{Flag, Flags, Keyword};
use mail::id::{AccountId, MailboxId, Uid};
use mail::uid::{UidRange, UidSet};
use storage::entry::{
    AppendMessage, CopyMessages, ExpungeMessages, FlagsChanged, Ingest, MailboxCreate, MoveMessages,
    Operation, Placed, PlacedRow, Tally,
};
use storage::state::Part;
use storage::{AccountSettings, AccountState, Config, IngestId, Layout, Marks, Principal, Storage};
use uuid::Uuid;

use crate::input::Input;

const ACCOUNT: AccountId = AccountId(Uuid::from_u128(77));

/// An account with its mailboxes and nothing in them. Its pages are small, so that a few messages make many.
static FRESH: LazyLock<AccountState> = LazyLock::new(|| {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let engine = MemoryEngine::new().engine();
        let config = blob::Config::default();
        let keys = KeyRing::new(KeyEncryptionKey::from_secret(&[7; 32]), engine.rows.clone(), &config);
        let blobs = BlobStore::new(Arc::new(MemoryBlobs::new()), engine.rows.clone(), keys, config);
        let blobs = blobs.await.expect("a store in memory opens");
        let layout = Layout { index_messages: 8, email_records: 6, run_keys: 4, ..Layout::default() };
        let config = Config { layout, ..Config::default() };
        let storage = Storage::new(engine, LogOptions::default(), None, blobs, config);
        storage.create_account(ACCOUNT, AccountSettings::default()).await.expect("an account is created");
        let account = storage.account(&Principal::Owner(ACCOUNT), ACCOUNT).await.expect("it opens");
        let state = AccountState::clone(&account.state());
        storage.close();
        state
    })
});

/// Choices that make an account with messages, copies, expunges and keywords.
static EVENTFUL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = 1_u32;
    let mut choices = vec![0];
    for _ in 0..1500 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        choices.push((random >> 24) as u8);
    }
    choices
});

/// That account, its root and its pages.
static RICH: LazyLock<(Vec<u8>, Pages)> = LazyLock::new(|| {
    let mut history = History::new(&EVENTFUL);
    history.run(400);
    history.take_snapshot();
    (history.root, history.pages)
});

type Pages = BTreeMap<PageId, Bytes>;

/// Byte 1: which value; then its bytes.
pub fn stored(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    let (root, pages) = &*RICH;
    let parts = parts();
    match kind {
        0 => {
            if let Ok(operation) = Operation::decode(bytes) {
                let mut again = Vec::new();
                operation.encode(&mut again);
                assert_eq!(Operation::decode(&again), Ok(operation));
            }
        }
        1 => {
            let Ok(state) = AccountState::from_root(log(), bytes) else { return };
            let _ = state.weight();
            let taken = state.snapshot(&mut numbered(9));
            let again = AccountState::from_root(log(), &taken.root).expect("a root that was written is read");
            assert_eq!(again.digest(), state.digest());
        }
        kind => {
            // One page of a part is what the fuzzer says; the others are as they should be.
            let mut state = AccountState::from_root(log(), root).expect("the root is right");
            let part = &parts[usize::from(kind) % parts.len()];
            let PartPages::Missing(ids) = state.pages_of(part) else { return };
            let page = |(at, id): (usize, PageId)| {
                (id, if at == 0 { Bytes::copy_from_slice(bytes) } else { pages[&id].clone() })
            };
            if state.install(part, ids.into_iter().enumerate().map(page).collect()).is_ok() {
                if let Part::Mailbox(id) = part
                    && let Some(index) = state.index(*id)
                {
                    assert!(index.uids().is_sorted_by(|one, next| one < next));
                    assert_eq!(index.iter().count(), index.len());
                }
                let _ = state.weight();
                let _ = state.snapshot(&mut numbered(9));
            }
        }
    }
}

fn parts() -> Vec<Part> {
    let mut parts: Vec<Part> = (1..8).map(|id| Part::Mailbox(MailboxId(id))).collect();
    parts.extend([Part::ExpungedSince(0), Part::RetainedSince(0), Part::Producers]);
    parts.extend((1..8).map(Part::ThreadKey));
    parts
}

/// Operations, roots and pages as they are written.
pub fn stored_samples() -> Vec<Vec<u8>> {
    let (root, pages) = &*RICH;
    let mut samples = vec![[&[1], &root[..]].concat()];
    let state = AccountState::from_root(log(), root).expect("the root is right");
    let parts = parts();
    for (at, part) in parts.iter().enumerate() {
        if let PartPages::Missing(ids) = state.pages_of(part) {
            let page = &pages[&ids[0]];
            let kind = if at < 2 { at + parts.len() } else { at };
            samples.push([&[kind as u8], &page[..]].concat());
        }
    }
    let mut history = History::new(&EVENTFUL);
    history.run(60);
    for operation in &history.operations {
        let mut sample = vec![0];
        operation.encode(&mut sample);
        if sample.len() < 300 {
            samples.push(sample);
        }
    }
    samples
}

/// Byte 1: whether operations may be wrong; then choices, from which operations are made.
///
/// Right operations make the same account whatever is in memory and whatever in pages. Wrong ones are refused, or make
/// an account that can be stored and read again.
pub fn fold(data: &[u8]) {
    let mut history = History::new(data);
    history.run(300);
    history.finish();
}

/// Some histories.
pub fn fold_samples() -> Vec<Vec<u8>> {
    let wrong = [&[1], &EVENTFUL[700..1000]].concat();
    vec![EVENTFUL[..500].to_vec(), wrong]
}

fn log() -> LogId {
    LogId::account(ACCOUNT.0)
}

fn numbered(base_seq: u64) -> impl FnMut() -> PageId {
    let mut number = 0;
    move || {
        number += 1;
        PageId { base_seq, attempt: Uuid::nil(), number }
    }
}

struct History<'a> {
    input: Input<'a>,
    wrong: bool,
    /// Never lets go of anything.
    whole: AccountState,
    /// Takes snapshots, is opened from them, and lets go of what is clean.
    paged: AccountState,
    pages: Pages,
    root: Vec<u8>,
    snapshots: u64,
    next_email: u64,
    next_key: u64,
    operations: Vec<Operation>,
}

impl<'a> History<'a> {
    fn new(data: &'a [u8]) -> Self {
        let mut input = Input::new(data);
        let wrong = input.byte() & 1 != 0;
        let whole = FRESH.clone();
        Self {
            input,
            wrong,
            paged: whole.clone(),
            whole,
            pages: Pages::new(),
            root: Vec::new(),
            snapshots: 0,
            next_email: 1,
            next_key: 1,
            operations: Vec::new(),
        }
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            if self.input.is_empty() {
                return;
            }
            match self.input.below(16) {
                0 if !self.wrong => self.take_snapshot(),
                1 if !self.wrong => self.paged.shed(usize::MAX),
                _ => {
                    let operation = self.operation();
                    self.apply(operation);
                }
            }
        }
    }

    fn apply(&mut self, operation: Operation) {
        let seq = self.whole.modseq().0 + 1;
        let mut bytes = Vec::new();
        operation.encode(&mut bytes);
        assert_eq!(Operation::decode(&bytes).as_ref(), Ok(&operation));
        let mut next = self.whole.clone();
        match next.fold(seq, &operation) {
            Ok(()) => self.whole = next,
            Err(error) => {
                assert!(self.wrong, "{operation:?} is refused: {error}");
                return;
            }
        }
        if !self.wrong {
            self.paged.fold(seq, &operation).expect("what fits the whole account fits its pages");
        }
        match &operation {
            Operation::AppendMessage(append) => self.next_email = append.email + 1,
            Operation::Copy(CopyMessages { placed, .. }) | Operation::Move(MoveMessages { placed, .. }) => {
                self.next_email += placed.records.len() as u64;
            }
            _ => {}
        }
        self.operations.push(operation);
    }

    /// Brings parts into memory from their pages.
    fn load(&mut self, part: &Part) {
        for _ in 0..4 {
            let PartPages::Missing(ids) = self.paged.pages_of(part) else { return };
            let pages = ids.into_iter().map(|id| (id, self.pages[&id].clone())).collect();
            self.paged.install(part, pages).expect("what was written is read");
        }
        panic!("{part:?} is still not loaded");
    }

    fn load_dirty(&mut self) {
        for _ in 0..4 {
            let parts = self.paged.parts_dirty();
            if parts.iter().all(|part| self.paged.pages_of(part) == PartPages::Loaded) {
                return;
            }
            for part in &parts {
                self.load(part);
            }
        }
        panic!("what is dirty cannot be loaded");
    }

    /// Takes a snapshot, and goes on from its root with nothing loaded, or from the state as it is.
    fn take_snapshot(&mut self) {
        self.load_dirty();
        self.snapshots += 1;
        let taken = self.paged.snapshot(&mut numbered(self.snapshots));
        self.pages.extend(taken.written.iter().map(|(id, page)| (*id, Bytes::from(page.clone()))));
        self.pages.retain(|id, _| taken.listed.contains(id));
        assert!(
            taken.listed.iter().all(|id| self.pages.contains_key(id)),
            "a page is listed and not written"
        );
        self.paged.snapshotted(self.paged.modseq().0, &taken);
        if self.input.byte() & 1 == 0 {
            self.paged =
                AccountState::from_root(log(), &taken.root).expect("a root that was written is read");
        }
        assert!(self.paged.parts_dirty().is_empty(), "dirty after a snapshot");
        self.root = taken.root;
    }

    fn finish(&mut self) {
        if self.wrong {
            let taken = self.whole.snapshot(&mut numbered(1));
            let again = AccountState::from_root(log(), &taken.root).expect("a root that was written is read");
            assert_eq!(again.digest(), self.whole.digest());
            return;
        }
        self.load_dirty();
        assert_eq!(self.paged.digest(), self.whole.digest());
        self.take_snapshot();
        assert_eq!(self.paged.digest(), self.whole.digest());
        let ids: Vec<MailboxId> = self.whole.mailboxes().map(|mailbox| mailbox.id).collect();
        for id in ids {
            self.load(&Part::Mailbox(id));
            let (one, other) = (self.whole.index(id).unwrap(), self.paged.index(id).unwrap());
            assert!(one.iter().eq(other.iter()), "messages of {id:?} differ");
        }
    }

    /// Something that is true of the account; or, when operations may be wrong, now and then something else.
    fn maybe(&mut self, right: u32) -> u32 {
        if self.wrong && self.input.below(8) == 0 {
            [0, 1, u32::MAX, right.wrapping_add(1)][self.input.below(4) as usize]
        } else {
            right
        }
    }

    fn mailbox(&mut self) -> u32 {
        let ids: Vec<u32> = self.whole.mailboxes().map(|mailbox| mailbox.id.0).collect();
        let right = ids[self.input.below(ids.len() as u32) as usize];
        self.maybe(right)
    }

    fn marks(&mut self) -> Marks {
        let flags = Marks::from_flags(Flags::from_bits(u16::from(self.input.byte()) & 0x1f));
        let keywords = self.whole.keywords().len() as u32;
        if keywords > 0 && self.input.below(3) == 0 {
            return flags.union(Marks::from_keyword(self.input.below(keywords) as usize));
        }
        flags
    }

    /// Messages of a mailbox.
    fn uids(&mut self, mailbox: u32) -> UidSet {
        let (first, length) = (self.input.byte(), self.input.below(12));
        let numbers = (u32::from(first) + 1, u32::from(first) + 1 + length);
        let range = UidRange::new(Uid::new(numbers.0).unwrap(), Uid::new(numbers.1).unwrap());
        let set: UidSet = [range].into_iter().collect();
        match self.whole.index(MailboxId(mailbox)) {
            Some(index) if !self.wrong || self.input.below(4) > 0 => index.existing(&set),
            _ => set,
        }
    }

    fn tally(&mut self, mailbox: u32, uids: &UidSet) -> Tally {
        let mut tally = Tally::default();
        for row in self.whole.index(MailboxId(mailbox)).into_iter().flat_map(|index| index.select(uids)) {
            tally.messages += 1;
            tally.unseen += u32::from(!row.marks.has(Flag::Seen));
            tally.deleted += u32::from(row.marks.has(Flag::Deleted));
            tally.size += u64::from(row.size);
        }
        tally.messages = self.maybe(tally.messages);
        tally.unseen = self.maybe(tally.unseen);
        tally
    }

    fn uid_next(&mut self, mailbox: u32) -> u32 {
        let next = self.whole.mailbox(MailboxId(mailbox)).and_then(|mailbox| mailbox.uid_next);
        self.maybe(next.map_or(1, Uid::get))
    }

    /// Rows of messages as they stand in a mailbox, to be put into another.
    fn placed(&mut self, from: u32, uids: &UidSet) -> Placed {
        let rows = self
            .whole
            .index(MailboxId(from))
            .into_iter()
            .flat_map(|index| index.select(uids))
            .map(|row| PlacedRow {
                email: row.email.0,
                thread: row.thread.0,
                marks: row.marks,
                size: row.size,
                internal_date: 60,
            })
            .collect();
        let mailbox = self.mailbox();
        let first_uid = self.uid_next(mailbox);
        Placed { mailbox, first_uid, saved_date: 9, rows, records: Vec::new() }
    }

    fn operation(&mut self) -> Operation {
        match self.input.below(24) {
            0..10 => self.append(),
            10..13 => {
                let mailbox = self.mailbox();
                let uids = self.uids(mailbox);
                let (add, remove) = (self.marks(), self.marks());
                let (mut unseen, mut deleted) = (0, 0);
                for row in
                    self.whole.index(MailboxId(mailbox)).into_iter().flat_map(|index| index.select(&uids))
                {
                    let has = |flag| row.marks.has(flag) && !remove.has(flag) || add.has(flag);
                    unseen += i32::from(row.marks.has(Flag::Seen)) - i32::from(has(Flag::Seen));
                    deleted += i32::from(has(Flag::Deleted)) - i32::from(row.marks.has(Flag::Deleted));
                }
                unseen = self.maybe(unseen as u32) as i32;
                Operation::Flags(FlagsChanged { mailbox, uids, add, remove, unseen, deleted })
            }
            13..15 => {
                let from = self.mailbox();
                let shared = self.uids(from);
                let mut placed = self.placed(from, &shared);
                if self.input.below(3) == 0 {
                    // Another email each, as when the mailbox holds the email already.
                    for (row, email) in placed.rows.iter_mut().zip(self.next_email..) {
                        row.email = email;
                        placed.records.push((email, Bytes::from_static(b"again")));
                    }
                }
                Operation::Copy(CopyMessages { from, shared, placed })
            }
            15..17 => {
                let from = self.mailbox();
                let uids = self.uids(from);
                let tally = self.tally(from, &uids);
                let placed = self.placed(from, &uids);
                Operation::Move(MoveMessages { from, uids, tally, placed })
            }
            17..19 => {
                let mailbox = self.mailbox();
                let uids = self.uids(mailbox);
                let tally = self.tally(mailbox, &uids);
                let rows =
                    self.whole.index(MailboxId(mailbox)).into_iter().flat_map(|index| index.select(&uids));
                let destroyed = rows.map(|row| row.email.0).collect();
                Operation::Expunge(ExpungeMessages { mailbox, uids, tally, destroyed })
            }
            _ => self.small_operation(),
        }
    }

    fn append(&mut self) -> Operation {
        let mailbox = self.mailbox();
        let uid = self.uid_next(mailbox);
        let email = u64::from(self.maybe(self.next_email as u32));
        let keys = self.input.below(3);
        let thread_keys: Vec<u64> = (self.next_key..self.next_key + u64::from(keys)).collect();
        self.next_key += u64::from(keys);
        let ingest = (self.input.below(4) == 0).then(|| Ingest {
            id: IngestId {
                producer: Uuid::from_u128(self.input.below(3).into()),
                item: u64::from(self.input.byte()) + 10,
                part: 0,
            },
            watermark: self.input.below(10).into(),
        });
        Operation::AppendMessage(AppendMessage {
            mailbox,
            uid,
            email,
            thread: email,
            marks: self.marks(),
            size: self.input.byte().into(),
            internal_date: 60,
            saved_date: 9,
            record: Bytes::copy_from_slice(self.input.piece()),
            thread_keys,
            ingest,
        })
    }

    fn small_operation(&mut self) -> Operation {
        match self.input.below(10) {
            0 => {
                let number = self.maybe(self.whole.keywords().len() as u32) as u8;
                Operation::KeywordNamed { number, name: Keyword::new(format!("k{number}")).unwrap() }
            }
            1 => {
                // Numbers of mailboxes that are gone are not used again, though the state does not show them.
                let shown = FRESH.mailboxes().map(|mailbox| (mailbox.id.0, mailbox.uid_validity.0.get()));
                let made = self.operations.iter().filter_map(|operation| match operation {
                    Operation::MailboxCreate(create) => Some((create.mailbox, create.uid_validity)),
                    _ => None,
                });
                let (last, validity) =
                    shown.chain(made).fold((0, 0), |one, other| (one.0.max(other.0), one.1.max(other.1)));
                let create = MailboxCreate {
                    mailbox: self.maybe(last + 1),
                    name: format!("m{last}"),
                    role: None,
                    uid_validity: self.maybe(validity.saturating_add(1000)),
                };
                Operation::MailboxCreate(create)
            }
            2 => {
                let empty = self
                    .whole
                    .mailboxes()
                    .filter(|mailbox| mailbox.messages == 0)
                    .map(|mailbox| mailbox.id.0);
                match empty.last() {
                    Some(mailbox) if mailbox > 1 => Operation::MailboxDelete { mailbox: self.maybe(mailbox) },
                    _ => Operation::QuotaLimit { bytes_max: Some(7), messages_max: None },
                }
            }
            3 => {
                // A name of its own, mostly: a taken one is refused.
                let mailbox = self.mailbox();
                let name = format!("r{}.{mailbox}", self.input.byte());
                Operation::MailboxRename { names: vec![(mailbox, name)] }
            }
            4 => Operation::Subscribe {
                name: format!("s{}", self.input.below(4)),
                subscribed: self.input.below(2) == 0,
            },
            5 => Operation::Watermark {
                producer: Uuid::from_u128(self.input.below(3).into()),
                below: self.input.below(30).into(),
            },
            6 => Operation::Archived {
                to: self.input.byte().into(),
                address: Bytes::copy_from_slice(self.input.piece()),
                nonce: Uuid::nil(),
            },
            7 => {
                let to = self.whole.modseq().0 * u64::from(self.input.below(5)) / 4;
                let kept: Vec<u64> = self
                    .whole
                    .mailboxes()
                    .filter_map(|mailbox| self.whole.index(mailbox.id))
                    .flat_map(|index| index.iter().map(|row| row.email.0))
                    .collect();
                let gone = (1..self.next_email).filter(|email| !kept.contains(email));
                let emails = gone.skip(self.input.below(4) as usize).step_by(2).collect();
                Operation::Forget { expunged_to: to, retained_to: to, emails }
            }
            8 => Operation::IngestRejected(Ingest {
                id: IngestId {
                    producer: Uuid::from_u128(1),
                    item: u64::from(self.input.byte()) + 10,
                    part: 1,
                },
                watermark: self.input.below(10).into(),
            }),
            _ if self.wrong && self.input.below(8) == 0 => Operation::Closed,
            _ => Operation::MailboxRole { mailbox: self.mailbox(), role: None },
        }
    }
}
