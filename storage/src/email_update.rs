//! Changing emails wherever they are: keywords and mailboxes of many at once, and destroying them (RFC 8621 §4.6).
//!
//! What JMAP changes of an email is changed of all its messages. Where an email goes from one mailbox to another it is
//! moved, so that IMAP sees a MOVE; where it comes to a mailbox too it is copied, and stays the same email. Its keywords
//! do not change by that: where its messages had different ones, they are made alike first.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use mail::flag::{Flag, FlagSet, Keyword};
use mail::id::{EmailId, MailboxId};

use crate::account::Account;
use crate::compose::Since;
use crate::draft::{Draft, Refusal};
use crate::entry::{CopyMessages, FlagsChanged, MoveMessages, Operation, Placed, PlacedRow, Tally};
use crate::error::StorageError;
use crate::expunge::{MESSAGES_PER_OPERATION, expunge_emails, forget_excess};
use crate::flags;
use crate::index::{MarkedRow, MessageRow};
use crate::marks::{KEYWORDS_MAX, Marks};
use crate::state::AccountState;
use crate::store::unix_now;
use crate::view::EmailView;

/// Octets of operations that one commit may have, below the limit of 256 KiB.
const COMMIT_BYTES: usize = 180 << 10;
/// What a change of an email takes in operations of its own, at most.
const EMAIL_BYTES: usize = 72;
/// What a row takes in an operation that puts it into a mailbox.
const ROW_BYTES: usize = 40;
/// Rows that one operation puts into a mailbox.
const ROWS_PER_OPERATION: usize = (28 << 10) / ROW_BYTES;
/// Emails that one commit destroys.
const DESTROYED_PER_COMMIT: usize = 8_000;

/// How the keywords of an email change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeywordsPatch {
    /// These and no others. `\Deleted`, which JMAP does not know, stays as it is.
    Replace(FlagSet),
    /// Some come, some go, the others stay.
    Change {
        /// Set.
        add: FlagSet,
        /// Cleared.
        remove: FlagSet,
    },
}

/// How the mailboxes of an email change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MailboxesPatch {
    /// These and no others.
    Replace(BTreeSet<MailboxId>),
    /// It comes into some, leaves some, and stays in the others.
    Change {
        /// Comes into.
        add: BTreeSet<MailboxId>,
        /// Leaves.
        remove: BTreeSet<MailboxId>,
    },
}

/// How an email is to change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EmailUpdate {
    /// Which.
    pub email: EmailId,
    /// Its keywords.
    pub keywords: Option<KeywordsPatch>,
    /// Its mailboxes.
    pub mailboxes: Option<MailboxesPatch>,
}

/// Why one email was not changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EmailUpdateError {
    /// It is in no mailbox.
    #[error("no such email")]
    NotFound,
    /// It was named twice.
    #[error("the email was named before")]
    Twice,
    /// The account cannot have more keywords.
    #[error("too many keywords")]
    TooManyKeywords,
    /// The account has no room for more copies.
    #[error("over quota")]
    OverQuota,
    /// There is no such mailbox.
    #[error("no such mailbox: {0}")]
    NoMailbox(MailboxId),
    /// It would be in no mailbox any more.
    #[error("an email is in one mailbox at least")]
    Nowhere,
    /// A mailbox has given out all its UIDs.
    #[error("the mailbox has no UIDs left")]
    NoUids,
    /// Trouble below, in a later of several commits.
    #[error(transparent)]
    Storage(StorageError),
}

/// Emails were changed.
#[derive(Clone, Debug)]
pub struct EmailsChanged {
    /// The state of emails before.
    pub old_state: Since,
    /// The state of emails after it.
    pub new_state: Since,
    /// For each, in the order asked for.
    pub results: Vec<Result<(), EmailUpdateError>>,
}

/// Why nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChangeEmailsError {
    /// The state is not the one that was named (RFC 8620 §5.3 `stateMismatch`).
    #[error("the state is another")]
    StateMismatch,
    /// Trouble below.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl AccountState {
    /// The state of emails, as [`Account::email_changes`] takes it.
    pub fn emails_state(&self) -> Since {
        Since::operation(self.latest.emails)
    }

    /// The state of threads.
    pub fn threads_state(&self) -> Since {
        Since::operation(self.latest.threads)
    }

    /// The state of mailboxes.
    pub fn mailboxes_state(&self) -> Since {
        Since::operation(self.latest.mailboxes)
    }
}

