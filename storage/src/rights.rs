//! Who may do what with an account.

use mail::id::AccountId;

/// On whose behalf a call is made. Every call carries one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Principal {
    /// An authenticated user, by the account that is theirs.
    Owner(AccountId),
    /// The local delivery agent, which places accepted mail.
    Delivery,
    /// An operator, or the server's own upkeep.
    Operator,
}

impl Principal {
    /// Whether it may open this account. Owners may open their own; sharing comes with rights per mailbox.
    pub fn may_open(self, account: AccountId) -> bool {
        match self {
            Self::Owner(own) => own == account,
            Self::Delivery | Self::Operator => true,
        }
    }
}
