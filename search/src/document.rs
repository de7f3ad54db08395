//! What is looked for in a message, taken from the stream of its bytes.

use std::ops::Range;

use futures_util::StreamExt;
use mail::fold::fold;
use mail::header::Fields;
use mail::header::decode::{decode_charset, decode_header_text};
use mail::header::fields::FIELD_BYTES_MAX;
use mail::id::EmailId;
use mail::mime::{Kind, Parameter, Part, TextDecoder};
use storage::{Account, BodyError, BodyReader, EmailRecord, StorageError};

use crate::attachment::{ExtractError, Extractor};
use crate::config::TextLimits;
use crate::gram::{Grams, Section, Window};
use crate::html::HtmlText;

/// What is indexed of an email.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    /// Which email.
    pub email: EmailId,
    /// The Date field, in seconds since 1970; 0 when there is none.
    pub date: i64,
    /// Its grams, ascending; [`crate::gram::PARTIAL`] first when not all was looked at.
    pub grams: Vec<u64>,
    /// Where words are found.
    pub texts: Texts,
}

/// Texts that words are taken from. Decoded, not folded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Texts {
    /// Subject.
    pub subject: String,
    /// From.
    pub from: String,
    /// To.
    pub to: String,
    /// Cc.
    pub cc: String,
    /// Bcc.
    pub bcc: String,
    /// Names of attachments.
    pub filename: String,
    /// Text parts without markup, messages within included.
    pub body: String,
    /// Text of attachments that had to be taken out of another format.
    pub attached: String,
}

impl Document {
    /// Looks at a message. Its grams are those of what IMAP's SEARCH looks into: see `search/DESIGN.md`.
    ///
    /// Attachments are taken apart where there is an `extractor`; nobody who waits for an answer should have one.
    pub async fn of(
        account: &Account,
        record: &EmailRecord,
        limits: &TextLimits,
        extractor: Option<&Extractor>,
    ) -> Result<Self, BodyError> {
        let mut draft = Draft::new(limits, extractor);
        match draft.message(account, record).await {
            Ok(()) => {}
            // What can never be read must not hold up the rest; whoever looks at the message itself is told.
            Err(error) if is_damage(&error) => draft.grams.set_partial(),
            Err(error) => return Err(error),
        }
        Ok(Self {
            email: record.id,
            date: record.sent_date.map_or(0, |date| date.unix_seconds()),
            grams: draft.grams.finish(),
            texts: draft.texts,
        })
    }

    /// Octets in memory, nearly.
    pub fn weight(&self) -> usize {
        let texts = &self.texts;
        let texts = [
            &texts.subject,
            &texts.from,
            &texts.to,
            &texts.cc,
            &texts.bcc,
            &texts.filename,
            &texts.body,
            &texts.attached,
        ];
        self.grams.len() * 8 + texts.into_iter().map(String::len).sum::<usize>()
    }
}

fn is_damage(error: &BodyError) -> bool {
    match error {
        BodyError::Read(error) => !error.is_temporary(),
        BodyError::Storage(error) => matches!(error, StorageError::Damaged(_)),
    }
}

struct Draft<'a> {
    limits: TextLimits,
    grams: Grams,
    texts: Texts,
    /// Octets of decoded text that may still be looked at.
    room: usize,
    extractor: Option<&'a Extractor>,
    /// Attachments that may still be taken apart.
    attachments: usize,
}

/// Whose header it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Message,
    Part,
    Embedded,
}

impl<'a> Draft<'a> {
    fn new(limits: &TextLimits, extractor: Option<&'a Extractor>) -> Self {
        Self {
            limits: *limits,
            grams: Grams::new(limits.grams_max),
            texts: Texts::default(),
            room: limits.text_bytes_max,
            extractor,
            attachments: extractor.map_or(0, Extractor::per_message_max),
        }
    }

