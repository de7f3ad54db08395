//! The search index of this process: opened beside the stores, told of what happens in them, and closed in order.

use anyhow::Context;
use engine::{Engine, Following, LogKind};
use mail::id::AccountId;
use search::Search;
use storage::Storage;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::config::Config;

/// The index, and the task that keeps it up.
pub(crate) struct Index {
    pub(crate) search: Search,
    /// What the engine says goes to the index.
    following: Following,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Index {
    /// Opens it. `None` in a cluster, where an index would be a node's own: searches look into the messages there.
    pub(crate) async fn open(
        config: &Config,
        engine: &Engine,
        storage: &Storage,
    ) -> anyhow::Result<Option<Self>> {
        if config.in_cluster() {
            return Ok(None);
        }
        let dir = config.data.join(&config.search.dir);
        let mut settings = search::Config { dir, ..config.search.clone() };
        // This very program, though its file may have been replaced since.
        settings.attachments.program = Some(("/proc/self/exe".into(), vec!["extract-text".to_owned()]));
        let search = Search::open(storage.clone(), settings).await.context("search index")?;
        let hears = search.clone();
        let following = engine.hints.follow(move |log| {
            if log.kind == LogKind::Account {
                hears.note(AccountId(log.id));
            }
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let runs = search.clone();
        let task = tokio::spawn(async move {
            runs.run(async {
                // Dropped or sent, it is the end.
                let _ = stopped.await;
            })
            .await;
        });
        Ok(Some(Self { search, following, stop, task }))
    }

    /// Commits what has come, and lets go of everything.
    pub(crate) async fn close(self) {
        let Self { search, following, stop, task } = self;
        drop(following);
        let _ = stop.send(());
        if let Err(error) = task.await {
            tracing::error!(%error, "the search index did not end in order");
        }
        drop(search);
    }
}
