//! How an operation changes the state. The same on every node and in every release: nothing here reads a clock.

use std::collections::HashSet;
use std::sync::Arc;

use engine::FoldError;
use mail::id::{EmailId, ModSeq, ThreadId, Uid};
use mail::uid::UidSet;

use crate::date::InternalDate;
use crate::entry::{
    AppendMessage, CopyMessages, ExpungeEmails, ExpungeMessages, FlagsChanged, MailboxCreate, MoveMessages,
    Operation, Placed, PlacedRow, Tally,
};
use crate::index::{Effect, MailboxIndex, MessageRow, Removed};
use crate::ingest::Outcome;
use crate::marks::{KEYWORDS_MAX, Marks};
use crate::root::{Base, MailboxRoot};
use crate::state::{AccountState, MailboxState};
use crate::trail::{ExpungedTrace, RetainedTrace};

impl AccountState {
    /// Applies an operation.
    pub(crate) fn apply(&mut self, seq: u64, operation: &Operation) -> Result<(), FoldError> {
        let misfit = |reason: &str| FoldError::new(seq, reason);
        if self.seq.checked_add(1) != Some(seq) {
            return Err(misfit("it is not the next"));
        }
        if self.base.closed && !matches!(operation, Operation::Archived { .. } | Operation::Opened { .. }) {
            return Err(misfit("the account is closed"));
        }
        match operation {
            Operation::AppendMessage(append) => self.append(seq, append)?,
            Operation::Flags(flags) => self.change_flags(seq, flags)?,
            Operation::Copy(copy) => self.copy(seq, copy)?,
            Operation::Move(moved) => self.move_messages(seq, moved)?,
            Operation::Expunge(expunge) => self.expunge(seq, expunge)?,
            Operation::MailboxCreate(create) => self.create_mailbox(seq, create)?,
            Operation::MailboxRename { names } => {
                for (mailbox, name) in names {
                    self.mailbox_mut(seq, *mailbox)?.root.name.clone_from(name);
                }
                // Names may be passed on among those renamed, so it is the outcome that counts.
                let all: HashSet<&str> = self.mailboxes.values().map(|mailbox| &*mailbox.root.name).collect();
                if all.len() < self.mailboxes.len() {
                    return Err(misfit("its name is taken"));
                }
            }
            Operation::MailboxDelete { mailbox } => self.delete_mailbox(seq, *mailbox)?,
            Operation::Subscribe { name, subscribed } => {
                let subscriptions = &mut self.base_mut().subscriptions;
                if *subscribed {
                    subscriptions.insert(name.clone());
                } else {
                    subscriptions.remove(name);
                }
            }
            Operation::KeywordNamed { number, name } => {
                let keywords = &mut self.base_mut().keywords;
                if usize::from(*number) != keywords.len() || keywords.len() >= KEYWORDS_MAX {
                    return Err(misfit("it is not the next keyword"));
                }
                keywords.push(name.clone());
            }
            Operation::IngestRejected(ingest) => self.producers.done(ingest, Outcome::Rejected),
            Operation::Watermark { producer, below } => self.producers.watermark(*producer, *below),
            Operation::Archived { to, address, .. } => {
                let base = self.base_mut();
                base.archived_seq = base.archived_seq.max(*to);
                base.archived_address.clone_from(address);
            }
            Operation::Forget { expunged_to, retained_to, emails } => {
                self.expunged.forget(*expunged_to);
                self.retained.forget(*retained_to);
                self.emails.forget(emails);
            }
            Operation::Closed => self.base_mut().closed = true,
            Operation::Opened { from, into } => {
                if !self.base.closed {
                    return Err(misfit("the account is not closed"));
                }
                self.base_mut().closed = false;
                self.producers.moved(from, into);
            }
            Operation::QuotaLimit { bytes_max, messages_max } => {
                let quota = &mut self.base_mut().quota;
                quota.bytes_max = *bytes_max;
                quota.messages_max = *messages_max;
            }
            Operation::MailboxRole { mailbox, role } => self.mailbox_mut(seq, *mailbox)?.root.role = *role,
            Operation::Suppress { address, why } => {
                let suppressions = Arc::make_mut(&mut self.suppressions);
                match why {
                    Some(why) => suppressions.insert(address.clone(), why.clone()),
                    None => suppressions.remove(address),
                };
            }
            Operation::ExpungeEmails(expunge) => self.expunge_emails(seq, expunge)?,
            Operation::MoveShared { moved, .. } => self.move_messages(seq, moved)?,
            Operation::MailboxOrder { mailbox, sort_order } => {
                if !self.mailboxes.contains_key(mailbox) {
                    return Err(misfit("there is no such mailbox"));
                }
                let sort_orders = Arc::make_mut(&mut self.sort_orders);
                match *sort_order {
                    0 => sort_orders.remove(mailbox),
                    sort_order => sort_orders.insert(*mailbox, sort_order),
                };
            }
            // See [`Self::note`].
            Operation::ForgetHistory { .. } => {}
            Operation::ObjectPut { kind, id, value } => {
                let created = Arc::make_mut(&mut self.objects).put(seq, *kind, id, value);
                self.note_object(seq, *kind, id, created);
            }
            Operation::ObjectRemove { kind, id } => {
                if !Arc::make_mut(&mut self.objects).remove(seq, *kind, id) {
                    return Err(misfit("there is no such object"));
                }
                self.note_object_removed(seq, *kind, id);
            }
            Operation::UploadPut(upload) => {
                Arc::make_mut(&mut self.uploads).insert(seq, upload.clone());
            }
            Operation::UploadRemove { uploads } => {
                Arc::make_mut(&mut self.uploads).retain(|upload, _| !uploads.contains(upload));
            }
        }
        self.note(seq, operation);
        self.seq = seq;
        Ok(())
    }

