//! The service as its clients see it, over storage in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod everywhere;
mod far;
mod fuzzy;
mod indexed;
mod models;
mod pages;
mod previews;
mod sessions;
mod sorting;
mod world;
