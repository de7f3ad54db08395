//! An account by email instead of by mailbox: what JMAP shows of it (RFC 8621), where IMAP shows messages.
//!
//! A view belongs to one state and never changes; it says the same as that state's indexes, in another order. It is made
//! from them alone, no record and no body is read, and brought forward from one state to the next by looking at index
//! pages that are not the same, so that what has not changed costs nothing. What it holds beside those pages are four
//! ordered sets of ids; everything else is read from the message's row.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashSet};
use std::sync::Arc;

use engine::{PartPages, State};
use mail::flag::Flag;
use mail::id::{EmailId, MailboxId, ModSeq, ThreadId, Uid};

use crate::account::Account;
use crate::date::InternalDate;
use crate::error::StorageError;
use crate::index::MessageRow;
use crate::marks::Marks;
use crate::ordered::Ordered;
use crate::state::{AccountState, Part};

/// A change of more rows than this, or of an eighth of all, is not followed row by row: the view is made anew.
const FOLLOWED_ROWS_MIN: usize = 2_000;
/// A view of more messages than this is made aside, not on a thread that serves connections.
const ASIDE_ROWS: usize = 5_000;
/// How often the account may change while its indexes are being loaded.
const LOADS_MAX: usize = 20;

/// An email in its mailboxes.
type PlaceKey = (u64, u32, u32);
/// A thread and an email of it.
type ThreadKey = (u64, u64);
/// A mailbox and an email in it, by when it was received.
type ReceivedKey = (u32, i64, u64);

/// An account by email, at one state.
#[derive(Clone, Debug)]
pub struct EmailView {
    state: Arc<AccountState>,
    places: Ordered<PlaceKey>,
    threads: Ordered<ThreadKey>,
    received: Ordered<ReceivedKey>,
    counts: Arc<BTreeMap<u32, MailboxCounts>>,
}

/// An email, as all its messages together show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ViewedEmail {
    /// Its number.
    pub id: EmailId,
    /// Its thread.
    pub thread: ThreadId,
    /// Octets in all.
    pub size: u32,
    /// When it was received: the internal date of its messages, which is the same for all.
    pub received: InternalDate,
    /// Flags and keywords that are set on any of its messages; `\Seen` only if on all.
    pub marks: Marks,
    /// Where it is: ascending by mailbox, at most once in each.
    pub places: Vec<(MailboxId, Uid)>,
}

/// How much a mailbox holds (RFC 8621 §2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MailboxCounts {
    /// Emails in it.
    pub total_emails: u32,
    /// Those of them that are neither seen nor drafts.
    pub unread_emails: u32,
    /// Threads with an email in it.
    pub total_threads: u32,
    /// Those of them with an email, wherever it is, that is neither seen nor a draft.
    pub unread_threads: u32,
}

impl ViewedEmail {
    /// Whether it counts as unread: neither seen nor a draft (RFC 8621 §2).
    pub fn is_unread(&self) -> bool {
        !self.marks.has(Flag::Seen) && !self.marks.has(Flag::Draft)
    }

    /// The mailboxes that it is in.
    pub fn mailboxes(&self) -> impl Iterator<Item = MailboxId> {
        self.places.iter().map(|(mailbox, _)| *mailbox)
    }
}

impl EmailView {
    /// The state that it shows. All indexes are loaded in it.
    pub fn state(&self) -> &Arc<AccountState> {
        &self.state
    }

    /// The last operation of that state.
    pub fn modseq(&self) -> ModSeq {
        self.state.modseq()
    }

    /// An email. `None`: it is in no mailbox.
    pub fn email(&self, email: EmailId) -> Option<ViewedEmail> {
        let mut rows = self.rows(email);
        let (mailbox, first) = rows.next()?;
        let mut places = vec![(mailbox, first.uid)];
        let (mut any, mut all) = (first.marks, first.marks);
        for (mailbox, row) in rows {
            places.push((mailbox, row.uid));
            any = any.union(row.marks);
            all = all.intersection(row.marks);
        }
        let seen = Marks::from_flags(Flag::Seen.into());
        let marks = any.difference(seen).union(all.intersection(seen)).visible();
        let (thread, size, received) = (first.thread, first.size, first.internal_date);
        Some(ViewedEmail { id: email, thread, size, received, marks, places })
    }

    /// Whether an email is in some mailbox.
    pub fn contains(&self, email: EmailId) -> bool {
        self.places_of(email.0).next().is_some()
    }

