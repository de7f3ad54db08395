//! `postrider account move`: takes an account to another region.
//!
//! The process that is given the command does it, with the configurations of a node of either region: it works on the
//! engines of both, beside the nodes that run there. Each step is one that can be done again, so whatever ends the
//! command, giving it once more goes on; where it stands is read from the regions' table and the directories of both.
//!
//! | the name is | the record in the new region | what is next |
//! |---|---|---|
//! | here | none, or says *moving* | close, copy, verify, open; then the record there |
//! | here | is that of an account in use | hand the name over |
//! | there | is that of an account in use | note what was delivered here, remove the old record, delete the rest |
//! | there | says *moving* | nothing: it is on its way somewhere else |
//!
//! The instant in which the account moves is the commit that brings its record in the new region into use: before it,
//! nothing of the copy is of any use to anybody; after it, nothing of the original is.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use blob::BlobStore;
use directory::account::{AccountEntry, AccountStatus};
use directory::admin::Expected;
use directory::journey::Stage;
use engine::{LogId, with_causes};
use engine_move::{carry_log, discard_log};
use futures_util::{TryStreamExt as _, stream};
use mail::address::Address;
use mail::id::AccountId;
use mail::region::Region;
use storage::{CheckDepth, Holding, OpenError, Resting, Storage, StorageError};
use webmail_api::admin::audit::{Act, Audit as _};
use webmail_api::admin::caller::Caller;

use super::print;
use crate::args::Store;
use crate::back_end::log_options;
use crate::config::Config;
use crate::wire::Ground;

/// Blobs that are copied at one time.
const BLOBS_AT_ONCE: usize = 8;
/// Copies of an account whose log a node was just putting into the archive.
const COPIES_MAX: usize = 4;

/// Moves an account.
pub(crate) async fn run(address: &str, region: &str, to: &Path, store: &Store) -> anyhow::Result<()> {
    let address = Address::parse(address).with_context(|| format!("{address:?}"))?;
    let region: Region = region.parse()?;
    let (here, there) = (Config::of_store(store)?, Config::read(to)?);
    let Some(own) = here.regions.here()? else { bail!("regions.name: this installation is no region") };
    if region == own {
        bail!(
            "this is region {own} itself; the configuration of the account's region now goes with --config"
        );
    }
    if !here.regions.others.iter().any(|other| other.name == region) {
        bail!("no region {region} is configured here (regions.others)");
    }
    match there.regions.here()? {
        Some(name) if name == region => {}
        Some(name) => bail!("{} is of region {name} and not of {region}", to.display()),
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
    let relocation = Relocation {
        source: &source,
        target: &target,
        here: &here,
        there: &there,
        own: &own,
        region: &region,
    };
    let moved = Box::pin(relocation.written_down(&address)).await;
    source.close().await;
    target.close().await;
    moved
}

struct Relocation<'a> {
    source: &'a Ground,
    target: &'a Ground,
    here: &'a Config,
    there: &'a Config,
    own: &'a Region,
    region: &'a Region,
}

