//! `postrider account move`: takes an account to another region.
//!
//! The process that is given the command does it, with the configurations of a node of either region: it works on the
//! engines of both, beside the nodes that run there. Each step is one that can be done again, so whatever ends the
//! command, giving it once more goes on; where it stands is read from the directories of both regions.
//!
//! | what the directories have | what is next |
//! |---|---|
//! | the old one alone | close, copy, verify, open, make the record in the new one |
//! | both | hand the name over, remove the old record, delete the rest |
//! | the new one alone | delete what is left of the old |
//!
//! The instant in which the account moves is the commit that makes its record in the new region: before it, nothing of the
//! copy is of any use to anybody; after it, nothing of the original is.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use blob::BlobStore;
use directory::account::AccountEntry;
use engine::LogId;
use engine_move::{carry_log, discard_log};
use futures_util::{TryStreamExt as _, stream};
use mail::address::Address;
use mail::id::AccountId;
use mail::region::Region;
use storage::{CheckDepth, OpenError, Storage, StorageError};

use super::print;
use crate::args::Store;
use crate::back_end::log_options;
use crate::config::Config;
use crate::wire::{Ground, chain};

/// Blobs that are copied at one time.
const BLOBS_AT_ONCE: usize = 8;

/// Moves an account.
pub(crate) async fn run(address: &str, region: &str, to: &Path, store: &Store) -> anyhow::Result<()> {
    let address = Address::parse(address).with_context(|| format!("{address:?}"))?;
    let region: Region = region.parse()?;
    let (here, there) = (Config::of_store(store)?, Config::read(to)?);
    let Some(own) = here.regions.here()? else { bail!("regions.name: this installation is no region") };
    match there.regions.here()? {
        Some(name) if name == region && name != own => {}
        Some(name) => bail!("{} is of region {name}, and this is region {own}", to.display()),
        None => bail!("{} is of no region", to.display()),
    }
    let source = Box::pin(Ground::open(&here)).await.with_context(|| format!("region {own}"))?;
    let target = match Box::pin(Ground::open(&there)).await.with_context(|| format!("region {region}")) {
        Ok(target) => target,
        Err(error) => {
            source.close().await;
            return Err(error);
        }
    };
    let relocation = Relocation { source: &source, target: &target, here: &here, there: &there };
    let moved = Box::pin(relocation.run(&address, &region)).await;
    source.close().await;
    target.close().await;
    moved
}

struct Relocation<'a> {
    source: &'a Ground,
    target: &'a Ground,
    here: &'a Config,
    there: &'a Config,
}

impl Relocation<'_> {
    async fn run(&self, address: &Address, region: &Region) -> anyhow::Result<()> {
        let (source, target) = (&self.source.directory, &self.target.directory);
        let old = source.account_entry(address).await?;
        let new = target.account_entry(address).await?;
        let id = match (old, new) {
            (None, None) => bail!("no such account: {address}"),
            (Some(_), None) => {
                let moving = source.begin_move(address).await?;
                self.bring(address, moving).await?
            }
            (Some(old), Some(new)) if old.id != new.id => {
                bail!("{address} is another account in region {region}")
            }
            (_, Some(new)) => new.id,
        };
        source.hand_name_over(address, region).await?;
        print::line("the name leads there");
        source.end_move(address, id).await?;
        self.clear(id).await?;
        print::line(&format!("{address} is in region {region}"));
        Ok(())
    }

    /// Closes the account, and makes it in the other region.
    async fn bring(&self, address: &Address, moving: AccountEntry) -> anyhow::Result<AccountId> {
        let id = moving.id;
        self.source.storage.close_account(id).await.context("closing the account")?;
        let resting = self.source.storage.resting(id).await.context("the closed account")?;
        let resting = resting.context("the account was opened again by somebody else")?;
        print::line("the account is closed");
        let key = Storage::key_of(id);
        self.target.keys.carry(&self.source.keys, key).await.context("the account's key")?;
        let blobs = self.copy_blobs(id).await.context("messages")?;
        print::line(&format!("{blobs} blobs were copied"));
        let head = carry_log(&self.source.engine, &self.target.engine, LogId::account(id.0)).await?;
        head.context("the account has no log")?;
        // Opened anew, so that nothing is remembered of an earlier attempt.
        let storage = storage_of(self.target, self.there);
        let copy = storage.resting(id).await.context("the copy")?;
        if copy != Some(resting) {
            bail!("the copy is not what was copied: {copy:?} and not {resting:?}");
        }
        let report = storage.check(id, CheckDepth::Bodies).await.context("the copy")?;
        if let Some(problem) = report.problems.first() {
            bail!("the copy does not hold: {problem} ({} problems)", report.problems.len());
        }
        print::line(&format!("{} messages and {} bodies were verified", report.messages, report.bodies));
        storage.open_again(id).await.context("the copy")?;
        storage.close();
        self.target.directory.adopt_account(address, moving).await?;
        print::line("the account has moved");
        Ok(id)
    }

    async fn copy_blobs(&self, id: AccountId) -> Result<u64, OpenError> {
        let holder = Storage::holder(id);
        let (from, into) = (self.source.blobs.clone(), self.target.blobs.clone());
        let mut copied = 0;
        let each = async |holdings: Vec<storage::Holding>| {
            copied += holdings.len() as u64;
            let copies = stream::iter(holdings.into_iter().map(Ok::<_, StorageError>));
            let (from, into): (&BlobStore, &BlobStore) = (&from, &into);
            copies
                .try_for_each_concurrent(BLOBS_AT_ONCE, |holding| async move {
                    let carried = into.carry(from, &holding.address, holding.nonce, holder).await;
                    carried.map_err(|error| StorageError::Unavailable(chain(&error)))
                })
                .await
        };
        self.source.storage.holdings(id, each).await?;
        Ok(copied)
    }

    /// Deletes what the old region has of the account: references, log, and last the key, without which nothing of it is
    /// found again.
    async fn clear(&self, id: AccountId) -> anyhow::Result<()> {
        let storage = storage_of(self.source, self.here);
        let blobs = &self.source.blobs;
        let each = async |holdings: Vec<storage::Holding>| {
            let references =
                holdings.into_iter().map(|held| (held.address.segment, held.address.frame, held.nonce));
            let removed = blobs.unreference_many(references, Storage::holder(id)).await;
            removed.map_err(|error| StorageError::Unavailable(chain(&error)))
        };
        match storage.holdings(id, each).await {
            Ok(()) => {}
            // An earlier attempt has come so far.
            Err(OpenError::Missing) => {}
            Err(error) => return Err(error).context("what the account held"),
        }
        storage.close();
        discard_log(&self.source.engine, LogId::account(id.0)).await.context("the old log")?;
        self.source.keys.withdraw(Storage::key_of(id)).await.context("the old key")?;
        Ok(())
    }
}

/// The accounts of a region, with nothing of them in memory.
fn storage_of(ground: &Ground, config: &Config) -> Storage {
    Storage::new(
        ground.engine.clone(),
        log_options(config),
        Some(Arc::clone(&ground.archive)),
        ground.blobs.clone(),
        config.storage.clone(),
    )
}
