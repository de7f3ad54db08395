//! The queue: what was accepted and is not yet where it belongs.
//!
//! A message is in the queue from the moment of its 250 until each of its recipients is delivered, bounced, placed
//! where it is sent from, or cancelled. The queue is a fixed number of *shards*, each a log with a snapshot like an
//! account's: ingest shards take what is accepted, outbound shards hold what waits to be sent, quarantine shards what
//! crashed whoever touched it. A commit is one entry on one shard; every append into another log carries the number
//! below which this shard has no unfinished item, so that a consumer knows for ever what it has already taken.
//!
//! The crate knows neither accounts' storage nor Sieve nor SMTP: `delivery` claims items, and does with them what has
//! to be done.
//!
//! Start reading at [`Queue`] and [`Submission`]; `queue/DESIGN.md` has the bytes, the legal states and what
//! a crash leaves.

mod admin;
mod body;
mod claim;
mod clock;
mod config;
mod dialogue;
pub mod entry;
mod error;
mod facts;
pub mod fold;
pub mod item;
mod keeper;
pub mod lineup;
mod outbound;
pub mod page;
mod quarantine;
mod queue;
mod remote;
mod replay;
mod report;
mod root;
pub mod schedule;
mod select;
mod sending;
mod shard;
pub mod shard_id;
mod sharing;
pub mod state;
mod submission;
mod submitter;
pub mod sweep;
pub mod window;
mod work;

pub use admin::{Acted, Action, DomainSummary, ItemView, Overview, Page, RecipientView, Standing, Summary};
pub use body::{Body, BodyWriter};
pub use claim::{Claimed, Work};
pub use clock::Clock;
pub use config::{Config, Retry, RetryRule};
pub use dialogue::{Dialogues, Line};
pub use error::{BodyError, OpenError, SubmitError, WorkError};
pub use outbound::{
    AttemptReport, AttemptResult, Due, Leased, Outbound, OutboundBody, OutboundClaim, PassedOn, Reported,
    Turn, Unreported,
};
pub use queue::{Foundation, Queue};
pub use replay::{Replay, ShardView};
pub use root::Layout;
pub use select::{Filter, SenderFilter, StateFilter};
pub use shard::ShardError;
pub use shard_id::{ShardId, ShardKind};
pub use sharing::Sharing;
pub use submission::{Committed, Origin, Resolved, Submission};
pub use submitter::Followed;
pub use work::{CrashMark, Event, News};
