//! The line-up: what this process knows of that is due to be sent, by destination domain, and in which order it goes.
//! Pure bookkeeping; the shards are the truth, and a scan of them finds again whatever is not in here.
//!
//! Domains take turns. Within one, a higher priority goes first, except that one pick in eight is taken from those
//! below it, in turn, so that nothing starves; within a priority senders take turns, so that a thousand messages of one
//! do not stand in front of the one of another. No sender may fill the line-up: what it has beyond its share waits in the
//! shards.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use mail::address::Domain;
use tokio::time::Instant;

use crate::item::Item;
use crate::shard_id::ShardId;
use crate::window::Ticket;

/// Where an item stands in line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Its destination.
    pub domain: Arc<Domain>,
    /// Who sends it: see [`sender_of`].
    pub sender: u64,
    /// MT-PRIORITY.
    pub priority: i8,
}

/// How much there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Tickets in all; a quarter is kept for what comes fresh and is not found by a scan.
    pub tickets_max: usize,
    /// Tickets of one sender.
    pub sender_max: usize,
    /// Tickets that are taken at one time.
    pub taken_max: usize,
}

/// Tickets by where they stand.
#[derive(Debug)]
pub struct Lineup {
    bounds: Bounds,
    stands: HashMap<Key, Stand>,
    lanes: HashMap<Arc<Domain>, Lane>,
    /// Domains with something ready whose turn it can be.
    offered: VecDeque<Arc<Domain>>,
    waiting: BTreeSet<(u64, Key)>,
    paused: BTreeSet<(u64, Arc<Domain>)>,
    senders: HashMap<u64, usize>,
    taken: usize,
    /// Leases that somebody else holds, or held: when they will have lapsed.
    watched: HashMap<Key, Watched>,
    lapses: BTreeSet<(Instant, Key)>,
    overflowed: bool,
    /// A sender's tickets have come down to half of its share.
    sender_has_room: bool,
}

type Key = (ShardId, u64);

#[derive(Clone, Debug)]
struct Stand {
    ticket: Ticket,
    line: Line,
    at: At,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Ready,
    Waiting(u64),
    Taken,
}

/// A domain's part.
#[derive(Debug, Default)]
struct Lane {
    levels: BTreeMap<i8, Level>,
    ready: usize,
    /// Its turn is out.
    taken: bool,
    paused: Option<u64>,
    /// An operator wants something of it tried at once.
    hastened: bool,
    offered: bool,
    picks: u32,
}

/// What is ready at one priority, by sender.
#[derive(Debug, Default)]
struct Level {
    turn: VecDeque<u64>,
    queues: HashMap<u64, VecDeque<Key>>,
}

/// A lease that is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watched {
    /// The item.
    pub ticket: Ticket,
    /// The attempt that holds it.
    pub attempt: u32,
    /// When it has had its full time, as seen from here.
    pub lapses: Instant,
}

/// One pick in so many is from the priorities below the highest, in turn.
const LOWER_EVERY: u32 = 8;

