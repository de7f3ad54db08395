//! Whose turn it is to be pushed for. Pure: what is done, and when it is, comes from outside.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use directory::SubscriptionId;
use mail::id::AccountId;
use tokio::time::Instant;

/// Accounts with subscriptions that this process pushes for, in the order in which they are due.
#[derive(Debug, Default)]
pub(super) struct Turns {
    accounts: HashMap<AccountId, Turn>,
    due: BTreeSet<(Instant, AccountId)>,
}

/// One account.
#[derive(Debug)]
struct Turn {
    added: Instant,
    due: Option<Instant>,
    /// Not due before this, however often it changes.
    not_before: Instant,
    is_under_way: bool,
    /// It has changed while it was under way.
    again: bool,
    /// Its logins are to be looked at.
    look: bool,
    troubles: Troubles,
}

/// Subscriptions of an account to which nothing could be pushed.
pub(super) type Troubles = BTreeMap<SubscriptionId, Trouble>;

/// How often it could not, and when it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) failures: u32,
    pub(super) until: Instant,
}

/// An account whose turn has come.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) account: AccountId,
    /// Whether all of its subscriptions are to be looked at, and not only those that something is said to.
    pub(super) look: bool,
    pub(super) troubles: Troubles,
}

impl Turns {
    /// An account has changed. One without subscriptions is none of ours.
    pub(super) fn changed(&mut self, account: AccountId, now: Instant) -> bool {
        let Some(turn) = self.accounts.get_mut(&account) else { return false };
        if turn.is_under_way {
            turn.again = true;
            return false;
        }
        let at = turn.not_before.max(now);
        self.set_due(account, at);
        true
    }

    /// An account has subscriptions. What it has missed is found out by looking.
    pub(super) fn add(&mut self, account: AccountId, now: Instant) {
        let new = Turn {
            added: now,
            due: None,
            not_before: now,
            is_under_way: false,
            again: false,
            look: true,
            troubles: Troubles::new(),
        };
        if let std::collections::hash_map::Entry::Vacant(vacant) = self.accounts.entry(account) {
            vacant.insert(new);
            self.set_due(account, now);
        }
    }

    /// These are all the accounts that had subscriptions when somebody began to look.
    pub(super) fn keep(&mut self, accounts: &HashSet<AccountId>, began: Instant, now: Instant) {
        let gone = self.accounts.iter().filter(|(id, turn)| !accounts.contains(id) && turn.added < began);
        let gone: Vec<AccountId> = gone.map(|(account, _)| *account).collect();
        for account in gone {
            self.remove(account);
        }
        for account in accounts {
            self.add(*account, now);
        }
    }

    /// An account has no subscriptions any more, or they are somebody else's to look after.
    pub(super) fn remove(&mut self, account: AccountId) {
        if let Some(turn) = self.accounts.remove(&account)
            && let Some(at) = turn.due
        {
            self.due.remove(&(at, account));
        }
    }

