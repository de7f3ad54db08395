//! One message in the queue: expanded, placed in an account and in an outbound shard, sent, told about, and done.
//!
//! Two workers do the same things, of two processes or of one that was paused; each commit is one step at the head of its
//! log, which the model `commit` is about. Between any two steps a worker may pause for any time or die. Meanwhile the
//! directory may change, the mailbox may fill up, time may run out, and logs forget ids of what is done.

use stateright::{Model, Property};

use crate::check::{Bound, Checked, rules};

rules! {
    /// What delivers once, and tells once, what has no transaction across logs.
    Rule {
        /// What a recipient became is committed; whoever works on it afterwards does not ask the directory again.
        ExpandedOnce,
        /// An append to an account looks for its ingest id.
        IngestIdInAppend,
        /// An outbound shard looks for the id of the item that it derives from.
        OutboundIdDerived,
        /// The id of a notification is a function of message and recipient, whoever writes it.
        NotificationIdDerived,
        /// Before a sender is told that a mailbox did not take a message, *rejected* is committed to the account.
        RejectedThenTold,
        /// An item is done when everything is placed or told, not before.
        PlacedThenDone,
        /// Ids are forgotten below the producer's watermark, when the item is done, not when some time is over.
        ForgottenByWatermark,
        /// What comes from below the watermark is refused: it was done, whatever it was.
        BelowWatermarkRefused,
        /// A lease is committed before anybody dials.
        LeaseThenDial,
        /// Whoever holds a lease neither dials nor ends the message when it is over.
        HolderStops,
        /// Whoever sees a lease gives it its full time from then on, whatever the clock says.
        LeaseSeenInFull,
        /// Nothing expires under a lease.
        NoExpiryUnderLease,
        /// What is not a success counts from the current attempt alone.
        CurrentAttempt,
        /// A success counts from any attempt while the recipient has not ended.
        SuccessFromAnyAttempt,
        /// An attempt that may have delivered without saying so leaves the recipient in doubt, which is counted.
        DoubtCounted,
    }
}

/// The item in its ingest shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Ingest {
    Accepted,
    /// The outbound shard of the recipient elsewhere.
    Expanded(u8),
    Done,
}

/// An id where it is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Id {
    New,
    Placed,
    /// Will never be placed.
    Rejected,
    /// Below the watermark.
    Forgotten,
}

/// The recipient elsewhere, in one outbound shard. The number is that of the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Outbound {
    None,
    Pending(u8),
    Leased(u8),
    InDoubt(u8),
    Delivered,
    Failed { told: bool },
    Expired { told: bool },
    Forgotten,
}

impl Outbound {
    fn has_ended(self) -> bool {
        !matches!(self, Self::Pending(_) | Self::Leased(_) | Self::InDoubt(_))
    }

    /// Nothing is left to do about it.
    fn is_settled(self) -> bool {
        matches!(self, Self::Delivered | Self::Failed { told: true } | Self::Expired { told: true })
    }
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Delivered,
    /// The host has taken it, and the connection was lost before it could say so.
    Lost,
    Failed,
    Deferred,
}

const ANSWERS: [Answer; 4] = [Answer::Delivered, Answer::Lost, Answer::Failed, Answer::Deferred];

/// What a worker is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Worker {
    Idle,
    Expand,
    PlaceLocal,
    TellLocal,
    PlaceRemote,
    Finish,
    /// Holds a lease, or did.
    Dials {
        shard: u8,
        attempt: u8,
        over: bool,
    },
    Report {
        shard: u8,
        attempt: u8,
        answer: Answer,
    },
    TellRemote {
        shard: u8,
    },
    SettleTold {
        shard: u8,
    },
}

