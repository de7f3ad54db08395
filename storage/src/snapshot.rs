//! How the state is stored: its parts, and what a snapshot writes of them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use engine::{Archived, FoldError, FormatError, LogId, PageId, PartPages, SnapshotPages, State};
use mail::id::MailboxId;
use uuid::Uuid;

use crate::email_page::{EmailPages, EmailsWritten};
use crate::entry::Operation;
use crate::history::{HistoryTrace, Latest};
use crate::index::{MailboxIndex, StoredPage, WrittenPages};
use crate::ingest::{Producers, ProducersWritten};
use crate::object::Objects;
use crate::root::{Base, Extension, MailboxRoot, Root};
use crate::run::{RunsWritten, ThreadKeys};
use crate::state::{AccountState, MailboxState, Part};
use crate::trail::{ExpungedTrace, RetainedTrace, Trail, TrailWritten};
use crate::upload::Upload;

/// About how much a suppressed address takes.
const SUPPRESSION_BYTES: usize = 160;
/// About how much an upload takes.
const UPLOAD_BYTES: usize = 200;

/// What a snapshot wrote, to be taken over when it is current.
#[derive(Debug)]
pub struct Written {
    indexes: Vec<(u32, WrittenPages)>,
    emails: EmailsWritten,
    threads: RunsWritten,
    expunged: TrailWritten<ExpungedTrace>,
    retained: TrailWritten<RetainedTrace>,
    producers: ProducersWritten,
    history: TrailWritten<HistoryTrace>,
}

impl State for AccountState {
    type Operation = Operation;
    type Part = Part;
    type Plan = Written;

    fn encode_operation(operation: &Operation, out: &mut Vec<u8>) {
        operation.encode(out);
    }

    fn decode_operation(bytes: &[u8]) -> Result<Operation, FormatError> {
        Operation::decode(bytes)
    }

    fn from_root(_log: LogId, root: &[u8]) -> Result<Self, FormatError> {
        let (root, suppressions, extension) = Root::decode(root)?;
        let mailbox = |(root, slots): (MailboxRoot, _)| {
            let index = MailboxIndex::from_stored(slots)?;
            if index.len() != root.messages as usize {
                return Err(FormatError::malformed("account root", "messages of a mailbox do not add up"));
            }
            Ok((root.id, Arc::new(MailboxState { root, index })))
        };
        let count = root.mailboxes.len();
        let mailboxes = root.mailboxes.into_iter().map(mailbox).collect::<Result<BTreeMap<_, _>, _>>()?;
        let names: HashSet<&str> = mailboxes.values().map(|mailbox| &*mailbox.root.name).collect();
        if mailboxes.len() < count || names.len() < count {
            return Err(FormatError::malformed("account root", "two mailboxes of one number or name"));
        }
        // Before there was an extension nothing of it was remembered.
        let extension = extension.unwrap_or_else(|| Extension {
            history: Trail::<HistoryTrace>::unknown_before(root.seq).list(),
            latest: Latest::unknown_before(root.seq),
            sort_orders: BTreeMap::new(),
            objects: Objects::default(),
            uploads: BTreeMap::new(),
        });
        Ok(Self {
            seq: root.seq,
            base: Arc::new(root.base),
            mailboxes: Arc::new(mailboxes),
            ghosts: Arc::default(),
            emails: EmailPages::from_stored(root.emails)?,
            threads: ThreadKeys::from_stored(root.threads),
            expunged: Trail::from_stored(root.expunged),
            retained: Trail::from_stored(root.retained),
            producers: Producers::from_stored(root.producers),
            suppressions: Arc::new(suppressions),
            history: Trail::from_stored(extension.history),
            latest: extension.latest,
            sort_orders: Arc::new(extension.sort_orders),
            objects: Arc::new(extension.objects),
            uploads: Arc::new(extension.uploads),
        })
    }

    fn fold(&mut self, seq: u64, operation: &Operation) -> Result<(), FoldError> {
        self.apply(seq, operation)
    }

    fn pages_of(&self, part: &Part) -> PartPages {
        let of_mailbox = |id: &MailboxId, pending_only: bool| {
            let mailbox = self.mailboxes.get(&id.0).or_else(|| self.ghosts.get(&id.0));
            mailbox.map(|mailbox| mailbox.index.missing(pending_only)).unwrap_or_default()
        };
        let missing = match part {
            Part::Mailbox(id) => of_mailbox(id, false),
            Part::Pending(id) => of_mailbox(id, true),
            Part::ThreadKey(key) => self.threads.missing(*key),
            Part::ThreadMerge => self.threads.missing_for_store(),
            Part::ExpungedSince(seq) => self.expunged.missing(*seq),
            Part::ExpungedMerge => self.expunged.missing_for_store(self.trail_bytes()),
            Part::RetainedSince(seq) => self.retained.missing(*seq),
            Part::RetainedMerge => self.retained.missing_for_store(self.trail_bytes()),
            Part::HistorySince(seq) => self.history.missing(*seq),
            Part::HistoryMerge => self.history.missing_for_store(self.trail_bytes()),
            Part::Producers => self.producers.missing(),
            Part::Email(email) => self.emails.missing(email.0),
            Part::EmailMerge => self.emails.missing_for_store(self.email_records()),
        };
        if missing.is_empty() { PartPages::Loaded } else { PartPages::Missing(missing) }
    }

