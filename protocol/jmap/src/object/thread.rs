//! Threads (RFC 8621 §3).

/// The properties of a thread.
pub const PROPERTIES: [&str; 2] = ["id", "emailIds"];
