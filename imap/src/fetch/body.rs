//! The octets of `BODY[…]`: found, announced, streamed.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures_util::stream::StreamExt;
use imap_protocol::fetch::{FetchItem, Partial, Section, SectionText};
use imap_protocol::response::fetch as write;
use mail::header::select::{FieldSelector, Keep};
use mail::mime::{Part, section};
use storage::{Account, BodyError, BodyReader, EmailRecord, StorageError};
use tracing::error;

use crate::reply::Stop;
use crate::session::Session;

/// Octets of a message that are read ahead before it is its turn. Most messages are smaller as a whole.
const AHEAD_BYTES: u64 = 64 * 1024;

/// A message opened for the sections that were asked for.
pub(super) struct Body {
    reader: BodyReader,
    /// One for each item that is a section, in their order.
    contents: std::vec::IntoIter<Content>,
}

/// What a section holds.
enum Content {
    /// There is no such part: NIL.
    Absent,
    /// Octets at hand.
    Held(Bytes),
    /// Octets to be read when they are sent.
    Range(Range<u64>),
    /// Fields of a long header, `size` octets in all; `clip` of them are wanted.
    Fields { header: Range<u64>, wanted: SectionText, clip: Range<u64> },
}

impl Body {
    /// Opens a message and reads what is small. Nothing has been said to the client yet, so this may fail.
    pub(super) async fn open(
        account: &Account,
        record: &EmailRecord,
        items: &[FetchItem],
        held: usize,
    ) -> Result<Self, BodyError> {
        let reader = account.body(record).await?;
        let needs_structure = items
            .iter()
            .any(|item| matches!(item, FetchItem::Section { section, .. } if !section.part.is_empty()));
        let structure =
            if needs_structure { Some(record.structure().map_err(StorageError::from)?) } else { None };
        let mut contents = Vec::new();
        for item in items.iter().filter(|item| super::is_body(item)) {
            let (section, partial) = asked(item);
            let octets = octets(record, structure.as_ref(), &section);
            contents.push(content(&reader, octets, &section, partial, held).await?);
        }
        Ok(Self { reader, contents: contents.into_iter() })
    }

    /// Writes the next section under the name that `item` gives it.
    pub(super) async fn write(&mut self, session: &mut Session, item: &FetchItem) -> Result<(), Stop> {
        let out = session.out();
        match item {
            FetchItem::Rfc822 => out.extend_from_slice(b"RFC822 "),
            FetchItem::Rfc822Header => out.extend_from_slice(b"RFC822.HEADER "),
            FetchItem::Rfc822Text => out.extend_from_slice(b"RFC822.TEXT "),
            FetchItem::Section { section, partial, .. } => write::section_name(out, section, *partial),
            _ => return Ok(()),
        }
        match self.contents.next() {
            None | Some(Content::Absent) => out.extend_from_slice(b"NIL"),
            Some(Content::Held(bytes)) => {
                let bytes = without_nul(bytes);
                write::literal_head(out, bytes.len() as u64);
                if bytes.len() < 4096 {
                    out.extend_from_slice(&bytes);
                } else {
                    session.pump.send(bytes).await?;
                }
            }
            Some(Content::Range(range)) => {
                write::literal_head(out, range.end - range.start);
                self.stream(session, range).await?;
            }
            Some(Content::Fields { header, wanted, clip }) => {
                write::literal_head(out, clip.end - clip.start);
                self.stream_fields(session, header, &wanted, clip).await?;
            }
        }
        Ok(())
    }

    /// Sends exactly the octets of the range, as fast as they are taken.
    async fn stream(&self, session: &mut Session, range: Range<u64>) -> Result<(), Stop> {
        let mut left = range.end - range.start;
        let mut pieces = self.reader.range(range);
        while left > 0 {
            let piece = next_piece(&mut pieces).await?;
            left =
                left.checked_sub(piece.len() as u64).ok_or_else(|| broken("more octets than announced"))?;
            session.pump.send(without_nul(piece)).await?;
        }
        Ok(())
    }

    async fn stream_fields(
        &self,
        session: &mut Session,
        header: Range<u64>,
        wanted: &SectionText,
        clip: Range<u64>,
    ) -> Result<(), Stop> {
        let Some(mut selector) = selector(wanted) else { return Err(broken("no fields to select")) };
        let (mut at, mut left) = (0, header.end - header.start);
        let mut sent = 0;
        let mut pieces = self.reader.range(header);
        let mut kept = Vec::new();
        while left > 0 {
            let piece = next_piece(&mut pieces).await?;
            left =
                left.checked_sub(piece.len() as u64).ok_or_else(|| broken("more octets than announced"))?;
            selector.push(&piece, &mut kept);
            sent += send_clipped(session, &mut kept, &mut at, &clip).await?;
        }
        selector.finish(&mut kept);
        sent += send_clipped(session, &mut kept, &mut at, &clip).await?;
        if sent == clip.end - clip.start { Ok(()) } else { Err(broken("a header is not what it was")) }
    }
}

/// Sends what of `kept`, which begins at `at`, lies within `clip`.
async fn send_clipped(
    session: &mut Session,
    kept: &mut Vec<u8>,
    at: &mut u64,
    clip: &Range<u64>,
) -> Result<u64, Stop> {
    let begin = *at;
    *at += kept.len() as u64;
    let from = clip.start.clamp(begin, *at) - begin;
    let to = clip.end.clamp(begin, *at) - begin;
    let piece = Bytes::copy_from_slice(&kept[from as usize..to as usize]);
    kept.clear();
    let size = piece.len() as u64;
    session.pump.send(without_nul(piece)).await?;
    Ok(size)
}

