//! Uploads (RFC 8620 §6.1), written as they come.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use serde_json::json;
use storage::UploadError;

use super::auth::User;
use super::calls::Kind;
use super::ids::BlobName;
use super::problem::Problem;
use super::service::Jmap;

/// Seconds in which some of an upload has to come.
const STALL_SECONDS_MAX: u64 = 60;

pub(super) async fn take(
    State(jmap): State<Jmap>,
    user: User,
    Path(account): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    if account != user.account_id().as_str() {
        return Err(Problem::new(StatusCode::NOT_FOUND, "there is no such account"));
    }
    let config = &jmap.inner.config;
    let permit = jmap.inner.calls.begin(user.principal.account, Kind::Upload, config.uploads_at_once_max);
    let _permit = permit.ok_or_else(|| Problem::too_many("maxConcurrentUpload"))?;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > config.upload_bytes_max) {
        return Err(too_large());
    }
    let patience = Duration::from_secs(config.upload_seconds_max.max(1));
    let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the upload did not arrive in time");
    let written = write(&jmap, &user, body);
    let (name, size) = tokio::time::timeout(patience, Box::pin(written)).await.map_err(late)??;
    // What it says is told back; nothing is decided by it, and nobody else is shown it (RFC 8620 §6.1).
    let media = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let media = media.unwrap_or("application/octet-stream");
    let told = json!({"accountId": account, "blobId": name.to_string(), "type": media, "size": size});
    let mut response = (StatusCode::CREATED, told.to_string()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

async fn write(jmap: &Jmap, user: &User, mut body: Body) -> Result<(BlobName, u64), Problem> {
    let unavailable = |error: &dyn std::fmt::Display| {
        tracing::warn!(%error, "upload not kept");
        Problem::later(StatusCode::SERVICE_UNAVAILABLE, "it cannot be kept now", 5)
    };
    let mut writer = user.account.upload_writer();
    let stall = Duration::from_secs(STALL_SECONDS_MAX);
    loop {
        let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "nothing came for too long");
        let Some(frame) = tokio::time::timeout(stall, body.frame()).await.map_err(late)? else { break };
        let broken = |_| Problem::new(StatusCode::BAD_REQUEST, "the upload was broken off");
        let Ok(bytes) = frame.map_err(broken)?.into_data() else { continue };
        if writer.size() + bytes.len() as u64 > jmap.inner.config.upload_bytes_max {
            return Err(too_large());
        }
        writer.write(bytes).await.map_err(|error| unavailable(&error))?;
    }
    let size = writer.size();
    let stored = writer.finish().await.map_err(|error| unavailable(&error))?;
    match user.account.keep_upload(stored).await {
        Ok(id) => Ok((BlobName::upload(id), size)),
        Err(UploadError::Storage(error)) => Err(unavailable(&error)),
        // RFC 8620 §6.1: what was uploaded earlier goes when its time is over.
        Err(error) => Err(Problem::later(StatusCode::INSUFFICIENT_STORAGE, &error.to_string(), 600)),
    }
}

fn too_large() -> Problem {
    Problem::limit(StatusCode::PAYLOAD_TOO_LARGE, "maxSizeUpload")
}
