//! What goes around every request: whose pages may ask, and what every answer says to browsers.

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::service::Jmap;

/// Answers to a page's question whether it may ask are good for a day.
const PREFLIGHT_SECONDS: &str = "86400";

pub(super) async fn around(State(jmap): State<Jmap>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = match &origin {
        None => None,
        Some(origin)
            if is_own(origin, request.headers(), request.uri().authority().map(Authority::as_str)) =>
        {
            None
        }
        Some(origin) if jmap.inner.config.cors_origins.iter().any(|known| origin == known.as_str()) => {
            Some(origin.clone())
        }
        // A browser sends a password that it knows along with what any page asks for, if the method and the content type
        // are simple ones. So a page that is not listed gets nothing at all.
        Some(_) => {
            return finish(
                Problem::new(StatusCode::FORBIDDEN, "pages of this origin may not ask here").into_response(),
                None,
            );
        }
    };
    if request.method() == Method::OPTIONS && allowed.is_some() {
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        let text = HeaderValue::from_static;
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, text("GET, POST, OPTIONS"));
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            text("Authorization, Content-Type, Accept, Range, Last-Event-ID"),
        );
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, text(PREFLIGHT_SECONDS));
        return finish(response, allowed);
    }
    finish(next.run(request).await, allowed)
}

/// Whether a page comes from this server itself.
fn is_own(origin: &HeaderValue, headers: &HeaderMap, authority: Option<&str>) -> bool {
    let Some(origin) = origin.to_str().ok().and_then(|origin| origin.strip_prefix("https://")) else {
        return false;
    };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).or(authority);
    host.is_some_and(|host| host.eq_ignore_ascii_case(origin))
}

fn finish(mut response: Response, allowed: Option<HeaderValue>) -> Response {
    let headers = response.headers_mut();
    let text = HeaderValue::from_static;
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, text("nosniff"));
    headers.insert(header::REFERRER_POLICY, text("no-referrer"));
    headers.insert(header::STRICT_TRANSPORT_SECURITY, text("max-age=31536000"));
    headers.insert(header::X_FRAME_OPTIONS, text("DENY"));
    // What is downloaded may be HTML from anybody, and is never to run with this server's rights.
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(text("default-src 'none'; sandbox"));
    headers.entry(header::CACHE_CONTROL).or_insert(text("no-store"));
    headers.append(header::VARY, text("Origin"));
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, text("true"));
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            text("Content-Disposition, Content-Range, Accept-Ranges, Retry-After"),
        );
    }
    response
}
