//! What stands between nodes and engines: proxies that pass everything on, until a fault tells them otherwise.

pub mod cql;
pub mod s3;
mod who;
