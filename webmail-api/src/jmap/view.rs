//! An account by email: in which mailboxes an email is, with which keywords, and in which thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use mail::flag::{Flag, FlagSet, Keyword};
use mail::id::{EmailId, MailboxId, ThreadId};
use storage::{Account, AccountState, Mailbox, MailboxCounts, ObjectKind, StorageError};

use super::quota::Levels;

/// An email as it is in its mailboxes.
pub(crate) use storage::ViewedEmail as EmailView;

pub(crate) fn is_in(email: &EmailView, mailbox: MailboxId) -> bool {
    email.places.iter().any(|(place, _)| *place == mailbox)
}

/// The account at one moment.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) account: Arc<AccountState>,
    emails: Arc<storage::EmailView>,
}

/// Keywords that IMAP has as system flags (RFC 8621 §4.1.1).
const SYSTEM: [(&str, Flag); 4] = [
    ("$seen", Flag::Seen),
    ("$answered", Flag::Answered),
    ("$flagged", Flag::Flagged),
    ("$draft", Flag::Draft),
];

/// Keywords as the account has them. `None`: one of them is none.
pub(crate) fn flag_set<'a>(keywords: impl IntoIterator<Item = &'a String>) -> Option<FlagSet> {
    let mut set = FlagSet::new();
    for keyword in keywords {
        match SYSTEM.iter().find(|(name, _)| *name == keyword) {
            Some((_, flag)) => set.flags.insert(*flag),
            None => set.insert_keyword(Keyword::new(keyword.clone()).ok()?),
        }
    }
    Some(set)
}

impl View {
    /// After a look whether another node has committed something.
    pub(crate) async fn load(account: &Account) -> Result<Arc<Self>, StorageError> {
        let emails = account.refresh_view().await?;
        Ok(Arc::new(Self { account: Arc::clone(emails.state()), emails }))
    }

    /// The state of emails that clients are told (RFC 8620 §5.1).
    pub(crate) fn email_state(&self) -> String {
        self.account.emails_state().to_string()
    }

    pub(crate) fn thread_state(&self) -> String {
        self.account.threads_state().to_string()
    }

    pub(crate) fn mailbox_state(&self) -> String {
        self.account.mailboxes_state().to_string()
    }

    pub(crate) fn email(&self, id: EmailId) -> Option<EmailView> {
        self.emails.email(id)
    }

    pub(crate) fn emails(&self) -> impl Iterator<Item = EmailView> {
        self.emails.emails().filter_map(|id| self.emails.email(id))
    }

    /// The emails in a mailbox, or all, in the order in which they were received; among those received at once by number.
    pub(crate) fn received(&self, mailbox: Option<MailboxId>, last_first: bool) -> Vec<EmailId> {
        match (mailbox, last_first) {
            (Some(mailbox), false) => self.emails.received_in(mailbox).collect(),
            (Some(mailbox), true) => self.emails.received_in(mailbox).rev().collect(),
            (None, false) => self.emails.received_first().collect(),
            (None, true) => self.emails.received_last().collect(),
        }
    }

    /// The emails of a thread, the one that was received first before the others.
    pub(crate) fn thread(&self, id: ThreadId) -> Option<Vec<EmailId>> {
        self.emails.thread(id)
    }

    pub(crate) fn mailbox(&self, id: MailboxId) -> Option<Mailbox> {
        self.account.mailbox(id)
    }

    /// What a mailbox holds (RFC 8621 §2).
    pub(crate) fn counts(&self, id: MailboxId) -> MailboxCounts {
        self.emails.counts(id).unwrap_or_default()
    }

    /// The keywords of an email: `$seen` where all of its messages have it, others where any has.
    pub(crate) fn keywords(&self, email: &EmailView) -> Vec<String> {
        let system =
            SYSTEM.iter().filter(|(_, flag)| email.marks.has(*flag)).map(|(name, _)| (*name).to_owned());
        let names = self.account.keywords();
        let own = email.marks.keywords().filter_map(|number| names.get(number));
        system.chain(own.map(|name| name.as_str().to_ascii_lowercase())).collect()
    }

    /// Which test a keyword is, to be asked of many emails.
    pub(crate) fn keyword_test(&self, keyword: &str) -> impl Fn(&EmailView) -> bool + use<> {
        let system = SYSTEM.iter().find(|(name, _)| *name == keyword).map(|(_, flag)| *flag);
        let number =
            self.account.keywords().iter().position(|known| known.as_str().eq_ignore_ascii_case(keyword));
        move |email| match (system, number) {
            (Some(flag), _) => email.marks.has(flag),
            (None, Some(number)) => email.marks.has_keyword(number),
            (None, None) => false,
        }
    }
}

/// The states of all types (RFC 8620 §1.6.3) but of identities, which are not in the account alone.
pub(crate) fn states(account: &AccountState) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("Email", account.emails_state().to_string()),
        ("EmailSubmission", account.objects_state(ObjectKind::EMAIL_SUBMISSION).to_string()),
        ("EmailDelivery", account.latest().deliveries.to_string()),
        ("Mailbox", account.mailboxes_state().to_string()),
        ("Quota", Levels::of(&account.quota()).state()),
        ("VacationResponse", account.objects_state(ObjectKind::VACATION_RESPONSE).to_string()),
        ("Thread", account.threads_state().to_string()),
    ])
}
