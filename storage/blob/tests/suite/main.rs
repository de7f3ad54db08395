//! The crate from outside: blobs in and out, references, power cuts and damage.

#![allow(clippy::unwrap_used, reason = "functions that tests share are tests too")]

mod crash;
mod orphans;
mod puts;
mod references;
mod store;
mod support;
