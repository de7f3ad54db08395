//! What is next for an outbound item. Pure.

use mail::address::Domain;
use mail::envelope::{ByMode, DeliverBy, Notify, Recipient};
use tokio::time::Instant;
use uuid::Uuid;

use crate::entry::Change;
use crate::item::{Item, Message, Progress, RemoteRecipient, RemoteState, Sending};
use crate::outbound::PassedOn;

/// What is next for an outbound item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// Somebody is to be told something.
    Tell,
    /// Somebody tries, or did when they crashed: the latest attempt, and the longest time that one has.
    Watch { attempt: u32, seconds: u32 },
    /// It is to be tried then.
    Try { due: u64 },
    /// An operator keeps back what is left of it.
    Held,
    /// Nothing is left.
    Nothing,
}

/// The recipients of an outbound item.
pub(crate) fn recipients(item: &Item) -> &[RemoteRecipient] {
    match &item.progress {
        Progress::Sending(sending) => &sending.recipients,
        _ => &[],
    }
}

/// The leases in an item: attempt, process, and the time that it has.
pub(crate) fn leases(item: &Item) -> impl Iterator<Item = (u32, Uuid, u32)> {
    recipients(item).iter().filter_map(|recipient| match recipient.state {
        RemoteState::Leased { attempt, boot, seconds } => Some((attempt, boot, seconds)),
        _ => None,
    })
}

/// The domain that an outbound item goes to.
pub(crate) fn domain(item: &Item) -> Option<&Domain> {
    recipients(item).first().map(|first| first.recipient.address.domain())
}

/// How long things may take for the domain of an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Times {
    /// Its sender hears of a delay after so many seconds; zero: never.
    pub(crate) delay: u64,
    /// The longest wait between two attempts, in seconds, see [`Waits::longest`](crate::schedule::Waits::longest).
    pub(crate) longest: u64,
    /// Whether what has expired may be given up now. Until then it is tried as what has not.
    pub(crate) may_expire: bool,
}

/// What is next for an item at `now`.
pub(crate) fn next(item: &Item, times: Times, now: u64) -> Next {
    let recipients = recipients(item);
    let delayed = |recipient: &RemoteRecipient| is_delayed(&item.message, recipient, times.delay, now);
    if recipients.iter().any(|recipient| recipient.state.owes() || delayed(recipient)) {
        return Next::Tell;
    }
    if let Some(attempt) = leases(item).map(|(attempt, ..)| attempt).max() {
        let seconds = leases(item).map(|(_, _, seconds)| seconds).max().unwrap_or(0);
        return Next::Watch { attempt, seconds };
    }
    let waiting = recipients.iter().filter(|recipient| recipient.state.is_waiting());
    let due_one = |recipient| due_one(&item.message, recipient, not_before(recipient, times.longest, now));
    if let Some(due) = waiting.map(due_one).min() {
        // What has expired is not left waiting for a later attempt.
        let end = item.message.expires;
        return Next::Try { due: if times.may_expire || end > now { due.min(end) } else { due } };
    }
    if recipients.iter().any(|recipient| recipient.state == RemoteState::Held) {
        Next::Held
    } else {
        Next::Nothing
    }
}

/// Whether the sender is to hear now that a recipient takes longer: once, after an attempt has failed and enough time has
/// passed (RFC 3461 §4.1), or when the time has passed that the sender set.
pub(crate) fn is_delayed(
    message: &Message,
    recipient: &RemoteRecipient,
    delay_seconds: u64,
    now: u64,
) -> bool {
    let tried = recipient.deferrals > 0 || recipient.doubts > 0;
    let slow = delay_seconds > 0 && now >= message.accepted.saturating_add(delay_seconds);
    let late = late_at(message, recipient).is_some_and(|at| at <= now);
    hears_of_delay(message, recipient) && (late || (slow && tried))
}

