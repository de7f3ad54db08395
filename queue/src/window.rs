//! The queue's window: what this process knows of that is due, and what it works on. Pure bookkeeping; the shards are
//! the truth, and a scan of them finds again whatever is not in here.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::entry::Place;
use crate::shard_id::ShardId;

/// An item, as the window knows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Ticket {
    /// Its shard.
    pub shard: ShardId,
    /// Where it lies in it. Another chunk after it was put off; the number stays.
    pub place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stand {
    Ready,
    /// Has seen a crash: taken alone.
    Careful,
    Waiting {
        due: u64,
        chunk: u32,
    },
    Taken {
        alone: bool,
    },
}

/// Tickets by where they stand.
#[derive(Debug)]
pub struct Window {
    stands: HashMap<(ShardId, u64), Stand>,
    ready: VecDeque<Ticket>,
    careful: VecDeque<Ticket>,
    waiting: BTreeSet<(u64, Ticket)>,
    taken: usize,
    alone: bool,
    tickets_max: usize,
    taken_max: usize,
    /// Something did not fit and has to be looked for again.
    overflowed: bool,
}

impl Window {
    /// An empty window of so many tickets, of which so many can be taken at one time.
    pub fn new(tickets_max: usize, taken_max: usize) -> Self {
        Self {
            stands: HashMap::new(),
            ready: VecDeque::new(),
            careful: VecDeque::new(),
            waiting: BTreeSet::new(),
            taken: 0,
            alone: false,
            tickets_max,
            taken_max,
            overflowed: false,
        }
    }

    /// An item that is due at `due`. Nothing happens if it is known. `false`: there is no room.
    pub fn add(&mut self, ticket: Ticket, due: u64, now: u64) -> bool {
        let key = (ticket.shard, ticket.place.number);
        if self.stands.contains_key(&key) {
            return true;
        }
        if self.stands.len() >= self.tickets_max {
            self.overflowed = true;
            return false;
        }
        self.put(ticket, due, now);
        true
    }

    /// An item that has to be looked at now, whatever it waits for: it expired.
    pub fn hasten(&mut self, ticket: Ticket, now: u64) -> bool {
        let key = (ticket.shard, ticket.place.number);
        if let Some(Stand::Waiting { due, chunk }) = self.stands.get(&key).copied() {
            self.waiting.remove(&(due, Ticket { place: Place { chunk, ..ticket.place }, ..ticket }));
            self.stands.remove(&key);
        }
        self.add(ticket, 0, now)
    }

    /// Takes up to `max` tickets that are due at `now`. One that has to be alone is the only one among them.
    pub fn take(&mut self, max: usize, now: u64) -> Vec<Ticket> {
        self.wake(now);
        let mut tickets = Vec::new();
        if !self.alone
            && self.taken < self.taken_max
            && let Some(ticket) = self.careful.pop_front()
        {
            self.alone = true;
            self.taken += 1;
            self.stand(ticket, Stand::Taken { alone: true });
            return vec![ticket];
        }
        while tickets.len() < max && self.taken < self.taken_max {
            let Some(ticket) = self.ready.pop_front() else { break };
            self.taken += 1;
            self.stand(ticket, Stand::Taken { alone: false });
            tickets.push(ticket);
        }
        tickets
    }

    /// Whether [`Self::take`] would give something now.
    pub fn has_work(&mut self, now: u64) -> bool {
        self.wake(now);
        self.taken < self.taken_max && (!self.ready.is_empty() || (!self.alone && !self.careful.is_empty()))
    }

    /// Whether this ticket was taken as one that has to be alone.
    pub fn is_alone(&self, ticket: Ticket) -> bool {
        self.stands.get(&(ticket.shard, ticket.place.number)) == Some(&Stand::Taken { alone: true })
    }

    /// A taken ticket turned out to need care: it waits until it can be taken alone.
    pub fn take_care(&mut self, ticket: Ticket) {
        self.untake(ticket);
        self.stand(ticket, Stand::Careful);
        self.careful.push_back(ticket);
    }

    /// A taken ticket comes back, to be taken again at `due`.
    pub fn give_back(&mut self, ticket: Ticket, due: u64, now: u64) {
        self.untake(ticket);
        self.put(ticket, due, now);
    }

    /// A taken ticket is done with.
    pub fn complete(&mut self, ticket: Ticket) {
        self.untake(ticket);
    }