    fn install(&mut self, part: &Part, pages: Vec<(PageId, Bytes)>) -> Result<(), FormatError> {
        match part {
            Part::Mailbox(id) | Part::Pending(id) => self.install_index(id.0, &pages),
            Part::ThreadKey(_) | Part::ThreadMerge => self.threads.install(&pages),
            Part::ExpungedSince(_) | Part::ExpungedMerge => self.expunged.install(&pages),
            Part::RetainedSince(_) | Part::RetainedMerge => self.retained.install(&pages),
            Part::HistorySince(_) | Part::HistoryMerge => self.history.install(&pages),
            Part::Producers => self.producers.install(&pages),
            Part::Email(_) | Part::EmailMerge => self.emails.install(&pages),
        }
    }

    fn parts_dirty(&self) -> Vec<Part> {
        let mailboxes = self.mailboxes.iter().chain(&*self.ghosts);
        let mut parts: Vec<Part> = mailboxes
            .filter(|(_, mailbox)| mailbox.index.has_pending())
            .map(|(id, _)| Part::Pending(MailboxId(*id)))
            .collect();
        let others = [
            (self.threads.is_dirty(), Part::ThreadMerge),
            (self.expunged.is_dirty(), Part::ExpungedMerge),
            // What is pending in a mailbox may have to be retained.
            (self.retained.is_dirty() || !parts.is_empty(), Part::RetainedMerge),
            (self.history.is_dirty(), Part::HistoryMerge),
            (self.producers.is_dirty(), Part::Producers),
            (self.emails.is_dirty(), Part::EmailMerge),
        ];
        parts.extend(others.into_iter().filter(|(dirty, _)| *dirty).map(|(_, part)| part));
        parts
    }

    fn dirty_bytes(&self) -> usize {
        let pages: usize = self.mailboxes.values().map(|mailbox| mailbox.index.dirty_bytes()).sum();
        pages
            + self.emails.dirty_bytes(self.email_records())
            + self.threads.dirty_bytes()
            + self.expunged.dirty_bytes(self.trail_bytes())
            + self.retained.dirty_bytes(self.trail_bytes())
            + self.history.dirty_bytes(self.trail_bytes())
            + self.producers.dirty_bytes()
            + self.root_bytes()
    }

    fn snapshot(&self, new_page_id: &mut dyn FnMut() -> PageId) -> SnapshotPages<Written> {
        let mut pages = Vec::new();
        let mut write = |bytes: Vec<u8>, digest: u128| {
            let stored = StoredPage { id: new_page_id(), digest, bytes: bytes.len() as u32 };
            pages.push((stored.id, bytes));
            stored
        };
        let mut listed = Vec::new();
        let mut mailboxes = Vec::with_capacity(self.mailboxes.len());
        let mut indexes = Vec::new();
        for (id, mailbox) in &*self.mailboxes {
            let (slots, written) = mailbox.index.store(*id, &mut write);
            listed.extend(slots.iter().map(|slot| slot.page.id));
            mailboxes.push((mailbox.root.clone(), slots));
            if !written.is_empty() {
                indexes.push((*id, written));
            }
        }
        let emails = self.emails.store(self.email_records(), &mut write);
        let threads = self.threads.store(self.base.layout.run_keys.into(), &mut write);
        let expunged = self.expunged.store(self.trail_bytes(), &mut write);
        let retained = self.retained.store(self.trail_bytes(), &mut write);
        let history = self.history.store(self.trail_bytes(), &mut write);
        let producers = self.producers.store(&mut write);
        listed.extend(emails.page_ids().chain(threads.page_ids()));
        listed.extend(expunged.page_ids().chain(retained.page_ids()));
        listed.extend(history.page_ids());
        listed.extend(producers.stored.map(|stored| stored.id));
        let root = Root {
            seq: self.seq,
            base: Base::clone(&self.base),
            mailboxes,
            emails: emails.list(),
            threads: threads.lists(),
            expunged: expunged.list(),
            retained: retained.list(),
            producers: producers.stored,
        };
        let extension = Extension {
            history: history.list(),
            latest: self.latest,
            sort_orders: BTreeMap::clone(&self.sort_orders),
            objects: Objects::clone(&self.objects),
            uploads: BTreeMap::clone(&self.uploads),
        };
        let root = root.encode(&self.suppressions, &extension);
        let plan = Written { indexes, emails, threads, expunged, retained, producers, history };
        SnapshotPages { root, written: pages, listed, plan }
    }

