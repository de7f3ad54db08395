//! The index beside what it is made from.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod attachments;
mod crash;
mod exact;
mod lifetime;
mod setup;
mod words;