/// Everything about the message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// 0: in time, 1: expired, 2: so late that a clock would forget.
    time: u8,
    /// The outbound shard that the directory leads to now.
    directory: u8,
    full: bool,
    ingest: Ingest,
    workers: [(Worker, u8); 2],
    crashes: u8,
    account: Id,
    /// Copies in the mailbox.
    placed: u8,
    outbound: [Outbound; 2],
    attempts: u8,
    doubts: u8,
    /// Copies that the other host has taken.
    taken: u8,
    /// Ids of notifications: about the local recipient, about the one elsewhere; and again, in another shard.
    notifications: [Id; 4],
    /// Notifications that were accepted, about each of the two.
    told: [u8; 2],
    /// A success was reported before the recipient had ended.
    heard: bool,
    /// A second outbound item was made of what had one.
    sent_again: bool,
    /// Somebody acted against a lease.
    under_lease: bool,
    /// Something was refused as done that was not.
    held: bool,
}

/// One step. The first number is the worker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Later,
    DirectoryChanges,
    MailboxFills,
    Claim(u8),
    Step(u8),
    /// The mailbox does not take the message: it is full, or the message has expired.
    Refuse(u8),
    /// A notification gets an id of its own: without [`Rule::NotificationIdDerived`] alone.
    TellElsewhere(u8),
    Crash(u8),
    Lease(u8, u8),
    /// The holder's time is over.
    LeaseOver(u8),
    Answer(u8, Answer),
    /// An observer finds that a lease has had its time.
    Lapse(u8),
    Expire(u8),
    Notify(u8, u8),
    ForgetIngestId,
    ForgetOutbound(u8),
    ForgetNotification(u8),
}

/// The model, with its bounds.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    /// There is a recipient here.
    local: bool,
    /// There is one elsewhere.
    remote: bool,
    crashes: u8,
    attempts: u8,
    directory_changes: bool,
    mailbox_fills: bool,
    without: Option<Rule>,
}

impl Queue {
    fn both() -> Self {
        Self {
            local: true,
            remote: true,
            crashes: 1,
            attempts: 1,
            directory_changes: true,
            mailbox_fills: true,
            without: None,
        }
    }

