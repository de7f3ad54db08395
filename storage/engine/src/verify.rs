//! Checking a log, for `postrider check`: what is stored must be what was committed.
//!
//! The tail is dense and its hash chain unbroken; the root is what its digest says; every page of every part can be read
//! and is understood; and where there is an archive, a fold of everything from the beginning gives the same state as
//! snapshot and tail. Nothing is changed. Commits may go on meanwhile: the check looks at the log as its first read
//! found it, and starts again when the snapshot is replaced under it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::archive::Archive;
use crate::chunk::{Chunk, ChunkBase};
use crate::context::{Context, Engine, OpenError};
use crate::error::{ArchiveError, EngineError};
use crate::id::{LogId, PageId};
use crate::load::read_root;
use crate::log::{EntryRow, Head};
use crate::options::LogOptions;
use crate::seal::Sealer;
use crate::state::{PartPages, State};
use crate::stats::Counters;
use crate::stored::{CHAIN_START, ChainHash, Root, open_page};

/// Problems kept; more of the same kind say nothing new.
const PROBLEMS_MAX: usize = 100;

/// How often the check starts again when the snapshot is replaced under it.
const ATTEMPTS: u32 = 5;

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// The head.
    pub seq: u64,
    /// The snapshot.
    pub snapshot_seq: u64,
    /// Entries whose chain was followed in the log.
    pub entries: u64,
    /// Pages that were read.
    pub pages: u64,
    /// Entries that were folded from the archive.
    pub archived_entries: u64,
    /// Whether snapshot and tail were compared with a fold from the beginning.
    pub compared: bool,
    /// What is wrong, in words.
    pub problems: Vec<String>,
}

impl Verified {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    fn problem(&mut self, problem: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }
}

/// Checks one log. An error means that it could not be checked, not that it is damaged.
pub async fn verify<S: State>(
    engine: &Engine,
    log: LogId,
    sealer: Arc<dyn Sealer>,
    archive: Option<Arc<dyn Archive>>,
) -> Result<Verified, EngineError> {
    let context = Context {
        log,
        engine: engine.clone(),
        sealer,
        archive,
        options: Arc::new(LogOptions::default()),
        counters: Arc::new(Counters::new()),
        snapshots: Arc::new(Semaphore::new(1)),
    };
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let Some(head) = engine.log.head(log).await? else {
            let mut verified = Verified::default();
            verified.problem("there is no such log".into());
            return Ok(verified);
        };
        let verified = verify_once::<S>(&context, head).await?;
        let still = engine.log.head(log).await?.is_some_and(|now| now.snapshot.id == head.snapshot.id);
        if verified.is_sound() || still {
            return Ok(verified);
        }
        last = Some(verified);
    }
    Ok(last.expect("at least one attempt was made"))
}

/// A state on its way through the entries.
struct Walk<S> {
    state: S,
    seq: u64,
    chain: ChainHash,
}

async fn verify_once<S: State>(context: &Context, head: Head) -> Result<Verified, EngineError> {
    let snapshot = head.snapshot;
    let mut verified = Verified { seq: head.seq, snapshot_seq: snapshot.seq, ..Verified::default() };
    let root = match temporary(read_root(context, snapshot).await)? {
        Ok(root) => root,
        Err(error) => {
            verified.problem(format!("root: {}", crate::with_causes(&error)));
            return Ok(verified);
        }
    };
    let Some(mut walk) = start::<S>(context.log, &root, &mut verified) else { return Ok(verified) };
    install_all(context, &mut walk.state, &mut verified, None).await?;
    if snapshot.seq == 0 && root.chain != CHAIN_START {
        verified.problem("the first snapshot carries a hash of entries before it".into());
    }
    let (rows, dense) = tail(context, snapshot.seq, head.seq).await?;
    if !dense {
        verified.problem(format!("entries after {} are not dense up to {}", snapshot.seq, head.seq));
        return Ok(verified);
    }
    let mut at_head = true;
    for row in &rows {
        if let Err(error) = context.fold_row(&mut walk.state, &mut walk.seq, &mut walk.chain, row) {
            verified.problem(crate::with_causes(&error));
            at_head = false;
            break;
        }
        verified.entries += 1;
    }
    // Entries may have changed parts that had no pages to be loaded before.
    install_all(context, &mut walk.state, &mut verified, None).await?;
    let Some(archive) = context.archive.clone() else { return Ok(verified) };
    // Of a state with holes a comparison would tell nothing new.
    if at_head && verified.is_sound() && !walk.state.archived().address.is_empty() {
        compare(context, &*archive, &root, &walk, &mut verified).await?;
    }
    Ok(verified)
}

