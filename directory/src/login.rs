//! Proving who one is.
//!
//! Who does not exist costs as much work as who does, and gets the same answer, so that nobody learns here which
//! accounts there are.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::{hmac, rand};
use mail::address::Address;
use mail::id::AccountId;
use mail::region::Region;
use serde::{Deserialize, Serialize};

use crate::access::{self, Claims};
use crate::account::{AccountEntry, AccountStatus};
use crate::app_password::{Service, ServiceSet};
use crate::credential::{Credential, ScramVerifier, prepare};
use crate::entry::Entry;
use crate::grant::GrantId;
use crate::look::{Directory, Look, Temporary, unix_now};
use crate::route::Resolution;
use crate::throttle::{Attempt, RemoteNetwork, Report};

/// A name and a password, as PLAIN, LOGIN and IMAP's LOGIN bring them.
#[derive(Clone)]
pub struct PlainLogin {
    /// `local@domain`, or a bare name where `login_domain` is configured.
    pub login: String,
    /// The password, or an access token. With a token the name may be empty.
    pub password: String,
    /// The service that asks; an application password may be limited to others.
    pub service: Service,
}

impl fmt::Debug for PlainLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainLogin").field("login", &self.login).finish_non_exhaustive()
    }
}

/// Somebody who has proved who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The account.
    pub account: AccountId,
    /// Its address.
    pub address: Address,
    /// How it was proved.
    pub by: Proof,
    /// Where this login is good.
    pub services: ServiceSet,
}

/// How a principal proved who they are. The order of the variants is part of a stored format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// With the account's password.
    Password,
    /// With the account's password, by SCRAM.
    Scram,
    /// With the application password of this name.
    AppPassword(String),
    /// With an access token that came of this grant.
    Token(GrantId),
}

/// Why a login was refused.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Wrong name or password, or an account that may not log in. Which of them is not said.
    #[error("authentication failed")]
    Rejected,
    /// Too many failures of this account or from this network.
    #[error("too many failed logins, try again in {} seconds", .retry_after.as_secs().max(1))]
    Throttled {
        /// When one more would be allowed.
        retry_after: Duration,
    },
    /// The account is in another region, which is to be asked with all that the client said.
    #[error("the account is in region {0}")]
    Elsewhere(Region),
    /// Too many logins at one time.
    #[error("too many logins at one time")]
    Busy,
    /// The directory could not be asked.
    #[error(transparent)]
    Temporary(#[from] Temporary),
}

impl AuthError {
    /// Whether the same login can succeed later.
    pub fn is_temporary(&self) -> bool {
        !matches!(self, Self::Rejected)
    }
}

/// A failed login, for the audit log.
#[derive(Clone, Copy, Debug)]
pub struct LoginFailure<'a> {
    /// What was given as the name, cut to 256 octets.
    pub login: &'a str,
    /// From where.
    pub remote: IpAddr,
    /// At which service.
    pub service: Service,
    /// Why: `rejected`, `disabled`, `throttled` or `busy`.
    pub reason: &'static str,
}

/// A SCRAM exchange for a name: what the server needs for it. Unless it is told that it succeeded, it counts as a
/// failed login.
#[derive(Debug)]
pub struct ScramLogin {
    directory: Directory,
    verifier: ScramVerifier,
    principal: Option<Principal>,
    trial: Option<Trial>,
    login: String,
    remote: IpAddr,
    service: Service,
}

impl ScramLogin {
    /// The verifier; for a name that does not exist or has none, one that nothing satisfies.
    pub fn verifier(&self) -> &ScramVerifier {
        &self.verifier
    }

    /// The client's proof was right.
    pub fn succeeded(mut self) -> Result<Principal, AuthError> {
        // Without a principal the trial stays, and fails when this is dropped.
        let Some(principal) = self.principal.take() else { return Err(AuthError::Rejected) };
        if let Some(trial) = self.trial.take() {
            trial.succeeded();
        }
        Ok(principal)
    }
}

impl Drop for ScramLogin {
    fn drop(&mut self) {
        if self.trial.take().is_some() {
            self.directory.failed(&self.login, self.remote, self.service, "rejected");
        }
    }
}

/// An attempt that was allowed. Unless it is told otherwise, it has failed when it is dropped, and the other nodes hear of
/// it: a caller who goes away leaves a failure behind, so that hanging up early gains nothing.
struct Trial {
    directory: Directory,
    attempt: Option<Attempt>,
}

impl Trial {
    /// The password was right.
    fn succeeded(mut self) {
        let Some(attempt) = self.attempt.take() else { return };
        let news = self.directory.inner.throttle.lock().succeeded(attempt, Instant::now());
        if let (Some(report), Some(tell)) = (news, self.directory.inner.tell_others.get()) {
            tell(report);
        }
    }

