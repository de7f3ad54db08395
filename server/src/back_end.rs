//! Where everything is kept: in the data folder, or on the engines of a cluster.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use blob::Blobs;
use blob::dir::DirBlobs;
use blob_s3::S3Blobs;
use engine::{Engine, Hints, LogOptions};
use engine_cql::Cql;
use engine_embedded::Embedded;
use engine_move::{Moving, MovingBlobs, Standing};
use tokio::sync::watch;

use crate::config::Config;
use crate::migration::Migration;

/// The engine and the segments of this process, opened; on two sides while everything moves.
pub(crate) struct BackEnd {
    pub(crate) engine: Engine,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) migration: Migration,
    source: Side,
}

impl BackEnd {
    pub(crate) async fn open(config: &Config) -> anyhow::Result<Self> {
        let source = Box::pin(Side::open(config)).await?;
        if let Some(into) = Standing::into(&*source.engine.rows).await?
            && !into.done
        {
            bail!(
                "a move to this configuration has not ended: start the server with the one that it comes from, or carry \
                 on with `postrider migrate`"
            );
        }
        let away = Standing::away(&*source.engine.rows).await?;
        if let Some(Standing { done: true, place, .. }) = &away {
            // The lock of a folder says that whoever moved it has ended; of a cluster's engines nobody has one.
            let handed_over = match &source.embedded {
                Some(_) => Box::pin(hand_over(&source, Path::new(place))).await,
                None => Ok(false),
            };
            source.close().await;
            handed_over.with_context(|| format!("everything that was here has been moved to {place}"))?;
            bail!("everything that was here has been moved: start with {place}");
        }
        let moving = Moving::new(source.engine.clone());
        let segments = MovingBlobs::new(Arc::clone(&source.blobs));
        let (engine, blobs) = (moving.engine(), Arc::new(segments.clone()));
        let migration = Migration::new(moving, segments, config);
        if let Some(Standing { place, .. }) = away {
            // What has moved is to be found there only.
            migration.reopen(Path::new(&place)).await.with_context(|| format!("the move to {place}"))?;
        }
        Ok(Self { engine, blobs, migration, source })
    }

    /// Why nothing can be written any more, once that is so; for each engine that has such a state.
    pub(crate) fn poisoned(&self) -> Vec<watch::Receiver<Option<String>>> {
        self.source.poisoned().into_iter().chain([self.migration.poisoned()]).collect()
    }

    /// Segments as S3 has them, where they are there.
    pub(crate) fn s3(&self) -> Option<S3Blobs> {
        self.source.s3.clone()
    }

    /// Has everything that was here been moved, or is it being moved?
    pub(crate) async fn is_moving_away(&self) -> anyhow::Result<bool> {
        Ok(Standing::away(&*self.source.engine.rows).await?.is_some())
    }

    /// Closes it in order, when nothing uses it any more.
    pub(crate) async fn close(self) {
        let Self { engine, blobs, migration, source } = self;
        let target = migration.close().await;
        drop((engine, blobs));
        for side in [Some(source), target].into_iter().flatten() {
            side.close().await;
        }
    }
}

/// One engine and one place for segments.
pub(crate) struct Side {
    pub(crate) engine: Engine,
    pub(crate) blobs: Arc<dyn Blobs>,
    /// The embedded engine, which has to be closed in order.
    embedded: Option<Embedded>,
    /// Segments as S3 has them.
    s3: Option<S3Blobs>,
}

impl Side {
    pub(crate) async fn open(config: &Config) -> anyhow::Result<Self> {
        if config.in_cluster() { Self::on_cluster(config).await } else { Self::in_folder(config) }
    }

    fn in_folder(config: &Config) -> anyhow::Result<Self> {
        let embedded =
            Embedded::open(&config.data.join("engine"), config.engine.clone()).context("engine")?;
        #[cfg(not(feature = "sabotage"))]
        let segments = config.segments.clone();
        #[cfg(feature = "sabotage")]
        let segments = {
            tracing::error!("this build answers before anything is synced: it loses mail");
            blob::dir::DirConfig { answer_before_sync: true, ..config.segments.clone() }
        };
        let blobs = DirBlobs::open(&config.data.join("segments"), segments).context("segments")?;
        let engine = embedded.engine().with_hints(Hints::of_one_node());
        Ok(Self { engine, blobs: Arc::new(blobs), embedded: Some(embedded), s3: None })
    }

    async fn on_cluster(config: &Config) -> anyhow::Result<Self> {
        let cql = Box::pin(Cql::open(&config.cql)).await.context("cql")?;
        let blobs = S3Blobs::open(config.s3.clone()).await.context("s3")?;
        let hints = Hints::new(config.cluster.hint_logs_max);
        let (engine, s3) = (cql.engine().with_hints(hints), Some(blobs.clone()));
        Ok(Self { engine, blobs: Arc::new(blobs), embedded: None, s3 })
    }

    /// Why nothing can be written any more, once that is so. `None`: it has no such state.
    pub(crate) fn poisoned(&self) -> Option<watch::Receiver<Option<String>>> {
        self.embedded.as_ref().map(Embedded::poisoned)
    }

    /// Closes it in order.
    pub(crate) async fn close(self) {
        let Self { engine, blobs, embedded, s3 } = self;
        drop((engine, blobs, s3));
        // Joins the commit thread, so it does not belong on an async one.
        let closed = tokio::task::spawn_blocking(move || drop(embedded)).await;
        if closed.is_err() {
            tracing::error!("the engine panicked while it was closed");
        }
    }
}

/// The process that moved everything from `source` to the configuration at `to` died before its last step, which is to
/// hand over; or it did not, and nothing is to be done (`false`).
pub(crate) async fn hand_over(source: &Side, to: &Path) -> anyhow::Result<bool> {
    let target = Box::pin(Side::open(&Config::read(to)?)).await.context("the other side")?;
    let handed_over = engine_move::complete(&source.engine, &target.engine).await;
    target.close().await;
    Ok(handed_over?)
}

/// Whether there is a store at all that a command could look at.
pub(crate) fn is_there(config: &Config) -> bool {
    config.in_cluster() || Path::new(&config.data).join("engine").exists()
}

/// How logs are kept: as configured, but that other nodes may always commit to them in a cluster.
pub(crate) fn log_options(config: &Config) -> LogOptions {
    LogOptions {
        shared: config.in_cluster() || config.logs.shared,
        #[cfg(feature = "sabotage")]
        sabotage: planted(),
        ..config.logs.clone()
    }
}

/// The rule that this build leaves out.
#[cfg(feature = "sabotage")]
fn planted() -> Option<engine::Sabotage> {
    let name = std::env::var("POSTRIDER_SABOTAGE").ok()?;
    let sabotage = engine::Sabotage::named(&name).expect("a defect that is known");
    tracing::error!(?sabotage, "this build leaves out a rule: it loses mail");
    Some(sabotage)
}