    fn follows(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn place_first(&self) -> Worker {
        if self.local { Worker::PlaceLocal } else { Worker::PlaceRemote }
    }

    fn behind_local(&self) -> Worker {
        if self.remote { Worker::PlaceRemote } else { Worker::Finish }
    }

    /// What a log answers about an id that it has forgotten. `true`: it is refused.
    fn refuses(&self, state: &mut State) -> bool {
        let refused = self.follows(Rule::BelowWatermarkRefused);
        state.held |= refused && state.ingest != Ingest::Done;
        refused
    }

    fn may_forget(&self, state: &State, producer_done: bool) -> bool {
        if self.follows(Rule::ForgottenByWatermark) { producer_done } else { state.time >= 2 }
    }

    /// Somebody goes by a lease on this shard.
    fn has_holder(state: &State, shard: u8) -> bool {
        let holds = |worker: &(Worker, u8)| matches!(worker.0, Worker::Dials { shard: held, over: false, .. } if held == shard);
        state.workers.iter().any(holds)
    }

    fn tell(&self, state: &mut State, about: usize, elsewhere: bool) {
        let id = about + if elsewhere { 2 } else { 0 };
        let accepted = match state.notifications[id] {
            Id::New => true,
            Id::Forgotten => !self.follows(Rule::BelowWatermarkRefused),
            Id::Placed | Id::Rejected => false,
        };
        if accepted {
            state.notifications[id] = Id::Placed;
            state.told[about] = (state.told[about] + 1).min(2);
        }
    }

    fn place_local(&self, state: &mut State, refused: bool) -> Worker {
        let account = state.account;
        match account {
            Id::Rejected => Worker::TellLocal,
            Id::Placed if self.follows(Rule::IngestIdInAppend) => self.behind_local(),
            Id::Forgotten if self.refuses(state) => Worker::Idle,
            _ if refused => {
                if self.follows(Rule::RejectedThenTold) {
                    state.account = Id::Rejected;
                }
                Worker::TellLocal
            }
            _ => {
                state.account = Id::Placed;
                state.placed = (state.placed + 1).min(2);
                self.behind_local()
            }
        }
    }

    fn place_remote(&self, state: &mut State, known: u8) -> Worker {
        let shard = if self.follows(Rule::ExpandedOnce) { known } else { state.directory } as usize;
        let there = state.outbound[shard];
        match there {
            Outbound::None => state.outbound[shard] = Outbound::Pending(0),
            Outbound::Forgotten if self.refuses(state) => return Worker::Idle,
            Outbound::Forgotten => {
                state.sent_again = true;
                state.outbound[shard] = Outbound::Pending(0);
            }
            _ if !self.follows(Rule::OutboundIdDerived) => state.sent_again = true,
            _ => {}
        }
        Worker::Finish
    }

    fn report(&self, state: &mut State, shard: u8, attempt: u8, answer: Answer) {
        let recipient = &mut state.outbound[shard as usize];
        let open = !recipient.has_ended();
        let current = match *recipient {
            Outbound::Leased(now) | Outbound::InDoubt(now) => now == attempt,
            _ => false,
        };
        let counts = current || !self.follows(Rule::CurrentAttempt);
        match answer {
            Answer::Delivered if open => {
                state.heard = true;
                if current || self.follows(Rule::SuccessFromAnyAttempt) {
                    *recipient = Outbound::Delivered;
                }
            }
            Answer::Failed if counts => *recipient = Outbound::Failed { told: false },
            Answer::Deferred if counts => *recipient = Outbound::Pending(attempt),
            Answer::Lost if *recipient == Outbound::Leased(attempt) => {
                self.doubt(state, shard, attempt);
            }
            _ => {}
        }
    }

    fn doubt(&self, state: &mut State, shard: u8, attempt: u8) {
        if self.follows(Rule::DoubtCounted) {
            state.outbound[shard as usize] = Outbound::InDoubt(attempt);
            state.doubts += 1;
        } else {
            state.outbound[shard as usize] = Outbound::Pending(attempt);
        }
    }

    fn step(&self, state: &mut State, at: usize, action: Action) -> Option<()> {
        let (worker, shard) = state.workers[at];
        let elsewhere = matches!(action, Action::TellElsewhere(_));
        state.workers[at].0 = match worker {
            Worker::Idle | Worker::Dials { .. } => return None,
            // Somebody else was faster: the item is gone.
            Worker::Expand if state.ingest == Ingest::Done => Worker::Idle,
            Worker::Expand => {
                if state.ingest == Ingest::Accepted {
                    state.ingest = Ingest::Expanded(state.directory);
                }
                if let Ingest::Expanded(shard) = state.ingest {
                    state.workers[at].1 = shard;
                }
                if !self.follows(Rule::PlacedThenDone) {
                    state.ingest = Ingest::Done;
                }
                self.place_first()
            }
            Worker::PlaceLocal => self.place_local(state, matches!(action, Action::Refuse(_))),
            Worker::TellLocal => {
                self.tell(state, 0, elsewhere);
                self.behind_local()
            }
            Worker::PlaceRemote => self.place_remote(state, shard),
            Worker::Finish => {
                state.ingest = Ingest::Done;
                Worker::Idle
            }
            Worker::Report { shard, attempt, answer } => {
                self.report(state, shard, attempt, answer);
                Worker::Idle
            }
            Worker::TellRemote { shard } => {
                self.tell(state, 1, elsewhere);
                Worker::SettleTold { shard }
            }
            Worker::SettleTold { shard } => {
                match &mut state.outbound[shard as usize] {
                    Outbound::Failed { told } | Outbound::Expired { told } => *told = true,
                    _ => {}
                }
                Worker::Idle
            }
        };
        Some(())
    }

    fn lease(&self, state: &mut State, at: usize, shard: u8) {
        state.attempts += 1;
        let attempt = state.attempts;
        state.under_lease |= Self::has_holder(state, shard) && self.follows(Rule::LeaseThenDial);
        if self.follows(Rule::LeaseThenDial) {
            state.outbound[shard as usize] = Outbound::Leased(attempt);
        }
        state.workers[at].0 = Worker::Dials { shard, attempt, over: false };
    }

    fn answer(state: &mut State, at: usize, answer: Answer) -> Option<()> {
        let Worker::Dials { shard, attempt, over } = state.workers[at].0 else { return None };
        if matches!(answer, Answer::Delivered | Answer::Lost) {
            state.taken = (state.taken + 1).min(3);
            state.under_lease |= over && Self::has_holder(state, shard);
        }
        state.workers[at].0 = Worker::Report { shard, attempt, answer };
        Some(())
    }

    fn expire(state: &mut State, shard: u8) {
        let leased = matches!(state.outbound[shard as usize], Outbound::Leased(_));
        state.under_lease |= leased && Self::has_holder(state, shard);
        state.outbound[shard as usize] = Outbound::Expired { told: false };
    }

    fn lapse(&self, state: &mut State, shard: u8) -> Option<()> {
        let Outbound::Leased(attempt) = state.outbound[shard as usize] else { return None };
        state.under_lease |= Self::has_holder(state, shard);
        self.doubt(state, shard, attempt);
        Some(())
    }

    fn worker_actions(&self, state: &State, at: u8, actions: &mut Vec<Action>) {
        let worker = state.workers[at as usize].0;
        if worker != Worker::Idle && state.crashes < self.crashes {
            actions.push(Action::Crash(at));
        }
        match worker {
            Worker::Idle => {
                if state.ingest != Ingest::Done {
                    actions.push(Action::Claim(at));
                }
                for (shard, recipient) in (0..).zip(state.outbound) {
                    match recipient {
                        Outbound::Pending(_) | Outbound::InDoubt(_) if state.attempts < self.attempts => {
                            actions.push(Action::Lease(at, shard));
                        }
                        Outbound::Failed { told: false } | Outbound::Expired { told: false } => {
                            actions.push(Action::Notify(at, shard));
                        }
                        _ => {}
                    }
                }
            }
            Worker::Dials { over, .. } => {
                if !over {
                    actions.push(Action::LeaseOver(at));
                }
                let stopped = over && self.follows(Rule::HolderStops);
                let may = |answer: &Answer| !stopped || *answer == Answer::Deferred;
                actions.extend(ANSWERS.into_iter().filter(may).map(|answer| Action::Answer(at, answer)));
            }
            Worker::PlaceLocal => {
                actions.push(Action::Step(at));
                if state.full || state.time >= 1 {
                    actions.push(Action::Refuse(at));
                }
            }
            Worker::TellLocal | Worker::TellRemote { .. } => {
                actions.push(Action::Step(at));
                if !self.follows(Rule::NotificationIdDerived) {
                    actions.push(Action::TellElsewhere(at));
                }
            }
            _ => actions.push(Action::Step(at)),
        }
    }

    fn shard_actions(&self, state: &State, shard: u8, actions: &mut Vec<Action>) {
        let recipient = state.outbound[shard as usize];
        let leased = matches!(recipient, Outbound::Leased(_));
        let seen_in_full = !Self::has_holder(state, shard) || !self.follows(Rule::LeaseSeenInFull);
        if leased && seen_in_full {
            actions.push(Action::Lapse(shard));
        }
        let waits = !recipient.has_ended() && (!leased || !self.follows(Rule::NoExpiryUnderLease));
        if state.time >= 1 && waits {
            actions.push(Action::Expire(shard));
        }
        if recipient.is_settled() && self.may_forget(state, state.ingest == Ingest::Done) {
            actions.push(Action::ForgetOutbound(shard));
        }
    }
}

impl Model for Queue {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            time: 0,
            directory: 0,
            full: false,
            ingest: Ingest::Accepted,
            workers: [(Worker::Idle, 0); 2],
            crashes: 0,
            account: Id::New,
            placed: 0,
            outbound: [Outbound::None; 2],
            attempts: 0,
            doubts: 0,
            taken: 0,
            notifications: [Id::New; 4],
            told: [0; 2],
            heard: false,
            sent_again: false,
            under_lease: false,
            held: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let time_max = if self.follows(Rule::ForgottenByWatermark) { 1 } else { 2 };
        if state.time < time_max {
            actions.push(Action::Later);
        }
        if self.directory_changes && state.directory == 0 {
            actions.push(Action::DirectoryChanges);
        }
        if self.mailbox_fills && !state.full {
            actions.push(Action::MailboxFills);
        }
        for at in 0..2 {
            self.worker_actions(state, at, actions);
        }
        for shard in 0..2 {
            self.shard_actions(state, shard, actions);
        }
        let done = state.ingest == Ingest::Done;
        if matches!(state.account, Id::Placed | Id::Rejected) && self.may_forget(state, done) {
            actions.push(Action::ForgetIngestId);
        }
        for (number, id) in (0..).zip(state.notifications) {
            let over = |recipient: &Outbound| recipient.is_settled() || *recipient == Outbound::Forgotten;
            let producer_done = if number % 2 == 0 { done } else { state.outbound.iter().any(over) };
            if id == Id::Placed && self.may_forget(state, producer_done) {
                actions.push(Action::ForgetNotification(number));
            }
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Later => state.time += 1,
            Action::DirectoryChanges => state.directory = 1,
            Action::MailboxFills => state.full = true,
            Action::Claim(at) => {
                state.workers[at as usize] = match state.ingest {
                    Ingest::Accepted => (Worker::Expand, 0),
                    Ingest::Expanded(shard) => (self.place_first(), shard),
                    Ingest::Done => return None,
                };
            }
            Action::Step(at) | Action::Refuse(at) | Action::TellElsewhere(at) => {
                self.step(&mut state, at as usize, action)?;
            }
            Action::Crash(at) => {
                state.crashes += 1;
                state.workers[at as usize] = (Worker::Idle, 0);
            }
            Action::Lease(at, shard) => self.lease(&mut state, at as usize, shard),
            Action::LeaseOver(at) => {
                if let Worker::Dials { over, .. } = &mut state.workers[at as usize].0 {
                    *over = true;
                }
            }
            Action::Answer(at, answer) => Self::answer(&mut state, at as usize, answer)?,
            Action::Lapse(shard) => self.lapse(&mut state, shard)?,
            Action::Expire(shard) => Self::expire(&mut state, shard),
            Action::Notify(at, shard) => state.workers[at as usize].0 = Worker::TellRemote { shard },
            Action::ForgetIngestId => state.account = Id::Forgotten,
            Action::ForgetOutbound(shard) => state.outbound[shard as usize] = Outbound::Forgotten,
            Action::ForgetNotification(number) => state.notifications[number as usize] = Id::Forgotten,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONCE, |_, state: &State| state.placed <= 1),
            Property::always(NOT_BOTH, |_, state: &State| state.placed == 0 || state.told[0] == 0),
            Property::always(TOLD_ONCE, |_, state: &State| state.told.iter().all(|told| *told <= 1)),
            Property::always(NOT_TOLD_FALSELY, |_, state: &State| !state.heard || state.told[1] == 0),
            Property::always(ONE_ITEM, |_, state: &State| {
                let items = state.outbound.iter().filter(|recipient| **recipient != Outbound::None);
                items.count() <= 1 && !state.sent_again
            }),
            Property::always(LEASES, |_, state: &State| !state.under_lease),
            Property::always(DOUBTS, |_, state: &State| state.taken <= 1 + state.doubts),
            Property::always(CONSERVED, |model: &Self, state: &State| {
                let here = !model.local || state.placed > 0 || state.told[0] > 0;
                let elsewhere = !model.remote || state.outbound.iter().any(|it| *it != Outbound::None);
                state.ingest != Ingest::Done || (here && elsewhere)
            }),
            Property::always(NOT_HELD, |_, state: &State| !state.held),
            Property::sometimes("everything is delivered", |model: &Self, state: &State| {
                let elsewhere = !model.remote || state.outbound.contains(&Outbound::Delivered);
                state.ingest == Ingest::Done && (!model.local || state.placed == 1) && elsewhere
            }),
            Property::sometimes("everybody is told", |model: &Self, state: &State| {
                (!model.local || state.told[0] == 1) && (!model.remote || state.told[1] == 1)
            }),
        ]
    }
}

