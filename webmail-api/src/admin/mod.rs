//! The admin API: directory and queue as JSON over HTTP, for the command line and for other programs.
//!
//! Over the Unix socket a caller is known by its user id, over TCP by a token with scopes ([`token`]). Which scope an
//! endpoint asks for stands beside it in `endpoint`, the table from which both the router and the OpenAPI document
//! are made. Every act that changes something is written to the audit log before it is done, and again with its
//! outcome.

mod accounts;
mod aliases;
mod api;
pub mod audit;
mod body;
pub mod caller;
mod config;
mod domains;
mod endpoint;
mod grants;
mod lists;
pub mod migration;
pub mod monitor;
pub mod nodes;
mod openapi;
mod problem;
mod queue;
mod serve;
mod shards;
mod suppressions;
pub mod token;
mod tokens;

pub use api::{Api, Parts};
pub use config::Config;
pub use problem::Problem;
pub use serve::serve;
