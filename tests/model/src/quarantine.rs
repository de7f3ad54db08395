//! An item that crashes whoever delivers it: claimed alone, counted, moved to quarantine, released under new ids.
//!
//! Item 0 is for two mailboxes; the process may crash whenever it delivers it to the second one. Item 1 is for a mailbox
//! of its own and harms nobody. Both are within the window when the process begins, so neither has a record. A process
//! that dies loses its claims; an append or a notification that it had under way may land much later, when nobody waits
//! for it (the process may be a worker that panicked). Operators release what is in quarantine, two at a time if they
//! like; what made it crash is mended by then.

use stateright::{Model, Property};

use crate::check::{Bound, Checked, rules};

rules! {
    /// What keeps one bad item from taking others along, and from being doubled when it comes back.
    Rule {
        /// What was within the window and unrecorded when the process died counts as part of one crash.
        SuspectsCounted,
        /// A suspect is begun on record before it is worked on.
        RecordedThenWorked,
        /// After one crash an item is claimed alone: no other one that has seen a crash is at work meanwhile.
        AloneAfterCrash,
        /// After so many crashes it is secured and moved to quarantine.
        QuarantinedAfterMany,
        /// Before it moves, *rejected* is committed for every local target that was not placed.
        RejectedThenMoved,
        /// A target that was placed already counts as placed, and is not left.
        PlacedCounts,
        /// So does one of which the sender was told, as failed.
        ToldCounts,
        /// Whether they were is asked behind whatever is still under way there, not of what is shown now.
        ToldAskedInOrder,
        /// The item in quarantine derives from the one that moves, so that it moves there once.
        MovedOnce,
        /// It leaves its shard, so that no watermark is held back.
        LeavesItsShard,
        /// It is accepted where it goes, and then leaves where it was.
        AcceptedThenLeft,
        /// What is released derives from the item in quarantine, so that it is released once.
        ReleasedOnce,
        /// What is released has new ids.
        NewIds,
        /// A late attempt that finds *rejected* tells nobody.
        LateTellsNobody,
    }
}

/// Slots for items: the two, and what is released.
const ITEMS: usize = 4;
const BAD: usize = 0;
const GOOD: usize = 1;

/// An ingest id in its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Id {
    New,
    Placed,
    /// Rejected since the mailbox is full.
    Refused,
    /// Rejected before the item moved to quarantine.
    Secured,
    /// Below the watermark: refused, whatever it was.
    Forgotten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Life {
    None,
    Live,
    /// Live, and nobody will ever claim it: without [`Rule::LeavesItsShard`] alone.
    Parked,
    Gone,
}

/// An item of the ingest shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Item {
    life: Life,
    /// The boot that has recorded its beginning.
    began: Option<u8>,
    crashes: u8,
    suspect: bool,
    settled: [bool; 2],
}

/// What the process does with an item that it has claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Work {
    Idle,
    Deliver(u8),
    Tell(u8),
    Settle,
    Secure(u8),
    Move,
    Leave,
}

/// An item in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Held {
    item: u8,
    settled: [bool; 2],
    waits: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operator {
    Idle,
    Read(u8),
    Accepted(u8),
}

/// Shard, quarantine, accounts and the process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    boot: u8,
    items: [Item; ITEMS],
    work: [Work; ITEMS],
    ids: [[Id; 2]; ITEMS],
    held: Vec<Held>,
    operators: [Operator; 2],
    full: bool,
    /// Appends of item 0 that are still under way from before.
    late: [bool; 2],
    /// A notification about the first target of item 0 is under way, and nobody waits for it.
    late_notification: bool,
    /// Copies in each mailbox: two of item 0, one of item 1.
    copies: [u8; 3],
    told: [bool; 3],
    /// The process died of item 0.
    died: u8,
    /// It was killed for another reason.
    killed: u8,
    /// What was released was refused for what it had been before.
    refused_as_old: bool,
}

/// One step; the number is the item's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Claim(u8),
    Work(u8),
    /// The mailbox is full.
    Refuse(u8),
    MailboxesFill,
    /// The item crashes the process.
    Die,
    /// It does so with one target while the sender is being told of the other.
    DieTelling,
    /// That notification is accepted.
    LateNotification,
    Kill,
    /// An append of item 0 lands for which nobody waits.
    LateAppend(u8),
    /// Accounts forget ids below the watermark.
    Forget(u8),
    /// The operator's next step.
    Release(u8),
}

/// The model, with its bounds.
#[derive(Clone, Debug)]
pub(crate) struct Quarantine {
    crashes_max: u8,
    kills: u8,
    late: bool,
    fills: bool,
    operators: u8,
    without: Option<Rule>,
}

