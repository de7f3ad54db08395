//! Aliases.

use mail::address::Address;

use super::AdminError;
use super::domains::name_of;
use crate::entry::{AliasEntry, Entry};
use crate::look::{Directory, unix_now};

impl Directory {
    /// Makes an alias. Its targets need not exist yet, and may be elsewhere.
    pub async fn create_alias(
        &self,
        address: &Address,
        targets: Vec<Address>,
        send_as: bool,
    ) -> Result<(), AdminError> {
        let alias = AliasEntry {
            name: address.local().to_owned(),
            targets: self.targets(address, targets)?,
            send_as,
            created: unix_now(),
        };
        self.create_entry(address, Entry::Alias(alias)).await
    }

    /// Gives an alias other targets, or another say about who sends under its name; what is `None` stays.
    pub async fn change_alias(
        &self,
        address: &Address,
        targets: Option<Vec<Address>>,
        send_as: Option<bool>,
    ) -> Result<AliasEntry, AdminError> {
        let targets = targets.map(|targets| self.targets(address, targets)).transpose()?;
        let open = self.own_domain(&name_of(address.domain())?).await?;
        let (key, address) = (address.local_key(), address.clone());
        open.commit(vec![key.clone()], move |state| {
            let Some(Entry::Alias(before)) = state.get(&key).map(|entry| &**entry) else {
                return Err(AdminError::no_such("alias", &address));
            };
            let mut alias = before.clone();
            if let Some(targets) = &targets {
                alias.targets.clone_from(targets);
            }
            alias.send_as = send_as.unwrap_or(alias.send_as);
            let operations = if alias == *before {
                Vec::new()
            } else {
                vec![state.put(&key, Entry::Alias(alias.clone()))]
            };
            Ok((operations, alias))
        })
        .await
    }

    /// Removes an alias.
    pub async fn delete_alias(&self, address: &Address) -> Result<(), AdminError> {
        self.delete_entry(address, "alias", |entry| matches!(entry, Entry::Alias(_))).await
    }

    fn targets(&self, address: &Address, targets: Vec<Address>) -> Result<Vec<String>, AdminError> {
        let max = self.config().alias_targets_max;
        if targets.len() > max {
            return Err(AdminError::Limit { what: "targets", max });
        }
        if targets.is_empty() {
            return Err(AdminError::Invalid { what: "targets", why: "none named".to_owned() });
        }
        if targets.iter().any(|target| target.key() == address.key()) {
            return Err(AdminError::Invalid { what: "targets", why: "an alias of itself".to_owned() });
        }
        let mut texts: Vec<String> = Vec::with_capacity(targets.len());
        for target in targets {
            let text = target.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        Ok(texts)
    }

    pub(super) async fn create_entry(&self, address: &Address, entry: Entry) -> Result<(), AdminError> {
        let open = self.own_domain(&name_of(address.domain())?).await?;
        let (key, what) = (address.local_key(), address.to_string());
        self.claim(&open, &key).await?;
        let (made, made_key) = (entry.clone(), key.clone());
        open.commit(vec![key.clone()], move |state| match state.get(&made_key) {
            Some(_) => Err(AdminError::Exists { what: what.clone() }),
            None => Ok((vec![state.put(&made_key, made.clone())], ())),
        })
        .await?;
        let claimed = self.claim_again(&open, &key).await;
        if matches!(claimed, Err(AdminError::Elsewhere { .. })) {
            open.commit(vec![key.clone()], move |state| {
                let ours = state.get(&key).is_some_and(|now| **now == entry);
                Ok((if ours { state.remove(&key).into_iter().collect() } else { Vec::new() }, ()))
            })
            .await?;
        }
        claimed
    }

    pub(super) async fn delete_entry(
        &self,
        address: &Address,
        kind: &'static str,
        is: impl Fn(&Entry) -> bool + Send + 'static,
    ) -> Result<(), AdminError> {
        let open = self.own_domain(&name_of(address.domain())?).await?;
        let (key, removed_key, address) = (address.local_key(), address.local_key(), address.clone());
        let removed = open
            .commit(vec![key.clone()], move |state| match state.get(&removed_key) {
                Some(entry) if is(entry) => Ok((state.remove(&removed_key).into_iter().collect(), ())),
                _ => Err(AdminError::no_such(kind, &address)),
            })
            .await;
        if matches!(removed, Ok(()) | Err(AdminError::NoSuchName { .. })) {
            self.release(&open, &key).await?;
        }
        removed
    }
}
