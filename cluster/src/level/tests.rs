//! Nodes of two releases on one engine in memory, in virtual time. Each reads what all have written, and writes as its
//! level allows.

use bytes::Bytes;
use engine::memory::MemoryEngine;
use engine::{Row, Table};

use super::*;
use crate::node::Node;
use crate::path::Path;

/// Where nodes of these tests write: a row for each node and time, with the level of what is in it.
const WRITTEN: &[u8] = b"written";

/// How a node decides what it writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writes {
    /// What the level allows.
    AsAllowed,
    /// The newest that it knows. No node should.
    Newest,
}

/// A node of a release.
struct Host {
    membership: Membership,
    levels: Levels,
    level: FeatureLevel,
    rows: Arc<Path>,
    own: u32,
    number: u64,
}

/// A level is raised after a minute here, so that it comes before a silent node is forgotten if it may.
fn config() -> Config {
    Config { level_after_seconds: 60, ..Config::default() }
}

async fn start(engine: &MemoryEngine, name: &str, own: u32) -> Result<Host, LevelError> {
    let rows = Path::new(engine);
    let agreed = admit(&*rows, own).await?;
    let mut node = Node::new(name.parse().unwrap(), ["imap"]);
    node.feature_level = own;
    let membership = Membership::join(rows.clone(), node, config());
    let level = FeatureLevel::at(agreed);
    let levels = Levels::start(rows.clone(), membership.clone(), level.clone(), own, agreed, &config());
    Ok(Host { membership, levels, level, rows, own, number: 0 })
}

impl Host {
    /// Whether it has been told to end.
    fn must_end(&self) -> bool {
        self.levels.agreed() > self.own
    }

    /// Reads everything, which it must be able to, and writes.
    async fn work(&mut self, writes: Writes) -> Result<(), String> {
        if self.must_end() || self.rows.is_cut() {
            return Ok(());
        }
        let all = self.rows.scan(Table::Segment, WRITTEN.into(), Bytes::new(), 100_000).await.unwrap();
        if let Some(unknown) =
            all.iter().map(|(_, value)| u32::from(value[0])).find(|level| *level > self.own)
        {
            return Err(format!("a release of level {} found level {unknown}", self.own));
        }
        let level = match writes {
            Writes::AsAllowed => (1..=self.own).rev().find(|level| self.level.allows(*level)).unwrap_or(0),
            Writes::Newest => self.own,
        };
        self.number += 1;
        let key = [&self.membership.boot().as_bytes()[..], &self.number.to_be_bytes()].concat();
        let value = vec![u8::try_from(level).unwrap()];
        self.rows.put(vec![Row::new(Table::Segment, WRITTEN, key, value)]).await.unwrap();
        Ok(())
    }
}

/// Lets all of them work for a while.
async fn work(hosts: &mut [&mut Host], seconds: u64, writes: Writes) -> Result<(), String> {
    for _ in 0..seconds * 2 {
        sleep(Duration::from_millis(500)).await;
        for host in &mut *hosts {
            host.work(writes).await?;
        }
    }
    Ok(())
}

