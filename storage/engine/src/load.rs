//! Loading a log: snapshot and tail; and following it: entries after what is folded already.

use std::collections::VecDeque;

use crate::context::{Context, OpenError};
use crate::error::FormatError;
use crate::log::{EntryRow, Head, SnapshotPointer, Tail};
use crate::state::State;
use crate::stored::{ChainHash, Root};

/// How often snapshot and tail are read again before the log is given up as torn. Each repetition means that another
/// node swung or trimmed between two reads, which takes many commits; so a few are plenty.
const LOAD_ATTEMPTS: u32 = 8;

/// Last number and size of each entry after the current snapshot: what decides when the next one is due.
#[derive(Clone, Debug, Default)]
pub(crate) struct TailSizes {
    entries: VecDeque<(u64, usize)>,
    bytes: usize,
}

impl TailSizes {
    pub(crate) fn push(&mut self, row: &EntryRow) {
        self.entries.push_back((row.last_seq, row.bytes.len()));
        self.bytes += row.bytes.len();
    }

    /// Forgets entries that a snapshot at `seq` covers.
    pub(crate) fn cut(&mut self, seq: u64) {
        while self.entries.front().is_some_and(|(last, _)| *last <= seq) {
            let (_, bytes) = self.entries.pop_front().expect("there is a front");
            self.bytes -= bytes;
        }
    }

    pub(crate) fn entries(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A log as it was loaded.
pub(crate) struct Loaded<S> {
    pub(crate) state: S,
    pub(crate) seq: u64,
    pub(crate) chain: ChainHash,
    /// The snapshot that the state's pages belong to.
    pub(crate) snapshot: SnapshotPointer,
    pub(crate) tail: TailSizes,
}

/// Loads snapshot and tail. What does not fit together is read again.
pub(crate) async fn load<S: State>(context: &Context) -> Result<Loaded<S>, OpenError> {
    let mut missing_root = None;
    for attempt in 1..=LOAD_ATTEMPTS {
        if attempt > 1 {
            context.counters.loads_torn.add(1);
            tokio::time::sleep(context.options.backoff(attempt)).await;
        }
        let log = &context.engine.log;
        let limit = context.options.read_entries_max;
        let tail = log.load(context.log, limit).await.map_err(OpenError::Engine)?;
        let Some(tail) = tail else { return Err(OpenError::Missing) };
        let snapshot = tail.head.snapshot;
        let root = match read_root(context, snapshot).await {
            Ok(root) => root,
            Err(OpenError::PageMissing(id)) => {
                // The snapshot was replaced between the two reads, or this is an alarm.
                if missing_root == Some(snapshot.id) {
                    return Err(OpenError::PageMissing(id));
                }
                missing_root = Some(snapshot.id);
                continue;
            }
            Err(error) => return Err(error),
        };
        let state = S::from_root(context.log, &root.state).map_err(|source| OpenError::Format {
            place: format!("root at {} of {}", root.seq, context.log),
            source,
        })?;
        let mut loaded =
            Loaded { state, seq: root.seq, chain: root.chain, snapshot, tail: TailSizes::default() };
        if fold_tail(context, &mut loaded, tail.head.seq, tail.rows).await? {
            context.counters.loads.add(1);
            return Ok(loaded);
        }
    }
    Err(OpenError::Torn(LOAD_ATTEMPTS))
}

/// Folds `rows`, and what comes after them up to `head`. `false`: the tail is not dense.
async fn fold_tail<S: State>(
    context: &Context,
    loaded: &mut Loaded<S>,
    head: u64,
    mut rows: Vec<EntryRow>,
) -> Result<bool, OpenError> {
    loop {
        for row in &rows {
            // Model commit: Rule::DenseTail.
            if row.first_seq != loaded.seq + 1 {
                return Ok(false);
            }
            context.fold_row(&mut loaded.state, &mut loaded.seq, &mut loaded.chain, row)?;
            loaded.tail.push(row);
        }
        if loaded.seq >= head {
            return Ok(true);
        }
        let log = &context.engine.log;
        let limit = context.options.read_entries_max;
        let next = log.tail_after(context.log, loaded.seq, limit).await.map_err(OpenError::Engine)?;
        rows = next.ok_or(OpenError::Missing)?.rows;
        if rows.is_empty() {
            return Ok(false);
        }
    }
}

/// Reads the root that a pointer names.
pub(crate) async fn read_root(context: &Context, snapshot: SnapshotPointer) -> Result<Root, OpenError> {
    let mut pages = context.pages(&[snapshot.root()]).await?;
    let (_, plain) = pages.pop().expect("one page was asked for");
    let wrong = |source| context.stored(&format!("root at {}", snapshot.seq), source);
    let root = Root::decode(&plain).map_err(wrong)?;
    if root.seq != snapshot.seq {
        return Err(OpenError::Format {
            place: format!("root of {}", context.log),
            source: FormatError::malformed(
                "root",
                format!("is of snapshot {}, its pointer says {}", root.seq, snapshot.seq),
            ),
        });
    }
    Ok(root)
}

/// What following a log found.
pub(crate) enum Followed {
    /// Dense entries after `seq`, up to the head, which is newer than the call.
    Entries { head: Head, rows: Vec<EntryRow> },
    /// Entries directly after `seq` have been trimmed: load again.
    Gap,
    /// The log is gone.
    Missing,
}

/// Reads what comes after `seq`. Stops at a bounded number of entries, so the head may be further. Where another node said
/// that it has come to `heard`, and nobody waits for what may lie behind that, a copy that has come as far is enough.
pub(crate) async fn follow(context: &Context, seq: u64, heard: Option<u64>) -> Result<Followed, OpenError> {
    if let Some(heard) = heard
        && let Some(followed) = follow_to(context, seq, heard).await?
    {
        return Ok(followed);
    }
    let limit = context.options.read_entries_max;
    let tail = context.engine.log.tail_after(context.log, seq, limit).await.map_err(OpenError::Engine)?;
    let Some(tail) = tail else { return Ok(Followed::Missing) };
    let mut last = seq;
    for row in &tail.rows {
        // Model commit: Rule::DenseTail.
        if row.first_seq != last + 1 {
            return Ok(Followed::Gap);
        }
        last = row.last_seq;
    }
    if last == seq && tail.head.seq > seq {
        return Ok(Followed::Gap);
    }
    Ok(Followed::Entries { head: tail.head, rows: tail.rows })
}

/// Reads what comes after `seq` up to `heard`, from one copy. `None`: it has not come so far, or not without a gap.
async fn follow_to(context: &Context, seq: u64, heard: u64) -> Result<Option<Followed>, OpenError> {
    let limit = context.options.read_entries_max;
    let tail = context.engine.log.tail_of_any(context.log, seq, limit).await.map_err(OpenError::Engine)?;
    let Some(Tail { mut head, mut rows }) = tail else { return Ok(None) };
    // What lies behind was decided, but need not have been answered: whoever looks next may not see it.
    rows.retain(|row| row.last_seq <= heard);
    let mut last = seq;
    for row in &rows {
        // Model commit: Rule::DenseTail.
        if row.first_seq != last + 1 {
            return Ok(None);
        }
        last = row.last_seq;
    }
    head.seq = last;
    Ok((last == heard).then_some(Followed::Entries { head, rows }))
}