    /// The messages that an email is, with their mailboxes.
    pub fn rows(&self, email: EmailId) -> impl Iterator<Item = (MailboxId, MessageRow)> + '_ {
        self.places_of(email.0).filter_map(|(_, mailbox, uid)| {
            let row = self.state.index(MailboxId(mailbox))?.by_uid(Uid::new(uid)?)?;
            Some((MailboxId(mailbox), row))
        })
    }

    /// The emails of a thread, those received first at the beginning (RFC 8621 §3). `None`: there is none.
    pub fn thread(&self, thread: ThreadId) -> Option<Vec<EmailId>> {
        let emails = self.thread_emails(thread.0);
        let received =
            |email| self.rows(EmailId(email)).next().map(|(_, row)| row.internal_date.unix_seconds());
        let mut emails: Vec<(Option<i64>, u64)> = emails.map(|email| (received(email), email)).collect();
        emails.sort_unstable();
        (!emails.is_empty()).then(|| emails.into_iter().map(|(_, email)| EmailId(email)).collect())
    }

    /// All emails, ascending by number.
    pub fn emails(&self) -> impl DoubleEndedIterator<Item = EmailId> + '_ {
        // By thread they are found once each, by place once for each mailbox.
        let mut last = None;
        let mut ids: Vec<u64> = Vec::with_capacity(self.threads.len());
        for (email, ..) in self.places.iter() {
            if last.replace(email) != Some(email) {
                ids.push(email);
            }
        }
        ids.into_iter().map(EmailId)
    }

    /// Number of emails.
    pub fn len(&self) -> usize {
        self.threads.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The emails in a mailbox, those received first at the beginning, and among those received at once by number.
    pub fn received_in(&self, mailbox: MailboxId) -> impl DoubleEndedIterator<Item = EmailId> + '_ {
        let all = (mailbox.0, i64::MIN, 0)..=(mailbox.0, i64::MAX, u64::MAX);
        self.received.range(all).map(|(_, _, email)| EmailId(email))
    }

    /// All emails, those received last at the beginning. Takes as much work as is asked of it.
    pub fn received_last(&self) -> impl Iterator<Item = EmailId> + '_ {
        let mut mailboxes: Vec<_> = (self.state.mailboxes.keys())
            .map(|id| self.received.range((*id, i64::MIN, 0)..=(*id, i64::MAX, u64::MAX)).rev())
            .collect();
        let mut heads = BinaryHeap::new();
        for (at, mailbox) in mailboxes.iter_mut().enumerate() {
            heads.extend(mailbox.next().map(|(_, received, email)| (received, email, at)));
        }
        let mut last = None;
        std::iter::from_fn(move || {
            loop {
                let (received, email, at) = heads.pop()?;
                heads.extend(mailboxes[at].next().map(|(_, received, email)| (received, email, at)));
                if last.replace((received, email)) != Some((received, email)) {
                    return Some(EmailId(email));
                }
            }
        })
    }

    /// All emails, those received first at the beginning. Takes as much work as is asked of it.
    pub fn received_first(&self) -> impl Iterator<Item = EmailId> + '_ {
        let mut mailboxes: Vec<_> = (self.state.mailboxes.keys())
            .map(|id| self.received.range((*id, i64::MIN, 0)..=(*id, i64::MAX, u64::MAX)))
            .collect();
        let mut heads = BinaryHeap::new();
        for (at, mailbox) in mailboxes.iter_mut().enumerate() {
            heads.extend(mailbox.next().map(|(_, received, email)| Reverse((received, email, at))));
        }
        let mut last = None;
        std::iter::from_fn(move || {
            loop {
                let Reverse((received, email, at)) = heads.pop()?;
                heads.extend(mailboxes[at].next().map(|(_, received, email)| Reverse((received, email, at))));
                if last.replace((received, email)) != Some((received, email)) {
                    return Some(EmailId(email));
                }
            }
        })
    }

    /// How much a mailbox holds. `None`: there is no such mailbox.
    pub fn counts(&self, mailbox: MailboxId) -> Option<MailboxCounts> {
        self.state.mailboxes.contains_key(&mailbox.0).then(|| self.own_counts(mailbox.0))
    }

    /// Bytes in memory, with the index pages, which it may share with the account.
    pub fn weight(&self) -> usize {
        let indexes: usize = self.state.mailboxes.values().map(|mailbox| mailbox.index.weight()).sum();
        self.places.weight() + self.threads.weight() + self.received.weight() + indexes + 1024
    }

    fn own_counts(&self, mailbox: u32) -> MailboxCounts {
        self.counts.get(&mailbox).copied().unwrap_or_default()
    }

    fn places_of(&self, email: u64) -> impl Iterator<Item = PlaceKey> + '_ {
        self.places.range((email, 0, 0)..=(email, u32::MAX, u32::MAX))
    }

    pub(crate) fn thread_emails(&self, thread: u64) -> impl Iterator<Item = u64> + '_ {
        self.threads.range((thread, 0)..=(thread, u64::MAX)).map(|(_, email)| email)
    }
}