    fn append(&mut self, seq: u64, append: &AppendMessage) -> Result<(), FoldError> {
        if append.email != self.base.next_email {
            return Err(FoldError::new(seq, "its email id is not the next"));
        }
        let row = PlacedRow {
            email: append.email,
            thread: append.thread,
            marks: append.marks,
            size: append.size,
            internal_date: append.internal_date,
        };
        self.place(seq, append.mailbox, append.uid, append.saved_date, &[row])?;
        self.add_email(append.email, append.record.clone());
        self.threads.insert(&append.thread_keys, append.thread);
        if let Some(ingest) = &append.ingest {
            self.producers.done(ingest, Outcome::Placed { mailbox: append.mailbox, uid: append.uid });
        }
        Ok(())
    }

    fn add_email(&mut self, email: u64, record: bytes::Bytes) {
        let base = self.base_mut();
        base.next_email = base.next_email.max(email.saturating_add(1));
        self.emails.push(email, record);
    }

    /// Puts rows into a mailbox, from its UIDNEXT on.
    fn place(
        &mut self,
        seq: u64,
        mailbox: u32,
        first_uid: u32,
        saved_date: u32,
        rows: &[PlacedRow],
    ) -> Result<(), FoldError> {
        let page_messages = self.page_messages();
        let target = self.mailbox_mut(seq, mailbox)?;
        if u64::from(first_uid) != target.root.uid_next {
            return Err(FoldError::new(seq, "its UID is not the next of the mailbox"));
        }
        let mut tally = Tally::default();
        let mut messages = Vec::with_capacity(rows.len());
        for (uid, row) in (u64::from(first_uid)..).zip(rows) {
            let uid = u32::try_from(uid).ok().and_then(Uid::new);
            let uid = uid.ok_or_else(|| FoldError::new(seq, "the mailbox has no UIDs left"))?;
            tally.add(row.marks, row.size);
            target.root.keywords = target.root.keywords.union(row.marks);
            messages.push(MessageRow {
                uid,
                email: EmailId(row.email),
                modseq: ModSeq(seq),
                created: ModSeq(seq),
                marks: row.marks,
                size: row.size,
                internal_date: InternalDate::from_packed(row.internal_date),
                saved_date,
                thread: ThreadId(row.thread),
            });
        }
        target.index.insert(&messages, page_messages);
        let root = &mut target.root;
        let sums = (
            root.uid_next.checked_add(rows.len() as u64),
            root.messages.checked_add(tally.messages),
            root.unseen.checked_add(tally.unseen),
            root.deleted.checked_add(tally.deleted),
            root.size.checked_add(tally.size),
        );
        let (Some(uid_next), Some(messages), Some(unseen), Some(deleted), Some(size)) = sums else {
            return Err(FoldError::new(seq, "the mailbox holds more than can be counted"));
        };
        root.uid_next = uid_next;
        (root.messages, root.unseen, root.deleted, root.size) = (messages, unseen, deleted, size);
        root.highest_modseq = seq;
        let quota = &mut self.base_mut().quota;
        quota.messages = quota.messages.saturating_add(u64::from(tally.messages));
        quota.bytes = quota.bytes.saturating_add(tally.size);
        Ok(())
    }