impl Account {
    /// Changes emails, each on its own: one that is refused does not hold back the others. Some thousand go into one
    /// commit; the state is compared before the first.
    pub async fn update_emails(
        &self,
        updates: Vec<EmailUpdate>,
        if_in_state: Option<Since>,
    ) -> Result<EmailsChanged, ChangeEmailsError> {
        let mut pieces: Vec<Vec<EmailUpdate>> = vec![Vec::new()];
        let mut bytes = 0;
        for update in updates {
            bytes += update.bytes();
            if bytes > COMMIT_BYTES {
                pieces.push(Vec::new());
                bytes = update.bytes();
            }
            pieces.last_mut().expect("there is one from the start").push(update);
        }
        let now = unix_now();
        self.change_emails(pieces, if_in_state, move |draft, view, updates| update(draft, view, updates, now))
            .await
    }

    /// Takes emails out of all mailboxes. Some thousand go in one commit; the state is compared before the first.
    pub async fn destroy_emails(
        &self,
        emails: Vec<EmailId>,
        if_in_state: Option<Since>,
    ) -> Result<EmailsChanged, ChangeEmailsError> {
        let mut pieces: Vec<Vec<EmailId>> =
            emails.chunks(DESTROYED_PER_COMMIT).map(<[EmailId]>::to_vec).collect();
        if pieces.is_empty() {
            pieces.push(Vec::new());
        }
        self.change_emails(pieces, if_in_state, destroy).await
    }

    /// One commit for each piece.
    async fn change_emails<T, F>(
        &self,
        pieces: Vec<Vec<T>>,
        if_in_state: Option<Since>,
        change: F,
    ) -> Result<EmailsChanged, ChangeEmailsError>
    where
        T: Send + Sync + 'static,
        F: Fn(&mut Draft, &EmailView, &[T]) -> Results + Clone + Send + 'static,
    {
        let mut all: Option<EmailsChanged> = None;
        for piece in pieces {
            let count = piece.len();
            let (piece, change) = (Arc::new(piece), change.clone());
            let (view, config) = (self.view().await?, self.storage.config().clone());
            let condition = if_in_state.filter(|_| all.is_none());
            let build = move |state: &AccountState| -> Result<_, Refusal<ChangeEmailsError>> {
                let mut draft = Draft::new::<ChangeEmailsError>(state)?;
                let old_state = state.emails_state();
                if condition.is_some_and(|wanted| wanted != old_state) {
                    return Err(ChangeEmailsError::StateMismatch.into());
                }
                let view = view.followed_to(&Arc::new(state.clone())).map_err(Refusal::Load)?;
                let before = draft.last();
                let results = change(&mut draft, &view, &piece);
                let mut new_state = old_state;
                if draft.last() > before {
                    new_state = Since::operation(draft.last());
                    forget_excess(&mut draft, state, &config);
                }
                Ok(draft.build(EmailsChanged { old_state, new_state, results }))
            };
            match (self.commit(Vec::new(), build).await, &mut all) {
                (Ok(committed), None) => all = Some(committed.answer),
                (Ok(committed), Some(all)) => {
                    all.new_state = committed.answer.new_state;
                    all.results.extend(committed.answer.results);
                }
                // What was committed before stays; of these the caller is told.
                (Err(ChangeEmailsError::Storage(error)), Some(all)) => {
                    let failed = || Err(EmailUpdateError::Storage(error.clone()));
                    all.results.extend(std::iter::repeat_with(failed).take(count));
                }
                (Err(error), _) => return Err(error),
            }
        }
        all.ok_or_else(|| StorageError::Unavailable("nothing was asked for".to_owned()).into())
    }
}

impl EmailUpdate {
    /// About what it takes in operations.
    fn bytes(&self) -> usize {
        let mailboxes = match &self.mailboxes {
            None => 0,
            Some(MailboxesPatch::Replace(mailboxes)) => mailboxes.len(),
            Some(MailboxesPatch::Change { add, remove }) => add.len() + remove.len(),
        };
        EMAIL_BYTES + mailboxes * (ROW_BYTES + 8)
    }
}

