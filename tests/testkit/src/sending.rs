//! Mail to hosts outside: what was handed in, and what those hosts and the senders have got, held against it.
//!
//! Nothing may be lost. A recipient may get a message twice only where an attempt was in doubt: the history says so.
//! Whoever does not exist has one notification, and nobody else has any.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;

use crate::dns::Dns;
use crate::ledger;
use crate::message;
use crate::observe::Damage;
use crate::reports;
use crate::server::Server;
use crate::sink::{Sink, Taken, manners};
use crate::smtp::Smtp;

/// Domains outside, each with a host of its own.
const DOMAINS: u8 = 5;

/// The hosts outside, and how they are found.
#[derive(Debug)]
pub struct Outside {
    dns: Dns,
    /// What they take.
    pub sink: Sink,
}

impl Outside {
    /// Starts them.
    pub fn start() -> Result<Self> {
        let addresses: Vec<Ipv4Addr> =
            (0..DOMAINS).map(|number| Ipv4Addr::new(127, 0, 3, number + 1)).collect();
        let sink = Sink::start(&addresses)?;
        let dns = Dns::start()?;
        for (number, address) in addresses.into_iter().enumerate() {
            dns.exchanger(&format!("d{number}.test"), 10, &format!("mx.d{number}.test"), address);
        }
        Ok(Self { dns, sink })
    }

    /// Arguments of a server that sends there.
    pub fn arguments(&self) -> Vec<String> {
        let (resolver, port) = (self.dns.address().to_string(), self.sink.port().to_string());
        vec!["--resolver".to_owned(), resolver, "--mx-port".to_owned(), port]
    }
}

/// A message as it was handed in.
#[derive(Clone, Debug)]
struct Sent {
    recipients: Vec<String>,
    begun: f64,
    acknowledged: Option<f64>,
}

/// Everything that was handed in, by number.
#[derive(Debug, Default)]
pub struct Book {
    sent: Mutex<BTreeMap<u64, Sent>>,
    next: AtomicU64,
}

impl Book {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Sent>> {
        self.sent.lock().expect("nobody panics with the lock")
    }

    /// Messages that were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.lock().values().filter(|sent| sent.acknowledged.is_some()).count()
    }

    /// Whatever was handed in before this instant has been judged and is looked at no more.
    pub fn forget_before(&self, instant: f64) {
        self.lock().retain(|_, sent| sent.begun >= instant);
    }

    /// Hands in one message; the code of the answer. What an error leaves is undecided.
    pub fn submit(&self, client: &mut Smtp, from: &str, random: &mut StdRng) -> Result<u16> {
        let id = self.next.fetch_add(1, Ordering::SeqCst) + 1;
        let count = random.random_range(1..5);
        let recipients: Vec<String> = (0..count)
            .map(|number| {
                let manner = match random.random_range(0..10) {
                    0 => manners::GONE,
                    1 => manners::LATER,
                    2 => manners::DOUBT,
                    _ => "user",
                };
                format!("{manner}-{id}-{number}@d{}.test", random.random_range(0..DOMAINS))
            })
            .collect();
        self.lock()
            .insert(id, Sent { recipients: recipients.clone(), begun: ledger::now(), acknowledged: None });
        let to: Vec<&str> = recipients.iter().map(String::as_str).collect();
        let text = message::numbered(id, if id.is_multiple_of(20) { 60_000 } else { 900 });
        let reply = client.send(from, &to, text.as_bytes())?;
        if reply.code == 250
            && let Some(sent) = self.lock().get_mut(&id)
        {
            sent.acknowledged = Some(ledger::now());
        }
        Ok(reply.code)
    }
}

/// What became of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages that were acknowledged.
    pub messages: usize,
    /// Their recipients.
    pub recipients: usize,
    /// Of those, who has it.
    pub delivered: usize,
    /// Of whom the sender was told that there is nobody.
    pub bounced: usize,
    /// Who has it more than once, after attempts in doubt.
    pub doubled: usize,
    /// Those attempts.
    pub doubts: u64,
}

impl Tally {
    /// Adds what became of others.
    pub fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.recipients += other.recipients;
        self.delivered += other.delivered;
        self.bounced += other.bounced;
        self.doubled += other.doubled;
        self.doubts += other.doubts;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, recipients, delivered, bounced, doubled, doubts } = self;
        write!(
            f,
            "acknowledged={messages} recipients={recipients} delivered={delivered} bounced={bounced} \
             doubled_in_doubt={doubled} doubts={doubts} lost=0 doubled_without_doubt=0"
        )
    }
}

/// Attempts in doubt in the history of a recipient.
fn doubts(server: &Server, id: u64, recipient: &str) -> Result<u64> {
    let path = format!("/admin/v1/queue/trace?id={}", message::message_id(id));
    let traced: Value = serde_json::from_str(&server.get(&path)?)?;
    let items = traced.as_array().into_iter().flatten();
    let recipients = items.flat_map(|item| item["recipients"].as_array().into_iter().flatten());
    let found = recipients.filter(|one| one["address"] == recipient).filter_map(|one| one["doubts"].as_u64());
    Ok(found.max().unwrap_or(0))
}

