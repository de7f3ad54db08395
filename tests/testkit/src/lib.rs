//! What tests from outside share: starting the server and other processes, a name server, hosts that take mail, Postfix, small blocking
//! SMTP and IMAP clients, a ledger of what was acknowledged, messages, and real mail.
//!
//! The clients here are deliberately not built on the project's own protocol crates: they read replies as a stranger
//! would. They are for tests on loopback and trust the server not to send endless lines.

pub mod child;
pub mod corpus;
pub mod dns;
pub mod doors;
pub mod imap;
pub mod ledger;
pub mod load;
pub mod message;
pub mod metrics;
pub mod observe;
pub mod postfix;
pub mod reports;
pub mod sending;
pub mod server;
pub mod sink;
pub mod smtp;
pub mod synced;
pub mod watching;
