//! Answering FETCH: rows, records, bodies.
//!
//! What is asked for decides how far one has to look: flags, sizes and dates stand in the index; envelopes, structures
//! and previews in email records, read in batches; only `BODY[…]` opens a message.

mod ahead;
mod body;

use bytes::{BufMut, BytesMut};
use futures_util::stream::{self, StreamExt};
use imap_protocol::command::{DateTime, Fetch};
use imap_protocol::fetch::FetchItem;
use imap_protocol::response::envelope::envelope;
use imap_protocol::response::fetch as write;
use imap_protocol::response::structure::structure;
use mail::id::EmailId;
use mail::uid::UidSet;
use storage::{Account, AccountState, EmailRecord, MessageRow};

use self::ahead::Ahead;
use self::body::Body;
use crate::command::fetch::index_of;
use crate::messages::rows;
use crate::news::write_flags;
use crate::reply::{Answer, Reply, Stop, body_failure, storage_failure};
use crate::session::Session;

/// Rows that are looked up at one time.
const ROWS_PER_BATCH: u32 = 512;
/// Records that are asked for at one time: a page of them.
const RECORDS_PER_BATCH: u32 = 256;
/// Messages that are opened ahead of the one being sent.
const BODIES_AHEAD: usize = 4;

/// Characters of a preview, whatever the store was told to keep (RFC 8970 §3.1).
const PREVIEW_CHARACTERS_MAX: usize = 256;

/// What is written for each message.
#[derive(Debug)]
pub(crate) struct Plan {
    items: Vec<FetchItem>,
    /// Messages that this FETCH has marked as seen: their flags are shown, asked for or not.
    pub(crate) seen: UidSet,
    /// CHANGEDSINCE
    since: Option<u64>,
    uid: bool,
    condstore: bool,
}

impl Plan {
    pub(crate) fn new(fetch: &Fetch, condstore: bool, seen: UidSet) -> Self {
        let mut items = fetch.items.clone();
        // RFC 9051 §6.4.9: the answer to UID FETCH holds the UID. First, where clients can use it best.
        if fetch.uid && !items.contains(&FetchItem::Uid) {
            items.insert(0, FetchItem::Uid);
        }
        // RFC 7162 §3.1.4.1.
        if fetch.changed_since.is_some() && !items.contains(&FetchItem::ModSeq) {
            items.push(FetchItem::ModSeq);
        }
        Self { items, seen, since: fetch.changed_since, uid: fetch.uid, condstore }
    }

    fn needs_record(&self) -> bool {
        self.items.iter().any(|item| {
            matches!(
                item,
                FetchItem::Envelope | FetchItem::Body | FetchItem::BodyStructure | FetchItem::Preview
            ) || is_body(item)
        })
    }

    fn needs_body(&self) -> bool {
        self.items.iter().any(is_body)
    }

    fn wants(&self, row: &MessageRow) -> bool {
        self.since.is_none_or(|since| row.modseq.0 > since)
    }
}

fn is_body(item: &FetchItem) -> bool {
    matches!(
        item,
        FetchItem::Section { .. } | FetchItem::Rfc822 | FetchItem::Rfc822Header | FetchItem::Rfc822Text
    )
}

/// Writes the responses for ranges of message numbers.
pub(crate) async fn write_messages(
    session: &mut Session,
    account: &Account,
    state: &AccountState,
    numbers: &[(u32, u32)],
    plan: &Plan,
) -> Answer {
    let index = index_of(session, state)?;
    let per_batch = if plan.needs_record() { RECORDS_PER_BATCH } else { ROWS_PER_BATCH };
    let mut missing = false;
    let mut failure = None;
    let mut batch: Vec<(u32, MessageRow)> = Vec::new();
    for part in batches(numbers, per_batch) {
        batch.clear();
        batch.extend(rows(&session.selected()?.view, index, &[part]));
        missing |= batch.len() < (part.1 - part.0 + 1) as usize;
        batch.retain(|(_, row)| plan.wants(row));
        if !plan.needs_record() {
            for (number, row) in &batch {
                write_message(session.out(), state, plan, *number, row, None);
                session.throttle().await?;
            }
            continue;
        }
        let emails: Vec<EmailId> = batch.iter().map(|(_, row)| row.email).collect();
        let records = match account.emails(&emails).await {
            Ok(records) => records,
            Err(error) => return storage_failure(&error),
        };
        let mut found = Vec::with_capacity(batch.len());
        for ((number, row), record) in batch.drain(..).zip(records) {
            match record {
                Some(record) => found.push((number, row, record)),
                None => missing = true,
            }
        }
        if plan.needs_body() {
            let held = session.imap.config.header_bytes_held;
            let records = found.iter().map(|(_, _, record)| &**record);
            let mut ahead = Ahead::new(&session.imap.config, &plan.items, records);
            ahead.tell(account);
            let mut bodies = stream::iter(found)
                .map(|(number, row, record)| async move {
                    let opened = Body::open(account, &record, &plan.items, held).await;
                    (number, row, record, opened)
                })
                .buffered(BODIES_AHEAD);
            while let Some((number, row, record, opened)) = bodies.next().await {
                ahead.goes();
                ahead.tell(account);
                match opened {
                    Ok(body) => write_with_body(session, state, plan, number, &row, &record, body).await?,
                    Err(error) => failure = Some(body_failure(&error)?),
                }
            }
        } else {
            for (number, row, record) in &found {
                match Known::of(record, plan) {
                    Ok(known) => write_message(session.out(), state, plan, *number, row, Some(&known)),
                    Err(error) => failure = Some(storage_failure(&error)?),
                }
                session.throttle().await?;
            }
        }
    }
    Ok(match failure {
        Some(reply) => reply,
        // RFC 5530: told for numbers, which the client thinks are messages; UIDs may be of the past.
        None if missing && !plan.uid => Reply::no("[EXPUNGEISSUED] Some messages have been expunged"),
        None => Reply::ok("Fetch completed"),
    })
}

