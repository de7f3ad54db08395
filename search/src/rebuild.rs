//! Building the index anew, beside the one in use.

use std::sync::Arc;
use std::time::Duration;

use mail::id::AccountId;

use crate::error::SearchError;
use crate::follow::Step;
use crate::generation::Generation;
use crate::schema::Mark;
use crate::search::{Search, blocking};
use crate::shard::Change;

/// How far a rebuild is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Accounts that are in the new generation.
    pub done: usize,
    /// Accounts that could not be read, and will be followed later.
    pub failed: usize,
    /// Accounts in all.
    pub total: usize,
}

/// How long an account is worked on before progress is told.
const TURN: Duration = Duration::from_secs(10);

impl Search {
    /// Builds a new generation with these accounts and swings to it. Until then the old one answers; an account that is
    /// not in the list, or came too late, is one that has not been indexed yet. `tell` hears how far it is.
    pub async fn rebuild(
        &self,
        mut accounts: Vec<AccountId>,
        mut tell: impl FnMut(Progress),
    ) -> Result<Progress, SearchError> {
        let Ok(_one_at_a_time) = self.inner.rebuilding.try_lock() else {
            return Err(SearchError::Unavailable("the index is being rebuilt already".to_owned()));
        };
        let (config, fields) = (self.inner.config.clone(), self.inner.fields.clone());
        let fresh = Arc::new(blocking(move || Generation::begin(&config, &fields)).await?);
        let mut progress = Progress { done: 0, failed: 0, total: accounts.len() };
        // Shard by shard, so that there is one writer.
        accounts.sort_by_key(|account| (fresh.place(*account), *account));
        // Whoever erases an account meanwhile erases it there too.
        *self.inner.building.lock() = Some(fresh.clone());
        let filled = self.fill(&fresh, &accounts, &mut progress, &mut tell).await;
        if let Err(error) = filled {
            *self.inner.building.lock() = None;
            let _ = blocking(move || fresh.remove()).await;
            return Err(error);
        }
        let (config, made) = (self.inner.config.clone(), fresh.clone());
        blocking(move || made.make_current(&config)).await?;
        let old = std::mem::replace(&mut *self.inner.generation.write(), fresh);
        *self.inner.building.lock() = None;
        blocking(move || old.remove()).await?;
        // What came meanwhile is above the marks.
        for account in accounts {
            self.note(account);
        }
        Ok(progress)
    }

    async fn fill(
        &self,
        fresh: &Arc<Generation>,
        accounts: &[AccountId],
        progress: &mut Progress,
        tell: &mut impl FnMut(Progress),
    ) -> Result<(), SearchError> {
        for (at, account) in accounts.iter().enumerate() {
            let shard = fresh.shard(*account);
            let old = self.shard(*account);
            // When it was read last is known nowhere else.
            let (id, kept) = (*account, shard.clone());
            blocking(move || {
                // A list may name an account twice.
                if kept.progress(id)? != Mark::NONE {
                    return Ok(());
                }
                let read_day = old.mark(id).map_or(0, |mark| mark.read_day);
                let mark = Mark { read_day, ..Mark::NONE };
                let before = Mark::NONE;
                kept.change(&Change { account: id, added: &[], destroyed: &[], before, mark, anew: false })
            })
            .await?;
            loop {
                match self.follow(shard, *account, TURN, true).await {
                    Ok(Step::More) => tell(*progress),
                    Ok(Step::Done) => {
                        progress.done += 1;
                        break;
                    }
                    Err(SearchError::Storage(error)) => {
                        tracing::warn!(account_id = %account, %error, "account left out of the rebuilt index");
                        progress.failed += 1;
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            self.commit_when_due(shard).await?;
            tell(*progress);
            let is_last = accounts.get(at + 1).is_none_or(|next| fresh.place(*next) != fresh.place(*account));
            if is_last {
                let shard = shard.clone();
                blocking(move || {
                    shard.commit()?;
                    shard.rest();
                    Ok(())
                })
                .await?;
            }
        }
        Ok(())
    }
}
