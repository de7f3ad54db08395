//! Messages as JMAP shows them (RFC 8621 §4.1): header fields in every form, body parts, and their text.

pub(crate) mod body;
pub(crate) mod field;
pub(crate) mod octets;
pub(crate) mod parameter;
pub(crate) mod parts;
pub(crate) mod show;
pub(crate) mod value;
