//! Checking an account: what the operator's `check` does.
//!
//! Four questions. Does the log, folded again from the beginning of its archive, give the state that snapshot and tail
//! give? Do the numbers in the root agree with the pages? Has every message its record? Is every body there, held by a
//! reference, and are its bytes what was written? Nothing is repaired; what is found is told.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use blob::{BlobAddress, Holder, KeyId, Nonce, SegmentId};
use bytes::Bytes;
use engine::chunk::Chunk;
use engine::stored::{ChainHash, Root, open_entry, open_page};
use engine::{EntryRow, LogId, PageId, PartPages, RowKey, Sealer, State, Table, page_partition, with_causes};
use mail::id::{AccountId, EmailId, MailboxId};

use crate::account::Account;
use crate::email::EmailRecord;
use crate::entry::{Operation, Tally};
use crate::error::StorageError;
use crate::history::HistoryTrace;
use crate::rights::Principal;
use crate::state::{AccountState, Part};
use crate::store::{OpenError, Storage};
use crate::view::EmailView;

/// Entries read at once.
const ENTRIES: usize = 256;
/// Records read at once.
const RECORDS: usize = 256;
/// References read at once.
const REFERENCES: usize = 1024;
/// Problems that are told; more are counted.
const PROBLEMS_MAX: usize = 1000;
/// How often the log may move on while it is being loaded.
const LOADS_MAX: usize = 100;

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CheckReport {
    /// The operation up to which the account was checked.
    pub seq: u64,
    /// Operations that were folded again.
    pub operations: u64,
    /// Messages looked at.
    pub messages: u64,
    /// Records looked at.
    pub emails: u64,
    /// Bodies whose bytes were read and compared.
    pub bodies: u64,
    /// What does not hold, in words for the operator. Empty: all is well.
    pub problems: Vec<String>,
    /// Problems beyond those told.
    pub problems_untold: u64,
}

/// How much to check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckDepth {
    /// Log, snapshot, pages and records.
    Metadata,
    /// That, and all bytes of all bodies.
    Bodies,
}

impl CheckReport {
    fn problem(&mut self, text: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text.into());
        } else {
            self.problems_untold += 1;
        }
    }
}

impl Storage {
    /// Checks an account. It may be in use meanwhile.
    pub async fn check(&self, account: AccountId, depth: CheckDepth) -> Result<CheckReport, OpenError> {
        let account = self.account(&Principal::Operator, account).await?;
        let mut report = CheckReport::default();
        if let Err(error) = account.check(depth, &mut report).await {
            report.problem(with_causes(&error));
        }
        Ok(report)
    }
}

impl Account {
    async fn check(&self, depth: CheckDepth, report: &mut CheckReport) -> Result<(), StorageError> {
        let state = self.load_all().await?;
        report.seq = state.seq;
        match self.fold_again(&state, report).await {
            Ok(again) if again.digest() != state.digest() => {
                report.problem(format!(
                    "a fold from the beginning gives another state {}",
                    difference(&state, &again)
                ));
            }
            Ok(_) => {}
            Err(problem) => report.problem(problem),
        }
        check_counts(&state, report);
        check_history(&state, report);
        check_view(&state, report);
        self.check_emails(&state, depth, report).await
    }

    /// The state with everything in memory that a check looks at.
    pub(crate) async fn load_all(&self) -> Result<Arc<AccountState>, StorageError> {
        let mut state = self.log.refresh(&[]).await?;
        for _ in 0..LOADS_MAX {
            let mailboxes = state.mailboxes.keys().map(|id| Part::Mailbox(MailboxId(*id)));
            let others =
                [Part::ExpungedSince(0), Part::RetainedSince(0), Part::HistorySince(0), Part::Producers];
            let parts: Vec<Part> = mailboxes.chain(others).chain(state.parts_dirty()).collect();
            if parts.iter().all(|part| state.pages_of(part) == PartPages::Loaded) {
                return Ok(state);
            }
            state = self.log.with(&parts).await?;
        }
        Err(StorageError::Unavailable("the account changes too fast".to_owned()))
    }

