//! Body parts as JSON (RFC 8621 §4.1.4 `EmailBodyPart`).

use jmap_protocol::object::part::Property;
use mail::header::RawText;
use mail::header::decode::decode_header_text;
use mail::mime::Part;
use serde_json::{Map, Value, json};
use storage::BodyError;

use super::field::Fields;
use super::octets::Octets;
use super::parameter;
use super::parts::Node;
use crate::jmap::ids::BlobName;

/// What the parts of one message are shown with.
pub(crate) struct PartShow<'a> {
    pub(crate) octets: &'a Octets,
    pub(crate) blob: &'a BlobName,
    pub(crate) properties: &'a [Property],
    pub(crate) header_bytes_max: u64,
}

impl PartShow<'_> {
    /// A part, with what is below it where that is wanted.
    pub(crate) async fn show(&self, node: &Node<'_>) -> Result<Value, BodyError> {
        let mut shown = self.properties_of(node).await?;
        if node.is_multipart() && self.properties.contains(&Property::SubParts) {
            let mut children = Vec::with_capacity(node.children.len());
            for child in &node.children {
                children.push(Box::pin(self.show(child)).await?);
            }
            shown.insert("subParts".to_owned(), Value::Array(children));
        }
        Ok(Value::Object(shown))
    }

    pub(crate) async fn list(&self, nodes: &[&Node<'_>]) -> Result<Value, BodyError> {
        let mut list = Vec::with_capacity(nodes.len());
        for node in nodes {
            list.push(self.show(node).await?);
        }
        Ok(Value::Array(list))
    }

    async fn properties_of(&self, node: &Node<'_>) -> Result<Map<String, Value>, BodyError> {
        let part = node.part;
        let mut fields = None;
        let reads_header = |property: &Property| matches!(property, Property::Headers | Property::Header(_));
        if self.properties.iter().any(reads_header) {
            let header = self.octets.within(part.header.clone());
            fields = Some(Fields::parse(header.read(self.header_bytes_max).await?));
        }
        let mut shown = Map::new();
        for property in self.properties {
            let (name, value) = match property {
                Property::PartId => {
                    let id = (!node.is_multipart()).then(|| node.number.to_string());
                    ("partId".to_owned(), json!(id))
                }
                Property::BlobId => {
                    let blob = (!node.is_multipart()).then(|| self.blob.part(node.number).to_string());
                    ("blobId".to_owned(), json!(blob))
                }
                Property::Size => {
                    let size = if node.is_multipart() { 0 } else { self.octets.decoded_size(part).await? };
                    ("size".to_owned(), json!(size))
                }
                Property::Headers => ("headers".to_owned(), fields.as_ref().map_or(Value::Null, Fields::all)),
                Property::Header(header) => {
                    let value = fields.as_ref().map_or(Value::Null, |fields| fields.show(header));
                    (header.to_string(), value)
                }
                Property::Name => ("name".to_owned(), json!(parameter::file_name(part))),
                Property::Type => ("type".to_owned(), json!(node.media)),
                Property::Charset => ("charset".to_owned(), json!(charset(node))),
                Property::Disposition => {
                    let kind = part.disposition.as_ref().map(|it| text(&it.kind).to_ascii_lowercase());
                    ("disposition".to_owned(), json!(kind))
                }
                Property::Cid => ("cid".to_owned(), json!(part.id.as_ref().and_then(cid))),
                Property::Language => {
                    let tags: Vec<String> = part.language.iter().map(text).collect();
                    ("language".to_owned(), if tags.is_empty() { Value::Null } else { json!(tags) })
                }
                Property::Location => ("location".to_owned(), json!(part.location.as_ref().map(text))),
                Property::SubParts => continue,
            };
            shown.insert(name, value);
        }
        Ok(shown)
    }
}

fn text(raw: &RawText) -> String {
    decode_header_text(raw.as_bytes().trim_ascii())
}

/// Content-ID without its angle brackets.
fn cid(id: &RawText) -> Option<String> {
    let id = text(id);
    let id = id.trim().trim_start_matches('<').trim_end_matches('>').to_owned();
    (!id.is_empty()).then_some(id)
}

/// The charset of a text; `us-ascii` where none is said (RFC 8621 §4.1.4).
fn charset(node: &Node<'_>) -> Option<String> {
    let is_text = node.media.starts_with("text/");
    let declared = |part: &Part| part.parameter("charset").map(text);
    is_text.then(|| declared(node.part).unwrap_or_else(|| "us-ascii".to_owned()))
}
