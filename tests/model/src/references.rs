//! What keeps a frame: references, the mark of dying segments, compaction, and the scrub that removes leaked references.
//!
//! One frame lies in segment 0 and is named by email 0. Writers append emails that use it again, from an address that
//! they have known for any time (a copy, an item of the queue, an undelete); an expunged email's reference goes after its
//! window. Two workers sweep segments that seem to be dead and compact those that are not, and may do so to one and the
//! same. Everybody may be paused between any two steps.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

use crate::check::{Bound, Checked, rules};

rules! {
    /// What lets somebody delete without asking everybody.
    Rule {
        /// Each use has a reference of its own, not one for each frame and account.
        NoncePerUse,
        /// Each attempt to put one has a fresh nonce, so that a late removal takes its own away and no other.
        FreshNonce,
        /// The reference is put before the commit that names the frame.
        ReferenceThenCommit,
        /// A writer puts its reference, and then looks whether the segment is dying.
        ReferenceThenLook,
        /// Where it is, the frame is referenced where it was moved to.
        FollowsMoved,
        /// There, too, the mark is looked at.
        LooksWhereMoved,
        /// A sweep marks the segment as dying, and then reads references.
        MarkThenRead,
        /// The mark is never taken back.
        DyingForEver,
        /// What is still referenced when the mark is set is copied, and published, before the segment is deleted.
        MovedThenDeleted,
        /// A copy is live when it is referenced under its origin.
        OriginsCount,
        /// Its origins are the origins of what was copied, too.
        OriginsInherited,
        /// A sweep marks the origins as well before it reads: a writer that still references one of them, which is not
        /// dying yet, would be seen by nobody.
        OriginsMarked,
        /// References under a deleted segment stay: copies of its frames live by them.
        OriginRowsStay,
        /// A scrub commits a fence before it removes what no record names.
        FenceThenScrub,
        /// A commit that was begun before the fence is begun again, with a new reference.
        BegunAgainAfterFence,
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Segment {
    /// Its bytes are there.
    object: bool,
    dying: bool,
    /// Where the frame was copied to.
    moved: Option<u8>,
    /// Segments that the frame was copied from.
    origins: BTreeSet<u8>,
}

/// Segment and nonce.
type Reference = (u8, u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Writer {
    Idle,
    /// Knows an address. `since` is the number that its commit is based on.
    Knows {
        since: u8,
        segment: u8,
    },
    /// Looked before it put its reference: without [`Rule::ReferenceThenLook`] alone.
    Looked {
        since: u8,
        segment: u8,
    },
    Referenced {
        since: u8,
        reference: Reference,
    },
    /// Has seen the mark.
    SawDying {
        since: u8,
        reference: Reference,
    },
    MayCommit {
        since: u8,
        reference: Reference,
    },
    /// Has committed before it put its reference: without [`Rule::ReferenceThenCommit`] alone.
    Committed {
        reference: Reference,
    },
    Done,
    /// Writes the body anew, which concerns nobody here.
    Anew,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Worker {
    Idle,
    Copied {
        segment: u8,
        copy: u8,
        marked: bool,
    },
    Published {
        segment: u8,
    },
    Marked {
        segment: u8,
        copied: bool,
    },
    /// Nothing is in it that is needed there.
    Empty {
        segment: u8,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Scrub {
    Idle,
    Read { head: u8, leaked: BTreeSet<Reference> },
    Fenced { leaked: BTreeSet<Reference> },
}

/// An account, the rows of segments, and everybody at work on them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    head: u8,
    fence: u8,
    /// Emails and the references that their records name.
    live: BTreeMap<u8, Reference>,
    /// Those whose references are to be removed.
    expunged: BTreeMap<u8, Reference>,
    segments: Vec<Segment>,
    references: BTreeSet<Reference>,
    writers: Vec<Writer>,
    /// References that each writer has put: its nonces.
    puts: Vec<u8>,
    attempts: Vec<u8>,
    workers: [Worker; 2],
    scrub: Scrub,
    fences: u8,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// The writer's next step.
    Write(u8),
    Expunge(u8),
    /// The window of an expunged email is over.
    Unreference(u8),
    /// A worker begins with a segment: it copies what is referenced, or takes it for dead.
    Choose {
        worker: u8,
        segment: u8,
        copies: bool,
    },
    /// The worker's next step.
    Work(u8),
    /// The scrub's next step.
    Scrub,
}

/// The model, with its bounds.
#[derive(Clone, Debug)]
pub(crate) struct References {
    writers: u8,
    /// How often a writer begins.
    attempts: u8,
    /// Segments in all: with one there is no compaction.
    segments: u8,
    fences: u8,
    without: Option<Rule>,
}

impl References {
    /// Sweeps and scrubs.
    fn swept() -> Self {
        Self { writers: 2, attempts: 2, segments: 1, fences: 1, without: None }
    }

    /// Sweeps and compaction, which is the same for every writer.
    fn compacted() -> Self {
        Self { writers: 1, attempts: 1, segments: 3, fences: 0, without: None }
    }

    fn follows(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn nonce(&self, state: &State, writer: usize) -> u8 {
        let email = writer as u8 + 1;
        match self.without {
            Some(Rule::NoncePerUse) => 0,
            Some(Rule::FreshNonce) => email,
            _ => email + 10 * state.puts[writer],
        }
    }

    fn reference(&self, state: &mut State, writer: usize, segment: u8) -> Reference {
        state.puts[writer] += 1;
        let reference = (segment, self.nonce(state, writer));
        state.references.insert(reference);
        reference
    }

    fn commit(state: &mut State, writer: usize, reference: Reference) {
        state.head += 1;
        state.live.insert(writer as u8 + 1, reference);
    }

    fn write(&self, state: &mut State, at: usize) -> Option<()> {
        let dying = |segment: u8| state.segments[segment as usize].dying;
        state.writers[at] =
            match state.writers[at] {
                Writer::Idle if state.attempts[at] >= self.attempts => return None,
                Writer::Idle => {
                    state.attempts[at] += 1;
                    Writer::Knows { since: state.head, segment: 0 }
                }
                Writer::Knows { segment, .. } if !self.follows(Rule::ReferenceThenCommit) => {
                    let reference = (segment, self.nonce(state, at));
                    Self::commit(state, at, reference);
                    Writer::Committed { reference }
                }
                Writer::Committed { reference } => {
                    state.references.insert(reference);
                    Writer::Done
                }
                Writer::Knows { since, segment } if !self.follows(Rule::ReferenceThenLook) => {
                    if dying(segment) { Writer::Anew } else { Writer::Looked { since, segment } }
                }
                Writer::Looked { since, segment } => {
                    Writer::MayCommit { since, reference: self.reference(state, at, segment) }
                }
                Writer::Knows { since, segment } => {
                    let reference = self.reference(state, at, segment);
                    if segment > 0 && !self.follows(Rule::LooksWhereMoved) {
                        Writer::MayCommit { since, reference }
                    } else {
                        Writer::Referenced { since, reference }
                    }
                }
                Writer::Referenced { since, reference } if dying(reference.0) => {
                    Writer::SawDying { since, reference }
                }
                Writer::Referenced { since, reference } => Writer::MayCommit { since, reference },
                Writer::SawDying { since, reference } => match state.segments[reference.0 as usize].moved {
                    None => Writer::Anew,
                    Some(_) if !self.follows(Rule::FollowsMoved) => Writer::MayCommit { since, reference },
                    Some(segment) => Writer::Knows { since, segment },
                },
                Writer::MayCommit { since, .. }
                    if since < state.fence && self.follows(Rule::BegunAgainAfterFence) =>
                {
                    Writer::Idle
                }
                Writer::MayCommit { reference, .. } => {
                    Self::commit(state, at, reference);
                    Writer::Done
                }
                Writer::Done | Writer::Anew => return None,
            };
        Some(())
    }

    /// Whether a frame is referenced, for all that a worker can see.
    fn is_referenced(&self, state: &State, segment: u8) -> bool {
        let origins = &state.segments[segment as usize].origins;
        let counts = |origin: u8| origins.contains(&origin) && self.follows(Rule::OriginsCount);
        state.references.iter().any(|(referenced, _)| *referenced == segment || counts(*referenced))
    }

    /// `None`: the bytes are gone, or no more segments are made.
    fn copy(&self, state: &mut State, segment: u8) -> Option<u8> {
        if !state.segments[segment as usize].object || state.segments.len() >= self.segments as usize {
            return None;
        }
        let mut origins = BTreeSet::from([segment]);
        if self.follows(Rule::OriginsInherited) {
            origins.extend(&state.segments[segment as usize].origins);
        }
        state.segments.push(Segment { object: true, dying: false, moved: None, origins });
        Some(state.segments.len() as u8 - 1)
    }

    fn mark(&self, state: &mut State, segment: u8) {
        state.segments[segment as usize].dying = true;
        if self.follows(Rule::OriginsMarked) {
            for origin in state.segments[segment as usize].origins.clone() {
                state.segments[origin as usize].dying = true;
            }
        }
    }

    fn choose(&self, state: &mut State, worker: usize, segment: u8, copies: bool) -> Option<()> {
        let referenced = self.is_referenced(state, segment);
        state.workers[worker] = if copies {
            if !referenced {
                return None;
            }
            Worker::Copied { segment, copy: self.copy(state, segment)?, marked: false }
        } else if self.follows(Rule::MarkThenRead) {
            self.mark(state, segment);
            Worker::Marked { segment, copied: false }
        } else if referenced {
            return None;
        } else {
            Worker::Empty { segment }
        };
        Some(())
    }

    fn work(&self, state: &mut State, worker: usize) -> Option<()> {
        state.workers[worker] = match state.workers[worker] {
            Worker::Idle => return None,
            Worker::Copied { segment, copy, marked } => {
                if self.follows(Rule::MovedThenDeleted) {
                    state.segments[segment as usize].moved = Some(copy);
                }
                if marked { Worker::Empty { segment } } else { Worker::Published { segment } }
            }
            Worker::Published { segment } => {
                self.mark(state, segment);
                Worker::Marked { segment, copied: true }
            }
            Worker::Marked { segment, copied } if copied || !self.is_referenced(state, segment) => {
                Worker::Empty { segment }
            }
            Worker::Marked { segment, .. } if !self.follows(Rule::DyingForEver) => {
                state.segments[segment as usize].dying = false;
                Worker::Idle
            }
            Worker::Marked { segment, .. } => {
                Worker::Copied { segment, copy: self.copy(state, segment)?, marked: true }
            }
            Worker::Empty { segment } => {
                state.segments[segment as usize].object = false;
                if !self.follows(Rule::OriginRowsStay) {
                    state.references.retain(|(referenced, _)| *referenced != segment);
                }
                Worker::Idle
            }
        };
        Some(())
    }

    fn scrub(&self, state: &mut State) -> Option<()> {
        state.scrub = match state.scrub.clone() {
            Scrub::Idle => {
                let named: BTreeSet<&Reference> =
                    state.live.values().chain(state.expunged.values()).collect();
                let leaked: BTreeSet<Reference> =
                    state.references.iter().filter(|reference| !named.contains(reference)).copied().collect();
                if leaked.is_empty() || state.fences >= self.fences {
                    return None;
                }
                Scrub::Read { head: state.head, leaked }
            }
            Scrub::Read { leaked, .. } if !self.follows(Rule::FenceThenScrub) => Scrub::Fenced { leaked },
            Scrub::Read { head, leaked } if head == state.head => {
                state.head += 1;
                state.fence = state.head;
                state.fences += 1;
                Scrub::Fenced { leaked }
            }
            // The fence lost its place to a commit, which may name what seemed to be leaked.
            Scrub::Read { .. } => Scrub::Idle,
            Scrub::Fenced { leaked } => {
                state.references.retain(|reference| !leaked.contains(reference));
                Scrub::Idle
            }
        };
        Some(())
    }

    /// Whether whoever follows an address finds the bytes.
    fn is_readable(state: &State, mut segment: u8) -> bool {
        // Moves cannot go in a circle: a copy is always a new segment.
        loop {
            let row = &state.segments[segment as usize];
            match row.moved {
                _ if row.object => return true,
                Some(moved) => segment = moved,
                None => return false,
            }
        }
    }
}

impl Model for References {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let first = Segment { object: true, dying: false, moved: None, origins: BTreeSet::new() };
        vec![State {
            head: 1,
            fence: 0,
            live: [(0, (0, 0))].into(),
            expunged: BTreeMap::new(),
            segments: vec![first],
            references: [(0, 0)].into(),
            writers: vec![Writer::Idle; self.writers as usize],
            puts: vec![0; self.writers as usize],
            attempts: vec![0; self.writers as usize],
            workers: [Worker::Idle; 2],
            scrub: Scrub::Idle,
            fences: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend((0..self.writers).map(Action::Write));
        actions.extend(state.live.keys().copied().map(Action::Expunge));
        actions.extend(state.expunged.keys().copied().map(Action::Unreference));
        if self.fences > 0 {
            actions.push(Action::Scrub);
        }
        for (worker, stage) in (0..).zip(&state.workers) {
            if *stage != Worker::Idle {
                actions.push(Action::Work(worker));
                continue;
            }
            let there = (0..).zip(&state.segments).filter(|(_, segment)| segment.object);
            for (segment, _) in there {
                actions.push(Action::Choose { worker, segment, copies: false });
                actions.push(Action::Choose { worker, segment, copies: true });
            }
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Write(writer) => self.write(&mut state, writer as usize)?,
            Action::Expunge(email) => {
                let reference = state.live.remove(&email)?;
                state.expunged.insert(email, reference);
                state.head += 1;
            }
            Action::Unreference(email) => {
                let reference = state.expunged.remove(&email)?;
                state.references.remove(&reference);
            }
            Action::Choose { worker, segment, copies } => {
                self.choose(&mut state, worker as usize, segment, copies)?;
            }
            Action::Work(worker) => self.work(&mut state, worker as usize)?,
            Action::Scrub => self.scrub(&mut state)?,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(READABLE, |_, state: &State| {
                state.live.values().all(|(segment, _)| Self::is_readable(state, *segment))
            }),
            Property::sometimes("the first segment is deleted", |model: &Self, state: &State| {
                !state.segments[0].object && (model.segments == 1 || state.live.contains_key(&1))
            }),
        ]
    }
}

const READABLE: &str = "6: every live email can be read";

impl Checked for References {
    type Rule = Rule;

    const NAME: &str = "references";
    const RULES: &[Rule] = Rule::ALL;

    fn bounds() -> Vec<Bound<Self>> {
        let bound = |name, states_min, model| Bound { name, model, states_min };
        vec![
            bound("two writers, sweeps, a scrub", 75_000, Self::swept()),
            bound("one writer, sweeps and compaction, three segments", 33_000, Self::compacted()),
            bound(
                "two writers, sweeps and compaction, three segments",
                980_000,
                Self { writers: 2, ..Self::compacted() },
            ),
        ]
    }

    fn wide() -> Vec<(&'static str, Self)> {
        vec![
            ("two writers, sweeps, two scrubs", Self { attempts: 3, fences: 2, ..Self::swept() }),
            ("two writers, compaction, four segments", Self { writers: 2, segments: 4, ..Self::compacted() }),
            ("two writers, compaction, a scrub", Self { segments: 3, ..Self::swept() }),
        ]
    }

    fn without(rule: Rule) -> (Self, &'static str) {
        let swept = Self { without: Some(rule), ..Self::swept() };
        let compacted = Self { without: Some(rule), ..Self::compacted() };
        match rule {
            Rule::FollowsMoved
            | Rule::LooksWhereMoved
            | Rule::MovedThenDeleted
            | Rule::OriginsCount
            | Rule::OriginsInherited
            | Rule::OriginsMarked
            | Rule::OriginRowsStay => (compacted, READABLE),
            _ => (swept, READABLE),
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
        shown(check_bounds::<References>());
    }

    #[test]
    fn each_rule_is_needed() {
        shown(check_rules::<References>());
    }
}
