//! THREAD (RFC 5256), with REFS (draft-ietf-morg-inthread).

use futures_util::StreamExt as _;
use imap_protocol::response::search::thread as write;
use imap_protocol::search::{Thread, ThreadAlgorithm};
use mail::fold::fold;
use mail::header::Fields;
use mail::header::decode::decode_header_text;
use mail::thread::{base_subject, message_id, message_ids};
use storage::{Account, BodyError, EmailRecord};

use crate::reply::{Answer, Reply, body_failure, storage_failure};
use crate::search::{Found, find};
use crate::session::Session;
use crate::thread::{Message, by_references, by_references_alone, by_subject};

/// Records asked for at one time.
const RECORDS_PER_TURN: usize = 128;
/// Longest message-id that is one.
const ID_BYTES_MAX: usize = 998;
/// References of a message that are looked at: the first ones and the last ones.
const REFERENCES_MAX: usize = 256;

pub(crate) async fn run(session: &mut Session, command: Thread) -> Answer {
    if command.key.has_mod_seq() {
        session.enable_condstore();
    }
    let account = session.account()?;
    let state = match account.mailbox(session.selected()?.mailbox).await {
        Ok(state) => state,
        Err(error) => return storage_failure(&error),
    };
    let found = match find(session, &account, &state, &command.key).await? {
        Ok(found) => found,
        Err(reply) => return Ok(reply),
    };
    let messages = match messages(&account, &command, &found).await {
        Ok(messages) => messages,
        Err(error) => return body_failure(&error),
    };
    let algorithm = command.algorithm;
    let threaded = tokio::task::spawn_blocking(move || match algorithm {
        ThreadAlgorithm::OrderedSubject => by_subject(messages),
        ThreadAlgorithm::References => by_references(&messages),
        ThreadAlgorithm::Refs => by_references_alone(&messages),
    });
    match threaded.await {
        Ok(tokens) => write(session.out(), &tokens),
        Err(error) => {
            tracing::error!(%error, "threads could not be made");
            return Ok(Reply::no("[SERVERBUG] Threads could not be made"));
        }
    }
    session.throttle().await?;
    Ok(Reply::ok("Thread completed"))
}

async fn messages(account: &Account, command: &Thread, found: &[Found]) -> Result<Vec<Message>, BodyError> {
    let reads_headers = command.algorithm != ThreadAlgorithm::OrderedSubject;
    let mut messages = Vec::with_capacity(found.len());
    for part in found.chunks(RECORDS_PER_TURN) {
        let emails: Vec<_> = part.iter().map(|found| found.email).collect();
        let records = account.emails(&emails).await?;
        for (found, record) in part.iter().zip(records) {
            let Some(record) = record else { continue };
            let number = if command.uid { found.uid.get() } else { found.number };
            let mut message = message(number, found, &record)?;
            if reads_headers {
                message.references = references(account, &record).await?;
            }
            messages.push(message);
        }
        tokio::task::yield_now().await;
    }
    Ok(messages)
}

fn message(number: u32, found: &Found, record: &EmailRecord) -> Result<Message, BodyError> {
    let summary = record.summary().map_err(storage::StorageError::from)?;
    let subject = summary.subject.map(|text| decode_header_text(text.as_bytes())).unwrap_or_default();
    let base = base_subject(&subject);
    let arrived = found.internal_date.unix_seconds();
    Ok(Message {
        number,
        sent: record.sent_date.map_or(arrived, |date| date.unix_seconds()),
        arrived,
        subject: fold(&base.text),
        is_reply: base.is_reply_or_forward,
        message_id: summary.message_id.and_then(|text| message_id(text.as_bytes(), ID_BYTES_MAX)),
        references: Vec::new(),
    })
}

/// RFC 5256 §3: what References names; without any, the first message of In-Reply-To.
async fn references(account: &Account, record: &EmailRecord) -> Result<Vec<String>, BodyError> {
    let reader = account.body(record).await?;
    let (mut references, mut in_reply_to) = (Vec::new(), None);
    let mut field = |name: &[u8], value: &[u8]| {
        if name.eq_ignore_ascii_case(b"References") {
            references.extend(message_ids(value, ID_BYTES_MAX));
            if references.len() > REFERENCES_MAX {
                references.drain(REFERENCES_MAX / 2..references.len() - REFERENCES_MAX / 2);
            }
        } else if name.eq_ignore_ascii_case(b"In-Reply-To") && in_reply_to.is_none() {
            in_reply_to = message_ids(value, ID_BYTES_MAX).into_iter().next();
        }
    };
    let mut fields = Fields::default();
    let mut pieces = reader.range(0..record.header_len);
    while let Some(piece) = pieces.next().await {
        fields.push(&piece?, &mut field);
    }
    fields.finish(&mut field);
    if references.is_empty() {
        references.extend(in_reply_to);
    }
    Ok(references)
}
