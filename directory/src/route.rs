//! Where mail for an address goes: what a name stands for, and what an alias or a list becomes in the end.

use std::collections::{HashSet, VecDeque};

use mail::address::{Address, Domain};
use mail::id::AccountId;
use mail::region::Region;

use crate::Directory;
use crate::account::AccountStatus;
use crate::entry::Entry;
use crate::look::{Look, Temporary};

/// What an address stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// An account that receives mail.
    Account(AccountRoute),
    /// Another name for one or several addresses. A catch-all is one too.
    Alias {
        /// Where its mail goes.
        targets: Vec<Address>,
    },
    /// A mailing list.
    List {
        /// The reverse-path of what goes to the members.
        owner: Address,
        /// The members.
        members: Vec<Address>,
    },
    /// The domain is ours, and the name is in another region, which knows what it stands for.
    Elsewhere {
        /// The region.
        region: Region,
        /// The address.
        address: Address,
    },
    /// An account or a domain that is there but takes no mail: 550 5.2.1.
    Disabled,
    /// The domain is ours and has no such name: 550 5.1.1.
    NoSuchUser,
    /// Not one of our domains.
    NotLocal,
}

/// The account that an address stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRoute {
    /// The account.
    pub account: AccountId,
    /// Its own address, without detail.
    pub address: Address,
    /// What stood behind the separator: `lists` in `alice+lists@…`.
    pub detail: Option<String>,
}

/// What a recipient becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// Where it goes, each account and each remote address once.
    pub targets: Vec<Target>,
    /// What could not be followed. The sender, or the list's owner, is to hear of it.
    pub failures: Vec<Failure>,
}

/// One end of an expansion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it goes.
    pub route: Route,
    /// The reverse-path, if a list on the way put its owner there; `None`: the sender's.
    pub owner: Option<Address>,
}

/// Here or elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// An account of this installation.
    Local(AccountRoute),
    /// An address elsewhere: of another domain, or of another region.
    Remote(Address),
}

/// An address that an expansion could not follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The address.
    pub address: Address,
    /// As in [`Target::owner`].
    pub owner: Option<Address>,
    /// Why not.
    pub reason: FailureReason,
}

/// Why an expansion could not follow an address. All are permanent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailureReason {
    /// 5.1.1
    #[error("no such user")]
    NoSuchUser,
    /// 5.2.1
    #[error("mailbox disabled")]
    Disabled,
    /// 5.4.6: aliases that lead to one another only, or through more steps than allowed.
    #[error("routing loop")]
    Loop,
    /// 5.5.3: more targets than one recipient may have.
    #[error("too many targets")]
    TooMany,
}

impl Directory {
    /// What an address stands for. That it stands for nothing is said only after a fresh look.
    pub async fn resolve(&self, address: &Address) -> Result<Resolution, Temporary> {
        let Ok(known) = self.resolve_at(address, Look::Known).await else {
            // What could not be decided may be decided by now.
            return self.resolve_at(address, Look::Fresh).await;
        };
        match known {
            Resolution::Disabled | Resolution::NoSuchUser | Resolution::NotLocal => {
                self.resolve_at(address, Look::Fresh).await
            }
            Resolution::Account(_)
            | Resolution::Alias { .. }
            | Resolution::List { .. }
            | Resolution::Elsewhere { .. } => Ok(known),
        }
    }

    /// What `<Postmaster>` without a domain stands for (RFC 5321 §4.5.1): the configured postmaster's address.
    pub async fn resolve_postmaster(&self) -> Result<Resolution, Temporary> {
        match self.postmaster() {
            Some(address) => self.resolve(address).await,
            None => Ok(Resolution::NoSuchUser),
        }
    }

    /// Whether this is one of our domains.
    pub async fn is_local(&self, domain: &Domain) -> Result<bool, Temporary> {
        let Some(name) = domain.name() else { return Ok(false) };
        Ok(self.domain(name, Look::Known).await?.is_some() || self.domain(name, Look::Fresh).await?.is_some())
    }

    /// Follows aliases and lists to their ends. Bounded in depth and number; a name that leads back to itself is
    /// followed once.
    pub async fn expand(&self, address: &Address) -> Result<Expansion, Temporary> {
        let mut walk = Walk::new(
            address.clone(),
            self.config().expansion_depth_max,
            self.config().expansion_targets_max,
        );
        while let Some(step) = walk.next() {
            let resolution = self.resolve(&step.address).await?;
            walk.follow(step, resolution);
        }
        Ok(walk.finish())
    }

