//! The crate from outside: blobs in and out, references, power cuts and damage.

mod crash;
mod references;
mod store;
mod support;
