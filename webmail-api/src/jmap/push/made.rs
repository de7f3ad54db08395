//! How often an account has made subscriptions lately: each has us connect to wherever it says (RFC 8620 §8.6).

use std::collections::HashMap;
use std::time::Duration;

use mail::id::AccountId;
use parking_lot::Mutex;
use tokio::time::Instant;

/// For how long something counts.
const WINDOW: Duration = Duration::from_secs(3_600);
/// Accounts above which those whose time is over are forgotten.
const ACCOUNTS_SWEPT: usize = 1_024;

/// Counts them.
#[derive(Debug, Default)]
pub(super) struct Made(Mutex<HashMap<AccountId, (Instant, u32)>>);

impl Made {
    /// Counts one more. `false`: there were so many within the hour.
    pub(super) fn one_more(&self, account: AccountId, most: u32, now: Instant) -> bool {
        let mut made = self.0.lock();
        if made.len() > ACCOUNTS_SWEPT {
            made.retain(|_, (since, _)| now < *since + WINDOW);
        }
        let (since, count) = made.entry(account).or_insert((now, 0));
        if now >= *since + WINDOW {
            (*since, *count) = (now, 0);
        }
        let may = *count < most;
        *count += u32::from(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn so_many_an_hour() {
        let (made, now, account) = (Made::default(), Instant::now(), AccountId::random());
        assert!(made.one_more(account, 2, now) && made.one_more(account, 2, now));
        assert!(!made.one_more(account, 2, now + WINDOW / 2));
        assert!(made.one_more(AccountId::random(), 2, now));
        assert!(made.one_more(account, 2, now + WINDOW));
    }
}
