//! Domains, and walking through what is in them.

use std::sync::Arc;

use engine::LogId;
use mail::address::{Address, Domain};
use uuid::Uuid;

use super::AdminError;
use crate::entry::{DomainEntry, DomainSettings, Entry};
use crate::look::{Directory, Look, unix_now};
use crate::table::Operation;

/// A domain as administrators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainView {
    /// Its normalised name.
    pub name: String,
    /// The domain that it is another name for.
    pub alias_of: Option<String>,
    /// Its settings; the default ones for another domain's name.
    pub settings: DomainSettings,
    /// Accounts, aliases and lists in it.
    pub names: u64,
    /// When it was made, in Unix seconds.
    pub created: u64,
}

/// Some of the names of a domain, in the order of their folded form.
#[derive(Clone, Debug)]
pub struct NamePage {
    /// What they stand for.
    pub entries: Vec<Arc<Entry>>,
    /// Where to go on; `None`: this was the end.
    pub next: Option<String>,
}

impl Directory {
    /// Makes a domain.
    pub async fn create_domain(&self, domain: &Domain, settings: DomainSettings) -> Result<(), AdminError> {
        let name = name_of(domain)?;
        check_settings(&settings)?;
        if self.domain_entry(&name, Look::Fresh).await?.is_some() {
            return Err(AdminError::Exists { what: format!("domain {name}") });
        }
        let log = LogId::domain(Uuid::new_v4());
        self.create_log(log, settings).await?;
        let entry = DomainEntry::Own { log: log.id, created: unix_now() };
        let registered = self.register(name, entry).await;
        if let Err(error) = &registered
            && !matches!(error, AdminError::Undecided(_))
        {
            // Nobody refers to the log yet; if it stays behind it is empty, and costs a row.
            self.discard_log(log).await;
        }
        registered
    }

    /// Makes a domain every name of which means the same name in another one.
    pub async fn create_domain_alias(&self, domain: &Domain, of: &Domain) -> Result<(), AdminError> {
        let (name, of) = (name_of(domain)?, name_of(of)?);
        self.own_domain(&of).await?;
        self.register(name, DomainEntry::AliasOf { domain: of, created: unix_now() }).await
    }

    /// Changes a domain's settings. `change` can run several times.
    pub async fn change_domain(
        &self,
        domain: &Domain,
        mut change: impl FnMut(&mut DomainSettings) + Send + 'static,
    ) -> Result<DomainSettings, AdminError> {
        let open = self.own_domain(&name_of(domain)?).await?;
        open.commit(Vec::new(), move |state| {
            let mut settings = state.settings().clone();
            change(&mut settings);
            check_settings(&settings)?;
            let operations = if &settings == state.settings() {
                Vec::new()
            } else {
                vec![Operation::Settings(settings.clone())]
            };
            Ok((operations, settings))
        })
        .await
    }

    /// Removes a domain that has no names left.
    pub async fn delete_domain(&self, domain: &Domain) -> Result<(), AdminError> {
        let name = name_of(domain)?;
        let entry = self.domain_entry(&name, Look::Fresh).await?;
        let entry = entry.ok_or_else(|| AdminError::NoSuchDomain(name.clone()))?;
        let log = match entry {
            DomainEntry::AliasOf { .. } => None,
            DomainEntry::Own { log, .. } => {
                let names = self.own_domain(&name).await?.look_up(Vec::new(), Look::Fresh).await?.count();
                if names > 0 {
                    return Err(AdminError::DomainInUse { domain: name, by: format!("{names} names") });
                }
                for other in self.domains().await? {
                    if other.alias_of.as_ref() == Some(&name) {
                        return Err(AdminError::DomainInUse { domain: name, by: other.name });
                    }
                }
                Some(LogId::domain(log))
            }
        };
        self.unregister(name).await?;
        if let Some(log) = log {
            self.discard_log(log).await;
        }
        Ok(())
    }

    /// One domain.
    pub async fn domain_view(&self, domain: &Domain) -> Result<DomainView, AdminError> {
        let name = name_of(domain)?;
        match self.domain_entry(&name, Look::Fresh).await? {
            Some(entry) => self.view(name, entry).await,
            None => Err(AdminError::NoSuchDomain(name)),
        }
    }

    /// All domains, by name.
    pub async fn domains(&self) -> Result<Vec<DomainView>, AdminError> {
        let mut views = Vec::new();
        for (name, entry) in self.domain_entries().await? {
            views.push(self.view(name, entry).await?);
        }
        Ok(views)
    }

    /// Names of a domain from `from` on, at most `limit`.
    pub async fn names(&self, domain: &Domain, from: &str, limit: usize) -> Result<NamePage, AdminError> {
        let open = self.own_domain(&name_of(domain)?).await?;
        let mut page = NamePage { entries: Vec::new(), next: Some(mail::address::fold_local_part(from)) };
        while let Some(start) = page.next.take() {
            let state = open.look_up(vec![start.clone()], Look::Known).await?;
            let (records, next_page) = state.page(&start);
            for (key, entry) in records.into_iter().flat_map(|records| records.range(start.clone()..)) {
                if page.entries.len() >= limit {
                    page.next = Some(key.clone());
                    return Ok(page);
                }
                page.entries.push(Arc::clone(entry));
            }
            page.next = next_page.map(str::to_owned);
        }
        Ok(page)
    }

    /// What an address stands for in its own domain, if anything.
    pub async fn entry(&self, address: &Address) -> Result<Option<Arc<Entry>>, AdminError> {
        let open = self.own_domain(&name_of(address.domain())?).await?;
        let key = address.local_key();
        let state = open.look_up(vec![key.clone()], Look::Fresh).await?;
        Ok(state.get(&key).cloned())
    }

    async fn view(&self, name: String, entry: DomainEntry) -> Result<DomainView, AdminError> {
        match entry {
            DomainEntry::AliasOf { domain, created } => Ok(DomainView {
                name,
                alias_of: Some(domain),
                settings: DomainSettings::default(),
                names: 0,
                created,
            }),
            DomainEntry::Own { created, .. } => {
                let state = self.own_domain(&name).await?.look_up(Vec::new(), Look::Known).await?;
                let (settings, names) = (state.settings().clone(), state.count());
                Ok(DomainView { name, alias_of: None, settings, names, created })
            }
        }
    }
}

/// The normalised name of a domain that can be ours; address literals cannot.
pub(super) fn name_of(domain: &Domain) -> Result<String, AdminError> {
    let name = domain.name().ok_or_else(|| AdminError::Invalid {
        what: "domain",
        why: "an address literal cannot be a domain of this server".to_owned(),
    })?;
    Ok(name.to_owned())
}

fn check_settings(settings: &DomainSettings) -> Result<(), AdminError> {
    let invalid = |what, why: String| Err(AdminError::Invalid { what, why });
    if let Some(text) = &settings.catch_all
        && let Err(error) = Address::parse(text)
    {
        return invalid("catch-all", error.to_string());
    }
    if let Some(delimiters) = &settings.subaddress_delimiters
        && (delimiters.chars().count() > 8 || delimiters.chars().any(|c| c == '@' || c.is_alphanumeric()))
    {
        return invalid(
            "subaddress delimiters",
            "at most eight, none of them a letter, a digit or @".to_owned(),
        );
    }
    if settings.description.len() > 1024 {
        return invalid("description", "longer than 1024 octets".to_owned());
    }
    Ok(())
}