/// Making and following.
impl EmailView {
    /// The view of a state. `Err`: what must be loaded for it.
    pub(crate) fn of(state: &Arc<AccountState>) -> Result<Self, Vec<Part>> {
        let missing = missing_indexes(state);
        if !missing.is_empty() {
            return Err(missing);
        }
        let rows: usize = state.mailboxes.values().map(|mailbox| mailbox.index.len()).sum();
        let (mut places, mut threads, mut received) =
            (Vec::with_capacity(rows), Vec::with_capacity(rows), Vec::with_capacity(rows));
        for (id, mailbox) in &*state.mailboxes {
            for row in mailbox.index.iter() {
                places.push(place_key(*id, &row));
                threads.push((row.thread.0, row.email.0));
                received.push(received_key(*id, &row));
            }
        }
        let mut view = Self {
            state: state.clone(),
            places: Ordered::of(places),
            threads: Ordered::of(threads),
            received: Ordered::of(received),
            counts: Arc::default(),
        };
        let threads: Vec<u64> = {
            let mut all: Vec<u64> = view.threads.iter().map(|(thread, _)| thread).collect();
            all.dedup();
            all
        };
        let mut counts = BTreeMap::new();
        for thread in threads {
            view.count(thread, &mut counts, u32::wrapping_add);
        }
        view.counts = Arc::new(counts);
        Ok(view)
    }

    /// The view of a later state of the same account. `Err`: what must be loaded for it.
    pub(crate) fn followed_to(&self, state: &Arc<AccountState>) -> Result<Self, Vec<Part>> {
        let missing = missing_indexes(state);
        if !missing.is_empty() {
            return Err(missing);
        }
        let mut gone: Vec<(u32, MessageRow)> = Vec::new();
        let mut come: Vec<(u32, MessageRow)> = Vec::new();
        // Flags alone: places stay as they are.
        let mut marked: HashSet<u64> = HashSet::new();
        for (id, earlier) in &*self.state.mailboxes {
            let Some(later) = state.mailboxes.get(id) else {
                gone.extend(earlier.index.iter().map(|row| (*id, row)));
                continue;
            };
            // Every change of a mailbox's messages gives it another MODSEQ.
            if earlier.root.highest_modseq == later.root.highest_modseq {
                continue;
            }
            let (old, new) = later.index.rows_apart(&earlier.index);
            let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
            loop {
                match (old.peek(), new.peek()) {
                    (None, None) => break,
                    (Some(before), Some(after)) if before.uid == after.uid => {
                        if before.marks.visible() != after.marks.visible() {
                            marked.insert(after.email.0);
                        }
                        old.next();
                        new.next();
                    }
                    (Some(before), after) if after.is_none_or(|after| before.uid < after.uid) => {
                        gone.extend(old.next().map(|row| (*id, row)));
                    }
                    _ => come.extend(new.next().map(|row| (*id, row))),
                }
            }
        }
        for (id, later) in &*state.mailboxes {
            if !self.state.mailboxes.contains_key(id) {
                come.extend(later.index.iter().map(|row| (*id, row)));
            }
        }
        let changed = gone.len() + come.len() + marked.len();
        if changed > FOLLOWED_ROWS_MIN && changed > self.places.len() / 8 {
            return Self::of(state);
        }
        let mut view = Self { state: state.clone(), ..self.clone() };
        let mut touched: BTreeSet<u64> = gone.iter().chain(&come).map(|(_, row)| row.thread.0).collect();
        touched.extend(marked.iter().filter_map(|email| self.thread_of(*email)));
        for (mailbox, row) in &gone {
            view.places.remove(&place_key(*mailbox, row));
            view.received.remove(&received_key(*mailbox, row));
        }
        for (mailbox, row) in &come {
            view.places.insert(place_key(*mailbox, row));
            view.received.insert(received_key(*mailbox, row));
            view.threads.insert((row.thread.0, row.email.0));
        }
        for (_, row) in &gone {
            if view.places_of(row.email.0).next().is_none() {
                view.threads.remove(&(row.thread.0, row.email.0));
            }
        }
        if !touched.is_empty() {
            let mut counts = BTreeMap::clone(&self.counts);
            for thread in &touched {
                self.count(*thread, &mut counts, u32::wrapping_sub);
            }
            for thread in &touched {
                view.count(*thread, &mut counts, u32::wrapping_add);
            }
            counts.retain(|id, _| state.mailboxes.contains_key(id));
            view.counts = Arc::new(counts);
        }
        Ok(view)
    }

