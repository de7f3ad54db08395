//! What has changed among emails, threads and mailboxes since a state (RFC 8621 §2.2, §3.2, §4.3).
//!
//! Nothing is compared with how it was: what is there says by its MODSEQ when it last changed, and the history says what
//! left no such trace. An answer takes work for what has changed, not for what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mail::id::{EmailId, MailboxId, ModSeq, ThreadId};

use crate::account::Account;
use crate::compose::{ChangeSet, ChangesError, Event, Events, Since};
use crate::error::StorageError;
use crate::history::HistoryTrace;
use crate::state::{AccountState, Part};
use crate::view::EmailView;

/// How often the account may change while what is needed is being loaded.
const LOADS_MAX: usize = 20;

type History<'a> = Vec<(u64, &'a HistoryTrace)>;

/// What has changed among mailboxes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailboxChanges {
    /// Which.
    pub changes: ChangeSet<MailboxId>,
    /// Of none that are updated anything has changed but how much it holds (RFC 8621 §2.2 `updatedProperties`).
    pub only_counts: bool,
}

impl Account {
    /// What has changed among emails since a state, at most so many of them.
    pub async fn email_changes(
        &self,
        since: Since,
        at_most: usize,
    ) -> Result<ChangeSet<EmailId>, ChangesError> {
        let (state, view) = self.changed(since).await?;
        let latest = state.latest.emails;
        let Some(history) = state.history_since(since, latest)? else {
            return Ok(ChangeSet::nothing(since.max(Since::operation(latest))));
        };
        let mut events = Events::default();
        created_and_destroyed(&state, &history, |seq, email, _, event| events.push(seq, email, event));
        view.changed_since(since, &history, |seq, email| events.push(seq, email, Event::Changed));
        let changes = events.compose(since, latest, at_most, |_, _| {});
        Ok(changes.map(EmailId))
    }

    /// What has changed among threads since a state, at most so many of them: which emails are in them.
    pub async fn thread_changes(
        &self,
        since: Since,
        at_most: usize,
    ) -> Result<ChangeSet<ThreadId>, ChangesError> {
        let (state, view) = self.changed(since).await?;
        let latest = state.latest.threads;
        let Some(history) = state.history_since(since, latest)? else {
            return Ok(ChangeSet::nothing(since.max(Since::operation(latest))));
        };
        // Threads of emails that have come and gone again are said where they go.
        let mut gone: BTreeMap<u64, u64> = BTreeMap::new();
        created_and_destroyed(&state, &history, |_, email, thread, _| {
            gone.extend(thread.map(|thread| (email, thread)));
        });
        let mut by_thread: BTreeMap<u64, Vec<(u64, Event)>> = BTreeMap::new();
        created_and_destroyed(&state, &history, |seq, email, _, event| {
            if let Some(thread) = gone.get(&email).copied().or_else(|| view.thread_of(email)) {
                by_thread.entry(thread).or_default().push((seq, event));
            }
        });
        let mut events = Events::default();
        for (thread, changes) in by_thread {
            let is = |wanted: Event| changes.iter().filter(|(_, event)| *event == wanted).count();
            let now = view.thread_emails(thread).count();
            let mut emails = (now + is(Event::Destroyed)).saturating_sub(is(Event::Created));
            for (seq, event) in changes {
                let was_empty = emails == 0;
                if event == Event::Created {
                    emails += 1;
                } else {
                    emails = emails.saturating_sub(1);
                }
                let event = match (was_empty, emails == 0) {
                    (true, false) => Event::Created,
                    (false, true) => Event::Destroyed,
                    _ => Event::Changed,
                };
                events.push(seq, thread, event);
            }
        }
        Ok(events.compose(since, latest, at_most, |_, _| {}).map(ThreadId))
    }

    /// What has changed among mailboxes since a state, at most so many of them.
    pub async fn mailbox_changes(
        &self,
        since: Since,
        at_most: usize,
    ) -> Result<MailboxChanges, ChangesError> {
        let (state, view) = self.changed(since).await?;
        let latest = state.latest.mailboxes;
        let Some(history) = state.history_since(since, latest)? else {
            let changes = ChangeSet::nothing(since.max(Since::operation(latest)));
            return Ok(MailboxChanges { changes, only_counts: true });
        };
        let mut events = Events::default();
        let mut beside_counts: BTreeSet<(u64, u32)> = BTreeSet::new();
        for (seq, trace) in &history {
            match trace {
                HistoryTrace::MailboxCreated { mailbox } => events.push(*seq, *mailbox, Event::Created),
                HistoryTrace::MailboxDestroyed { mailbox } => events.push(*seq, *mailbox, Event::Destroyed),
                HistoryTrace::MailboxesChanged { mailboxes } => {
                    for mailbox in mailboxes {
                        events.push(*seq, *mailbox, Event::Changed);
                        beside_counts.insert((*seq, *mailbox));
                    }
                }
                _ => {}
            }
        }
        for (mailbox, seq) in view.counts_changed(since, &history) {
            // What lies after the last change of mailboxes changed nothing of them; what was before it did.
            events.push(seq.min(latest), mailbox, Event::Changed);
        }
        let mut only_counts = true;
        let changes = events.compose(since, latest, at_most, |mailbox, seq| {
            only_counts &= !beside_counts.contains(&(seq, *mailbox));
        });
        Ok(MailboxChanges { changes: changes.map(MailboxId), only_counts })
    }

