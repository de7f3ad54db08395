//! Vacation responses (RFC 8621 §8): what is sent to whoever writes to somebody who is away, by the rules of RFC 3834 and
//! RFC 5230 about whom not to answer.
//!
//! An answer is a kindness and no duty: it is sent once behind the delivery, and where something goes wrong it is not sent.
//! It has the null reverse-path, and is a message of the queue like a notification, whose id is derived from what it answers.

mod header;
mod reply;

use std::sync::Arc;

use bytes::Bytes;
use directory::Resolution;
use futures_util::StreamExt as _;
use jmap_protocol::object::vacation::{SINGLETON, Vacation};
use mail::address::{Address, ReversePath};
use mail::date::SentDate;
use mail::envelope::{BodyType, Envelope, Notify, Recipient};
use mail::mime::Facts;
use queue::item::Target;
use queue::{Claimed, Origin, Resolved, Submission, WorkError};
use storage::{Account, ObjectKind, ObjectWrite, WriteObjectsError};
use uuid::Uuid;

use crate::agent::{Inner, Trouble};
use crate::place::reverse_path;
use header::Header;
use reply::Reply;

/// The answer to a message is told under a number of its own, beside notifications about it.
const PART: u32 = 1 << 29;
/// The only object of its kind.
const ANSWERED: &str = "answered";
/// Senders that are remembered to have an answer. Of more, those answered first are forgotten.
const ANSWERED_MAX: usize = 1_000;
/// Octets of a header that are looked at. In what comes behind them nobody says that a message is automatic.
const HEADER_BYTES_MAX: u64 = 256 << 10;
/// How often it is tried to write down who has an answer.
const TRIES: usize = 3;

/// Answers a message that has just come, where its recipient is away and its sender is to know.
pub(crate) async fn answer(
    agent: &Inner,
    claimed: &Claimed,
    facts: &Arc<Facts>,
    target: (u32, &Target),
    recipient: &Address,
    account: &Account,
) {
    let now = agent.queue.clock().now();
    let Some(vacation) = read(account, now) else { return };
    match answer_to(agent, claimed, facts, target, recipient, account, &vacation).await {
        Ok(true) => metrics::counter!("postrider_delivery_vacations_total").increment(1),
        Ok(false) => {}
        Err(trouble) => {
            tracing::warn!(queue_id = %claimed.message().queue_id, %trouble, "vacation response not sent");
        }
    }
}

/// The vacation response, if the account is on vacation.
fn read(account: &Account, now: u64) -> Option<Vacation> {
    let state = account.state();
    let object = state.object(ObjectKind::VACATION_RESPONSE, SINGLETON)?;
    let vacation = Vacation::decode(&object.value);
    let vacation = vacation.inspect_err(|error| tracing::error!(%error, "vacation response cannot be read"));
    vacation.ok().filter(|vacation| vacation.is_on(now.cast_signed()))
}

async fn answer_to(
    agent: &Inner,
    claimed: &Claimed,
    facts: &Arc<Facts>,
    (number, target): (u32, &Target),
    recipient: &Address,
    account: &Account,
    vacation: &Vacation,
) -> Result<bool, Trouble> {
    // What came through a list was not written to its members (RFC 3834 §2).
    let ReversePath(Some(to)) = reverse_path(claimed, target) else { return Ok(false) };
    if target.owner.is_some() || to.key() == recipient.key() || header::is_of_a_program(&to) {
        return Ok(false);
    }
    let header = read_header(agent, claimed, facts).await?;
    if !header.is_written_to(recipient) || header.is_automatic() {
        return Ok(false);
    }
    let part = number | PART;
    if agent.queue.was_notified(claimed, part) || !may_answer(agent, account, &to).await? {
        return Ok(false);
    }
    let now = agent.queue.clock().now();
    let mut writer = agent.queue.notification_writer(claimed, part).await.map_err(WorkError::from)?;
    let text = Reply {
        from: recipient,
        to: &to,
        message_id: &format!("{}@{}", writer.queue_id(), agent.config.hostname),
        date: SentDate::utc(now.cast_signed()),
        answered: facts,
        vacation,
        boundary: &Uuid::new_v4().as_simple().to_string(),
    }
    .write();
    writer.write(text.into()).await.map_err(WorkError::from)?;
    let body = writer.finish().await.map_err(WorkError::from)?;
    let resolved = match agent.directory.resolve(&to).await? {
        Resolution::Account(route) => Resolved::Account { id: route.account, detail: route.detail },
        Resolution::NotLocal => Resolved::Remote,
        _ => Resolved::Later,
    };
    // RFC 3834 §3.3: nobody is told when the answer cannot be delivered.
    let mut envelope = Envelope::new(ReversePath::NULL);
    envelope.smtputf8 = to.needs_smtputf8() || recipient.needs_smtputf8();
    if envelope.smtputf8 {
        envelope.body = BodyType::EightBitMime;
    }
    envelope.recipients.push(Recipient { notify: Notify::NEVER, ..Recipient::new(to) });
    let origin =
        Origin { session_id: format!("vacation-{}", claimed.message().queue_id), ..Origin::default() };
    let submission = Submission { envelope, resolved: vec![resolved], body, prefix: Bytes::new(), origin };
    let committed = agent.queue.submit_notification(claimed, part, submission).await;
    let committed = committed.map_err(WorkError::from)?;
    tracing::info!(
        queue_id = %claimed.message().queue_id,
        answer = %committed.queue_id(),
        account_id = %account.id(),
        "vacation response sent"
    );
    Ok(true)
}

