//! Who is logged in: so that a withdrawn login ends what goes on with it.
//!
//! Each service says whom it serves ([`Directory::logged_in`]) and ends the session when it is told. One task of the process
//! looks after all of them: at once after a change that was made here, and otherwise now and then, since another node may
//! have made one. A look reads each domain's head once, whoever of it is logged in.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;

use crate::login::Principal;
use crate::look::{Directory, Look, Temporary};

/// Logins whose sessions go on.
#[derive(Default)]
pub(crate) struct LoggedIn {
    next: AtomicU64,
    sessions: Mutex<HashMap<u64, Watched>>,
    /// Something was changed here.
    changed: Notify,
}

struct Watched {
    principal: Arc<Principal>,
    withdrawn: oneshot::Sender<()>,
}

/// A session that goes on with a login, until it is dropped.
#[derive(Debug)]
pub struct Login {
    directory: Directory,
    number: u64,
    withdrawn: oneshot::Receiver<()>,
}

impl Login {
    /// Waits until the login is withdrawn. Cancel-safe.
    pub async fn withdrawn(&mut self) {
        if (&mut self.withdrawn).await.is_err() {
            // Nobody looks any more: the process ends.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        self.directory.inner.logged_in.sessions.lock().remove(&self.number);
    }
}

impl LoggedIn {
    /// Logins are looked at anew, as soon as somebody looks.
    pub(crate) fn look(&self) {
        self.changed.notify_one();
    }
}

impl Directory {
    /// A session begins for somebody who has logged in.
    pub fn logged_in(&self, principal: &Principal) -> Login {
        let (sender, withdrawn) = oneshot::channel();
        let watched = Watched { principal: Arc::new(principal.clone()), withdrawn: sender };
        let number = self.inner.logged_in.next.fetch_add(1, Ordering::Relaxed);
        self.inner.logged_in.sessions.lock().insert(number, watched);
        Login { directory: self.clone(), number, withdrawn }
    }

    /// Looks after those who are logged in, for as long as the process runs.
    pub async fn look_after_logins(self) {
        let every = Duration::from_secs(self.config().logins_checked_seconds.max(1));
        loop {
            let look = tokio::select! {
                () = self.inner.logged_in.changed.notified() => Look::Known,
                () = sleep(every) => Look::Fresh,
            };
            if let Err(error) = self.end_withdrawn_logins(look).await {
                tracing::warn!(%error, "whether logins still hold is not known");
            }
        }
    }

    /// Tells sessions whose login does not hold any more.
    async fn end_withdrawn_logins(&self, look: Look) -> Result<(), Temporary> {
        let sessions: Vec<(u64, Arc<Principal>)> = {
            let sessions = self.inner.logged_in.sessions.lock();
            sessions.iter().map(|(number, watched)| (*number, Arc::clone(&watched.principal))).collect()
        };
        let mut looked_at = HashSet::new();
        for (number, principal) in sessions {
            // What follows for others of the domain sees what this one has read.
            let domain = principal.address.domain().to_string();
            let look =
                if look == Look::Fresh && looked_at.insert(domain) { Look::Fresh } else { Look::Known };
            if self.still_holds(&principal, look).await? {
                continue;
            }
            let watched = self.inner.logged_in.sessions.lock().remove(&number);
            if let Some(watched) = watched {
                tracing::info!(account_id = %principal.account, "a login was withdrawn; its session ends");
                // It may have ended meanwhile.
                let _ = watched.withdrawn.send(());
            }
        }
        Ok(())
    }
}