    /// Counts a thread, or takes back that it was counted.
    fn count(&self, thread: u64, counts: &mut BTreeMap<u32, MailboxCounts>, by: fn(u32, u32) -> u32) {
        let mut mailboxes: Vec<u32> = Vec::new();
        let mut is_unread = false;
        for email in self.thread_emails(thread) {
            let Some(email) = self.email(EmailId(email)) else { continue };
            is_unread |= email.is_unread();
            for mailbox in email.mailboxes() {
                let counts = counts.entry(mailbox.0).or_default();
                counts.total_emails = by(counts.total_emails, 1);
                counts.unread_emails = by(counts.unread_emails, u32::from(email.is_unread()));
                if !mailboxes.contains(&mailbox.0) {
                    mailboxes.push(mailbox.0);
                }
            }
        }
        for mailbox in mailboxes {
            let counts = counts.entry(mailbox).or_default();
            counts.total_threads = by(counts.total_threads, 1);
            counts.unread_threads = by(counts.unread_threads, u32::from(is_unread));
        }
    }

    pub(crate) fn thread_of(&self, email: u64) -> Option<u64> {
        self.rows(EmailId(email)).next().map(|(_, row)| row.thread.0)
    }
}

fn place_key(mailbox: u32, row: &MessageRow) -> PlaceKey {
    (row.email.0, mailbox, row.uid.get())
}

fn received_key(mailbox: u32, row: &MessageRow) -> ReceivedKey {
    (mailbox, row.internal_date.unix_seconds(), row.email.0)
}

/// Indexes that are not loaded.
fn missing_indexes(state: &AccountState) -> Vec<Part> {
    let parts = state.mailboxes.keys().map(|id| Part::Mailbox(MailboxId(*id)));
    parts.filter(|part| state.pages_of(part) != PartPages::Loaded).collect()
}

/// The view of an account that was made last, beside its lock: whoever needs a newer one makes it, the others wait.
pub(crate) type ViewSlot = Arc<tokio::sync::Mutex<Option<Arc<EmailView>>>>;

impl Account {
    /// The account by email, as new as this node has folded.
    pub async fn view(&self) -> Result<Arc<EmailView>, StorageError> {
        self.view_of(self.state()).await
    }

    /// As [`Account::view`], after a look whether another node has committed something.
    pub async fn refresh_view(&self) -> Result<Arc<EmailView>, StorageError> {
        let state = self.refresh().await?;
        self.view_of(state).await
    }

    /// The view of this state or of a later one.
    pub(crate) async fn view_of(&self, mut state: Arc<AccountState>) -> Result<Arc<EmailView>, StorageError> {
        let slot = self.storage.view_slot(self.id());
        let mut known = slot.lock().await;
        for _ in 0..LOADS_MAX {
            if let Some(view) = known.as_ref().filter(|view| view.modseq() >= state.modseq()) {
                return Ok(view.clone());
            }
            let missing = missing_indexes(&state);
            if !missing.is_empty() {
                state = self.log.with(&missing).await?;
                continue;
            }
            let messages: u32 = state.mailboxes.values().map(|mailbox| mailbox.root.messages).sum();
            let earlier = known.clone();
            let make = move || match earlier {
                Some(earlier) => earlier.followed_to(&state),
                None => EmailView::of(&state),
            };
            let made = if messages as usize > ASIDE_ROWS {
                tokio::task::spawn_blocking(make)
                    .await
                    .map_err(|error| StorageError::Unavailable(format!("a view was not made: {error}")))?
            } else {
                make()
            };
            match made {
                Ok(view) => {
                    let view = Arc::new(view);
                    *known = Some(view.clone());
                    drop(known);
                    self.storage.keep_view(self.id(), slot, &view);
                    return Ok(view);
                }
                Err(parts) => state = self.log.with(&parts).await?,
            }
        }
        Err(StorageError::Unavailable("the account changes too fast".to_owned()))
    }
}
