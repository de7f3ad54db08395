//! The language of JMAP (RFC 8620, and RFC 8621 for mail): what clients say, and how answers are written.
//!
//! A [`Request`] is parsed from bytes within [`Limits`], strictly: what RFC 8620 does not allow is refused, and every
//! refusal is one of the errors it names. Arguments that refer to earlier answers are resolved by [`mod@reference`]; typed
//! arguments come out of [`Arguments`], and the standard methods' are in [`method`]. Objects of mail are in [`object`].
//!
//! Not here: any input or output, and what is true of an account (`webmail-api`). Start reading at [`request`].

pub mod arguments;
pub mod date;
pub mod error;
pub mod filter;
pub mod id;
pub mod json;
pub mod method;
pub mod object;
pub mod patch;
pub mod pointer;
pub mod reference;
pub mod request;
pub mod response;
pub mod websocket;

pub use arguments::Arguments;
pub use error::{MethodError, RequestError, SetError, SetErrorKind};
pub use id::{Id, IdOrReference};
pub use request::{Invocation, Limits, Request};
pub use response::Response;

/// A JSON object.
pub type Object = serde_json::Map<String, serde_json::Value>;