/// What a record says, decoded as far as the plan needs it.
struct Known<'a> {
    summary: Option<mail::header::HeaderSummary>,
    structure: Option<mail::mime::Part>,
    preview: &'a str,
}

impl<'a> Known<'a> {
    fn of(record: &'a EmailRecord, plan: &Plan) -> Result<Self, storage::StorageError> {
        let wants = |item: FetchItem| plan.items.contains(&item);
        Ok(Self {
            summary: if wants(FetchItem::Envelope) { Some(record.summary()?) } else { None },
            structure: if wants(FetchItem::Body) || wants(FetchItem::BodyStructure) {
                Some(record.structure()?)
            } else {
                None
            },
            preview: at_most(record.preview(), PREVIEW_CHARACTERS_MAX),
        })
    }
}

/// The first characters of a text.
fn at_most(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
}

fn write_message(
    out: &mut BytesMut,
    state: &AccountState,
    plan: &Plan,
    number: u32,
    row: &MessageRow,
    known: Option<&Known<'_>>,
) {
    write::begin(out, number);
    let mut first = true;
    for item in &plan.items {
        write::separate(out, &mut first);
        write_item(out, state, item, row, known);
    }
    write_seen(out, state, plan, row, &mut first);
    write::end(out);
}

/// Shows the flags of a message that this FETCH has marked as seen.
fn write_seen(out: &mut BytesMut, state: &AccountState, plan: &Plan, row: &MessageRow, first: &mut bool) {
    if !plan.seen.contains(row.uid) {
        return;
    }
    if !plan.items.contains(&FetchItem::Flags) {
        write::separate(out, first);
        write_flags(out, state, row.marks);
    }
    if plan.condstore && !plan.items.contains(&FetchItem::ModSeq) {
        write::separate(out, first);
        write::mod_seq(out, row.modseq.0);
    }
}

fn write_item(
    out: &mut BytesMut,
    state: &AccountState,
    item: &FetchItem,
    row: &MessageRow,
    known: Option<&Known<'_>>,
) {
    match item {
        FetchItem::Uid => write::uid(out, row.uid.get()),
        FetchItem::Flags => write_flags(out, state, row.marks),
        FetchItem::InternalDate => {
            let zone_minutes = row.internal_date.offset_minutes();
            write::internal_date(
                out,
                DateTime { unix_seconds: row.internal_date.unix_seconds(), zone_minutes },
            );
        }
        FetchItem::Rfc822Size => write::size(out, u64::from(row.size)),
        FetchItem::ModSeq => write::mod_seq(out, row.modseq.0),
        FetchItem::Envelope => {
            out.put_slice(b"ENVELOPE ");
            if let Some(summary) = known.and_then(|known| known.summary.as_ref()) {
                envelope(out, summary);
            }
        }
        FetchItem::Body | FetchItem::BodyStructure => {
            let extended = *item == FetchItem::BodyStructure;
            out.put_slice(if extended { b"BODYSTRUCTURE " } else { b"BODY " });
            if let Some(part) = known.and_then(|known| known.structure.as_ref()) {
                structure(out, part, extended);
            }
        }
        FetchItem::Preview => write::preview(out, known.map(|known| known.preview).unwrap_or_default()),
        // Written by `write_with_body`.
        FetchItem::Section { .. } | FetchItem::Rfc822 | FetchItem::Rfc822Header | FetchItem::Rfc822Text => {}
    }
}

async fn write_with_body(
    session: &mut Session,
    state: &AccountState,
    plan: &Plan,
    number: u32,
    row: &MessageRow,
    record: &EmailRecord,
    mut body: Body,
) -> Result<(), Stop> {
    let known = match Known::of(record, plan) {
        Ok(known) => known,
        Err(error) => return storage_failure(&error).map(|_| ()),
    };
    let out = session.out();
    write::begin(out, number);
    let mut first = true;
    for item in &plan.items {
        let out = session.out();
        write::separate(out, &mut first);
        if is_body(item) {
            body.write(session, item).await?;
        } else {
            write_item(out, state, item, row, Some(&known));
        }
    }
    let out = session.out();
    write_seen(out, state, plan, row, &mut first);
    write::end(out);
    session.throttle().await
}

/// Ranges cut into ranges of at most `size` numbers.
fn batches(numbers: &[(u32, u32)], size: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
    numbers.iter().flat_map(move |&(first, last)| {
        (first..=last).step_by(size as usize).map(move |from| (from, last.min(from.saturating_add(size - 1))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn previews_are_cut_between_characters_rfc8970_3_1() {
        assert_eq!(at_most("äöü", 2), "äö");
        assert_eq!(at_most("äöü", 3), "äöü");
        assert_eq!(at_most("", 3), "");
    }

    #[test]
    fn ranges_are_cut() {
        let cut: Vec<_> = batches(&[(1, 5), (7, 7), (10, 13)], 2).collect();
        assert_eq!(cut, [(1, 2), (3, 4), (5, 5), (7, 7), (10, 11), (12, 13)]);
    }
}
