//! The structure of a message (RFC 2045, RFC 2046), found in one pass while its bytes stream by.

pub mod facts;
pub mod limits;
pub mod part;
pub mod splitter;

pub use facts::Facts;
pub use limits::Limits;
pub use part::{Disposition, Kind, MediaType, Parameter, Part};
pub use splitter::Splitter;