fn start<S: State>(log: LogId, root: &Root, verified: &mut Verified) -> Option<Walk<S>> {
    match S::from_root(log, &root.state) {
        Ok(state) => {
            if state.digest() != root.digest {
                verified.problem(format!("root at {} does not match its digest", root.seq));
            }
            Some(Walk { state, seq: root.seq, chain: root.chain })
        }
        Err(error) => {
            verified.problem(format!("root at {}: {error}", root.seq));
            None
        }
    }
}

/// Loads every part, from the engine or from the pages given.
async fn install_all<S: State>(
    context: &Context,
    state: &mut S,
    verified: &mut Verified,
    from: Option<&BTreeMap<PageId, Bytes>>,
) -> Result<(), EngineError> {
    for part in state.parts() {
        // Inner pages lead to others.
        while let PartPages::Missing(ids) = state.pages_of(&part) {
            let pages = match from {
                Some(known) => known_pages(context, known, &ids),
                None => temporary(context.pages(&ids).await)?,
            };
            let installed = match pages {
                Ok(pages) => {
                    verified.pages += pages.len() as u64;
                    state.install(&part, pages).map_err(|error| error.to_string())
                }
                Err(error) => Err(crate::with_causes(&error)),
            };
            if let Err(error) = installed {
                verified.problem(format!("{part:?}: {error}"));
                break;
            }
            if state.pages_of(&part) == PartPages::Missing(ids) {
                verified.problem(format!("{part:?} asks for the pages that it was given"));
                break;
            }
        }
    }
    Ok(())
}

fn known_pages(
    context: &Context,
    known: &BTreeMap<PageId, Bytes>,
    ids: &[PageId],
) -> Result<Vec<(PageId, Bytes)>, OpenError> {
    ids.iter()
        .map(|id| {
            let sealed = known.get(id).ok_or(OpenError::PageMissing(*id))?;
            let plain = open_page(context.log, &*context.sealer, *id, sealed)
                .map_err(|source| context.stored(&format!("archived page {id:?}"), source))?;
            Ok((*id, plain))
        })
        .collect()
}

/// Entries after `after` up to `to`, and whether they are dense.
async fn tail(context: &Context, after: u64, to: u64) -> Result<(Vec<EntryRow>, bool), EngineError> {
    let mut rows = Vec::new();
    let mut last = after;
    while last < to {
        let limit = context.options.read_entries_max;
        let Some(tail) = context.engine.log.tail_after(context.log, last, limit).await? else {
            return Ok((rows, false));
        };
        if tail.rows.is_empty() {
            return Ok((rows, false));
        }
        for row in tail.rows {
            if row.first_seq != last + 1 {
                return Ok((rows, false));
            }
            last = row.last_seq;
            rows.push(row);
            if last >= to {
                break;
            }
        }
    }
    Ok((rows, true))
}

/// Folds everything from the beginning and compares it with the snapshot, and with snapshot and tail.
async fn compare<S: State>(
    context: &Context,
    archive: &dyn Archive,
    root: &Root,
    walk: &Walk<S>,
    verified: &mut Verified,
) -> Result<(), EngineError> {
    let archived = walk.state.archived();
    let Some(addresses) = chunk_addresses(context, archive, archived.address.clone(), verified).await? else {
        return Ok(());
    };
    let mut whole: Option<Walk<S>> = None;
    let mut snapshot_seen = false;
    for address in addresses.into_iter().rev() {
        let Some(chunk) = read_chunk(context, archive, address, verified).await? else { return Ok(()) };
        if whole.is_none() {
            let base = chunk.base.as_ref().expect("the chain of chunks ends at one with a base");
            whole = begin::<S>(context, base, verified).await?;
        }
        let Some(fold) = &mut whole else { return Ok(()) };
        if !replay(context, fold, &chunk.rows, root, &mut snapshot_seen, verified) {
            return Ok(());
        }
        verified.archived_entries += chunk.rows.len() as u64;
    }
    let Some(mut fold) = whole else { return Ok(()) };
    if fold.seq != archived.seq {
        verified.problem(format!("the archive ends at {}, the log says {}", fold.seq, archived.seq));
        return Ok(());
    }
    let (rows, dense) = tail(context, archived.seq, walk.seq).await?;
    if !dense {
        verified.problem(format!("entries after the archive ({}) are not dense", archived.seq));
        return Ok(());
    }
    if !replay(context, &mut fold, &rows, root, &mut snapshot_seen, verified) {
        return Ok(());
    }
    if !snapshot_seen && fold.seq > root.seq {
        verified.problem(format!("no entry ends at the snapshot's number {}", root.seq));
    }
    if fold.chain != walk.chain {
        verified.problem("the chain of the archive does not lead to the head".into());
    }
    if fold.state.digest() != walk.state.digest() {
        verified.problem("a fold from the beginning differs from snapshot and tail".into());
    }
    verified.compared = true;
    Ok(())
}