    fn snapshotted(&mut self, _seq: u64, taken: &SnapshotPages<Written>) {
        let plan = &taken.plan;
        for (id, written) in &plan.indexes {
            if let Some(mailbox) = Arc::make_mut(&mut self.mailboxes).get_mut(id) {
                Arc::make_mut(mailbox).index.stored(written);
            }
        }
        self.emails.stored(&plan.emails);
        self.threads.stored(&plan.threads);
        self.expunged.stored(&plan.expunged);
        self.retained.stored(&plan.retained);
        self.producers.stored(&plan.producers);
        self.history.stored(&plan.history);
    }

    fn archived_operation(to: u64, address: Bytes, nonce: Uuid) -> Operation {
        Operation::Archived { to, address, nonce }
    }

    fn archived(&self) -> Archived {
        Archived { seq: self.base.archived_seq, address: self.base.archived_address.clone() }
    }

    fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut add = |bytes: Result<Vec<u8>, postcard::Error>| {
            hasher.update(&bytes.expect("the root holds nothing that postcard refuses"));
        };
        add(postcard::to_stdvec(&(self.seq, &*self.base)));
        for (id, mailbox) in &*self.mailboxes {
            add(postcard::to_stdvec(&(&mailbox.root, mailbox.index.digest(*id))));
        }
        let horizons = (self.expunged.horizon(), self.retained.horizon());
        let sums = (
            self.emails.digest(),
            self.threads.digest(),
            self.expunged.digest(),
            self.retained.digest(),
            self.producers.digest(),
        );
        add(postcard::to_stdvec(&(horizons, sums)));
        if !self.suppressions.is_empty() {
            add(postcard::to_stdvec(&*self.suppressions));
        }
        let history = (self.history.horizon(), self.history.digest());
        add(postcard::to_stdvec(&(history, self.latest, &*self.sort_orders)));
        add(postcard::to_stdvec(&(&*self.objects, &*self.uploads)));
        *hasher.finalize().as_bytes()
    }

    fn weight(&self) -> usize {
        let mailboxes = self.mailboxes.values().chain(self.ghosts.values());
        let indexes: usize = mailboxes
            .map(|mailbox| mailbox.index.weight() + mailbox.root.name.len() + size_of::<MailboxState>())
            .sum();
        size_of::<Self>()
            + indexes
            + self.emails.weight()
            + self.threads.weight()
            + self.expunged.weight()
            + self.retained.weight()
            + self.producers.weight()
            + self.history.weight()
            + self.objects.weight()
            + self.uploads.len() * size_of::<Upload>()
            + self.base.subscriptions.iter().map(|name| name.len() + 32).sum::<usize>()
            + self.suppressions.len() * SUPPRESSION_BYTES
    }

    fn shed(&mut self, bytes: usize) {
        // What is read again most cheaply goes first.
        let mut freed = self.emails.shed() + self.threads.shed() + self.retained.shed();
        if freed < bytes {
            freed += self.producers.shed() + self.expunged.shed() + self.history.shed();
        }
        let sheddable: Vec<u32> = self
            .mailboxes
            .iter()
            .filter(|(_, mailbox)| mailbox.index.can_shed())
            .map(|(id, _)| *id)
            .collect();
        for id in sheddable {
            if freed >= bytes {
                break;
            }
            if let Some(mailbox) = Arc::make_mut(&mut self.mailboxes).get_mut(&id) {
                freed += Arc::make_mut(mailbox).index.shed();
            }
        }
    }
}

impl AccountState {
    fn install_index(&mut self, id: u32, pages: &[(PageId, Bytes)]) -> Result<(), FormatError> {
        let page_messages = usize::from(self.base.layout.index_messages);
        let removed = if let Some(mailbox) = Arc::make_mut(&mut self.mailboxes).get_mut(&id) {
            Arc::make_mut(mailbox).index.install(pages, page_messages)?
        } else if let Some(ghost) = Arc::make_mut(&mut self.ghosts).get_mut(&id) {
            let ghost = Arc::make_mut(ghost);
            let removed = ghost.index.install(pages, page_messages)?;
            if !ghost.index.has_pending() {
                Arc::make_mut(&mut self.ghosts).remove(&id);
            }
            removed
        } else {
            Vec::new()
        };
        self.retain(id, removed);
        Ok(())
    }

    fn email_records(&self) -> usize {
        self.base.layout.email_records.into()
    }

    fn trail_bytes(&self) -> usize {
        self.base.layout.trail_bytes.into()
    }

    /// About how large the root is.
    fn root_bytes(&self) -> usize {
        let mailboxes = self.mailboxes.values();
        let indexes: usize =
            mailboxes.map(|mailbox| 40 + mailbox.root.name.len() + mailbox.index.pages() * 60).sum();
        let others =
            self.emails.pages() + self.threads.pages() + self.expunged.pages() + self.retained.pages();
        let others = others + self.history.pages();
        200 + indexes
            + others * 60
            + self.base.subscriptions.len() * 16
            + self.suppressions.len() * SUPPRESSION_BYTES
            + self.objects.stored_bytes()
            + self.uploads.len() * UPLOAD_BYTES
    }
}
