//! Rows of one partition that several callers put at about the same time: one statement for all of them, and one look
//! behind it.
//!
//! A message that was accepted in one segment with many others has its references put in one partition as they have, and
//! each of them looks at the same mark afterwards. The first waits a moment for the others, since all of them hear at once
//! that their segment lies in S3; and while one statement is on its way to a partition, what comes for it gathers. Each
//! caller's look comes after its own rows are visible, as if it had been alone.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use engine::{EngineError, Row, RowKey, Rows as _, Table};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::session::Cql;

/// Rows in one statement, and their octets. Cassandra warns of batches above 5 KiB and refuses those above 50 KiB.
const ROWS_MAX: usize = 64;
const BYTES_MAX: usize = 4 << 10;

/// How long the first of a partition waits for others: little beside what it costs to write a segment.
const GATHERS: Duration = Duration::from_millis(2);

/// Where rows go together.
type Place = (Table, Bytes);
type Answer = Result<Vec<Option<Bytes>>, EngineError>;

/// What waits for partitions that somebody writes to. A partition that is not in it is free.
pub(crate) type Gathering = Mutex<HashMap<Place, Vec<Waiting>>>;

/// Rows of one caller, all of one partition, and what it wants to see behind them.
pub(crate) struct Waiting {
    rows: Vec<Row>,
    keys: Vec<RowKey>,
    reply: oneshot::Sender<Answer>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.rows.iter().map(|row| row.key.partition.len() + row.key.key.len() + row.value.len()).sum()
    }
}

impl Cql {
    /// Puts the rows and then reads the keys, together with whoever does so for the same partition. `None`: these rows are
    /// not such that they could go together.
    pub(crate) async fn put_together(&self, rows: &[Row], keys: &[RowKey]) -> Option<Answer> {
        let first = &rows.first()?.key;
        let one = rows.iter().all(|row| row.key.table == first.table && row.key.partition == first.partition);
        if !one || rows.len() > ROWS_MAX || !can_go_together(first.table) {
            return None;
        }
        let place = (first.table, first.partition.clone());
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { rows: rows.to_vec(), keys: keys.to_vec(), reply };
        {
            let mut gathering = self.gathering.lock();
            let gathered = gathering.entry(place.clone()).or_insert_with(|| {
                // By itself, so that it comes to its end whoever of them gives up.
                tokio::spawn(self.clone().write_together(place));
                Vec::new()
            });
            gathered.push(waiting);
        }
        let ended = || Err(EngineError::unavailable("the rows were not written"));
        Some(answer.await.unwrap_or_else(|_| ended()))
    }

    /// Writes what has come for a partition, until nothing has.
    async fn write_together(self, place: Place) {
        let mut writing = Writing { gathering: &self.gathering, place, is_over: false };
        tokio::time::sleep(GATHERS).await;
        while let Some(group) = writing.next_group() {
            self.write_group(group).await;
        }
    }

    async fn write_group(&self, mut group: Vec<Waiting>) {
        group.retain(|waiting| !waiting.reply.is_closed());
        let rows: Vec<Row> = group.iter_mut().flat_map(|waiting| std::mem::take(&mut waiting.rows)).collect();
        if let Err(error) = self.put_batch(&rows).await {
            for waiting in group {
                let _ = waiting.reply.send(Err(error.clone()));
            }
            return;
        }
        // Only now: what they look for, they look for behind their rows.
        let mut found: BTreeMap<RowKey, Option<Bytes>> = BTreeMap::new();
        for key in group.iter().flat_map(|waiting| &waiting.keys) {
            found.entry(key.clone()).or_default();
        }
        let keys: Vec<RowKey> = found.keys().cloned().collect();
        match self.get_many(keys).await {
            Ok(values) => {
                found.values_mut().zip(values).for_each(|(found, value)| *found = value);
                for Waiting { keys, reply, .. } in group {
                    let wanted = keys.iter().map(|key| found.get(key).cloned().flatten()).collect();
                    let _ = reply.send(Ok(wanted));
                }
            }
            Err(error) => {
                for waiting in group {
                    let _ = waiting.reply.send(Err(error.clone()));
                }
            }
        }
    }
}

/// Tables whose rows are put plainly, one like the other.
fn can_go_together(table: Table) -> bool {
    matches!(table, Table::SegmentReference)
}

/// The partition is free again when this is gone, however that comes about: whoever waited then hears that nothing was
/// written.
struct Writing<'a> {
    gathering: &'a Gathering,
    place: Place,
    /// The partition is free, or another's: it is not to be freed once more.
    is_over: bool,
}

impl Writing<'_> {
    /// What has gathered, as much as goes into one statement. `None`: nothing, and the partition is free.
    fn next_group(&mut self) -> Option<Vec<Waiting>> {
        let mut gathering = self.gathering.lock();
        let gathered = gathering.get_mut(&self.place)?;
        if gathered.is_empty() {
            gathering.remove(&self.place);
            self.is_over = true;
            return None;
        }
        let (mut rows, mut bytes) = (0, 0);
        let fits = gathered.iter().take_while(|waiting| {
            rows += waiting.rows.len();
            bytes += waiting.bytes();
            rows <= ROWS_MAX && bytes <= BYTES_MAX
        });
        // One by itself always fits.
        let count = fits.count().max(1);
        Some(gathered.drain(..count).collect())
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.gathering.lock().remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        (Table::SegmentReference, Bytes::from_static(b"p"))
    }

    fn waiting(rows: usize, bytes: usize) -> (Waiting, oneshot::Receiver<Answer>) {
        let row = |key: usize| {
            let key = Bytes::from(key.to_be_bytes().to_vec());
            Row::new(Table::SegmentReference, Bytes::new(), key, Bytes::from(vec![0; bytes]))
        };
        let (reply, answer) = oneshot::channel();
        (Waiting { rows: (0..rows).map(row).collect(), keys: Vec::new(), reply }, answer)
    }

    #[test]
    fn who_has_left_takes_nothing_from_who_came_next() {
        let gathering = Gathering::default();
        gathering.lock().insert(place(), Vec::new());
        let mut first = Writing { gathering: &gathering, place: place(), is_over: false };
        assert!(first.next_group().is_none());
        let (next, mut answer) = waiting(1, 1);
        gathering.lock().insert(place(), vec![next]);
        drop(first);
        assert_eq!(gathering.lock().get(&place()).map(Vec::len), Some(1));
        assert_eq!(answer.try_recv().unwrap_err(), oneshot::error::TryRecvError::Empty);
    }

    #[test]
    fn who_breaks_off_leaves_the_partition_free_and_nobody_waiting() {
        let gathering = Gathering::default();
        let (next, mut answer) = waiting(1, 1);
        gathering.lock().insert(place(), vec![next]);
        drop(Writing { gathering: &gathering, place: place(), is_over: false });
        assert!(gathering.lock().is_empty());
        assert_eq!(answer.try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
    }

    #[test]
    fn a_statement_has_so_many_rows_and_octets_and_at_least_one_caller() {
        let gathering = Gathering::default();
        let sizes = [(1, 8_000), (40, 1), (24, 1), (1, 1), (1, 3_000), (1, 3_000)];
        let (waiting, _answers): (Vec<_>, Vec<_>) =
            sizes.iter().map(|(rows, bytes)| waiting(*rows, *bytes)).unzip();
        gathering.lock().insert(place(), waiting);
        let mut writing = Writing { gathering: &gathering, place: place(), is_over: false };
        let groups: Vec<usize> =
            std::iter::from_fn(|| writing.next_group()).map(|group| group.len()).collect();
        assert_eq!(groups, [1, 2, 2, 1]);
    }
}
