//! Core/echo (RFC 8620 §4).

use jmap_protocol::Object;

/// Answers what it is given.
pub(crate) fn run(arguments: Object) -> Object {
    arguments
}