/// What was written last by anybody of the newest release.
async fn newest(engine: &MemoryEngine) -> u8 {
    let all = engine.scan(Table::Segment, WRITTEN.into(), Bytes::new(), 100_000).await.unwrap();
    all.iter().map(|(_, value)| value[0]).max().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn the_new_one_writes_old_until_the_last_old_one_has_gone() {
    let engine = MemoryEngine::new();
    let mut old = [start(&engine, "a", 1).await.unwrap(), start(&engine, "b", 1).await.unwrap()];
    let mut new = start(&engine, "c", 2).await.unwrap();
    let [a, b] = &mut old;
    work(&mut [a, b, &mut new], 300, Writes::AsAllowed).await.unwrap();
    assert_eq!((newest(&engine).await, new.levels.agreed()), (1, 1));
    let [a, b] = old;
    let mut upgraded = Vec::new();
    for (name, old) in [("a", a), ("b", b)] {
        old.membership.leave().await.unwrap();
        drop(old);
        upgraded.push(start(&engine, name, 2).await.unwrap());
    }
    let [a, b] = &mut upgraded[..] else { panic!("two") };
    work(&mut [a, b, &mut new], 50, Writes::AsAllowed).await.unwrap();
    assert_eq!(newest(&engine).await, 1, "there is time to go back");
    // As one may.
    b.membership.leave().await.unwrap();
    let mut back = start(&engine, "b", 1).await.unwrap();
    work(&mut [a, &mut back, &mut new], 300, Writes::AsAllowed).await.unwrap();
    assert_eq!(newest(&engine).await, 1);
    back.membership.leave().await.unwrap();
    drop(back);
    let mut again = start(&engine, "b", 2).await.unwrap();
    work(&mut [a, &mut again, &mut new], 120, Writes::AsAllowed).await.unwrap();
    assert_eq!((newest(&engine).await, again.levels.agreed(), a.levels.agreed()), (2, 2, 2));
    assert!(again.level.allows(2) && !again.level.allows(3));
    let refused = start(&engine, "d", 1).await.err().unwrap();
    assert!(matches!(refused, LevelError::TooLow { own: 1, agreed: 2 }), "{refused}");
    assert!(start(&engine, "d", 3).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_silent_old_node_counts_until_it_is_forgotten_and_ends_when_it_wakes() {
    let engine = MemoryEngine::new();
    let mut old = start(&engine, "a", 1).await.unwrap();
    let mut new = [start(&engine, "b", 2).await.unwrap(), start(&engine, "c", 2).await.unwrap()];
    let [b, c] = &mut new;
    work(&mut [&mut old, b, c], 10, Writes::AsAllowed).await.unwrap();
    old.rows.cut(true, true);
    work(&mut [&mut old, b, c], 500, Writes::AsAllowed).await.unwrap();
    assert_eq!(newest(&engine).await, 1, "it may only seem to be dead");
    old.rows.cut(false, false);
    work(&mut [&mut old, b, c], 120, Writes::AsAllowed).await.unwrap();
    assert_eq!(newest(&engine).await, 1);
    old.rows.cut(true, true);
    work(&mut [&mut old, b, c], 700, Writes::AsAllowed).await.unwrap();
    assert_eq!(newest(&engine).await, 2);
    old.rows.cut(false, false);
    let why = old.levels.until_too_low().await;
    assert!(matches!(why, LevelError::TooLow { own: 1, agreed: 2 }), "{why}");
    assert!(old.must_end());
}

#[tokio::test(start_paused = true)]
async fn who_comes_in_while_the_level_is_raised_ends_before_it_meets_what_it_cannot_read() {
    for at in (0..120).step_by(3) {
        let engine = MemoryEngine::new();
        let mut new = start(&engine, "b", 2).await.unwrap();
        work(&mut [&mut new], at, Writes::AsAllowed).await.unwrap();
        let Ok(mut old) = start(&engine, "a", 1).await else {
            assert!(at > 50, "the level was raised after {at} s");
            continue;
        };
        work(&mut [&mut new, &mut old], 100, Writes::AsAllowed).await.unwrap();
        assert_eq!(old.must_end(), new.levels.agreed() == 2, "{at} s");
    }
}

/// These tests would see it.
#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_ask_is_caught() {
    let engine = MemoryEngine::new();
    let mut old = start(&engine, "a", 1).await.unwrap();
    let mut new = start(&engine, "b", 2).await.unwrap();
    let caught = work(&mut [&mut old, &mut new], 5, Writes::Newest).await.unwrap_err();
    assert_eq!(caught, "a release of level 1 found level 2");
}

#[tokio::test(start_paused = true)]
async fn who_is_alone_takes_the_newest_and_shuts_out_what_cannot_read_it() {
    let engine = MemoryEngine::new();
    take(&engine, 1).await.unwrap();
    take(&engine, 3).await.unwrap();
    take(&engine, 3).await.unwrap();
    let refused = take(&engine, 2).await.unwrap_err();
    assert!(matches!(refused, LevelError::TooLow { own: 2, agreed: 3 }), "{refused}");
    assert_eq!(admit(&engine, 4).await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_level_is_refused() {
    let engine = MemoryEngine::new();
    engine.put_new(Row::new(Table::Mark, &b"cluster"[..], LEVEL.as_bytes(), &b"two"[..])).await.unwrap();
    let refused = admit(&engine, 1).await.unwrap_err();
    assert!(refused.to_string().contains("\"two\" is written down"), "{refused}");
}
