//! The client's picture of the selected mailbox: which message number is which UID, and what has been said.
//!
//! Pure: it knows numbers only, and decides what untagged responses are due. A message that has been expunged keeps its
//! number until the client may be told (RFC 9051 §7.5.1: not during FETCH, STORE or SEARCH), so numbers never shift
//! under a command that uses them.

use mail::id::{ModSeq, Uid};
use mail::uid::UidSet;

/// The picture.
#[derive(Debug)]
pub(crate) struct View {
    /// UIDs by message number, ascending; number 1 is the first.
    uids: Vec<u32>,
    /// The highest UID that the client was ever told of; what is above is new.
    uid_max: u32,
    /// All changes up to here have been told, but for `gone`.
    synced: ModSeq,
    /// Messages that are no longer there, which the client does not know yet.
    gone: UidSet,
}

/// What the client is to be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Messages that are gone: number and UID, the highest first, so that each number is still right when it is said.
    pub(crate) expunged: Vec<(u32, Uid)>,
    /// The number of messages, if some are new.
    pub(crate) exists: Option<u32>,
    /// Messages the client knows whose flags changed: number and UID, ascending.
    pub(crate) changed: Vec<(u32, Uid)>,
}

impl View {
    /// The picture after SELECT.
    pub(crate) fn new(uids: impl Iterator<Item = Uid>, synced: ModSeq) -> Self {
        let mut uids: Vec<u32> = uids.map(Uid::get).collect();
        uids.shrink_to_fit();
        let uid_max = uids.last().copied().unwrap_or(0);
        Self { uids, uid_max, synced, gone: UidSet::default() }
    }

    /// The number of messages, as the client counts.
    pub(crate) fn len(&self) -> u32 {
        self.uids.len() as u32
    }

    /// The UID of a message number.
    pub(crate) fn uid(&self, number: u32) -> Option<Uid> {
        self.uids.get((number as usize).checked_sub(1)?).copied().and_then(Uid::new)
    }

    /// The highest UID that the client can see; 0 in an empty mailbox.
    pub(crate) fn last_uid(&self) -> u32 {
        self.uids.last().copied().unwrap_or(0)
    }

    /// The number of a UID.
    pub(crate) fn number(&self, uid: Uid) -> Option<u32> {
        self.uids.binary_search(&uid.get()).ok().map(|position| position as u32 + 1)
    }

    /// Up to where changes have been told.
    pub(crate) fn synced(&self) -> ModSeq {
        self.synced
    }

    /// Whether expunges wait to be told.
    pub(crate) fn has_untold_expunges(&self) -> bool {
        !self.gone.is_empty()
    }

    /// Ranges of numbers as ranges of numbers that exist; `None` if one is beyond the last message, which is a
    /// client's error (RFC 9051 §9, `seq-number`).
    pub(crate) fn numbers(&self, ranges: &[(u32, u32)]) -> Option<Vec<(u32, u32)>> {
        let in_range = ranges.iter().all(|&(first, last)| first >= 1 && last <= self.len());
        in_range.then(|| ranges.to_vec())
    }

    /// Ranges of UIDs as ranges of numbers. UIDs that do not exist are left out (RFC 9051 §6.4.9).
    pub(crate) fn numbers_of_uids(&self, ranges: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let mut numbers: Vec<(u32, u32)> = Vec::new();
        for &(first, last) in ranges {
            let from = self.uids.partition_point(|uid| *uid < first) as u32;
            let to = self.uids.partition_point(|uid| *uid <= last) as u32;
            match numbers.last_mut() {
                _ if from == to => {}
                Some(open) if open.1 == from => open.1 = to,
                _ => numbers.push((from + 1, to)),
            }
        }
        numbers
    }

    /// The UIDs of ranges of numbers.
    pub(crate) fn uids_of(&self, numbers: &[(u32, u32)]) -> UidSet {
        numbers
            .iter()
            .flat_map(|&(first, last)| &self.uids[first as usize - 1..last as usize])
            .filter_map(|&uid| Uid::new(uid))
            .collect()
    }

    /// All UIDs that the client can see.
    pub(crate) fn all_uids(&self) -> UidSet {
        self.uids.iter().filter_map(|&uid| Uid::new(uid)).collect()
    }

