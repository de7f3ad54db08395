//! Emails (RFC 8621 §4).

pub(crate) mod changes;
pub(crate) mod copy;
pub(crate) mod get;
pub(crate) mod import;
pub(crate) mod parse;
pub(crate) mod query;
pub(crate) mod query_changes;
pub(crate) mod set;
