//! The nodes of one installation: who lives, who owns what, and how they speak to each other.
//!
//! Nothing here is needed for anything to be right. The logs are the truth, committed by compare-and-swap, whoever
//! commits. What this crate adds is that nodes seldom meet on one log ([`ownership`]), that they see soon what another
//! has committed ([`Wake`]), and that what an installation may do to others is shared out ([`SiteLeases`]). All of it may
//! be late, wrong for some seconds, or away, at the price of time.
//!
//! Heartbeats are rows of the storage engine, so there is one thing less that can be split from another. Hints and
//! requests go over NATS, at most once. The crate knows no mail and no sockets. Start reading at [`membership`] and
//! `bus.rs`; `storage/DESIGN.md` has the bytes and the rules.

pub mod agreement;
mod authentic;
mod bus;
mod config;
mod count;
mod lease;
pub mod level;
pub mod membership;
mod news;
mod node;
pub mod ownership;
#[cfg(test)]
mod path;
mod replay;
mod request;
mod wake;

pub use authentic::MessageKey;
pub use bus::{Bus, BusError};
pub use config::{Config, ConfigError, NatsConfig, Secret};
pub use lease::{Budget, Lease, LeaseSource, Need, SiteLeases};
pub use level::Levels;
pub use membership::{Member, Membership, Standing, View};
pub use news::News;
pub use node::{Boot, Node, NodeId, NodeIdError};
pub use request::{RequestError, Requests};
pub use wake::Wake;