/// When the sender hears of a delay whatever attempts there were: `BY=…;N` (RFC 2852 §4.1.4).
fn late_at(message: &Message, recipient: &RemoteRecipient) -> Option<u64> {
    let by = deliver_by(message)?;
    (by.mode == ByMode::Notify && hears_of_delay(message, recipient)).then_some(by.until)
}

fn hears_of_delay(message: &Message, recipient: &RemoteRecipient) -> bool {
    recipient.state.is_waiting()
        && !recipient.delay_told
        && !message.sender.reverse_path.is_null()
        && recipient.recipient.notify.on_delay()
}

/// Whether the sender is to hear from us that another host has taken a message: where they asked for news of success
/// and the host sends none (RFC 3461 §5.2.2), where they set a time that the host does not know of, and where they want
/// to see the way (RFC 2852 §4.2).
pub(crate) fn is_owed(message: &Message, recipient: &Recipient, passed_on: PassedOn) -> bool {
    let by = deliver_by(message).filter(|_| recipient.notify != Notify::NEVER);
    let untold = |by: DeliverBy| by.trace || (by.mode == ByMode::Notify && !passed_on.deliver_by);
    (recipient.notify.on_success() && !passed_on.dsn) || by.is_some_and(untold)
}

/// Whether the sender wants to hear of the end that a recipient came to. That another host has taken it is told where
/// it is owed, see [`is_owed`].
pub(crate) fn wants_end(recipient: &RemoteRecipient) -> bool {
    recipient.state == RemoteState::Relayed || recipient.recipient.notify.on_failure()
}

/// By when the sender wants it delivered.
fn deliver_by(message: &Message) -> Option<DeliverBy> {
    message.details.notes().and_then(|notes| notes.deliver_by)
}

/// Whether a message that has expired did because of the time that its sender had set.
pub(crate) fn is_late(message: &Message) -> bool {
    deliver_by(message).is_some_and(|by| by.mode == ByMode::Return && by.until <= message.expires)
}

/// When a recipient that waits may be tried. Nobody waits longer than the longest wait: what seems to was put off while the
/// clock was ahead, and would wait until the right time is where the wrong one was.
pub(crate) fn not_before(recipient: &RemoteRecipient, longest: u64, now: u64) -> u64 {
    if recipient.not_before > now.saturating_add(longest) { 0 } else { recipient.not_before }
}

/// When something is to be done about a recipient that waits.
fn due_one(message: &Message, recipient: &RemoteRecipient, not_before: u64) -> u64 {
    not_before.min(late_at(message, recipient).unwrap_or(u64::MAX))
}

/// When an item is due whose recipients are these. Never later than it expires, unless it has.
pub(crate) fn due_of(sending: &Sending, item: &Item) -> u64 {
    let due = sending.recipients.iter().map(|recipient| match &recipient.state {
        state if state.is_waiting() => due_one(&item.message, recipient, recipient.not_before),
        state if state.owes() => item.due,
        RemoteState::Leased { .. } => item.due,
        _ => u64::MAX,
    });
    due.min().unwrap_or(u64::MAX).min(item.message.expires.max(item.due))
}

/// What an expired item's waiting recipients become. Nothing expires under a lease, or while an operator keeps it.
pub(crate) fn expired(item: &Item) -> Vec<(u32, Change)> {
    // Model queue: Rule::NoExpiryUnderLease.
    changed(item, |state| state.is_waiting(), &Change::Expired)
}

/// The same change for all recipients in certain states.
pub(crate) fn changed(
    item: &Item,
    which: impl Fn(&RemoteState) -> bool,
    change: &Change,
) -> Vec<(u32, Change)> {
    (0..)
        .zip(recipients(item))
        .filter(|(_, recipient)| which(&recipient.state))
        .map(|(index, _)| (index, change.clone()))
        .collect()
}

