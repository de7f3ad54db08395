//! Emails (RFC 8621 §4).

pub(crate) mod changes;
pub(crate) mod get;
pub(crate) mod parse;
pub(crate) mod query;
pub(crate) mod query_changes;
