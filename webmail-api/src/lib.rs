//! HTTP: what administrators, monitoring and (in time) the web interface and JMAP clients talk to.
//!
//! Only the administrators' part is here so far: [`admin`] offers what the directory can do as JSON over HTTP, with
//! an OpenAPI document, health and metrics. Start reading at [`admin::Api`].

pub mod admin;
