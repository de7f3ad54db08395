//! Email/parse (RFC 8621 §4.9): a message that is attached to another, shown like an email.

use jmap_protocol::method::object;
use jmap_protocol::object::email::Parse;
use jmap_protocol::{Arguments, Id, MethodError, Object};
use serde_json::{Map, Value, json};

use super::super::spend_on;
use crate::jmap::blob;
use crate::jmap::context::{Context, body_trouble};
use crate::jmap::message::show::{self, Message};

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let parse = Parse::take(arguments, context.config().objects_in_get_max)?;
    std::mem::take(arguments).finish()?;
    let mut parsed = Map::new();
    let (mut not_parsable, mut not_found): (Vec<Id>, Vec<Id>) = (Vec::new(), Vec::new());
    for id in &parse.blob_ids {
        let trouble = |error: storage::BodyError| body_trouble(&error);
        let Some(blob) = blob::find(context.account(), id).await.map_err(trouble)? else {
            not_found.push(id.clone());
            continue;
        };
        let limits = context.inner().storage.config().mime.clone();
        let Some((octets, facts)) = blob.as_message(limits).await.map_err(trouble)? else {
            not_parsable.push(id.clone());
            continue;
        };
        let message = Message {
            blob: blob.name.clone(),
            size: facts.size,
            header_len: facts.header_len,
            structure: &facts.structure,
            summary: &facts.summary,
            sent: facts.sent_date,
            has_attachment: facts.has_attachment,
            preview: &facts.preview,
        };
        let shown =
            show::show(&message, Some(&octets), &parse.properties, &parse.body, context.config()).await;
        let mut shown = shown.map_err(trouble)?;
        for property in parse.properties.iter().filter(|property| property.is_metadata()) {
            // RFC 8621 §4.9: it is in no mailbox.
            shown.insert(property.name(), Value::Null);
        }
        let shown = Value::Object(shown);
        spend_on(context, &shown)?;
        parsed.insert(id.to_string(), shown);
    }
    let some = |list: Vec<Id>| if list.is_empty() { Value::Null } else { json!(list) };
    Ok(object(json!({
        "accountId": account,
        "parsed": if parsed.is_empty() { Value::Null } else { Value::Object(parsed) },
        "notParsable": some(not_parsable),
        "notFound": some(not_found),
    })))
}
