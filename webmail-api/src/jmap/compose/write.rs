//! A new email as bytes, handed on as they are made.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::StreamExt as _;
use jmap_protocol::{Id, MethodError, SetError, SetErrorKind};
use mail::date::SentDate;
use serde_json::json;
use storage::{MessageWriter, StoredBody};
use uuid::Uuid;

use super::draft::Draft;
use super::part::{Content, PartDraft};
use crate::jmap::blob;
use crate::jmap::context::{Context, body_trouble};

/// Octets of a line of base64 before they are encoded: 76 after it (RFC 2045 §6.8).
const BASE64_LINE: usize = 57;
/// Octets of a line of quoted-printable (RFC 2045 §6.7).
const QUOTED_LINE: usize = 75;

/// Writes a message.
pub(crate) async fn write(
    context: &Context,
    draft: &Draft,
) -> Result<Result<StoredBody, SetError>, MethodError> {
    let missing = missing(context, draft).await?;
    if !missing.is_empty() {
        let error = SetError::new(SetErrorKind::BlobNotFound, "there are no such blobs");
        return Ok(Err(error.with("notFound", json!(missing))));
    }
    let mut out = Out { writer: context.account().body_writer(), most: context.config().upload_bytes_max };
    match message(context, draft, &mut out).await {
        Ok(()) => out.writer.finish().await.map(Ok).map_err(not_written),
        Err(Stop::TooLarge) => {
            let error = SetError::new(SetErrorKind::TooLarge, "the message is too large");
            Ok(Err(error.with("maxSize", json!(context.config().upload_bytes_max))))
        }
        Err(Stop::Trouble(error)) => Err(error),
    }
}

fn not_written(error: impl std::fmt::Display) -> MethodError {
    tracing::warn!(%error, "message not written");
    MethodError::ServerUnavailable
}

enum Stop {
    TooLarge,
    Trouble(MethodError),
}

struct Out {
    writer: MessageWriter,
    most: u64,
}

impl Out {
    async fn put(&mut self, bytes: impl Into<Bytes>) -> Result<(), Stop> {
        let bytes = bytes.into();
        if self.writer.size() + bytes.len() as u64 > self.most {
            return Err(Stop::TooLarge);
        }
        self.writer.write(bytes).await.map_err(|error| Stop::Trouble(not_written(error)))
    }
}

/// Blobs that a message needs and that are not there.
async fn missing(context: &Context, draft: &Draft) -> Result<Vec<Id>, MethodError> {
    let mut missing = Vec::new();
    let mut open = vec![&draft.body];
    while let Some(part) = open.pop() {
        match &part.content {
            Content::Multipart(parts) => open.extend(parts),
            Content::Text(_) => {}
            Content::Blob(id) => {
                let found = blob::find(context.account(), id).await.map_err(|error| body_trouble(&error))?;
                if found.is_none() && !missing.contains(id) {
                    missing.push(id.clone());
                }
            }
        }
    }
    Ok(missing)
}

async fn message(context: &Context, draft: &Draft, out: &mut Out) -> Result<(), Stop> {
    let mut header = String::new();
    for (name, value) in &draft.fields {
        let _ = write!(header, "{name}:{value}\r\n");
    }
    // RFC 8621 §4.6: what RFC 5322 §3.6 wants of every message is added.
    if !draft.has("Date") {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let _ = write!(header, "Date: {}\r\n", SentDate::utc(now as i64).rfc5322());
    }
    if !draft.has("Message-ID") {
        let domain = context.user().principal.address.domain().ascii().into_owned();
        let _ = write!(header, "Message-ID: <{}@{domain}>\r\n", Uuid::new_v4().simple());
    }
    header.push_str("MIME-Version: 1.0\r\n");
    out.put(header).await?;
    part(context, &draft.body, out).await
}

