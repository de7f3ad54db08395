//! The whole way from the queue to mail exchangers, which are here and on loopback, and do what real ones do on their
//! bad days.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod dialogue;
mod faults;
mod finding;
mod peer;
mod sharing;
mod sink;
mod world;
