//! Moving everything to the back ends of another configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use blob::keys::KeyEncryptionKey;
use engine_move::{Moving, MovingBlobs, Relocation, Standing};
use tokio::sync::{Mutex, watch};
use webmail_api::admin::migration::MigrationView;

use crate::back_end::Side;
use crate::config::Config;

/// What the move has in hand may take so long, before the process ends all the same.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// Says why it cannot move: others work on the same.
pub(crate) type Alone = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// A move, or the possibility of one. Clones are one.
#[derive(Clone)]
pub(crate) struct Migration(Arc<Inner>);

struct Inner {
    /// What moves. Gone when the process ends, so that both sides can be closed whoever still asks how far it is.
    parts: parking_lot::Mutex<Option<(Moving, MovingBlobs)>>,
    source: Config,
    target: Mutex<Option<Side>>,
    /// Held while the move works.
    at_work: Mutex<()>,
    shown: parking_lot::Mutex<Shown>,
    /// Why the other side takes no more writes.
    broken: watch::Sender<Option<String>>,
}

/// What whoever opens the other side knows of the move.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begun {
    /// It may begin now.
    Perhaps,
    /// An earlier process began it.
    Before,
}

/// What is known of it at once.
#[derive(Default)]
struct Shown {
    to: Option<PathBuf>,
    relocation: Option<Relocation>,
    working: bool,
    trouble: Option<String>,
}

impl Migration {
    pub(crate) fn new(moving: Moving, segments: MovingBlobs, source: &Config) -> Self {
        Self(Arc::new(Inner {
            parts: parking_lot::Mutex::new(Some((moving, segments))),
            source: source.clone(),
            target: Mutex::default(),
            at_work: Mutex::default(),
            shown: parking_lot::Mutex::default(),
            broken: watch::Sender::default(),
        }))
    }

    /// Opens the other side. From then on what is written goes to both, and nothing moves before [`Self::run`].
    pub(crate) async fn open(&self, to: &Path) -> anyhow::Result<()> {
        self.open_as(to, Begun::Perhaps).await
    }

    /// The same at a start that finds a move under way.
    pub(crate) async fn reopen(&self, to: &Path) -> anyhow::Result<()> {
        self.open_as(to, Begun::Before).await
    }

    async fn open_as(&self, to: &Path, begun: Begun) -> anyhow::Result<()> {
        let mut target = self.0.target.lock().await;
        if target.is_some() {
            if self.0.shown.lock().to.as_deref() == Some(to) {
                return Ok(());
            }
            bail!("a move to somewhere else is under way");
        }
        let config = Config::read(to)?;
        self.same_key(&config)?;
        if config.data == self.0.source.data && config.in_cluster() == self.0.source.in_cluster() {
            bail!("{} is where everything is", to.display());
        }
        let side = Box::pin(Side::open(&config)).await.context("the other side")?;
        let opened = self.open_side(to, &config, &side, begun).await;
        if let Err(error) = opened {
            side.close().await;
            return Err(error);
        }
        if let Some(mut poisoned) = side.poisoned() {
            let broken = self.0.broken.clone();
            tokio::spawn(async move {
                if let Ok(why) = poisoned.wait_for(Option::is_some).await {
                    broken.send_replace(why.clone());
                }
            });
        }
        *target = Some(side);
        Ok(())
    }

    async fn open_side(&self, to: &Path, config: &Config, side: &Side, begun: Begun) -> anyhow::Result<()> {
        let unknown = Standing::into(&*side.engine.rows).await?.is_none();
        if begun == Begun::Before && self.0.source.in_cluster() && unknown {
            // Every machine may have such a file and an empty folder.
            bail!(
                "it was begun on another machine, and no other node may run meanwhile; if it was here, give the command \
                 `postrider migrate` once more"
            );
        }
        if config.in_cluster() {
            crate::cluster::key(config, &*side.engine.rows).await?;
        }
        // What follows must not fail for a reason that can be found out before.
        side.blobs.unsealed().await.context("segments of the other side")?;
        let place = to.to_str().context("the path of the configuration is not UTF-8")?;
        let parts = self.0.parts.lock().clone();
        let (moving, segments) = parts.context("the process ends")?;
        moving.begin(side.engine.clone(), place).await?;
        segments.begin(Arc::clone(&side.blobs)).await.context("the server has to be started again")?;
        let relocation = Relocation::new(moving, segments);
        let mut shown = self.0.shown.lock();
        (shown.to, shown.relocation) = (Some(to.to_owned()), Some(relocation));
        Ok(())
    }

    /// Why nothing can be written to the other side any more, once that is so.
    pub(crate) fn poisoned(&self) -> watch::Receiver<Option<String>> {
        self.0.broken.subscribe()
    }

