//! Mailing lists.

use mail::address::Address;

use super::AdminError;
use super::domains::name_of;
use crate::entry::{Amendment, Entry, ListEntry};
use crate::look::{Directory, unix_now};

/// Octets of addresses in one operation. A log entry holds 32 KiB.
const SLICE_BYTES: usize = 16 * 1024;

impl Directory {
    /// Makes a list without members.
    pub async fn create_list(&self, address: &Address, owner: &Address) -> Result<(), AdminError> {
        let list = ListEntry {
            name: address.local().to_owned(),
            owner: owner_of(address, owner)?,
            members: Vec::new(),
            created: unix_now(),
        };
        self.create_entry(address, Entry::List(list)).await
    }

    /// Gives a list another owner.
    pub async fn change_list_owner(&self, address: &Address, owner: &Address) -> Result<(), AdminError> {
        let owner = owner_of(address, owner)?;
        let open = self.own_domain(&name_of(address.domain())?).await?;
        let (key, address) = (address.local_key(), address.clone());
        open.commit(vec![key.clone()], move |state| {
            if !matches!(state.get(&key).map(|entry| &**entry), Some(Entry::List(_))) {
                return Err(AdminError::no_such("list", &address));
            }
            let operation = state.amend(&key, Amendment::Owner(owner.clone()));
            Ok((operation.into_iter().collect(), ()))
        })
        .await
    }

    /// Members come and go; those that are there already, or not, are left as they are. Long changes are several
    /// commits, and one that is cut short is finished by asking again.
    pub async fn change_members(
        &self,
        address: &Address,
        add: &[Address],
        remove: &[Address],
    ) -> Result<u64, AdminError> {
        let max = self.config().list_members_max;
        if add.len() > max || remove.len() > max {
            return Err(AdminError::Limit { what: "members", max });
        }
        if add.iter().any(|member| member.key() == address.key()) {
            return Err(AdminError::Invalid { what: "members", why: "a list in itself".to_owned() });
        }
        let open = self.own_domain(&name_of(address.domain())?).await?;
        let mut slices: Vec<(Vec<String>, Vec<String>)> = vec![Default::default()];
        let mut bytes = 0;
        let texts = |addresses: &[Address]| addresses.iter().map(Address::to_string).collect::<Vec<_>>();
        let changes = texts(remove).into_iter().map(|text| (text, false));
        for (text, is_new) in changes.chain(texts(add).into_iter().map(|text| (text, true))) {
            bytes += text.len() + 2;
            if bytes > SLICE_BYTES {
                slices.push(Default::default());
                bytes = text.len();
            }
            if let Some((remove, add)) = slices.last_mut() {
                if is_new { add.push(text) } else { remove.push(text) }
            }
        }
        let mut members = 0;
        for (mut remove, mut add) in slices {
            add.sort_unstable();
            add.dedup();
            remove.sort_unstable();
            remove.dedup();
            let (key, address) = (address.local_key(), address.clone());
            members = open
                .commit(vec![key.clone()], move |state| {
                    let Some(Entry::List(list)) = state.get(&key).map(|entry| &**entry) else {
                        return Err(AdminError::no_such("list", &address));
                    };
                    let is_member = |text: &String| list.members.binary_search(text).is_ok();
                    let amendment = Amendment::Members {
                        add: add
                            .iter()
                            .filter(|text| !is_member(text) || remove.contains(text))
                            .cloned()
                            .collect(),
                        remove: remove.iter().filter(|text| is_member(text)).cloned().collect(),
                    };
                    let Amendment::Members { add, remove } = &amendment else { return Ok((Vec::new(), 0)) };
                    let members = list.members.len() + add.len() - remove.len();
                    if members > max {
                        return Err(AdminError::Limit { what: "members", max });
                    }
                    if add.is_empty() && remove.is_empty() {
                        return Ok((Vec::new(), members as u64));
                    }
                    Ok((state.amend(&key, amendment).into_iter().collect(), members as u64))
                })
                .await?;
        }
        Ok(members)
    }

    /// Removes a list.
    pub async fn delete_list(&self, address: &Address) -> Result<(), AdminError> {
        self.delete_entry(address, "list", |entry| matches!(entry, Entry::List(_))).await
    }
}

fn owner_of(list: &Address, owner: &Address) -> Result<String, AdminError> {
    if owner.key() == list.key() {
        let why = "failures of the list would go to the list".to_owned();
        return Err(AdminError::Invalid { what: "owner", why });
    }
    Ok(owner.to_string())
}
