//! An open account.

use std::sync::Arc;

use engine::{Build, CommitError, CommitOptions, Committed, LogHandle};
use mail::id::{AccountId, MailboxId};

use crate::changes::Changes;
use crate::draft::Refusal;
use crate::entry::Operation;
use crate::error::StorageError;
use crate::rights::Principal;
use crate::state::{AccountState, Part};
use crate::store::Storage;
use mail::id::ModSeq;

/// How often a commit finds that it needs more pages than it thought before it gives up. Twice is common (a message
/// that is in other mailboxes too); more means that others change the account all the time.
const LOADS_MAX: usize = 20;

/// An account, opened for a principal. Cheap to clone. It stays in memory as long as there is one.
#[derive(Clone, Debug)]
pub struct Account {
    id: AccountId,
    principal: Principal,
    pub(crate) storage: Storage,
    pub(crate) log: LogHandle<AccountState>,
}

impl Account {
    pub(crate) fn new(
        id: AccountId,
        principal: Principal,
        storage: Storage,
        log: LogHandle<AccountState>,
    ) -> Self {
        Self { id, principal, storage, log }
    }

    /// Its id.
    pub fn id(&self) -> AccountId {
        self.id
    }

    /// On whose behalf it was opened.
    pub fn principal(&self) -> Principal {
        self.principal
    }

    /// The newest state that this node has folded. Reads nothing.
    pub fn state(&self) -> Arc<AccountState> {
        self.log.state()
    }

    /// The newest state, with the index of this mailbox loaded. [`AccountState::index`] is `None` in it only when the
    /// mailbox does not exist.
    pub async fn mailbox(&self, mailbox: MailboxId) -> Result<Arc<AccountState>, StorageError> {
        Ok(self.log.with(&[Part::Mailbox(mailbox)]).await?)
    }

    /// As [`Account::mailbox`], after a look whether another node has committed something.
    pub async fn refresh_mailbox(&self, mailbox: MailboxId) -> Result<Arc<AccountState>, StorageError> {
        Ok(self.log.refresh(&[Part::Mailbox(mailbox)]).await?)
    }

    /// As [`Account::state`], after a look whether another node has committed something.
    pub async fn refresh(&self) -> Result<Arc<AccountState>, StorageError> {
        Ok(self.log.refresh(&[]).await?)
    }

    /// The newest state, with the index of this mailbox loaded, and what happened in it after `since`. `None`: there is
    /// no such mailbox.
    pub async fn changes(
        &self,
        mailbox: MailboxId,
        since: ModSeq,
    ) -> Result<(Arc<AccountState>, Option<Changes>), StorageError> {
        let state = self.log.with(&[Part::Mailbox(mailbox), Part::ExpungedSince(since.0)]).await?;
        let changes = state.changes(mailbox, since);
        Ok((state, changes))
    }

    /// Changes whenever an operation has been folded; the value is its number.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<u64> {
        self.log.watch()
    }

    /// Whether the account cannot be used any more through this: it was deleted, or its log is damaged. Opening it again
    /// tells which.
    pub fn is_stopped(&self) -> bool {
        !self.log.is_open()
    }

    /// Commits what `build` decides. Where it finds that it needs other parts they are loaded, and it is asked again.
    pub(crate) async fn commit<R, E, F>(&self, parts: Vec<Part>, build: F) -> Result<Committed<R>, E>
    where
        R: Send + 'static,
        E: From<StorageError> + Send + 'static,
        F: Fn(&AccountState) -> Result<Build<Operation, R>, Refusal<E>> + Clone + Send + 'static,
    {
        self.commit_with(CommitOptions::default(), parts, build).await
    }

    pub(crate) async fn commit_with<R, E, F>(
        &self,
        options: CommitOptions,
        mut parts: Vec<Part>,
        build: F,
    ) -> Result<Committed<R>, E>
    where
        R: Send + 'static,
        E: From<StorageError> + Send + 'static,
        F: Fn(&AccountState) -> Result<Build<Operation, R>, Refusal<E>> + Clone + Send + 'static,
    {
        let history_bytes_max = self.storage.config().history_bytes_max;
        for _ in 0..LOADS_MAX {
            let build = build.clone();
            let build = move |state: &AccountState| {
                build(state).map(|built| forgetting(built, state, history_bytes_max))
            };
            let error = match self.log.commit_with(options, parts.clone(), build).await {
                Ok(committed) => return Ok(committed),
                Err(CommitError::Rejected(Refusal::Load(more))) => {
                    parts.extend(more.into_iter().filter(|part| !parts.contains(part)).collect::<Vec<_>>());
                    continue;
                }
                Err(CommitError::Rejected(Refusal::Error(error))) => return Err(error),
                Err(CommitError::Unknown) => StorageError::Undecided,
                Err(CommitError::Unavailable(error)) => error.into(),
                Err(CommitError::TooLarge { bytes, .. }) => {
                    StorageError::Unavailable(format!("a commit of {bytes} bytes is too large"))
                }
                Err(CommitError::Deleted) => StorageError::Closed,
                Err(CommitError::Stopped(error)) => StorageError::from(&*error),
            };
            return Err(error.into());
        }
        Err(StorageError::Unavailable("the account changes too fast".to_owned()).into())
    }
}

/// Whatever is committed forgets the oldest history where there is too much.
fn forgetting<R>(
    mut build: Build<Operation, R>,
    state: &AccountState,
    history_bytes_max: usize,
) -> Build<Operation, R> {
    let may_follow = build
        .operations
        .last()
        .is_some_and(|last| !matches!(last, Operation::Closed | Operation::Archived { .. }));
    if may_follow && let Some(to) = state.history.excess(history_bytes_max) {
        build.operations.push(Operation::ForgetHistory { to });
    }
    build
}
