//! Passwords and application passwords.

use std::fmt;

use mail::address::Address;

use super::AdminError;
use crate::app_password::{AppPassword, AppSecret, ServiceSet};
use crate::credential::Credential;
use crate::look::{Directory, Temporary, unix_now};

/// A password to set.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum NewPassword {
    /// None: only application passwords can log in.
    #[default]
    None,
    /// In clear.
    Clear(String),
    /// A hash that another server made, as a PHC string.
    Hash(String),
}

impl fmt::Debug for NewPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Clear(_) => "Clear(…)",
            Self::Hash(_) => "Hash(…)",
        })
    }
}

impl Directory {
    /// Sets an account's password. What was verified with the old one does not count any more.
    pub async fn set_password(&self, address: &Address, password: NewPassword) -> Result<(), AdminError> {
        // Looked up first, so that no hash is computed for an account that is not there.
        self.amend_account(address, |_| Ok(())).await?;
        let credential = self.credential(password, unix_now()).await?;
        self.amend_account(address, move |account| {
            account.password.clone_from(&credential);
            account.generation += 1;
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Makes an application password; the answer is the only time that it is seen.
    pub async fn create_app_password(
        &self,
        address: &Address,
        name: &str,
        services: ServiceSet,
    ) -> Result<AppSecret, AdminError> {
        if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
            let why = "empty, longer than 128 octets, or with control characters".to_owned();
            return Err(AdminError::Invalid { what: "name of the application password", why });
        }
        if services.is_empty() {
            return Err(AdminError::Invalid { what: "services", why: "none named".to_owned() });
        }
        let (kept, secret) = AppPassword::generate(name, services, unix_now())?;
        let max = self.config().app_passwords_max;
        self.amend_account(address, move |account| {
            if account.app_passwords.iter().any(|other| other.name == kept.name) {
                return Err(AdminError::Exists { what: format!("application password {:?}", kept.name) });
            }
            if account.app_passwords.len() >= max {
                return Err(AdminError::Limit { what: "application passwords", max });
            }
            account.app_passwords.push(kept.clone());
            account.generation += 1;
            Ok(())
        })
        .await?;
        Ok(secret)
    }

    /// Withdraws an application password.
    pub async fn delete_app_password(&self, address: &Address, name: &str) -> Result<(), AdminError> {
        let name = name.to_owned();
        self.amend_account(address, move |account| {
            let before = account.app_passwords.len();
            account.app_passwords.retain(|app| app.name != name);
            if account.app_passwords.len() == before {
                return Err(AdminError::NoSuchPart { kind: "application password", name: name.clone() });
            }
            account.generation += 1;
            Ok(())
        })
        .await?;
        Ok(())
    }

    pub(super) async fn credential(
        &self,
        password: NewPassword,
        now: u64,
    ) -> Result<Option<Credential>, AdminError> {
        match password {
            NewPassword::None => Ok(None),
            NewPassword::Hash(phc) => Ok(Some(Credential::import(&phc, now)?)),
            NewPassword::Clear(password) => {
                let config = self.config().clone();
                let hashed = self.inner.hasher.run(move || Credential::new(&password, &config, now)).await;
                let hashed = hashed.map_err(|crate::hasher::Busy| {
                    Temporary("too many passwords are being hashed".to_owned())
                })?;
                Ok(Some(hashed?))
            }
        }
    }
}
