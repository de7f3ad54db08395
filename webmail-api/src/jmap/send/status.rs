//! What became of a submission (RFC 8621 §7 `undoStatus`, `deliveryStatus`), put together from what the queue knows. Pure.

use std::collections::BTreeMap;

use mail::address::Address;
use queue::item::{Fate, Outcome, Said};
use queue::{Followed, ItemView, RecipientView, Standing};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::SendingRules;
use super::record::Record;

/// Seconds after it was to leave from which on a message that the queue does not know is one that never came there: its
/// submission was cut off behind the record.
const UNKNOWN_SECONDS: u64 = 600;
/// Different replies that are kept of one submission. What there is more of is told in other words.
const REPLIES_MAX: usize = 16;
/// Octets of a reply.
const REPLY_BYTES_MAX: usize = 200;

/// Whether a submission can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Undo {
    Pending,
    Final,
    Canceled,
}

impl Undo {
    /// `now` in unix seconds. Shortly before it is sent it counts as sent: nodes' clocks differ by so much.
    pub(crate) fn of(record: &Record, followed: &Followed, now: u64, rules: &SendingRules) -> Self {
        let sure = now.saturating_add(rules.undo_margin_seconds);
        if record.canceled || record.held && followed.is_withdrawn(record.send_at) {
            Self::Canceled
        } else if record.held && followed.is_held(sure) {
            Self::Pending
        } else {
            Self::Final
        }
    }

    /// What it is when the queue has just taken it.
    pub(crate) fn at_first(record: &Record, now: u64, rules: &SendingRules) -> Self {
        let sure = now.saturating_add(rules.undo_margin_seconds);
        if record.held && record.send_at > sure { Self::Pending } else { Self::Final }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Final => "final",
            Self::Canceled => "canceled",
        }
    }
}

/// What became of a submission, as it stands in the account since somebody last looked: so that it has a state, of which
/// clients are told when it changes, and so that it is still known when the queue has forgotten it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) undo: Undo,
    /// Nothing more happens to it in the queue.
    pub(crate) settled: bool,
    /// What is said of recipients, everything once.
    replies: Vec<Status>,
    /// For each recipient, in their order in the envelope, which of these.
    each: Vec<u8>,
}

impl Told {
    /// What the queue says now. `None`: nothing that is known to be so.
    pub(crate) fn of(record: &Record, followed: &Followed, now: u64, rules: &SendingRules) -> Option<Self> {
        if followed.ingest.is_none() && now < record.send_at.saturating_add(UNKNOWN_SECONDS) {
            return None;
        }
        let undo = Undo::of(record, followed, now, rules);
        let is_done = followed.ingest.iter().chain(&followed.outbound).all(is_finished);
        let known = known(followed);
        let is_open = followed.ingest.as_ref().is_some_and(|item| !is_finished(item));
        let status = |recipient: &str| {
            let found = Address::parse(recipient).ok().and_then(|address| known.get(&address.key()).cloned());
            match found {
                Some(status) => status,
                None if is_open => (Delivered::Queued, QUEUED.to_owned()),
                None => (Delivered::Unknown, "250 2.0.0 Accepted".to_owned()),
            }
        };
        let mut replies: Vec<Status> = Vec::new();
        let mut each = Vec::new();
        for recipient in record.recipients() {
            let (delivered, reply) = status(recipient);
            let mut status = (delivered, shortened(&reply));
            if replies.len() >= REPLIES_MAX && !replies.contains(&status) {
                delivered.in_general().clone_into(&mut status.1);
            }
            let at = replies.iter().position(|known| *known == status).unwrap_or_else(|| {
                replies.push(status);
                replies.len() - 1
            });
            // There are not more of them than general words besides.
            each.push(u8::try_from(at).unwrap_or(u8::MAX));
        }
        let waits = replies.iter().any(|(delivered, _)| *delivered == Delivered::Queued);
        let settled = undo == Undo::Canceled || undo == Undo::Final && is_done && !waits;
        Some(Self { undo, settled, replies, each })
    }

    /// What it is when the queue has just taken it, and nobody has begun with it.
    pub(crate) fn at_first(record: &Record) -> Self {
        let undo = if record.held { Undo::Pending } else { Undo::Final };
        let each = vec![0; record.to.len()];
        Self { undo, settled: false, replies: vec![(Delivered::Queued, QUEUED.to_owned())], each }
    }

