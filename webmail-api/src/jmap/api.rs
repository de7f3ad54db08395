//! Requests of methods (RFC 8620 §3), as they come in.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use jmap_protocol::{Request, RequestError};

use super::auth::User;
use super::calls::Kind;
use super::problem::Problem;
use super::service::Jmap;
use super::{dispatch, session};

pub(super) async fn answer(
    State(jmap): State<Jmap>,
    user: User,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let config = &jmap.inner.config;
    let most = config.requests_at_once_max;
    let permit = jmap.inner.calls.begin(user.principal.account, Kind::Request, most);
    let _permit = permit.ok_or_else(|| Problem::too_many("maxConcurrentRequests"))?;
    if !is_json(&headers) {
        let why = "the content type is not application/json".to_owned();
        return Err(RequestError::NotJson(why).into());
    }
    let patience = Duration::from_secs(config.request_seconds_max.max(1));
    let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time");
    let bytes =
        tokio::time::timeout(patience, read(body, config.request_bytes_max)).await.map_err(late)??;
    let limits = config.limits();
    // Ten megabytes take a moment to read, during which others are not to wait.
    let offered = session::capabilities(&jmap);
    let parse = move || Request::parse(&bytes, limits, |capability| offered.contains(&capability));
    let request = if bytes_are_few(&headers) { parse() } else { run_aside(parse).await? };
    let request = request?;
    let session_state = session::state(&user);
    let answered = tokio::time::timeout(patience, Box::pin(dispatch::run(&jmap, user, request))).await;
    let late = |_| Problem::new(StatusCode::GATEWAY_TIMEOUT, "this takes too long; some of it may be done");
    let (answers, created_ids) = answered.map_err(late)?;
    let body = answers.into_value(created_ids.as_ref(), &session_state).to_string();
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// RFC 8620 §3.6.1 `notJSON`. A page of another origin cannot send this content type without asking first.
fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = content_type.and_then(|value| value.split(';').next());
    media.is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

fn bytes_are_few(headers: &HeaderMap) -> bool {
    const FEW: usize = 64 << 10;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    length.is_some_and(|length: usize| length <= FEW)
}

async fn run_aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let broken = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the request was broken off");
    tokio::task::spawn_blocking(work).await.map_err(broken)
}

async fn read(body: Body, most: usize) -> Result<Bytes, Problem> {
    match Limited::new(body, most).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(RequestError::Limit("maxSizeRequest").into()),
        Err(_) => Err(Problem::new(StatusCode::BAD_REQUEST, "the request was broken off")),
    }
}