impl Lineup {
    /// Nothing in line.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            stands: HashMap::new(),
            lanes: HashMap::new(),
            offered: VecDeque::new(),
            waiting: BTreeSet::new(),
            paused: BTreeSet::new(),
            senders: HashMap::new(),
            taken: 0,
            watched: HashMap::new(),
            lapses: BTreeSet::new(),
            overflowed: false,
            sender_has_room: false,
        }
    }

    /// An item that a scan found, due at `due`. Nothing happens if it is known. `false`: there is no room.
    pub fn add(&mut self, ticket: Ticket, line: Line, due: u64, now: u64) -> bool {
        self.enter(ticket, line, due, now, self.bounds.tickets_max - self.bounds.tickets_max / 4)
    }

    /// As [`Self::add`], for one that was just accepted, or given back.
    pub fn add_fresh(&mut self, ticket: Ticket, line: Line, due: u64, now: u64) -> bool {
        self.enter(ticket, line, due, now, self.bounds.tickets_max)
    }

    fn enter(&mut self, ticket: Ticket, line: Line, due: u64, now: u64, room: usize) -> bool {
        let key = key(ticket);
        if let Some(stand) = self.stands.get_mut(&key) {
            stand.ticket = ticket;
            return true;
        }
        let of_sender = self.senders.get(&line.sender).copied().unwrap_or(0);
        if self.known() >= room || of_sender >= self.bounds.sender_max {
            self.overflowed = true;
            return false;
        }
        *self.senders.entry(line.sender).or_default() += 1;
        self.stands.insert(key, Stand { ticket, line, at: At::Taken });
        self.put(key, due, now);
        true
    }

    /// An item is to be tried now, whatever it or its domain waits for, and lies in this place.
    pub fn hasten(&mut self, ticket: Ticket, line: Line, now: u64) -> bool {
        let domain = line.domain.clone();
        let fits = self.put_first(ticket, line, now);
        if let Some(lane) = self.lanes.get_mut(&domain) {
            (lane.paused, lane.hastened) = (None, true);
        }
        self.offer(&domain);
        fits
    }

    /// Whether an operator wants something of a domain tried at once; asked once.
    pub fn take_hastened(&mut self, domain: &Domain) -> bool {
        self.lanes.get_mut(domain).is_some_and(|lane| std::mem::take(&mut lane.hastened))
    }

    fn put_first(&mut self, ticket: Ticket, line: Line, now: u64) -> bool {
        let key = key(ticket);
        match self.stands.get_mut(&key).map(|stand| (stand.at, &mut stand.ticket)) {
            Some((at, known)) => {
                *known = ticket;
                if let At::Waiting(due) = at {
                    self.waiting.remove(&(due, key));
                    self.put(key, 0, now);
                }
                true
            }
            None => self.add_fresh(ticket, line, 0, now),
        }
    }

    /// Domains with something due at `now`, at most so many. Each is out until [`Self::end_turn`].
    pub fn turns(&mut self, max: usize, now: u64) -> Vec<Arc<Domain>> {
        self.wake(now);
        let mut turns = Vec::new();
        while turns.len() < max && self.taken < self.bounds.taken_max {
            let Some(domain) = self.offered.pop_front() else { break };
            let Some(lane) = self.lanes.get_mut(&domain) else { continue };
            lane.offered = false;
            if lane.ready == 0 || lane.taken || lane.paused.is_some() {
                self.tidy(&domain);
                continue;
            }
            lane.taken = true;
            turns.push(domain);
        }
        turns
    }

    /// Up to `max` items of a domain whose turn is out.
    pub fn take(&mut self, domain: &Arc<Domain>, max: usize, now: u64) -> Vec<(Ticket, Line)> {
        self.wake(now);
        let mut tickets = Vec::new();
        while tickets.len() < max && self.taken < self.bounds.taken_max {
            let Some(key) = self.lanes.get_mut(domain).and_then(Lane::pick) else { break };
            let Some(stand) = self.stands.get_mut(&key) else { continue };
            stand.at = At::Taken;
            self.taken += 1;
            tickets.push((stand.ticket, stand.line.clone()));
        }
        tickets
    }

    /// Items of a domain that are due, and the highest priority among them.
    pub fn load(&self, domain: &Domain) -> (usize, i8) {
        self.lanes.get(domain).map_or((0, 0), |lane| {
            (lane.ready, lane.levels.last_key_value().map_or(0, |(priority, _)| *priority))
        })
    }

    /// A domain's turn is over. With `paused_until` it gets no other before.
    pub fn end_turn(&mut self, domain: &Arc<Domain>, paused_until: Option<u64>) {
        let Some(lane) = self.lanes.get_mut(domain) else { return };
        lane.taken = false;
        if let Some(until) = paused_until {
            lane.paused = Some(until);
            self.paused.insert((until, domain.clone()));
        }
        self.offer(domain);
        self.tidy(domain);
    }

    /// A taken item comes back, to be taken again at `due`; it lies in this place.
    pub fn give_back(&mut self, ticket: Ticket, due: u64, now: u64) {
        let key = key(ticket);
        let Some(stand) = self.stands.get_mut(&key) else { return };
        stand.ticket = ticket;
        if stand.at == At::Taken {
            self.taken -= 1;
            self.put(key, due, now);
        }
    }

    /// A taken item is none of the line-up's business any more.
    pub fn complete(&mut self, ticket: Ticket) {
        let key = key(ticket);
        if self.stands.get(&key).is_none_or(|stand| stand.at != At::Taken) {
            return;
        }
        self.taken -= 1;
        self.drop_stand(key);
    }

    /// Whether somebody here works on the item.
    pub fn is_taken(&self, shard: ShardId, number: u64) -> bool {
        self.stands.get(&(shard, number)).is_some_and(|stand| stand.at == At::Taken)
    }

    /// Somebody holds a lease; nothing is done about the item until it has lapsed. The first time that it is seen
    /// counts, and another attempt's lease is another. `false`: there is no room.
    pub fn watch(&mut self, watched: Watched) -> bool {
        let key = key(watched.ticket);
        let before = self.watched.get(&key).copied();
        if before.is_some_and(|before| before.attempt >= watched.attempt) {
            return true;
        }
        if before.is_none() && self.known() >= self.bounds.tickets_max {
            self.overflowed = true;
            return false;
        }
        if let Some(before) = before {
            self.lapses.remove(&(before.lapses, key));
        }
        self.watched.insert(key, watched);
        self.lapses.insert((watched.lapses, key));
        true
    }

    /// Leases that have lapsed.
    pub fn lapsed(&mut self, now: Instant) -> Vec<Watched> {
        let mut lapsed = Vec::new();
        while let Some((at, key)) = self.lapses.first().copied() {
            if at > now {
                break;
            }
            self.lapses.pop_first();
            lapsed.extend(self.watched.remove(&key));
        }
        lapsed
    }

    /// When the next lease will have lapsed.
    pub fn next_lapse(&self) -> Option<Instant> {
        self.lapses.first().map(|(at, _)| *at)
    }

    /// Whether [`Self::turns`] would give something now.
    pub fn has_turns(&mut self, now: u64) -> bool {
        self.wake(now);
        self.taken < self.bounds.taken_max && !self.offered.is_empty()
    }

    /// When something that waits is due, or a pause is over.
    pub fn next_due(&self) -> Option<u64> {
        let waiting = self.waiting.first().map(|(due, _)| *due);
        let paused = self.paused.first().map(|(until, _)| *until);
        waiting.into_iter().chain(paused).min()
    }

    /// Whether something did not fit since the last call, and there is room again.
    pub fn wants_scan(&mut self) -> bool {
        let wants = self.overflowed && (self.sender_has_room || self.known() * 2 <= self.bounds.tickets_max);
        if wants {
            (self.overflowed, self.sender_has_room) = (false, false);
        }
        wants
    }

    /// Forgets what waits for a time, and pauses: the clock was put back. A scan finds again what is due.
    pub fn forget_waiting(&mut self) {
        for (_, key) in std::mem::take(&mut self.waiting) {
            self.drop_stand(key);
        }
        for (_, domain) in std::mem::take(&mut self.paused) {
            if let Some(lane) = self.lanes.get_mut(&domain) {
                lane.paused = None;
            }
            self.offer(&domain);
            self.tidy(&domain);
        }
    }

    /// Tickets known, and taken.
    pub fn counts(&self) -> (usize, usize) {
        (self.stands.len(), self.taken)
    }

    fn known(&self) -> usize {
        self.stands.len() + self.watched.len()
    }

    fn wake(&mut self, now: u64) {
        while let Some((due, key)) = self.waiting.first().copied() {
            if due > now {
                break;
            }
            self.waiting.pop_first();
            self.put(key, due, now);
        }
        while let Some((until, domain)) = self.paused.first().cloned() {
            if until > now {
                break;
            }
            self.paused.pop_first();
            if let Some(lane) = self.lanes.get_mut(&domain)
                && lane.paused == Some(until)
            {
                lane.paused = None;
            }
            self.offer(&domain);
            self.tidy(&domain);
        }
    }

    fn put(&mut self, key: Key, due: u64, now: u64) {
        let Some(stand) = self.stands.get_mut(&key) else { return };
        if due > now {
            stand.at = At::Waiting(due);
            self.waiting.insert((due, key));
            return;
        }
        stand.at = At::Ready;
        let line = stand.line.clone();
        let lane = self.lanes.entry(line.domain.clone()).or_default();
        lane.push(&line, key);
        self.offer(&line.domain);
    }

    fn offer(&mut self, domain: &Arc<Domain>) {
        let Some(lane) = self.lanes.get_mut(domain) else { return };
        if lane.ready > 0 && !lane.taken && lane.paused.is_none() && !lane.offered {
            lane.offered = true;
            self.offered.push_back(domain.clone());
        }
    }

    fn tidy(&mut self, domain: &Arc<Domain>) {
        let idle = |lane: &Lane| lane.ready == 0 && !lane.taken && lane.paused.is_none() && !lane.offered;
        if self.lanes.get(domain).is_some_and(idle) {
            self.lanes.remove(domain);
        }
    }

    fn drop_stand(&mut self, key: Key) {
        let Some(stand) = self.stands.remove(&key) else { return };
        if let Some(count) = self.senders.get_mut(&stand.line.sender) {
            *count -= 1;
            if *count == self.bounds.sender_max / 2 {
                self.sender_has_room = true;
            }
            if *count == 0 {
                self.senders.remove(&stand.line.sender);
            }
        }
    }
}

