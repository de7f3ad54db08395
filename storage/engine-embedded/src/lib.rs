//! The embedded engine: logs and rows in a folder on local disk, for a node that needs nothing else.
//!
//! An LSM tree (fjall) with one journal keeps the data. All writes pass through one thread, which gathers what waits
//! into a group, decides the compare-and-swaps in it, writes it as one atomic batch and syncs the journal once. So a
//! commit costs a share of a sync, and the order of the journal is the order of all writes.
//!
//! A write error poisons the engine: nothing is written any more, everybody is told why, reads go on. What was not
//! synced was never acknowledged. Start reading at `embedded` and `commit`.

mod commit;
mod config;
mod embedded;
mod head;
mod journal;
mod key;
mod lock;
mod space;
#[cfg(test)]
mod tests;
mod trimmed;
mod value;

pub use config::{CommitConfig, Config};
pub use embedded::{Embedded, OpenError};
