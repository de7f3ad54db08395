//! From region to region: how a node asks a node of another one, and hands a client's connection on to it.
//!
//! A region is an installation with stores and keys of its own. Regions share nothing but the knowledge which of them
//! has a name (`directory::homes`) and a secret by which their nodes know each other. A client may connect anywhere:
//! where its account is elsewhere, the node asks one of the other region whether the password is right, and from then
//! on the two copy octets; the session is held over there, on the client's own address and name.
//!
//! ```text
//! client ── imap, submission ──► node of one region ── link ──► node of the account's region
//!                                regions, relay                 link::accept, then the service itself
//! ```
//!
//! Not here: who has which name (`directory`), what a session says (`imap`, `smtp-in`). Start reading at [`Regions`]
//! and [`call`].

pub mod call;
pub mod config;
pub mod link;
mod refusal;
mod regions;
mod relay;
mod secret;

pub use config::Neighbour;
pub use link::{Link, LinkError};
pub use regions::{BuildError, Regions, Unreachable};
pub use relay::{RelayLimits, relay};
pub use secret::{RegionSecret, SecretError};
