//! Mailboxes: what they are, and creating, renaming, deleting and subscribing to them.

use mail::id::{MailboxId, ModSeq, Uid, UidValidity};
use mail::uid::UidSet;
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::config::Config;
use crate::copy::CopyError;
use crate::draft::{Draft, Refusal};
use crate::entry::{MailboxCreate, Operation};
use crate::error::StorageError;
use crate::expunge;
use crate::mailbox_name;
use crate::state::{AccountState, Part};
use crate::store::unix_now;

/// Renames in one operation; a name has some hundred octets, an operation at most 32 KiB.
const NAMES_PER_OPERATION: usize = 30;

/// Between the levels of a mailbox name.
pub const SEPARATOR: char = '/';
/// The name of the mailbox that mail arrives in, in its only spelling (RFC 9051 §5.1).
pub const INBOX: &str = "INBOX";

/// What a mailbox is for (RFC 6154, RFC 8621 §2). At most one mailbox of an account has a given role.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Mail arrives here.
    Inbox,
    /// `\Drafts`
    Drafts,
    /// `\Sent`
    Sent,
    /// `\Junk`
    Junk,
    /// `\Trash`
    Trash,
    /// `\Archive`
    Archive,
}

/// A mailbox, as LIST and STATUS see it: everything here comes from the account's root, no page is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mailbox {
    /// Its number.
    pub id: MailboxId,
    /// Its full name, levels separated by [`SEPARATOR`]; every superior name is a mailbox too.
    pub name: String,
    /// What it is for.
    pub role: Option<Role>,
    /// Never the same for two mailboxes that had the same name.
    pub uid_validity: UidValidity,
    /// The next UID; `None` when all have been given out.
    pub uid_next: Option<Uid>,
    /// Number of messages.
    pub messages: u32,
    /// Messages without `\Seen`.
    pub unseen: u32,
    /// Messages with `\Deleted`.
    pub deleted: u32,
    /// Sum of the sizes of its messages.
    pub size: u64,
    /// MODSEQ of its last change.
    pub highest_modseq: ModSeq,
    /// Keywords that some message in it has or had.
    pub keywords: crate::marks::Marks,
    /// Its place among its neighbours, ascending; zero where nothing was said (RFC 8621 §2).
    pub sort_order: u32,
}

