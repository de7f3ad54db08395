//! HTTP: what administrators, monitoring and (in time) the web interface and JMAP clients talk to.
//!
//! [`admin`] offers what the directory can do as JSON over HTTP, with an OpenAPI document, health and metrics; [`oauth`]
//! gives tokens to programs whose users log in here. Start reading at [`admin::Api`].

pub mod admin;
pub mod oauth;
