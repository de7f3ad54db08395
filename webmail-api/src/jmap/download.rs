//! Downloads (RFC 8620 §6.2): whole, or a range (RFC 9110 §14).

use std::ops::Range;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use jmap_protocol::Id;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use storage::BodyError;

use super::auth::User;
use super::blob::{self, Blob};
use super::calls::{Kind, Permit};
use super::problem::Problem;
use super::service::Jmap;

/// What an extended parameter leaves as it is (RFC 8187 §3.2.1).
const EXTENDED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Octets of a file's name in an answer.
const NAME_MAX: usize = 255;

#[derive(Deserialize)]
pub(super) struct Options {
    accept: Option<String>,
}

pub(super) async fn send(
    State(jmap): State<Jmap>,
    user: User,
    Path((account, id, name)): Path<(String, String, String)>,
    Query(options): Query<Options>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let missing = || Problem::new(StatusCode::NOT_FOUND, "there is no such blob");
    if account != user.account_id().as_str() {
        return Err(missing());
    }
    let most = jmap.inner.config.requests_at_once_max;
    let permit = jmap.inner.calls.begin(user.principal.account, Kind::Request, most);
    let permit = permit.ok_or_else(|| Problem::too_many("maxConcurrentRequests"))?;
    let id = Id::new(id).ok_or_else(missing)?;
    let trouble = |error: BodyError| {
        tracing::warn!(%error, "download failed");
        Problem::later(StatusCode::SERVICE_UNAVAILABLE, "it cannot be read now", 5)
    };
    let blob = blob::find(&user.account, &id).await.map_err(trouble)?.ok_or_else(missing)?;
    let media = match &options.accept {
        Some(media) => media_type(media)
            .ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "accept: not the name of a media type"))?,
        None => media_type(&blob.media).unwrap_or(HeaderValue::from_static("application/octet-stream")),
    };
    let name = if name.is_empty() { blob.file_name().unwrap_or_default() } else { name };
    let mut response = match headers.get(header::RANGE).and_then(|range| range.to_str().ok()) {
        Some(range) => {
            let size = blob.size().await.map_err(trouble)?;
            match ranges(range, size) {
                Asked::All => whole(&blob, permit),
                Asked::Part(range) => part(&blob, range, size, permit),
                Asked::Nothing => {
                    let mut response =
                        Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "it is shorter than that")
                            .into_response();
                    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
                        response.headers_mut().insert(header::CONTENT_RANGE, value);
                    }
                    return Ok(response);
                }
            }
        }
        None => whole(&blob, permit),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, media);
    headers.insert(header::CONTENT_DISPOSITION, disposition(&name));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // RFC 8620 §6.2: an id never means other bytes.
    let cache = HeaderValue::from_static("private, immutable, max-age=31536000");
    headers.insert(header::CACHE_CONTROL, cache);
    Ok(response)
}

