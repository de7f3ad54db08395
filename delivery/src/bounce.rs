//! Telling senders: a notification (RFC 3464) is a new message with the null reverse-path, in the queue like any other.
//! Its id is a function of message and target, so that there is one however often it is written.

use bytes::Bytes;
use directory::Resolution;
use futures_util::StreamExt;
use mail::address::{Address, ReversePath};
use mail::date::SentDate;
use mail::dsn::{Action, Notification, RecipientReport, Returned, Status};
use mail::envelope::{BodyType, Envelope, Notify, Recipient, Ret};
use mail::id::AccountId;
use queue::entry::Change;
use queue::item::{Destination, Failure, MessageDetails, Target};
use queue::{Body, Claimed, Event, News as QueueNews, Origin, Resolved, Submission, WorkError};
use uuid::Uuid;

use crate::agent::{Inner, Trouble};
use crate::place::{LazyFacts, expired, reverse_path};

/// What is told about one target.
#[derive(Clone, Copy)]
pub(crate) struct News<'a> {
    pub(crate) number: u32,
    pub(crate) target: &'a Target,
    pub(crate) action: Action,
    pub(crate) failure: &'a Failure,
}

/// Who hears of a target's failure. `None`: nobody can.
pub(crate) fn addressee(claimed: &Claimed, target: &Target) -> Option<Address> {
    reverse_path(claimed, target).0
}

/// Tells of a failure, once. `false`: nobody is to be told.
pub(crate) async fn notify(
    agent: &Inner,
    claimed: &Claimed,
    details: &MessageDetails,
    facts: &LazyFacts,
    news: News<'_>,
) -> Result<bool, Trouble> {
    let News { number, target, action, failure } = news;
    let Some(to) = addressee(claimed, target) else { return Ok(false) };
    let recipient = details
        .recipients
        .get(target.recipient as usize)
        .ok_or(WorkError::Misused("a target has no recipient"))?;
    // The owner of a list always hears of it: the members' sender did not ask for anything (RFC 3461 §5.2.7.3).
    if action == Action::Failed && target.owner.is_none() && !recipient.notify.on_failure() {
        return Ok(false);
    }
    let tried = match &target.to {
        Destination::Remote { address, .. } | Destination::Unreachable { address: Some(address), .. } => {
            address
        }
        _ => &recipient.address,
    };
    let orcpt = recipient.orcpt.as_deref();
    let report = Report {
        to,
        tried,
        orcpt,
        action,
        failure,
        prefix: &details.prefix,
        remote_mta: None,
        last_attempt: None,
        retry_until: None,
        note: None,
    };
    write(agent, claimed, facts, number, report).await?;
    Ok(true)
}

/// Tells of a delivery, where the sender asked for that (RFC 3461 §4.1).
pub(crate) async fn success(
    agent: &Inner,
    claimed: &Claimed,
    details: &MessageDetails,
    facts: &LazyFacts,
    number: u32,
    target: &Target,
) -> Result<(), Trouble> {
    let wanted = details.recipients.get(target.recipient as usize).is_some_and(|r| r.notify.on_success());
    if !wanted || target.owner.is_some() {
        return Ok(());
    }
    let failure = Failure { status: "2.0.0".to_owned(), text: String::new() };
    let news = News { number, target, action: Action::Delivered, failure: &failure };
    notify(agent, claimed, details, facts, news).await?;
    Ok(())
}

/// Tells the news about the recipients of an outbound item. What was told is committed once for all of them.
pub(crate) async fn remote(agent: &Inner, claimed: &Claimed) -> Result<Vec<(u32, Change)>, Trouble> {
    let details = agent.queue.details(claimed).await?;
    let facts = LazyFacts::default();
    let mut told = Vec::new();
    for news in agent.queue.news(claimed) {
        if let Some(to) = claimed.message().sender.reverse_path.0.clone() {
            tell_remote(agent, claimed, &details, &facts, &news, to).await?;
        }
        told.push(news.told());
    }
    Ok(told)
}

