//! What only the message itself can tell.

use std::ops::Range;

use futures_util::stream::StreamExt;
use imap_protocol::search::{Date, DateTest};
use mail::fold::fold;
use mail::header::Fields;
use mail::header::decode::decode_header_text;
use mail::mime::{Kind, Part, TextDecoder};
use memchr::memmem::Finder;
use search::document::Texts;
use search::{Look, Needle, Place, Reach, TextLimits, Wanted};
use storage::{Account, BodyError, BodyReader, EmailRecord, StorageError};

use super::on;
use super::window::Window;

/// A question to the message. Needles are folded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A field of this name holds the text; an empty text asks whether the field is there.
    Header { name: String, needle: String },
    /// The Date field.
    Sent(DateTest, Date),
    /// A text part, or the header of an embedded message, holds the text.
    Body { needle: String },
    /// The same, or any header.
    Text { needle: String },
    /// Words, spelt nearly so, where the search index has words.
    Words(Wanted),
}

/// All questions of one search.
#[derive(Debug)]
pub(super) struct Contents {
    list: Vec<Content>,
    /// Needles for the text of parts, with the question each belongs to.
    finders: Vec<Finder<'static>>,
    finder_of: Vec<usize>,
    asks_header: bool,
    /// Words to be looked for in messages that the index does not know, with the question each belongs to.
    looks: Vec<(usize, Look)>,
    /// How much of a message has words.
    limits: TextLimits,
}

impl Contents {
    pub(super) fn new(list: Vec<Content>, limits: TextLimits) -> Self {
        let mut finders = Vec::new();
        let mut finder_of = Vec::new();
        for (at, content) in list.iter().enumerate() {
            if let Content::Body { needle } | Content::Text { needle } = content {
                finders.push(Finder::new(needle.as_bytes()).into_owned());
                finder_of.push(at);
            }
        }
        let asks_header =
            list.iter().any(|content| matches!(content, Content::Header { .. } | Content::Text { .. }));
        let looks = |(at, content): (usize, &Content)| match content {
            Content::Words(wanted) => Some((at, Look::new(wanted))),
            _ => None,
        };
        let looks = list.iter().enumerate().filter_map(looks).collect();
        Self { list, finders, finder_of, asks_header, looks, limits }
    }

    /// The words of each content that is to be found by them.
    pub(super) fn wanted(&self) -> impl Iterator<Item = Option<&Wanted>> {
        self.list.iter().map(|content| match content {
            Content::Words(wanted) => Some(wanted),
            _ => None,
        })
    }

    /// What the search index can be asked about each content.
    pub(super) fn needles(&self) -> impl Iterator<Item = Option<Needle>> {
        self.list.iter().map(|content| {
            let (place, needle) = match content {
                Content::Header { name, needle } => (Place::Field(name.clone()), needle),
                Content::Body { needle } => (Place::Body, needle),
                Content::Text { needle } => (Place::Anywhere, needle),
                Content::Sent(..) | Content::Words(_) => return None,
            };
            (!needle.is_empty()).then(|| Needle { place, text: needle.clone() })
        })
    }
}

/// Looks into a message until `decide` has an answer. `known` is what is known before.
pub(super) async fn examine(
    account: &Account,
    record: &EmailRecord,
    contents: &Contents,
    mut known: Vec<Option<bool>>,
    decide: impl Fn(&[Option<bool>]) -> Option<bool>,
) -> Result<bool, BodyError> {
    known.resize(contents.list.len(), None);
    for (content, known) in contents.list.iter().zip(&mut known) {
        match content {
            Content::Sent(test, date) => {
                let sent = record
                    .summary()
                    .map_err(StorageError::from)?
                    .date
                    .and_then(|text| sent_day(text.as_bytes()));
                *known = Some(sent.is_some_and(|day| on(*test, day, *date)));
            }
            // An empty text is in every message.
            Content::Body { needle } | Content::Text { needle } if needle.is_empty() => *known = Some(true),
            _ => {}
        }
    }
    if let Some(answer) = decide(&known) {
        return Ok(answer);
    }
    look_for_words(account, record, contents, &mut known).await?;
    if let Some(answer) = decide(&known) {
        return Ok(answer);
    }
    let reader = account.body(record).await?;
    if contents.asks_header {
        look_at_header(&reader, 0..record.header_len, contents, &mut known, Which::Message).await?;
    }
    for (content, known) in contents.list.iter().zip(&mut known) {
        if let Content::Header { .. } = content {
            known.get_or_insert(false);
        }
    }
    if let Some(answer) = decide(&known) {
        return Ok(answer);
    }
    let structure = record.structure().map_err(StorageError::from)?;
    // Depth is bounded by the limits under which the structure was made, but recursion in a future is not cheap.
    let mut parts: Vec<&Part> = vec![&structure];
    while let Some(part) = parts.pop() {
        let is_root = std::ptr::eq(part, &raw const structure);
        if !is_root {
            look_at_header(&reader, part.header.clone(), contents, &mut known, Which::Mime).await?;
        }
        match &part.kind {
            Kind::Multipart(children) => parts.extend(children.iter().rev()),
            Kind::Message(embedded) => {
                let header = embedded.part.header.clone();
                look_at_header(&reader, header, contents, &mut known, Which::Embedded).await?;
                parts.push(&embedded.part);
            }
            Kind::Leaf if part.is_text() => look_at_text(&reader, part, contents, &mut known).await?,
            Kind::Leaf => {}
        }
        if let Some(answer) = decide(&known) {
            return Ok(answer);
        }
    }
    for known in &mut known {
        known.get_or_insert(false);
    }
    Ok(decide(&known).unwrap_or(false))
}

