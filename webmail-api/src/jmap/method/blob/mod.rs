//! Blobs within requests (RFC 9404): made of pieces, read in pieces, and what they belong to.

pub(crate) mod get;
pub(crate) mod lookup;
pub(crate) mod upload;
