//! The IMAP language: framing, grammar, command order and responses, without input or output.
//!
//! [`server::Server`] is the machine of the server's side: bytes become [`server::Event`]s, one command at a time,
//! parsed and legal; messages of APPEND are streamed. [`response`] writes what the service answers. [`client`] is a
//! small client machine for tests.
//!
//! The grammar is our own, since the parts that `imap-codec` lacks (LIST-EXTENDED, SEARCH RETURN, QRESYNC in places,
//! `CREATE … USE`) cannot be separated from the commands around them; the codec is the oracle of the tests, for commands
//! and for every response.
//!
//! This crate knows nothing of mailboxes' contents, and no clock: `now` is an argument.

pub mod client;
pub mod command;
pub mod fetch;
pub mod mailbox_name;
pub mod page;
mod parse;
pub mod response;
pub mod search;
pub mod sequence;
pub mod server;
