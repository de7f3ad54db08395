//! Snapshots as immutable pages, and their collection without a clock.
//!
//! A node that has folded so far builds a snapshot on the one that its state comes from: what changed becomes new pages
//! under the name of the attempt, the rest is kept and listed again; then the pointer is swung. Whoever holds the list of
//! a snapshot collects what is older. A node may be paused for any time between scanning and deleting, a swing may land
//! late, a builder may forget what it was about. The log is a head that grows; the model `commit` has the rest of it.
//!
//! Operation `seq` dirties page 1, every third one page 0. A page is named by attempt and number; number 2 is the root.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

use crate::check::{Bound, Checked, rules};

rules! {
    /// What keeps every page that somebody may still need.
    Rule {
        /// Collected is what was built on a snapshot older than the one whose list is held: what is not listed there may
        /// belong to a snapshot that becomes current yet.
        OlderBaseOnly,
        /// Older means less, not equal: attempts on the same base go on.
        StrictlyOlder,
        /// The root is kept, although no list has it.
        RootKept,
        /// The list is that of a snapshot which was seen to be current: read, or swung to with certainty.
        SeenToBeCurrent,
        /// Nobody deletes the pages of an own attempt that lost: its swing may land yet.
        OwnAttemptsStay,
        /// Everything that was dirtied since that list is written anew, not only what came last.
        DirtyIsWritten,
        /// What is kept comes from the list of the snapshot that the swing names.
        KeptFromBase,
        /// The pointer is swung by a compare-and-swap from that snapshot.
        SwingFromBase,
        /// All pages and the root are written before the swing.
        WrittenBeforeSwing,
        /// Every attempt has a name of its own.
        FreshNames,
    }
}

const ROOT: u8 = 2;

/// Name of the attempt, and number.
type Page = (u8, u8);

/// The page that operation `seq` dirties.
fn dirtied(seq: u8) -> u8 {
    u8::from(!seq.is_multiple_of(3))
}

/// A snapshot, from the moment at which somebody begins to write it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Attempt {
    name: u8,
    base: u8,
    base_seq: u8,
    seq: u8,
    /// What it lists, and which attempt wrote that.
    listed: [(Page, u8); 2],
}

impl Attempt {
    fn root(&self) -> Page {
        (self.name, ROOT)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Builder {
    Idle,
    WritesPages(u8),
    WritesRoot(u8),
    Ready(u8),
    /// The swing was not answered.
    Unknown(u8),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    seq: u8,
    /// The snapshot that the state comes from, and whose list is held.
    base: u8,
    /// Whose list what is kept is taken from; the base, but for a broken rule.
    list: u8,
    builder: Builder,
    /// Pages that a scan has found, and which are deleted at some later time.
    doomed: Vec<Page>,
}

/// Somebody who loads the current snapshot, page by page.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Reader {
    Idle,
    Reads { snapshot: u8, got: [bool; 3] },
}

/// Pointer, pages, and everybody at work on them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    head: u8,
    current: u8,
    attempts: Vec<Attempt>,
    /// What is stored, and by which attempt.
    pages: BTreeMap<Page, u8>,
    /// Swings that may land yet, from and to.
    adrift: BTreeSet<(u8, u8)>,
    nodes: Vec<Node>,
    reader: Reader,
    unknowns: u8,
    /// A page was missing although the pointer had not moved.
    alarm: bool,
}

/// One step; the number is the node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// The log grows.
    Commit,
    /// A node folds to the head, from the snapshot that is current.
    Load(u8),
    /// A node learns which snapshot is current, and no more: without [`Rule::KeptFromBase`] alone.
    LearnPointer(u8),
    /// A node begins a snapshot. It may write clean pages anew.
    Build {
        node: u8,
        everything: bool,
    },
    Write(u8),
    Swing(u8),
    /// The swing is not answered, and may land.
    SwingAdrift(u8),
    /// The swing is applied and not answered.
    SwingApplied(u8),
    /// The builder looks which snapshot is current.
    Look(u8),
    /// The builder forgets its attempt, or its process has died.
    Forget(u8),
    /// A swing lands for which nobody waits.
    Land(u8),
    Scan(u8),
    Delete(u8),
    BeginReading,
    /// A page of the snapshot is read.
    Read(u8),
}

