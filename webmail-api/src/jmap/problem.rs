//! Errors as HTTP has them: problem details (RFC 9457), which RFC 8620 §3.6.1 uses too.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jmap_protocol::RequestError;
use serde_json::{Value, json};

/// An answer that says what went wrong.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    body: Value,
    challenge: bool,
    retry_after: Option<u64>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: &str) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        let body =
            json!({"type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail});
        Self { status, body, challenge: false, retry_after: None }
    }

    /// Nobody has said who asks, or wrongly.
    pub(crate) fn unauthorized(detail: &str) -> Self {
        Self { challenge: true, ..Self::new(StatusCode::UNAUTHORIZED, detail) }
    }

    /// It may be tried again after so many seconds.
    pub(crate) fn later(status: StatusCode, detail: &str, seconds: u64) -> Self {
        Self { retry_after: Some(seconds.max(1)), ..Self::new(status, detail) }
    }

    /// Beyond a limit that the session announces, of things at one time.
    pub(crate) fn too_many(limit: &'static str) -> Self {
        Self { retry_after: Some(1), ..Self::limit(StatusCode::TOO_MANY_REQUESTS, limit) }
    }

    /// Beyond a limit that the session announces.
    pub(crate) fn limit(status: StatusCode, limit: &'static str) -> Self {
        let mut body = RequestError::Limit(limit).problem();
        body["status"] = json!(status.as_u16());
        Self { status, body, challenge: false, retry_after: None }
    }
}

impl Problem {
    /// The problem details alone, for where there is no HTTP around them.
    pub(crate) fn into_body(self) -> Value {
        self.body
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        Self { status: StatusCode::BAD_REQUEST, body: error.problem(), challenge: false, retry_after: None }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.challenge {
            let challenge = HeaderValue::from_static(
                "Basic realm=\"Postrider\", charset=\"UTF-8\", Bearer realm=\"Postrider\"",
            );
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
