//! What the serving side and the request's head say: from where it comes, and under which name.

use std::net::IpAddr;

use axum::http::{HeaderMap, Uri, header};

/// From where a request comes. The serving side puts it into each, for the throttling of logins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote(pub IpAddr);

/// Under which origin a client finds this server: as configured, or as it says itself.
pub(crate) fn base_url(configured: &str, headers: &HeaderMap, uri: &Uri) -> String {
    if !configured.is_empty() {
        return configured.to_owned();
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(|authority| authority.as_str()));
    // It is told to nobody but who said it, and still has to be a host.
    let is_host = |host: &&str| {
        !host.is_empty()
            && host.len() <= 255
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
    };
    format!("https://{}", host.filter(is_host).unwrap_or("localhost"))
}