/// Folds rows; compares with the root when its number is reached.
fn replay<S: State>(
    context: &Context,
    fold: &mut Walk<S>,
    rows: &[EntryRow],
    root: &Root,
    snapshot_seen: &mut bool,
    verified: &mut Verified,
) -> bool {
    let mut check = |fold: &Walk<S>, verified: &mut Verified| {
        if fold.seq == root.seq && !*snapshot_seen {
            *snapshot_seen = true;
            if fold.chain != root.chain {
                verified.problem(format!("the chain at {} is not that of the root", root.seq));
            }
            if fold.state.digest() != root.digest {
                verified.problem(format!("a fold up to {} differs from the snapshot", root.seq));
            }
        }
    };
    check(fold, verified);
    for row in rows {
        if row.first_seq != fold.seq + 1 {
            verified.problem(format!("entry {} where {} was expected", row.first_seq, fold.seq + 1));
            return false;
        }
        if let Err(error) = context.fold_row(&mut fold.state, &mut fold.seq, &mut fold.chain, row) {
            verified.problem(format!("archive: {}", crate::with_causes(&error)));
            return false;
        }
        check(fold, verified);
    }
    true
}

/// The state that the archive starts from.
async fn begin<S: State>(
    context: &Context,
    base: &ChunkBase,
    verified: &mut Verified,
) -> Result<Option<Walk<S>>, EngineError> {
    let pages: BTreeMap<PageId, Bytes> = base.pages.iter().cloned().collect();
    let root = known_pages(context, &pages, &[base.snapshot.root()])
        .map_err(|error| crate::with_causes(&error))
        .and_then(|mut pages| {
            let (_, plain) = pages.pop().expect("one page was asked for");
            Root::decode(&plain).map_err(|error| crate::with_causes(&error))
        });
    let root = match root {
        Ok(root) => root,
        Err(error) => {
            verified.problem(format!("base of the archive: {error}"));
            return Ok(None);
        }
    };
    let Some(mut walk) = start::<S>(context.log, &root, verified) else { return Ok(None) };
    install_all(context, &mut walk.state, verified, Some(&pages)).await?;
    Ok(Some(walk))
}

/// Addresses of all chunks, the newest first, ending at the one with a base.
async fn chunk_addresses(
    context: &Context,
    archive: &dyn Archive,
    newest: Bytes,
    verified: &mut Verified,
) -> Result<Option<Vec<Bytes>>, EngineError> {
    let mut addresses = vec![newest];
    loop {
        let address = addresses.last().expect("there is the newest").clone();
        let Some(chunk) = read_chunk(context, archive, address, verified).await? else { return Ok(None) };
        if chunk.base.is_some() {
            return Ok(Some(addresses));
        }
        if chunk.previous.is_empty() || addresses.contains(&chunk.previous) {
            verified.problem("the chain of archive chunks does not end at a base".into());
            return Ok(None);
        }
        addresses.push(chunk.previous);
    }
}

async fn read_chunk(
    context: &Context,
    archive: &dyn Archive,
    address: Bytes,
    verified: &mut Verified,
) -> Result<Option<Chunk>, EngineError> {
    let bytes = match archive.read(context.log, address).await {
        Ok(bytes) => bytes,
        Err(ArchiveError::Unavailable(reason)) => return Err(EngineError::unavailable(reason)),
        Err(error @ ArchiveError::Missing(_)) => {
            verified.problem(error.to_string());
            return Ok(None);
        }
    };
    match Chunk::decode(&bytes) {
        Ok(chunk) if chunk.log == context.log => Ok(Some(chunk)),
        Ok(chunk) => {
            verified.problem(format!("an archive chunk belongs to {}", chunk.log));
            Ok(None)
        }
        Err(error) => {
            verified.problem(error.to_string());
            Ok(None)
        }
    }
}

/// Tells trouble of the engine, which ends the check, from what the check is there to find.
fn temporary<T>(result: Result<T, OpenError>) -> Result<Result<T, OpenError>, EngineError> {
    match result {
        Err(OpenError::Engine(error)) if error.is_temporary() => Err(error),
        other => Ok(other),
    }
}