    async fn resolve_at(&self, address: &Address, look: Look) -> Result<Resolution, Temporary> {
        let Some(name) = address.domain().name() else { return Ok(Resolution::NotLocal) };
        let Some(domain) = self.domain(name, look).await? else { return Ok(Resolution::NotLocal) };
        let key = address.local_key();
        // Delimiters are settings of the domain, so that its root is needed before the name's page is.
        let root = domain.look_up(Vec::new(), look).await?;
        let of_domain = root.settings().subaddress_delimiters.as_ref();
        let delimiters = of_domain.unwrap_or(&self.config().subaddress_delimiters);
        let split = split_detail(address.local(), delimiters);
        let base_key = split.map(|(base, _)| mail::address::fold_local_part(base));
        let keys = std::iter::once(key.clone()).chain(base_key.clone()).collect();
        let state = domain.look_up(keys, Look::Known).await?;
        if state.settings().disabled {
            return Ok(Resolution::Disabled);
        }
        let at_home = |local: &str| domain.address(local);
        for name in std::iter::once(&key).chain(&base_key) {
            if let Some(Entry::Account(account)) = state.get(name).map(|entry| &**entry)
                && matches!(account.status, AccountStatus::Moving { .. })
            {
                return Err(Temporary("the account is moving to another region".to_owned()));
            }
        }
        if let Some(entry) = state.get(&key) {
            return Ok(resolution_of(entry, None, at_home));
        }
        if let (Some(base_key), Some((_, detail))) = (&base_key, split)
            && let Some(entry) = state.get(base_key)
        {
            return Ok(resolution_of(entry, Some(detail), at_home));
        }
        // Before what stands for all names that there are not: some of those may be elsewhere.
        for name in std::iter::once(&key).chain(&base_key) {
            if let Some(region) = self.elsewhere(&domain, name).await? {
                return Ok(Resolution::Elsewhere { region, address: address.clone() });
            }
        }
        if key == "postmaster"
            && let Some(postmaster) = self.postmaster()
            && postmaster.key() != address.key()
        {
            return Ok(Resolution::Alias { targets: vec![postmaster.clone()] });
        }
        match state.settings().catch_all.as_deref().and_then(|text| Address::parse(text).ok()) {
            Some(target) if target.key() != address.key() => Ok(Resolution::Alias { targets: vec![target] }),
            _ => Ok(Resolution::NoSuchUser),
        }
    }
}

fn resolution_of(
    entry: &Entry,
    detail: Option<&str>,
    at_home: impl Fn(&str) -> Option<Address>,
) -> Resolution {
    // Stored addresses were parsed before they were stored; one that a later release would refuse is left out.
    let parse = |texts: &[String]| texts.iter().filter_map(|text| Address::parse(text).ok()).collect();
    match entry {
        Entry::Account(account) => match at_home(&account.name) {
            Some(address) if account.status.receives() => Resolution::Account(AccountRoute {
                account: account.id,
                address,
                detail: detail.map(str::to_owned),
            }),
            _ if account.status == AccountStatus::Closing => Resolution::NoSuchUser,
            _ => Resolution::Disabled,
        },
        Entry::Alias(alias) => Resolution::Alias { targets: parse(&alias.targets) },
        Entry::List(list) => match Address::parse(&list.owner) {
            Ok(owner) => Resolution::List { owner, members: parse(&list.members) },
            Err(_) => Resolution::Disabled,
        },
    }
}

/// Splits at the first separator that has something on both sides.
fn split_detail<'a>(local: &'a str, delimiters: &str) -> Option<(&'a str, &'a str)> {
    local
        .char_indices()
        .find(|(at, c)| *at > 0 && delimiters.contains(*c))
        .map(|(at, c)| (&local[..at], &local[at + c.len_utf8()..]))
        .filter(|(_, detail)| !detail.is_empty())
}

/// An expansion under way. Pure.
struct Walk {
    depth_max: usize,
    targets_max: usize,
    first: Address,
    todo: VecDeque<Step>,
    /// Names of ours that were looked at, folded, and remote addresses, as they are.
    seen: HashSet<String>,
    accounts: HashSet<AccountId>,
    found: Expansion,
}

struct Step {
    address: Address,
    owner: Option<Address>,
    depth: usize,
}

impl Walk {
    fn new(first: Address, depth_max: usize, targets_max: usize) -> Self {
        let mut seen = HashSet::new();
        seen.insert(first.key());
        let step = Step { address: first.clone(), owner: None, depth: 0 };
        Self {
            depth_max,
            targets_max,
            first,
            todo: VecDeque::from([step]),
            seen,
            accounts: HashSet::new(),
            found: Expansion::default(),
        }
    }

    fn next(&mut self) -> Option<Step> {
        self.todo.pop_front()
    }

    fn follow(&mut self, step: Step, resolution: Resolution) {
        let (targets, owner) = match resolution {
            Resolution::Account(route) => {
                if self.accounts.insert(route.account) {
                    self.found.targets.push(Target { route: Route::Local(route), owner: step.owner });
                }
                return;
            }
            Resolution::NotLocal | Resolution::Elsewhere { .. } => {
                self.found.targets.push(Target { route: Route::Remote(step.address), owner: step.owner });
                return;
            }
            Resolution::NoSuchUser => return self.fail(step, FailureReason::NoSuchUser),
            Resolution::Disabled => return self.fail(step, FailureReason::Disabled),
            Resolution::Alias { targets } => (targets, step.owner.clone()),
            Resolution::List { owner, members } => (members, Some(owner)),
        };
        if step.depth >= self.depth_max {
            return self.fail(step, FailureReason::Loop);
        }
        for address in targets {
            if !self.seen.insert(address.key()) {
                continue;
            }
            if self.todo.len() + self.found.targets.len() >= self.targets_max {
                return self.fail(step, FailureReason::TooMany);
            }
            self.todo.push_back(Step { address, owner: owner.clone(), depth: step.depth + 1 });
        }
    }
}

