//! Addresses that the account's mail is not sent to any more, since somebody has said that they do not exist.
//!
//! The list stands in the account's root, which is read and written whole: so it is short, and the oldest go first.

use engine::Build;
use mail::address::Address;
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::draft::{Draft, Refusal};
use crate::entry::Operation;
use crate::error::StorageError;
use crate::state::AccountState;

/// Octets of [`Suppressed::reason`].
const REASON_BYTES_MAX: usize = 300;

/// Why mail is not sent to an address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Suppressed {
    /// Since when (unix seconds).
    pub since: u64,
    /// The status that was reported (RFC 3463), such as `5.1.1`.
    pub status: String,
    /// What was said.
    pub reason: String,
}

impl Suppressed {
    /// A report; its text is cut where it is long.
    pub fn new(since: u64, status: &str, reason: &str) -> Self {
        let mut end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self { since, status: status.to_owned(), reason: reason[..end].to_owned() }
    }
}

impl AccountState {
    /// Addresses that mail is not sent to, ascending.
    pub fn suppressions(&self) -> impl Iterator<Item = (&str, &Suppressed)> {
        self.suppressions.iter().map(|(address, why)| (address.as_str(), why))
    }

    /// Why mail is not sent to an address. `None`: it is.
    pub fn suppressed(&self, address: &Address) -> Option<&Suppressed> {
        if self.suppressions.is_empty() { None } else { self.suppressions.get(&address.key()) }
    }
}

impl Account {
    /// Puts an address on the list. One that is there stays as it is; where the list is full, the oldest goes. `false`:
    /// it was there.
    pub async fn suppress(&self, address: &Address, why: Suppressed) -> Result<bool, StorageError> {
        let (address, most) = (address.key(), self.storage.config().suppressions_max);
        let build = move |state: &AccountState| -> Result<_, Refusal<StorageError>> {
            if most == 0 || state.suppressions.contains_key(&address) {
                return Ok(Build::nothing(false));
            }
            let mut draft = Draft::new::<StorageError>(state)?;
            let mut oldest: Vec<(u64, &String)> =
                state.suppressions.iter().map(|(address, why)| (why.since, address)).collect();
            oldest.sort_unstable();
            for (_, address) in oldest.iter().take((state.suppressions.len() + 1).saturating_sub(most)) {
                draft.push(Operation::Suppress { address: (*address).clone(), why: None });
            }
            draft.push(Operation::Suppress { address: address.clone(), why: Some(why.clone()) });
            Ok(draft.build(true))
        };
        Ok(self.commit(Vec::new(), build).await?.answer)
    }

    /// Takes an address off the list. `false`: it was not there.
    pub async fn unsuppress(&self, address: &Address) -> Result<bool, StorageError> {
        let address = address.key();
        let build = move |state: &AccountState| -> Result<_, Refusal<StorageError>> {
            if !state.suppressions.contains_key(&address) {
                return Ok(Build::nothing(false));
            }
            let mut draft = Draft::new::<StorageError>(state)?;
            draft.push(Operation::Suppress { address: address.clone(), why: None });
            Ok(draft.build(true))
        };
        Ok(self.commit(Vec::new(), build).await?.answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_reasons_are_cut_between_characters() {
        assert_eq!(Suppressed::new(1, "5.1.1", &"ä".repeat(200)).reason, "ä".repeat(150));
        assert_eq!(Suppressed::new(1, "5.1.1", &format!("x{}", "ä".repeat(200))).reason.len(), 299);
    }
}
