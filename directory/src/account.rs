//! An account: a person or a machine that owns mailboxes and can log in.

use mail::id::AccountId;
use serde::{Deserialize, Serialize};

use crate::app_password::AppPassword;
use crate::credential::Credential;

/// An account's record in its domain's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountEntry {
    /// The account, and its log in storage. Its storage exists before this record does.
    pub id: AccountId,
    /// The local part as the administrator wrote it; the record's key is its folded form.
    pub name: String,
    /// The name that people see.
    pub display_name: String,
    /// What the account may do.
    pub status: AccountStatus,
    /// What it may hold.
    pub quota: Quota,
    /// Without one, only application passwords can log in.
    pub password: Option<Credential>,
    /// Passwords for single applications, oldest first.
    pub app_passwords: Vec<AppPassword>,
    /// Unix seconds.
    pub created: u64,
    /// Grows with each change of status, password or application passwords, so that what was verified before the
    /// change does not count after it.
    pub generation: u64,
}

/// What an account may do. The order of the variants is part of the stored format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AccountStatus {
    /// Receives mail and logs in.
    Active,
    /// Receives mail; logins are refused.
    LoginDisabled,
    /// Receives nothing and cannot log in; what it holds stays.
    Disabled,
    /// Is being deleted: receives nothing, cannot log in, and its data goes.
    Closing,
    /// Moves to another region: receives nothing and cannot log in until it is there, which is not for long.
    Moving {
        /// Whether it could log in before.
        logs_in: bool,
        /// Whether it received mail before.
        receives: bool,
    },
}

impl AccountStatus {
    /// Whether mail is taken for it.
    pub fn receives(self) -> bool {
        matches!(self, Self::Active | Self::LoginDisabled)
    }

    /// What it may do where it has moved to.
    #[must_use]
    pub(crate) fn arrived(self) -> Self {
        match self {
            Self::Moving { logs_in: true, .. } => Self::Active,
            Self::Moving { receives: true, .. } => Self::LoginDisabled,
            Self::Moving { .. } => Self::Disabled,
            other => other,
        }
    }

    /// Whether it can log in.
    pub fn logs_in(self) -> bool {
        self == Self::Active
    }
}

/// What an account may hold. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Octets of all its messages.
    pub bytes: Option<u64>,
    /// Messages.
    pub messages: Option<u64>,
}

/// A change of a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaChange {
    /// Of [`Quota::bytes`].
    pub bytes: LimitChange,
    /// Of [`Quota::messages`].
    pub messages: LimitChange,
}

/// A change of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitChange {
    /// It stays.
    #[default]
    Keep,
    /// It becomes this; `None`: no limit.
    To(Option<u64>),
}

impl Quota {
    /// The quota after a change.
    #[must_use]
    pub fn changed(self, change: QuotaChange) -> Self {
        let limit = |before, change| match change {
            LimitChange::Keep => before,
            LimitChange::To(after) => after,
        };
        Self { bytes: limit(self.bytes, change.bytes), messages: limit(self.messages, change.messages) }
    }
}
