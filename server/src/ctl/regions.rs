//! `postrider cluster regions`: works on the stores themselves, whether a server runs or not.

use anyhow::bail;
use directory::admin::Registered;

use super::print;
use crate::args::Store;
use crate::config::Config;
use crate::wire::Ground;

/// Puts the names of this region into the table of all. An error says that some are another region's.
pub(crate) async fn register(store: &Store) -> anyhow::Result<()> {
    let config = Config::of_store(store)?;
    if config.regions.here()?.is_none() {
        bail!("regions.name: this installation is no region");
    }
    let ground = Box::pin(Ground::open(&config)).await?;
    let registered = ground.directory.register_names().await;
    ground.close().await;
    let Registered { claimed, known, elsewhere } = registered?.unwrap_or_default();
    print::line(&format!("{claimed} names are in the regions' table now, {known} were there"));
    for (name, region) in &elsewhere {
        print::line(&format!("{name} is in region {region}"));
    }
    match elsewhere.len() {
        0 => Ok(()),
        count => bail!("{count} names are here and, as the regions' table has it, in another region"),
    }
}
