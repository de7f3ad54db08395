//! Finding messages by their text.
//!
//! What is looked for is words, and phrases between quotation marks; all of them have to be there, in any order, whatever
//! their case and accents (RFC 8621 §4.4.1 leaves the rule to us). A search engine implements [`TextSearch`]; without one
//! messages are read, one after the other.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use jmap_protocol::object::filter::{TextField, TextTest};
use mail::header::{HeaderAddress, HeaderSummary};
use mail::id::EmailId;
use mail_parser::decoders::html::html_to_text;
use storage::{Account, BodyError, EmailRecord, StorageError};
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use super::message::field::{self, Fields};
use super::message::octets::Octets;
use super::message::parts::Node;
use super::message::value::BodyValue;

/// Finds messages by their text.
#[async_trait]
pub trait TextSearch: Send + Sync {
    /// For each test, which of these emails hold its text. What arrived a moment ago is among what is found.
    async fn find(
        &self,
        account: &Account,
        tests: &[TextTest],
        among: &[EmailId],
    ) -> Result<Vec<HashSet<EmailId>>, BodyError>;
}

/// Reads the messages themselves.
#[derive(Clone, Copy, Debug)]
pub struct Scan {
    /// Octets of a header that are looked at.
    pub header_bytes_max: u64,
    /// Octets of one text part that are looked at.
    pub text_bytes_max: usize,
}

impl Default for Scan {
    fn default() -> Self {
        Self { header_bytes_max: 1 << 20, text_bytes_max: 4 << 20 }
    }
}

/// Records that are asked for at a time.
const RECORDS_AT_ONCE: usize = 256;

#[async_trait]
impl TextSearch for Scan {
    async fn find(
        &self,
        account: &Account,
        tests: &[TextTest],
        among: &[EmailId],
    ) -> Result<Vec<HashSet<EmailId>>, BodyError> {
        let terms: Vec<Vec<String>> = tests.iter().map(|test| terms(&test.text)).collect();
        let mut found = vec![HashSet::new(); tests.len()];
        for among in among.chunks(RECORDS_AT_ONCE) {
            for record in account.emails(among).await?.into_iter().flatten() {
                let held = self.look(account, &record, tests, &terms).await?;
                for (holds, found) in held.into_iter().zip(&mut found) {
                    if holds {
                        found.insert(record.id);
                    }
                }
                tokio::task::yield_now().await;
            }
        }
        Ok(found)
    }
}

impl Scan {
    async fn look(
        &self,
        account: &Account,
        record: &Arc<EmailRecord>,
        tests: &[TextTest],
        terms: &[Vec<String>],
    ) -> Result<Vec<bool>, BodyError> {
        let summary = record.summary().map_err(StorageError::from)?;
        let mut held = Vec::with_capacity(tests.len());
        let (mut header, mut body) = (None, None);
        for (test, terms) in tests.iter().zip(terms) {
            let holds = |text: &str| terms.iter().all(|term| text.contains(term.as_str()));
            let found = match &test.field {
                TextField::Header(name) => {
                    if header.is_none() {
                        let octets = Octets::of(account.body(record).await?);
                        let read = octets.within(0..record.header_len).read(self.header_bytes_max).await?;
                        header = Some(Fields::parse(read));
                    }
                    let values = header.as_ref().map(|fields| fields.texts(name)).unwrap_or_default();
                    values.iter().any(|value| holds(&fold(value)))
                }
                TextField::Body | TextField::Text => {
                    let is_text = test.field == TextField::Text;
                    let mut text = fold(&of_summary(&summary, &test.field));
                    // What the fields hold already needs no look at the body.
                    if !(is_text && holds(&text)) {
                        if body.is_none() {
                            body = Some(fold(&self.text_of(account, record).await?));
                        }
                        text.push_str(body.as_deref().unwrap_or_default());
                    }
                    holds(&text)
                }
                field => holds(&fold(&of_summary(&summary, field))),
            };
            held.push(found);
        }
        Ok(held)
    }

    /// The text of a message, HTML as what it shows.
    pub(super) async fn text_of(&self, account: &Account, record: &EmailRecord) -> Result<String, BodyError> {
        let structure = record.structure().map_err(StorageError::from)?;
        let octets = Octets::of(account.body(record).await?);
        let tree = Node::of(&structure);
        let mut leaves = Vec::new();
        tree.leaves(&mut leaves);
        let mut text = String::new();
        for leaf in leaves.into_iter().filter(|leaf| leaf.media.starts_with("text/")) {
            let is_html = leaf.media == "text/html";
            let value = BodyValue::read(&octets, leaf.part, is_html, self.text_bytes_max).await?;
            text.push('\n');
            text.push_str(&if is_html { html_to_text(&value.text) } else { value.text });
        }
        Ok(text)
    }
}

/// The text of fields that are stored beside a message.
pub(super) fn of_summary(summary: &HeaderSummary, field: &TextField) -> String {
    let addresses = |list: &[HeaderAddress]| {
        let shown = field::addresses(list);
        let text = |address: serde_json::Value| {
            let part = |name: &str| address[name].as_str().unwrap_or_default().to_owned();
            format!("{} <{}>", part("name"), part("email"))
        };
        shown.into_iter().map(text).collect::<Vec<_>>().join(", ")
    };
    match field {
        TextField::From => addresses(&summary.from),
        TextField::To => addresses(&summary.to),
        TextField::Cc => addresses(&summary.cc),
        TextField::Bcc => addresses(&summary.bcc),
        TextField::Subject => {
            summary.subject.as_ref().map(|subject| field::plain(subject.as_bytes())).unwrap_or_default()
        }
        TextField::Text => {
            let fields = [TextField::From, TextField::To, TextField::Cc, TextField::Bcc, TextField::Subject];
            fields.iter().map(|field| of_summary(summary, field)).collect::<Vec<_>>().join("\n")
        }
        TextField::Body | TextField::Header(_) => String::new(),
    }
}

/// What is looked for, folded: words, and what stands between quotation marks.
pub(super) fn terms(text: &str) -> Vec<String> {
    let mut terms = Vec::new();
    for (at, piece) in text.split('"').enumerate() {
        if at % 2 == 1 {
            terms.push(fold(piece.trim()));
        } else {
            terms.extend(piece.split_whitespace().map(fold));
        }
    }
    terms.retain(|term| !term.is_empty());
    terms
}

/// Text without case, accents and width, so that what people take for the same is the same.
pub(super) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().flat_map(fold_character).collect()
}

/// One character of it; none of an accent.
pub(super) fn fold_character(character: char) -> impl Iterator<Item = char> {
    std::iter::once(character)
        .nfkd()
        .filter(|character| !is_combining_mark(*character))
        .flat_map(char::to_lowercase)
        // Some lower-case letters are several characters again.
        .nfkd()
        .filter(|character| !is_combining_mark(*character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_phrases() {
        assert_eq!(terms(r#"Käse "ein Brot"  x"#), ["kase", "ein brot", "x"]);
        assert_eq!(terms(r#""open"#), ["open"]);
        assert!(terms(" \"\" ").is_empty());
    }

    #[test]
    fn folding() {
        assert_eq!(fold("Ｆｕｌｌ ÄÖ ﬁ İ Ж"), "full ao fi i ж");
        assert_eq!(fold("日本"), "日本");
    }
}
