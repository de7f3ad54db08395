//! What clients asked for and what was acknowledged, and the judgement of what is found after a crash.
//!
//! A *subject* is one test message in one account. Its steps are asked for one after the other, so that at any instant
//! at most the last one is undecided.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

/// A test message in an account.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Subject {
    /// The account's login.
    pub account: String,
    /// The message's number.
    pub id: u64,
}

/// What a step does to the subject.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// It comes into the mailbox, with no flag.
    Appear(String),
    /// The same by way of the queue: without an answer it may come at any time later.
    Deliver(String),
    /// A copy of what is in the first mailbox comes into the second, with its flags.
    Copy(String, String),
    /// What is in the first mailbox goes to the second, with its flags.
    Move(String, String),
    /// A flag is set on what is in the mailbox.
    Flag(String, String),
    /// What is in the mailbox goes away.
    Expunge(String),
}

/// Where a subject is: mailbox → flags.
pub type Places = BTreeMap<String, BTreeSet<String>>;

#[derive(Clone, Debug)]
struct Step {
    effect: Effect,
    invoked: f64,
    acknowledged: Option<f64>,
}

/// The record of one run.
#[derive(Debug, Default)]
pub struct Ledger {
    subjects: Mutex<BTreeMap<Subject, Vec<Step>>>,
}

/// What an observer found of the subjects: every place of every message.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Subject → every mailbox that holds it, once per message, with flags.
    pub places: BTreeMap<Subject, Vec<(String, BTreeSet<String>)>>,
}

/// What is wrong with what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Subjects that were judged.
    pub judged: usize,
    /// Acknowledged steps among them.
    pub acknowledged: usize,
    /// Subjects whose acknowledged steps are not all there.
    pub lost: Vec<String>,
    /// Subjects that are twice in one mailbox.
    pub doubled: Vec<String>,
    /// Messages that nobody sent.
    pub strange: Vec<String>,
}

impl Verdict {
    /// Nothing is wrong.
    pub fn clean(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.strange.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "judged={} acknowledged={} lost={} doubled={} strange={}",
            self.judged,
            self.acknowledged,
            self.lost.len(),
            self.doubled.len(),
            self.strange.len()
        )?;
        for (kind, list) in [("lost", &self.lost), ("doubled", &self.doubled), ("strange", &self.strange)] {
            for subject in list.iter().take(5) {
                write!(f, "\n  {kind}: {subject}")?;
            }
        }
        Ok(())
    }
}

/// Seconds since 1970, as the ledger counts time.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl Ledger {
    /// An empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// A step is about to be asked for.
    pub fn invoke(&self, subject: &Subject, effect: Effect) {
        let step = Step { effect, invoked: now(), acknowledged: None };
        self.lock().entry(subject.clone()).or_default().push(step);
    }

    /// The last step was acknowledged.
    pub fn acknowledge(&self, subject: &Subject) {
        let at = now();
        if let Some(step) = self.lock().get_mut(subject).and_then(|steps| steps.last_mut()) {
            step.acknowledged = Some(at);
        }
    }

    /// The last step was refused, so it must not have happened.
    pub fn refuse(&self, subject: &Subject) {
        if let Some(steps) = self.lock().get_mut(subject) {
            steps.pop();
        }
    }

    /// Acknowledged steps so far.
    pub fn acknowledged(&self) -> usize {
        self.lock().values().flatten().filter(|step| step.acknowledged.is_some()).count()
    }

    /// Steps without an answer so far.
    pub fn undecided(&self) -> usize {
        self.lock().values().flatten().filter(|step| step.acknowledged.is_none()).count()
    }

    /// When the last step was acknowledged, if it was, on the clock of [`now`].
    pub fn acknowledged_at(&self, subject: &Subject) -> Option<f64> {
        self.lock().get(subject)?.last()?.acknowledged
    }

    /// After a judgement that was clean, what was found is what is: undecided steps are settled by it, so that the
    /// next round starts from facts. A message that may be in the queue and was not found stays undecided.
    pub fn settle(&self, found: &Found) {
        self.lock().retain(|subject, steps| {
            let places = found.places.get(subject).cloned().unwrap_or_default();
            if let [Step { effect: Effect::Deliver(_), acknowledged: None, .. }] = &steps[..]
                && places.is_empty()
            {
                return true;
            }
            steps.clear();
            for (mailbox, flags) in places {
                let at = now();
                let step = |effect| Step { effect, invoked: at, acknowledged: Some(at) };
                steps.push(step(Effect::Appear(mailbox.clone())));
                steps.extend(flags.into_iter().map(|flag| step(Effect::Flag(mailbox.clone(), flag))));
            }
            !steps.is_empty()
        });
    }

    /// Judges what was found after a crash at `instant` (seconds since 1970): whatever was acknowledged by then has
    /// happened, whatever was asked for later has not, and the one in between may or may not have.
    pub fn judge(&self, found: &Found, instant: f64) -> Verdict {
        let subjects = self.lock();
        let mut verdict = Verdict::default();
        for (subject, steps) in subjects.iter() {
            let asked = steps.iter().filter(|step| step.invoked <= instant).count();
            let sure = steps[..asked]
                .iter()
                .take_while(|step| step.acknowledged.is_some_and(|at| at <= instant))
                .count();
            verdict.judged += 1;
            verdict.acknowledged += sure;
            let mut places = Places::new();
            for (mailbox, flags) in found.places.get(subject).into_iter().flatten() {
                if places.insert(mailbox.clone(), flags.clone()).is_some() {
                    verdict.doubled.push(format!("{}/{} in {mailbox}", subject.account, subject.id));
                }
            }
            if !(sure..=asked).any(|count| fold(&steps[..count]) == places) {
                verdict.lost.push(format!(
                    "{}/{}: found {places:?}, expected {:?} after {sure} to {asked} of {:?}",
                    subject.account,
                    subject.id,
                    fold(&steps[..sure]),
                    steps.iter().map(|step| &step.effect).collect::<Vec<_>>(),
                ));
            }
        }
        for subject in found.places.keys().filter(|subject| !subjects.contains_key(subject)) {
            verdict.strange.push(format!("{}/{}", subject.account, subject.id));
        }
        verdict
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Subject, Vec<Step>>> {
        self.subjects.lock().expect("no holder of the ledger panics")
    }
}

