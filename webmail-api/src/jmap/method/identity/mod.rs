//! Identities (RFC 8621 §6).

pub(crate) mod changes;
pub(crate) mod get;
pub(crate) mod set;
