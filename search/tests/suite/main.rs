//! The index beside what it is made from.

#![allow(clippy::unwrap_used, reason = "tests")]

mod crash;
mod exact;
mod lifetime;
mod setup;
mod words;