/// Why mailboxes could not be changed as asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MailboxError {
    /// There is no such mailbox.
    #[error("no such mailbox")]
    Missing,
    /// There is one of this name already.
    #[error("the mailbox exists")]
    Exists,
    /// Not a name for a mailbox.
    #[error("not a mailbox name: {0}")]
    InvalidName(&'static str),
    /// It has inferior mailboxes (RFC 9051 `HASCHILDREN`).
    #[error("the mailbox has inferior mailboxes")]
    HasChildren,
    /// INBOX cannot be deleted, nor a mailbox be moved into itself.
    #[error("this cannot be done to the mailbox: {0}")]
    NotPossible(&'static str),
    /// Another mailbox has the role.
    #[error("another mailbox has this role")]
    RoleTaken,
    /// More mailboxes or subscriptions than the configuration allows.
    #[error("too many mailboxes")]
    TooMany,
    /// Trouble below.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Account {
    /// Creates a mailbox, and its superiors where they are missing. A trailing separator (IMAP's hint that inferiors
    /// will follow) is ignored.
    pub async fn create_mailbox(&self, name: &str, role: Option<Role>) -> Result<Mailbox, MailboxError> {
        let config = self.storage.config().clone();
        let name = mailbox_name::normal(name, &config)?;
        let now = unix_now();
        let build = move |state: &AccountState| -> Result<_, Refusal<MailboxError>> {
            if state.root_by_name(&name).is_some() {
                return Err(MailboxError::Exists.into());
            }
            if role.is_some_and(|role| state.mailbox_by_role(role).is_some()) {
                return Err(MailboxError::RoleTaken.into());
            }
            let mut draft = Draft::new::<MailboxError>(state)?;
            let created = create(&mut draft, &name, role, now, &config)?;
            Ok(draft.build(created))
        };
        Ok(self.commit(Vec::new(), build).await?.answer)
    }

    /// Renames a mailbox and its inferiors; superiors of the new name are created. Renaming INBOX moves its messages
    /// into a new mailbox and leaves INBOX and its inferiors where they are (RFC 9051 §6.3.6). Subscriptions follow.
    pub async fn rename_mailbox(&self, from: &str, to: &str) -> Result<(), MailboxError> {
        let config = self.storage.config().clone();
        let (from, to) = (mailbox_name::normal(from, &config)?, mailbox_name::normal(to, &config)?);
        if from == INBOX {
            return self.rename_inbox(&to).await;
        }
        let now = unix_now();
        let build = move |state: &AccountState| -> Result<_, Refusal<MailboxError>> {
            if state.root_by_name(&from).is_none() {
                return Err(MailboxError::Missing.into());
            }
            if to == from || state.root_by_name(&to).is_some() {
                return Err(MailboxError::Exists.into());
            }
            if mailbox_name::below(&to, &from).is_some() {
                return Err(MailboxError::NotPossible("a mailbox cannot be moved into itself").into());
            }
            let mut draft = Draft::new::<MailboxError>(state)?;
            for superior in mailbox_name::superiors(&to) {
                if draft.state::<MailboxError>()?.root_by_name(superior).is_none() {
                    create(&mut draft, superior, None, now, &config)?;
                }
            }
            rename(&mut draft, state, &from, &to, &config)?;
            Ok(draft.build(()))
        };
        self.commit(Vec::new(), build).await?;
        Ok(())
    }

    async fn rename_inbox(&self, to: &str) -> Result<(), MailboxError> {
        let target = self.create_mailbox(to, None).await?;
        let state = self.state();
        let inbox = state.mailbox_by_name(INBOX).ok_or(MailboxError::Missing)?;
        let all = UidSet::from_range(Uid::MIN, Uid::MAX);
        self.move_messages(inbox.id, all, target.id).await.map_err(|error| match error {
            CopyError::Storage(error) => MailboxError::Storage(error),
            CopyError::NoSource | CopyError::NoTarget => MailboxError::Missing,
            // Moving needs no room, and a new mailbox has all its UIDs.
            CopyError::OverQuota | CopyError::NoUids => MailboxError::NotPossible("INBOX cannot be emptied"),
        })?;
        Ok(())
    }

    /// Deletes a mailbox and the messages in it. The subscription stays (RFC 9051 §6.3.7).
    pub async fn delete_mailbox(&self, name: &str) -> Result<(), MailboxError> {
        let name = mailbox_name::normal(name, self.storage.config())?;
        if name == INBOX {
            return Err(MailboxError::NotPossible("INBOX cannot be deleted"));
        }
        loop {
            let name = name.clone();
            let build = move |state: &AccountState| -> Result<_, Refusal<MailboxError>> {
                let root = state.root_by_name(&name).ok_or(MailboxError::Missing)?;
                if state
                    .mailboxes
                    .values()
                    .any(|other| mailbox_name::below(&other.root.name, &name).is_some())
                {
                    return Err(MailboxError::HasChildren.into());
                }
                let id = MailboxId(root.id);
                let index = state.index(id).ok_or_else(|| Refusal::Load(vec![Part::Mailbox(id)]))?;
                let mut draft = Draft::new::<MailboxError>(state)?;
                let all = UidSet::from_range(Uid::MIN, Uid::MAX);
                let taken = expunge::take_out(&mut draft, state, id, index, &index.existing(&all))?;
                let is_empty = taken.len() == index.len() as u64;
                if is_empty {
                    draft.push(Operation::MailboxDelete { mailbox: id.0 });
                }
                Ok(draft.build(is_empty))
            };
            if self.commit(Vec::new(), build).await?.answer {
                return Ok(());
            }
        }
    }

    /// Subscribes to a name, which need not be that of a mailbox, or ends a subscription.
    pub async fn subscribe(&self, name: &str, subscribed: bool) -> Result<(), MailboxError> {
        let config = self.storage.config().clone();
        let name = mailbox_name::normal(name, &config)?;
        let build = move |state: &AccountState| -> Result<_, Refusal<MailboxError>> {
            let mut draft = Draft::new::<MailboxError>(state)?;
            if state.is_subscribed(&name) != subscribed {
                if subscribed && state.base.subscriptions.len() >= config.subscriptions_max {
                    return Err(MailboxError::TooMany.into());
                }
                draft.push(Operation::Subscribe { name: name.clone(), subscribed });
            }
            Ok(draft.build(()))
        };
        self.commit(Vec::new(), build).await?;
        Ok(())
    }
}

/// Gives a mailbox and its inferiors other names; subscriptions follow.
pub(crate) fn rename(
    draft: &mut Draft,
    state: &AccountState,
    from: &str,
    to: &str,
    config: &Config,
) -> Result<(), MailboxError> {
    let renamed = |name: &str| match mailbox_name::below(name, from) {
        Some(rest) => mailbox_name::normal(&format!("{to}{SEPARATOR}{rest}"), config).map(Some),
        None => Ok((name == from).then(|| to.to_owned())),
    };
    let mut names = Vec::new();
    for mailbox in state.mailboxes.values() {
        if let Some(name) = renamed(&mailbox.root.name)? {
            names.push((mailbox.root.id, name));
        }
    }
    for names in names.chunks(NAMES_PER_OPERATION) {
        draft.push(Operation::MailboxRename { names: names.to_vec() });
    }
    for old in state.subscriptions() {
        if let Some(name) = renamed(old)? {
            draft.push(Operation::Subscribe { name: old.to_owned(), subscribed: false });
            draft.push(Operation::Subscribe { name, subscribed: true });
        }
    }
    Ok(())
}

/// Creates a mailbox that does not exist, and what it lacks of superiors.
pub(crate) fn create(
    draft: &mut Draft,
    name: &str,
    role: Option<Role>,
    now: u32,
    config: &Config,
) -> Result<Mailbox, Refusal<MailboxError>> {
    let missing: Vec<&str> = {
        let state = draft.state::<MailboxError>()?;
        let superiors = mailbox_name::superiors(name);
        superiors.filter(|superior| state.root_by_name(superior).is_none()).chain([name]).collect()
    };
    for created in missing {
        let state = draft.state::<MailboxError>()?;
        if state.mailboxes.len() >= config.mailboxes_max {
            return Err(MailboxError::TooMany.into());
        }
        let operation = MailboxCreate {
            mailbox: state.base.next_mailbox,
            name: created.to_owned(),
            role: role.filter(|_| created == name),
            uid_validity: now.max(state.base.last_uid_validity.saturating_add(1)),
        };
        draft.push(Operation::MailboxCreate(operation));
    }
    let created = draft.state::<MailboxError>()?.root_by_name(name).map(|root| root.view(0));
    created.ok_or(Refusal::Error(MailboxError::Missing))
}
