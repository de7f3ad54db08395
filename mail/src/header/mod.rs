//! Header fields: scanning them while they stream, and what IMAP and JMAP want to know of them.
//!
//! Header values are kept as the bytes that stood in the message. Mail is older than UTF-8 and full of errors; what is
//! decoded away here could never be shown again.

pub mod address_list;
pub mod decode;
pub mod fields;
pub(crate) mod lexer;
pub(crate) mod lines;
pub mod select;
pub mod summary;
pub mod text;

pub use fields::Fields;
pub use summary::{HeaderAddress, HeaderSummary};
pub use text::RawText;
