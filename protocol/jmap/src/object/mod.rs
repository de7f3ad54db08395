//! Objects of mail (RFC 8621), quotas (RFC 9425) and blobs (RFC 9404): which properties they have, and what clients say of them.

pub mod blob;
pub mod email;
pub mod filter;
pub mod header;
pub mod identity;
pub mod import;
pub mod mailbox;
pub mod part;
pub mod push_subscription;
pub mod quota;
pub mod snippet;
pub mod submission;
pub mod thread;
pub mod vacation;