    /// Folds the log from the oldest chunk of its archive; without one, from its snapshot.
    async fn fold_again(
        &self,
        state: &AccountState,
        report: &mut CheckReport,
    ) -> Result<AccountState, String> {
        let log = LogId::account(self.id().0);
        let sealer =
            self.storage.keys().sealer(KeyId::of_log(log)).await.map_err(|error| with_causes(&error))?;
        let chunks = self.archive_chunks(state, log).await?;
        let mut fold = match chunks.first() {
            Some(first) => {
                let base =
                    self.read_chunk(log, first).await?.base.ok_or("the first archive chunk has no base")?;
                let pages = base.pages.into_iter().collect();
                Fold::begin(log, sealer, base.snapshot.root(), pages)?
            }
            None => {
                let head = self.storage.engine().log.head(log).await.map_err(|error| with_causes(&error))?;
                let root = head.ok_or("the log is gone")?.snapshot.root();
                let pages = self.all_pages(log).await?;
                Fold::begin(log, sealer, root, pages)?
            }
        };
        for address in &chunks {
            fold.rows(&self.read_chunk(log, address).await?.rows, state.seq)?;
        }
        while fold.state.seq < state.seq {
            let tail = self.storage.engine().log.tail_after(log, fold.state.seq, ENTRIES).await;
            let rows = tail.map_err(|error| with_causes(&error))?.ok_or("the log is gone")?.rows;
            if rows.is_empty() {
                return Err(format!("the log ends at {} and not at {}", fold.state.seq, state.seq));
            }
            fold.rows(&rows, state.seq)?;
        }
        report.operations = fold.operations;
        fold.finish()
    }

    /// Addresses of the archive's chunks, oldest first.
    pub(crate) async fn archive_chunks(
        &self,
        state: &AccountState,
        log: LogId,
    ) -> Result<Vec<Bytes>, String> {
        let mut addresses = Vec::new();
        let mut address = state.archived().address;
        let mut seen = HashSet::new();
        while !address.is_empty() {
            if !seen.insert(address.clone()) {
                return Err("the archive's chunks lead in a circle".to_owned());
            }
            let previous = self.read_chunk(log, &address).await?.previous;
            addresses.push(std::mem::replace(&mut address, previous));
        }
        addresses.reverse();
        Ok(addresses)
    }

    async fn read_chunk(&self, log: LogId, address: &Bytes) -> Result<Chunk, String> {
        let archive = self.storage.archive().ok_or("there is an archive, but not here")?;
        let bytes = archive.read(log, address.clone()).await.map_err(|error| with_causes(&error))?;
        let chunk = Chunk::decode(&bytes).map_err(|error| with_causes(&error))?;
        if chunk.log == log { Ok(chunk) } else { Err("an archive chunk belongs to another log".to_owned()) }
    }

    async fn all_pages(&self, log: LogId) -> Result<HashMap<PageId, Bytes>, String> {
        let rows = &self.storage.engine().rows;
        let partition = page_partition(log);
        let keys = rows.scan_keys(Table::Page, partition.clone(), Bytes::new(), usize::MAX).await;
        let keys = keys.map_err(|error| with_causes(&error))?;
        let row_keys = keys.iter().map(|key| RowKey::new(Table::Page, partition.clone(), key.clone()));
        let values = rows.get_many(row_keys.collect()).await.map_err(|error| with_causes(&error))?;
        Ok(keys
            .iter()
            .zip(values)
            .filter_map(|(key, value)| Some((PageId::from_key(key)?, value?)))
            .collect())
    }

