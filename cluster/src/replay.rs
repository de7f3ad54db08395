//! Which messages have come already. Pure.

use std::collections::HashMap;

use crate::node::Boot;

/// Numbers of one asker that are remembered. A request that is overtaken by so many is refused; they overtake each other
/// only while they wait for room in the connection, by a few.
pub(crate) const WINDOW: u64 = 1_024;

/// Askers that are remembered, those heard of longest ago are forgotten first. Only who has the key becomes one. A boot
/// that so many came after has ended long ago, and what it asked is worth nothing.
const ASKERS_MAX: usize = 4_096;

const WORDS: usize = (WINDOW / 64) as usize;

#[derive(Default)]
pub(crate) struct Replays {
    askers: HashMap<Boot, Asker>,
    uses: u64,
}

struct Asker {
    highest: u64,
    /// One bit for each number of the window, at its remainder.
    seen: [u64; WORDS],
    used: u64,
}

impl Replays {
    /// Whether this request comes for the first time, which it then has.
    pub(crate) fn accept(&mut self, from: Boot, number: u64) -> bool {
        self.uses += 1;
        if self.askers.len() >= ASKERS_MAX && !self.askers.contains_key(&from) {
            let oldest = self.askers.iter().min_by_key(|(_, asker)| asker.used).map(|(boot, _)| *boot);
            oldest.and_then(|boot| self.askers.remove(&boot));
        }
        let fresh = || Asker { highest: number, seen: [0; WORDS], used: 0 };
        let asker = self.askers.entry(from).or_insert_with(fresh);
        asker.used = self.uses;
        asker.accept(number)
    }
}

impl Asker {
    fn accept(&mut self, number: u64) -> bool {
        if number > self.highest {
            let passed = (number - self.highest).min(WINDOW);
            for passed in 0..passed {
                self.clear(number - passed);
            }
            self.highest = number;
        }
        let in_window = self.highest - number < WINDOW;
        in_window && self.set(number)
    }

    fn clear(&mut self, number: u64) {
        let (word, bit) = place(number);
        self.seen[word] &= !bit;
    }

    /// Whether it was not set before.
    fn set(&mut self, number: u64) -> bool {
        let (word, bit) = place(number);
        let before = self.seen[word];
        self.seen[word] |= bit;
        before & bit == 0
    }
}

fn place(number: u64) -> (usize, u64) {
    let remainder = number % WINDOW;
    ((remainder / 64) as usize, 1 << (remainder % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a set of all numbers that have come.
        #[test]
        fn each_number_is_accepted_once_and_old_ones_never(
            numbers in prop::collection::vec(prop_oneof![0_u64..50, 900_u64..1200, 5000_u64..5100, any::<u64>()], 0..200),
        ) {
            let mut replays = Replays::default();
            let boot = Boot::fresh();
            let mut come = BTreeSet::new();
            for number in numbers {
                let highest = come.last().copied().unwrap_or(number).max(number);
                let expected = highest - number < WINDOW && !come.contains(&number);
                prop_assert_eq!(replays.accept(boot, number), expected);
                come.insert(number);
            }
        }
    }

    #[test]
    fn askers_do_not_disturb_each_other_and_are_bounded() {
        let mut replays = Replays::default();
        let boot = Boot::fresh();
        assert!(replays.accept(boot, 5));
        for _ in 0..ASKERS_MAX + 10 {
            assert!(replays.accept(Boot::fresh(), 5));
            assert!(!replays.accept(boot, 5), "who is heard of is not forgotten");
        }
        assert_eq!(replays.askers.len(), ASKERS_MAX);
    }
}