    /// Octets that this may take in the record, so that there is room for it from the beginning.
    pub(crate) fn bytes_max(recipients: usize) -> usize {
        64 + (REPLIES_MAX + 4) * (REPLY_BYTES_MAX + 20) + 4 * recipients
    }

    /// Whether somebody could not be reached, as far as is known here.
    pub(crate) fn has_failed(&self) -> bool {
        self.replies.iter().any(|(delivered, _)| *delivered == Delivered::No)
    }

    /// `deliveryStatus`, by recipient.
    pub(crate) fn deliveries(&self, record: &Record) -> Value {
        // Nothing was sent, so there is nothing to tell about anybody.
        if self.undo == Undo::Canceled {
            return Value::Null;
        }
        let of = |at: &u8| self.replies.get(usize::from(*at));
        let each = record.recipients().zip(&self.each);
        let told = each.filter_map(|(recipient, at)| Some((recipient.to_owned(), shown(of(at)?))));
        Value::Object(told.collect())
    }
}

fn shown((delivered, reply): &Status) -> Value {
    json!({"smtpReply": reply, "delivered": delivered.as_str(), "displayed": "unknown"})
}

/// How far a recipient is, what is worst last: of several ends of one recipient that one is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Delivered {
    Yes,
    Unknown,
    No,
    Queued,
}

impl Delivered {
    fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Unknown => "unknown",
            Self::No => "no",
            Self::Queued => "queued",
        }
    }

    /// A reply that says no more than this.
    fn in_general(self) -> &'static str {
        match self {
            Self::Yes => "250 2.1.5 Delivered",
            Self::Unknown => "250 2.0.0 Accepted",
            Self::No => "550 5.0.0 Not delivered",
            Self::Queued => QUEUED,
        }
    }
}

type Status = (Delivered, String);

/// What is said of what nobody has tried yet.
const QUEUED: &str = "250 2.0.0 Queued";

fn is_finished(item: &ItemView) -> bool {
    matches!(item.standing, Standing::Finished { .. })
}

/// What is known of each address.
fn known(followed: &Followed) -> BTreeMap<String, Status> {
    let mut known: BTreeMap<String, Status> = BTreeMap::new();
    let mut say = |address: &Address, status: Status| {
        let entry = known.entry(address.key());
        let worse = |before: &mut Status| {
            if status.0 > before.0 {
                before.clone_from(&status);
            }
        };
        entry.and_modify(worse).or_insert_with(|| status.clone());
    };
    for item in followed.ingest.iter().chain(&followed.outbound) {
        match &item.standing {
            Standing::Finished { fates, .. } => {
                for Fate { address, outcome, .. } in fates {
                    // What went on to be sent elsewhere is told by what went on.
                    let went_on = *outcome == Outcome::Queued
                        && address.as_ref().is_some_and(|it| is_among(it, &followed.outbound));
                    if let (Some(address), false) = (address, went_on) {
                        say(address, of_outcome(outcome));
                    }
                }
            }
            _ => {
                for recipient in &item.recipients {
                    if let Ok(address) = Address::parse(&recipient.address) {
                        say(&address, of_recipient(recipient));
                    }
                }
            }
        }
    }
    known
}

fn is_among(address: &Address, outbound: &[ItemView]) -> bool {
    let key = address.key();
    outbound.iter().any(|item| match &item.standing {
        Standing::Finished { fates, .. } => {
            fates.iter().any(|fate| fate.address.as_ref().is_some_and(|it| it.key() == key))
        }
        _ => {
            let addresses = item.recipients.iter().map(|recipient| Address::parse(&recipient.address));
            addresses.flatten().any(|address| address.key() == key)
        }
    })
}

fn of_outcome(outcome: &Outcome) -> Status {
    match outcome {
        Outcome::Delivered | Outcome::Merged => (Delivered::Yes, "250 2.1.5 Delivered".to_owned()),
        Outcome::Queued => (Delivered::Queued, QUEUED.to_owned()),
        Outcome::Failed { failure, .. } => {
            (Delivered::No, format!("550 {} {}", failure.status, one_line(&failure.text)))
        }
        Outcome::Expired { .. } => (Delivered::No, "554 5.4.7 Not delivered in time".to_owned()),
        Outcome::Cancelled => (Delivered::No, "554 5.7.0 Taken back".to_owned()),
        Outcome::Quarantined => (Delivered::Queued, "450 4.3.0 Kept for the postmaster".to_owned()),
        // What another host does with what it has taken is not known.
        Outcome::Sent { said, .. } => (Delivered::Unknown, reply(Some(said))),
    }
}