    /// When the next waiting ticket is due.
    pub fn next_due(&self) -> Option<u64> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// Whether something did not fit since the last call, and there is room again.
    pub fn wants_scan(&mut self) -> bool {
        let wants = self.overflowed && self.stands.len() * 2 <= self.tickets_max;
        if wants {
            self.overflowed = false;
        }
        wants
    }

    /// Forgets what waits for a time: the clock was put back. A scan finds again what is due.
    pub fn forget_waiting(&mut self) {
        for (_, ticket) in std::mem::take(&mut self.waiting) {
            self.stands.remove(&(ticket.shard, ticket.place.number));
        }
    }

    /// Tickets known, and taken.
    pub fn counts(&self) -> (usize, usize) {
        (self.stands.len(), self.taken)
    }

    fn wake(&mut self, now: u64) {
        while let Some((due, ticket)) = self.waiting.first().copied() {
            if due > now {
                break;
            }
            self.waiting.pop_first();
            self.stand(ticket, Stand::Ready);
            self.ready.push_back(ticket);
        }
    }

    fn put(&mut self, ticket: Ticket, due: u64, now: u64) {
        if due <= now {
            self.stand(ticket, Stand::Ready);
            self.ready.push_back(ticket);
        } else {
            self.stand(ticket, Stand::Waiting { due, chunk: ticket.place.chunk });
            self.waiting.insert((due, ticket));
        }
    }

    fn stand(&mut self, ticket: Ticket, stand: Stand) {
        self.stands.insert((ticket.shard, ticket.place.number), stand);
    }

    fn untake(&mut self, ticket: Ticket) {
        if let Some(Stand::Taken { alone }) = self.stands.remove(&(ticket.shard, ticket.place.number)) {
            self.taken -= 1;
            if alone {
                self.alone = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(number: u64) -> Ticket {
        Ticket { shard: ShardId::ingest(0), place: Place { chunk: 0, number } }
    }

    fn numbers(tickets: Vec<Ticket>) -> Vec<u64> {
        tickets.into_iter().map(|ticket| ticket.place.number).collect()
    }

    #[test]
    fn tickets_come_once_and_in_order() {
        let mut window = Window::new(10, 3);
        for number in [1, 2, 3, 4, 2, 1] {
            assert!(window.add(ticket(number), 0, 0));
        }
        assert_eq!(numbers(window.take(2, 0)), [1, 2]);
        assert!(window.add(ticket(1), 0, 0));
        assert_eq!(numbers(window.take(9, 0)), [3]);
        assert!(!window.has_work(0));
        window.complete(ticket(1));
        assert_eq!(numbers(window.take(9, 0)), [4]);
        window.give_back(ticket(2), 50, 0);
        assert_eq!(window.next_due(), Some(50));
        assert!(!window.has_work(49) && window.has_work(50));
        assert_eq!(numbers(window.take(9, 50)), [2]);
        assert_eq!(window.counts(), (3, 3));
    }

    #[test]
    fn care_means_alone() {
        let mut window = Window::new(10, 9);
        for number in [1, 2, 3] {
            window.add(ticket(number), 0, 0);
        }
        for taken in window.take(2, 0) {
            window.take_care(taken);
        }
        assert_eq!(numbers(window.take(9, 0)), [1]);
        assert_eq!(numbers(window.take(9, 0)), [3]);
        assert!(!window.has_work(0));
        window.complete(ticket(1));
        assert_eq!(numbers(window.take(9, 0)), [2]);
    }

    #[test]
    fn bounded() {
        let mut window = Window::new(2, 9);
        assert!(window.add(ticket(1), 0, 0) && window.add(ticket(2), 9, 0));
        assert!(!window.add(ticket(3), 0, 0));
        assert!(!window.wants_scan());
        window.take(1, 0);
        window.complete(ticket(1));
        assert!(window.wants_scan() && !window.wants_scan());
    }

    #[test]
    fn what_waits_is_forgotten_when_the_clock_goes_back() {
        let mut window = Window::new(9, 9);
        window.add(ticket(1), 0, 100);
        window.add(ticket(2), 900, 100);
        window.forget_waiting();
        assert_eq!((window.counts(), window.next_due()), ((1, 0), None));
        assert!(window.add(ticket(2), 50, 60));
        assert_eq!(numbers(window.take(9, 60)), [1, 2]);
    }

    #[test]
    fn what_expired_does_not_wait() {
        let mut window = Window::new(9, 9);
        window.add(ticket(1), 500, 0);
        assert!(window.hasten(ticket(1), 10));
        assert_eq!(numbers(window.take(9, 10)), [1]);
        assert_eq!(window.next_due(), None);
    }
}
