//! The feature level of an installation: up to where nodes may write, so that two releases can run side by side.
//!
//! It stands in one row, written by conditions alone, and only grows. A node whose release cannot read that level does
//! not start, and ends when it learns of a raise: heartbeats say which level their nodes know, so that also who was paused
//! meanwhile hears of it with the first look that it takes. It is no entry of the registry's log, since it has to be read
//! before any log is opened, by every release that ever was: a log's entries, root and seal may all be what a later level
//! has changed.
//!
//! Nobody decides to raise it but the nodes: once all that have a row can read more, those included that are held for dead
//! but not yet forgotten, and have been able to for [`Config::level_after_seconds`], one of them changes the row. Who
//! knows of it says so first, and writes at the new level when a node that cannot read it has had the time to end. Should
//! one go on all the same, it stops at the first entry that it does not know, as always: nothing is damaged.

use std::sync::Arc;
use std::time::Duration;

use engine::{FeatureLevel, Rows};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::agreement::{self, AgreementError};
use crate::config::Config;
use crate::membership::{Membership, View};

/// What it is called in the agreement.
const LEVEL: &str = "feature level";

/// The level of every installation that has none written down: that of the first release.
const FIRST: u32 = 1;

/// Why a release must not touch an installation.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// A later one has written what this one cannot read.
    #[error(
        "this installation has feature level {agreed}, and this release reads up to {own} only: start the release that the \
         other nodes run, or a later one; there is no way back to an earlier one"
    )]
    TooLow {
        /// Ours.
        own: u32,
        /// The one that is written down.
        agreed: u32,
    },
    /// What is written down is no level.
    #[error(
        "{0:?} is written down as the installation's feature level, which this release does not understand"
    )]
    NoLevel(String),
    /// It is not known.
    #[error(transparent)]
    Agreement(#[from] AgreementError),
}

/// The level that is written down, if this release can read it. The first to ask writes it down.
pub async fn admit(rows: &dyn Rows, own: u32) -> Result<u32, LevelError> {
    if agreement::agreed(rows, LEVEL).await?.is_none() {
        match agreement::agree(rows, LEVEL, &FIRST.to_string()).await {
            // Another was the first, and may be ahead by now.
            Ok(()) | Err(AgreementError::Differs { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let agreed = written(rows).await?;
    if agreed > own { Err(LevelError::TooLow { own, agreed }) } else { Ok(agreed) }
}

/// For the only process that has the engine: it writes all that it knows from now on, so earlier releases are out.
pub async fn take(rows: &dyn Rows, own: u32) -> Result<(), LevelError> {
    loop {
        let agreed = admit(rows, own).await?;
        if agreed == own || raise(rows, agreed, own).await? {
            return Ok(());
        }
    }
}

async fn written(rows: &dyn Rows) -> Result<u32, LevelError> {
    match agreement::agreed(rows, LEVEL).await? {
        Some(text) => text.parse().map_err(|_| LevelError::NoLevel(text)),
        // A row that is written by conditions alone is not deleted; whoever did it all the same began anew.
        None => Ok(FIRST),
    }
}

async fn raise(rows: &dyn Rows, from: u32, to: u32) -> Result<bool, LevelError> {
    Ok(agreement::change(rows, LEVEL, &from.to_string(), &to.to_string()).await?)
}

/// Follows the installation's level for a node, and raises it when the time has come. Ends when dropped.
#[derive(Debug)]
pub struct Levels {
    agreed: watch::Receiver<u32>,
    own: u32,
    task: JoinHandle<()>,
}

impl Drop for Levels {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Levels {
    /// `own` is what this release can read, `agreed` what [`admit`] said; `level` is what the process may write, which is
    /// that at first.
    pub fn start(
        rows: Arc<dyn Rows>,
        membership: Membership,
        level: FeatureLevel,
        own: u32,
        agreed: u32,
        config: &Config,
    ) -> Self {
        membership.say_agreed_level(agreed);
        let (sender, receiver) = watch::channel(agreed);
        let follower = Follower {
            rows,
            membership,
            level,
            own,
            heartbeat: config.heartbeat(),
            dead_after: config.dead_after(),
            after: config.level_after(),
            agreed: sender,
        };
        Self { agreed: receiver, own, task: tokio::spawn(follower.run()) }
    }

    /// The installation's level, as far as this node knows.
    pub fn agreed(&self) -> u32 {
        *self.agreed.borrow()
    }

    /// Waits until this node has to end, since others write what it cannot read, and says why.
    pub fn until_too_low(&self) -> impl Future<Output = LevelError> + Send + use<> {
        let (mut agreed, own) = (self.agreed.clone(), self.own);
        async move {
            match agreed.wait_for(|agreed| *agreed > own).await.map(|agreed| *agreed) {
                Ok(agreed) => LevelError::TooLow { own, agreed },
                // Nobody follows it any more.
                Err(_) => std::future::pending().await,
            }
        }
    }
}

struct Follower {
    rows: Arc<dyn Rows>,
    membership: Membership,
    level: FeatureLevel,
    own: u32,
    heartbeat: Duration,
    dead_after: Duration,
    after: Duration,
    agreed: watch::Sender<u32>,
}

impl Follower {
    async fn run(self) {
        let mut known = *self.agreed.borrow();
        let mut known_since = Instant::now();
        let mut possible: Option<(u32, Instant)> = None;
        loop {
            metrics::gauge!("postrider_cluster_feature_level").set(f64::from(known));
            sleep(self.heartbeat).await;
            let view = self.membership.view();
            let said = view.agreed_level();
            let next = self.next(&view, known);
            possible = next.map(|next| match possible {
                Some((same, since)) if same == next => (next, since),
                _ => (next, Instant::now()),
            });
            let ripe = possible.filter(|(_, since)| since.elapsed() >= self.after).map(|(next, _)| next);
            if said > known || ripe.is_some() {
                // What somebody says is looked up; what fails is done again with the next heartbeat.
                let seen = timeout(self.dead_after, self.raise_or_read(known, ripe)).await;
                let seen = match seen {
                    Ok(Ok(seen)) => seen,
                    Ok(Err(error)) => {
                        tracing::warn!(error = engine::with_causes(&error), "feature level not known");
                        continue;
                    }
                    Err(_) => continue,
                };
                if seen > known {
                    tracing::info!(
                        level = seen,
                        own = self.own,
                        "the installation has a higher feature level"
                    );
                    (known, known_since, possible) = (seen, Instant::now(), None);
                    self.agreed.send_replace(known);
                    if known > self.own {
                        return;
                    }
                    self.membership.say_agreed_level(known);
                }
            }
            if known > self.level.get() && known_since.elapsed() >= self.dead_after + self.heartbeat {
                tracing::info!(level = known, "writes at this feature level");
                self.level.raise(known);
            }
        }
    }

    /// What all nodes could read, if that is more than what is written. `None` also where it is not known who they are.
    fn next(&self, view: &View, known: u32) -> Option<u32> {
        if view.stale || self.membership.is_isolated() {
            return None;
        }
        view.feature_level().map(|all| all.min(self.own)).filter(|all| *all > known)
    }

    async fn raise_or_read(&self, known: u32, to: Option<u32>) -> Result<u32, LevelError> {
        if let Some(to) = to
            && raise(&*self.rows, known, to).await?
        {
            tracing::info!(
                level = to,
                "all nodes can read a higher feature level: it is the installation's now"
            );
            return Ok(to);
        }
        written(&*self.rows).await
    }
}

#[cfg(test)]
mod tests;