/// By the words that the queue has for the states of a recipient.
fn of_recipient(recipient: &RecipientView) -> Status {
    let delivered = match recipient.state {
        "delivered" | "relayed" => Delivered::Unknown,
        "failed" | "expired" | "cancelled" => Delivered::No,
        _ => Delivered::Queued,
    };
    (delivered, reply(recipient.last.as_ref()))
}

fn reply(said: Option<&Said>) -> String {
    said.map_or_else(|| QUEUED.to_owned(), |said| one_line(&said.reply))
}

fn one_line(text: &str) -> String {
    text.split(['\r', '\n']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// One that fits into a record, without what would take more room in JSON than it has octets.
fn shortened(reply: &str) -> String {
    let plain = reply.chars().map(|it| if it.is_control() || matches!(it, '"' | '\\') { '\'' } else { it });
    let mut text: String = plain.take(REPLY_BYTES_MAX).collect();
    let end = (0..=REPLY_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::address::ReversePath;
    use mail::id::QueueId;
    use queue::ShardKind;
    use queue::item::Failure;

    fn item(kind: ShardKind, standing: Standing, recipients: Vec<RecipientView>) -> ItemView {
        ItemView {
            queue_id: QueueId::random(),
            message_id: None,
            kind,
            shard: String::new(),
            number: 1,
            reverse_path: ReversePath::NULL,
            principal: None,
            size: 1,
            accepted: 1,
            expires: 9,
            priority: 0,
            route: None,
            standing,
            recipients,
        }
    }

    fn fate(address: &str, outcome: Outcome) -> Fate {
        Fate { address: Address::parse(address).ok(), account: None, outcome }
    }

    fn record(held: bool, to: &[&str]) -> Record {
        let to: Vec<Value> = to.iter().map(|to| json!([to, null])).collect();
        serde_json::from_value(json!({
            "identity": "default", "email": 1, "thread": 1, "queue_id": QueueId::random(), "shard": 0,
            "send_at": 1_000, "held": held, "from": ["a@x.test", null], "to": to,
        }))
        .unwrap()
    }

    fn open(due: u64, attempts: u32) -> Followed {
        let standing = Standing::Open { due, attempts, crashes: 0, pending: 1 };
        Followed { ingest: Some(item(ShardKind::Ingest, standing, Vec::new())), outbound: Vec::new() }
    }

    #[test]
    fn only_what_is_held_can_be_taken_back() {
        let rules = SendingRules { undo_margin_seconds: 10, ..SendingRules::sample() };
        let check = |held: bool, followed: &Followed, now: u64, expected: Undo| {
            assert_eq!(Undo::of(&record(held, &[]), followed, now, &rules), expected, "{followed:?}");
        };
        check(true, &open(1_000, 0), 500, Undo::Pending);
        check(true, &open(1_000, 0), 989, Undo::Pending);
        check(true, &open(1_000, 0), 990, Undo::Final);
        check(true, &open(2_000, 1), 500, Undo::Final);
        check(false, &open(1_000, 0), 500, Undo::Final);
        check(true, &Followed::default(), 500, Undo::Final);
        let finished = |at| {
            let standing = Standing::Finished { at, fates: Vec::new() };
            Followed { ingest: Some(item(ShardKind::Ingest, standing, Vec::new())), outbound: Vec::new() }
        };
        check(true, &finished(600), 700, Undo::Canceled);
        check(true, &finished(1_000), 1_001, Undo::Final);
        check(false, &finished(600), 700, Undo::Final);
        let canceled = Record { canceled: true, ..record(true, &[]) };
        assert_eq!(Undo::of(&canceled, &Followed::default(), 5_000, &rules), Undo::Canceled);
    }

    #[test]
    fn each_recipient_has_a_status() {
        let said = Said::new(5, "250 2.0.0 ok\r\nmore");
        let failure = Failure::new("5.2.2", "Mailbox full");
        let fates = vec![
            fate("here@x.test", Outcome::Delivered),
            fate("full@x.test", Outcome::Failed { failure, notified: true }),
            fate("sent@there.test", Outcome::Queued),
            fate("late@there.test", Outcome::Queued),
            fate("soon@other.test", Outcome::Queued),
        ];
        let ingest = item(ShardKind::Ingest, Standing::Finished { at: 1, fates }, Vec::new());
        let late = RecipientView {
            address: "late@there.test".to_owned(),
            state: "pending",
            not_before: 0,
            deferrals: 1,
            doubts: 0,
            last: Some(Said::new(5, "450 4.2.0 greylisted")),
        };
        let sent = RecipientView {
            address: "sent@there.test".to_owned(),
            state: "delivered",
            last: Some(said),
            ..late.clone()
        };
        let waits = Standing::Open { due: 5, attempts: 1, crashes: 0, pending: 1 };
        let outbound = vec![item(ShardKind::Outbound, waits, vec![sent, late])];
        let followed = Followed { ingest: Some(ingest), outbound };
        let to = [
            "Here@x.test",
            "full@x.test",
            "sent@there.test",
            "late@there.test",
            "soon@other.test",
            "list@x.test",
        ];
        let rules = SendingRules::sample();
        let told = |record: &Record, followed: &Followed| Told::of(record, followed, 1_000, &rules).unwrap();
        let sent = record(false, &to);
        let first = told(&sent, &followed);
        assert!(!first.settled && first.has_failed());
        let told_of = |record: &Record, followed: &Followed| told(record, followed).deliveries(record);
        let told = told_of(&sent, &followed);
        let check = |to: &str, delivered: &str, reply: &str| {
            assert_eq!(
                told[to],
                json!({"smtpReply": reply, "delivered": delivered, "displayed": "unknown"}),
                "{to}"
            );
        };
        check("Here@x.test", "yes", "250 2.1.5 Delivered");
        check("full@x.test", "no", "550 5.2.2 Mailbox full");
        check("sent@there.test", "unknown", "250 2.0.0 ok more");
        check("late@there.test", "queued", "450 4.2.0 greylisted");
        check("soon@other.test", "queued", "250 2.0.0 Queued");
        check("list@x.test", "unknown", "250 2.0.0 Accepted");
        let told = told_of(&record(true, &["b@x.test"]), &open(1_000, 0));
        assert_eq!(told["b@x.test"]["delivered"], "queued");
    }

    #[test]
    fn what_is_told_is_settled_when_nothing_more_happens() {
        let rules = SendingRules::sample();
        let check = |followed: &Followed, now: u64, expected: Option<bool>| {
            let told = Told::of(&record(false, &["here@x.test"]), followed, now, &rules);
            assert_eq!(told.map(|told| told.settled), expected, "{followed:?}");
        };
        let finished = |outcome| {
            let standing = Standing::Finished { at: 1_000, fates: vec![fate("here@x.test", outcome)] };
            Followed { ingest: Some(item(ShardKind::Ingest, standing, Vec::new())), outbound: Vec::new() }
        };
        check(&open(1_000, 0), 1_000, Some(false));
        check(&finished(Outcome::Delivered), 1_000, Some(true));
        check(&finished(Outcome::Expired { notified: true }), 1_000, Some(true));
        // It went on, and where it went is not known yet.
        check(&finished(Outcome::Queued), 1_000, Some(false));
        // The queue may not have it yet; later it is certain that it never came there.
        check(&Followed::default(), 1_000, None);
        check(&Followed::default(), 1_000 + UNKNOWN_SECONDS, Some(true));
    }

    /// It has to fit into the record, however much other hosts say.
    #[test]
    fn what_is_told_has_bounds() {
        let to: Vec<String> = (0..100).map(|number| format!("a{number}@x.test")).collect();
        let failed = |number: usize| {
            let failure = Failure::new("5.1.1", format!("{number} \"\u{1}ä{}", "x".repeat(400)));
            fate(&to[number], Outcome::Failed { failure, notified: true })
        };
        let fates = (0..100).map(failed).collect();
        let standing = Standing::Finished { at: 1_000, fates };
        let ingest = item(ShardKind::Ingest, standing, Vec::new());
        let followed = Followed { ingest: Some(ingest), outbound: Vec::new() };
        let record = record(false, &to.iter().map(String::as_str).collect::<Vec<_>>());
        let told = Told::of(&record, &followed, 1_000, &SendingRules::sample()).unwrap();
        assert_eq!(told.replies.len(), REPLIES_MAX + 1);
        let stored = serde_json::to_vec(&told).unwrap();
        assert!(stored.len() <= Told::bytes_max(100), "{}", stored.len());
        assert_eq!(serde_json::from_slice::<Told>(&stored).unwrap(), told);
        assert_eq!(told.deliveries(&record)["a99@x.test"]["smtpReply"], "550 5.0.0 Not delivered");
    }
}