    async fn check_emails(
        &self,
        state: &AccountState,
        depth: CheckDepth,
        report: &mut CheckReport,
    ) -> Result<(), StorageError> {
        let mut sizes: BTreeMap<u64, u32> = BTreeMap::new();
        for (name, row) in rows(state) {
            report.messages += 1;
            if *sizes.entry(row.email.0).or_insert(row.size) != row.size {
                report.problem(format!("{name} UID {}: another size than elsewhere", row.uid));
            }
        }
        for (_, trace) in state.retained.since(0).unwrap_or_default() {
            sizes.extend(trace.rows.iter().map(|row| (row.email, row.size)));
        }
        let wanted: Vec<(EmailId, u32)> =
            sizes.into_iter().map(|(email, size)| (EmailId(email), size)).collect();
        let mut held = Held::default();
        for wanted in wanted.chunks(RECORDS) {
            let ids: Vec<EmailId> = wanted.iter().map(|(email, _)| *email).collect();
            let records = self.encoded_emails(&ids).await?;
            for ((email, size), record) in wanted.iter().zip(records) {
                report.emails += 1;
                let record = record.ok_or_else(|| "it has no record".to_owned()).and_then(|record| {
                    EmailRecord::decode(*email, &record).map_err(|error| with_causes(&error))
                });
                let found = match record {
                    Ok(record) if record.size != u64::from(*size) => {
                        Err("its record has another size than its messages".to_owned())
                    }
                    Ok(record) => {
                        self.check_body(&record.address, record.reference, depth, &mut held, report).await
                    }
                    Err(problem) => Err(problem),
                };
                if let Err(problem) = found {
                    report.problem(format!("email {email}: {problem}"));
                }
            }
        }
        for (id, upload) in &*state.uploads {
            let found = self.check_body(&upload.address, upload.reference, depth, &mut held, report).await;
            if let Err(problem) = found {
                report.problem(format!("upload {id}: {problem}"));
            }
        }
        Ok(())
    }

    async fn check_body(
        &self,
        address: &BlobAddress,
        reference: Nonce,
        depth: CheckDepth,
        held: &mut Held,
        report: &mut CheckReport,
    ) -> Result<(), String> {
        if !held.contains(self, address, reference).await? {
            return Err("no reference holds its body".to_owned());
        }
        if depth == CheckDepth::Bodies {
            let reader = self.storage.blobs().open(address, KeyId::Account(self.id().0)).await;
            reader
                .map_err(|error| with_causes(&error))?
                .verify()
                .await
                .map_err(|error| with_causes(&error))?;
            report.bodies += 1;
        }
        Ok(())
    }
}

/// The account's references, segment by segment.
#[derive(Default)]
struct Held(HashMap<SegmentId, HashSet<(u32, Nonce)>>);

impl Held {
    async fn contains(
        &mut self,
        account: &Account,
        address: &BlobAddress,
        nonce: Nonce,
    ) -> Result<bool, String> {
        let own = match self.0.entry(address.segment) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let references = account.storage.blobs().references();
                let holder = Holder::Account(account.id().0);
                let mut own = HashSet::new();
                let mut last = None;
                loop {
                    let some = references.list(address.segment, last, REFERENCES).await;
                    let some = some.map_err(|error| with_causes(&error))?;
                    own.extend(some.iter().filter(|r| r.holder == holder).map(|r| (r.frame, r.nonce)));
                    last = some.last().copied();
                    if some.len() < REFERENCES {
                        break unknown.insert(own);
                    }
                }
            }
        };
        Ok(own.contains(&(address.frame, nonce)))
    }
}

/// A fold from the beginning.
struct Fold {
    log: LogId,
    sealer: Arc<dyn Sealer>,
    chain: ChainHash,
    pages: HashMap<PageId, Bytes>,
    state: AccountState,
    operations: u64,
}

impl Fold {
    fn begin(
        log: LogId,
        sealer: Arc<dyn Sealer>,
        root: PageId,
        pages: HashMap<PageId, Bytes>,
    ) -> Result<Self, String> {
        let bytes = pages.get(&root).ok_or("the root that the log starts from is missing")?;
        let plain = open_page(log, &*sealer, root, bytes).map_err(|error| with_causes(&error))?;
        let root = Root::decode(&plain).map_err(|error| with_causes(&error))?;
        let state = AccountState::from_root(log, &root.state).map_err(|error| with_causes(&error))?;
        if state.seq != root.seq {
            return Err("the root stands at another operation than it says".to_owned());
        }
        let mut fold = Self { log, sealer, chain: root.chain, pages, state, operations: 0 };
        let mailboxes = fold.state.mailboxes.keys().map(|id| Part::Mailbox(MailboxId(*id)));
        let others = [Part::ExpungedSince(0), Part::RetainedSince(0), Part::HistorySince(0), Part::Producers];
        for part in mailboxes.chain(others).collect::<Vec<_>>() {
            fold.load(&part)?;
        }
        if fold.state.digest() != root.digest {
            return Err("the snapshot is not the state that it was taken of".to_owned());
        }
        Ok(fold)
    }

