//! Search snippets (RFC 8621 §5).

/// The properties of a snippet.
pub const PROPERTIES: [&str; 3] = ["emailId", "subject", "preview"];