    async fn message(&mut self, account: &Account, record: &EmailRecord) -> Result<(), BodyError> {
        let reader = account.body(record).await?;
        self.header(&reader, 0..record.header_len, Whose::Message).await?;
        let structure = record.structure().map_err(StorageError::from)?;
        let mut parts: Vec<&Part> = vec![&structure];
        while let Some(part) = parts.pop() {
            if !std::ptr::eq(part, &raw const structure) {
                self.header(&reader, part.header.clone(), Whose::Part).await?;
            }
            let name = self.file_name(part);
            match &part.kind {
                Kind::Multipart(children) => parts.extend(children.iter().rev()),
                Kind::Message(embedded) => {
                    self.header(&reader, embedded.part.header.clone(), Whose::Embedded).await?;
                    parts.push(&embedded.part);
                }
                Kind::Leaf if part.is_text() => self.text(&reader, part).await?,
                Kind::Leaf => self.attachment(&reader, part, name.as_deref()).await?,
            }
        }
        Ok(())
    }

    async fn header(
        &mut self,
        reader: &BodyReader,
        range: Range<u64>,
        whose: Whose,
    ) -> Result<(), BodyError> {
        let mut fields = Fields::default();
        let mut pieces = reader.range(range);
        while let Some(piece) = pieces.next().await {
            fields.push(&piece?, &mut |name, value| self.field(name, value, whose));
            tokio::task::yield_now().await;
        }
        fields.finish(&mut |name, value| self.field(name, value, whose));
        Ok(())
    }

    fn field(&mut self, name: &[u8], value: &[u8], whose: Whose) {
        // Text of a header counts like other text: a message may have more parts than text.
        if value.len() >= FIELD_BYTES_MAX / 2 || self.room < value.len() {
            // A field this long comes in pieces that are decoded apart, and where it is cut depends on how it is read.
            self.grams.set_partial();
        }
        self.room = self.room.saturating_sub(name.len() + value.len());
        let text = decode_header_text(value);
        let section = if whose == Whose::Embedded { Section::Body } else { Section::Header };
        self.grams.text(section, &String::from_utf8_lossy(name));
        self.grams.text(section, &text);
        if whose == Whose::Part {
            return;
        }
        let own = Section::of_field(name);
        if whose == Whose::Message
            && let Some(own) = own
        {
            self.grams.text(own, &text);
        }
        let words = match (whose, own) {
            (Whose::Message, Some(Section::Subject)) => &mut self.texts.subject,
            (Whose::Message, Some(Section::From)) => &mut self.texts.from,
            (Whose::Message, Some(Section::To)) => &mut self.texts.to,
            (Whose::Message, Some(Section::Cc)) => &mut self.texts.cc,
            (Whose::Message, Some(Section::Bcc)) => &mut self.texts.bcc,
            // Who forwarded what of whom is asked of the text.
            (Whose::Embedded, Some(_)) => {
                let bytes_max = self.limits.words_bytes_max;
                return add(&mut self.texts.body, &text, bytes_max);
            }
            _ => return,
        };
        add(words, &text, self.limits.field_bytes_max);
    }

    fn file_name(&mut self, part: &Part) -> Option<String> {
        let disposition = part.disposition.as_ref().map_or(&[][..], |disposition| &disposition.parameters);
        let name = file_name(disposition, "filename").or_else(|| file_name(&part.parameters, "name"));
        if let Some(name) = &name {
            add(&mut self.texts.filename, name, self.limits.field_bytes_max);
        }
        name
    }

    /// Takes an attachment apart. It is for word search alone: IMAP looks into text parts, so there are no grams of it.
    async fn attachment(
        &mut self,
        reader: &BodyReader,
        part: &Part,
        name: Option<&str>,
    ) -> Result<(), BodyError> {
        let Some(extractor) = self.extractor else { return Ok(()) };
        let has_room = self.attachments > 0 && self.texts.attached.len() < self.limits.words_bytes_max;
        let Some(format) = extractor.format(part, name).filter(|_| has_room) else { return Ok(()) };
        self.attachments -= 1;
        // Whatever becomes of it, the email is done: an attachment that kills its process is not met again.
        let outcome = match extractor.text(format, part, reader.range(part.body.clone())).await {
            Ok(text) => {
                add(&mut self.texts.attached, &text, self.limits.words_bytes_max);
                "text"
            }
            Err(ExtractError::Body(error)) => return Err(error),
            Err(ExtractError::NoText(_)) => "none",
            Err(ExtractError::Late) => {
                self.attachments = 0;
                "late"
            }
        };
        metrics::counter!("search_attachments_total", "outcome" => outcome).increment(1);
        Ok(())
    }

