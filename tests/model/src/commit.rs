//! One log and the nodes that work on it: commits by compare-and-swap on the head, snapshots, trim and archive.
//!
//! A node folds entries, builds a group of requests on what it has folded, and proposes it at the number that it expects
//! the head to have. An answer may be lost: then the write was applied, or never will be, or lands at some later time.
//! Between commits a node swings the snapshot pointer, writes chunks of the archive, or is closed and loads again; it can
//! die at any step. Pages are the affair of the model `page collection`: here a snapshot is the folded state itself.
//!
//! Numbers begin behind one message, so that there is something to expunge: entry 1 is in the first snapshot.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

use crate::check::{Bound, Checked, rules};

rules! {
    /// What keeps a log right whatever happens to nodes and answers.
    Rule {
        /// A proposal whose outcome is unknown is proposed again with the same bytes and the same nonce.
        SameNonce,
        /// While a proposal is undecided its requests go into no other one, and the log is not loaded again.
        UndecidedStaysClosed,
        /// After a conflict the place of the proposal is looked at: an earlier attempt may have taken it.
        ConflictLooksAtThePlace,
        /// The place is the entry that begins exactly behind the expected head, not the first one that is left.
        ExactPlace,
        /// Where the place was trimmed away after an unknown outcome nobody can tell; only what notices an earlier
        /// application by its ingest id is built again.
        TrimmedStaysUnknown,
        /// Whatever a request decides is decided again, on the state before it, for each proposal.
        BuiltAgain,
        /// Nobody is answered before the entry is there.
        AnsweredAfterCommit,
        /// An answer that changes nothing waits for the group that it was built in: it may rest on the others.
        UnchangedWaitsForGroup,
        /// A delivery looks for its ingest id among those that are folded.
        IngestIdInFold,
        /// A tail that does not begin behind the snapshot, or has a gap, is read again.
        DenseTail,
        /// The pointer is swung by a compare-and-swap from the snapshot that the new one was made from.
        SwingFromBase,
        /// That is the snapshot which the state itself was loaded from or has swung to; if another one is known to have
        /// become current the log is loaded again first. So a snapshot never goes back.
        BaseIsTheStates,
        /// Only a snapshot that was seen to be current counts for trimming, not one whose swing has no answer.
        TrimKnownOnly,
        /// Nothing is trimmed that is not in the archive.
        TrimArchivedOnly,
        /// A chunk counts only if it follows the one that is committed.
        ArchiveChained,
    }
}

/// What somebody wants of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Request {
    /// A message, whose UID is the next one.
    Append,
    /// The same with an ingest id, which is placed once.
    Deliver(u8),
    /// The message with this UID goes. Is refused when it is not there.
    Expunge(u8),
}

use Request::{Append, Deliver, Expunge};

/// Stands for the actor's own request in queues and entries.
const SAY_ARCHIVED: u8 = 9;
/// Proposals of a node: more add nothing but copies of the same.
const PROPOSALS_MAX: u8 = 4;

/// What an operation does, resolved when it was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Effect {
    Put { uid: u8, ingest: Option<u8> },
    Remove(u8),
    Archived(u8),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Entry {
    nonce: u8,
    /// The head that it was proposed on.
    expected: u8,
    /// Request and effect.
    operations: Vec<(u8, Effect)>,
}

impl Entry {
    fn last_seq(&self) -> u8 {
        self.expected + self.operations.len() as u8
    }
}

/// A state folded from entries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Folded {
    seq: u8,
    uid_next: u8,
    messages: BTreeMap<u8, u8>,
    ingested: BTreeSet<u8>,
    archived: u8,
}

impl Folded {
    fn first() -> Self {
        Self { seq: 1, uid_next: 2, messages: [(1, 99)].into(), ingested: BTreeSet::new(), archived: 1 }
    }

    fn fold(&mut self, entry: &Entry) {
        for (request, effect) in &entry.operations {
            self.fold_one(*request, *effect);
        }
        self.seq = entry.last_seq();
    }