impl Walk {
    fn fail(&mut self, step: Step, reason: FailureReason) {
        self.found.failures.push(Failure { address: step.address, owner: step.owner, reason });
    }

    fn finish(mut self) -> Expansion {
        if self.found.targets.is_empty() && self.found.failures.is_empty() {
            // Only names that lead to one another, or a list without members.
            self.found.failures.push(Failure {
                address: self.first,
                owner: None,
                reason: FailureReason::Loop,
            });
        }
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    /// Follows names in a little directory: `name: target target` lines are aliases, `name* owner: …` lists.
    fn walk(from: &str, rules: &[(&str, &str)], depth_max: usize, targets_max: usize) -> String {
        let mut walk = Walk::new(address(from), depth_max, targets_max);
        while let Some(step) = walk.next() {
            let at = step.address.to_string();
            let resolution = match rules.iter().find(|(name, _)| name.split('*').next() == Some(&at)) {
                Some((name, targets)) => {
                    let targets = targets.split_whitespace().map(address).collect();
                    match name.split_once('*') {
                        Some((_, owner)) => Resolution::List { owner: address(owner), members: targets },
                        None => Resolution::Alias { targets },
                    }
                }
                None if at.starts_with("gone") => Resolution::NoSuchUser,
                None if at.ends_with("@here") => Resolution::Account(AccountRoute {
                    account: AccountId(uuid::Uuid::from_u128(u128::from(at.as_bytes()[0]))),
                    address: step.address.clone(),
                    detail: None,
                }),
                None => Resolution::NotLocal,
            };
            walk.follow(step, resolution);
        }
        let found = walk.finish();
        let owner = |owner: &Option<Address>| owner.as_ref().map(|o| format!("({o})")).unwrap_or_default();
        let targets = found.targets.iter().map(|target| match &target.route {
            Route::Local(route) => format!("{}{}", route.address, owner(&target.owner)),
            Route::Remote(address) => format!("{address}{}", owner(&target.owner)),
        });
        let failures =
            found.failures.iter().map(|f| format!("!{} {:?}{}", f.address, f.reason, owner(&f.owner)));
        targets.chain(failures).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn names_become_accounts_and_remote_addresses() {
        #[track_caller]
        fn check(from: &str, rules: &[(&str, &str)], expected: &str) {
            assert_eq!(walk(from, rules, 5, 10), expected);
        }
        check("a@here", &[], "a@here");
        check("x@there", &[], "x@there");
        check("i@here", &[("i@here", "a@here b@here x@there A@here")], "a@here b@here x@there");
        check("i@here", &[("i@here", "j@here"), ("j@here", "a@here i@here")], "a@here");
        check("i@here", &[("i@here", "j@here"), ("j@here", "i@here")], "!i@here Loop");
        check(
            "l@here",
            &[("l@here*o@here", "a@here gone@here")],
            "a@here(o@here) !gone@here NoSuchUser(o@here)",
        );
        check(
            "i@here",
            &[
                ("i@here", "l@here a@here"),
                ("l@here*o@here", "m@here b@here"),
                ("m@here*p@here", "c@here x@there"),
            ],
            "a@here b@here(o@here) c@here(p@here) x@there(p@here)",
        );
        check("l@here", &[("l@here*o@here", "")], "!l@here Loop");
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let chain: Vec<(String, String)> =
            (0..9).map(|n| (format!("n{n}@here"), format!("n{}@here", n + 1))).collect();
        let chain: Vec<(&str, &str)> = chain.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(walk("n0@here", &chain, 9, 10), "n9@here");
        assert_eq!(walk("n0@here", &chain, 8, 10), "!n8@here Loop");
        let many = (0..20).map(|n| format!("x{n}@there")).collect::<Vec<_>>().join(" ");
        let result = walk("l@here", &[("l@here*o@here", &many)], 5, 10);
        assert!(result.ends_with("!l@here TooMany"), "{result}");
        assert_eq!(result.matches("@there").count(), 10);
    }

    #[test]
    fn details_are_split_off() {
        #[track_caller]
        fn check(local: &str, expected: Option<(&str, &str)>) {
            assert_eq!(split_detail(local, "+-"), expected);
        }
        check("alice", None);
        check("alice+lists", Some(("alice", "lists")));
        check("alice-lists+x", Some(("alice", "lists+x")));
        check("+lists", None);
        check("alice+", None);
        check("+a+b", Some(("+a", "b")));
        assert_eq!(split_detail("a+b", ""), None);
    }
}