impl Quarantine {
    fn small() -> Self {
        Self { crashes_max: 3, kills: 1, late: true, fills: false, operators: 1, without: None }
    }

    fn follows(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// With how many crashes an item is claimed, and whether that must be recorded.
    fn care(&self, item: Item, boot: u8) -> (u8, bool) {
        match item.began {
            Some(began) if began == boot => (item.crashes, false),
            Some(_) => (item.crashes + 1, true),
            None if item.suspect && self.follows(Rule::SuspectsCounted) => (1, true),
            None => (0, false),
        }
    }

    fn can_claim(&self, state: &State, at: usize) -> bool {
        let item = state.items[at];
        if item.life != Life::Live || state.work[at] != Work::Idle {
            return false;
        }
        // What harms nobody goes on beside; of what may, one is at work at a time.
        let is_careful = |at: usize| state.work[at] != Work::Idle && state.items[at].crashes > 0;
        let careful = self.care(item, state.boot).0 > 0;
        !careful || !self.follows(Rule::AloneAfterCrash) || !(0..ITEMS).any(is_careful)
    }

    fn claim(&self, state: &mut State, at: usize) {
        let (crashes, record) = self.care(state.items[at], state.boot);
        if record && self.follows(Rule::RecordedThenWorked) {
            state.items[at].began = Some(state.boot);
            state.items[at].crashes = crashes;
        }
        let many = crashes >= self.crashes_max && self.follows(Rule::QuarantinedAfterMany);
        state.work[at] = if many { Work::Secure(0) } else { Work::Deliver(0) };
    }

    /// Whose ids an item has.
    fn ids(&self, at: usize) -> usize {
        if at > GOOD && !self.follows(Rule::NewIds) { BAD } else { at }
    }

    fn deliver(&self, state: &mut State, at: usize, target: usize, refused: bool) -> Work {
        let behind = behind(target, Work::Deliver, Work::Settle);
        if state.items[at].settled[target] {
            return behind;
        }
        let id = &mut state.ids[self.ids(at)][target];
        match *id {
            Id::Placed => behind,
            Id::Refused => Work::Tell(target as u8),
            Id::Secured | Id::Forgotten => {
                state.refused_as_old = at > GOOD;
                Work::Tell(target as u8)
            }
            Id::New if refused => {
                *id = Id::Refused;
                Work::Tell(target as u8)
            }
            Id::New => {
                *id = Id::Placed;
                state.copies[mailbox(at, target)] += 1;
                behind
            }
        }
    }

    fn secure(&self, state: &mut State, at: usize, target: usize) -> Work {
        let item = &mut state.items[at];
        let id = &mut state.ids[self.ids(at)][target];
        match *id {
            Id::New if self.follows(Rule::RejectedThenMoved) && !item.settled[target] => *id = Id::Secured,
            Id::New | Id::Forgotten => {}
            Id::Placed => item.settled[target] |= self.follows(Rule::PlacedCounts),
            Id::Refused | Id::Secured => {
                if target == 0 && state.late_notification && self.follows(Rule::ToldAskedInOrder) {
                    state.late_notification = false;
                    state.told[0] = true;
                }
                let told = state.told[mailbox(at, target)];
                item.settled[target] |= told && self.follows(Rule::ToldCounts);
            }
        }
        let open = item.settled.contains(&false);
        behind(target, Work::Secure, if open { Work::Move } else { Work::Settle })
    }

    fn move_there(&self, state: &mut State, at: usize) {
        let there = state.held.iter().any(|held| held.item as usize == at);
        if !there || !self.follows(Rule::MovedOnce) {
            state.held.push(Held { item: at as u8, settled: state.items[at].settled, waits: true });
        }
    }

    fn leave(&self, state: &mut State, at: usize) {
        let leaves = self.follows(Rule::LeavesItsShard);
        state.items[at].life = if leaves { Life::Gone } else { Life::Parked };
    }

    fn work(&self, state: &mut State, at: usize, refused: bool) -> Option<()> {
        state.work[at] = match state.work[at] {
            Work::Idle => return None,
            Work::Deliver(target) => self.deliver(state, at, target as usize, refused),
            Work::Tell(target) => {
                state.told[mailbox(at, target as usize)] = true;
                behind(target as usize, Work::Deliver, Work::Settle)
            }
            Work::Settle => {
                state.items[at].life = Life::Gone;
                Work::Idle
            }
            Work::Secure(target) => self.secure(state, at, target as usize),
            Work::Move => {
                if self.follows(Rule::AcceptedThenLeft) {
                    self.move_there(state, at);
                } else {
                    self.leave(state, at);
                }
                Work::Leave
            }
            Work::Leave => {
                if self.follows(Rule::AcceptedThenLeft) {
                    self.leave(state, at);
                } else {
                    self.move_there(state, at);
                }
                Work::Idle
            }
        };
        Some(())
    }

    fn release(&self, state: &mut State, operator: usize) -> Option<()> {
        state.operators[operator] = match state.operators[operator] {
            Operator::Idle => {
                let held = state.held.iter().position(|held| held.waits)?;
                Operator::Read(held as u8)
            }
            Operator::Read(held) => {
                let released = GOOD + 1..ITEMS;
                let before = released.clone().any(|at| state.items[at].life != Life::None);
                if !before || !self.follows(Rule::ReleasedOnce) || !self.follows(Rule::MovedOnce) {
                    let free = released.into_iter().find(|at| state.items[*at].life == Life::None)?;
                    let settled = state.held[held as usize].settled;
                    state.items[free] = Item { settled, ..fresh() };
                }
                Operator::Accepted(held)
            }
            Operator::Accepted(held) => {
                state.held[held as usize].waits = false;
                Operator::Idle
            }
        };
        Some(())
    }

    /// The process dies, and is started again.
    fn crash(state: &mut State) {
        state.boot += 1;
        state.work = [Work::Idle; ITEMS];
        state.operators = [Operator::Idle; 2];
        for item in state.items.iter_mut().filter(|item| item.life == Life::Live && item.began.is_none()) {
            item.suspect = true;
        }
    }

    fn late_notification(state: &mut State) {
        state.late_notification = false;
        state.told[0] = true;
    }

    fn late_append(&self, state: &mut State, target: usize) {
        state.late[target] = false;
        match state.ids[BAD][target] {
            Id::New => {
                state.ids[BAD][target] = Id::Placed;
                state.copies[mailbox(BAD, target)] += 1;
            }
            Id::Refused | Id::Secured if !self.follows(Rule::LateTellsNobody) => {
                state.told[mailbox(BAD, target)] = true;
            }
            _ => {}
        }
    }
}

fn fresh() -> Item {
    Item { life: Life::Live, began: None, crashes: 0, suspect: false, settled: [false; 2] }
}

/// The work on the next target, or what comes behind the last.
fn behind(target: usize, next: fn(u8) -> Work, last: Work) -> Work {
    if target == 0 { next(1) } else { last }
}

fn mailbox(item: usize, target: usize) -> usize {
    if item == GOOD { 2 } else { target }
}

impl Model for Quarantine {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let none = Item { life: Life::None, ..fresh() };
        let good = Item { settled: [false, true], ..fresh() };
        vec![State {
            boot: 0,
            items: [fresh(), good, none, none],
            work: [Work::Idle; ITEMS],
            ids: [[Id::New; 2]; ITEMS],
            held: Vec::new(),
            operators: [Operator::Idle; 2],
            full: false,
            late: [self.late; 2],
            late_notification: false,
            copies: [0; 3],
            told: [false; 3],
            died: 0,
            killed: 0,
            refused_as_old: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for at in 0..ITEMS {
            let number = at as u8;
            if self.can_claim(state, at) {
                actions.push(Action::Claim(number));
            }
            if state.work[at] != Work::Idle {
                actions.push(Action::Work(number));
            }
            if state.full && matches!(state.work[at], Work::Deliver(_)) {
                actions.push(Action::Refuse(number));
            }
            // The watermark is the lowest number that lives.
            let below = state.items[..=at].iter().all(|item| item.life == Life::Gone);
            if below && state.ids[at] != [Id::Forgotten; 2] {
                actions.push(Action::Forget(number));
            }
        }
        if self.fills && !state.full {
            actions.push(Action::MailboxesFill);
        }
        if state.work[BAD] == Work::Deliver(1) {
            actions.push(Action::Die);
        }
        if state.work[BAD] == Work::Tell(0) {
            actions.push(Action::DieTelling);
        }
        if state.late_notification {
            actions.push(Action::LateNotification);
        }
        if state.killed < self.kills {
            actions.push(Action::Kill);
        }
        actions.extend((0..2).filter(|target| state.late[*target as usize]).map(Action::LateAppend));
        actions.extend((0..self.operators).map(Action::Release));
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Claim(at) => self.claim(&mut state, at as usize),
            Action::Work(at) => self.work(&mut state, at as usize, false)?,
            Action::Refuse(at) => self.work(&mut state, at as usize, true)?,
            Action::MailboxesFill => state.full = true,
            Action::Die => {
                state.died += 1;
                Self::crash(&mut state);
            }
            Action::DieTelling => {
                state.died += 1;
                state.late_notification = true;
                Self::crash(&mut state);
            }
            Action::LateNotification => Self::late_notification(&mut state),
            Action::Kill => {
                state.killed += 1;
                Self::crash(&mut state);
            }
            Action::LateAppend(target) => self.late_append(&mut state, target as usize),
            Action::Forget(at) => state.ids[at as usize] = [Id::Forgotten; 2],
            Action::Release(operator) => self.release(&mut state, operator as usize)?,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONCE, |_, state: &State| state.copies.iter().all(|copies| *copies <= 1)),
            Property::always(NOT_BOTH, |_, state: &State| {
                state.copies.iter().zip(state.told).all(|(copies, told)| *copies == 0 || !told)
            }),
            Property::always(CRASHES, |model: &Self, state: &State| state.died <= model.crashes_max),
            Property::always(INNOCENT, |_, state: &State| {
                state.held.iter().all(|held| held.item as usize != GOOD)
            }),
            Property::always(CLAIMED, |_, state: &State| {
                state.items.iter().all(|item| item.life != Life::Parked)
            }),
            Property::always(CONSERVED, |_, state: &State| {
                let lives = |item: &Item| matches!(item.life, Life::Live | Life::Parked);
                (0..3).all(|mailbox_number| {
                    let is_open = |at: usize, settled: [bool; 2]| {
                        (0..2).any(|target| !settled[target] && mailbox(at, target) == mailbox_number)
                    };
                    state.copies[mailbox_number] > 0
                        || state.told[mailbox_number]
                        || (0..ITEMS)
                            .any(|at| lives(&state.items[at]) && is_open(at, state.items[at].settled))
                        || state
                            .held
                            .iter()
                            .any(|held| held.waits && is_open(held.item as usize, held.settled))
                })
            }),
            Property::always(AS_NEW, |_, state: &State| !state.refused_as_old),
            Property::sometimes("what was released is delivered", |_, state: &State| {
                state.items[GOOD + 1].life == Life::Gone && state.copies == [1, 1, 1]
            }),
        ]
    }
}