    fn fold_one(&mut self, request: u8, effect: Effect) {
        match effect {
            Effect::Put { uid, ingest } => {
                self.messages.insert(uid, request);
                self.uid_next = uid + 1;
                self.ingested.extend(ingest);
            }
            Effect::Remove(uid) => {
                self.messages.remove(&uid);
            }
            Effect::Archived(to) => self.archived = to,
        }
    }
}

/// A conditional write that may still land although nobody waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Write {
    Append(Entry, u8),
    Swing { from: u8, to: u8 },
}

/// A group under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Proposal {
    entry: Entry,
    /// Entries up to here go with it.
    trim_to: u8,
    /// Requests in it that change nothing.
    unchanged: Vec<u8>,
    /// An earlier attempt had no answer.
    undecided: bool,
}

/// Whether a node has its log in memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Loading {
    Done,
    Begins,
    /// The first of two reads: head and snapshot, and the first entry behind it.
    Torn {
        head: u8,
        snapshot: u8,
        rows: Vec<Entry>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    loading: Loading,
    folded: Folded,
    /// The snapshot that the state was loaded from or swung to.
    base: u8,
    /// The newest that was seen to be current.
    known: u8,
    queue: Vec<u8>,
    proposal: Option<Proposal>,
    /// What a lost group had built: used again without [`Rule::BuiltAgain`].
    kept: Vec<(u8, Effect)>,
    /// A snapshot that is written, and the one that it was made from.
    attempt: Option<(u8, u8)>,
    /// A chunk that is in the archive, `from` and `to`.
    chunk: Option<(u8, u8)>,
    proposals: u8,
}

impl Node {
    fn new(loading: Loading, proposals: u8) -> Self {
        Self {
            loading,
            folded: Folded::first(),
            base: 0,
            known: 0,
            queue: Vec::new(),
            proposal: None,
            kept: Vec::new(),
            attempt: None,
            chunk: None,
            proposals,
        }
    }

    /// Ready to propose, to swing, to follow or to be closed.
    fn is_free(&self) -> bool {
        self.loading == Loading::Done && self.proposal.is_none()
    }
}

/// The log, and all that looks at it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// Every entry that was ever applied, in order.
    history: Vec<Entry>,
    head: u8,
    /// Entries up to here cannot be read any more.
    trimmed: u8,
    current: u8,
    snapshots: Vec<Folded>,
    /// Writes that were given up, or whose writer died, and which may land yet.
    adrift: BTreeSet<Write>,
    nodes: Vec<Node>,
    begun: u8,
    acknowledged: u8,
    chunks: u8,
    unknowns: u8,
    closings: u8,
    crashes: u8,
}

/// How a lost answer leaves the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lost {
    /// It was applied, if it could be.
    Applied,
    /// It may be applied at any later time, or never.
    Adrift,
}

/// One step; the number is the node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A request comes to its node.
    Begin(u8),
    Propose(u8),
    /// The proposal is answered.
    Decide(u8),
    /// The proposal is not answered in time.
    DecideUnknown(u8, Lost),
    Follow(u8),
    Snapshot(u8),
    Swing(u8),
    SwingUnknown(u8, Lost),
    /// Another snapshot has become current: load again.
    Reload(u8),
    WriteChunk(u8),
    /// The log is closed and will be opened again.
    Close(u8),
    Crash(u8),
    /// One of the two reads of a load.
    Load(u8),
    /// A write lands for which nobody waits any more.
    Land(u8),
}

/// What a request comes to on the state that it is built on.
enum Built {
    Refused,
    /// It is so already.
    Unchanged,
    Effect(Effect),
}

/// The model, with its bounds.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    /// Requests and the nodes that they come to.
    requests: Vec<(Request, u8)>,
    nodes: u8,
    unknowns: u8,
    closings: u8,
    crashes: u8,
    snapshots: u8,
    /// Chunks that are ever written; with none there is no archive.
    chunks: u8,
    without: Option<Rule>,
}

