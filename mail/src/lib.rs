//! The words of mail: addresses, envelopes, headers, MIME structure, flags, UIDs, the DSN format.
//!
//! Pure values: nothing here does input or output, knows a clock or is async. Every other crate speaks in these types,
//! so that they never become "common": a type belongs here when two languages or services mean the same thing by it.
//!
//! Start reading at [`id`] and [`envelope`]; the heart is [`mime::Splitter`].

pub mod address;
pub mod date;
pub mod dsn;
pub mod envelope;
pub mod flag;
pub mod fold;
pub mod header;
pub mod id;
pub mod mime;
pub mod received;
pub mod region;
pub mod status_report;
pub mod thread;
pub mod uid;
pub mod xtext;
