//! HTTP: what administrators, monitoring, mail programs and web interfaces talk to.
//!
//! [`admin`] offers what the directory can do as JSON over HTTP, with an OpenAPI document, health and metrics.
//! [`jmap`] is where users' mail is read and changed, and [`oauth`] gives tokens to programs whose users log in here. Start
//! reading at [`admin::Api`] and [`jmap::Jmap`].

pub mod admin;
pub mod jmap;
pub mod oauth;
mod request;

pub use request::Remote;