/// Holds what was taken until `instant`, and since, against what was acknowledged by then. An error that is [`Damage`] says
/// what is missing or too much.
pub fn judge(server: &Server, sender: &str, book: &Book, taken: &[Taken], instant: f64) -> Result<Tally> {
    let told = reports::reported(server.imap(), sender)?;
    weigh(book, taken, &told, instant, |id, recipient| doubts(server, id, recipient))
}

/// The same, with what the sender was told, and with how often an attempt was in doubt.
fn weigh(
    book: &Book,
    taken: &[Taken],
    told: &BTreeMap<(String, String), u32>,
    instant: f64,
    doubts: impl Fn(u64, &str) -> Result<u64>,
) -> Result<Tally> {
    let mut copies: BTreeMap<(u64, &str), u64> = BTreeMap::new();
    for one in taken {
        *copies.entry((one.id, &one.recipient)).or_default() += 1;
    }
    if let Some((recipient, action)) = told.keys().find(|(_, action)| action != "failed") {
        bail!(Damage(format!("a notification of {action:?} about {recipient}")));
    }
    let mut tally = Tally::default();
    let book = book.lock();
    for (id, sent) in book.iter() {
        let acknowledged = sent.acknowledged.is_some_and(|at| at <= instant);
        tally.messages += usize::from(acknowledged);
        for recipient in &sent.recipients {
            let copies = copies.get(&(*id, recipient.as_str())).copied().unwrap_or(0);
            let told = told.get(&(recipient.clone(), "failed".to_owned())).copied().unwrap_or(0);
            let gone = recipient.starts_with(manners::GONE);
            let about = |what: &str| Damage(format!("message {id} to {recipient}: {what}"));
            if told > u32::from(gone) {
                bail!(about(&format!("{told} notifications of failure")));
            }
            if acknowledged {
                tally.recipients += 1;
                if gone && told == 0 {
                    bail!(about("no notification"));
                }
                if !gone && copies == 0 {
                    bail!(about("lost"));
                }
                tally.bounced += usize::from(gone);
                tally.delivered += usize::from(!gone);
            }
            if copies > 1 {
                let doubts = doubts(*id, recipient)?;
                if copies > 1 + doubts {
                    bail!(about(&format!("{copies} copies with {doubts} attempts in doubt")));
                }
                tally.doubled += 1;
                tally.doubts += doubts;
            }
        }
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed_in(recipients: &[&str]) -> Book {
        let recipients = recipients.iter().map(|recipient| (*recipient).to_owned()).collect();
        let book = Book::default();
        book.lock().insert(1, Sent { recipients, begun: 1.0, acknowledged: Some(2.0) });
        book
    }

    fn taken(recipients: &[&str]) -> Vec<Taken> {
        let take =
            |recipient: &&str| Taken { at: 3.0, id: 1, recipient: (*recipient).to_owned(), answered: true };
        recipients.iter().map(take).collect()
    }

    /// What is wrong when these were taken, these were told of, and each attempt in doubt was this often.
    fn wrong(book: &Book, copies: &[&str], told: &[(&str, &str, u32)], doubts: u64) -> Option<String> {
        let told =
            told.iter().map(|(who, action, count)| (((*who).to_owned(), (*action).to_owned()), *count));
        let weighed = weigh(book, &taken(copies), &told.collect(), 4.0, |_, _| Ok(doubts));
        weighed.err().map(|error| error.to_string())
    }

    #[test]
    fn each_kind_of_fault_is_noticed() {
        let (user, gone) = ("user-1@d0.test", "gone-1@d0.test");
        let book = handed_in(&[user, gone]);
        let failed = (gone, "failed", 1);
        assert_eq!(wrong(&book, &[user], &[failed], 0), None);
        assert_eq!(wrong(&book, &[user, user], &[failed], 1), None, "an attempt was in doubt");
        let check = |copies: &[&str], told: &[(&str, &str, u32)], expected: &str| {
            let said = wrong(&book, copies, told, 0).unwrap_or_default();
            assert!(said.contains(expected), "{said}: not {expected}");
        };
        check(&[], &[failed], "lost");
        check(&[user, user], &[failed], "2 copies with 0 attempts in doubt");
        check(&[user], &[], "no notification");
        check(&[user], &[(gone, "failed", 2)], "2 notifications");
        check(&[user], &[failed, (user, "failed", 1)], "1 notifications");
        check(&[user], &[failed, (user, "delayed", 1)], "a notification of \"delayed\"");
    }

    #[test]
    fn what_nobody_answered_may_be_missing() {
        let book = handed_in(&["user-1@d0.test"]);
        book.lock().values_mut().for_each(|sent| sent.acknowledged = None);
        assert_eq!(wrong(&book, &[], &[], 0), None);
        assert_eq!(wrong(&book, &["user-1@d0.test"], &[], 0), None);
    }
}