const ONCE: &str = "7: a message is in a mailbox once";
const NOT_BOTH: &str = "8: nobody is told of a failure that was none, here";
const TOLD_ONCE: &str = "8: one notification for a recipient";
const NOT_TOLD_FALSELY: &str = "8: nobody is told of a failure after a success was heard";
const ONE_ITEM: &str = "8: a recipient elsewhere is in one outbound item, once";
const LEASES: &str = "8: nobody acts against a lease";
const DOUBTS: &str = "8: another host takes a message once, and once more for each doubt";
const CONSERVED: &str = "8: what is done is delivered, told, or waits to be sent";
const NOT_HELD: &str = "8: nothing is refused as done that is not";

impl Checked for Queue {
    type Rule = Rule;

    const NAME: &str = "queue";
    const RULES: &[Rule] = Rule::ALL;

    fn bounds() -> Vec<Bound<Self>> {
        let both = Self::both();
        let bound = |name, states_min, model| Bound { name, model, states_min };
        vec![
            bound("a recipient here, two crashes", 3_200, Self { remote: false, crashes: 2, ..both.clone() }),
            bound(
                "one elsewhere, three attempts",
                47_000,
                Self {
                    local: false,
                    attempts: 3,
                    mailbox_fills: false,
                    directory_changes: false,
                    ..both.clone()
                },
            ),
            bound("both, one attempt", 140_000, both.clone()),
            bound(
                "both, two attempts",
                66_000,
                Self { attempts: 2, mailbox_fills: false, directory_changes: false, ..both },
            ),
        ]
    }