impl Lane {
    fn push(&mut self, line: &Line, key: Key) {
        let level = self.levels.entry(line.priority).or_default();
        let queue = level.queues.entry(line.sender).or_default();
        if queue.is_empty() {
            level.turn.push_back(line.sender);
        }
        queue.push_back(key);
        self.ready += 1;
    }

    fn pick(&mut self) -> Option<Key> {
        self.picks = self.picks.wrapping_add(1);
        let priority = if self.picks.is_multiple_of(LOWER_EVERY) {
            let turn = (self.picks / LOWER_EVERY) as usize % self.levels.len().saturating_sub(1).max(1);
            *self.levels.keys().nth(turn)?
        } else {
            *self.levels.last_key_value()?.0
        };
        let std::collections::btree_map::Entry::Occupied(mut entry) = self.levels.entry(priority) else {
            return None;
        };
        let level = entry.get_mut();
        let sender = level.turn.pop_front()?;
        let queue = level.queues.get_mut(&sender)?;
        let key = queue.pop_front();
        if queue.is_empty() {
            level.queues.remove(&sender);
        } else {
            level.turn.push_back(sender);
        }
        if level.turn.is_empty() {
            entry.remove();
        }
        self.ready -= 1;
        key
    }
}

fn key(ticket: Ticket) -> Key {
    (ticket.shard, ticket.place.number)
}

