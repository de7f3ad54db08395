//! Mailboxes as JMAP changes them: by number, with a parent and a name below it, in one commit each (RFC 8621 §2.5).

use mail::id::MailboxId;
use mail::id::Uid;
use mail::uid::UidSet;

use crate::account::Account;
use crate::compose::Since;
use crate::config::Config;
use crate::draft::{Draft, Refusal};
use crate::entry::Operation;
use crate::error::StorageError;
use crate::expunge::{forget_excess, take_out};
use crate::mailbox::{self, INBOX, Mailbox, MailboxError, Role, SEPARATOR};
use crate::mailbox_name;
use crate::state::{AccountState, Part};
use crate::store::unix_now;

/// A mailbox to be created.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewMailbox {
    /// The one above it; `None`: it stands at the top.
    pub parent: Option<MailboxId>,
    /// Its name among its neighbours.
    pub name: String,
    /// What it is for.
    pub role: Option<Role>,
    /// Its place among its neighbours.
    pub sort_order: u32,
    /// Whether the owner is subscribed to it.
    pub is_subscribed: bool,
}

/// How a mailbox is to change; what is `None` stays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MailboxPatch {
    /// The one above it; `Some(None)`: it goes to the top.
    pub parent: Option<Option<MailboxId>>,
    /// Its name among its neighbours.
    pub name: Option<String>,
    /// What it is for.
    pub role: Option<Option<Role>>,
    /// Its place among its neighbours.
    pub sort_order: Option<u32>,
    /// Whether the owner is subscribed to it.
    pub is_subscribed: Option<bool>,
}

/// What becomes of the emails in a mailbox that goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnDestroy {
    /// It does not go while there are any.
    Refuse,
    /// They leave it; those that are in no other are destroyed (RFC 8621 §2.5 `onDestroyRemoveEmails`).
    RemoveEmails,
}

/// A mailbox was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailboxSet<T> {
    /// The state of mailboxes before.
    pub old_state: Since,
    /// The state of mailboxes after it.
    pub new_state: Since,
    /// What came of it.
    pub answer: T,
}

/// Why a mailbox was not changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MailboxSetError {
    /// The state is not the one that was named (RFC 8620 §5.3 `stateMismatch`).
    #[error("the state is another")]
    StateMismatch,
    /// There is no such mailbox to be above it.
    #[error("no such parent")]
    NoParent,
    /// There are emails in it (RFC 8621 §2.5 `mailboxHasEmail`).
    #[error("the mailbox holds emails")]
    HasEmail,
    /// As over IMAP.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
}

impl From<StorageError> for MailboxSetError {
    fn from(error: StorageError) -> Self {
        Self::Mailbox(error.into())
    }
}

impl AccountState {
    /// The mailbox above this one.
    pub fn parent(&self, mailbox: MailboxId) -> Option<MailboxId> {
        let name = &self.mailboxes.get(&mailbox.0)?.root.name;
        let (above, _) = name.rsplit_once(SEPARATOR)?;
        self.root_by_name(above).map(|root| MailboxId(root.id))
    }
}

impl Mailbox {
    /// Its name among its neighbours.
    pub fn own_name(&self) -> &str {
        self.name.rsplit_once(SEPARATOR).map_or(&self.name, |(_, own)| own)
    }
}

impl Account {
    /// Creates a mailbox.
    pub async fn create_mailbox_in(
        &self,
        new: NewMailbox,
        if_in_state: Option<Since>,
    ) -> Result<MailboxSet<Mailbox>, MailboxSetError> {
        let config = self.storage.config().clone();
        let now = unix_now();
        self.set_mailbox(if_in_state, move |draft, state| {
            let name = full_name(state, new.parent, &new.name, &config)?;
            if state.root_by_name(&name).is_some() {
                return Err(MailboxError::Exists.into());
            }
            check_role(state, None, new.role)?;
            let created = mailbox::create(draft, &name, new.role, now, &config).map_err(lifted)?;
            let id = created.id;
            if new.sort_order != 0 {
                let sort_order = new.sort_order;
                draft.push(Operation::MailboxOrder { mailbox: id.0, sort_order });
            }
            set_subscribed(draft, state, &name, new.is_subscribed, &config)?;
            let state = draft.state::<MailboxSetError>()?;
            state.mailbox(id).ok_or_else(|| MailboxSetError::from(MailboxError::Missing).into())
        })
        .await
    }

    /// Changes a mailbox. Where its name or place becomes another, those below it go with it, and subscriptions follow.
    pub async fn update_mailbox(
        &self,
        id: MailboxId,
        patch: MailboxPatch,
        if_in_state: Option<Since>,
    ) -> Result<MailboxSet<()>, MailboxSetError> {
        let config = self.storage.config().clone();
        self.set_mailbox(if_in_state, move |draft, state| {
            let shown = state.mailbox(id).ok_or(MailboxError::Missing)?;
            let parent = patch.parent.unwrap_or_else(|| state.parent(id));
            let to = match &patch.name {
                None if patch.parent.is_none() => shown.name.clone(),
                name => full_name(state, parent, name.as_deref().unwrap_or(shown.own_name()), &config)?,
            };
            if to != shown.name {
                if shown.name == INBOX {
                    return Err(MailboxError::NotPossible("INBOX keeps its name").into());
                }
                if mailbox_name::below(&to, &shown.name).is_some() {
                    return Err(MailboxError::NotPossible("a mailbox cannot be moved into itself").into());
                }
                if state.root_by_name(&to).is_some() {
                    return Err(MailboxError::Exists.into());
                }
                mailbox::rename(draft, state, &shown.name, &to, &config)?;
            }
            if let Some(role) = patch.role.filter(|role| *role != shown.role) {
                if shown.role == Some(Role::Inbox) {
                    return Err(MailboxError::NotPossible("INBOX keeps its role").into());
                }
                check_role(state, Some(id), role)?;
                draft.push(Operation::MailboxRole { mailbox: id.0, role });
            }
            if let Some(sort_order) = patch.sort_order.filter(|order| *order != shown.sort_order) {
                draft.push(Operation::MailboxOrder { mailbox: id.0, sort_order });
            }
            if let Some(subscribed) = patch.is_subscribed {
                let renamed = draft.state::<MailboxSetError>()?.clone();
                set_subscribed(draft, &renamed, &to, subscribed, &config)?;
            }
            Ok(())
        })
        .await
    }

