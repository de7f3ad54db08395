//! An account by email: in which mailboxes an email is, with which keywords, and in which thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use mail::flag::Flag;
use mail::id::{EmailId, MailboxId, ThreadId, Uid};
use storage::{Account, AccountState, InternalDate, Mailbox, Marks, StorageError};

/// An email as it is in its mailboxes.
#[derive(Clone, Debug)]
pub(crate) struct EmailView {
    pub(crate) id: EmailId,
    pub(crate) thread: ThreadId,
    /// Where it is, with its UID there.
    pub(crate) places: Vec<(MailboxId, Uid)>,
    /// What is set in any of its mailboxes; `\Seen` only where it is set in all.
    marks: Marks,
    pub(crate) size: u32,
    pub(crate) received: InternalDate,
}

impl EmailView {
    /// As JMAP counts it (RFC 8621 §2): neither seen nor a draft.
    pub(crate) fn is_unread(&self) -> bool {
        !self.marks.has(Flag::Seen) && !self.marks.has(Flag::Draft)
    }
}

pub(crate) fn is_in(email: &EmailView, mailbox: MailboxId) -> bool {
    email.places.iter().any(|(place, _)| *place == mailbox)
}

/// The account at one moment.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) account: Arc<AccountState>,
    emails: BTreeMap<EmailId, EmailView>,
    /// The emails of each thread, the one that was received first before the others.
    threads: BTreeMap<ThreadId, Vec<EmailId>>,
}

/// Keywords that IMAP has as system flags (RFC 8621 §4.1.1).
const SYSTEM: [(&str, Flag); 4] = [
    ("$seen", Flag::Seen),
    ("$answered", Flag::Answered),
    ("$flagged", Flag::Flagged),
    ("$draft", Flag::Draft),
];

impl View {
    /// After a look whether another node has committed something.
    pub(crate) async fn load(account: &Account) -> Result<Arc<Self>, StorageError> {
        let mut state = account.refresh().await?;
        loop {
            let missing = state.mailboxes().find(|mailbox| state.index(mailbox.id).is_none());
            let Some(missing) = missing else { return Ok(Arc::new(Self::of(state))) };
            state = account.mailbox(missing.id).await?;
        }
    }

    fn of(account: Arc<AccountState>) -> Self {
        let mut emails: BTreeMap<EmailId, EmailView> = BTreeMap::new();
        for mailbox in account.mailboxes() {
            let Some(index) = account.index(mailbox.id) else { continue };
            for row in index.iter() {
                let email = emails.entry(row.email).or_insert_with(|| EmailView {
                    id: row.email,
                    thread: row.thread,
                    places: Vec::new(),
                    marks: row.marks,
                    size: row.size,
                    received: row.internal_date,
                });
                email.places.push((mailbox.id, row.uid));
                let seen_everywhere = email.marks.has(Flag::Seen) && row.marks.has(Flag::Seen);
                email.marks = email.marks.union(row.marks);
                if !seen_everywhere {
                    email.marks = email.marks.difference(Marks::from_flags(Flag::Seen.into()));
                }
            }
        }
        let mut threads: BTreeMap<ThreadId, Vec<EmailId>> = BTreeMap::new();
        for email in emails.values() {
            threads.entry(email.thread).or_default().push(email.id);
        }
        for thread in threads.values_mut() {
            thread.sort_by_key(|id| emails.get(id).map(|email| (email.received.unix_seconds(), *id)));
        }
        Self { account, emails, threads }
    }

    /// The state of emails that clients are told (RFC 8620 §5.1).
    pub(crate) fn email_state(&self) -> String {
        self.state_of("Email")
    }

    pub(crate) fn thread_state(&self) -> String {
        self.state_of("Thread")
    }

    pub(crate) fn mailbox_state(&self) -> String {
        self.state_of("Mailbox")
    }

    fn state_of(&self, name: &str) -> String {
        states(&self.account).remove(name).unwrap_or_default()
    }

