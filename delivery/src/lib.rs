//! The local delivery agent: takes what the queue holds, finds out who gets it, and puts it there.
//!
//! A claimed item goes through [`agent`] → `expand` (recipients become targets, committed once) → `place` (each local
//! target an append to its account, each remote one an item of an outbound shard) → report to the queue. What cannot be
//! placed is first rejected in the account's log, and then told to its sender by `bounce`, once.
//!
//! Everything here may be done again after a crash: ids derived from the item make the second time do nothing. Nothing
//! here decides what is acceptable; that was the affair of `smtp-in`.
//!
//! Start reading at [`Delivery`].

pub mod agent;
mod bounce;
pub mod config;
mod expand;
mod lanes;
mod place;
mod quarantine;
mod suppression;
mod trace;
mod vacation;
mod whereabouts;

pub use agent::Delivery;
pub use config::{Config, Subaddress};