/// Tells one of them, unless nobody wants to hear of it.
async fn tell_remote(
    agent: &Inner,
    claimed: &Claimed,
    details: &MessageDetails,
    facts: &LazyFacts,
    news: &QueueNews,
    to: Address,
) -> Result<(), Trouble> {
    let QueueNews { recipient, event, .. } = news;
    let message = claimed.message();
    let last = recipient.last.as_ref();
    let said = last.map(|said| said.reply.as_str()).unwrap_or_default();
    let heard = |status: &str| Failure::new(status, said);
    let (action, failure, wanted) = match event {
        Event::Failed(failure) => (Action::Failed, failure.clone(), recipient.recipient.notify.on_failure()),
        Event::Expired if said.is_empty() => {
            (Action::Failed, expired(), recipient.recipient.notify.on_failure())
        }
        Event::Expired => (Action::Failed, heard("4.4.7"), recipient.recipient.notify.on_failure()),
        Event::Late => (Action::Failed, late(said), recipient.recipient.notify.on_failure()),
        Event::Delayed => (Action::Delayed, heard("4.0.0"), recipient.recipient.notify.on_delay()),
        // Where nobody wants to hear of it, the queue knows of no news.
        Event::Relayed => (Action::Relayed, heard("2.0.0"), true),
    };
    if !wanted {
        return Ok(());
    }
    let doubted = recipient.doubts > 0 && action != Action::Relayed;
    let note = match event {
        Event::Expired => Some(format!(
            "It was tried for {} and is not tried any more.{}",
            span(agent.queue.clock().now().saturating_sub(message.accepted)),
            if doubted { DOUBT } else { "" }
        )),
        Event::Late => Some(format!("{LATE}{}", if doubted { DOUBT } else { "" })),
        _ if doubted => Some(DOUBT.trim_start().to_owned()),
        _ => None,
    };
    let report = Report {
        to,
        tried: &recipient.recipient.address,
        orcpt: recipient.recipient.orcpt.as_deref(),
        action,
        failure: &failure,
        prefix: &details.prefix,
        remote_mta: last.and_then(|said| said.host.as_deref()),
        last_attempt: last.map(|said| said.at),
        retry_until: (action == Action::Delayed).then_some(message.expires),
        note: note.as_deref(),
    };
    write(agent, claimed, facts, news.part(), report).await
}

/// What was heard last of a message that is late (RFC 2852 §4.1).
fn late(said: &str) -> Failure {
    Failure::new("5.4.7", if said.is_empty() { "the time is over that its sender had set" } else { said })
}

const LATE: &str = "It was to be returned if it could not be delivered in the time that you had set.";

/// Where nobody knows, the sender should know that.
const DOUBT: &str = " An attempt ended before it was known whether the other host had taken the message, so that it may \
                     have come through all the same.";

/// A time in words.
fn span(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

struct Report<'a> {
    to: Address,
    tried: &'a Address,
    orcpt: Option<&'a str>,
    action: Action,
    failure: &'a Failure,
    prefix: &'a [u8],
    /// The other host, if there was one.
    remote_mta: Option<&'a str>,
    /// When it was last tried, if not just now (unix seconds).
    last_attempt: Option<u64>,
    /// Until when it will be tried.
    retry_until: Option<u64>,
    note: Option<&'a str>,
}

/// The copy of a notification for whoever looks after the server is told under a number of its own.
const COPY_PART: u32 = 1 << 30;

/// Writes a notification, and the copy of one about a failure.
async fn write(
    agent: &Inner,
    claimed: &Claimed,
    facts: &LazyFacts,
    number: u32,
    report: Report<'_>,
) -> Result<(), Trouble> {
    write_one(agent, claimed, facts, number, &report).await?;
    let copy = Address::parse(&agent.config.failure_copies_to).ok();
    match copy.filter(|copy| report.action == Action::Failed && copy.key() != report.to.key()) {
        Some(to) => write_one(agent, claimed, facts, number | COPY_PART, &Report { to, ..report }).await,
        None => Ok(()),
    }
}

async fn write_one(
    agent: &Inner,
    claimed: &Claimed,
    facts: &LazyFacts,
    number: u32,
    report: &Report<'_>,
) -> Result<(), Trouble> {
    if agent.queue.was_notified(claimed, number) {
        return Ok(());
    }
    let resolved = match agent.directory.resolve(&report.to).await? {
        Resolution::Account(route) => Resolved::Account { id: route.account, detail: route.detail },
        Resolution::NotLocal => Resolved::Remote,
        _ => Resolved::Later,
    };
    let (body, returned) = body(agent, claimed, facts, number, report).await?;
    let mut envelope = Envelope::new(ReversePath::NULL);
    envelope.recipients.push(Recipient { notify: Notify::NEVER, ..Recipient::new(report.to.clone()) });
    envelope.smtputf8 = returned.smtputf8 || report.to.needs_smtputf8();
    if returned.eight_bit || envelope.smtputf8 {
        envelope.body = BodyType::EightBitMime;
    }
    let origin =
        Origin { session_id: format!("notification-{}", claimed.message().queue_id), ..Origin::default() };
    let resolved = vec![resolved];
    let submission = Submission { envelope, resolved, body, prefix: Bytes::new(), origin };
    let committed = agent.queue.submit_notification(claimed, number, submission).await;
    let committed = committed.map_err(WorkError::from)?;
    metrics::counter!("postrider_delivery_notifications_total").increment(1);
    tracing::info!(
        queue_id = %claimed.message().queue_id,
        notification = %committed.queue_id(),
        action = report.action.keyword(),
        status = report.failure.status,
        "sender notified"
    );
    Ok(())
}