type Results = Vec<Result<(), EmailUpdateError>>;

/// Keywords by number, those too that get theirs by this commit.
struct Keywords<'a> {
    known: &'a [Keyword],
    named: Vec<Keyword>,
}

impl Keywords<'_> {
    /// Flags as marks, without naming any that has no number.
    fn known(&self, flags: &FlagSet) -> Marks {
        let numbers = flags.keywords.iter().filter_map(|keyword| self.number(keyword));
        numbers.map(Marks::from_keyword).fold(Marks::from_flags(flags.flags), Marks::union)
    }

    /// Flags as marks; keywords that have no number get one.
    fn marks(&mut self, flags: &FlagSet) -> Result<Marks, EmailUpdateError> {
        let new = flags.keywords.iter().filter(|keyword| self.number(keyword).is_none()).count();
        if self.known.len() + self.named.len() + new > KEYWORDS_MAX {
            return Err(EmailUpdateError::TooManyKeywords);
        }
        for keyword in &flags.keywords {
            if self.number(keyword).is_none() {
                self.named.push(keyword.clone());
            }
        }
        Ok(self.known(flags))
    }

    fn number(&self, keyword: &Keyword) -> Option<usize> {
        self.known.iter().chain(&self.named).position(|known| known == keyword)
    }
}

/// Effects of many changes, put together by what an operation can say at once.
#[derive(Default)]
struct Effects {
    /// Mailbox, marks set, marks cleared → messages.
    marked: BTreeMap<(u32, u128, u128), Vec<MarkedRow>>,
    /// From, into → messages, as they are there and as they are to be.
    copied: BTreeMap<(u32, u32), Vec<(MessageRow, Marks)>>,
    moved: BTreeMap<(u32, u32), Vec<(MessageRow, Marks)>>,
    /// Mailbox → messages that leave it and are elsewhere.
    removed: BTreeMap<u32, Vec<MessageRow>>,
    /// Mailbox → messages that come into it.
    coming: HashMap<u32, u64>,
    /// Messages and octets that there are more, or fewer.
    messages: i64,
    bytes: i64,
}

fn update(draft: &mut Draft, view: &EmailView, updates: &[EmailUpdate], now: u32) -> Results {
    let state = view.state();
    let mut keywords = Keywords { known: state.keywords(), named: Vec::new() };
    let mut effects = Effects::default();
    let mut seen = HashSet::new();
    let results = updates
        .iter()
        .map(|update| {
            if !seen.insert(update.email) {
                return Err(EmailUpdateError::Twice);
            }
            update_one(view, update, &mut keywords, &mut effects)
        })
        .collect();
    for (number, name) in (state.keywords().len()..).zip(keywords.named) {
        draft.push(Operation::KeywordNamed { number: number as u8, name });
    }
    effects.push(draft, state, now);
    results
}