const ONCE: &str = "7: a message is in a mailbox once";
const NOT_BOTH: &str = "8: nobody is told of a failure that was none";
const CRASHES: &str = "8: an item takes the process along so often and no more";
const INNOCENT: &str = "8: only what crashes is in quarantine";
const CLAIMED: &str = "8: whatever lives in an ingest shard can be claimed, so no watermark is held back";
const CONSERVED: &str = "8: every recipient is delivered, told, under way or in quarantine";
const AS_NEW: &str = "8: what is released is not refused for what it was";

impl Checked for Quarantine {
    type Rule = Rule;

    const NAME: &str = "quarantine";
    const RULES: &[Rule] = Rule::ALL;

    fn bounds() -> Vec<Bound<Self>> {
        let small = Self::small();
        let bound = |name, states_min, model| Bound { name, model, states_min };
        vec![
            bound("late appends, a kill", 30_000, small.clone()),
            bound(
                "full mailboxes, two operators",
                240_000,
                Self { fills: true, late: false, operators: 2, ..small },
            ),
        ]
    }

    fn wide() -> Vec<(&'static str, Self)> {
        let small = Self { fills: true, operators: 2, ..Self::small() };
        vec![("five crashes, two kills, everything", Self { crashes_max: 5, kills: 2, ..small })]
    }

    fn without(rule: Rule) -> (Self, &'static str) {
        let small = Self { without: Some(rule), ..Self::small() };
        // What is told needs a mailbox that is full, what moves twice a kill, what is released twice two operators.
        match rule {
            Rule::SuspectsCounted | Rule::RecordedThenWorked | Rule::QuarantinedAfterMany => (small, CRASHES),
            Rule::AloneAfterCrash => (Self { kills: 0, ..small }, INNOCENT),
            Rule::RejectedThenMoved | Rule::PlacedCounts | Rule::MovedOnce => (small, ONCE),
            Rule::ToldCounts | Rule::ToldAskedInOrder => {
                (Self { fills: true, late: false, ..small }, NOT_BOTH)
            }
            Rule::LateTellsNobody => (small, NOT_BOTH),
            Rule::LeavesItsShard => (small, CLAIMED),
            Rule::AcceptedThenLeft => (small, CONSERVED),
            Rule::ReleasedOnce => (Self { operators: 2, ..small }, ONCE),
            Rule::NewIds => (small, AS_NEW),
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
        shown(check_bounds::<Quarantine>());
    }

    #[test]
    fn each_rule_is_needed() {
        shown(check_rules::<Quarantine>());
    }
}
