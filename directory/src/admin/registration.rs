//! Names that were made before this was one of several regions.

use mail::address::Domain;
use mail::region::Region;

use super::AdminError;
use crate::account::AccountStatus;
use crate::entry::Entry;
use crate::look::Directory;

/// Names that are read at one time.
const NAMES_AT_ONCE: usize = 256;

/// What became of the names of this region in the regions' table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    /// Names that were in no region and are in this one now.
    pub claimed: u64,
    /// Names that were in this region before.
    pub known: u64,
    /// Names that another region has, which stay as they are: `local@domain`, and the region.
    pub elsewhere: Vec<(String, Region)>,
}

impl Directory {
    /// Puts all names of this region into the regions' table. `None`: this is no region. Done again it does nothing.
    pub async fn register_names(&self) -> Result<Option<Registered>, AdminError> {
        let Some(homes) = &self.inner.homes else { return Ok(None) };
        let mut registered = Registered::default();
        for view in self.domains().await? {
            if view.alias_of.is_some() {
                // It has no names of its own.
                continue;
            }
            let domain = Domain::parse(&view.name).map_err(|error| {
                let why = error.to_string();
                AdminError::Invalid { what: "domain", why }
            })?;
            let mut next = Some(String::new());
            while let Some(from) = next {
                let page = self.names(&domain, &from, NAMES_AT_ONCE).await?;
                next = page.next;
                for entry in &page.entries {
                    if is_under_way(entry) {
                        // Whoever moves it says where its name leads.
                        continue;
                    }
                    let name = format!("{}@{}", mail::address::fold_local_part(entry.name()), view.name);
                    match homes.of(&name).await? {
                        Some(region) if region == *homes.here() => registered.known += 1,
                        Some(region) => registered.elsewhere.push((name, region)),
                        None => match homes.claim(&name).await {
                            Ok(()) => registered.claimed += 1,
                            // Somebody was faster.
                            Err(AdminError::Elsewhere { name, region }) => {
                                registered.elsewhere.push((name, region));
                            }
                            Err(error) => return Err(error),
                        },
                    }
                }
            }
        }
        Ok(Some(registered))
    }
}

fn is_under_way(entry: &Entry) -> bool {
    matches!(entry, Entry::Account(account) if matches!(account.status, AccountStatus::Moving { .. } | AccountStatus::Closing))
}