/// The model, with its bounds.
#[derive(Clone, Debug)]
pub(crate) struct PageCollection {
    head: u8,
    attempts: u8,
    unknowns: u8,
    nodes: u8,
    reader: bool,
    everything: bool,
    without: Option<Rule>,
}

impl PageCollection {
    fn small() -> Self {
        Self { head: 3, attempts: 2, unknowns: 1, nodes: 2, reader: false, everything: false, without: None }
    }

    fn follows(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn can_land(&self, state: &State, (from, _): (u8, u8)) -> bool {
        from == state.current || !self.follows(Rule::SwingFromBase)
    }

    fn land(&self, state: &mut State, swing: (u8, u8)) {
        state.current = swing.1;
        let mut adrift = std::mem::take(&mut state.adrift);
        adrift.retain(|swing| self.can_land(state, *swing));
        state.adrift = adrift;
    }

    /// What whoever holds the list of a snapshot may delete.
    fn collectable(&self, state: &State, snapshot: u8) -> Vec<Page> {
        let held = &state.attempts[snapshot as usize];
        let is_old = |base_seq: u8| match self.without {
            Some(Rule::OlderBaseOnly) => true,
            Some(Rule::StrictlyOlder) => base_seq <= held.seq,
            _ => base_seq < held.seq,
        };
        let is_kept = |page: &Page| {
            held.listed.iter().any(|(listed, _)| listed == page)
                || (*page == held.root() && self.follows(Rule::RootKept))
        };
        let old = state.pages.iter().filter(|(_, writer)| is_old(state.attempts[**writer as usize].base_seq));
        old.map(|(page, _)| *page).filter(|page| !is_kept(page)).collect()
    }

    fn build(&self, state: &mut State, at: usize, everything: bool) {
        let node = &state.nodes[at];
        let (base, seq) = (node.base, node.seq);
        let list = &state.attempts[node.list as usize];
        let number = state.attempts.len() as u8;
        let name = if self.follows(Rule::FreshNames) { number } else { base + 1 };
        let mut listed = list.listed;
        let dirty_from = if self.follows(Rule::DirtyIsWritten) { list.seq + 1 } else { seq };
        for page in 0..2 {
            if everything || (dirty_from..=seq).any(|seq| dirtied(seq) == page) {
                listed[page as usize] = ((name, page), number);
            }
        }
        let base_seq = state.attempts[base as usize].seq;
        state.attempts.push(Attempt { name, base, base_seq, seq, listed });
        state.nodes[at].builder = if self.follows(Rule::WrittenBeforeSwing) {
            Builder::WritesPages(number)
        } else {
            Builder::Ready(number)
        };
    }

    fn write(state: &mut State, at: usize) {
        state.nodes[at].builder = match state.nodes[at].builder {
            Builder::WritesPages(attempt) => {
                let listed = state.attempts[attempt as usize].listed;
                state.pages.extend(listed.iter().filter(|(_, writer)| *writer == attempt).copied());
                Builder::WritesRoot(attempt)
            }
            Builder::WritesRoot(attempt) => {
                state.pages.insert(state.attempts[attempt as usize].root(), attempt);
                Builder::Ready(attempt)
            }
            other => other,
        };
    }

    fn won(state: &mut State, at: usize, attempt: u8) {
        let node = &mut state.nodes[at];
        (node.base, node.list, node.builder) = (attempt, attempt, Builder::Idle);
    }

    fn lost(&self, state: &mut State, at: usize, attempt: u8) {
        state.nodes[at].builder = Builder::Idle;
        if !self.follows(Rule::OwnAttemptsStay) {
            let own = state.pages.iter().filter(|(_, writer)| **writer == attempt);
            state.nodes[at].doomed = own.map(|(page, _)| *page).collect();
        }
    }

    /// `None`: this way of not being answered is another one's.
    fn swing(&self, state: &mut State, at: usize, action: Action) -> Option<()> {
        let (Builder::Ready(attempt) | Builder::Unknown(attempt)) = state.nodes[at].builder else {
            return None;
        };
        let swing = (state.attempts[attempt as usize].base, attempt);
        let can_land = self.can_land(state, swing);
        match action {
            Action::SwingAdrift(_) => {
                state.unknowns += 1;
                if can_land {
                    state.adrift.insert(swing);
                }
                state.nodes[at].builder = Builder::Unknown(attempt);
                if !self.follows(Rule::SeenToBeCurrent) {
                    (state.nodes[at].base, state.nodes[at].list) = (attempt, attempt);
                }
            }
            Action::SwingApplied(_) if !can_land => return None,
            Action::SwingApplied(_) => {
                state.unknowns += 1;
                self.land(state, swing);
                state.nodes[at].builder = Builder::Unknown(attempt);
            }
            _ if can_land => {
                self.land(state, swing);
                Self::won(state, at, attempt);
            }
            _ => self.lost(state, at, attempt),
        }
        Some(())
    }

    /// `None`: nothing is decided by what is seen.
    fn look(&self, state: &mut State, at: usize) -> Option<()> {
        let Builder::Unknown(attempt) = state.nodes[at].builder else { return None };
        if state.current == attempt {
            Self::won(state, at, attempt);
        } else if state.current != state.attempts[attempt as usize].base {
            self.lost(state, at, attempt);
        } else {
            return None;
        }
        Some(())
    }

    fn read(state: &mut State, number: u8) {
        let Reader::Reads { snapshot, mut got } = state.reader else { return };
        let attempt = &state.attempts[snapshot as usize];
        let page = if number == ROOT { attempt.root() } else { attempt.listed[number as usize].0 };
        if state.pages.contains_key(&page) {
            got[number as usize] = true;
            let complete = got.iter().all(|got| *got);
            state.reader = if complete { Reader::Idle } else { Reader::Reads { snapshot, got } };
        } else {
            state.alarm |= state.current == snapshot;
            state.reader = Reader::Idle;
        }
    }

    fn node_actions(&self, state: &State, at: u8, actions: &mut Vec<Action>) {
        let node = &state.nodes[at as usize];
        if node.seq < state.head || node.base != state.current {
            actions.push(Action::Load(at));
        }
        let current_seq = state.attempts[state.current as usize].seq;
        if !self.follows(Rule::KeptFromBase) && node.base != state.current && node.seq >= current_seq {
            actions.push(Action::LearnPointer(at));
        }
        match node.builder {
            Builder::Idle => {
                let room = state.attempts.len() <= self.attempts as usize;
                if room && node.seq > state.attempts[node.base as usize].seq {
                    actions.push(Action::Build { node: at, everything: false });
                    if self.everything {
                        actions.push(Action::Build { node: at, everything: true });
                    }
                }
            }
            Builder::WritesPages(_) | Builder::WritesRoot(_) => actions.push(Action::Write(at)),
            Builder::Ready(_) => {
                actions.push(Action::Swing(at));
                if state.unknowns < self.unknowns {
                    actions.push(Action::SwingAdrift(at));
                    actions.push(Action::SwingApplied(at));
                }
            }
            Builder::Unknown(_) => actions.extend([Action::Look(at), Action::Swing(at), Action::Forget(at)]),
        }
        actions.push(if node.doomed.is_empty() { Action::Scan(at) } else { Action::Delete(at) });
    }
}

impl Model for PageCollection {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let first = Attempt { name: 0, base: 0, base_seq: 0, seq: 0, listed: [((0, 0), 0), ((0, 1), 0)] };
        let node = Node { seq: 0, base: 0, list: 0, builder: Builder::Idle, doomed: Vec::new() };
        vec![State {
            head: 0,
            current: 0,
            attempts: vec![first],
            pages: [((0, 0), 0), ((0, 1), 0), ((0, ROOT), 0)].into(),
            adrift: BTreeSet::new(),
            nodes: vec![node; self.nodes as usize],
            reader: Reader::Idle,
            unknowns: 0,
            alarm: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.head < self.head {
            actions.push(Action::Commit);
        }
        for at in 0..self.nodes {
            self.node_actions(state, at, actions);
        }
        actions.extend((0..state.adrift.len() as u8).map(Action::Land));
        match state.reader {
            Reader::Idle if self.reader => actions.push(Action::BeginReading),
            Reader::Idle => {}
            Reader::Reads { got, .. } if !got[ROOT as usize] => actions.push(Action::Read(ROOT)),
            Reader::Reads { got, .. } => {
                actions.extend((0..2).filter(|number| !got[*number as usize]).map(Action::Read));
            }
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Commit => state.head += 1,
            Action::Load(at) => {
                let node = &mut state.nodes[at as usize];
                (node.seq, node.base, node.list) = (state.head, state.current, state.current);
            }
            Action::LearnPointer(at) => state.nodes[at as usize].base = state.current,
            Action::Build { node, everything } => self.build(&mut state, node as usize, everything),
            Action::Write(at) => Self::write(&mut state, at as usize),
            Action::Swing(at) | Action::SwingAdrift(at) | Action::SwingApplied(at) => {
                self.swing(&mut state, at as usize, action)?;
            }
            Action::Look(at) => self.look(&mut state, at as usize)?,
            Action::Forget(at) => state.nodes[at as usize].builder = Builder::Idle,
            Action::Land(index) => {
                let swing = state.adrift.iter().nth(index as usize).copied()?;
                state.adrift.remove(&swing);
                self.land(&mut state, swing);
            }
            Action::Scan(at) => {
                let doomed = self.collectable(&state, state.nodes[at as usize].base);
                if doomed.is_empty() {
                    return None;
                }
                state.nodes[at as usize].doomed = doomed;
            }
            Action::Delete(at) => {
                for page in std::mem::take(&mut state.nodes[at as usize].doomed) {
                    state.pages.remove(&page);
                }
            }
            Action::BeginReading => {
                state.reader = Reader::Reads { snapshot: state.current, got: [false; 3] };
            }
            Action::Read(number) => Self::read(&mut state, number),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LISTED, |_, state: &State| {
                let current = &state.attempts[state.current as usize];
                let root = (current.root(), state.current);
                let mut needed = current.listed.iter().chain([&root]);
                needed.all(|(page, writer)| state.pages.get(page) == Some(writer))
            }),
            Property::always(CONTENT, |_, state: &State| {
                let current = &state.attempts[state.current as usize];
                (0..2).zip(&current.listed).all(|(page, (_, writer))| {
                    let written = state.attempts[*writer as usize].seq;
                    written <= current.seq && !(written + 1..=current.seq).any(|seq| dirtied(seq) == page)
                })
            }),
            Property::always(READ, |_, state: &State| !state.alarm),
            Property::sometimes("only what is current is left", |_, state: &State| {
                let current = &state.attempts[state.current as usize];
                let needed = current.listed.iter().map(|(page, _)| *page).chain([current.root()]);
                current.base != 0 && needed.collect::<BTreeSet<_>>() == state.pages.keys().copied().collect()
            }),
        ]
    }
}

const LISTED: &str = "6: every page that the current snapshot lists is there";
const CONTENT: &str = "5: the current snapshot lists what its state is";
const READ: &str = "6: no page is missed while the pointer stays";

impl Checked for PageCollection {
    type Rule = Rule;

