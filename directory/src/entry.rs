//! What a local part can stand for, and a domain's own settings: the values of a domain's log.

use serde::{Deserialize, Serialize};

use crate::account::AccountEntry;

/// What a name in a domain stands for. The order of the variants is part of the stored format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// Mailboxes and a login.
    Account(AccountEntry),
    /// Another name for one or several addresses.
    Alias(AliasEntry),
    /// Many addresses, with an owner who hears of failures.
    List(ListEntry),
}

impl Entry {
    /// The local part as the administrator wrote it.
    pub fn name(&self) -> &str {
        match self {
            Self::Account(account) => &account.name,
            Self::Alias(alias) => &alias.name,
            Self::List(list) => &list.name,
        }
    }
}

/// Another name for one or several addresses, here or elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasEntry {
    /// The local part as the administrator wrote it.
    pub name: String,
    /// Where its mail goes, as `local@domain`.
    pub targets: Vec<String>,
    /// Whether an account among the targets may use this address as a sender.
    pub send_as: bool,
    /// Unix seconds.
    pub created: u64,
}

/// Many addresses behind one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListEntry {
    /// The local part as the administrator wrote it.
    pub name: String,
    /// Who hears of failures, as `local@domain`: the reverse-path of what goes to the members (RFC 5321 §3.9.2).
    pub owner: String,
    /// The members, as `local@domain`, sorted and each once.
    pub members: Vec<String>,
    /// Unix seconds.
    pub created: u64,
}

/// A change of a part of an entry, for entries that are too large to be written whole. The order of the variants is
/// part of the stored format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Amendment {
    /// Members come and go. Those to add are not in the list, those to remove are.
    Members {
        /// Members to add.
        add: Vec<String>,
        /// Members to remove.
        remove: Vec<String>,
    },
    /// Another owner.
    Owner(String),
}

/// A domain's own settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainSettings {
    /// Where mail for names that do not exist goes, as `local@domain`. Without one it is refused.
    pub catch_all: Option<String>,
    /// What separates a name from its detail here; `None`: as configured for the server.
    pub subaddress_delimiters: Option<String>,
    /// Mail for the domain is refused and nobody of it logs in.
    pub disabled: bool,
    /// What a new account gets when nothing else is said.
    pub quota: crate::account::Quota,
    /// The administrator's words.
    pub description: String,
}

/// What the registry knows of a domain. The order of the variants is part of the stored format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DomainEntry {
    /// A domain with a log of its own.
    Own {
        /// The domain's log.
        log: uuid::Uuid,
        /// Unix seconds.
        created: u64,
    },
    /// Every name in it means the same name in another domain.
    AliasOf {
        /// The other domain, which is not itself such a name.
        domain: String,
        /// Unix seconds.
        created: u64,
    },
}