    fn wide() -> Vec<(&'static str, Self)> {
        vec![
            (
                "one elsewhere, three attempts, two crashes",
                Self { local: false, attempts: 3, crashes: 2, ..Self::both() },
            ),
            ("both, two attempts, two crashes", Self { attempts: 2, crashes: 2, ..Self::both() }),
        ]
    }

    fn without(rule: Rule) -> (Self, &'static str) {
        let here = Self { remote: false, without: Some(rule), ..Self::both() };
        let elsewhere =
            Self { local: false, remote: true, attempts: 2, mailbox_fills: false, ..here.clone() };
        match rule {
            Rule::ExpandedOnce | Rule::OutboundIdDerived => (elsewhere, ONE_ITEM),
            Rule::IngestIdInAppend | Rule::BelowWatermarkRefused => (here, ONCE),
            Rule::NotificationIdDerived => (here, TOLD_ONCE),
            Rule::RejectedThenTold => (here, NOT_BOTH),
            Rule::PlacedThenDone => (here, CONSERVED),
            Rule::ForgottenByWatermark => (here, NOT_HELD),
            Rule::HolderStops | Rule::LeaseSeenInFull | Rule::NoExpiryUnderLease => (elsewhere, LEASES),
            Rule::CurrentAttempt | Rule::SuccessFromAnyAttempt => (elsewhere, NOT_TOLD_FALSELY),
            Rule::LeaseThenDial | Rule::DoubtCounted => (elsewhere, DOUBTS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::shown;
    use crate::check::{check_bounds, check_rules};

    #[test]
    fn holds_within_bounds() {
        shown(check_bounds::<Queue>());
    }

    #[test]
    fn each_rule_is_needed() {
        shown(check_rules::<Queue>());
    }
}