impl Commit {
    fn of(requests: &[(Request, u8)]) -> Self {
        Self {
            requests: requests.to_vec(),
            nodes: 2,
            unknowns: 1,
            closings: 0,
            crashes: 0,
            snapshots: 2,
            chunks: 0,
            without: None,
        }
    }

    fn follows(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn repeatable(&self, request: u8) -> bool {
        request == SAY_ARCHIVED || matches!(self.requests[request as usize].0, Deliver(_))
    }

    fn can_land(&self, state: &State, write: &Write) -> bool {
        match write {
            Write::Append(entry, _) => entry.expected == state.head,
            Write::Swing { from, .. } => !self.follows(Rule::SwingFromBase) || *from == state.current,
        }
    }

    fn land(&self, state: &mut State, write: &Write) {
        match write {
            Write::Append(entry, trim_to) => {
                state.head = entry.last_seq();
                state.history.push(entry.clone());
                state.trimmed = state.trimmed.max(*trim_to);
            }
            Write::Swing { to, .. } => state.current = *to,
        }
        let mut adrift = std::mem::take(&mut state.adrift);
        adrift.retain(|write| self.can_land(state, write));
        state.adrift = adrift;
    }

    /// The write gets no answer. `false`: it could not have been applied, which is the same as [`Lost::Adrift`].
    fn lose(&self, state: &mut State, write: Write, lost: Lost) -> bool {
        state.unknowns += 1;
        match (self.can_land(state, &write), lost) {
            (true, Lost::Applied) => self.land(state, &write),
            (true, Lost::Adrift) => {
                state.adrift.insert(write);
            }
            (false, Lost::Applied) => return false,
            (false, Lost::Adrift) => {}
        }
        true
    }

    fn trim_limit(&self, state: &State, node: &Node) -> u8 {
        let snapshot = state.snapshots[node.known as usize].seq;
        if self.chunks > 0 && self.follows(Rule::TrimArchivedOnly) {
            snapshot.min(node.folded.archived)
        } else {
            snapshot
        }
    }

    fn build(&self, request: u8, on: &Folded, chunk: Option<(u8, u8)>) -> Built {
        if request == SAY_ARCHIVED {
            let (from, to) = chunk.expect("a chunk is written before the request comes");
            let follows = on.archived == from || !self.follows(Rule::ArchiveChained);
            return if follows { Built::Effect(Effect::Archived(to)) } else { Built::Unchanged };
        }
        match self.requests[request as usize].0 {
            Append => Built::Effect(Effect::Put { uid: on.uid_next, ingest: None }),
            Deliver(id) if self.follows(Rule::IngestIdInFold) && on.ingested.contains(&id) => {
                Built::Unchanged
            }
            Deliver(id) => Built::Effect(Effect::Put { uid: on.uid_next, ingest: Some(id) }),
            Expunge(uid) if on.messages.contains_key(&uid) => Built::Effect(Effect::Remove(uid)),
            Expunge(_) => Built::Refused,
        }
    }

    fn propose(&self, state: &mut State, at: usize) {
        let trim_to = self.trim_limit(state, &state.nodes[at]);
        let node = &mut state.nodes[at];
        let mut speculative = node.folded.clone();
        let mut operations = std::mem::take(&mut node.kept);
        let mut unchanged = Vec::new();
        for (request, effect) in &operations {
            speculative.fold_one(*request, *effect);
        }
        for request in std::mem::take(&mut node.queue) {
            if operations.iter().any(|(built, _)| *built == request) {
                continue;
            }
            match self.build(request, &speculative, node.chunk) {
                Built::Refused => {}
                Built::Unchanged => unchanged.push(request),
                Built::Effect(effect) => {
                    speculative.fold_one(request, effect);
                    operations.push((request, effect));
                }
            }
        }
        if operations.is_empty() || !self.follows(Rule::UnchangedWaitsForGroup) {
            // Alone they rest on what is durable.
            acknowledge(state, at, std::mem::take(&mut unchanged));
        }
        if operations.is_empty() {
            return;
        }
        let node = &mut state.nodes[at];
        node.proposals += 1;
        let nonce = at as u8 * 50 + node.proposals;
        let requests = operations.iter().map(|(request, _)| *request).collect();
        let entry = Entry { nonce, expected: node.folded.seq, operations };
        node.proposal = Some(Proposal { entry, trim_to, unchanged, undecided: false });
        if !self.follows(Rule::AnsweredAfterCommit) {
            acknowledge(state, at, requests);
        }
    }

    fn decide(&self, state: &mut State, at: usize) {
        let proposal = state.nodes[at].proposal.clone().expect("only what is proposed is decided");
        let Proposal { entry, trim_to, undecided, .. } = proposal;
        let write = Write::Append(entry.clone(), trim_to);
        if self.can_land(state, &write) {
            self.land(state, &write);
            return self.applied(state, at);
        }
        if !self.follows(Rule::ConflictLooksAtThePlace) {
            return self.lost(state, at);
        }
        let first = rows_behind(state, entry.expected).next();
        let place =
            first.filter(|row| row.expected == entry.expected || !self.follows(Rule::ExactPlace)).cloned();
        match place {
            Some(row) if row.nonce == entry.nonce => self.applied(state, at),
            Some(_) => self.lost(state, at),
            // A conflict says that this call was not applied, and there was none before it.
            None if !undecided => self.lost(state, at),
            None => {
                if self.follows(Rule::TrimmedStaysUnknown) {
                    let proposal = state.nodes[at].proposal.as_mut().expect("it is being decided");
                    // Nobody is answered: whoever asked learns that the outcome is not known.
                    proposal.entry.operations.retain(|(request, _)| self.repeatable(*request));
                    proposal.unchanged.clear();
                }
                self.lost(state, at);
            }
        }
    }

    fn applied(&self, state: &mut State, at: usize) {
        let node = &mut state.nodes[at];
        let Proposal { entry, unchanged, .. } = node.proposal.take().expect("it was just decided");
        node.folded.fold(&entry);
        let requests = entry.operations.iter().map(|(request, _)| *request).chain(unchanged).collect();
        acknowledge(state, at, requests);
        self.follow(state, at);
    }

    /// The group goes back to the queue, and what took its place is read.
    fn lost(&self, state: &mut State, at: usize) {
        let node = &mut state.nodes[at];
        let Proposal { entry, unchanged, .. } = node.proposal.take().expect("it was just decided");
        if !self.follows(Rule::BuiltAgain) {
            node.kept.clone_from(&entry.operations);
        }
        let requests = entry.operations.iter().map(|(request, _)| *request).chain(unchanged);
        node.queue = requests.chain(std::mem::take(&mut node.queue)).collect();
        self.follow(state, at);
    }

    fn follow(&self, state: &mut State, at: usize) {
        let seq = state.nodes[at].folded.seq;
        if state.trimmed > seq && self.follows(Rule::DenseTail) {
            return reload(state, at);
        }
        let rows: Vec<Entry> = rows_behind(state, seq).cloned().collect();
        let node = &mut state.nodes[at];
        for row in &rows {
            node.folded.fold(row);
        }
        learn(state, at);
    }

    fn load(&self, state: &mut State, at: usize) {
        let (head, snapshot, mut rows) = match state.nodes[at].loading.clone() {
            Loading::Done => return,
            Loading::Begins => {
                let seq = state.snapshots[state.current as usize].seq;
                let rows = rows_behind(state, seq).take(1).cloned().collect();
                let torn = Loading::Torn { head: state.head, snapshot: state.current, rows };
                state.nodes[at].loading = torn;
                return;
            }
            Loading::Torn { head, snapshot, rows } => (head, snapshot, rows),
        };
        let mut folded = state.snapshots[snapshot as usize].clone();
        let from = rows.last().map_or(folded.seq, Entry::last_seq);
        rows.extend(rows_behind(state, from).filter(|row| row.last_seq() <= head).cloned());
        for row in &rows {
            if self.follows(Rule::DenseTail) && row.expected != folded.seq {
                state.nodes[at].loading = Loading::Begins;
                return;
            }
            folded.fold(row);
        }
        if folded.seq != head && self.follows(Rule::DenseTail) {
            state.nodes[at].loading = Loading::Begins;
            return;
        }
        folded.seq = head;
        let node = &mut state.nodes[at];
        (node.folded, node.base, node.known) = (folded, snapshot, snapshot);
        node.loading = Loading::Done;
    }

    fn swing(&self, state: &mut State, at: usize) {
        let (to, from) = state.nodes[at].attempt.take().expect("an attempt is written before its swing");
        let write = Write::Swing { from, to };
        if self.can_land(state, &write) {
            self.land(state, &write);
            let node = &mut state.nodes[at];
            (node.base, node.known) = (to, to);
        } else {
            // The head, which was looked at, names the one that is current.
            learn(state, at);
        }
    }

    /// The attempt is forgotten; if it lands, the next look at the head shows it.
    fn swing_unknown(&self, state: &mut State, at: usize, lost: Lost) -> bool {
        let (to, from) = state.nodes[at].attempt.take().expect("an attempt is written before its swing");
        if !self.follows(Rule::TrimKnownOnly) {
            state.nodes[at].known = to;
        }
        self.lose(state, Write::Swing { from, to }, lost)
    }

    fn crash(&self, state: &mut State, at: usize) {
        state.crashes += 1;
        if let Some(Proposal { entry, trim_to, .. }) = state.nodes[at].proposal.take() {
            let write = Write::Append(entry, trim_to);
            if self.can_land(state, &write) {
                state.adrift.insert(write);
            }
        }
        state.nodes[at] = Node::new(Loading::Begins, state.nodes[at].proposals);
    }

    fn node_actions(&self, state: &State, at: u8, actions: &mut Vec<Action>) {
        let node = &state.nodes[at as usize];
        if state.crashes < self.crashes {
            actions.push(Action::Crash(at));
        }
        if node.loading != Loading::Done {
            return actions.push(Action::Load(at));
        }
        if let Some(proposal) = &node.proposal {
            actions.push(Action::Decide(at));
            if state.unknowns < self.unknowns {
                actions.push(Action::DecideUnknown(at, Lost::Adrift));
                actions.push(Action::DecideUnknown(at, Lost::Applied));
            }
            if proposal.undecided
                && !self.follows(Rule::UndecidedStaysClosed)
                && state.closings < self.closings
            {
                actions.push(Action::Close(at));
            }
            return;
        }
        let waits = !node.queue.is_empty() || !node.kept.is_empty();
        if waits && node.proposals < PROPOSALS_MAX {
            actions.push(Action::Propose(at));
        }
        if node.folded.seq < state.head {
            actions.push(Action::Follow(at));
        }
        if node.queue.is_empty() && state.closings < self.closings {
            actions.push(Action::Close(at));
        }
        if node.attempt.is_some() {
            actions.push(Action::Swing(at));
            if state.unknowns < self.unknowns {
                actions.push(Action::SwingUnknown(at, Lost::Adrift));
                actions.push(Action::SwingUnknown(at, Lost::Applied));
            }
        } else if node.known != node.base && self.follows(Rule::BaseIsTheStates) {
            actions.push(Action::Reload(at));
        } else if state.snapshots.len() <= self.snapshots as usize
            && (node.folded.seq > state.snapshots[node.base as usize].seq)
        {
            actions.push(Action::Snapshot(at));
        }
        let complete = state.trimmed <= node.folded.archived && node.folded.archived < node.folded.seq;
        if state.chunks < self.chunks && node.chunk.is_none() && complete {
            actions.push(Action::WriteChunk(at));
        }
    }

    fn is_in_log(&self, state: &State, request: usize) -> bool {
        let wanted = self.requests[request].0;
        state.history.iter().flat_map(|entry| &entry.operations).any(|(placed, effect)| {
            let same = matches!((wanted, effect), (Deliver(id), Effect::Put { ingest: Some(placed), .. }) if id == *placed);
            *placed as usize == request || same
        })
    }
}

/// Entries behind `seq` that can be read.
fn rows_behind(state: &State, seq: u8) -> impl Iterator<Item = &Entry> {
    let from = seq.max(state.trimmed);
    state.history.iter().filter(move |entry| entry.last_seq() > from)
}

/// What a fold of everything up to `seq` gives.
fn truth(state: &State, seq: u8) -> Folded {
    let mut folded = Folded::first();
    for entry in state.history.iter().take_while(|entry| entry.last_seq() <= seq) {
        folded.fold(entry);
    }
    folded
}

fn close(state: &mut State, at: usize) {
    state.closings += 1;
    let proposal = state.nodes[at].proposal.take();
    // Only without [`Rule::UndecidedStaysClosed`].
    let requests = proposal.into_iter().flat_map(|proposal| proposal.entry.operations);
    state.nodes[at].queue.extend(requests.map(|(request, _)| request));
    reload(state, at);
    state.nodes[at].folded = Folded::first();
}

/// A head that was read names the snapshot that was current then.
fn learn(state: &mut State, at: usize) {
    let known = state.nodes[at].known;
    if state.snapshots[state.current as usize].seq > state.snapshots[known as usize].seq {
        state.nodes[at].known = state.current;
    }
}

fn reload(state: &mut State, at: usize) {
    let node = &mut state.nodes[at];
    node.loading = Loading::Begins;
    node.attempt = None;
}

fn acknowledge(state: &mut State, at: usize, requests: Vec<u8>) {
    for request in requests {
        if request == SAY_ARCHIVED {
            state.nodes[at].chunk = None;
        } else {
            state.acknowledged |= 1 << request;
        }
    }
}

impl Model for Commit {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            history: Vec::new(),
            head: 1,
            trimmed: 1,
            current: 0,
            snapshots: vec![Folded::first()],
            adrift: BTreeSet::new(),
            nodes: vec![Node::new(Loading::Done, 0); self.nodes as usize],
            begun: 0,
            acknowledged: 0,
            chunks: 0,
            unknowns: 0,
            closings: 0,
            crashes: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (request, (_, node)) in (0..).zip(&self.requests) {
            if state.begun & (1 << request) == 0 && state.nodes[*node as usize].loading == Loading::Done {
                actions.push(Action::Begin(request));
            }
        }
        for at in 0..self.nodes {
            self.node_actions(state, at, actions);
        }
        actions.extend((0..state.adrift.len() as u8).map(Action::Land));
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Begin(request) => {
                state.begun |= 1 << request;
                state.nodes[self.requests[request as usize].1 as usize].queue.push(request);
            }
            Action::Propose(at) => self.propose(&mut state, at as usize),
            Action::Decide(at) => self.decide(&mut state, at as usize),
            Action::DecideUnknown(at, lost) => {
                let at = at as usize;
                let proposal = state.nodes[at].proposal.as_mut()?;
                proposal.undecided = true;
                let write = Write::Append(proposal.entry.clone(), proposal.trim_to);
                if !self.lose(&mut state, write, lost) {
                    return None;
                }
                if !self.follows(Rule::SameNonce) {
                    self.lost(&mut state, at);
                }
            }
            Action::Follow(at) => self.follow(&mut state, at as usize),
            Action::Snapshot(at) => {
                let node = &mut state.nodes[at as usize];
                // Without [`Rule::BaseIsTheStates`] whatever is known to be current is named.
                let from = if self.follows(Rule::BaseIsTheStates) { node.base } else { node.known };
                node.attempt = Some((state.snapshots.len() as u8, from));
                let folded = node.folded.clone();
                state.snapshots.push(folded);
            }
            Action::Swing(at) => self.swing(&mut state, at as usize),
            Action::SwingUnknown(at, lost) => {
                if !self.swing_unknown(&mut state, at as usize, lost) {
                    return None;
                }
            }
            Action::Reload(at) => reload(&mut state, at as usize),
            Action::WriteChunk(at) => {
                state.chunks += 1;
                let node = &mut state.nodes[at as usize];
                node.chunk = Some((node.folded.archived, node.folded.seq));
                node.queue.push(SAY_ARCHIVED);
            }
            Action::Close(at) => close(&mut state, at as usize),
            Action::Crash(at) => self.crash(&mut state, at as usize),
            Action::Load(at) => self.load(&mut state, at as usize),
            Action::Land(index) => {
                let write = state.adrift.iter().nth(index as usize).cloned()?;
                state.adrift.remove(&write);
                self.land(&mut state, &write);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ACKNOWLEDGED, |model: &Self, state: &State| {
                (0..model.requests.len()).all(|request| {
                    state.acknowledged & (1 << request) == 0 || model.is_in_log(state, request)
                })
            }),
            Property::always(ONCE, |_, state: &State| {
                let mut seen = BTreeSet::new();
                let all = state.history.iter().flat_map(|entry| &entry.operations);
                all.filter(|(request, _)| *request != SAY_ARCHIVED).all(|(request, _)| seen.insert(*request))
            }),
            Property::always(UIDS, |_, state: &State| {
                let puts =
                    state.history.iter().flat_map(|entry| &entry.operations).filter_map(|(_, effect)| {
                        if let Effect::Put { uid, .. } = effect { Some(*uid) } else { None }
                    });
                let mut highest = 1;
                puts.into_iter().all(|uid| std::mem::replace(&mut highest, uid) < uid)
            }),
            Property::always(INGESTED, |_, state: &State| {
                let mut seen = BTreeSet::new();
                let all = state.history.iter().flat_map(|entry| &entry.operations);
                all.filter_map(
                    |(_, effect)| if let Effect::Put { ingest, .. } = effect { *ingest } else { None },
                )
                .all(|id| seen.insert(id))
            }),
            Property::always(FOLDED, |_, state: &State| {
                state
                    .nodes
                    .iter()
                    .filter(|node| node.loading == Loading::Done)
                    .all(|node| node.folded == truth(state, node.folded.seq))
            }),
            Property::always(SNAPSHOT, |_, state: &State| {
                let current = &state.snapshots[state.current as usize];
                *current == truth(state, current.seq) && state.trimmed <= current.seq
            }),
            Property::always(ARCHIVE, |model: &Self, state: &State| {
                let last =
                    state.history.iter().rev().flat_map(|entry| entry.operations.iter().rev()).find_map(
                        |(_, effect)| if let Effect::Archived(to) = effect { Some(*to) } else { None },
                    );
                model.chunks == 0 || state.trimmed <= last.unwrap_or(1)
            }),
            Property::sometimes(
                "everything is acknowledged and in a snapshot",
                |model: &Self, state: &State| {
                    state.acknowledged.count_ones() as usize == model.requests.len()
                        && state.snapshots[state.current as usize].seq == state.head
                        && state.nodes.iter().all(Node::is_free)
                },
            ),
        ]
    }
}