impl Relocation<'_> {
    /// As every act of an operator it is in the audit log before it begins, and when it has ended: in that of either region.
    async fn written_down(&self, address: &Address) -> anyhow::Result<()> {
        let (subject, object) = (address.to_string(), format!("to region {}", self.region));
        let act = |status| Act {
            number: 0,
            caller: &Caller::Process,
            method: "account move",
            path: &subject,
            object: Some(&object),
            status,
        };
        for ground in [self.source, self.target] {
            ground.audit.act(&act(None)).await.context("audit log")?;
        }
        let moved = Box::pin(self.run(address)).await;
        let status = if moved.is_ok() { 200 } else { 500 };
        for ground in [self.source, self.target] {
            ground.audit.act(&act(Some(status))).await.context("audit log")?;
        }
        moved
    }

    async fn run(&self, address: &Address) -> anyhow::Result<()> {
        let &Self { own, region, .. } = self;
        let (source, target) = (&self.source.directory, &self.target.directory);
        let home = source.home_of(address).await?;
        let old = source.account_entry(address).await?;
        let new = target.account_entry(address).await.with_context(|| format!("region {region}"))?;
        if let (Some(old), Some(new)) = (&old, &new)
            && old.id != new.id
        {
            bail!("{address} is another account in region {region}")
        }
        let is_moving = |account: &AccountEntry| matches!(account.status, AccountStatus::Moving { .. });
        let arrived = new.as_ref().filter(|account| !is_moving(account));
        if home.as_ref().is_some_and(|home| home != own && home != region) {
            bail!("{address} is in region {}", home.map(|home| home.to_string()).unwrap_or_default())
        }
        let id = match (home.as_ref() == Some(region), arrived, &old) {
            (true, Some(new), None) => {
                // What an earlier attempt may have left.
                self.clear(address, new.id).await?;
                print::line(&format!("{address} is in region {region} already"));
                return Ok(());
            }
            (_, Some(new), Some(_)) => new.id,
            (true, None, _) if new.is_some() => {
                bail!("{address} is on its way from region {region}; that has to be finished first")
            }
            (true, None, _) => bail!("no such account: {address}, though its name is in region {region}"),
            (false, _, Some(_)) => self.bring(address).await?,
            (false, _, None) => bail!("no such account: {address}"),
        };
        source.hand_name_over(address, region).await?;
        print::line(&format!("its name leads to region {region}"));
        self.leave(address, id).await?;
        print::line("what waits for it here goes after it");
        self.clear(address, id).await?;
        print::line(&format!("{address} is in region {region}"));
        Ok(())
    }

    /// Closes the account, and makes it in the other region.
    async fn bring(&self, address: &Address) -> anyhow::Result<AccountId> {
        let moving = self.source.directory.begin_move(address).await?;
        let id = moving.id;
        let expected = self.target.directory.expect_account(address, &moving).await?;
        let Expected::Attempt(attempt) = expected else { return Ok(id) };
        self.source.storage.close_account(id).await.context("closing the account")?;
        print::line("the account is closed");
        self.target.keys.carry(&self.source.keys, Storage::key_of(id)).await.context("the account's key")?;
        // An earlier attempt has verified its copy before it opened it; and that one must not be made anew, since a node may
        // have seen how it was opened.
        let storage = storage_of(self.target, self.there);
        let is_open = matches!(storage.resting(id).await, Ok(None));
        storage.close();
        if is_open {
            return self.adopt(address, id, attempt).await;
        }
        for _ in 0..COPIES_MAX {
            let resting = self.source.storage.resting(id).await.context("the closed account")?;
            let resting = resting.context("the account was opened again by somebody else")?;
            let blobs = self.copy_blobs(id).await.context("messages")?;
            let head = carry_log(&self.source.engine, &self.target.engine, LogId::account(id.0)).await?;
            if head.context("the account has no log")?.seq != resting.seq {
                // A node has put more of it into the archive: nothing that the copy could do without.
                continue;
            }
            print::line(&format!("{blobs} blobs are copied"));
            self.verify(id, resting).await?;
            return self.adopt(address, id, attempt).await;
        }
        bail!("the account's log does not come to rest")
    }

    /// The instant in which the account moves.
    async fn adopt(&self, address: &Address, id: AccountId, attempt: u64) -> anyhow::Result<AccountId> {
        self.target.directory.adopt_account(address, id, attempt).await?;
        print::line("the account has moved");
        Ok(id)
    }

    /// Reads everything of the copy, and opens it.
    async fn verify(&self, id: AccountId, resting: Resting) -> anyhow::Result<()> {
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
        print::line(&format!("{} messages and {} bodies are verified", report.messages, report.bodies));
        storage.open_again(id, self.own, self.region).await.context("the copy")?;
        storage.close();
        Ok(())
    }

    /// Notes what was delivered to the account here, and removes its record.
    async fn leave(&self, address: &Address, id: AccountId) -> anyhow::Result<()> {
        let directory = &self.source.directory;
        self.target.directory.arrived(id, address).await?;
        let Some(old) = directory.account_entry(address).await?.filter(|old| old.id == id) else {
            return Ok(());
        };
        // Before the log is read: whoever changes it next, because the account comes back, writes the row first.
        let journey = directory.journey(id).await?.context("nothing is known of the account's journey")?;
        if matches!(journey.stage, Stage::Away { .. }) {
            return Ok(directory.end_move_again(address, &old).await?);
        }
        let storage = storage_of(self.source, self.here);
        if storage.resting(id).await.context("the old account")?.is_none() {
            bail!("the account was opened again by somebody else");
        }
        let delivered = storage.deliveries(id).await.context("the old account")?;
        storage.close();
        Ok(directory.end_move(address, &old, &journey, delivered.encode()).await?)
    }

    async fn copy_blobs(&self, id: AccountId) -> Result<u64, OpenError> {
        let holder = Storage::holder(id);
        let (from, into) = (self.source.blobs.clone(), self.target.blobs.clone());
        let mut copied = 0;
        let each = async |holdings: Vec<Holding>| {
            copied += holdings.len() as u64;
            let copies = stream::iter(holdings.into_iter().map(Ok::<_, StorageError>));
            let (from, into): (&BlobStore, &BlobStore) = (&from, &into);
            copies
                .try_for_each_concurrent(BLOBS_AT_ONCE, |holding| async move {
                    let carried = into.carry(from, &holding.address, holding.nonce, holder).await;
                    carried.map_err(|error| StorageError::Unavailable(with_causes(&error)))
                })
                .await
        };
        self.source.storage.holdings(id, each).await?;
        Ok(copied)
    }

    /// Deletes what the old region has of the account: references, log, and last the key, without which nothing of it is
    /// found again.
    async fn clear(&self, address: &Address, id: AccountId) -> anyhow::Result<()> {
        if self.source.directory.account_entry(address).await?.is_some() {
            bail!("{address} is on its way back");
        }
        let storage = storage_of(self.source, self.here);
        let blobs = &self.source.blobs;
        let each = async |holdings: Vec<Holding>| {
            let held = holdings.into_iter().map(|held| (held.address, held.nonce)).collect();
            let let_go = blobs.let_go(held, Storage::holder(id)).await;
            let_go.map_err(|error| StorageError::Unavailable(with_causes(&error)))
        };
        match storage.holdings(id, each).await {
            // Missing: an earlier attempt has come so far.
            Ok(()) | Err(OpenError::Missing) => {}
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
