//! Email/get (RFC 8621 §4.2).

use jmap_protocol::date;
use jmap_protocol::method::{Get, got};
use jmap_protocol::object::email::{self, BodyOptions, Property};
use jmap_protocol::{Arguments, Id, MethodError, Object};
use mail::date::SentDate;
use mail::id::EmailId;
use serde_json::{Map, Value, json};
use storage::{EmailRecord, StorageError};

use super::super::spend_on;
use crate::jmap::context::{Context, body_trouble, trouble};
use crate::jmap::ids::{self, BlobName};
use crate::jmap::message::octets::Octets;
use crate::jmap::message::show::{self, Message};
use crate::jmap::view::{EmailView, View};

/// Records that are asked for at a time; they lie on pages of as many.
const RECORDS_AT_ONCE: usize = 256;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let get = Get::take(arguments, context.config().objects_in_get_max)?;
    let options = BodyOptions::take(arguments)?;
    std::mem::take(arguments).finish()?;
    let mut properties = email::properties(get.properties.as_deref(), &email::DEFAULT_PROPERTIES)?;
    if !properties.contains(&Property::Id) {
        properties.insert(0, Property::Id);
    }
    let view = context.view().await?;
    let wanted: Vec<(Id, Option<EmailId>)> = match &get.ids {
        Some(ids) => ids.iter().map(|id| (id.clone(), ids::parse_email(id))).collect(),
        None => {
            let all: Vec<_> = view.emails().map(|it| (ids::email(it.id), Some(it.id))).collect();
            if all.len() > context.config().objects_in_get_max {
                return Err(MethodError::RequestTooLarge("the account has more emails than that".to_owned()));
            }
            all
        }
    };
    let (mut list, mut not_found) = (Vec::new(), Vec::new());
    for wanted in wanted.chunks(RECORDS_AT_ONCE) {
        let known: Vec<EmailId> =
            wanted.iter().filter_map(|(_, email)| email.filter(|it| view.email(*it).is_some())).collect();
        let records = if properties.iter().all(is_of_state) {
            Vec::new()
        } else {
            context.account().emails(&known).await.map_err(|error| trouble(&error))?
        };
        let mut at = 0;
        for (id, email) in wanted {
            let Some(email) = email.and_then(|email| view.email(email)) else {
                not_found.push(id.clone());
                continue;
            };
            let record = records.get(at).cloned().flatten();
            at += 1;
            let mut shown = metadata(&view, &email, &properties);
            if !properties.iter().all(is_of_state) {
                // Destroyed since the view was taken.
                let Some(record) = record else {
                    not_found.push(id.clone());
                    continue;
                };
                shown.extend(of_record(context, &record, &properties, &options).await?);
            }
            let shown = Value::Object(shown);
            spend_on(context, &shown)?;
            list.push(shown);
        }
    }
    Ok(got(&account, &view.email_state(), list, &not_found))
}

/// Whether the account's state tells it, so that no record is needed.
fn is_of_state(property: &Property) -> bool {
    property.is_metadata() || matches!(property, Property::BlobId | Property::Size)
}

pub(super) fn metadata(view: &View, email: &EmailView, properties: &[Property]) -> Map<String, Value> {
    let all_true = |names: Vec<String>| -> Value {
        Value::Object(names.into_iter().map(|name| (name, Value::Bool(true))).collect())
    };
    let mut shown = Map::new();
    for property in properties {
        let value = match property {
            Property::Id => json!(ids::email(email.id)),
            Property::BlobId => json!(BlobName::email(email.id).to_string()),
            Property::ThreadId => json!(ids::thread(email.thread)),
            Property::MailboxIds => {
                all_true(email.places.iter().map(|(mailbox, _)| ids::mailbox(*mailbox).to_string()).collect())
            }
            Property::Keywords => all_true(view.keywords(email)),
            Property::Size => json!(email.size),
            Property::ReceivedAt => json!(date::utc(email.received.unix_seconds())),
            _ => continue,
        };
        shown.insert(property.name(), value);
    }
    shown
}

/// What the email record tells, and the message itself where that is asked for.
async fn of_record(
    context: &Context,
    record: &EmailRecord,
    properties: &[Property],
    options: &BodyOptions,
) -> Result<Map<String, Value>, MethodError> {
    let format = |error| trouble(&StorageError::from(error));
    let (structure, summary) = (record.structure().map_err(format)?, record.summary().map_err(format)?);
    let octets = if show::needs_octets(properties) {
        let reader = context.account().body(record).await.map_err(|error| body_trouble(&error))?;
        Some(Octets::of(reader))
    } else {
        None
    };
    let sent = record
        .sent_date
        .map(|sent| SentDate { unix_seconds: sent.unix_seconds(), offset_minutes: sent.offset_minutes() });
    let message = Message {
        blob: BlobName::email(record.id),
        size: record.size,
        header_len: record.header_len,
        structure: &structure,
        summary: &summary,
        sent,
        has_attachment: record.has_attachment,
        preview: record.preview(),
    };
    let shown = show::show(&message, octets.as_ref(), properties, options, context.config()).await;
    shown.map_err(|error| body_trouble(&error))
}
