//! Looking what has become of submissions, and writing down in the account what is new of it.
//!
//! What happens to a message is committed in the queue, which knows no accounts. So that an EmailSubmission has a state that
//! changes when its delivery status does (RFC 8621 §7, RFC 8620 §5.2), whoever is going to tell of submissions looks first:
//! the methods that read them, and event sources while somebody listens. What is found is an ordinary commit, of which
//! all others hear. Where nobody asks, nothing is written.

use std::collections::BTreeSet;

use jmap_protocol::{Id, MethodError};
use mail::id::EmailId;
use mail::mime::Part;
use storage::{Account, EmailView, ObjectError, ObjectKind, ObjectWrite, StorageError, WriteObjectsError};

use super::Sending;
use super::record::{DSNS_MAX, Record};
use super::status::{Told, Undo};
use crate::jmap::context::trouble;

/// Submissions that are written at once: a commit has room for as many of the largest ones.
const WRITTEN_AT_ONCE: usize = 8;
/// Emails that are looked at for one submission: those that came after it, the last ones first.
const EMAILS_MAX: usize = 200;
/// Seconds after which no DSN is looked for any more. Hosts give up after five days (RFC 5321 §4.5.4.1).
const DSN_SECONDS: u64 = 14 * 86_400;

/// What somebody who looks again and again has seen, so that it is not read each time.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Emails that are no DSNs.
    others: BTreeSet<EmailId>,
}

/// Brings submissions up to date; `None`: all. Gives the seconds after which something more may have happened, where
/// something may.
pub(crate) async fn look(
    account: &Account,
    sending: &Sending,
    ids: Option<&[Id]>,
    seen: &mut Seen,
) -> Result<Option<u64>, MethodError> {
    let state = account.refresh().await.map_err(|error| trouble(&error))?;
    let now = sending.queue.clock().now();
    let mut again: Option<u64> = None;
    let mut changed = Vec::new();
    let mut emails = None;
    for (id, object) in state.objects(ObjectKind::EMAIL_SUBMISSION) {
        if ids.is_some_and(|ids| !ids.iter().any(|wanted| wanted.as_str() == id)) {
            continue;
        }
        let Some(before) = Record::decode(object) else { continue };
        let mut record = before.clone();
        if !record.is_settled() {
            ask_queue(sending, &mut record, now).await?;
            if !record.is_settled() {
                let next = next_look(&record, now, sending.rules.undo_margin_seconds);
                again = Some(again.map_or(next, |again| again.min(next)));
            }
        }
        if awaits_dsns(&record, now) {
            if emails.is_none() {
                emails = Some(account.refresh_view().await.map_err(|error| trouble(&error))?);
            }
            if let Some(view) = &emails {
                find_dsns(account, view, &mut record, seen).await.map_err(|error| trouble(&error))?;
            }
        }
        if record != before {
            changed.push(ObjectWrite::Replace {
                id: id.to_owned(),
                value: record.encode(),
                unchanged_since: Some(object.changed),
            });
        }
    }
    write(account, changed).await?;
    Ok(again)
}

async fn ask_queue(sending: &Sending, record: &mut Record, now: u64) -> Result<(), MethodError> {
    let followed = sending.queue.follow(record.queue_id, record.shard(), record.send_at).await;
    let followed = followed.map_err(|error| {
        tracing::warn!(queue_id = %record.queue_id, %error, "submission not followed");
        MethodError::ServerUnavailable
    })?;
    let Some(told) = Told::of(record, &followed, now, &sending.rules) else { return Ok(()) };
    record.canceled |= told.undo == Undo::Canceled;
    // As long as all is as it was at first, there is nothing to write.
    if record.told.is_some() || told != Told::at_first(record) {
        record.told = Some(told);
    }
    Ok(())
}

/// What is held changes when its time comes; what waits for other hosts changes the more seldom the longer it has waited.
fn next_look(record: &Record, now: u64, margin: u64) -> u64 {
    let final_at = record.send_at.saturating_sub(margin);
    if record.held && now < final_at {
        return final_at - now;
    }
    (now.saturating_sub(record.send_at) / 8).min(60)
}

/// RFC 8621 §7 `dsnBlobIds`: there are some only of what failed, and of what the sender wanted to hear of.
fn awaits_dsns(record: &Record, now: u64) -> bool {
    let failed = record.told.as_ref().is_some_and(Told::has_failed);
    !record.canceled
        && (failed || record.asks_for_reports())
        && record.dsns.len() < DSNS_MAX
        && (record.send_at..record.send_at.saturating_add(DSN_SECONDS)).contains(&now)
}

/// The DSNs that answer the email that was sent, by its Message-ID. Hosts that do not name it in In-Reply-To, as RFC 3464
/// leaves them free to, are not found; and where one email was sent several times, they are of all of these.
async fn find_dsns(
    account: &Account,
    view: &EmailView,
    record: &mut Record,
    seen: &mut Seen,
) -> Result<(), StorageError> {
    let Some(sent) = account.email(record.email()).await? else { return Ok(()) };
    let Some(message_id) = sent.summary()?.message_id else { return Ok(()) };
    let candidates: Vec<EmailId> = view
        .received_last()
        .take(EMAILS_MAX)
        .filter(|id| *id > record.email() && !seen.others.contains(id) && !record.dsns.contains(&id.0))
        .collect();
    let mut found = Vec::new();
    for id in candidates {
        let Some(email) = account.email(id).await? else { continue };
        if !is_dsn(&email.structure()?) {
            seen.others.insert(id);
            continue;
        }
        if email
            .summary()?
            .in_reply_to
            .is_some_and(|answered| names(answered.as_bytes(), message_id.as_bytes()))
        {
            found.push(id.0);
        }
    }
    // The last ones were looked at first.
    found.reverse();
    record.dsns.extend(found);
    record.dsns.truncate(DSNS_MAX);
    Ok(())
}

/// RFC 3464 §2: a multipart/report whose report-type is delivery-status.
fn is_dsn(part: &Part) -> bool {
    part.media.as_ref().is_some_and(|media| media.is("multipart", "report"))
        && part.parameters.iter().any(|parameter| {
            parameter.name.eq_ignore_ascii_case("report-type")
                && parameter.value.eq_ignore_ascii_case("delivery-status")
        })
}

fn names(field: &[u8], message_id: &[u8]) -> bool {
    !message_id.is_empty() && field.windows(message_id.len()).any(|piece| piece == message_id)
}

async fn write(account: &Account, changed: Vec<ObjectWrite>) -> Result<(), MethodError> {
    let mut changed = changed.into_iter();
    loop {
        let some: Vec<ObjectWrite> = changed.by_ref().take(WRITTEN_AT_ONCE).collect();
        if some.is_empty() {
            return Ok(());
        }
        let written = account.write_objects(ObjectKind::EMAIL_SUBMISSION, some, None).await;
        let written = written.map_err(|error| match error {
            WriteObjectsError::Storage(error) => trouble(&error),
            WriteObjectsError::StateMismatch | WriteObjectsError::TooLarge => {
                MethodError::ServerFail(error.to_string())
            }
        })?;
        for error in written.results.into_iter().filter_map(Result::err) {
            // Somebody else has looked meanwhile, or it is gone: what is so now is in the account.
            if !matches!(error, ObjectError::Changed | ObjectError::Missing) {
                tracing::warn!(%error, "what became of a submission is not written down");
            }
        }
    }
}