fn update_one(
    view: &EmailView,
    update: &EmailUpdate,
    keywords: &mut Keywords<'_>,
    effects: &mut Effects,
) -> Result<(), EmailUpdateError> {
    let state = view.state();
    let rows: Vec<(MailboxId, MessageRow)> = view.rows(update.email).collect();
    let Some((_, first)) = rows.first() else { return Err(EmailUpdateError::NotFound) };
    let there: BTreeSet<MailboxId> = rows.iter().map(|(mailbox, _)| *mailbox).collect();
    let wanted = match &update.mailboxes {
        None => there.clone(),
        Some(MailboxesPatch::Replace(mailboxes)) => mailboxes.clone(),
        Some(MailboxesPatch::Change { add, remove }) => {
            let stays = there.iter().copied().filter(|mailbox| !remove.contains(mailbox));
            stays.chain(add.iter().copied()).collect()
        }
    };
    if let Some(unknown) = wanted.iter().find(|mailbox| !state.mailboxes.contains_key(&mailbox.0)) {
        return Err(EmailUpdateError::NoMailbox(*unknown));
    }
    if wanted.is_empty() {
        return Err(EmailUpdateError::Nowhere);
    }
    let added: Vec<MailboxId> = wanted.difference(&there).copied().collect();
    let left: Vec<MailboxId> = there.difference(&wanted).copied().collect();
    effects.check_room(state, &added, left.len(), first.size)?;
    let (add, remove) = match &update.keywords {
        None => (Marks::EMPTY, Marks::EMPTY),
        Some(KeywordsPatch::Replace(flags)) => {
            let set = keywords.marks(flags)?;
            let kept = Marks::from_flags(Flag::Deleted.into());
            (set, Marks::ALL.difference(set).difference(kept))
        }
        Some(KeywordsPatch::Change { add, remove }) => {
            let (add, remove) = (keywords.marks(add)?, keywords.known(remove));
            (add, remove.difference(add))
        }
    };
    // Where its messages differ, an email that comes or goes would have other keywords by that alone.
    let stays = added.is_empty() && left.is_empty();
    let (alike_add, alike_remove) = if stays { (Marks::EMPTY, Marks::EMPTY) } else { alike(&rows) };
    let add = alike_add.difference(remove).union(add);
    let remove = alike_remove.union(remove).difference(add);
    // Nothing is refused from here on.
    let row_in = |mailbox: &MailboxId| rows.iter().find(|(found, _)| found == mailbox).map(|(_, row)| *row);
    let shared = if wanted.len() > 1 { Marks::SHARED } else { Marks::EMPTY };
    // Who puts it elsewhere does not want it to go with the next EXPUNGE there.
    let deleted = Marks::from_flags(Flag::Deleted.into());
    let marks_of = |row: &MessageRow| row.marks.difference(remove.union(deleted)).union(add).union(shared);
    for (mailbox, row) in rows.iter().filter(|(mailbox, _)| wanted.contains(mailbox)) {
        if row.marks.difference(remove).union(add) != row.marks {
            let marked = MarkedRow { uid: row.uid, marks: row.marks, modseq: row.modseq };
            effects.marked.entry((mailbox.0, add.bits(), remove.bits())).or_default().push(marked);
        }
    }
    let moves = added.len().min(left.len());
    for (from, into) in left.iter().zip(&added) {
        if let Some(row) = row_in(from) {
            effects.moved.entry((from.0, into.0)).or_default().push((row, marks_of(&row)));
        }
    }
    // Copies are made before anything leaves, so whatever is there can be copied; best what stays.
    let original = rows.iter().find(|(mailbox, _)| wanted.contains(mailbox)).unwrap_or(&rows[0]);
    for into in &added[moves..] {
        let (from, row) = original;
        effects.copied.entry((from.0, into.0)).or_default().push((*row, marks_of(row)));
    }
    for mailbox in &left[moves..] {
        effects.removed.entry(mailbox.0).or_default().extend(row_in(mailbox));
    }
    for mailbox in &added {
        *effects.coming.entry(mailbox.0).or_default() += 1;
    }
    let more = added.len() as i64 - left.len() as i64;
    effects.messages += more;
    effects.bytes += more * i64::from(first.size);
    Ok(())
}

/// What makes all messages of an email have the keywords that the email has: marks to set, and marks to clear.
fn alike(rows: &[(MailboxId, MessageRow)]) -> (Marks, Marks) {
    let any = rows.iter().fold(Marks::EMPTY, |any, (_, row)| any.union(row.marks)).visible();
    let all_seen = rows.iter().all(|(_, row)| row.marks.has(Flag::Seen));
    let seen = Marks::from_flags(Flag::Seen.into());
    let any = any.difference(Marks::from_flags(Flag::Deleted.into()));
    if all_seen { (any, Marks::EMPTY) } else { (any.difference(seen), seen) }
}

impl Effects {
    fn check_room(
        &self,
        state: &AccountState,
        added: &[MailboxId],
        left: usize,
        size: u32,
    ) -> Result<(), EmailUpdateError> {
        for mailbox in added {
            let next = state.mailboxes.get(&mailbox.0).map_or(u64::MAX, |mailbox| mailbox.root.uid_next);
            let coming = self.coming.get(&mailbox.0).copied().unwrap_or(0);
            if next.saturating_add(coming) > u64::from(u32::MAX) {
                return Err(EmailUpdateError::NoUids);
            }
        }
        let more = added.len() as i64 - left as i64;
        if more > 0 {
            let messages = u64::try_from(self.messages + more).unwrap_or(0);
            let bytes = u64::try_from(self.bytes + more * i64::from(size)).unwrap_or(0);
            if !state.quota().has_room(messages, bytes) {
                return Err(EmailUpdateError::OverQuota);
            }
        }
        Ok(())
    }