/// Whom an item counts for when senders take turns: who had logged in, if anybody, and the reverse-path up to what
/// changes from message to message (a subaddress, or VERP's recipient and numbers). So a list with its own return
/// address for each member is one sender, and the password reset of the same application is another.
pub fn sender_of(item: &Item) -> u64 {
    let message = &item.message;
    let mut hasher = blake3::Hasher::new();
    if let Some(principal) = message.origin.principal {
        hasher.update(principal.0.as_bytes());
    }
    if let Some(address) = message.sender.reverse_path.address() {
        hasher.update(stem(address.local()).to_lowercase().as_bytes());
        hasher.update(b"@");
        hasher.update(address.domain().ascii().as_bytes());
    }
    u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("a hash is longer than that"))
}

/// A local part up to what changes from message to message.
fn stem(local: &str) -> &str {
    let at = |c: char| matches!(c, '+' | '=') || c.is_ascii_digit();
    let end = local.find(at).unwrap_or(local.len());
    // VERP: `list-owner-alice=example.org`, where the recipient begins behind the last hyphen.
    let end = match local[end..].chars().next() {
        Some('=') => local[..end].rfind('-').unwrap_or(end),
        _ => end,
    };
    let stem = local[..end].trim_end_matches(['-', '_', '.']);
    if stem.is_empty() { local } else { stem }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::entry::Place;

    fn domain(name: &str) -> Arc<Domain> {
        Arc::new(Domain::parse(name).unwrap())
    }

    fn ticket(number: u64) -> Ticket {
        Ticket { shard: ShardId::outbound(0), place: Place { chunk: 0, number } }
    }

    fn line(name: &str, sender: u64, priority: i8) -> Line {
        Line { domain: domain(name), sender, priority }
    }

    fn lineup() -> Lineup {
        Lineup::new(Bounds { tickets_max: 1_000, sender_max: 500, taken_max: 100 })
    }

    fn numbers(taken: Vec<(Ticket, Line)>) -> Vec<u64> {
        taken.into_iter().map(|(ticket, _)| ticket.place.number).collect()
    }

    #[test]
    fn what_waits_is_forgotten_when_the_clock_goes_back() {
        let mut lineup = lineup();
        lineup.add(ticket(1), line("a.test", 1, 0), 0, 100);
        lineup.add(ticket(2), line("b.test", 1, 0), 900, 100);
        let turns = lineup.turns(9, 100);
        lineup.end_turn(&turns[0], Some(900));
        lineup.forget_waiting();
        assert_eq!((lineup.counts(), lineup.next_due()), ((1, 0), None));
        assert!(lineup.add(ticket(2), line("b.test", 1, 0), 50, 60));
        assert_eq!(lineup.turns(9, 60), [domain("a.test"), domain("b.test")]);
    }

    #[test]
    fn a_bulk_sender_does_not_stand_in_front_of_another() {
        let mut lineup = lineup();
        for number in 0..300 {
            assert!(lineup.add(ticket(number), line("a.test", 1, 0), 0, 0));
        }
        assert!(lineup.add_fresh(ticket(900), line("a.test", 2, 0), 0, 0));
        let turns = lineup.turns(9, 0);
        assert_eq!(turns, [domain("a.test")]);
        assert_eq!(numbers(lineup.take(&turns[0], 3, 0)), [0, 900, 1]);
    }

    #[test]
    fn priority_goes_first_and_nothing_starves() {
        let mut lineup = lineup();
        for number in 0..40 {
            lineup.add(ticket(number), line("a.test", 1, 4), 0, 0);
        }
        lineup.add(ticket(100), line("a.test", 2, -3), 0, 0);
        lineup.turns(1, 0);
        assert_eq!(numbers(lineup.take(&domain("a.test"), 8, 0)), [0, 1, 2, 3, 4, 5, 6, 100]);
    }

    #[test]
    fn domains_take_turns_one_each() {
        let mut lineup = lineup();
        for (number, name) in [(1, "a.test"), (2, "b.test"), (3, "a.test")] {
            lineup.add(ticket(number), line(name, 1, 0), 0, 0);
        }
        assert_eq!(lineup.turns(1, 0), [domain("a.test")]);
        assert_eq!(lineup.turns(9, 0), [domain("b.test")]);
        assert!(lineup.turns(9, 0).is_empty());
        assert_eq!(numbers(lineup.take(&domain("a.test"), 1, 0)), [1]);
        lineup.end_turn(&domain("a.test"), None);
        assert_eq!(lineup.turns(9, 0), [domain("a.test")]);
        // Paused, it is not offered, even if more comes.
        lineup.end_turn(&domain("a.test"), Some(50));
        lineup.add(ticket(4), line("a.test", 1, 0), 0, 0);
        assert!(lineup.turns(9, 49).is_empty());
        assert_eq!(lineup.next_due(), Some(50));
        assert_eq!(lineup.turns(9, 50), [domain("a.test")]);
        assert_eq!(numbers(lineup.take(&domain("a.test"), 9, 50)), [3, 4]);
        lineup.complete(ticket(1));
        lineup.give_back(ticket(3), 90, 50);
        lineup.complete(ticket(4));
        lineup.end_turn(&domain("a.test"), None);
        lineup.end_turn(&domain("b.test"), None);
        assert_eq!(lineup.counts(), (2, 0));
        assert_eq!(lineup.turns(9, 90), [domain("b.test"), domain("a.test")]);
    }

    #[test]
    fn bounded_in_all_and_for_each_sender() {
        let mut lineup = Lineup::new(Bounds { tickets_max: 8, sender_max: 4, taken_max: 2 });
        for number in 0..4 {
            assert!(lineup.add(ticket(number), line("a.test", 1, 0), 0, 0));
        }
        assert!(!lineup.add_fresh(ticket(4), line("a.test", 1, 0), 0, 0), "the sender has its share");
        assert!(lineup.add(ticket(5), line("a.test", 2, 0), 0, 0));
        assert!(lineup.add(ticket(6), line("a.test", 2, 0), 0, 0));
        assert!(!lineup.add(ticket(7), line("a.test", 3, 0), 0, 0), "a quarter is for what is fresh");
        assert!(lineup.add_fresh(ticket(7), line("a.test", 3, 0), 0, 0));
        let turns = lineup.turns(1, 0);
        assert_eq!(lineup.take(&turns[0], 9, 0).len(), 2);
        assert!(lineup.take(&turns[0], 9, 0).is_empty() && !lineup.wants_scan());
        for number in [0, 5, 7, 1, 6] {
            lineup.complete(ticket(number));
            lineup.take(&turns[0], 9, 0);
        }
        assert!(lineup.wants_scan() && !lineup.wants_scan());
    }

    #[test]
    fn no_priority_starves() {
        let mut lineup = lineup();
        for number in 0..100 {
            lineup.add(ticket(number), line("a.test", 1, 9), 0, 0);
            lineup.add(ticket(100 + number), line("a.test", 1, -9), 0, 0);
        }
        lineup.add(ticket(999), line("a.test", 2, 0), 0, 0);
        let turns = lineup.turns(1, 0);
        let first = numbers(lineup.take(&turns[0], 24, 0));
        assert!(first.contains(&999), "{first:?}");
        assert!(first.iter().filter(|number| **number < 100).count() >= 21, "{first:?}");
    }

    #[test]
    fn a_lease_is_waited_for_from_when_it_is_first_seen() {
        let mut lineup = lineup();
        let start = Instant::now();
        let watched = |attempt, seconds| Watched {
            ticket: ticket(1),
            attempt,
            lapses: start + Duration::from_secs(seconds),
        };
        assert!(lineup.watch(watched(3, 60)));
        lineup.watch(watched(3, 90));
        assert!(lineup.lapsed(start + Duration::from_secs(59)).is_empty());
        // Another lease: its holder gets its own time.
        lineup.watch(watched(4, 100));
        assert!(lineup.lapsed(start + Duration::from_secs(99)).is_empty());
        assert_eq!(lineup.lapsed(start + Duration::from_secs(100)), [watched(4, 100)]);
        assert_eq!(lineup.next_lapse(), None);
    }

    #[test]
    fn what_an_operator_hastens_does_not_wait() {
        let mut lineup = lineup();
        lineup.add(ticket(1), line("a.test", 1, 0), 500, 0);
        assert!(lineup.turns(9, 10).is_empty());
        assert!(lineup.hasten(ticket(1), line("a.test", 1, 0), 10));
        assert_eq!(lineup.turns(9, 10), [domain("a.test")]);
        assert_eq!(lineup.next_due(), None);
        assert!(lineup.take_hastened(&domain("a.test")) && !lineup.take_hastened(&domain("a.test")));
        // Nor for its domain's hosts.
        lineup.end_turn(&domain("a.test"), Some(900));
        assert!(lineup.turns(9, 20).is_empty());
        assert!(lineup.hasten(ticket(1), line("a.test", 1, 0), 20));
        assert_eq!(lineup.turns(9, 20), [domain("a.test")]);
    }

    #[test]
    fn senders_are_told_apart_by_what_does_not_change() {
        let check = |local: &str, expected: &str| assert_eq!(stem(local), expected);
        check("noreply", "noreply");
        check("bounces-1234-alice=example.org", "bounces");
        check("bounces+alice=example.org", "bounces");
        check("list-owner", "list-owner");
        check("owner-list-alice=example.org", "owner-list");
        check("alice=example.org", "alice");
        check("007", "007");
    }
}
