//! SMTP and LMTP without I/O, both ends (RFC 5321, RFC 2033).
//!
//! One [`server::Server`] and one [`client::Client`], each a [`machine::Machine`]. They own framing, grammar, command
//! order, pipelining, STARTTLS, the AUTH exchange, ends of data, limits and deadlines. What is true (who exists, what
//! is accepted, what has been stored) is asked of the service by events.
//!
//! Two rules that everything here keeps: only CRLF ends a line and only CRLF.CRLF ends data, however the bytes are cut;
//! and a message is never held whole, but passed on in the pieces in which it came.
//!
//! Not here: sockets, time, addresses' meaning, what becomes of a message.
//!
//! Start reading at [`server`].

pub mod client;
pub mod command;
pub mod data;
pub mod extension;
mod line;
pub mod parameter;
pub mod reply;
pub mod server;
pub mod status;
pub mod wish;
