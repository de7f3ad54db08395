//! What is fuzzed: everything that reads bytes which somebody else has written, a peer or a disk.
//!
//! A target takes any bytes and asserts what must hold for all of them. That nothing panics is the least of it: what is
//! read in pieces is read alike in every other cut, what is written is read back as it was, what is refused is refused
//! with an answer, and what comes out is bounded by what went in.
//!
//! The tests beside this crate run each target over its seeds and a few thousand mutations of them, the same ones every
//! time; `../cargo-fuzz` runs the same functions for as long as one likes, led by coverage. An input that once broke
//! something stays among the seeds (`../seeds/TARGET/`).
//!
//! Start reading at [`TARGETS`]. The first bytes of most inputs say how the rest is used ([`input`]).

#![allow(clippy::unwrap_used, reason = "a target that cannot go on has found something")]

pub mod account;
pub mod address;
pub mod archive_chunk;
pub mod directory_table;
pub mod header;
pub mod imap_client;
pub mod imap_ends;
pub mod imap_names;
pub mod imap_response;
pub mod imap_server;
pub mod input;
pub mod jmap_request;
pub mod log_entry;
pub mod mime;
pub mod proxy;
pub mod queue_shard;
pub mod sasl_exchange;
pub mod segment;
pub mod smtp_client;
pub mod smtp_command;
pub mod smtp_data;
pub mod smtp_ends;
pub mod smtp_server;
mod smtp_service;

/// A function that is fuzzed.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: of the seed folder, and of the program in `../cargo-fuzz`.
    pub name: &'static str,
    /// What is run.
    pub run: fn(&[u8]),
    /// Inputs that are made and not stored: formats in which a byte cannot be changed by hand.
    pub samples: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "account_fold", run: account::fold, samples: account::fold_samples },
    Target { name: "account_stored", run: account::stored, samples: account::stored_samples },
    Target { name: "address", run: address::run, samples: none },
    Target { name: "archive_chunk", run: archive_chunk::run, samples: archive_chunk::samples },
    Target { name: "directory_table", run: directory_table::run, samples: directory_table::samples },
    Target { name: "header", run: header::run, samples: none },
    Target { name: "imap_client", run: imap_client::run, samples: none },
    Target { name: "imap_ends", run: imap_ends::run, samples: none },
    Target { name: "imap_names", run: imap_names::run, samples: none },
    Target { name: "imap_response", run: imap_response::run, samples: mime::samples },
    Target { name: "imap_server", run: imap_server::run, samples: none },
    Target { name: "jmap_request", run: jmap_request::run, samples: none },
    Target { name: "log_entry", run: log_entry::run, samples: log_entry::samples },
    Target { name: "mime", run: mime::run, samples: mime::samples },
    Target { name: "proxy", run: proxy::run, samples: proxy::samples },
    Target { name: "queue_fold", run: queue_shard::fold, samples: queue_shard::fold_samples },
    Target { name: "queue_stored", run: queue_shard::stored, samples: queue_shard::stored_samples },
    Target { name: "sasl_exchange", run: sasl_exchange::run, samples: none },
    Target { name: "segment", run: segment::run, samples: segment::samples },
    Target { name: "smtp_client", run: smtp_client::run, samples: none },
    Target { name: "smtp_command", run: smtp_command::run, samples: none },
    Target { name: "smtp_data", run: smtp_data::run, samples: none },
    Target { name: "smtp_ends", run: smtp_ends::run, samples: none },
    Target { name: "smtp_server", run: smtp_server::run, samples: none },
];

fn none() -> Vec<Vec<u8>> {
    Vec::new()
}

/// Runs the target of this name.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    (target.run)(data);
}
