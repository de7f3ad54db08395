//! Orders of messages (RFC 5256 §3, RFC 5957, RFC 6203 §6): what a message is ordered by, and the ordering.

use std::cmp::Ordering;

use imap_protocol::search::{SortCriterion, SortKey};
use mail::fold::fold;
use mail::header::decode::decode_header_text;
use mail::header::{HeaderAddress, HeaderSummary};
use mail::thread::base_subject;
use storage::{Account, StorageError};

use crate::search::Found;

/// Records asked for at one time.
const RECORDS_PER_TURN: usize = 128;

/// What one step of an order compares.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Number(i64),
    Text(Box<str>),
}

/// Puts messages, which come ascending, in order.
pub(crate) async fn sort(
    account: &Account,
    order: &[SortCriterion],
    found: Vec<Found>,
) -> Result<Vec<Found>, StorageError> {
    let reads_messages = order.iter().any(|step| !is_in_row(step.by));
    let mut keyed = Vec::with_capacity(found.len());
    for part in found.chunks(RECORDS_PER_TURN) {
        if !reads_messages {
            keyed.extend(part.iter().map(|found| (values(order, found, None), *found)));
            continue;
        }
        let emails: Vec<_> = part.iter().map(|found| found.email).collect();
        for (found, record) in part.iter().zip(account.emails(&emails).await?) {
            let summary = match &record {
                Some(record) => Some((record.summary()?, record.sent_date.map(|date| date.unix_seconds()))),
                // It has gone meanwhile, and stays where a message without any fields would be.
                None => None,
            };
            keyed.push((values(order, found, summary), *found));
        }
        tokio::task::yield_now().await;
    }
    // Stable: what is equal stays in the order of the messages' numbers, whatever is reversed.
    keyed.sort_by(|(a, _), (b, _)| {
        let steps = order.iter().zip(a.iter().zip(b.iter()));
        let by = |(step, (a, b)): (&SortCriterion, (&Value, &Value))| {
            if step.reverse { b.cmp(a) } else { a.cmp(b) }
        };
        steps.map(by).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    });
    Ok(keyed.into_iter().map(|(_, found)| found).collect())
}

/// Whether it is known without the message's record.
fn is_in_row(key: SortKey) -> bool {
    matches!(key, SortKey::Arrival | SortKey::Size | SortKey::Relevancy)
}

fn values(
    order: &[SortCriterion],
    found: &Found,
    message: Option<(HeaderSummary, Option<i64>)>,
) -> Box<[Value]> {
    let (summary, sent) = message.unwrap_or_default();
    order.iter().map(|step| value(step.by, found, &summary, sent)).collect()
}

fn value(key: SortKey, found: &Found, summary: &HeaderSummary, sent: Option<i64>) -> Value {
    match key {
        SortKey::Arrival => Value::Number(found.internal_date.unix_seconds()),
        // RFC 6203 §6: the highest score first. A millionth of a score makes no difference.
        SortKey::Relevancy => Value::Number(-((f64::from(found.score) * 1e6) as i64)),
        SortKey::Size => Value::Number(i64::from(found.size)),
        // RFC 5256 §2.2: the internal date where there is no date that could be understood.
        SortKey::Date => Value::Number(sent.unwrap_or_else(|| found.internal_date.unix_seconds())),
        SortKey::Subject => {
            let subject = summary.subject.as_ref().map(|text| decode_header_text(text.as_bytes()));
            text(&base_subject(&subject.unwrap_or_default()).text)
        }
        SortKey::From => local_part(&summary.from),
        SortKey::To => local_part(&summary.to),
        SortKey::Cc => local_part(&summary.cc),
        SortKey::DisplayFrom => display_name(&summary.from),
        SortKey::DisplayTo => display_name(&summary.to),
    }
}

/// Compared without regard to case (RFC 5255 §4.4).
fn text(text: &str) -> Value {
    Value::Text(fold(text).into_boxed_str())
}

/// RFC 5256 §3: the local part of the first address, or nothing.
fn local_part(addresses: &[HeaderAddress]) -> Value {
    let first = addresses.first().and_then(|address| address.mailbox.as_ref());
    text(&first.map(|mailbox| decode_header_text(mailbox.as_bytes())).unwrap_or_default())
}

/// RFC 5957 §3: the name of the first address; without one, the address.
fn display_name(addresses: &[HeaderAddress]) -> Value {
    let Some(first) = addresses.first() else { return text("") };
    let decoded = |raw: &mail::header::RawText| decode_header_text(raw.as_bytes());
    let name = first.name.as_ref().map(decoded).filter(|name| !name.is_empty());
    let address = || {
        let mailbox = first.mailbox.as_ref().map(decoded).unwrap_or_default();
        match &first.host {
            Some(host) => format!("{mailbox}@{}", decoded(host)),
            None => mailbox,
        }
    };
    text(&name.unwrap_or_else(address))
}