    /// A state with the history since another, and its view.
    async fn changed(&self, since: Since) -> Result<(Arc<AccountState>, Arc<EmailView>), ChangesError> {
        let mut state = self.state();
        if since.seq() > state.seq {
            // Another node has told it.
            state = self.refresh().await?;
        }
        if since.seq() > state.seq {
            return Err(ChangesError::Forgotten);
        }
        for _ in 0..LOADS_MAX {
            let is_remembered = since.needs() >= state.history.horizon();
            let part = Part::HistorySince(since.needs().max(state.history.horizon()));
            if is_remembered {
                state = self.log.with(&[part]).await.map_err(StorageError::from)?;
            }
            let view = self.view_of(state.clone()).await?;
            if view.modseq() == state.modseq() {
                return Ok((state, view));
            }
            // The view is newer.
            state = self.state();
        }
        Err(StorageError::Unavailable("the account changes too fast".to_owned()).into())
    }
}

/// Emails that came to be and that went, each with its thread where that is known, in order.
fn created_and_destroyed(
    state: &AccountState,
    history: &History<'_>,
    mut each: impl FnMut(u64, u64, Option<u64>, Event),
) {
    let created = history.iter().map(|(_, trace)| match trace {
        HistoryTrace::EmailsCreated { count } => u64::from(*count),
        _ => 0,
    });
    // Numbers are given out one after the other.
    let mut next = state.base.next_email.saturating_sub(created.sum());
    for (seq, trace) in history {
        match trace {
            HistoryTrace::EmailsCreated { count } => {
                for _ in 0..*count {
                    each(*seq, next, None, Event::Created);
                    next += 1;
                }
            }
            HistoryTrace::EmailsGone { destroyed, threads, .. } => {
                for (email, above) in destroyed.iter().zip(threads) {
                    each(*seq, *email, Some(email.wrapping_sub(*above)), Event::Destroyed);
                }
            }
            _ => {}
        }
    }
}

impl EmailView {
    /// Emails that are in a mailbox and whose messages changed after a state, or which left one of their mailboxes.
    fn changed_since(&self, since: Since, history: &History<'_>, mut each: impl FnMut(u64, u64)) {
        let after = ModSeq(since.needs());
        for mailbox in self.state().mailboxes.values() {
            if mailbox.root.highest_modseq > after.0 {
                for row in mailbox.index.rows_since(after) {
                    each(row.modseq.0, row.email.0);
                }
            }
        }
        for (seq, trace) in history {
            if let HistoryTrace::EmailsGone { left, .. } = trace {
                for email in left {
                    each(*seq, *email);
                }
            }
        }
    }

    /// Mailboxes whose counts may have changed after a state, and by which operation the last time: those whose messages
    /// have, and those with an email of a thread in which an email has been read, or has come or gone, elsewhere.
    fn counts_changed(&self, since: Since, history: &History<'_>) -> BTreeMap<u32, u64> {
        let mut mailboxes: BTreeMap<u32, u64> = BTreeMap::new();
        let mut threads: BTreeMap<u64, u64> = BTreeMap::new();
        let mut touch = |thread: u64, seq: u64| {
            let last = threads.entry(thread).or_default();
            *last = seq.max(*last);
        };
        self.changed_since(since, history, |seq, email| {
            if let Some(thread) = self.thread_of(email) {
                touch(thread, seq);
            }
        });
        created_and_destroyed(self.state(), history, |seq, _, thread, _| {
            if let Some(thread) = thread {
                touch(thread, seq);
            }
        });
        for (id, mailbox) in &*self.state().mailboxes {
            if mailbox.root.highest_modseq > since.needs() {
                mailboxes.insert(*id, mailbox.root.highest_modseq);
            }
        }
        for (thread, seq) in threads {
            for email in self.thread_emails(thread) {
                for (mailbox, _) in self.rows(EmailId(email)) {
                    let last = mailboxes.entry(mailbox.0).or_default();
                    *last = seq.max(*last);
                }
            }
        }
        mailboxes
    }
}

impl<I> ChangeSet<I> {
    fn map<O>(self, id: impl Fn(I) -> O) -> ChangeSet<O> {
        let all = |ids: Vec<I>| ids.into_iter().map(&id).collect();
        ChangeSet {
            created: all(self.created),
            updated: all(self.updated),
            destroyed: all(self.destroyed),
            new_state: self.new_state,
            has_more: self.has_more,
        }
    }
}