    /// Nothing was learned about the password.
    fn undecided(mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.directory.inner.throttle.lock().undecided(attempt, Instant::now());
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let (Some(attempt), Some(tell)) = (self.attempt.take(), self.directory.inner.tell_others.get()) {
            tell(attempt.failed());
        }
    }
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trial")
    }
}

/// Failed logins are counted for all nodes together.
impl Directory {
    /// From now on other nodes are told of failed logins. `tell` must not wait.
    pub fn tell_others(&self, tell: impl Fn(Report) + Send + Sync + 'static) {
        // Only who opened the directory joins other nodes with it, once.
        let _ = self.inner.tell_others.set(Box::new(tell));
    }

    /// Another node tells of a login.
    pub fn heard_of_login(&self, report: Report) {
        self.inner.throttle.lock().heard(report, Instant::now());
    }

    /// So many nodes share the limits of failed logins by not using them up; one, where they hear of each other.
    pub fn share_login_limits(&self, nodes: u32) {
        self.inner.throttle.lock().share_out(nodes);
    }
}

impl Directory {
    /// Checks a name and a password.
    pub async fn authenticate(&self, login: &PlainLogin, remote: IpAddr) -> Result<Principal, AuthError> {
        let key = match &*login.login {
            // A token says whose it is.
            "" => self.login_key(&access::claimed_login(&login.password).unwrap_or_default()),
            login => self.login_key(login),
        };
        let trial = self.attempt(&key, &login.login, remote, login.service)?;
        let checked = if access::is_token(&login.password) {
            self.check_token(&key, login).await
        } else {
            self.check(&key, login).await
        };
        match checked {
            Ok(principal) => {
                trial.succeeded();
                Ok(principal)
            }
            Err((error, reason)) => {
                if error.is_temporary() {
                    trial.undecided();
                }
                if let Some(reason) = reason {
                    self.failed(&login.login, remote, login.service, reason);
                }
                Err(error)
            }
        }
    }

    /// Begins a SCRAM-SHA-256 login.
    pub async fn scram(
        &self,
        login: &str,
        service: Service,
        remote: IpAddr,
    ) -> Result<ScramLogin, AuthError> {
        let key = self.login_key(login);
        let trial = self.attempt(&key, login, remote, service)?;
        let found = match self.account_here(&key).await {
            Ok(found) => found,
            Err(error) => {
                trial.undecided();
                return Err(error);
            }
        };
        let usable = found.filter(|(_, account)| account.status.logs_in()).and_then(|(address, account)| {
            let verifier = account.password.as_ref()?.scram.clone()?;
            let services = ServiceSet::ALL;
            Some((verifier, Principal { account: account.id, address, by: Proof::Scram, services }))
        });
        let (verifier, principal) = match usable {
            Some((verifier, principal)) => (verifier, Some(principal)),
            None => {
                let iterations = self.config().scram_iterations;
                (ScramVerifier::decoy(&self.inner.decoy_secret, &key, iterations), None)
            }
        };
        Ok(ScramLogin {
            directory: self.clone(),
            verifier,
            principal,
            trial: Some(trial),
            login: login.to_owned(),
            remote,
            service,
        })
    }