    /// Deletes a mailbox, and what is said of it among subscriptions.
    pub async fn destroy_mailbox(
        &self,
        id: MailboxId,
        emails: OnDestroy,
        if_in_state: Option<Since>,
    ) -> Result<MailboxSet<()>, MailboxSetError> {
        let config = self.storage.config().clone();
        let mut condition = if_in_state;
        let mut first_state = None;
        loop {
            let config = config.clone();
            let set = self
                .set_mailbox(condition, move |draft, state| {
                    let shown = state.mailbox(id).ok_or(MailboxError::Missing)?;
                    if shown.name == INBOX || shown.role == Some(Role::Inbox) {
                        return Err(MailboxError::NotPossible("INBOX cannot be deleted").into());
                    }
                    let mut others = state.mailboxes.values();
                    if others.any(|other| mailbox_name::below(&other.root.name, &shown.name).is_some()) {
                        return Err(MailboxError::HasChildren.into());
                    }
                    if emails == OnDestroy::Refuse && shown.messages > 0 {
                        return Err(MailboxSetError::HasEmail.into());
                    }
                    let index = state.index(id).ok_or_else(|| Refusal::Load(vec![Part::Mailbox(id)]))?;
                    let all = index.existing(&UidSet::from_range(Uid::MIN, Uid::MAX));
                    let taken = take_out(draft, state, id, index, &all)?;
                    let is_empty = taken.len() == all.len();
                    if is_empty {
                        draft.push(Operation::MailboxDelete { mailbox: id.0 });
                        set_subscribed(draft, state, &shown.name, false, &config)?;
                    }
                    forget_excess(draft, state, &config);
                    Ok(is_empty)
                })
                .await?;
            let old_state = *first_state.get_or_insert(set.old_state);
            if set.answer {
                return Ok(MailboxSet { old_state, new_state: set.new_state, answer: () });
            }
            // A large mailbox is emptied by several commits; the state was the right one before the first.
            condition = None;
        }
    }

    async fn set_mailbox<T, F>(
        &self,
        if_in_state: Option<Since>,
        change: F,
    ) -> Result<MailboxSet<T>, MailboxSetError>
    where
        T: Send + 'static,
        F: Fn(&mut Draft, &AccountState) -> Result<T, Refusal<MailboxSetError>> + Clone + Send + 'static,
    {
        let build = move |state: &AccountState| -> Result<_, Refusal<MailboxSetError>> {
            let mut draft = Draft::new::<MailboxSetError>(state)?;
            let old_state = state.mailboxes_state();
            if if_in_state.is_some_and(|wanted| wanted != old_state) {
                return Err(MailboxSetError::StateMismatch.into());
            }
            let answer = change(&mut draft, state)?;
            let new_state = draft.state::<MailboxSetError>()?.mailboxes_state();
            Ok(draft.build(MailboxSet { old_state, new_state, answer }))
        };
        Ok(self.commit(Vec::new(), build).await?.answer)
    }
}

impl From<MailboxError> for Refusal<MailboxSetError> {
    fn from(error: MailboxError) -> Self {
        Self::Error(error.into())
    }
}

fn lifted(refusal: Refusal<MailboxError>) -> Refusal<MailboxSetError> {
    match refusal {
        Refusal::Load(parts) => Refusal::Load(parts),
        Refusal::Error(error) => Refusal::Error(error.into()),
    }
}

/// The full name of a mailbox below another.
fn full_name(
    state: &AccountState,
    parent: Option<MailboxId>,
    name: &str,
    config: &Config,
) -> Result<String, Refusal<MailboxSetError>> {
    if name.contains(SEPARATOR) {
        return Err(MailboxError::InvalidName("the character that separates levels").into());
    }
    let full = match parent {
        None => name.to_owned(),
        Some(parent) => {
            let parent = state.mailboxes.get(&parent.0).ok_or(MailboxSetError::NoParent)?;
            format!("{}{SEPARATOR}{name}", parent.root.name)
        }
    };
    Ok(mailbox_name::normal(&full, config)?)
}

/// At most one mailbox has a role (RFC 8621 §2).
fn check_role(state: &AccountState, own: Option<MailboxId>, role: Option<Role>) -> Result<(), MailboxError> {
    let other = role.and_then(|role| state.mailbox_by_role(role));
    match other {
        Some(other) if Some(other.id) != own => Err(MailboxError::RoleTaken),
        _ => Ok(()),
    }
}

fn set_subscribed(
    draft: &mut Draft,
    state: &AccountState,
    name: &str,
    subscribed: bool,
    config: &Config,
) -> Result<(), MailboxError> {
    if state.is_subscribed(name) == subscribed {
        return Ok(());
    }
    if subscribed && state.base.subscriptions.len() >= config.subscriptions_max {
        return Err(MailboxError::TooMany);
    }
    draft.push(Operation::Subscribe { name: name.to_owned(), subscribed });
    Ok(())
}