/// Writes the notification: its text, and between its two halves what is returned of the original.
async fn body(
    agent: &Inner,
    claimed: &Claimed,
    facts: &LazyFacts,
    number: u32,
    report: &Report<'_>,
) -> Result<(Body, Returned), Trouble> {
    let message = claimed.message();
    let config = &agent.config;
    // A body that cannot be read must not keep its sender from hearing of it.
    let facts = facts.get(agent, claimed).await.ok();
    let header = facts.as_ref().map_or(0, |facts| facts.header_len.min(config.returned_header_bytes_max));
    let whole = report.action == Action::Failed
        && message.sender.ret == Some(Ret::Full)
        && message.sender.body != BodyType::BinaryMime
        && facts.is_some()
        && message.body.size <= config.returned_message_bytes_max;
    let end = if whole { message.body.size } else { header };
    let mut original = vec![Bytes::copy_from_slice(report.prefix)];
    if let Some(reader) = (end > 0).then(|| agent.queue.blobs().open(&message.body, message.body.key))
        && let Ok(reader) = reader.await
    {
        let mut pieces = reader.read_range(0..end);
        while let Some(Ok(piece)) = pieces.next().await {
            original.push(piece);
        }
    }
    let eight_bit = original.iter().any(|piece| !piece.is_ascii());
    let returned = Returned { whole, eight_bit, smtputf8: message.sender.smtputf8 };
    let mut writer = agent.queue.notification_writer(claimed, number).await.map_err(WorkError::from)?;
    let id = writer.queue_id();
    let now = SentDate::utc(agent.queue.clock().now() as i64);
    let message_id = format!("{id}@{}", config.hostname);
    let boundary = Uuid::new_v4().as_simple().to_string();
    let received_from = None;
    let notification = Notification {
        reporting_mta: &config.hostname,
        to: &report.to,
        message_id: &message_id,
        date: now,
        arrival: Some(SentDate::utc(message.accepted as i64)),
        received_from,
        envid: message.sender.envid.as_deref(),
        original_message_id: facts.as_ref().and_then(|facts| facts.message_id.as_deref()),
        recipients: vec![RecipientReport {
            recipient: report.tried,
            original: report.orcpt,
            action: report.action,
            status: status(&report.failure.status),
            remote_mta: report.remote_mta,
            diagnostic: (!report.failure.text.is_empty()).then_some(report.failure.text.as_str()),
            last_attempt: Some(report.last_attempt.map_or(now, |at| SentDate::utc(at as i64))),
            retry_until: report.retry_until.map(|at| SentDate::utc(at as i64)),
            note: report.note,
        }],
        returned,
        boundary: &boundary,
    };
    let text = notification.write();
    let pieces = std::iter::once(text.before.into()).chain(original).chain([text.after.into()]);
    for piece in pieces {
        writer.write(piece).await.map_err(WorkError::from)?;
    }
    Ok((writer.finish().await.map_err(WorkError::from)?, returned))
}

/// The numbers of a status; a text that is none becomes the general failure.
fn status(text: &str) -> Status {
    let mut numbers = text.split('.').map(str::parse::<u16>);
    match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(class @ (2 | 4 | 5))), Some(Ok(subject)), Some(Ok(detail)), None) => {
            Status(class as u8, subject, detail)
        }
        _ => Status(5, 0, 0),
    }
}

/// The account that an address belongs to, as far as a target says.
pub(crate) fn account_of(target: &Target) -> Option<AccountId> {
    match target.to {
        Destination::Local { account, .. } => Some(account),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_rfc3463() {
        let check = |text: &str, expected: &str| assert_eq!(status(text).to_string(), expected, "{text}");
        check("5.2.2", "5.2.2");
        check("4.4.7", "4.4.7");
        check("2.0.0", "2.0.0");
        check("5.2", "5.0.0");
        check("9.1.1", "5.0.0");
        check("5.1.x", "5.0.0");
        check("", "5.0.0");
    }

    #[test]
    fn spans_in_words() {
        let check = |seconds: u64, expected: &str| assert_eq!(span(seconds), expected);
        check(1, "1 second");
        check(119, "119 seconds");
        check(120, "2 minutes");
        check(86_400, "24 hours");
        check(432_000, "5 days");
    }
}