    /// Whether a principal may use an address as a sender: its own, with any detail, or an alias that leads to it and
    /// allows it.
    pub async fn may_send_as(&self, principal: &Principal, address: &Address) -> Result<bool, Temporary> {
        match self.resolve(address).await? {
            Resolution::Account(route) => Ok(route.account == principal.account),
            Resolution::Alias { .. } => {
                let Some(targets) = self.senders_of(address).await? else { return Ok(false) };
                for target in targets {
                    if let Resolution::Account(route) = self.resolve(&target).await?
                        && route.account == principal.account
                    {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Resolution::List { .. }
            | Resolution::Elsewhere { .. }
            | Resolution::Disabled
            | Resolution::NoSuchUser
            | Resolution::NotLocal => Ok(false),
        }
    }

    /// The targets of an alias that allows them to send under its name.
    async fn senders_of(&self, address: &Address) -> Result<Option<Vec<Address>>, Temporary> {
        let Some(name) = address.domain().name() else { return Ok(None) };
        let Some(domain) = self.domain(name, Look::Known).await? else { return Ok(None) };
        let key = address.local_key();
        let state = domain.look_up(vec![key.clone()], Look::Known).await?;
        Ok(match state.get(&key).map(|entry| &**entry) {
            Some(Entry::Alias(alias)) if alias.send_as => {
                Some(alias.targets.iter().filter_map(|text| Address::parse(text).ok()).collect())
            }
            _ => None,
        })
    }

    /// The name under which a login is looked up and counted.
    fn login_key(&self, login: &str) -> String {
        let whole = match (login.contains('@'), self.config().login_domain.as_str()) {
            (false, domain) if !domain.is_empty() => Address::parse(&format!("{login}@{domain}")),
            _ => Address::parse(login),
        };
        match whole {
            Ok(address) => address.key(),
            // Not an address: it is counted all the same, under a bounded name that no account has.
            Err(_) => format!("?{}", cut(login)),
        }
    }

    fn attempt(&self, key: &str, login: &str, remote: IpAddr, service: Service) -> Result<Trial, AuthError> {
        let allowed = self.inner.throttle.lock().attempt(key, RemoteNetwork::from(remote), Instant::now());
        let attempt = allowed.map_err(|throttled| {
            self.failed(login, remote, service, "throttled");
            AuthError::Throttled { retry_after: throttled.retry_after }
        })?;
        Ok(Trial { directory: self.clone(), attempt: Some(attempt) })
    }

    fn failed(&self, login: &str, remote: IpAddr, service: Service, reason: &'static str) {
        metrics::counter!("postrider_login_failures_total", "service" => service.name(), "reason" => reason)
            .increment(1);
        (self.inner.on_login_failure)(&LoginFailure { login: cut(login), remote, service, reason });
    }

    /// The account that a login key names, as it stands now.
    pub(crate) async fn account_of(&self, key: &str) -> Result<Option<(Address, AccountEntry)>, Temporary> {
        self.account_at(key, Look::Fresh).await
    }

    async fn account_at(&self, key: &str, look: Look) -> Result<Option<(Address, AccountEntry)>, Temporary> {
        let Ok(address) = Address::parse(key) else { return Ok(None) };
        let Some(name) = address.domain().name() else { return Ok(None) };
        let Some(domain) = self.domain(name, look).await? else { return Ok(None) };
        let key = address.local_key();
        let state = domain.look_up(vec![key.clone()], look).await?;
        if state.settings().disabled {
            return Ok(None);
        }
        Ok(match state.get(&key).map(|entry| &**entry) {
            Some(Entry::Account(account)) => {
                domain.address(&account.name).map(|address| (address, account.clone()))
            }
            _ => None,
        })
    }

    /// The same, or that it is in another region.
    async fn account_here(&self, key: &str) -> Result<Option<(Address, AccountEntry)>, AuthError> {
        let found = self.account_of(key).await?;
        if let Some((_, account)) = &found
            && matches!(account.status, AccountStatus::Moving { .. })
        {
            return Err(Temporary("the account is moving to another region".to_owned()).into());
        }
        if found.is_none()
            && let Some(region) = self.login_elsewhere(key).await?
        {
            return Err(AuthError::Elsewhere(region));
        }
        Ok(found)
    }

    /// The other region in which a login key names something.
    async fn login_elsewhere(&self, key: &str) -> Result<Option<Region>, Temporary> {
        if self.inner.homes.is_none() {
            return Ok(None);
        }
        let Ok(address) = Address::parse(key) else { return Ok(None) };
        let Some(name) = address.domain().name() else { return Ok(None) };
        let Some(domain) = self.domain(name, Look::Known).await? else { return Ok(None) };
        let key = address.local_key();
        let state = domain.look_up(vec![key.clone()], Look::Known).await?;
        // What is here is here, whatever the others think.
        if state.settings().disabled || state.get(&key).is_some() {
            return Ok(None);
        }
        self.elsewhere(&domain, &key).await
    }

    async fn check(
        &self,
        key: &str,
        login: &PlainLogin,
    ) -> Result<Principal, (AuthError, Option<&'static str>)> {
        let rejected = |reason| (AuthError::Rejected, Some(reason));
        if login.password.len() > self.config().password_length_max {
            return Err(rejected("rejected"));
        }
        let found = self.account_here(key).await.map_err(|error| (error, None))?;
        let principal_of = |address: Address, account: &AccountEntry, by, services| Principal {
            account: account.id,
            address,
            by,
            services,
        };
        // An application password is told apart by a fast hash; a wrong one costs the slow hash like anything else.
        if let Some((address, account)) = &found
            && let Some(app) = account.app_passwords.iter().find(|app| app.verify(&login.password))
            && account.status.logs_in()
            && app.services.contains(login.service)
        {
            let by = Proof::AppPassword(app.name.clone());
            return Ok(principal_of(address.clone(), account, by, app.services));
        }
        let credential = found.as_ref().and_then(|(_, account)| account.password.clone());
        let name = found.as_ref().map(|(_, account)| (account.id, account.generation));
        let remembered = name.map(|name| self.inner.verified.lock().name_of(name, &login.password));
        let known = remembered
            .is_some_and(|remembered| self.inner.verified.lock().holds(&remembered, Instant::now()));
        let right = if known {
            true
        } else {
            self.verify_slowly(credential, &login.password).await.map_err(|error| (error, Some("busy")))?
        };
        match found {
            Some((_, account)) if right && !account.status.logs_in() => Err(rejected("disabled")),
            Some((address, account)) if right => {
                if let Some(remembered) = remembered {
                    self.inner.verified.lock().remember(remembered, Instant::now());
                }
                Ok(principal_of(address, &account, Proof::Password, ServiceSet::ALL))
            }
            _ => Err(rejected("rejected")),
        }
    }

    /// An access token: made here, of a grant that stands, for an account that may log in.
    async fn check_token(
        &self,
        key: &str,
        login: &PlainLogin,
    ) -> Result<Principal, (AuthError, Option<&'static str>)> {
        let rejected = || (AuthError::Rejected, Some("rejected"));
        // Looked for first, since a token of another region can be checked there alone.
        let found = self.account_here(key).await.map_err(|error| (error, None))?;
        let claims = Claims::verify(&login.password, &self.inner.token_key);
        let (Some((address, account)), Some(claims)) = (found, claims) else { return Err(rejected()) };
        if claims.account != account.id
            || claims.expires <= unix_now()
            || !claims.services.contains(login.service)
        {
            return Err(rejected());
        }
        let grant = self.good_grant(account.id, claims.grant).await.map_err(|error| (error.into(), None))?;
        let Some((_, grant)) = grant else { return Err(rejected()) };
        if !account.status.logs_in() {
            return Err((AuthError::Rejected, Some("disabled")));
        }
        let services = grant.services.and(claims.services);
        Ok(Principal { account: account.id, address, by: Proof::Token(grant.id), services })
    }

    /// Whether somebody who has logged in may go on: the account logs in, and what they logged in with is not withdrawn.
    pub(crate) async fn still_holds(&self, principal: &Principal, look: Look) -> Result<bool, Temporary> {
        let Some((_, account)) = self.account_at(&principal.address.key(), look).await? else {
            return Ok(false);
        };
        if account.id != principal.account || !account.status.logs_in() {
            return Ok(false);
        }
        match &principal.by {
            Proof::Password | Proof::Scram => Ok(account.password.is_some()),
            Proof::AppPassword(name) => Ok(account.app_passwords.iter().any(|app| app.name == *name)),
            Proof::Token(grant) => Ok(self.good_grant(account.id, *grant).await?.is_some()),
        }
    }

    /// Runs the slow hash, on a decoy where there is no password to compare with.
    async fn verify_slowly(&self, credential: Option<Credential>, password: &str) -> Result<bool, AuthError> {
        let password = password.to_owned();
        let cost = self.config().argon2.clone();
        let work = move || match credential {
            Some(credential) => credential.verify(&password),
            None => {
                crate::credential::waste(&password, &cost);
                false
            }
        };
        self.inner.hasher.run(work).await.map_err(|crate::hasher::Busy| AuthError::Busy)
    }
}

/// At most 256 octets of a login, at a character's end.
fn cut(login: &str) -> &str {
    let mut end = login.len().min(256);
    while !login.is_char_boundary(end) {
        end -= 1;
    }
    &login[..end]
}

/// Passwords that were right a moment ago, as keyed hashes: the key lives as long as the process, and the account's
/// generation is hashed along, so that any change of the account forgets them.
pub(crate) struct Verified {
    key: hmac::Key,
    seconds: u64,
    until: HashMap<[u8; 32], Instant>,
    order: VecDeque<[u8; 32]>,
}

/// How many are remembered.
const VERIFIED_MAX: usize = 16_384;

impl Verified {
    pub(crate) fn new(seconds: u64) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut secret = [0; 32];
        rand::fill(&mut secret)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Ok(Self { key, seconds, until: HashMap::new(), order: VecDeque::new() })
    }

    fn name_of(&self, (account, generation): (AccountId, u64), password: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(account.0.as_bytes());
        context.update(&generation.to_be_bytes());
        context.update(prepare(password).as_bytes());
        context.sign().as_ref().try_into().expect("SHA-256 gives 32 octets")
    }

    fn holds(&self, name: &[u8; 32], now: Instant) -> bool {
        self.until.get(name).is_some_and(|until| now < *until)
    }

    fn remember(&mut self, name: [u8; 32], now: Instant) {
        if self.seconds == 0 || self.holds(&name, now) {
            return;
        }
        if self.until.insert(name, now + Duration::from_secs(self.seconds)).is_none() {
            self.order.push_back(name);
        }
        while self.order.len() > VERIFIED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.until.remove(&oldest);
            }
        }
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory")
            .field("references", &Arc::strong_count(&self.inner))
            .finish_non_exhaustive()
    }
}