    /// Says all of it in operations.
    fn push(self, draft: &mut Draft, state: &AccountState, now: u32) {
        for ((mailbox, add, remove), mut rows) in self.marked {
            let (add, remove) = (Marks::from_bits(add), Marks::from_bits(remove));
            rows.sort_unstable_by_key(|row| row.uid);
            for uids in flags::split(rows.iter().map(|row| row.uid).collect()) {
                let (unseen, deleted) = flags::deltas(&rows, &uids, add, remove);
                draft.push(Operation::Flags(FlagsChanged { mailbox, uids, add, remove, unseen, deleted }));
            }
        }
        let mut next_uids: HashMap<u32, u64> = HashMap::new();
        let mut place = |into: u32, rows: &[(MessageRow, Marks)]| {
            let known = || state.mailboxes.get(&into).map_or(1, |mailbox| mailbox.root.uid_next);
            let next = next_uids.entry(into).or_insert_with(known);
            let first_uid = *next as u32;
            *next += rows.len() as u64;
            let rows = rows.iter().map(|(row, marks)| PlacedRow { marks: *marks, ..PlacedRow::from(row) });
            Placed { mailbox: into, first_uid, saved_date: now, rows: rows.collect(), records: Vec::new() }
        };
        // Copies of one message have to find it marked as shared once.
        for ((from, into), mut rows) in self.copied {
            rows.sort_unstable_by_key(|(row, _)| row.uid);
            for rows in rows.chunks(ROWS_PER_OPERATION) {
                let alone = |row: &MessageRow| row.marks.intersection(Marks::SHARED).is_empty();
                let shared = rows.iter().filter(|(row, _)| alone(row)).map(|(row, _)| row.uid).collect();
                let placed = place(into, rows);
                draft.push(Operation::Copy(CopyMessages { from, shared, placed }));
            }
        }
        for ((from, into), mut rows) in self.moved {
            rows.sort_unstable_by_key(|(row, _)| row.uid);
            for rows in rows.chunks(ROWS_PER_OPERATION) {
                let mut tally = Tally::default();
                for (row, _) in rows {
                    tally.add(row.marks, row.size);
                }
                let uids = rows.iter().map(|(row, _)| row.uid).collect();
                let placed = place(into, rows);
                draft.push(Operation::Move(MoveMessages { from, uids, tally, placed }));
            }
        }
        for (mailbox, mut rows) in self.removed {
            rows.sort_unstable_by_key(|row| row.uid);
            for rows in rows.chunks(MESSAGES_PER_OPERATION) {
                draft.push(Operation::ExpungeEmails(expunge_emails(MailboxId(mailbox), rows, |_| true)));
            }
        }
    }
}

fn destroy(draft: &mut Draft, view: &EmailView, emails: &[EmailId]) -> Results {
    let mut by_mailbox: BTreeMap<MailboxId, Vec<MessageRow>> = BTreeMap::new();
    let mut last: HashMap<u64, MailboxId> = HashMap::new();
    let results = emails
        .iter()
        .map(|email| {
            if last.contains_key(&email.0) {
                return Err(EmailUpdateError::Twice);
            }
            for (mailbox, row) in view.rows(*email) {
                by_mailbox.entry(mailbox).or_default().push(row);
                last.insert(email.0, mailbox);
            }
            if last.contains_key(&email.0) { Ok(()) } else { Err(EmailUpdateError::NotFound) }
        })
        .collect();
    // Mailbox after mailbox: an email is gone when it leaves the last.
    for (mailbox, mut rows) in by_mailbox {
        rows.sort_unstable_by_key(|row| row.uid);
        for rows in rows.chunks(MESSAGES_PER_OPERATION) {
            let is_elsewhere = |email: u64| last.get(&email) != Some(&mailbox);
            draft.push(Operation::ExpungeEmails(expunge_emails(mailbox, rows, is_elsewhere)));
        }
    }
    results
}
