//! A submission is made (RFC 8621 §7.5): what is to be sent is looked at, streamed into the queue, and told only when the
//! queue has it.
//!
//! The record is written before the queue is asked, since the two are different logs: were the process to end between them,
//! there would be a submission of which nobody knows more, and not a message that was sent and of which nothing is known.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use directory::Resolution;
use futures_util::StreamExt as _;
use jmap_protocol::object::submission::New;
use jmap_protocol::{Id, MethodError, SetError, SetErrorKind};
use mail::address::Address;
use mail::date::SentDate;
use mail::envelope::{BodyType, Envelope};
use mail::id::EmailId;
use queue::{Body, BodyWriter, Origin, Resolved, Submission, SubmitError};
use serde_json::json;
use storage::{EmailRecord, ObjectError, ObjectKind, ObjectWrite, Since, WriteObjectsError};
use uuid::Uuid;

use super::header::{Header, Named};
use super::identity::{self, Identity, forbidden, may_send_as};
use super::lines::Lines;
use super::record::Record;
use super::{SendingRules, envelope};
use crate::jmap::context::{Context, body_trouble, trouble};
use crate::jmap::ids;
use crate::jmap::message::octets::Octets;

/// Old submissions that make room for one new one, so that the commit stays small.
const FORGOTTEN_AT_ONCE: usize = 50;

/// A result within a result: trouble with this submission, or with the whole call.
type Outcome<T> = Result<Result<T, SetError>, MethodError>;

/// What was made.
pub(crate) struct Submitted {
    pub(crate) id: Id,
    pub(crate) record: Record,
}

/// Makes a submission.
pub(crate) async fn submit(context: &Context, new: &New, condition: Option<Since>) -> Outcome<Submitted> {
    let rules = &context.sending()?.rules;
    let (identity, email, stored) = match look_up(context, new).await? {
        Ok(found) => found,
        Err(error) => return Ok(Err(error)),
    };
    let octets = Octets::of(context.account().body(&stored).await.map_err(|error| body_trouble(&error))?);
    let header = match read_header(context, &stored, &octets).await? {
        Ok(header) => header,
        Err(error) => return Ok(Err(error)),
    };
    if let Err(error) = check_author(context, &header).await? {
        return Ok(Err(error));
    }
    let Some(address) = identity.address() else {
        return Ok(Err(SetError::property("identityId", "the identity has no address to send from")));
    };
    let shown = match &new.envelope {
        Some(given) => given.clone(),
        None => match envelope::of_header(&header, &address) {
            Ok(made) => made,
            Err(error) => return Ok(Err(error)),
        },
    };
    let now = context.sending()?.queue.clock().now();
    let most = rules.recipients_max.min(context.config().submission_recipients_max);
    if shown.rcpt_to.len() > most {
        return Ok(Err(too_many(most)));
    }
    let mut envelope = match envelope::read(&shown, rules, now) {
        Ok(envelope) => envelope,
        Err(error) => return Ok(Err(error)),
    };
    if let Some(sender) = envelope.reverse_path.address()
        && !may_send_as(context, sender).await?
    {
        return Ok(Err(forbidden(SetErrorKind::ForbiddenMailFrom, &sender.to_string())));
    }
    let resolved = match resolve(context, &envelope).await? {
        Ok(resolved) => resolved,
        Err(error) => return Ok(Err(error)),
    };
    let sent = match write(context, &octets, stored.header_len, &header.sent, &resolved).await? {
        Ok(sent) => sent,
        Err(error) => return Ok(Err(error)),
    };
    envelope.body = if sent.is_ascii { BodyType::SevenBit } else { BodyType::EightBitMime };
    // RFC 6531 §3.6: what only hosts with SMTPUTF8 can take.
    envelope.smtputf8 = !header.sent.is_ascii() || needs_smtputf8(&envelope);
    let record = Record {
        identity: identity.id.to_string(),
        email: email.0,
        thread: context.view().await?.email(email).map_or(0, |email| email.thread.0),
        queue_id: sent.body.queue_id(),
        shard: sent.body.shard().index,
        send_at: envelope.hold_until.unwrap_or(now),
        held: envelope.hold_until.is_some(),
        canceled: false,
        told: None,
        dsns: Vec::new(),
        from: shown.mail_from.into(),
        to: shown.rcpt_to.into_iter().map(Into::into).collect(),
    };
    // What becomes of it has to fit in as well.
    let room = context.inner().storage.config().object_bytes_max;
    if record.encode().len() + Record::more_bytes_max(record.to.len()) > room {
        return Ok(Err(too_many(most)));
    }
    let id = match remember(context, &record, condition, now, most).await? {
        Ok(id) => id,
        Err(error) => return Ok(Err(error)),
    };
    match hand_over(context, envelope, resolved, sent.body).await {
        Ok(()) => Ok(Ok(Submitted { id, record })),
        Err(error) => {
            tracing::warn!(queue_id = %record.queue_id, %error, "message not queued");
            if !matches!(error, SubmitError::Undecided) {
                let gone = vec![ObjectWrite::Remove { id: id.to_string() }];
                let kind = ObjectKind::EMAIL_SUBMISSION;
                if let Err(error) = context.account().write_objects(kind, gone, None).await {
                    tracing::warn!(%error, "submission left behind");
                }
            }
            Ok(Err(refused(&error)))
        }
    }
}