async fn part(context: &Context, draft: &PartDraft, out: &mut Out) -> Result<(), Stop> {
    let PartDraft { media, parameters, fields, content } = draft;
    let mut header = String::new();
    for (name, value) in fields {
        let _ = write!(header, "{name}:{value}\r\n");
    }
    match content {
        Content::Multipart(parts) => {
            let boundary = format!("=_{}", Uuid::new_v4().simple());
            let _ = write!(header, "Content-Type: {media}{parameters};\r\n boundary=\"{boundary}\"\r\n\r\n");
            out.put(header).await?;
            for child in parts {
                out.put(format!("--{boundary}\r\n")).await?;
                Box::pin(part(context, child, out)).await?;
                out.put("\r\n").await?;
            }
            out.put(format!("--{boundary}--\r\n")).await
        }
        Content::Text(text) => {
            let lines = line_ends(text);
            let is_plain = lines.is_ascii()
                && !lines.contains('\0')
                && lines.split("\r\n").all(|line| line.len() <= 78 && !line.starts_with("From "));
            let charset = if lines.is_ascii() { "us-ascii" } else { "utf-8" };
            let encoding = if is_plain { "7bit" } else { "quoted-printable" };
            let _ = write!(
                header,
                "Content-Type: {media}; charset={charset}{parameters}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
            );
            out.put(header).await?;
            out.put(if is_plain { lines } else { quoted(&lines) }).await
        }
        Content::Blob(id) => {
            let trouble = |error: storage::BodyError| Stop::Trouble(body_trouble(&error));
            let gone = || Stop::Trouble(MethodError::ServerFail("a blob went away".to_owned()));
            let blob = blob::find(context.account(), id).await.map_err(trouble)?.ok_or_else(gone)?;
            // RFC 2046 §5.2.1: a message within one is not encoded.
            let is_message = media == "message/rfc822" || media == "message/global";
            let encoding = if is_message { "8bit" } else { "base64" };
            let _ = write!(
                header,
                "Content-Type: {media}{parameters}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
            );
            out.put(header).await?;
            let mut pieces = blob.stream();
            let mut held: Vec<u8> = Vec::new();
            while let Some(piece) = pieces.next().await {
                let piece = piece.map_err(trouble)?;
                if is_message {
                    out.put(piece).await?;
                    continue;
                }
                held.extend_from_slice(&piece);
                let whole = held.len() / BASE64_LINE * BASE64_LINE;
                out.put(lines_of_base64(&held[..whole])).await?;
                held.drain(..whole);
            }
            out.put(lines_of_base64(&held)).await
        }
    }
}

/// Each line end as CRLF.
fn line_ends(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n")
}

fn lines_of_base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() / 57 * 78 + 80);
    for line in bytes.chunks(BASE64_LINE) {
        STANDARD.encode_string(line, &mut out);
        out.push_str("\r\n");
    }
    out
}

/// Quoted-printable (RFC 2045 §6.7).
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    for (at, line) in text.split("\r\n").enumerate() {
        if at > 0 {
            out.push_str("\r\n");
        }
        let mut length = 0;
        let bytes = line.as_bytes();
        for (at, byte) in bytes.iter().enumerate() {
            let is_last = at + 1 == bytes.len();
            // White space at the end of a line would be lost, and `From ` or a dot at its beginning changed.
            let is_plain = match byte {
                b' ' | b'\t' => !is_last,
                b'=' => false,
                b'F' | b'.' if at == 0 => false,
                byte => byte.is_ascii_graphic(),
            };
            let width = if is_plain { 1 } else { 3 };
            if length + width > QUOTED_LINE {
                out.push_str("=\r\n");
                length = 0;
            }
            if is_plain {
                out.push(char::from(*byte));
            } else {
                let _ = write!(out, "={byte:02X}");
            }
            length += width;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use storage::{Decoder, TransferEncoding};

    proptest! {
        #[test]
        fn text_comes_back(text in "(\\PC|[ =\t\n.]){0,300}") {
            let lines = line_ends(&text);
            let written = quoted(&lines);
            prop_assert!(written.split("\r\n").all(|line| line.len() <= 76));
            let mut decoder = Decoder::new(TransferEncoding::QuotedPrintable);
            let mut back = decoder.push(written.as_bytes());
            back.extend(decoder.finish());
            prop_assert_eq!(String::from_utf8(back).unwrap(), lines);
        }
    }
}