    /// What is stored stays sealed by the same key, so the other side has to have it.
    fn same_key(&self, config: &Config) -> anyhow::Result<()> {
        let path = config.key_path();
        if !path.exists() {
            bail!("{} is not there: copy {} to it", path.display(), self.0.source.key_path().display());
        }
        let theirs =
            KeyEncryptionKey::read_or_create(&path).context("key-encryption key of the other side")?;
        let ours =
            KeyEncryptionKey::read_or_create(&self.0.source.key_path()).context("key-encryption key")?;
        if ours.fingerprint() != theirs.fingerprint() {
            bail!("{} is another key than {}", path.display(), self.0.source.key_path().display());
        }
        Ok(())
    }

    /// Works until everything is at the other side.
    pub(crate) async fn run(&self) -> anyhow::Result<bool> {
        let relocation = self.0.shown.lock().relocation.clone();
        let relocation = relocation.context("nothing moves")?;
        let _at_work = self.0.at_work.lock().await;
        let done = relocation.run().await?;
        if done {
            tracing::info!("everything has moved; the server is to be started with the other configuration");
        }
        Ok(done)
    }

    /// Opens the other side and works, beside everything else. `alone` says why not, where others work on the same. An
    /// error says why it does not begin.
    pub(crate) fn start(&self, to: PathBuf, alone: Alone) -> Result<(), String> {
        {
            let mut shown = self.0.shown.lock();
            let elsewhere = shown.to.as_ref() != Some(&to);
            if elsewhere && (shown.working || shown.relocation.is_some()) {
                return Err("a move to somewhere else is under way".to_owned());
            }
            if shown.working {
                return Ok(());
            }
            shown.working = true;
            shown.trouble = None;
            shown.to = Some(to.clone());
        }
        let this = self.clone();
        tokio::spawn(async move {
            let outcome = this.open_and_run(&to, alone).await;
            let mut shown = this.0.shown.lock();
            shown.working = false;
            if let Err(error) = outcome {
                let why = format!("{error:#}");
                tracing::error!(error = why, "the move does not go on");
                shown.trouble = Some(why);
            }
        });
        Ok(())
    }

    async fn open_and_run(&self, to: &Path, alone: Alone) -> anyhow::Result<()> {
        self.open(to).await?;
        if self.0.source.in_cluster() {
            // Whoever starts from now on sees that everything moves. Who was about to start is seen by then.
            tokio::time::sleep(3 * Duration::from_millis(self.0.source.cluster.heartbeat_ms)).await;
            alone().map_err(|why| anyhow!(why))?;
        }
        drop(alone);
        self.run().await.map(drop)
    }

    /// Goes on with a move that an earlier process began.
    pub(crate) fn resume(&self, alone: Alone) {
        let to = self.0.shown.lock().to.clone();
        if let Some(Err(why)) = to.map(|to| self.start(to, alone)) {
            tracing::error!(why, "the move does not go on");
        }
    }

    /// How far it is. `None`: nothing moves.
    pub(crate) fn view(&self) -> Option<MigrationView> {
        let shown = self.0.shown.lock();
        let to = shown.to.as_ref()?.display().to_string();
        let Some(relocation) = &shown.relocation else {
            return Some(MigrationView {
                to,
                stage: "opening",
                logs_done: 0,
                logs_total: 0,
                segments_done: 0,
                segments_total: 0,
                rows: 0,
                bytes: 0,
                seconds: 0.0,
                trouble: shown.trouble.clone(),
                running: shown.working,
            });
        };
        let progress = relocation.progress();
        Some(MigrationView {
            to,
            stage: progress.stage.name(),
            logs_done: progress.logs_done,
            logs_total: progress.logs_total,
            segments_done: progress.segments_done,
            segments_total: progress.segments_total,
            rows: progress.rows,
            bytes: progress.bytes,
            seconds: progress.seconds,
            trouble: progress.trouble.or_else(|| shown.trouble.clone()),
            running: shown.working,
        })
    }

    /// Stops it, when nothing else in the process works any more. Where only segments were missing that messages were
    /// still written into, they are closed by now, and the move ends here. Gives back the other side, to be closed.
    pub(crate) async fn close(self) -> Option<Side> {
        let relocation = self.0.shown.lock().relocation.take();
        let parts = self.0.parts.lock().take();
        if let (Some(relocation), Some((moving, segments))) = (relocation, parts) {
            relocation.stop();
            match tokio::time::timeout(STOP_PATIENCE, self.0.at_work.lock()).await {
                Ok(_at_work) => finish(&relocation, &Relocation::new(moving, segments)).await,
                Err(_) => tracing::warn!("the move does not stop; the next start goes on"),
            }
        }
        self.0.target.lock().await.take()
    }
}

/// What the process can still do when it ends.
async fn finish(stopped: &Relocation, last: &Relocation) {
    if stopped.progress().waits_for_segments
        && let Err(error) = last.advance().await
    {
        tracing::warn!(error = engine::with_causes(&error), "the move has not ended; the next start goes on");
    }
    match last.hand_over().await {
        Ok(true) => tracing::info!("everything has moved; start with the other configuration"),
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(
                error = engine::with_causes(&error),
                "not handed over: give `postrider migrate` once more"
            );
        }
    }
}
