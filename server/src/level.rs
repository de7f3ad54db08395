//! Which feature level this release has, and which the installation.

use cluster::level;
use engine::{FeatureLevel, Rows};

use crate::config::Config;

/// What this release can read and write, see `storage/DESIGN.md`. Raised with every operation or format that earlier
/// releases do not know; what came with it is written where [`FeatureLevel::allows`] says so.
const FEATURE_LEVEL: u32 = 1;

/// A process that may work on an installation.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    /// What it can read.
    pub(crate) own: u32,
    /// The installation's level at its start.
    pub(crate) agreed: u32,
    /// What it may write.
    pub(crate) level: FeatureLevel,
}

/// What this release can read.
fn own() -> u32 {
    // There is one level so far. Tests of two releases side by side need another, and no installation does.
    #[cfg(debug_assertions)]
    if let Ok(level) = std::env::var("POSTRIDER_TEST_FEATURE_LEVEL")
        && let Ok(level) = level.parse()
    {
        return level;
    }
    FEATURE_LEVEL
}

/// Refuses where a later release has written what this one cannot read. In a cluster the nodes raise the level when all of
/// them can read it; who is alone does so at once.
pub(crate) async fn admit(config: &Config, rows: &dyn Rows) -> anyhow::Result<Admitted> {
    let own = own();
    if config.in_cluster() {
        let agreed = level::admit(rows, own).await?;
        return Ok(Admitted { own, agreed, level: FeatureLevel::at(agreed) });
    }
    level::take(rows, own).await?;
    Ok(Admitted { own, agreed: own, level: FeatureLevel::newest() })
}