/// Words in a message that the index does not know. What is spelt nearly so only the index finds.
async fn look_for_words(
    account: &Account,
    record: &EmailRecord,
    contents: &Contents,
    known: &mut [Option<bool>],
) -> Result<(), BodyError> {
    if contents.looks.iter().all(|(at, _)| known[*at].is_some()) {
        return Ok(());
    }
    let texts = Texts::of(account, record, &contents.limits, Reach::Whole).await?;
    for (at, look) in &contents.looks {
        known[*at].get_or_insert_with(|| look.finds(&texts));
    }
    Ok(())
}

/// Whose header it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// The message's own: HEADER and TEXT look at it.
    Message,
    /// A part's: TEXT looks at it.
    Mime,
    /// That of a message within: to BODY and TEXT it is text.
    Embedded,
}

async fn look_at_header(
    reader: &BodyReader,
    range: Range<u64>,
    contents: &Contents,
    known: &mut [Option<bool>],
    which: Which,
) -> Result<(), BodyError> {
    let asked = |content: &Content| match content {
        Content::Header { .. } => which == Which::Message,
        Content::Text { .. } => true,
        Content::Body { .. } => which == Which::Embedded,
        Content::Sent(..) | Content::Words(_) => false,
    };
    let open = contents.list.iter().zip(&*known).any(|(content, known)| known.is_none() && asked(content));
    if !open || range.is_empty() {
        return Ok(());
    }
    let mut field = |name: &[u8], value: &[u8]| {
        // The value is decoded once, and only when somebody asks.
        let mut folded: Option<String> = None;
        for (content, known) in contents.list.iter().zip(&mut *known) {
            if known.is_some() || !asked(content) {
                continue;
            }
            let found = match content {
                Content::Header { name: wanted, needle } => {
                    wanted.as_bytes().eq_ignore_ascii_case(name)
                        && (needle.is_empty() || folded_value(&mut folded, value).contains(needle.as_str()))
                }
                Content::Text { needle } | Content::Body { needle } => {
                    folded_value(&mut folded, value).contains(needle.as_str())
                        || fold(&String::from_utf8_lossy(name)).contains(needle.as_str())
                }
                Content::Sent(..) | Content::Words(_) => false,
            };
            if found {
                *known = Some(true);
            }
        }
    };
    let mut fields = Fields::default();
    let mut pieces = reader.range(range);
    while let Some(piece) = pieces.next().await {
        fields.push(&piece?, &mut field);
        tokio::task::yield_now().await;
    }
    fields.finish(&mut field);
    Ok(())
}

fn folded_value<'a>(folded: &'a mut Option<String>, value: &[u8]) -> &'a str {
    folded.get_or_insert_with(|| fold(&decode_header_text(value)))
}

async fn look_at_text(
    reader: &BodyReader,
    part: &Part,
    contents: &Contents,
    known: &mut [Option<bool>],
) -> Result<(), BodyError> {
    if contents.finder_of.iter().all(|at| known[*at].is_some()) {
        return Ok(());
    }
    let mut window = Window::new(&contents.finders);
    let mut decoder = TextDecoder::new(part);
    let mut pieces = reader.range(part.body.clone());
    while let Some(piece) = pieces.next().await {
        window.push(decoder.push(&piece?));
        if window.all_found() {
            break;
        }
        tokio::task::yield_now().await;
    }
    window.push(decoder.finish());
    for (found, at) in window.found().iter().zip(&contents.finder_of) {
        if *found {
            known[*at] = Some(true);
        }
    }
    Ok(())
}

/// The day of a Date field in the zone that it names (RFC 9051 §6.4.4: time and zone are disregarded).
fn sent_day(text: &[u8]) -> Option<Date> {
    let text = std::str::from_utf8(text).ok()?;
    let date = mail_parser::DateTime::parse_rfc822(text)?;
    let zone = i64::from(date.tz_hour) * 3600 + i64::from(date.tz_minute) * 60;
    let local = date.to_timestamp() + if date.tz_before_gmt { -zone } else { zone };
    Some(Date { unix_days: local.div_euclid(86_400) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_date_fields() {
        let check = |text: &str, expected: Option<i64>| {
            assert_eq!(sent_day(text.as_bytes()).map(|date| date.unix_days), expected, "{text}");
        };
        check("Thu, 1 Jan 1970 00:30:00 +0100", Some(0));
        check("Thu, 1 Jan 1970 23:30:00 -0800", Some(0));
        check("Mon, 7 Feb 1994 21:52:25 -0800 (PST)", Some(8803));
        check("no date", None);
    }
}
