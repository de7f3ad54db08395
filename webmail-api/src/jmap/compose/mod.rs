//! Writing messages (RFC 8621 §4.6): what a client says of a new email becomes bytes, part by part, as they are made.

mod draft;
mod field;
mod part;
mod write;

pub(crate) use draft::Draft;
pub(crate) use write::write;