    pub(crate) fn email(&self, id: EmailId) -> Option<EmailView> {
        self.emails.get(&id).cloned()
    }

    pub(crate) fn emails(&self) -> impl Iterator<Item = EmailView> {
        self.emails.values().cloned()
    }

    /// The emails of a thread, the one that was received first before the others.
    pub(crate) fn thread(&self, id: ThreadId) -> Option<Vec<EmailId>> {
        self.threads.get(&id).cloned()
    }

    pub(crate) fn mailbox(&self, id: MailboxId) -> Option<Mailbox> {
        self.account.mailbox(id)
    }

    /// The keywords of an email: `$seen` where all of its messages have it, others where any has.
    pub(crate) fn keywords(&self, email: &EmailView) -> Vec<String> {
        let system = SYSTEM.iter().filter(|(_, flag)| has(email, *flag)).map(|(name, _)| (*name).to_owned());
        let names = self.account.keywords();
        let own = email.marks.keywords().filter_map(|number| names.get(number));
        system.chain(own.map(|name| name.as_str().to_ascii_lowercase())).collect()
    }

    /// Which test a keyword is, to be asked of many emails.
    pub(crate) fn keyword_test(&self, keyword: &str) -> impl Fn(&EmailView) -> bool + use<> {
        let system = SYSTEM.iter().find(|(name, _)| *name == keyword).map(|(_, flag)| *flag);
        let number = self.account.keywords().iter().position(|known| {
            known.as_str().eq_ignore_ascii_case(keyword)
        });
        move |email| match (system, number) {
            (Some(flag), _) => has(email, flag),
            (None, Some(number)) => email.marks.has_keyword(number),
            (None, None) => false,
        }
    }

    /// Emails, unread emails, threads and unread threads of each mailbox (RFC 8621 §2).
    pub(crate) fn counts(&self) -> BTreeMap<MailboxId, Counts> {
        let trash = self.account.mailbox_by_role(storage::Role::Trash).map(|mailbox| mailbox.id);
        let mut counts: BTreeMap<MailboxId, Counts> = BTreeMap::new();
        for ids in self.threads.values() {
            let emails: Vec<&EmailView> = ids.iter().filter_map(|id| self.emails.get(id)).collect();
            // RFC 8621 §2: what is only in the trash makes no thread unread elsewhere, and the reverse.
            let only_trash = |email: &EmailView| {
                email.places.iter().all(|(mailbox, _)| Some(*mailbox) == trash)
            };
            let unread_outside = emails.iter().any(|email| email.is_unread() && !only_trash(email));
            let in_trash = |email: &EmailView| trash.is_some_and(|trash| is_in(email, trash));
            let unread_inside = emails.iter().any(|email| email.is_unread() && in_trash(email));
            let mut mailboxes = std::collections::BTreeSet::new();
            for email in emails {
                for (mailbox, _) in &email.places {
                    mailboxes.insert(*mailbox);
                    let count = counts.entry(*mailbox).or_default();
                    count.emails += 1;
                    count.unread_emails += u64::from(email.is_unread());
                }
            }
            for mailbox in mailboxes {
                let is_unread = if Some(mailbox) == trash { unread_inside } else { unread_outside };
                let count = counts.entry(mailbox).or_default();
                count.threads += 1;
                count.unread_threads += u64::from(is_unread);
            }
        }
        counts
    }
}

/// What a mailbox holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) emails: u64,
    pub(crate) unread_emails: u64,
    pub(crate) threads: u64,
    pub(crate) unread_threads: u64,
}

fn has(email: &EmailView, flag: Flag) -> bool {
    email.marks.has(flag)
}

/// The states of all types (RFC 8620 §1.6.3).
pub(crate) fn states(account: &AccountState) -> BTreeMap<&'static str, String> {
    let state = account.modseq().to_string();
    ["Email", "EmailDelivery", "Mailbox", "Thread"].into_iter().map(|name| (name, state.clone())).collect()
}