/// What a lapsed lease leaves: every recipient that the attempt held is in doubt.
pub(crate) fn lapsed(item: &Item, attempt: u32, now: u64) -> Vec<(u32, Change)> {
    let held =
        |state: &RemoteState| matches!(state, RemoteState::Leased { attempt: now, .. } if *now <= attempt);
    (0..)
        .zip(recipients(item))
        .filter(|(_, recipient)| held(&recipient.state))
        .filter_map(|(index, recipient)| match recipient.state {
            RemoteState::Leased { attempt, .. } => {
                // Model queue: Rule::DoubtCounted.
                Some((index, Change::Doubted { attempt, said: None, not_before: now }))
            }
            _ => None,
        })
        .collect()
}

/// When a lease will have had its full time, for whoever sees it first at `now`.
pub(crate) fn lapses(now: Instant, seconds: u32) -> Instant {
    now + std::time::Duration::from_secs(u64::from(seconds))
}

#[cfg(test)]
mod tests {
    use mail::address::ReversePath;

    use super::*;
    use crate::fold::tests::item as ingest_item;
    use crate::item::{Details, MessageDetails, Notes, OutboundRecipient};

    /// An item accepted at 1 000, which expires at 101 000.
    fn item(by: Option<DeliverBy>, states: &[(RemoteState, u64)]) -> Item {
        let mut item = ingest_item(1);
        let message = std::sync::Arc::make_mut(&mut item.message);
        let address = mail::address::Address::parse("alice@example.test").unwrap();
        message.sender.reverse_path = ReversePath(Some(address));
        let notes = Notes { deliver_by: by, ..Notes::default() };
        message.details = Details::Here(MessageDetails::default()).noted(notes);
        let recipients = states.iter().map(|(state, not_before)| {
            let address = mail::address::Address::parse("bob@example.org").unwrap();
            let recipient = mail::envelope::Recipient::new(address);
            let pending = OutboundRecipient { target: 0, recipient, state: RemoteState::Pending };
            RemoteRecipient { state: state.clone(), not_before: *not_before, ..pending.into() }
        });
        item.progress = Progress::Sending(Sending { route: None, recipients: recipients.collect() });
        item
    }

    fn leased(attempt: u32, seconds: u32) -> RemoteState {
        RemoteState::Leased { attempt, boot: Uuid::nil(), seconds }
    }

    #[test]
    fn next_is_what_matters_most() {
        let check = |states: &[(RemoteState, u64)], expected: Next| {
            let times = Times { delay: 0, longest: 86_400, may_expire: true };
            assert_eq!(next(&item(None, states), times, 2_000), expected, "{states:?}");
        };
        let pending = |not_before| (RemoteState::Pending, not_before);
        check(&[pending(5_000), pending(3_000)], Next::Try { due: 3_000 });
        check(&[pending(88_400)], Next::Try { due: 88_400 });
        // Put off by a clock that was ahead.
        check(&[pending(88_401)], Next::Try { due: 0 });
        check(&[pending(0), (leased(4, 9), 0), (leased(5, 3), 0)], Next::Watch { attempt: 5, seconds: 9 });
        check(&[pending(0), (RemoteState::Relayed, 0)], Next::Tell);
        check(&[(RemoteState::Held, 0), (RemoteState::Delivered, 0)], Next::Held);
        check(&[(RemoteState::Held, 0), (RemoteState::InDoubt { attempt: 1 }, 7)], Next::Try { due: 7 });
        check(&[(RemoteState::Expired { settled: true }, 0)], Next::Nothing);
    }

    /// While the clock is in doubt, what has expired keeps its waits.
    #[test]
    fn what_may_not_expire_waits_as_before() {
        let item = item(None, &[(RemoteState::Pending, 101_500)]);
        let next_at = |may_expire, now| next(&item, Times { delay: 0, longest: 86_400, may_expire }, now);
        assert_eq!(next_at(true, 101_200), Next::Try { due: 101_000 });
        assert_eq!(next_at(false, 101_200), Next::Try { due: 101_500 });
        assert_eq!(next_at(false, 100_900), Next::Try { due: 101_000 });
    }