    /// Takes in what has happened since [`View::synced`]: `changed` are messages that are there now and were put or
    /// changed, `vanished` messages that left. Without `may_expunge` the latter keep their numbers until a call with it.
    pub(crate) fn advance(
        &mut self,
        changed: &UidSet,
        vanished: &UidSet,
        highest: ModSeq,
        may_expunge: bool,
    ) -> News {
        let mut news = News::default();
        let known = self.uids.len();
        for uid in changed.iter() {
            if uid.get() > self.uid_max {
                self.uids.push(uid.get());
            } else if let Ok(position) = self.uids[..known].binary_search(&uid.get()) {
                news.changed.push((position as u32 + 1, uid));
            }
        }
        if self.uids.len() > known {
            self.uid_max = self.last_uid();
        }
        self.gone = self.gone.union(vanished);
        self.synced = self.synced.max(highest);
        if may_expunge && !self.gone.is_empty() {
            self.expunge(&mut news);
        }
        if self.uids.len() + news.expunged.len() > known {
            news.exists = Some(self.len());
        }
        news
    }

    fn expunge(&mut self, news: &mut News) {
        let gone = std::mem::take(&mut self.gone);
        let mut number = 0;
        let mut kept = 0;
        // Messages that came and went between two looks were never shown: they are not in `uids`.
        self.uids.retain(|&uid| {
            number += 1;
            let Some(uid) = Uid::new(uid).filter(|uid| gone.contains(*uid)) else {
                kept += 1;
                return true;
            };
            news.expunged.push((number, uid));
            false
        });
        news.expunged.reverse();
        // Numbers below are those after the expunges, which are told first.
        let lost = |number: u32| {
            let above = news.expunged.partition_point(|(gone, _)| *gone > number);
            (news.expunged.len() - above) as u32
        };
        for entry in &mut news.changed {
            entry.0 -= lost(entry.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> UidSet {
        if text.is_empty() { UidSet::default() } else { UidSet::parse(text).unwrap() }
    }

    fn uid(number: u32) -> Uid {
        Uid::new(number).unwrap()
    }

    fn view(uids: &[u32]) -> View {
        View::new(uids.iter().map(|number| uid(*number)), ModSeq(10))
    }

    #[test]
    fn numbers_and_uids() {
        let view = view(&[2, 4, 5, 9]);
        assert_eq!(view.numbers_of_uids(&[(1, 3), (5, 100)]), [(1, 1), (3, 4)]);
        assert_eq!(view.numbers_of_uids(&[(2, 2), (4, 4)]), [(1, 2)]);
        assert_eq!(view.numbers_of_uids(&[(6, 8)]), []);
        assert_eq!(view.uids_of(&[(2, 3)]), set("4:5"));
        assert_eq!(view.numbers(&[(1, 4)]), Some(vec![(1, 4)]));
        assert_eq!(view.numbers(&[(4, 5)]), None);
        assert_eq!((view.number(uid(5)), view.number(uid(6))), (Some(3), None));
        assert_eq!((view.uid(4), view.uid(5), view.uid(0)), (Some(uid(9)), None, None));
    }

    #[test]
    fn expunges_wait_until_they_may_be_told() {
        let mut view = view(&[2, 4, 5, 9]);
        let news = view.advance(&set("5,12"), &set("4"), ModSeq(20), false);
        assert_eq!(news, News { expunged: vec![], exists: Some(5), changed: vec![(3, uid(5))] });
        assert!(view.has_untold_expunges());
        assert_eq!(view.number(uid(4)), Some(2));

        let news = view.advance(&set("9,12"), &set("2"), ModSeq(30), true);
        assert_eq!(
            news,
            News {
                expunged: vec![(2, uid(4)), (1, uid(2))],
                exists: None,
                changed: vec![(2, uid(9)), (3, uid(12))]
            }
        );
        assert_eq!(view.len(), 3);
        assert_eq!(view.synced(), ModSeq(30));
        assert!(!view.has_untold_expunges());
    }

    #[test]
    fn new_and_gone_at_once() {
        let mut view = view(&[1]);
        // 2 came and went unseen, 3 stayed.
        let news = view.advance(&set("3"), &set("1,2"), ModSeq(20), true);
        assert_eq!(news, News { expunged: vec![(1, uid(1))], exists: Some(1), changed: vec![] });
        assert_eq!(view.uid(1), Some(uid(3)));
        // A UID at or below the highest ever shown is never new.
        let news = view.advance(&set("1"), &set(""), ModSeq(21), true);
        assert_eq!(news, News::default());
    }

    mod model {
        use proptest::prelude::*;

        use super::*;

        /// A client that believes what it is told, beside a mailbox that changes.
        #[derive(Debug, Clone)]
        enum Step {
            Append,
            Change(prop::sample::Index),
            Expunge(prop::sample::Index),
            Tell { may_expunge: bool },
        }

        fn step() -> impl Strategy<Value = Step> {
            prop_oneof![
                Just(Step::Append),
                any::<prop::sample::Index>().prop_map(Step::Change),
                any::<prop::sample::Index>().prop_map(Step::Expunge),
                any::<bool>().prop_map(|may_expunge| Step::Tell { may_expunge }),
            ]
        }

        proptest! {
            #![proptest_config(ProptestConfig::with_cases(200))]
            #[test]
            fn a_client_that_believes_converges(steps in prop::collection::vec(step(), 0..60)) {
                // The mailbox: uid → last change. The client: what it has heard of each number.
                let mut mailbox = vec![(1_u32, 1_u64), (2, 2)];
                let (mut next, mut modseq) = (3_u32, 2_u64);
                let mut expunged: Vec<(u32, u64)> = vec![];
                let mut view = View::new(mailbox.iter().map(|(number, _)| uid(*number)), ModSeq(modseq));
                let mut client: Vec<(Option<u32>, u64)> = mailbox.iter().map(|(u, m)| (Some(*u), *m)).collect();
                let tell = Step::Tell { may_expunge: true };
                for step in steps.into_iter().chain([tell]) {
                    match step {
                        Step::Append => {
                            modseq += 1;
                            mailbox.push((next, modseq));
                            next += 1;
                        }
                        Step::Change(index) if !mailbox.is_empty() => {
                            modseq += 1;
                            index.get_mut(&mut mailbox).1 = modseq;
                        }
                        Step::Expunge(index) if !mailbox.is_empty() => {
                            modseq += 1;
                            let gone = mailbox.remove(index.index(mailbox.len()));
                            expunged.push((gone.0, modseq));
                        }
                        Step::Tell { may_expunge } => {
                            let since = view.synced().0;
                            let changed = mailbox.iter().filter(|(_, m)| *m > since).map(|(u, _)| uid(*u)).collect();
                            let vanished = expunged.iter().filter(|(_, m)| *m > since).map(|(u, _)| uid(*u)).collect();
                            let news = view.advance(&changed, &vanished, ModSeq(modseq), may_expunge);
                            prop_assert!(may_expunge || news.expunged.is_empty());
                            for (number, _) in &news.expunged {
                                client.remove(*number as usize - 1);
                            }
                            if let Some(exists) = news.exists {
                                prop_assert!(exists as usize >= client.len());
                                client.resize(exists as usize, (None, 0));
                            }
                            for (number, gone) in &news.changed {
                                let now = mailbox.iter().find(|(u, _)| *u == gone.get()).unwrap().1;
                                client[*number as usize - 1].1 = now;
                            }
                            // It asks for the UIDs of what is new, and for its flags.
                            for (index, entry) in client.iter_mut().enumerate() {
                                let shown = view.uid(index as u32 + 1).unwrap().get();
                                match entry.0 {
                                    Some(known) => prop_assert_eq!(known, shown),
                                    None => {
                                        entry.0 = Some(shown);
                                        if let Some((_, m)) = mailbox.iter().find(|(u, _)| *u == shown) {
                                            entry.1 = *m;
                                        }
                                    }
                                }
                            }
                        }
                        _ => {}
                    }
                }
                let expected: Vec<_> = mailbox.iter().map(|(u, m)| (Some(*u), *m)).collect();
                prop_assert_eq!(client, expected);
            }
        }
    }
}
