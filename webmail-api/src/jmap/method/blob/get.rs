//! Blob/get (RFC 9404 §4.2).

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::StreamExt as _;
use jmap_protocol::method::{Get, object};
use jmap_protocol::object::blob::{DEFAULT_PROPERTIES, PROPERTIES};
use jmap_protocol::{Arguments, Id, MethodError, Object};
use serde_json::{Value, json};

use super::super::spend_on;
use crate::jmap::blob::{self, Blob};
use crate::jmap::context::{Context, body_trouble};

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let mut get = Get::take(arguments, context.config().objects_in_get_max)?;
    let (offset, length) = (arguments.unsigned("offset")?.unwrap_or(0), arguments.unsigned("length")?);
    std::mem::take(arguments).finish()?;
    get.check(&PROPERTIES)?;
    get.properties.get_or_insert_with(|| DEFAULT_PROPERTIES.map(str::to_owned).to_vec());
    // Of all blobs there is no list.
    let ids = get.ids.take().ok_or_else(|| MethodError::argument("ids", "a list of ids"))?;
    let (mut list, mut not_found): (Vec<Value>, Vec<Id>) = (Vec::new(), Vec::new());
    for id in ids {
        let found = blob::find(context.account(), &id).await.map_err(|error| body_trouble(&error))?;
        let Some(blob) = found else {
            not_found.push(id);
            continue;
        };
        let shown = show(context, &id, &blob, &get, offset, length).await?;
        spend_on(context, &shown)?;
        list.push(shown);
    }
    Ok(object(json!({"accountId": account, "list": list, "notFound": not_found})))
}

async fn show(
    context: &Context,
    id: &Id,
    blob: &Blob,
    get: &Get,
    offset: u64,
    length: Option<u64>,
) -> Result<Value, MethodError> {
    let size = blob.size().await.map_err(|error| body_trouble(&error))?;
    let end = length.map_or(size.max(offset), |length| offset.saturating_add(length));
    let range = offset.min(size)..end.min(size);
    let mut shown = object(json!({"id": id}));
    if end > size {
        shown.insert("isTruncated".to_owned(), json!(true));
    }
    if get.wants("size") {
        // RFC 9404 §4.2: that of the whole blob.
        shown.insert("size".to_owned(), json!(size));
    }
    let wants = |name: &str| get.wants(name);
    let wants_data = wants("data") || wants("data:asText") || wants("data:asBase64");
    let (wants_sha, wants_sha256) = (wants("digest:sha"), wants("digest:sha-256"));
    if !(wants_data || wants_sha || wants_sha256) {
        return Ok(Value::Object(shown));
    }
    if wants_data && range.end - range.start > context.room as u64 {
        let why = "the answer is too large; ask for less at a time".to_owned();
        return Err(MethodError::RequestTooLarge(why));
    }
    let mut sha = wants_sha.then(|| digest::Context::new(&SHA1_FOR_LEGACY_USE_ONLY));
    let mut sha256 = wants_sha256.then(|| digest::Context::new(&SHA256));
    let mut octets = Vec::new();
    let mut pieces = blob.range(range);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| body_trouble(&error))?;
        for digest in [&mut sha, &mut sha256].into_iter().flatten() {
            digest.update(&piece);
        }
        if wants_data {
            octets.extend_from_slice(&piece);
        }
        tokio::task::yield_now().await;
    }
    for (name, digest) in [("digest:sha", sha), ("digest:sha-256", sha256)] {
        if let Some(digest) = digest {
            shown.insert(name.to_owned(), json!(STANDARD.encode(digest.finish())));
        }
    }
    if wants_data {
        add_data(&mut shown, octets, get);
    }
    Ok(Value::Object(shown))
}

/// The octets as text where they are text, and as base64 where that is asked for, or where `data` is and they are none.
fn add_data(shown: &mut Object, octets: Vec<u8>, get: &Get) {
    let is_text = std::str::from_utf8(&octets).is_ok();
    if get.wants("data:asBase64") || (get.wants("data") && !is_text) {
        shown.insert("data:asBase64".to_owned(), json!(STANDARD.encode(&octets)));
    }
    if get.wants("data:asText") || (get.wants("data") && is_text) {
        shown.insert("data:asText".to_owned(), String::from_utf8(octets).map_or(Value::Null, Value::String));
    }
    if !is_text && (get.wants("data:asText") || get.wants("data")) {
        shown.insert("isEncodingProblem".to_owned(), json!(true));
    }
}