    fn load(&mut self, part: &Part) -> Result<(), String> {
        let PartPages::Missing(ids) = self.state.pages_of(part) else { return Ok(()) };
        let mut given = Vec::with_capacity(ids.len());
        for id in ids {
            let bytes = self.pages.get(&id).ok_or_else(|| format!("page {id:?} is missing"))?;
            let plain = open_page(self.log, &*self.sealer, id, bytes);
            given.push((id, plain.map_err(|error| format!("page {id:?}: {}", with_causes(&error)))?));
        }
        self.state.install(part, given).map_err(|error| with_causes(&error))
    }

    /// Folds entries that have not been folded, up to an operation.
    fn rows(&mut self, rows: &[EntryRow], to: u64) -> Result<(), String> {
        for row in rows.iter().filter(|row| row.last_seq <= to) {
            if row.last_seq <= self.state.seq {
                continue;
            }
            if row.first_seq != self.state.seq + 1 {
                return Err(format!("entries between {} and {} are missing", self.state.seq, row.first_seq));
            }
            let entry = open_entry(self.log, &*self.sealer, &self.chain, row)
                .map_err(|error| format!("entry {}: {}", row.first_seq, with_causes(&error)))?;
            for (seq, bytes) in entry.operations() {
                let operation = Operation::decode(bytes)
                    .map_err(|error| format!("operation {seq}: {}", with_causes(&error)))?;
                self.state.fold(seq, &operation).map_err(|error| with_causes(&error))?;
                self.operations += 1;
            }
            self.chain = entry.hash;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<AccountState, String> {
        for part in self.state.parts_dirty() {
            self.load(&part)?;
        }
        Ok(self.state)
    }
}

fn rows(state: &AccountState) -> impl Iterator<Item = (&str, crate::index::MessageRow)> {
    let loaded = state.mailboxes.values().filter(|mailbox| mailbox.index.is_loaded());
    loaded.flat_map(|mailbox| mailbox.index.iter().map(|row| (mailbox.root.name.as_str(), row)))
}

/// Whether the root says of the pages what they hold.
fn check_counts(state: &AccountState, report: &mut CheckReport) {
    let (mut messages, mut bytes) = (0, 0);
    let mut homes: HashMap<u64, (u32, bool)> = HashMap::new();
    for (id, mailbox) in &*state.mailboxes {
        let root = &mailbox.root;
        let mut tally = Tally::default();
        let mut before = 0;
        for row in mailbox.index.iter() {
            tally.add(row.marks, row.size);
            let here = |what: &str| format!("{} UID {}: {what}", root.name, row.uid);
            if row.uid.get() <= before || u64::from(row.uid.get()) >= root.uid_next {
                report.problem(here("out of order or beyond UIDNEXT"));
            }
            before = row.uid.get();
            if row.created > row.modseq || row.modseq.0 > root.highest_modseq {
                report.problem(here("MODSEQ beyond that of the mailbox, or before its creation"));
            }
            if row.email.0 >= state.base.next_email || row.thread.0 > row.email.0 {
                report.problem(here("email or thread that was never given out"));
            }
            let is_shared = !row.marks.intersection(crate::marks::Marks::SHARED).is_empty();
            match homes.insert(row.email.0, (*id, is_shared)) {
                Some((other, _)) if other == *id => report.problem(here("its email is here twice")),
                Some((_, was_shared)) if !(was_shared && is_shared) => {
                    report.problem(here("its email is elsewhere too, and not marked so"));
                }
                _ => {}
            }
        }
        let counted = (tally.messages, tally.unseen, tally.deleted, tally.size);
        if counted != (root.messages, root.unseen, root.deleted, root.size) {
            report.problem(format!("{}: its counts are not those of its messages", root.name));
        }
        if root.highest_modseq > state.seq {
            report.problem(format!("{}: its MODSEQ lies in the future", root.name));
        }
        messages += u64::from(tally.messages);
        bytes += tally.size;
    }
    let quota = &state.base.quota;
    if (quota.messages, quota.bytes) != (messages, bytes) {
        report.problem("the quota in use is not what the mailboxes hold");
    }
}

/// Whether what is remembered of emails agrees with what there is of them: each is destroyed once and not there any more,
/// and no more were created than numbers were given out.
fn check_history(state: &AccountState, report: &mut CheckReport) {
    let there: HashSet<u64> = rows(state).map(|(_, row)| row.email.0).collect();
    let mut gone = HashSet::new();
    let mut created = 0u64;
    for (seq, trace) in state.history.since(0).unwrap_or_default() {
        match trace {
            HistoryTrace::EmailsCreated { count } => created += u64::from(*count),
            HistoryTrace::EmailsGone { destroyed, .. } => {
                for email in destroyed {
                    if there.contains(email) || !gone.insert(*email) {
                        report.problem(format!("email {email} is said to be gone since {seq} and is not"));
                    }
                }
            }
            HistoryTrace::MailboxDestroyed { mailbox } if state.mailboxes.contains_key(mailbox) => {
                report.problem(format!("mailbox {mailbox} is said to be gone since {seq} and is not"));
            }
            _ => {}
        }
    }
    if created >= state.base.next_email {
        report.problem("more emails are said to have come than numbers were given out");
    }
    let latest = state.latest();
    if [latest.emails, latest.threads, latest.mailboxes, latest.deliveries].iter().any(|seq| *seq > state.seq)
    {
        report.problem("something is said to have changed in the future");
    }
    for mailbox in state.mailboxes.values() {
        if mailbox.root.messages > 0 && mailbox.root.highest_modseq > latest.emails {
            report.problem(format!("{}: it has changed after the last change of emails", mailbox.root.name));
        }
    }
    if state.sort_orders.keys().any(|id| !state.mailboxes.contains_key(id)) {
        report.problem("a mailbox that is not there has a place among its neighbours");
    }
}

/// Whether the account by email is the account by mailbox.
fn check_view(state: &Arc<AccountState>, report: &mut CheckReport) {
    let Ok(view) = EmailView::of(state) else { return report.problem("not all indexes were loaded") };
    for mailbox in state.mailboxes.values() {
        let counts = view.counts(MailboxId(mailbox.root.id)).unwrap_or_default();
        if counts.total_emails != mailbox.root.messages {
            report.problem(format!("{}: by email it holds something else", mailbox.root.name));
        }
    }
}

/// In which of its tables one state differs from another, for the report.
fn difference(one: &AccountState, other: &AccountState) -> String {
    let mut tables = Vec::new();
    let mut compare = |name: &str, equal: bool| {
        if !equal {
            tables.push(name.to_owned());
        }
    };
    compare("root", one.base == other.base && one.seq == other.seq);
    compare("mailboxes", one.mailboxes.keys().eq(other.mailboxes.keys()));
    compare("emails", one.emails.digest() == other.emails.digest());
    compare("threads", one.threads.digest() == other.threads.digest());
    compare("expunged", one.expunged.digest() == other.expunged.digest());
    compare("retained", one.retained.digest() == other.retained.digest());
    compare("suppressions", one.suppressions == other.suppressions);
    compare("history", one.history.digest() == other.history.digest() && one.latest == other.latest);
    compare("places of mailboxes", one.sort_orders == other.sort_orders);
    compare("objects", one.objects == other.objects);
    compare("uploads", one.uploads == other.uploads);
    compare("delivered", one.producers.digest() == other.producers.digest());
    for (id, mailbox) in &*one.mailboxes {
        let equal = other.mailboxes.get(id).is_some_and(|other| {
            other.root == mailbox.root && other.index.digest(*id) == mailbox.index.digest(*id)
        });
        compare(&mailbox.root.name, equal);
    }
    format!("({})", tables.join(", "))
}