/// The identity and the email.
async fn look_up(context: &Context, new: &New) -> Outcome<(Identity, EmailId, Arc<EmailRecord>)> {
    let view = context.view().await?;
    let identity = match context.resolve(&new.identity) {
        Some(id) => identity::find(context, &view.account, &id).await?,
        None => None,
    };
    let Some(identity) = identity else {
        return Ok(Err(SetError::property("identityId", "there is no such identity")));
    };
    let email = context.resolve(&new.email).as_ref().and_then(ids::parse_email);
    let email = email.filter(|email| view.email(*email).is_some());
    let stored = match email {
        Some(email) => context.account().email(email).await.map_err(|error| trouble(&error))?,
        None => None,
    };
    let (Some(email), Some(stored)) = (email, stored) else {
        return Ok(Err(SetError::property("emailId", "there is no such email")));
    };
    let most = context.sending()?.rules.message_bytes_max;
    if stored.size > most {
        let error = SetError::new(SetErrorKind::TooLarge, "the email is too large to be sent");
        return Ok(Err(error.with("maxSize", json!(most))));
    }
    Ok(Ok((identity, email, stored)))
}

async fn read_header(context: &Context, stored: &EmailRecord, octets: &Octets) -> Outcome<Header> {
    if stored.header_len > context.config().header_bytes_max {
        return Ok(Err(invalid_email(&["headers"], "the header of the email is too long")));
    }
    let bytes = octets.read(stored.header_len).await.map_err(|error| body_trouble(&error))?;
    let rules = &context.sending()?.rules;
    let most = rules.recipients_max.min(context.config().submission_recipients_max);
    Ok(Header::parse(&bytes, most).map_err(|_| too_many(most)))
}

/// RFC 8621 §7.5 `forbiddenFrom`: what the message itself says about who has written it.
async fn check_author(context: &Context, header: &Header) -> Result<Result<(), SetError>, MethodError> {
    if header.from.is_empty() || header.from_fields != 1 {
        return Ok(Err(invalid_email(&["from"], "there is not one From field with an address in it")));
    }
    if header.sender_fields > 1 || header.sender.len() > 1 {
        return Ok(Err(invalid_email(&["sender"], "there is more than one sender")));
    }
    // RFC 5322 §3.6.2: several authors need somebody who sends it.
    if header.from.len() > 1 && header.sender.is_empty() {
        return Ok(Err(invalid_email(&["from", "sender"], "several authors need a sender")));
    }
    for (property, list) in [("from", &header.from), ("sender", &header.sender)] {
        for named in list {
            let address = match named {
                Named::Address(address) => address,
                Named::Other(text) => {
                    return Ok(Err(invalid_email(&[property], &format!("{text} is no address"))));
                }
            };
            if !may_send_as(context, address).await? {
                return Ok(Err(forbidden(SetErrorKind::ForbiddenFrom, &address.to_string())));
            }
        }
    }
    Ok(Ok(()))
}

