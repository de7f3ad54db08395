//! Rows on both sides.

use bytes::Bytes;
use engine::memory::{Faults, MemoryEngine};
use engine::{Row, RowKey, Rows, Table};

use super::{all_rows, begun};
use crate::Moving;

fn row(table: Table, key: &'static str, value: &'static str) -> Row {
    Row::new(table, &b"p"[..], key.as_bytes(), value.as_bytes())
}

#[tokio::test]
async fn what_the_target_did_not_take_is_there_in_the_end() {
    let (source, target) = (MemoryEngine::new(), MemoryEngine::new());
    let moving = Moving::new(source.engine());
    moving
        .put(vec![row(Table::SegmentReference, "before", "1"), row(Table::Segment, "dying", "1")])
        .await
        .unwrap();
    let relocation = begun(&moving, &target).await;
    target.set_faults(Faults { unavailable: 1.0, ..Faults::default() });
    moving.put(vec![row(Table::SegmentReference, "during", "1")]).await.unwrap();
    assert!(moving.put_new(row(Table::Key, "key", "live")).await.unwrap());
    let key = row(Table::Key, "key", "").key;
    let (live, erased) = (Bytes::from_static(b"live"), Bytes::from_static(b"erased"));
    assert!(moving.replace_if(key.clone(), Some(live), Some(erased.clone())).await.unwrap());
    moving.delete(vec![row(Table::SegmentReference, "before", "").key]).await.unwrap();
    assert!(relocation.advance().await.is_err_and(|error| error.is_temporary()));
    target.set_faults(Faults::default());
    assert!(all_rows(&target.engine()).await.is_empty());
    assert!(relocation.advance().await.unwrap());
    assert!(all_rows(&source.engine()).await == all_rows(&target.engine()).await);
    assert_eq!(target.engine().rows.get(key.clone()).await.unwrap(), Some(erased));

    // From now on the source is history.
    moving.put(vec![row(Table::SegmentReference, "after", "1")]).await.unwrap();
    let after = row(Table::SegmentReference, "after", "").key;
    assert!(source.engine().rows.get(after.clone()).await.unwrap().is_none());
    assert!(moving.get(after).await.unwrap().is_some());
}

#[tokio::test]
async fn what_was_deleted_while_nobody_mirrored_it_does_not_come_back() {
    let (source, target) = (MemoryEngine::new(), MemoryEngine::new());
    let first = Moving::new(source.engine());
    let relocation = begun(&first, &target).await;
    let rows: Vec<Row> = (0..1_000_u32)
        .map(|number| Row::new(Table::SegmentReference, &b"p"[..], number.to_be_bytes().to_vec(), &b"1"[..]))
        .collect();
    first.put(rows.clone()).await.unwrap();
    relocation.stop();
    assert!(!relocation.advance().await.unwrap());
    drop(first);
    // A process that died between the two deletions has left the second undone.
    let keys: Vec<RowKey> = rows.iter().step_by(3).map(|row| row.key.clone()).collect();
    source.engine().rows.delete(keys).await.unwrap();
    source.engine().rows.put(vec![row(Table::Moved, "x", "y")]).await.unwrap();
    let next = Moving::new(source.engine());
    assert!(begun(&next, &target).await.advance().await.unwrap());
    assert!(all_rows(&source.engine()).await == all_rows(&target.engine()).await);
    assert_eq!(all_rows(&target.engine()).await.len(), 667);
}

#[tokio::test]
async fn heartbeats_and_agreements_of_the_target_are_left_alone() {
    let (source, target) = (MemoryEngine::new(), MemoryEngine::new());
    source.engine().rows.put(vec![row(Table::Node, "n", "s"), row(Table::Mark, "m", "s")]).await.unwrap();
    target.engine().rows.put(vec![row(Table::Node, "n", "t"), row(Table::Mark, "m", "t")]).await.unwrap();
    let moving = Moving::new(source.engine());
    assert!(begun(&moving, &target).await.advance().await.unwrap());
    for table in [Table::Node, Table::Mark] {
        let key = row(table, if table == Table::Node { "n" } else { "m" }, "").key;
        let value = target.engine().rows.get(key).await;
        assert_eq!(value.unwrap().unwrap(), "t");
    }
    assert_eq!(moving.get(row(Table::Node, "n", "").key).await.unwrap().unwrap(), "s");
}
