//! How many recipients a user may write to within an hour, so that a stolen password does not send a million messages
//! before somebody notices. Counted in memory, by this process.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ::mail::id::AccountId;
use parking_lot::Mutex;

const HOUR: Duration = Duration::from_secs(3_600);
/// Users that are kept in mind; whoever has not written for an hour is forgotten before.
const USERS_MAX: usize = 100_000;

/// Each user's allowance, which fills up evenly in the course of an hour.
#[derive(Debug, Default)]
pub(crate) struct SenderLimit {
    /// Zero: none.
    most: u32,
    users: Mutex<HashMap<AccountId, Allowance>>,
}

#[derive(Clone, Copy, Debug)]
struct Allowance {
    left: f64,
    at: Instant,
}

impl SenderLimit {
    /// At most so many recipients in an hour; zero: as many as they like.
    pub(crate) fn new(most: u32) -> Self {
        Self { most, users: Mutex::default() }
    }

    /// Takes one recipient off a user's allowance. `false`: it is used up.
    pub(crate) fn take(&self, user: AccountId, now: Instant) -> bool {
        if self.most == 0 {
            return true;
        }
        let most = f64::from(self.most);
        let mut users = self.users.lock();
        if users.len() >= USERS_MAX && !users.contains_key(&user) {
            users.retain(|_, allowance| now.saturating_duration_since(allowance.at) < HOUR);
        }
        let allowance = users.entry(user).or_insert(Allowance { left: most, at: now });
        let since = now.saturating_duration_since(allowance.at).as_secs_f64() / HOUR.as_secs_f64();
        allowance.left = (allowance.left + since * most).min(most);
        allowance.at = now;
        let granted = allowance.left >= 1.0;
        if granted {
            allowance.left -= 1.0;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_used_up_and_fills_again() {
        let (limit, start) = (SenderLimit::new(60), Instant::now());
        let (one, other) = (AccountId::random(), AccountId::random());
        let taken = |user, seconds, times: u32| {
            (0..times).filter(|_| limit.take(user, start + Duration::from_secs(seconds))).count()
        };
        assert_eq!(taken(one, 0, 100), 60);
        assert_eq!(taken(other, 0, 10), 10, "each has their own");
        assert_eq!(taken(one, 59, 5), 0);
        assert_eq!(taken(one, 121, 5), 2);
        assert_eq!(taken(one, 90_000, 100), 60);
        assert!(SenderLimit::new(0).take(one, start));
    }
}
