//! Checks what is stored of the directory against itself.

use mail::address::{Address, Domain};

use crate::entry::{DomainEntry, Entry};
use crate::look::{Directory, Look, Temporary};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Domains that were looked at, other names of domains included.
    pub domains: u64,
    /// Accounts, aliases and lists.
    pub names: u64,
    /// The accounts, with the address of each.
    pub accounts: Vec<(mail::id::AccountId, Address)>,
    /// The registry's log, for a look at each of its entries and pages.
    pub registry: Option<engine::LogId>,
    /// The domains' logs, by name, likewise.
    pub logs: Vec<(String, engine::LogId)>,
    /// What is wrong, in words.
    pub findings: Vec<String>,
}

impl Directory {
    /// Reads all of the directory: every page can be read, counts and digests are those of the roots, aliases of
    /// domains lead somewhere, and every stored address and credential can be understood.
    pub async fn verify(&self) -> Result<Report, Temporary> {
        let mut report = Report::default();
        let entries = self.domain_entries().await?;
        report.registry = Some(self.registry_state().log());
        if !self.registry_adds_up().await? {
            report.findings.push("registry: count or digest of its pages is not that of its root".to_owned());
        }
        for (name, entry) in &entries {
            report.domains += 1;
            match entry {
                DomainEntry::AliasOf { domain, .. } => {
                    let leads = entries
                        .iter()
                        .any(|(other, entry)| other == domain && matches!(entry, DomainEntry::Own { .. }));
                    if !leads {
                        report
                            .findings
                            .push(format!("{name}: another name for {domain}, which is not there"));
                    }
                }
                DomainEntry::Own { log, .. } => {
                    report.logs.push((name.clone(), engine::LogId::domain(*log)));
                    self.verify_domain(name, &mut report).await;
                }
            }
        }
        Ok(report)
    }

    async fn verify_domain(&self, name: &str, report: &mut Report) {
        let open = match self.domain(name, Look::Known).await {
            Ok(Some(open)) => open,
            Ok(None) => return report.findings.push(format!("{name}: not there")),
            Err(error) => return report.findings.push(format!("{name}: {error}")),
        };
        let (mut count, mut content) = (0, [0; 32]);
        let mut from = Some(String::new());
        let mut root = None;
        while let Some(part) = from {
            let state = match open.look_up(vec![part.clone()], Look::Known).await {
                Ok(state) => state,
                Err(error) => return report.findings.push(format!("{name}: names from {part:?}: {error}")),
            };
            let (page, next) = state.page(&part);
            for (key, entry) in page.into_iter().flatten() {
                count += 1;
                crate::table::mix(&mut content, &crate::table::record_digest(key, &**entry));
                verify_entry(name, key, entry, report);
            }
            from = next.map(str::to_owned);
            root = Some((state.count(), state.content()));
        }
        report.names += count;
        if root.is_some_and(|root| root != (count, content)) {
            report.findings.push(format!("{name}: count or digest of its pages is not that of its root"));
        }
    }

    async fn registry_adds_up(&self) -> Result<bool, Temporary> {
        let (mut count, mut content) = (0, [0; 32]);
        for (name, entry) in self.domain_entries().await? {
            count += 1;
            crate::table::mix(&mut content, &crate::table::record_digest(&name, &entry));
        }
        let root = self.registry_state();
        Ok((root.count(), root.content()) == (count, content))
    }
}

fn verify_entry(domain: &str, key: &str, entry: &Entry, report: &mut Report) {
    let address = Domain::parse(domain).and_then(|domain| Address::new(entry.name(), domain));
    let mut wrong = |why: &str| report.findings.push(format!("{key}@{domain}: {why}"));
    let Ok(address) = address else { return wrong("its name makes no address") };
    if address.local_key() != key {
        wrong("is not where its name belongs");
    }
    let mut all_parse = |texts: &[String]| {
        for text in texts {
            if Address::parse(text).is_err() {
                wrong(&format!("{text:?} is not an address"));
            }
        }
    };
    match entry {
        Entry::Alias(alias) => all_parse(&alias.targets),
        Entry::List(list) => {
            all_parse(&list.members);
            all_parse(std::slice::from_ref(&list.owner));
            if !list.members.is_sorted_by(|a, b| a < b) {
                wrong("its members are not in order");
            }
        }
        Entry::Account(account) => {
            if account.password.as_ref().is_some_and(|password| !password.is_readable()) {
                wrong("its password hash cannot be read");
            }
            report.accounts.push((account.id, address));
        }
    }
}
