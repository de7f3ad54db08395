//! Heads of logs as the commit thread knows them.
//!
//! The head is not stored: it is the number of the last entry, or of the snapshot where all entries are trimmed. So a
//! commit writes one row.

use std::collections::HashMap;

use engine::{EngineError, Head, LogId};

use crate::embedded::Tables;
use crate::key::{entry_range, entry_seq, snapshot_key};
use crate::value::{damaged, decode_snapshot};

/// Reads the head of a log from the tables.
pub(crate) fn read_head(tables: &Tables, log: LogId) -> Result<Option<Head>, EngineError> {
    let key = snapshot_key(log);
    let Some(value) = tables.get(&tables.log, &key)? else { return Ok(None) };
    let snapshot = decode_snapshot(&key, &value)?;
    let last = tables.log.range(entry_range(log, 0, u64::MAX)).next_back();
    let last_seq = match last {
        None => 0,
        Some(guard) => {
            let key = guard.key().map_err(|error| tables.read_error(&error))?;
            entry_seq(&key).ok_or_else(|| damaged("log", &key, "not the key of an entry"))?
        }
    };
    Ok(Some(Head { seq: last_seq.max(snapshot.seq), snapshot }))
}

/// The heads that the commit thread remembers.
pub(crate) struct HeadCache {
    heads: HashMap<LogId, Option<Head>>,
    most: usize,
}

impl HeadCache {
    pub(crate) fn new(most: usize) -> Self {
        Self { heads: HashMap::new(), most: most.max(1) }
    }

    pub(crate) fn get(&mut self, tables: &Tables, log: LogId) -> Result<Option<Head>, EngineError> {
        if let Some(head) = self.heads.get(&log) {
            return Ok(*head);
        }
        let head = read_head(tables, log)?;
        self.set(log, head);
        Ok(head)
    }

    /// Only between groups may anything be forgotten: within one, the tables do not know the new heads yet.
    pub(crate) fn shrink(&mut self) {
        if self.heads.len() > self.most {
            self.heads.clear();
        }
    }

    pub(crate) fn set(&mut self, log: LogId, head: Option<Head>) {
        self.heads.insert(log, head);
    }
}