    fn change_flags(&mut self, seq: u64, change: &FlagsChanged) -> Result<(), FoldError> {
        let page_messages = self.page_messages();
        let mailbox = self.mailbox_mut(seq, change.mailbox)?;
        let changed = |count: u32, by: i32| {
            count.checked_add_signed(by).ok_or_else(|| FoldError::new(seq, "fewer flags than it takes away"))
        };
        let root = &mut mailbox.root;
        root.unseen = changed(root.unseen, change.unseen)?;
        root.deleted = changed(root.deleted, change.deleted)?;
        root.highest_modseq = seq;
        root.keywords = root.keywords.union(change.add);
        let effect = Effect::Mark {
            uids: change.uids.clone(),
            add: change.add,
            remove: change.remove,
            modseq: Some(seq),
        };
        mailbox.index.apply(effect, page_messages);
        Ok(())
    }

    fn copy(&mut self, seq: u64, copy: &CopyMessages) -> Result<(), FoldError> {
        if !copy.shared.is_empty() {
            let page_messages = self.page_messages();
            let effect = Effect::Mark {
                uids: copy.shared.clone(),
                add: Marks::SHARED,
                remove: Marks::EMPTY,
                modseq: None,
            };
            self.mailbox_mut(seq, copy.from)?.index.apply(effect, page_messages);
        }
        self.place_all(seq, &copy.placed)
    }

    fn move_messages(&mut self, seq: u64, moved: &MoveMessages) -> Result<(), FoldError> {
        self.take_out(seq, moved.from, &moved.uids, &moved.tally, false)?;
        let trace = ExpungedTrace { mailbox: moved.from, uids: moved.uids.clone(), destroyed: Vec::new() };
        self.expunged.push((seq, 0), trace);
        self.place_all(seq, &moved.placed)
    }

    fn place_all(&mut self, seq: u64, placed: &Placed) -> Result<(), FoldError> {
        for (email, record) in &placed.records {
            if *email != self.base.next_email {
                return Err(FoldError::new(seq, "its email id is not the next"));
            }
            self.add_email(*email, record.clone());
        }
        self.place(seq, placed.mailbox, placed.first_uid, placed.saved_date, &placed.rows)
    }

    fn expunge(&mut self, seq: u64, expunge: &ExpungeMessages) -> Result<(), FoldError> {
        self.take_out(seq, expunge.mailbox, &expunge.uids, &expunge.tally, true)?;
        let trace = ExpungedTrace {
            mailbox: expunge.mailbox,
            uids: expunge.uids.clone(),
            destroyed: expunge.destroyed.clone(),
        };
        self.expunged.push((seq, 0), trace);
        Ok(())
    }

    fn expunge_emails(&mut self, seq: u64, expunge: &ExpungeEmails) -> Result<(), FoldError> {
        if expunge.threads.len() != expunge.destroyed.len() {
            return Err(FoldError::new(seq, "not every email that is gone has its thread"));
        }
        self.take_out(seq, expunge.mailbox, &expunge.uids, &expunge.tally, true)?;
        let trace = ExpungedTrace {
            mailbox: expunge.mailbox,
            uids: expunge.uids.clone(),
            destroyed: expunge.destroyed.clone(),
        };
        self.expunged.push((seq, 0), trace);
        Ok(())
    }