    #[test]
    fn delays_are_told_when_they_are_due() {
        let by = Some(DeliverBy { until: 9_000, mode: ByMode::Notify, trace: false });
        let check = |by, deferrals, delay_told, now, expected: Next| {
            let mut item = item(by, &[(RemoteState::Pending, 50_000)]);
            if let Progress::Sending(sending) = &mut item.progress {
                sending.recipients[0].deferrals = deferrals;
                sending.recipients[0].delay_told = delay_told;
            }
            let times = Times { delay: 3_600, longest: 86_400, may_expire: true };
            assert_eq!(next(&item, times, now), expected, "{by:?} {deferrals} {delay_told} {now}");
        };
        check(None, 1, false, 4_599, Next::Try { due: 50_000 });
        check(None, 1, false, 4_600, Next::Tell);
        check(None, 1, true, 4_600, Next::Try { due: 50_000 });
        // Without an attempt nothing is known of a delay, but what the sender set a time for.
        check(None, 0, false, 4_600, Next::Try { due: 50_000 });
        check(by, 0, false, 4_600, Next::Try { due: 9_000 });
        check(by, 0, false, 9_000, Next::Tell);
        check(by, 0, true, 9_000, Next::Try { due: 50_000 });
    }

    /// RFC 3461 §5.2.2 and RFC 2852 §4.2.
    #[test]
    fn what_is_owed_when_another_host_has_taken_it() {
        let none = PassedOn::default();
        let check = |by: Option<(ByMode, bool)>, notify: Notify, passed_on: PassedOn, expected: bool| {
            let by = by.map(|(mode, trace)| DeliverBy { until: 9_000, mode, trace });
            let item = item(by, &[]);
            let address = mail::address::Address::parse("bob@example.org").unwrap();
            let recipient = Recipient { notify, ..Recipient::new(address) };
            assert_eq!(
                is_owed(&item.message, &recipient, passed_on),
                expected,
                "{by:?} {notify:?} {passed_on:?}"
            );
        };
        check(None, Notify::UNSPECIFIED, none, false);
        check(None, Notify::SUCCESS, none, true);
        check(None, Notify::SUCCESS, PassedOn::ALL, false);
        check(Some((ByMode::Notify, false)), Notify::UNSPECIFIED, none, true);
        check(Some((ByMode::Notify, false)), Notify::NEVER, none, false);
        check(Some((ByMode::Notify, false)), Notify::UNSPECIFIED, PassedOn::ALL, false);
        check(Some((ByMode::Return, false)), Notify::UNSPECIFIED, PassedOn::ALL, false);
        check(Some((ByMode::Return, true)), Notify::UNSPECIFIED, PassedOn::ALL, true);
        check(Some((ByMode::Notify, true)), Notify::NEVER, PassedOn::ALL, false);
    }

    /// An item lies in the chunk of the hour in which something is next to be done about it.
    #[test]
    fn items_are_due_when_something_is_to_be_done() {
        let check = |states: &[(RemoteState, u64)], expected: u64| {
            let item = Item { due: 2_000, ..item(None, states) };
            let Progress::Sending(sending) = &item.progress else { unreachable!() };
            assert_eq!(due_of(sending, &item), expected, "{states:?}");
        };
        check(&[(RemoteState::Pending, 9_000), (RemoteState::Held, 0)], 9_000);
        check(&[(RemoteState::Pending, 9_000), (leased(1, 60), 0)], 2_000);
        check(&[(RemoteState::Pending, 9_000), (RemoteState::Relayed, 0)], 2_000);
        check(&[(RemoteState::Held, 0)], 101_000);
        check(&[(RemoteState::Pending, 900_000)], 101_000);
    }

    #[test]
    fn a_lapse_takes_what_the_attempt_held() {
        let item = item(None, &[(leased(4, 9), 0), (leased(6, 9), 0), (RemoteState::Pending, 0)]);
        assert_eq!(lapsed(&item, 5, 7), [(0, Change::Doubted { attempt: 4, said: None, not_before: 7 })]);
        assert_eq!(expired(&item), [(2, Change::Expired)]);
    }
}
