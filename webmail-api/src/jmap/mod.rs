//! JMAP over HTTPS (RFC 8620, RFC 8621), with quotas (RFC 9425) and blobs within requests (RFC 9404), for web interfaces, mobile apps and programs.
//!
//! [`Jmap::serve`] takes a connection. A request of methods goes from `api` (who asks, and for what) to `dispatch` (one
//! call after the other) to a file of its own under `method/`. Emails and mailboxes are told from the account's state
//! and from email records of `storage`, the same that IMAP reads; the bytes of a message are read only for what they
//! alone can tell (`message/`). What is sent goes into the queue (`send/`).
//!
//! Not here: the language (`jmap-protocol`), who may log in (`directory`), what a commit does (`storage`).

mod api;
mod auth;
mod blob;
mod calls;
mod compose;
mod config;
mod context;
mod dispatch;
mod download;
mod eventsource;
mod guard;
mod ids;
mod message;
mod method;
mod page;
mod problem;
mod quota;
mod send;
mod serve;
mod service;
mod session;
mod text;
mod upload;
mod view;

pub use config::Config;
pub use send::{Sending, SendingRules};
pub use service::{Jmap, Parts};
pub use text::{Indexed, Scan, TextError, TextQuery, TextSearch};