    fn take_out(
        &mut self,
        seq: u64,
        mailbox: u32,
        uids: &UidSet,
        tally: &Tally,
        retain: bool,
    ) -> Result<(), FoldError> {
        let page_messages = self.page_messages();
        let source = self.mailbox_mut(seq, mailbox)?;
        let misfit = || FoldError::new(seq, "it takes out more than there is");
        let root = &mut source.root;
        root.messages = root.messages.checked_sub(tally.messages).ok_or_else(misfit)?;
        root.unseen = root.unseen.checked_sub(tally.unseen).ok_or_else(misfit)?;
        root.deleted = root.deleted.checked_sub(tally.deleted).ok_or_else(misfit)?;
        root.size = root.size.checked_sub(tally.size).ok_or_else(misfit)?;
        root.highest_modseq = seq;
        let removed = source.index.apply(Effect::Remove { uids: uids.clone(), seq, retain }, page_messages);
        if source.index.len() != source.root.messages as usize {
            return Err(misfit());
        }
        self.retain(mailbox, removed);
        let quota = &mut self.base_mut().quota;
        quota.messages = quota.messages.checked_sub(u64::from(tally.messages)).ok_or_else(misfit)?;
        quota.bytes = quota.bytes.checked_sub(tally.size).ok_or_else(misfit)?;
        Ok(())
    }

    /// Remembers what messages were.
    pub(crate) fn retain(&mut self, mailbox: u32, removed: Vec<Removed>) {
        for Removed { seq, rows } in removed {
            let Some(first) = rows.first() else { continue };
            let place = (seq, first.uid.get());
            let trace = RetainedTrace {
                mailbox,
                uids: rows.iter().map(|row| row.uid).collect(),
                rows: rows.iter().map(PlacedRow::from).collect(),
            };
            self.retained.push(place, trace);
        }
    }

    fn create_mailbox(&mut self, seq: u64, create: &MailboxCreate) -> Result<(), FoldError> {
        let misfit = |reason: &str| FoldError::new(seq, reason);
        let uid_validity = std::num::NonZeroU32::new(create.uid_validity);
        let uid_validity = uid_validity.ok_or_else(|| misfit("its UIDVALIDITY is zero"))?;
        if create.mailbox != self.base.next_mailbox || create.uid_validity <= self.base.last_uid_validity {
            return Err(misfit("its number or UIDVALIDITY is not new"));
        }
        if self.root_by_name(&create.name).is_some() {
            return Err(misfit("its name is taken"));
        }
        let next_mailbox = create.mailbox.checked_add(1).ok_or_else(|| misfit("no numbers are left"))?;
        let base = self.base_mut();
        base.next_mailbox = next_mailbox;
        base.last_uid_validity = create.uid_validity;
        let root = MailboxRoot {
            id: create.mailbox,
            name: create.name.clone(),
            role: create.role,
            uid_validity,
            uid_next: 1,
            messages: 0,
            unseen: 0,
            deleted: 0,
            size: 0,
            highest_modseq: seq,
            keywords: Marks::EMPTY,
        };
        let state = MailboxState { root, index: MailboxIndex::default() };
        Arc::make_mut(&mut self.mailboxes).insert(create.mailbox, Arc::new(state));
        Ok(())
    }

    fn delete_mailbox(&mut self, seq: u64, mailbox: u32) -> Result<(), FoldError> {
        let known = Arc::make_mut(&mut self.mailboxes).remove(&mailbox);
        let known = known.ok_or_else(|| FoldError::new(seq, "there is no such mailbox"))?;
        if known.root.messages > 0 {
            return Err(FoldError::new(seq, "the mailbox is not empty"));
        }
        if self.sort_orders.contains_key(&mailbox) {
            Arc::make_mut(&mut self.sort_orders).remove(&mailbox);
        }
        if known.index.has_pending() {
            Arc::make_mut(&mut self.ghosts).insert(mailbox, known);
        }
        Ok(())
    }

    fn page_messages(&self) -> usize {
        usize::from(self.base.layout.index_messages).clamp(1, crate::page::MESSAGES_MAX)
    }

    fn base_mut(&mut self) -> &mut Base {
        Arc::make_mut(&mut self.base)
    }

    fn mailbox_mut(&mut self, seq: u64, mailbox: u32) -> Result<&mut MailboxState, FoldError> {
        Arc::make_mut(&mut self.mailboxes)
            .get_mut(&mailbox)
            .map(Arc::make_mut)
            .ok_or_else(|| FoldError::new(seq, "there is no such mailbox"))
    }
}

impl From<&MessageRow> for PlacedRow {
    fn from(row: &MessageRow) -> Self {
        Self {
            email: row.email.0,
            thread: row.thread.0,
            marks: row.marks,
            size: row.size,
            internal_date: row.internal_date.packed(),
        }
    }
}