    async fn text(&mut self, reader: &BodyReader, part: &Part) -> Result<(), BodyError> {
        let mut window = Window::new(Section::Body);
        let mut decoder = TextDecoder::new(part);
        let mut html = part.shown_type().subtype.eq_ignore_ascii_case(b"html").then(HtmlText::default);
        let mut plain = String::new();
        let mut pieces = reader.range(part.body.clone());
        // The next part is no continuation of this one.
        add(&mut self.texts.body, "\n", self.limits.words_bytes_max);
        loop {
            let piece = pieces.next().await.transpose()?;
            let text = match &piece {
                Some(piece) => decoder.push(piece),
                None => decoder.finish(),
            };
            let taken = text.floor_char_boundary(self.room);
            let is_cut = taken < text.len();
            let text = &text[..taken];
            self.room -= taken;
            self.grams.piece(&mut window, text);
            let room = self.limits.words_bytes_max.saturating_sub(self.texts.body.len());
            if room > 0 {
                match &mut html {
                    Some(html) => {
                        plain.clear();
                        html.push(text, &mut plain);
                        push_bounded(&mut self.texts.body, &plain, room);
                    }
                    None => push_bounded(&mut self.texts.body, text, room),
                }
            }
            if is_cut || (self.grams.is_partial() && room == 0) {
                self.grams.set_partial();
                return Ok(());
            }
            if piece.is_none() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if let Some(html) = html {
            plain.clear();
            html.finish(&mut plain);
            let room = self.limits.words_bytes_max.saturating_sub(self.texts.body.len());
            push_bounded(&mut self.texts.body, &plain, room);
        }
        Ok(())
    }
}

/// Adds a text that stands for itself.
fn add(out: &mut String, text: &str, bytes_max: usize) {
    if !out.is_empty() && out.len() < bytes_max {
        out.push('\n');
    }
    let room = bytes_max.saturating_sub(out.len());
    push_bounded(out, text, room);
}

fn push_bounded(out: &mut String, text: &str, room: usize) {
    out.push_str(&text[..text.floor_char_boundary(room)]);
}

/// A file name in any of the ways in which people write one: RFC 2231 with a star, encoded words, or bare.
pub(crate) fn file_name(parameters: &[Parameter], name: &str) -> Option<String> {
    let find = |wanted: &str| parameters.iter().find(|parameter| parameter.name.eq_ignore_ascii_case(wanted));
    if let Some(extended) = find(&format!("{name}*")) {
        // RFC 2231 §4: charset'language'percent-encoded.
        let mut pieces = extended.value.as_bytes().splitn(3, |byte| *byte == b'\'');
        if let (Some(charset), Some(_), Some(value)) = (pieces.next(), pieces.next(), pieces.next()) {
            return Some(decode_charset(charset, &percent_decoded(value)));
        }
    }
    find(name).map(|plain| decode_header_text(plain.value.as_bytes()))
}

fn percent_decoded(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte == b'%'
            && let [high, low, tail @ ..] = tail
            && let (Some(high), Some(low)) = (char::from(*high).to_digit(16), char::from(*low).to_digit(16))
        {
            out.push((high << 4 | low) as u8);
            rest = tail;
        } else {
            out.push(*byte);
        }
    }
    out
}

/// Whether a text holds a needle, as IMAP means it; for whoever verifies candidates on texts of his own.
pub fn holds(text: &str, needle: &str) -> bool {
    fold(text).contains(&fold(needle))
}

#[cfg(test)]
mod tests {
    use mail::header::RawText;

    use super::*;

    #[test]
    fn file_names_rfc2231_4() {
        let check = |name: &str, value: &str, expected: Option<&str>| {
            let parameter = Parameter { name: RawText::from(name), value: RawText::from(value) };
            assert_eq!(file_name(&[parameter], "filename").as_deref(), expected, "{name}={value}");
        };
        check("filename", "report.pdf", Some("report.pdf"));
        check("FileName*", "utf-8'de'K%C3%A4se%20%zz.pdf", Some("Käse %zz.pdf"));
        check("filename*", "iso-8859-1''k%e4se", Some("käse"));
        check("filename", "=?utf-8?q?K=C3=A4se?=", Some("Käse"));
        check("name", "x", None);
    }
}