    /// All are looked at, spread over a while.
    pub(super) fn look_at_all(&mut self, now: Instant, over: Duration) {
        let count = self.accounts.len().max(1) as u32;
        let accounts: Vec<AccountId> = self.accounts.keys().copied().collect();
        for (number, account) in (0..count).zip(accounts) {
            if let Some(turn) = self.accounts.get_mut(&account) {
                turn.look = true;
                if !turn.is_under_way {
                    let at = turn.not_before.max(now + over / count * number);
                    self.set_due(account, at);
                }
            }
        }
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the next one, if it is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<Due> {
        let (at, account) = self.due.first().copied()?;
        if at > now {
            return None;
        }
        self.due.remove(&(at, account));
        let turn = self.accounts.get_mut(&account)?;
        turn.due = None;
        turn.is_under_way = true;
        let look = std::mem::take(&mut turn.look);
        Some(Due { account, look, troubles: std::mem::take(&mut turn.troubles) })
    }

    /// Its turn is over. `retry`: it has one again then, whatever happens; the next one is after `pause` at the soonest.
    pub(super) fn done(
        &mut self,
        account: AccountId,
        troubles: Troubles,
        retry: Option<Instant>,
        now: Instant,
        pause: Duration,
    ) {
        // Who has none any more is not remembered.
        let Some(turn) = self.accounts.get_mut(&account) else { return };
        turn.is_under_way = false;
        turn.not_before = now + pause;
        turn.troubles = troubles;
        let again = std::mem::take(&mut turn.again).then_some(turn.not_before);
        let not_before = turn.not_before;
        if let Some(at) = again.into_iter().chain(retry).min() {
            self.set_due(account, at.max(not_before));
        }
    }

    /// Due at a moment, or sooner where it is already.
    fn set_due(&mut self, account: AccountId, at: Instant) {
        let Some(turn) = self.accounts.get_mut(&account) else { return };
        if turn.due.is_some_and(|due| due <= at) {
            return;
        }
        if let Some(before) = turn.due.replace(at) {
            self.due.remove(&(before, account));
        }
        self.due.insert((at, account));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);

    fn after(now: Instant, seconds: u64) -> Instant {
        now + Duration::from_secs(seconds)
    }

    #[tokio::test]
    async fn a_change_is_told_at_once_and_the_next_after_a_pause() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        let account = AccountId::random();
        assert!(!turns.changed(account, now), "nobody wants to hear of it");
        turns.add(account, now);
        assert!(turns.take(now).unwrap().look);
        assert!(turns.take(now).is_none(), "it is under way");
        turns.done(account, Troubles::new(), None, now, PAUSE);
        assert_eq!(turns.next_due(), None);
        assert!(turns.changed(account, after(now, 10)));
        assert!(!turns.take(after(now, 10)).unwrap().look);
        // While it is under way, and just after.
        turns.changed(account, after(now, 11));
        turns.changed(account, after(now, 11));
        turns.done(account, Troubles::new(), None, after(now, 12), PAUSE);
        turns.changed(account, after(now, 13));
        assert_eq!(turns.next_due(), Some(after(now, 17)));
        assert!(turns.take(after(now, 16)).is_none());
        assert!(turns.take(after(now, 17)).is_some());
        turns.done(account, Troubles::new(), None, after(now, 18), PAUSE);
        assert_eq!(turns.next_due(), None, "all of it was told together");
    }

    #[tokio::test]
    async fn troubles_come_back_with_their_account() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        let account = AccountId::random();
        turns.add(account, now);
        turns.take(now).unwrap();
        let trouble = Trouble { failures: 3, until: after(now, 60) };
        let troubles = Troubles::from([(SubscriptionId::random(), trouble)]);
        turns.done(account, troubles.clone(), Some(after(now, 60)), now, PAUSE);
        assert_eq!(turns.next_due(), Some(after(now, 60)));
        assert_eq!(turns.take(after(now, 60)).unwrap().troubles, troubles);
        turns.remove(account);
        turns.done(account, troubles, Some(now), now, PAUSE);
        assert!(turns.accounts.is_empty() && turns.due.is_empty());
    }

    #[tokio::test]
    async fn who_is_looked_after_follows_what_there_is() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        let accounts: Vec<AccountId> = (0..4).map(|_| AccountId::random()).collect();
        turns.keep(&accounts[..3].iter().copied().collect(), now, now);
        turns.keep(&accounts[1..].iter().copied().collect(), after(now, 1), now);
        turns.keep(&HashSet::new(), now, now);
        let mut taken: Vec<AccountId> =
            std::iter::from_fn(|| turns.take(now)).map(|due| due.account).collect();
        taken.sort();
        let mut expected = accounts[1..].to_vec();
        expected.sort();
        assert_eq!(taken, expected);
        for account in taken {
            turns.done(account, Troubles::new(), None, now, PAUSE);
        }
        turns.look_at_all(now, Duration::from_secs(300));
        assert!(turns.take(after(now, 4)).is_none(), "not within the pause");
        assert!(turns.take(after(now, 5)).unwrap().look);
        assert!(turns.take(after(now, 99)).is_none());
        assert!(turns.take(after(now, 100)).is_some());
    }
}