const ACKNOWLEDGED: &str = "1, 2: what was acknowledged is in the log";
const ONCE: &str = "2: nothing is applied twice";
const UIDS: &str = "3: UIDs grow in the order of commits";
const INGESTED: &str = "7: an ingest id is placed once";
const FOLDED: &str = "10: what a node shows is the fold of the log";
const SNAPSHOT: &str = "5: snapshot and tail are the fold of the log";
const ARCHIVE: &str = "5: what is trimmed is in the archive";

impl Checked for Commit {
    type Rule = Rule;

    const NAME: &str = "commit";
    const RULES: &[Rule] = Rule::ALL;

    fn bounds() -> Vec<Bound<Self>> {
        let two = Self::of(&[(Append, 0), (Append, 1)]);
        let bound = |name, states_min, model| Bound { name, model, states_min };
        vec![
            bound("two appends, a closing", 24_000, Self { closings: 1, ..two.clone() }),
            bound(
                "append and expunge, two unknown",
                10_000,
                Self { unknowns: 2, requests: vec![(Append, 0), (Expunge(1), 1)], ..two.clone() },
            ),
            bound("two appends, archive", 100_000, Self { chunks: 1, ..two.clone() }),
            bound("two appends, two chunks", 300_000, Self { chunks: 2, unknowns: 0, ..two.clone() }),
            bound(
                "one ingest id twice, a crash",
                7_500,
                Self { crashes: 1, ..Self::of(&[(Deliver(1), 0), (Deliver(1), 1)]) },
            ),
            bound(
                "one ingest id twice in a group",
                5_500,
                Self { snapshots: 1, ..Self::of(&[(Deliver(1), 0), (Deliver(1), 0), (Append, 1)]) },
            ),
            bound(
                "three nodes",
                240_000,
                Self { nodes: 3, snapshots: 1, ..Self::of(&[(Append, 0), (Append, 1), (Append, 2)]) },
            ),
        ]
    }

