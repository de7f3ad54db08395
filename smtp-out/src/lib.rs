//! Sending to other hosts: takes what the queue holds for a domain, finds the hosts that take its mail, and gives it to
//! them, with an answer for each recipient.
//!
//! A turn of a domain goes through [`service`] → `route` (mail exchangers, or a smart host) → `mx` → `throttle` (may we
//! now?) → lease, committed → `attempt` → `connect` or `pool` → `transaction` → `outcome` (what does the answer mean?) →
//! report to the queue. Whatever happens after the lease, the queue knows that it may have happened.
//!
//! Delivery to another host is at least once: a host that has taken a message while its answer was lost may get it
//! again (RFC 5321 §4.5.4.1 accepts that). Such recipients are *in doubt*; they are counted and shown.
//!
//! What is said to hosts and what they answer, without messages and passwords, can be watched as it happens
//! (`queue::Dialogues`, `postrider queue watch`).
//!
//! What is for names of our own domains that other regions have takes a shorter way, see `across`.
//!
//! Not here: when something is tried again, what senders are told, and what a message says. Its bytes are sent as they
//! are, since they may be signed.
//!
//! Start reading at [`service`], then `attempt` and `transaction`.

mod across;
mod attempt;
pub mod config;
mod connect;
mod message;
mod mx;
mod outcome;
mod pool;
mod report;
mod route;
pub mod service;
pub mod share;
mod site_label;
mod throttle;
mod tls_policy;
mod transaction;

pub use across::Elsewhere;
pub use config::Config;
pub use route::RouteError;
pub use service::{Parts, SmtpOut, StartError};
