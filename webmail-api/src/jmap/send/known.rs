//! What the directory says of an account of which identities come: its name, and the aliases that it may send as.
//!
//! The directory is another log than the account, so the state of identities (RFC 8620 §5.1) has two parts: what was stored
//! last, and a mark of what the directory says.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use directory::admin::AdminError;
use directory::entry::Entry;
use directory::{Directory, Principal};
use jmap_protocol::Id;
use mail::address::Address;

/// What the ids of identities begin with that come of aliases. Ids that storage gives are others.
const ALIAS: &str = "alias-";

/// What the directory says of an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The name of whom it belongs to.
    pub(crate) name: String,
    /// The aliases that it may send as, with the ids of their identities.
    pub(crate) aliases: Vec<(Id, Address)>,
}

impl Known {
    /// Asks the directory. Aliases are looked for in the account's own domain, where it has not more than so many names:
    /// nothing leads from an account to its aliases, and many domains are small.
    pub(crate) async fn ask(
        directory: &Directory,
        principal: &Principal,
        names_max: usize,
    ) -> Result<Self, AdminError> {
        let own = &principal.address;
        let name = match directory.entry(own).await?.as_deref() {
            Some(Entry::Account(account)) => account.display_name.clone(),
            _ => String::new(),
        };
        let mut known = Self { name, aliases: Vec::new() };
        if names_max == 0 {
            return Ok(known);
        }
        let page = directory.names(own.domain(), "", names_max).await?;
        if page.next.is_some() {
            return Ok(known);
        }
        for entry in &page.entries {
            let Entry::Alias(alias) = &**entry else { continue };
            let leads_here = |target: &String| Address::parse(target).is_ok_and(|it| it.key() == own.key());
            if !alias.send_as || !alias.targets.iter().any(leads_here) {
                continue;
            }
            if let Ok(address) = Address::parse(&format!("{}@{}", alias.name, own.domain())) {
                known.aliases.push((id_of(&address), address));
            }
        }
        Ok(known)
    }

    /// What is added to the state of identities. Empty, where there is nothing that could be another.
    pub(crate) fn mark(&self) -> String {
        if *self == Self::default() {
            return String::new();
        }
        let mut text = self.name.clone();
        for (_, address) in &self.aliases {
            let _ = write!(text, "\n{address}");
        }
        format!("-{}", short_digest(&text))
    }
}

/// Whether an id is that of an identity that came of an alias.
pub(crate) fn is_of_alias(id: &str) -> bool {
    id.starts_with(ALIAS)
}

/// The same alias has the same id whenever it is asked for.
fn id_of(address: &Address) -> Id {
    Id::new(format!("{ALIAS}{}", short_digest(&address.key()))).expect("letters and digits are an id")
}

fn short_digest(text: &str) -> String {
    let mut short = String::new();
    for byte in digest(&SHA256, text.as_bytes()).as_ref().iter().take(10) {
        let _ = write!(short, "{byte:02x}");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What clients have been given has to mean the same after an update.
    #[test]
    fn ids_and_marks_are_frozen() {
        let address = Address::parse("Sales@x.test").unwrap();
        let id = id_of(&address);
        assert_eq!(id, id_of(&Address::parse("sales@X.test").unwrap()));
        assert!(is_of_alias(id.as_str()) && id.as_str().len() == 26, "{id}");
        assert_eq!(Known::default().mark(), "");
        let one = Known { name: "A".to_owned(), aliases: vec![(id, address)] };
        let other = Known { aliases: Vec::new(), ..one.clone() };
        assert_ne!(one.mark(), other.mark());
        assert_eq!(one.mark().len(), 21);
    }
}