/// What each recipient is, as in RCPT of SMTP submission.
async fn resolve(context: &Context, envelope: &Envelope) -> Outcome<Vec<Resolved>> {
    let mut resolved = Vec::with_capacity(envelope.recipients.len());
    let mut invalid = Vec::new();
    for recipient in &envelope.recipients {
        let found = context.inner().directory.resolve(&recipient.address).await.map_err(|error| {
            tracing::warn!(%error, "recipient not decided");
            MethodError::ServerUnavailable
        })?;
        match found {
            Resolution::Account(route) => {
                resolved.push(Resolved::Account { id: route.account, detail: route.detail });
            }
            Resolution::Alias { .. } | Resolution::List { .. } | Resolution::Elsewhere { .. } => {
                resolved.push(Resolved::Later);
            }
            Resolution::NotLocal => resolved.push(Resolved::Remote),
            Resolution::Disabled | Resolution::NoSuchUser => invalid.push(recipient.address.to_string()),
        }
    }
    if !invalid.is_empty() {
        return Ok(Err(envelope::invalid_recipients(&invalid)));
    }
    let (sending, account) = (context.sending()?, context.user().principal.account);
    if !envelope.recipients.iter().all(|_| (sending.may_write_to_one_more)(account)) {
        tracing::info!(account_id = %account, "user has written to as many as they may in an hour");
        let why = "too many recipients within an hour, try again later";
        return Ok(Err(SetError::new(SetErrorKind::ForbiddenToSend, why)));
    }
    Ok(Ok(resolved))
}

/// A message that is durable, and in no queue yet.
struct Sent {
    body: Body,
    is_ascii: bool,
}

/// Streams the message to where the queue keeps it: the header as it is sent, and the rest as it is stored.
async fn write(
    context: &Context,
    octets: &Octets,
    header_len: u64,
    header: &[u8],
    resolved: &[Resolved],
) -> Outcome<Sent> {
    let sending = context.sending()?;
    let first_local = resolved.iter().find_map(|resolved| match resolved {
        Resolved::Account { id, .. } => Some(*id),
        Resolved::Remote | Resolved::Later => None,
    });
    let mut writer = sending.queue.body_writer(first_local).await.map_err(|error| unwritten(&error))?;
    let mut lines = Lines::new(sending.rules.text_line_bytes_max);
    let bad = |error: super::lines::BadLine| invalid_email(&["bodyStructure"], &error.to_string());
    if let Err(error) = lines.push(header) {
        return Ok(Err(invalid_email(&["headers"], &error.to_string())));
    }
    put(&mut writer, Bytes::copy_from_slice(header)).await?;
    let mut pieces = octets.within(header_len..octets.size()).stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| body_trouble(&error))?;
        if let Err(error) = lines.push(&piece) {
            return Ok(Err(bad(error)));
        }
        put(&mut writer, piece).await?;
    }
    match lines.missing() {
        Ok(end) => put(&mut writer, Bytes::from_static(end)).await?,
        Err(error) => return Ok(Err(bad(error))),
    }
    let body = writer.finish().await.map_err(|error| unwritten(&error))?;
    if body.facts().received_count >= sending.rules.received_max {
        return Ok(Err(invalid_email(&["headers"], "the email goes in circles: too many Received fields")));
    }
    Ok(Ok(Sent { body, is_ascii: lines.is_ascii() }))
}