    const NAME: &str = "page collection";
    const RULES: &[Rule] = Rule::ALL;

    fn bounds() -> Vec<Bound<Self>> {
        let small = Self::small();
        let bound = |name, states_min, model| Bound { name, model, states_min };
        vec![
            bound("a reader", 250_000, Self { reader: true, head: 2, ..small.clone() }),
            bound("three attempts", 500_000, Self { attempts: 3, head: 2, ..small.clone() }),
            bound("three nodes", 600_000, Self { nodes: 3, head: 2, ..small.clone() }),
            bound("builders may write everything anew", 440_000, Self { everything: true, ..small }),
        ]
    }

    fn wide() -> Vec<(&'static str, Self)> {
        let small = Self::small();
        vec![
            ("four attempts", Self { attempts: 4, head: 4, ..small.clone() }),
            (
                "three nodes, three attempts, two unknown",
                Self { nodes: 3, attempts: 3, unknowns: 2, ..small },
            ),
        ]
    }

    fn without(rule: Rule) -> (Self, &'static str) {
        let three = Self { attempts: 3, head: 4, without: Some(rule), ..Self::small() };
        match rule {
            Rule::RootKept => (Self { reader: true, ..three }, READ),
            Rule::DirtyIsWritten => (three, CONTENT),
            Rule::OlderBaseOnly
            | Rule::StrictlyOlder
            | Rule::SeenToBeCurrent
            | Rule::OwnAttemptsStay
            | Rule::WrittenBeforeSwing
            | Rule::FreshNames => (three, LISTED),
            Rule::KeptFromBase => (Self { everything: true, unknowns: 0, ..three }, LISTED),
            Rule::SwingFromBase => (three, LISTED),
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
        shown(check_bounds::<PageCollection>());
    }

    #[test]
    fn each_rule_is_needed() {
        shown(check_rules::<PageCollection>());
    }
}