/// No literal holds a NUL (RFC 9051 §9, `CHAR8`), and clients that read into C strings would take it for the end. What
/// is stored keeps it; what is sent has 0x80 in its place, as Dovecot has it, so that sizes and offsets stay true.
fn without_nul(bytes: Bytes) -> Bytes {
    let Some(first) = memchr::memchr(0, &bytes) else { return bytes };
    let mut sent = bytes.to_vec();
    for byte in sent[first..].iter_mut().filter(|byte| **byte == 0) {
        *byte = 0x80;
    }
    Bytes::from(sent)
}

/// Behind the announcement of a literal nothing can be said any more but its octets: the connection ends.
fn broken(what: &'static str) -> Stop {
    error!(what, "a message could not be sent to its end");
    Stop::Disconnected
}

async fn next_piece(
    pieces: &mut (impl futures_util::Stream<Item = Result<Bytes, BodyError>> + Unpin),
) -> Result<Bytes, Stop> {
    match pieces.next().await {
        Some(Ok(piece)) => Ok(piece),
        Some(Err(error)) => {
            error!(%error, "a message could not be read");
            Err(broken("read failed"))
        }
        None => Err(broken("fewer octets than announced")),
    }
}

/// The section that an item asks for.
pub(super) fn asked(item: &FetchItem) -> (Section, Option<Partial>) {
    let whole = |text| (Section { part: Vec::new(), text }, None);
    match item {
        FetchItem::Section { section, partial, .. } => (section.clone(), *partial),
        FetchItem::Rfc822Header => whole(SectionText::Header),
        FetchItem::Rfc822Text => whole(SectionText::Text),
        _ => whole(SectionText::Whole),
    }
}

/// The octets that a section is, or is picked from; `None` when there is no such part.
fn octets(record: &EmailRecord, structure: Option<&Part>, asked: &Section) -> Option<Range<u64>> {
    let header_end = record.header_len.min(record.size);
    match &asked.text {
        SectionText::Whole if asked.part.is_empty() => return Some(0..record.size),
        SectionText::Text if asked.part.is_empty() => return Some(header_end..record.size),
        _ if asked.part.is_empty() => return Some(0..header_end),
        _ => {}
    }
    let text = match &asked.text {
        SectionText::Whole => section::SectionText::Whole,
        SectionText::Text => section::SectionText::Text,
        SectionText::Mime => section::SectionText::Mime,
        SectionText::Header | SectionText::HeaderFields(_) | SectionText::HeaderFieldsNot(_) => {
            section::SectionText::Header
        }
    };
    structure?.section(&section::Section { numbers: asked.part.clone(), text })
}

async fn content(
    reader: &BodyReader,
    octets: Option<Range<u64>>,
    section: &Section,
    partial: Option<Partial>,
    held: usize,
) -> Result<Content, BodyError> {
    let Some(range) = octets else { return Ok(Content::Absent) };
    let Some(mut selector) = selector(&section.text) else {
        let clip = clip(range.end - range.start, partial);
        let range = range.start + clip.start..range.start + clip.end;
        if range.end - range.start > AHEAD_BYTES {
            return Ok(Content::Range(range));
        }
        return Ok(Content::Held(read(reader, range).await?));
    };
    // The length of the fields is known when they have been read once; a long result is not held, but read again.
    let mut kept = Vec::new();
    let mut size = 0;
    let mut left = range.end - range.start;
    let mut pieces = reader.range(range.clone());
    while left > 0 {
        let Some(piece) = pieces.next().await else { break };
        let piece = piece?;
        left = left.saturating_sub(piece.len() as u64);
        selector.push(&piece, &mut kept);
        if size > 0 || kept.len() > held {
            size += kept.len() as u64;
            kept.clear();
        }
    }
    selector.finish(&mut kept);
    if size > 0 {
        let clip = clip(size + kept.len() as u64, partial);
        return Ok(Content::Fields { header: range, wanted: section.text.clone(), clip });
    }
    let clip = clip(kept.len() as u64, partial);
    Ok(Content::Held(Bytes::from(kept).slice(clip.start as usize..clip.end as usize)))
}

/// What picks the fields of a section, if it is one of fields.
fn selector(text: &SectionText) -> Option<FieldSelector> {
    match text {
        SectionText::HeaderFields(names) => Some(FieldSelector::new(names, Keep::Named)),
        SectionText::HeaderFieldsNot(names) => Some(FieldSelector::new(names, Keep::Others)),
        _ => None,
    }
}

/// What of `size` octets a partial asks for (RFC 9051 §6.4.5: beyond the end there is nothing, and no error).
fn clip(size: u64, partial: Option<Partial>) -> Range<u64> {
    match partial {
        None => 0..size,
        Some(partial) => {
            let start = partial.offset.min(size);
            start..start.saturating_add(partial.length).min(size)
        }
    }
}

async fn read(reader: &BodyReader, range: Range<u64>) -> Result<Bytes, BodyError> {
    let size = (range.end - range.start) as usize;
    let mut pieces = reader.range(range);
    let Some(first) = pieces.next().await else { return Ok(Bytes::new()) };
    let first = first?;
    if first.len() >= size {
        return Ok(first);
    }
    let mut all = BytesMut::with_capacity(size);
    all.extend_from_slice(&first);
    while let Some(piece) = pieces.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partials_are_clipped() {
        let check = |size, offset, length, expected| {
            assert_eq!(clip(size, Some(Partial { offset, length })), expected);
        };
        check(10, 0, 5, 0..5);
        check(10, 5, 100, 5..10);
        check(10, 10, 1, 10..10);
        check(10, 11, 1, 10..10);
        check(10, 1, u64::MAX, 1..10);
        assert_eq!(clip(10, None), 0..10);
    }
}
