//! The engine on CQL: logs and rows in Apache Cassandra or ScyllaDB, for many nodes that serve the same accounts.
//!
//! A log is a partition: head and snapshot pointer are its static columns, entries its rows. An append is one
//! conditional batch (Paxos). What the driver and the nodes answer is sorted into applied, conflict and *unknown* in one
//! place, `outcome`; whatever is not certain is unknown, and the actors above know what to do then. The driver never
//! repeats a conditional statement by itself.
//!
//! Start reading at `log` and `statement`; `storage/DESIGN.md` has the tables and why they are so.

mod call;
mod clock;
mod config;
mod log;
mod outcome;
mod page;
mod rows;
mod schema;
mod second_ask;
mod session;
mod settings;
mod statement;
#[cfg(test)]
mod tests;
mod together;

pub use config::{Config, SchemaPolicy};
pub use schema::{SCHEMA_VERSION, SchemaError, SchemaState};
pub use session::{Cql, OpenError};
pub use settings::{Finding, Severity};
