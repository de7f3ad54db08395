//! A message as JSON, with the properties that were asked for (RFC 8621 §4.1).

use std::collections::BTreeSet;

use jmap_protocol::date;
use jmap_protocol::object::email::{BodyOptions, Property};
use mail::date::SentDate;
use mail::header::{HeaderAddress, HeaderSummary};
use mail::mime::Part;
use serde_json::{Map, Value, json};
use storage::BodyError;

use super::body::PartShow;
use super::field::{self, Fields};
use super::octets::Octets;
use super::parts::{Bodies, Node};
use super::value::BodyValue;
use crate::jmap::config::Config;
use crate::jmap::ids::BlobName;

/// A message, and what is known of it.
pub(crate) struct Message<'a> {
    pub(crate) blob: BlobName,
    pub(crate) size: u64,
    pub(crate) header_len: u64,
    pub(crate) structure: &'a Part,
    pub(crate) summary: &'a HeaderSummary,
    pub(crate) sent: Option<SentDate>,
    pub(crate) has_attachment: bool,
    pub(crate) preview: &'a str,
}

/// Whether any of these needs the bytes of a message. The others are told from what is stored beside them.
pub(crate) fn needs_octets(properties: &[Property]) -> bool {
    properties.iter().any(|property| match property {
        Property::Headers
        | Property::Header(_)
        | Property::BodyStructure
        | Property::BodyValues
        | Property::TextBody
        | Property::HtmlBody
        | Property::Attachments => true,
        Property::Convenience(name, _) => is_read(name),
        _ => false,
    })
}

/// The one field of these that the summary does not have.
fn is_read(convenience: &str) -> bool {
    convenience == "references"
}

/// Shows what a message alone can tell; metadata is the caller's affair.
pub(crate) async fn show(
    message: &Message<'_>,
    octets: Option<&Octets>,
    properties: &[Property],
    options: &BodyOptions,
    config: &Config,
) -> Result<Map<String, Value>, BodyError> {
    let mut shown = Map::new();
    let tree = Node::of(message.structure);
    let bodies = Bodies::of(&tree);
    let mut fields = None;
    let reads = |property: &Property| match property {
        Property::Headers | Property::Header(_) => true,
        Property::Convenience(name, _) => is_read(name),
        _ => false,
    };
    if let (true, Some(octets)) = (properties.iter().any(reads), octets) {
        let header = octets.within(0..message.header_len);
        fields = Some(Fields::parse(header.read(config.header_bytes_max).await?));
    }
    for property in properties {
        let value = match property {
            Property::BlobId => json!(message.blob.to_string()),
            Property::Size => json!(message.size),
            Property::HasAttachment => json!(message.has_attachment),
            Property::Preview => json!(message.preview),
            Property::Headers => fields.as_ref().map_or(Value::Null, Fields::all),
            Property::Header(header) => fields.as_ref().map_or(Value::Null, |fields| fields.show(header)),
            Property::Convenience(name, header) => {
                if is_read(name) {
                    fields.as_ref().map_or(Value::Null, |fields| fields.show(header))
                } else {
                    convenience(message, name)
                }
            }
            Property::BodyStructure
            | Property::TextBody
            | Property::HtmlBody
            | Property::Attachments
            | Property::BodyValues => {
                let Some(octets) = octets else { continue };
                let (blob, header_bytes_max) = (&message.blob, config.header_bytes_max);
                let parts = PartShow { octets, blob, properties: &options.body_properties, header_bytes_max };
                match property {
                    Property::BodyStructure => structure(&parts, &tree).await?,
                    Property::TextBody => parts.list(&bodies.text).await?,
                    Property::HtmlBody => parts.list(&bodies.html).await?,
                    Property::Attachments => parts.list(&bodies.attachments).await?,
                    _ => values(octets, &tree, &bodies, options, config).await?,
                }
            }
            Property::Id
            | Property::ThreadId
            | Property::MailboxIds
            | Property::Keywords
            | Property::ReceivedAt => continue,
        };
        shown.insert(property.name(), value);
    }
    Ok(shown)
}

/// The whole tree, with `subParts` whether they were asked for or not: without them it is none (RFC 8621 §4.1.4).
async fn structure(parts: &PartShow<'_>, tree: &Node<'_>) -> Result<Value, BodyError> {
    use jmap_protocol::object::part::Property as PartProperty;
    let mut properties = parts.properties.to_vec();
    if !properties.contains(&PartProperty::SubParts) {
        properties.push(PartProperty::SubParts);
    }
    PartShow { properties: &properties, ..*parts }.show(tree).await
}

async fn values(
    octets: &Octets,
    tree: &Node<'_>,
    bodies: &Bodies<'_, '_>,
    options: &BodyOptions,
    config: &Config,
) -> Result<Value, BodyError> {
    let mut wanted: BTreeSet<u32> = BTreeSet::new();
    let numbers = |list: &[&Node<'_>]| list.iter().map(|node| node.number).collect::<Vec<_>>();
    if options.fetch_text {
        wanted.extend(numbers(&bodies.text));
    }
    if options.fetch_html {
        wanted.extend(numbers(&bodies.html));
    }
    if options.fetch_all {
        let mut leaves = Vec::new();
        tree.leaves(&mut leaves);
        wanted.extend(numbers(&leaves));
    }
    let asked = match options.max_value_bytes {
        0 => usize::MAX,
        most => usize::try_from(most).unwrap_or(usize::MAX),
    };
    let most = asked.min(config.body_value_bytes_max);
    let mut values = Map::new();
    for number in wanted {
        let Some(node) = tree.find(number).filter(|node| node.media.starts_with("text/")) else { continue };
        let is_html = node.media == "text/html";
        let value = BodyValue::read(octets, node.part, is_html, most).await?;
        values.insert(number.to_string(), value.into_json());
    }
    Ok(Value::Object(values))
}

/// Often wanted fields, from what is stored beside the message. IMAP's ENVELOPE is the same.
fn convenience(message: &Message<'_>, name: &str) -> Value {
    let summary = message.summary;
    let list = |list: &[HeaderAddress]| match list {
        [] => Value::Null,
        list => json!(field::addresses(list)),
    };
    let ids = |ids: &Option<mail::header::RawText>| {
        ids.as_ref().map_or(Value::Null, |ids| field::message_ids(ids.as_bytes()))
    };
    match name {
        "messageId" => ids(&summary.message_id),
        "inReplyTo" => ids(&summary.in_reply_to),
        "sender" => list(&summary.sender),
        "from" => list(&summary.from),
        "to" => list(&summary.to),
        "cc" => list(&summary.cc),
        "bcc" => list(&summary.bcc),
        "replyTo" => list(&summary.reply_to),
        "subject" => {
            summary.subject.as_ref().map_or(Value::Null, |text| json!(field::plain(text.as_bytes())))
        }
        "sentAt" => message.sent.map_or(Value::Null, |sent| json!(date::date(sent))),
        _ => Value::Null,
    }
}
