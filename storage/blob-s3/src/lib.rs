//! Segments as objects in S3, or in what speaks its language.
//!
//! An object is there as a whole or not at all, so a group of messages is one PUT and a large message one upload in
//! parts ([`blob::Growth::Whole`]). What S3 is not, a disk: it is far away, so calls are tried again, an answer that was
//! lost is found out about, and what is read stays in a cache on disk for a while.
//!
//! Start reading at [`S3Blobs`], then `service.rs`, which has the requests.

mod appender;
mod begun;
mod blobs;
mod blocks;
mod call;
mod config;
mod connect;
mod disk_cache;
mod service;
#[cfg(any(test, feature = "stand-in"))]
pub mod stand_in;
#[cfg(test)]
mod tests;
mod uploads;
mod waiting;

pub use blobs::{OpenError, S3Blobs};
pub use config::{Config, ConfigError, Encryption, Secret};
pub use uploads::Cleared;