async fn put(writer: &mut BodyWriter, piece: Bytes) -> Result<(), MethodError> {
    if piece.is_empty() {
        return Ok(());
    }
    writer.write(piece).await.map_err(|error| unwritten(&error))
}

fn unwritten(error: &queue::BodyError) -> MethodError {
    tracing::warn!(%error, cause = ?std::error::Error::source(error), "message not written");
    MethodError::ServerUnavailable
}

fn needs_smtputf8(envelope: &Envelope) -> bool {
    let sender = envelope.reverse_path.address();
    let recipients = envelope.recipients.iter().map(|recipient| &recipient.address);
    sender.into_iter().chain(recipients).any(Address::needs_smtputf8)
}

/// Writes the record, and forgets old ones.
async fn remember(
    context: &Context,
    record: &Record,
    condition: Option<Since>,
    now: u64,
    recipients_max: usize,
) -> Outcome<Id> {
    let mut writes = vec![ObjectWrite::Create { id: None, value: record.encode() }];
    writes.extend(forgotten(context, now).into_iter().map(|id| ObjectWrite::Remove { id }));
    let written = context.account().write_objects(ObjectKind::EMAIL_SUBMISSION, writes, condition).await;
    let written = written.map_err(|error| match error {
        WriteObjectsError::StateMismatch => MethodError::StateMismatch,
        WriteObjectsError::TooLarge => MethodError::RequestTooLarge(error.to_string()),
        WriteObjectsError::Storage(error) => trouble(&error),
    })?;
    Ok(match written.results.into_iter().next() {
        Some(Ok(id)) => Id::new(id).ok_or_else(|| SetError::new(SetErrorKind::ServerFail, "no id")),
        Some(Err(ObjectError::TooLarge)) => Err(too_many(recipients_max)),
        Some(Err(error @ ObjectError::TooMany)) => {
            Err(SetError::new(SetErrorKind::OverQuota, error.to_string()))
        }
        Some(Err(error)) => Err(SetError::new(SetErrorKind::ServerFail, error.to_string())),
        None => Err(SetError::new(SetErrorKind::ServerFail, "nothing was written")),
    })
}

/// RFC 8621 §7: submissions may go when nothing more happens to them. Those that are settled, or of which the queue has given
/// up whatever it could not deliver, go when they are old, or when there are many.
fn forgotten(context: &Context, now: u64) -> Vec<String> {
    let (Ok(sending), config) = (context.sending(), context.config()) else { return Vec::new() };
    let queue = sending.queue.config();
    let expires = queue.expire_seconds.max(queue.retry.expire_seconds);
    let state = context.account().state();
    let mut over: Vec<(u64, String)> = Vec::new();
    let mut count = 0_usize;
    for (id, record) in Record::all(&state) {
        count += 1;
        if record.is_settled() || record.send_at.saturating_add(expires) < now {
            over.push((record.send_at, id.to_string()));
        }
    }
    over.sort_unstable();
    let excess = (count + 1).saturating_sub(config.submissions_max);
    let is_old = |at: u64| at.saturating_add(config.submission_seconds) < now;
    let goes = over.into_iter().enumerate().filter(|(number, (at, _))| *number < excess || is_old(*at));
    goes.map(|(_, (_, id))| id).take(FORGOTTEN_AT_ONCE).collect()
}