fn fold(steps: &[Step]) -> Places {
    let mut places = Places::new();
    for step in steps {
        match &step.effect {
            Effect::Appear(mailbox) | Effect::Deliver(mailbox) => {
                places.insert(mailbox.clone(), BTreeSet::new());
            }
            Effect::Copy(from, to) => {
                let flags = places.get(from).cloned().unwrap_or_default();
                places.insert(to.clone(), flags);
            }
            Effect::Move(from, to) => {
                if let Some(flags) = places.remove(from) {
                    places.insert(to.clone(), flags);
                }
            }
            Effect::Flag(mailbox, flag) => {
                if let Some(flags) = places.get_mut(mailbox) {
                    flags.insert(flag.clone());
                }
            }
            Effect::Expunge(mailbox) => {
                places.remove(mailbox);
            }
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(id: u64) -> Subject {
        Subject { account: "alice".into(), id }
    }

    fn found(list: &[(u64, &str, &[&str])]) -> Found {
        let mut found = Found::default();
        for (id, mailbox, flags) in list {
            let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
            found.places.entry(subject(*id)).or_default().push(((*mailbox).to_owned(), flags));
        }
        found
    }

    /// A judge that never finds fault proves nothing: each kind of fault is shown to it.
    #[test]
    fn sees_each_kind_of_fault() {
        let ledger = Ledger::new();
        ledger.invoke(&subject(1), Effect::Appear("INBOX".into()));
        ledger.acknowledge(&subject(1));
        ledger.invoke(&subject(1), Effect::Flag("INBOX".into(), "\\Seen".into()));
        ledger.invoke(&subject(2), Effect::Appear("INBOX".into()));
        let later = now() + 1.0;
        assert!(ledger.judge(&found(&[(1, "INBOX", &[])]), later).clean());
        assert!(ledger.judge(&found(&[(1, "INBOX", &["\\Seen"]), (2, "INBOX", &[])]), later).clean());
        assert_eq!(ledger.judge(&found(&[]), later).lost.len(), 1);
        assert_eq!(ledger.judge(&found(&[(1, "INBOX", &[]), (1, "INBOX", &[])]), later).doubled.len(), 1);
        assert_eq!(ledger.judge(&found(&[(1, "INBOX", &[]), (9, "INBOX", &[])]), later).strange.len(), 1);
        assert_eq!(ledger.judge(&found(&[(1, "Archive", &[])]), later).lost.len(), 1);
        assert_eq!(ledger.judge(&found(&[(1, "INBOX", &["\\Flagged"])]), later).lost.len(), 1);
        ledger.acknowledge(&subject(1));
        assert_eq!(ledger.judge(&found(&[(1, "INBOX", &[])]), now() + 1.0).lost.len(), 1);
    }

    /// What nobody had an answer for may still lie in the queue when the first look after a crash is made.
    #[test]
    fn what_is_undecided_may_come_later() {
        let ledger = Ledger::new();
        ledger.invoke(&subject(1), Effect::Deliver("INBOX".into()));
        let later = now() + 1.0;
        ledger.settle(&found(&[]));
        assert!(ledger.judge(&found(&[]), later).clean());
        assert!(ledger.judge(&found(&[(1, "INBOX", &[])]), later).clean());
        assert_eq!(ledger.judge(&found(&[(1, "INBOX", &[]), (1, "INBOX", &[])]), later).doubled.len(), 1);
        ledger.settle(&found(&[(1, "INBOX", &[])]));
        assert_eq!(ledger.judge(&found(&[]), now() + 1.0).lost.len(), 1);
        // Not so what was acknowledged, and what does not pass through the queue.
        ledger.invoke(&subject(2), Effect::Deliver("INBOX".into()));
        ledger.acknowledge(&subject(2));
        ledger.invoke(&subject(3), Effect::Appear("INBOX".into()));
        ledger.settle(&found(&[(1, "INBOX", &[])]));
        for id in [2, 3] {
            let found = found(&[(1, "INBOX", &[]), (id, "INBOX", &[])]);
            assert_eq!(ledger.judge(&found, now() + 1.0).strange.len(), 1);
        }
    }
}