    fn wide() -> Vec<(&'static str, Self)> {
        let two = Self::of(&[(Append, 0), (Append, 1)]);
        vec![
            (
                "three snapshots, two unknown, crash, closing",
                Self { snapshots: 3, unknowns: 2, crashes: 1, closings: 1, ..two.clone() },
            ),
            (
                "three nodes, two unknown, closing",
                Self {
                    nodes: 3,
                    unknowns: 2,
                    closings: 1,
                    ..Self::of(&[(Append, 0), (Deliver(1), 1), (Deliver(1), 2)])
                },
            ),
            (
                "archive, three snapshots, crash",
                Self {
                    chunks: 3,
                    snapshots: 3,
                    crashes: 1,
                    ..Self::of(&[(Append, 0), (Append, 0), (Expunge(1), 1)])
                },
            ),
        ]
    }

    fn without(rule: Rule) -> (Self, &'static str) {
        let two = Self { without: Some(rule), ..Self::of(&[(Append, 0), (Append, 1)]) };
        let three = Self { requests: vec![(Append, 0), (Append, 0), (Append, 1)], ..two.clone() };
        let delivered = Self { requests: vec![(Deliver(1), 0), (Deliver(1), 1)], ..two.clone() };
        match rule {
            Rule::SameNonce
            | Rule::ConflictLooksAtThePlace
            | Rule::ExactPlace
            | Rule::TrimmedStaysUnknown => (two, ONCE),
            Rule::UndecidedStaysClosed => (Self { closings: 1, ..two }, ONCE),
            Rule::BuiltAgain => (two, UIDS),
            Rule::AnsweredAfterCommit => (two, ACKNOWLEDGED),
            Rule::UnchangedWaitsForGroup => {
                (Self { requests: vec![(Deliver(1), 0), (Deliver(1), 0)], ..two }, ACKNOWLEDGED)
            }
            Rule::IngestIdInFold => (delivered, INGESTED),
            Rule::DenseTail => (Self { closings: 1, ..two }, FOLDED),
            Rule::SwingFromBase | Rule::TrimKnownOnly => (three, SNAPSHOT),
            Rule::BaseIsTheStates => (Self { snapshots: 3, unknowns: 0, ..three }, SNAPSHOT),
            Rule::TrimArchivedOnly => (Self { chunks: 1, ..two }, ARCHIVE),
            Rule::ArchiveChained => (Self { chunks: 2, unknowns: 0, ..two }, ARCHIVE),
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
        shown(check_bounds::<Commit>());
    }

    #[test]
    fn each_rule_is_needed() {
        shown(check_rules::<Commit>());
    }
}