fn whole(blob: &Blob, permit: Permit) -> Response {
    let length = blob.direct().map(|octets| octets.size());
    let mut response = Body::from_stream(guarded(blob.stream(), permit)).into_response();
    if let Some(length) = length {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    response
}

fn part(blob: &Blob, range: Range<u64>, size: u64, permit: Permit) -> Response {
    let body = Body::from_stream(guarded(blob.range(range.clone()), permit));
    let mut response = (StatusCode::PARTIAL_CONTENT, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
    let told = format!("bytes {}-{}/{size}", range.start, range.end - 1);
    if let Ok(told) = HeaderValue::from_str(&told) {
        headers.insert(header::CONTENT_RANGE, told);
    }
    response
}

type Pieces = BoxStream<'static, Result<Bytes, BodyError>>;

/// Counts as under way until it has been sent.
fn guarded(pieces: Pieces, permit: Permit) -> impl futures_util::Stream<Item = Result<Bytes, BodyError>> {
    stream::unfold((pieces, permit), |(mut pieces, permit)| async move {
        let piece = pieces.next().await?;
        if let Err(error) = &piece {
            tracing::warn!(%error, "download broken off");
        }
        Some((piece, (pieces, permit)))
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    All,
    Part(Range<u64>),
    Nothing,
}

/// One range; of several, and of what is not understood, there is all (RFC 9110 §14.2 allows it).
fn ranges(value: &str, size: u64) -> Asked {
    let Some(range) = value.strip_prefix("bytes=") else { return Asked::All };
    let Some((first, last)) = range.trim().split_once('-') else { return Asked::All };
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let range = match (first.is_empty(), number(first), last.is_empty(), number(last)) {
        (true, _, _, Some(suffix)) => size.saturating_sub(suffix)..size,
        (_, Some(first), true, _) => first..size,
        (_, Some(first), _, Some(last)) if first <= last => first..last.saturating_add(1).min(size),
        _ => return Asked::All,
    };
    if range.start >= range.end { Asked::Nothing } else { Asked::Part(range) }
}

/// A media type that a client gives, with parameters that cannot break out of the header.
fn media_type(text: &str) -> Option<HeaderValue> {
    let token = |text: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b);
        (1..=127).contains(&text.len()) && text.bytes().all(allowed)
    };
    let mut pieces = text.split(';');
    let (kind, sub) = pieces.next()?.trim().split_once('/')?;
    let is_parameter = |piece: &str| {
        piece.trim().split_once('=').is_some_and(|(name, value)| {
            token(name)
                && (token(value)
                    || value.strip_prefix('"').and_then(|it| it.strip_suffix('"')).is_some_and(token))
        })
    };
    if !(token(kind) && token(sub) && pieces.all(is_parameter)) {
        return None;
    }
    HeaderValue::from_str(text).ok()
}

/// Always an attachment: what strangers send is never to be shown as a page of this server (RFC 6266).
fn disposition(name: &str) -> HeaderValue {
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    let name = &name[..name.floor_char_boundary(NAME_MAX)];
    let plain: String =
        name.chars()
            .map(|c| {
                if (c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '/' | '%')) || c == ' ' {
                    c
                } else {
                    '_'
                }
            })
            .collect();
    let text = if plain == name {
        format!("attachment; filename=\"{plain}\"")
    } else {
        format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", utf8_percent_encode(name, EXTENDED))
    };
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_rfc9110_14_1() {
        let check = |value: &str, expected: Asked| assert_eq!(ranges(value, 100), expected, "{value}");
        check("bytes=0-9", Asked::Part(0..10));
        check("bytes=90-", Asked::Part(90..100));
        check("bytes=-5", Asked::Part(95..100));
        check("bytes=-500", Asked::Part(0..100));
        check("bytes=95-200", Asked::Part(95..100));
        check("bytes=100-", Asked::Nothing);
        check("bytes=-0", Asked::Nothing);
        check("bytes=0-99999999999999999999999", Asked::Part(0..100));
        for all in ["bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes=--5", "bytes=+1-2"] {
            check(all, Asked::All);
        }
    }

    #[test]
    fn names_cannot_break_out() {
        let check = |name: &str, expected: &str| {
            assert_eq!(disposition(name).to_str().unwrap(), expected);
        };
        check("a b.txt", "attachment; filename=\"a b.txt\"");
        check("a\"b\r\nX: y", "attachment; filename=\"a_bX: y\"; filename*=UTF-8''a%22bX%3A%20y");
        check("käse", "attachment; filename=\"k_se\"; filename*=UTF-8''k%C3%A4se");
        check("../x", "attachment; filename=\".._x\"; filename*=UTF-8''..%2Fx");
        assert!(disposition(&"ä".repeat(1000)).len() < 2000);
    }

    #[test]
    fn media_types_cannot_break_out() {
        for good in ["text/plain", "text/plain; charset=utf-8", "text/x;a=\"b\"", "application/ld+json"] {
            assert!(media_type(good).is_some(), "{good}");
        }
        for bad in
            ["text", "text/", "a b/c", "text/html\r\nX: y", "text/plain; charset", "a/b;c=\"d\" e", "", "*/*"]
        {
            assert!(media_type(bad).is_none(), "{bad}");
        }
    }
}
