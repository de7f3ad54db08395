//! Search: which emails hold a text.
//!
//! The index is derived from the accounts ([`storage`]) and follows them; it can be deleted at any moment. It knows
//! nothing that changes (flags, mailboxes, threads), so whoever asks combines its answers with what the account's state
//! says. It answers two questions. *Exact*: which emails [may hold](Candidates) a text as IMAP means it, to be looked at
//! by whoever asks. *Words*: in which emails [words, phrases and beginnings of words](Search::find) are found, and how
//! well they fit. Both are right about what arrived a moment ago.
//!
//! It is no part of a protocol: IMAP's keys and JMAP's objects are read by the services. Start reading at [`Search`];
//! `search/DESIGN.md` has what lies on disk and what a crash leaves of it.

pub mod attachment;
pub mod config;
pub mod document;
pub mod error;
pub mod filter;
mod follow;
mod generation;
pub mod gram;
pub mod html;
pub mod operators;
mod query;
mod rebuild;
mod schema;
mod search;
mod shard;
pub mod snippet;
mod tail;
pub mod text;
pub mod tokenize;

pub use config::Config;
pub use document::Document;
pub use error::SearchError;
pub use filter::{Condition, Filter, Phrase, Texts, Wanted};
pub use gram::{Needle, Place};
pub use operators::{Asked, QueryError};
pub use query::Hit;
pub use rebuild::Progress;
pub use schema::Mark;
pub use search::{Candidates, Found, Ids, Search, Standing, Unindexed};
pub use snippet::{Marker, Snippet};
