//! The state of an account: what its log folds into. Here is what can be asked of it; how it changes is in `fold`, how
//! it is stored in `snapshot`.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use mail::flag::{FlagSet, Keyword};
use mail::id::{EmailId, MailboxId, ModSeq};

use crate::append::IngestId;
use crate::email_page::EmailPages;
use crate::history::{HistoryTrace, Latest};
use crate::index::MailboxIndex;
use crate::ingest::{Deliveries, Outcome, Producers};
use crate::mailbox::{INBOX, Mailbox, Role};
use crate::marks::{KEYWORDS_MAX, Marks};
use crate::object::Objects;
use crate::quota::Quota;
use crate::root::{Base, Layout, MailboxRoot};
use crate::run::ThreadKeys;
use crate::store::AccountSettings;
use crate::suppression::Suppressed;
use crate::trail::{ExpungedTrace, RetainedTrace, Trail};
use crate::upload::Upload;

/// An account at one moment. Cheap to clone, never changes.
#[derive(Clone, Debug)]
pub struct AccountState {
    pub(crate) seq: u64,
    pub(crate) base: Arc<Base>,
    pub(crate) mailboxes: Arc<BTreeMap<u32, Arc<MailboxState>>>,
    /// Mailboxes that were deleted while a page of theirs was not loaded: what their messages were is still to be
    /// retained.
    pub(crate) ghosts: Arc<BTreeMap<u32, Arc<MailboxState>>>,
    pub(crate) emails: EmailPages,
    pub(crate) threads: ThreadKeys,
    pub(crate) expunged: Trail<ExpungedTrace>,
    pub(crate) retained: Trail<RetainedTrace>,
    pub(crate) producers: Producers,
    /// Addresses that mail is not sent to, as `Address::key` has them.
    pub(crate) suppressions: Arc<BTreeMap<String, Suppressed>>,
    pub(crate) history: Trail<HistoryTrace>,
    pub(crate) latest: Latest,
    /// Places of mailboxes among their neighbours, where something was said.
    pub(crate) sort_orders: Arc<BTreeMap<u32, u32>>,
    pub(crate) objects: Arc<Objects>,
    pub(crate) uploads: Arc<BTreeMap<u64, Upload>>,
}

/// A mailbox with its messages.
#[derive(Clone, Debug)]
pub(crate) struct MailboxState {
    pub(crate) root: MailboxRoot,
    pub(crate) index: MailboxIndex,
}

/// Pages of an account that are loaded together.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Part {
    /// The index of a mailbox.
    Mailbox(MailboxId),
    /// Pages of a mailbox that something happened to while they were not loaded.
    Pending(MailboxId),
    /// What leads from a hashed message-id to a thread.
    ThreadKey(u64),
    /// Runs of thread keys that the next snapshot merges.
    ThreadMerge,
    /// Expunges after this operation.
    ExpungedSince(u64),
    /// Pages of expunges that the next snapshot writes anew.
    ExpungedMerge,
    /// What messages were that were expunged after this operation.
    RetainedSince(u64),
    /// Pages of retained messages that the next snapshot writes anew.
    RetainedMerge,
    /// What happened after this operation.
    HistorySince(u64),
    /// Pages of history that the next snapshot writes anew.
    HistoryMerge,
    /// What was delivered.
    Producers,
    /// The page with the record of an email. Readers take such pages from the snapshot by themselves and need this only
    /// when they find that another snapshot is current.
    Email(EmailId),
    /// Email pages that the next snapshot writes anew.
    EmailMerge,
}

impl AccountState {
    /// An account with INBOX and the mailboxes of the usual roles. `now` in seconds since 1970.
    pub(crate) fn new(settings: &AccountSettings, layout: Layout, now: u32) -> Self {
        let roles = [
            (INBOX, Role::Inbox),
            ("Drafts", Role::Drafts),
            ("Sent", Role::Sent),
            ("Junk", Role::Junk),
            ("Trash", Role::Trash),
            ("Archive", Role::Archive),
        ];
        let first_validity = now.max(1);
        let mailbox = |(id, (name, role)): (u32, (&str, Role))| {
            let validity = first_validity.saturating_add(id - 1);
            let root = MailboxRoot {
                id,
                name: name.to_owned(),
                role: Some(role),
                uid_validity: NonZeroU32::new(validity).unwrap_or(NonZeroU32::MIN),
                uid_next: 1,
                messages: 0,
                unseen: 0,
                deleted: 0,
                size: 0,
                // Created, as clients see it, by the first operation, since a MODSEQ is never zero (RFC 7162 §7).
                highest_modseq: 1,
                keywords: Marks::EMPTY,
            };
            (id, Arc::new(MailboxState { root, index: MailboxIndex::default() }))
        };
        let mailboxes: BTreeMap<_, _> = (1..).zip(roles).map(mailbox).collect();
        let base = Base {
            layout,
            next_mailbox: 1 + roles.len() as u32,
            next_email: 1,
            last_uid_validity: first_validity.saturating_add(roles.len() as u32),
            keywords: Vec::new(),
            subscriptions: roles.iter().map(|(name, _)| (*name).to_owned()).collect(),
            quota: Quota {
                bytes_max: settings.quota_bytes,
                messages_max: settings.quota_messages,
                ..Quota::default()
            },
            archived_seq: 0,
            archived_address: bytes::Bytes::new(),
            closed: false,
        };
        Self {
            seq: 0,
            base: Arc::new(base),
            mailboxes: Arc::new(mailboxes),
            ghosts: Arc::default(),
            emails: EmailPages::default(),
            threads: ThreadKeys::default(),
            expunged: Trail::default(),
            retained: Trail::default(),
            producers: Producers::from_stored(None),
            suppressions: Arc::default(),
            history: Trail::default(),
            latest: Latest::default(),
            sort_orders: Arc::default(),
            objects: Arc::default(),
            uploads: Arc::default(),
        }
    }

