//! The structure of a message (RFC 2045, RFC 2046), found in one pass while its bytes stream by.

mod content;
pub mod facts;
pub mod limits;
mod open;
pub mod part;
mod preview;
pub mod section;
pub mod splitter;
pub mod text_decoder;

pub use facts::Facts;
pub use limits::Limits;
pub use part::{Disposition, EmbeddedMessage, Kind, MediaType, Parameter, Part};
pub use section::{Section, SectionText};
pub use splitter::Splitter;
pub use text_decoder::{TextDecoder, TransferDecoder};
