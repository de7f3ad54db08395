//! Sockets, TLS and the pump: bytes in and out, and nothing about mail.
//!
//! A [`listener::Listener`] accepts connections within [`limit`]s, reads the PROXY header of listed peers, does
//! implicit TLS, and hands every [`stream::Stream`] to a handler in a task of its own. The handler puts a machine from
//! `protocol/` into a [`pump::Pump`] and lives in a loop over [`pump::Pump::next`]. [`shutdown`] ends all of it gently.
//!
//! Not here: what any protocol means, and what to do about an event.
//!
//! Start reading at [`pump`].

pub mod limit;
pub mod listener;
pub mod network;
pub mod proxy_protocol;
pub mod pump;
pub mod shutdown;
pub mod stream;
pub mod tls;