    /// The last operation folded.
    pub fn modseq(&self) -> ModSeq {
        ModSeq(self.seq)
    }

    /// All mailboxes, in the order of their creation.
    pub fn mailboxes(&self) -> impl Iterator<Item = Mailbox> + '_ {
        self.mailboxes.values().map(|mailbox| self.shown(&mailbox.root))
    }

    /// A mailbox.
    pub fn mailbox(&self, id: MailboxId) -> Option<Mailbox> {
        self.mailboxes.get(&id.0).map(|mailbox| self.shown(&mailbox.root))
    }

    /// The mailbox of this name; `inbox` in any case is INBOX.
    pub fn mailbox_by_name(&self, name: &str) -> Option<Mailbox> {
        let name = if name.eq_ignore_ascii_case(INBOX) { INBOX } else { name };
        self.root_by_name(name).map(|root| self.shown(root))
    }

    /// The mailbox with this role.
    pub fn mailbox_by_role(&self, role: Role) -> Option<Mailbox> {
        let mut mailboxes = self.mailboxes.values();
        mailboxes.find(|mailbox| mailbox.root.role == Some(role)).map(|mailbox| self.shown(&mailbox.root))
    }

    /// Names subscribed to, ascending; not all of them need be mailboxes.
    pub fn subscriptions(&self) -> impl Iterator<Item = &str> + '_ {
        self.base.subscriptions.iter().map(String::as_str)
    }

    /// Whether this name is subscribed to.
    pub fn is_subscribed(&self, name: &str) -> bool {
        self.base.subscriptions.contains(name)
    }

    /// The messages of a mailbox. `None`: no such mailbox, or not loaded (see [`crate::Account::mailbox`]).
    pub fn index(&self, mailbox: MailboxId) -> Option<&MailboxIndex> {
        let mailbox = self.mailboxes.get(&mailbox.0)?;
        mailbox.index.is_loaded().then_some(&mailbox.index)
    }

    /// Names of the account's keywords, by number.
    pub fn keywords(&self) -> &[Keyword] {
        &self.base.keywords
    }

    /// Whether the account can have another keyword (`\*` in PERMANENTFLAGS).
    pub fn can_add_keyword(&self) -> bool {
        self.base.keywords.len() < KEYWORDS_MAX
    }

    /// Marks with the names that clients use.
    pub fn flag_set(&self, marks: Marks) -> FlagSet {
        let keywords =
            marks.keywords().filter_map(|number| self.base.keywords.get(number).cloned()).collect();
        FlagSet { flags: marks.flags(), keywords }
    }

    /// Flags by the names that clients use as marks. `None`: one of the keywords has no number yet, so no message has
    /// it.
    pub fn marks(&self, flags: &FlagSet) -> Option<Marks> {
        flags.keywords.iter().try_fold(Marks::from_flags(flags.flags), |marks, keyword| {
            let number = self.base.keywords.iter().position(|known| known == keyword)?;
            Some(marks.union(Marks::from_keyword(number)))
        })
    }

    /// Limits and use.
    pub fn quota(&self) -> Quota {
        self.base.quota
    }

    /// Whether the account is closed: nothing can be changed any more.
    pub fn is_closed(&self) -> bool {
        self.base.closed
    }

    /// A mailbox as services see it.
    pub(crate) fn shown(&self, root: &MailboxRoot) -> Mailbox {
        root.view(self.sort_orders.get(&root.id).copied().unwrap_or(0))
    }

    pub(crate) fn root_by_name(&self, name: &str) -> Option<&MailboxRoot> {
        self.mailboxes.values().map(|mailbox| &mailbox.root).find(|root| root.name == name)
    }

    /// Whether the account has ever moved. `Err`: [`Part::Producers`] is not loaded.
    pub(crate) fn has_moved(&self) -> Result<bool, Part> {
        self.producers.have_moved().map_err(|_| Part::Producers)
    }

    /// What was delivered where the account is. `Err`: [`Part::Producers`] is not loaded.
    pub(crate) fn deliveries(&self) -> Result<Deliveries, Part> {
        self.producers.of_here().map_err(|_| Part::Producers)
    }

    /// What became of an item of the queue. `Err`: [`Part::Producers`] is not loaded.
    pub(crate) fn ingest_outcome(&self, id: IngestId) -> Result<Option<Outcome>, Part> {
        self.producers.get(id).map_err(|_| Part::Producers)
    }
}
