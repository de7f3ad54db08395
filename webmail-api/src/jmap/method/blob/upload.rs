//! Blob/upload (RFC 9404 §4.1): uploads out of text, base64 and ranges of other blobs.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::StreamExt as _;
use jmap_protocol::method::object;
use jmap_protocol::object::blob::{Source, Upload};
use jmap_protocol::{Arguments, Id, IdOrReference, MethodError, Object, SetError, SetErrorKind};
use serde_json::{Map, Value, json};
use storage::UploadError;

use crate::jmap::blob::{self, Blob};
use crate::jmap::context::{Context, body_trouble, record_trouble};
use crate::jmap::ids::BlobName;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let create = arguments.objects("create")?;
    std::mem::take(arguments).finish()?;
    if create.len() > context.config().objects_in_set_max {
        return Err(MethodError::RequestTooLarge("too many blobs".to_owned()));
    }
    let (mut created, mut not_created) = (Map::new(), Map::new());
    let mut pending = BTreeMap::new();
    for (key, wanted) in create {
        match Upload::parse(&wanted, context.config().blob_sources_max) {
            Ok(upload) => drop(pending.insert(key, upload)),
            Err(error) => drop(not_created.insert(key.to_string(), error.to_value())),
        }
    }
    while let Some(key) = next(&pending) {
        let Some(upload) = pending.remove(&key) else { break };
        match one(context, upload).await? {
            Ok((id, shown)) => {
                context.created_ids.insert(key.clone(), id);
                created.insert(key.to_string(), shown);
            }
            Err(error) => drop(not_created.insert(key.to_string(), error.to_value())),
        }
    }
    let some = |map: Map<String, Value>| if map.is_empty() { Value::Null } else { Value::Object(map) };
    Ok(object(json!({
        "accountId": account,
        "created": some(created),
        "notCreated": some(not_created),
    })))
}

/// One that refers to none of those that are still to be made. Where each does they refer to one another in a circle;
/// then any is the next, and does not find what it refers to.
fn next(pending: &BTreeMap<Id, Upload>) -> Option<Id> {
    let is_ready = |upload: &Upload| !upload.references().any(|key| pending.contains_key(key));
    let ready = pending.iter().find(|(_, upload)| is_ready(upload)).map(|(key, _)| key);
    ready.or_else(|| pending.keys().next()).cloned()
}

/// A source that is there.
enum Piece {
    Octets(Bytes),
    Range(Box<Blob>, Range<u64>),
}

async fn one(context: &Context, upload: Upload) -> Result<Result<(Id, Value), SetError>, MethodError> {
    let size_max = context.config().upload_bytes_max;
    let (mut pieces, mut size) = (Vec::with_capacity(upload.data.len()), 0_u64);
    for source in upload.data {
        let piece = match piece(context, source).await? {
            Ok(piece) => piece,
            Err(error) => return Ok(Err(error)),
        };
        size = size.saturating_add(match &piece {
            Piece::Octets(octets) => octets.len() as u64,
            Piece::Range(_, range) => range.end - range.start,
        });
        // RFC 9404 §3.1 maxSizeBlobSet; nothing is written for what will not be kept.
        if size > size_max {
            let error = SetError::new(SetErrorKind::TooLarge, "the blob would be larger than maxSizeBlobSet");
            return Ok(Err(error.with("maxSize", json!(size_max))));
        }
        pieces.push(piece);
    }
    let failed = |error| {
        tracing::warn!(error = %error, "blob not written");
        MethodError::ServerUnavailable
    };
    let mut writer = context.account().upload_writer();
    for piece in pieces {
        match piece {
            Piece::Octets(octets) => writer.write(octets).await.map_err(failed)?,
            Piece::Range(blob, range) => {
                let mut octets = blob.range(range);
                while let Some(octets) = octets.next().await {
                    let octets = octets.map_err(|error| body_trouble(&error))?;
                    writer.write(octets).await.map_err(failed)?;
                }
            }
        }
    }
    let size = writer.size();
    let stored = writer.finish().await.map_err(failed)?;
    Ok(match context.account().keep_upload(stored).await {
        Ok(id) => {
            let name = BlobName::upload(id).to_string();
            let media = upload.media.unwrap_or_else(|| "application/octet-stream".to_owned());
            let id = Id::new(name.as_str()).ok_or_else(|| MethodError::ServerFail("no id".to_owned()))?;
            Ok((id, json!({"id": name, "type": media, "size": size})))
        }
        Err(error @ UploadError::OverQuota) => Err(SetError::new(SetErrorKind::OverQuota, error.to_string())),
        Err(UploadError::Storage(error)) => Err(record_trouble(&error)),
    })
}

async fn piece(context: &Context, source: Source) -> Result<Result<Piece, SetError>, MethodError> {
    let (id, offset, length) = match source {
        Source::Octets(octets) => return Ok(Ok(Piece::Octets(octets.into()))),
        Source::Blob { id, offset, length } => (id, offset, length),
    };
    let found = match context.resolve(&id) {
        Some(id) => blob::find(context.account(), &id).await.map_err(|error| body_trouble(&error))?,
        None => None,
    };
    let Some(blob) = found else { return Ok(Err(missing(&id))) };
    let size = blob.size().await.map_err(|error| body_trouble(&error))?;
    let end = length.map_or(size, |length| offset.saturating_add(length));
    // RFC 9404 §4.1: what cannot be taken whole is not taken.
    if offset > size || end > size {
        return Ok(Err(SetError::property("data", format!("the range goes beyond the end of {id}"))));
    }
    Ok(Ok(Piece::Range(Box::new(blob), offset..end)))
}

fn missing(id: &IdOrReference) -> SetError {
    SetError::new(SetErrorKind::BlobNotFound, "there is no such blob")
        .with("notFound", json!([id.to_string()]))
}
