//! Objects of mail (RFC 8621): which properties they have, and what clients say of them.

pub mod email;
pub mod filter;
pub mod header;
pub mod identity;
pub mod import;
pub mod mailbox;
pub mod part;
pub mod snippet;
pub mod submission;
pub mod thread;
pub mod vacation;