/// From here on it is the queue's.
async fn hand_over(
    context: &Context,
    envelope: Envelope,
    resolved: Vec<Resolved>,
    body: Body,
) -> Result<(), SubmitError> {
    let Ok(sending) = context.sending() else {
        return Err(SubmitError::Malformed { reason: "there is no queue" });
    };
    let (user, queue_id) = (context.user(), body.queue_id());
    let prefix = prefix(user.remote, &sending.rules, &envelope, &body);
    let origin = Origin {
        principal: Some(user.principal.account),
        remote_ip: Some(user.remote),
        session_id: "jmap".to_owned(),
    };
    let (sender, recipients, size) =
        (envelope.reverse_path.to_string(), envelope.recipients.len(), body.size());
    let submission = Submission { envelope, resolved, body, prefix: prefix.into(), origin };
    let committed = sending.queue.submit(submission).await?;
    metrics::counter!("postrider_jmap_submissions_total").increment(1);
    debug_assert_eq!(committed.queue_id(), queue_id);
    tracing::info!(queue_id = %committed.queue_id(), sender, recipients, size, "message accepted");
    Ok(())
}

/// The fields that stand before the message's own: how it came, and what it lacks (RFC 6409 §8).
fn prefix(remote: IpAddr, rules: &SendingRules, envelope: &Envelope, body: &Body) -> String {
    let from = match remote {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    };
    // RFC 5321 §7.2: with several recipients, naming one would tell the others about it.
    let only = match envelope.recipients.as_slice() {
        [only] if envelope.smtputf8 || !only.address.needs_smtputf8() => {
            format!("\r\n\tfor <{}>", only.address)
        }
        _ => String::new(),
    };
    let date = SentDate::utc(unix_now()).rfc5322().to_string();
    let (hostname, id) = (&rules.hostname, body.queue_id());
    let mut prefix =
        format!("Received: from {from} ({from})\r\n\tby {hostname} with JMAP id {id}{only};\r\n\t{date}\r\n");
    let facts = body.facts();
    if facts.summary.date.is_none() {
        let _ = write!(prefix, "Date: {date}\r\n");
    }
    if facts.summary.message_id.is_none() {
        let id = Uuid::new_v4().as_simple().to_string();
        let _ = write!(prefix, "Message-ID: <{id}@{hostname}>\r\n");
    }
    prefix
}

fn unix_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs()).cast_signed()
}

fn invalid_email(properties: &[&str], why: &str) -> SetError {
    let properties = properties.iter().map(|name| (*name).to_owned()).collect();
    SetError { properties, ..SetError::new(SetErrorKind::InvalidEmail, why) }
}

fn too_many(most: usize) -> SetError {
    SetError::new(SetErrorKind::TooManyRecipients, "too many recipients").with("maxRecipients", json!(most))
}

/// Why the queue has not taken it.
fn refused(error: &SubmitError) -> SetError {
    match error {
        SubmitError::Recipients { limit } => too_many(*limit),
        // DESIGN §2.2: whether it was done is not known, and neither yes nor no may be said.
        SubmitError::Undecided => {
            SetError::new(SetErrorKind::ServerFail, "it is not known whether this was sent")
        }
        SubmitError::Full { .. }
        | SubmitError::Unavailable { .. }
        | SubmitError::Prefix { .. }
        | SubmitError::Malformed { .. } => {
            SetError::new(SetErrorKind::ServerFail, "the message cannot be queued now, try again later")
        }
    }
}

/// The properties that the server adds to what a client has given (RFC 8620 §5.3).
pub(crate) fn is_given(property: &str, new: &New) -> bool {
    match property {
        "identityId" | "emailId" => true,
        "envelope" => new.envelope.is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use jmap_protocol::object::submission;

    use super::*;

    #[test]
    fn the_server_tells_what_it_made_of_it() {
        let new = New {
            identity: jmap_protocol::IdOrReference::new("default").unwrap(),
            email: jmap_protocol::IdOrReference::new("E1").unwrap(),
            envelope: None,
        };
        assert!(is_given("emailId", &new) && !is_given("envelope", &new) && !is_given("id", &new));
        let envelope = submission::Envelope {
            mail_from: submission::EnvelopeAddress { email: String::new(), parameters: None },
            rcpt_to: Vec::new(),
        };
        assert!(is_given("envelope", &New { envelope: Some(envelope), ..new }));
    }
}