async fn read_header(agent: &Inner, claimed: &Claimed, facts: &Facts) -> Result<Header, Trouble> {
    let body = &claimed.message().body;
    let unread = |reason: String| Trouble::Unread { reason };
    let reader = agent.queue.blobs().open(body, body.key).await.map_err(|error| unread(error.to_string()))?;
    let mut header = Header::default();
    let mut fields = mail::header::Fields::default();
    let mut pieces = reader.read_range(0..facts.header_len.min(HEADER_BYTES_MAX));
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| unread(error.to_string()))?;
        fields.push(&piece, &mut |name, value| header.take(name, value));
    }
    fields.finish(&mut |name, value| header.take(name, value));
    Ok(header)
}

/// Whether this sender has had no answer for so long that there may be another one (RFC 5230 §4.2), which is then remembered
/// before it is sent.
async fn may_answer(agent: &Inner, account: &Account, to: &Address) -> Result<bool, Trouble> {
    let trouble = |reason: String| Trouble::Account { account: account.id(), reason };
    let now = u32::try_from(agent.queue.clock().now()).unwrap_or(u32::MAX);
    let pause = agent.config.vacation_pause_seconds;
    for _ in 0..TRIES {
        let state = account.state();
        let known = state.object(ObjectKind::VACATION_ANSWERED, ANSWERED);
        let before = known.map(|object| &object.value[..]).unwrap_or_default();
        let Some(value) = remembered(before, hash(&to.key()), now, pause) else { return Ok(false) };
        let (id, value) = (ANSWERED.to_owned(), Bytes::from(value));
        let write = match known {
            Some(object) => ObjectWrite::Replace { id, value, unchanged_since: Some(object.changed) },
            None => ObjectWrite::Create { id: Some(id), value },
        };
        match account.write_objects(ObjectKind::VACATION_ANSWERED, vec![write], None).await {
            Ok(written) if written.results.iter().all(Result::is_ok) => return Ok(true),
            // Another message was answered at the same time.
            Ok(_) => drop(account.refresh().await.map_err(|error| trouble(error.to_string()))?),
            Err(error @ WriteObjectsError::Storage(_)) => return Err(trouble(error.to_string())),
            Err(_) => return Ok(false),
        }
    }
    Ok(false)
}

/// Octets of one sender: a hash, and when there was an answer.
const ONE: usize = 12;

/// Who has an answer, with one more. `None`: that one has one already, which is not old enough.
fn remembered(before: &[u8], who: u64, now: u32, pause: u32) -> Option<Vec<u8>> {
    let mut known: Vec<(u64, u32)> = Vec::new();
    for one in before.chunks_exact(ONE) {
        let (hash, at) = one.split_at(8);
        known.push((
            u64::from_le_bytes(hash.try_into().expect("there are eight")),
            u32::from_le_bytes(at.try_into().expect("there are four")),
        ));
    }
    known.retain(|(_, at)| now < at.saturating_add(pause));
    if known.iter().any(|(hash, _)| *hash == who) {
        return None;
    }
    known.push((who, now));
    let excess = known.len().saturating_sub(ANSWERED_MAX);
    Some(known[excess..].iter().flat_map(|(hash, at)| [&hash.to_le_bytes()[..], &at.to_le_bytes()].concat()).collect())
}

/// FNV-1a: the same in every release.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_answered_once_in_a_while() {
        let first = remembered(&[], hash("a@x.test"), 1_000, 100).unwrap();
        assert_eq!(first.len(), ONE);
        assert_eq!(remembered(&first, hash("a@x.test"), 1_099, 100), None);
        let second = remembered(&first, hash("b@x.test"), 1_050, 100).unwrap();
        assert_eq!(second.len(), 2 * ONE);
        // The first is old enough, and is forgotten.
        assert_eq!(remembered(&second, hash("a@x.test"), 1_100, 100).unwrap().len(), 2 * ONE);
        let mut many = Vec::new();
        for number in 0..ANSWERED_MAX as u64 + 5 {
            many = remembered(&many, number, 1_000, 100).unwrap();
        }
        assert_eq!(many.len(), ANSWERED_MAX * ONE);
        assert_eq!(hash("a@x.test"), hash("a@x.test"));
    }
}
