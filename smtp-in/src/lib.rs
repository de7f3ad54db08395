//! Mail comes in: SMTP from other servers, submission from users, LMTP from other mail systems.
//!
//! A session is a loop over the events of the protocol's machine; each stage is a file: [`session`](self) → `hello` →
//! `auth` → `mail` → `rcpt` → `data` → `accept`. What can be refused is refused here, while the sender is still there to
//! hear it. A message goes straight into a segment while it comes, and 250 is said only with the queue's (for LMTP: the
//! account's) commit in hand.
//!
//! Not here: the protocol (`smtp-protocol`), who exists (`directory`), what becomes of a message after its 250
//! (`queue`, `delivery`).
//!
//! Start reading at [`SmtpIn`].

mod accept;
mod auth;
pub mod config;
mod connect;
mod data;
mod elsewhere;
mod hello;
mod mail;
mod place;
mod policy;
mod rcpt;
mod sender_limit;
mod service;
mod session;
mod submission;
mod trace;

pub use config::Config;
pub use service::{Role, SmtpIn};
