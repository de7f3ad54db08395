//! IMAP4rev1 for mail clients.
//!
//! [`Imap::serve`] takes a connection and lives in a loop over the events of the machine in `imap-protocol`: each
//! command is a function in the file of its name under `command/`, and returns the tagged reply. What the client may be
//! told besides, and when, is decided in `view` (pure). Everything shown comes from the account's state and email
//! records in `storage`; nothing is parsed for FETCH but what asks for header fields.
//!
//! Not here: the grammar and the order of commands (`imap-protocol`), who may log in (`directory`), what a commit does
//! (`storage`).

mod appends;
mod capability;
mod command;
mod config;
mod elsewhere;
mod fetch;
mod messages;
mod news;
mod reply;
mod search;
mod selected;
pub mod service;
mod session;
mod sort;
mod thread;
mod view;

pub use config::Config;
pub use elsewhere::Entered;
pub use service::Imap;
