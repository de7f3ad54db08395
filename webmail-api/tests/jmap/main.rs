//! JMAP over a real socket, under TLS, on engines in memory: what a client says, and what it hears.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod blobs;
mod following;
mod hostile;
mod http;
mod push;
mod quotas;
mod reading;
mod sending;
mod texts;
mod world;
mod writing;
