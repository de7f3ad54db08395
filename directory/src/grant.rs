//! What somebody has allowed a program or a browser: a *grant*. Access tokens come of it ([`crate::access`]) and cease with
//! it.
//!
//! Grants are rows of table `Mark`, partition `grants` and the account, key: the grant's id; value: `version 1 · the grant`;
//! written by conditions alone. A refresh token is good once: each refresh gives another (RFC 9700 §4.14.2). The one before
//! stays good for a moment, since an answer can be lost; after that whoever brings it has stolen it or was stolen from, and
//! the grant ends.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::{constant_time, digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use engine::rows::successor;
use engine::{EngineError, RowKey, Table, with_causes};
use mail::address::Address;
use mail::id::AccountId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::app_password::ServiceSet;
use crate::login::Principal;
use crate::look::{Directory, Temporary, unix_now};

/// Stands in front of every refresh token, so that one that leaked is recognised.
const PREFIX: &str = "postrider-refresh-";
const PARTITION: &[u8] = b"grants ";
/// The first byte of a row.
const VERSION: u8 = 1;
/// Octets of a refresh token: account, grant, secret.
const TOKEN_LENGTH: usize = 16 + 16 + 32;
/// The longest name of a client, in octets.
const NAME_BYTES_MAX: usize = 128;

/// Tells one grant of an account from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GrantId(pub Uuid);

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl FromStr for GrantId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// What somebody has allowed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its number.
    pub id: GrantId,
    /// Whose, as `Address::key` has it.
    pub address: String,
    /// To whom: the client's id, as OAuth has it (RFC 6749 §2.2).
    pub client: String,
    /// The client as its owner knows it: a program's name, or a browser and where it was.
    pub name: String,
    /// Where tokens of it are good.
    pub services: ServiceSet,
    /// Unix seconds.
    pub created: u64,
    /// When a token was last made of it, in Unix seconds.
    pub used: u64,
    /// When it ends unless a token is made of it before, in Unix seconds.
    pub expires: u64,
    /// SHA-256 of the refresh token's secret. It has 256 random bits, which no slow hash could protect better.
    refresh: [u8; 32],
    /// The same of the one before it.
    before: Option<[u8; 32]>,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("id", &self.id)
            .field("client", &self.client)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

/// A grant that is to be made.
#[derive(Clone, Debug)]
pub struct NewGrant<'a> {
    /// To whom.
    pub client: &'a str,
    /// How its owner knows it.
    pub name: &'a str,
    /// Where it is good; never more than the login with which it is made.
    pub services: ServiceSet,
}

/// A refresh token in clear: shown to the client alone.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken(String);

impl RefreshToken {
    /// The token.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(…)")
    }
}

/// Why nothing came of a grant.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// There is no such grant, it has ended, or the token is not the one it has (RFC 6749 §5.2 `invalid_grant`).
    #[error("no such grant")]
    Invalid,
    /// It was made before.
    #[error("the grant was made before")]
    Exists,
    /// The account has the configured number of them.
    #[error("more than {0} grants")]
    TooMany(usize),
    /// A name is too long, or cannot be shown.
    #[error("the client's {0} is empty, too long, or holds control characters")]
    BadName(&'static str),
    /// The directory could not be asked. What was to be done may be done.
    #[error(transparent)]
    Temporary(#[from] Temporary),
}

impl Directory {
    /// Lets a program do what a login may: for whoever has just proved who they are.
    pub async fn grant(
        &self,
        principal: &Principal,
        new: NewGrant<'_>,
    ) -> Result<(Grant, RefreshToken), GrantError> {
        let new = NewGrant { services: new.services.and(principal.services), ..new };
        self.grant_by_operator(principal.account, &principal.address, &new).await
    }

    /// Lets a program act for an account, since an operator says so.
    pub async fn grant_by_operator(
        &self,
        account: AccountId,
        address: &Address,
        new: &NewGrant<'_>,
    ) -> Result<(Grant, RefreshToken), GrantError> {
        check_name("id", new.client)?;
        check_name("name", new.name)?;
        let id = GrantId(Uuid::from_bytes(random()?));
        match self.make_grant(account, address.key(), id, new).await {
            Err(GrantError::Exists) => Err(Temporary("two grants have one id".to_owned()).into()),
            made => made,
        }
    }

    /// Makes a grant of an id that a signed code bears, or a new one. [`GrantError::Exists`]: it was made before.
    pub(crate) async fn make_grant(
        &self,
        account: AccountId,
        address: String,
        id: GrantId,
        new: &NewGrant<'_>,
    ) -> Result<(Grant, RefreshToken), GrantError> {
        let now = unix_now();
        let grants = self.grants(account).await?;
        if grants.iter().any(|grant| grant.id == id) {
            return Err(GrantError::Exists);
        }
        let (good, ended): (Vec<_>, Vec<_>) = grants.into_iter().partition(|grant| grant.is_good(now));
        for grant in ended {
            // A code that was spent is good for a while yet, if nothing said that it was spent.
            if now >= grant.created + 2 * self.config().authorization_code_seconds {
                self.revoke(account, grant.id).await?;
            }
        }
        if good.len() >= self.config().grants_max {
            return Err(GrantError::TooMany(self.config().grants_max));
        }
        let (token, hash) = make_token(account, id)?;
        let grant = Grant {
            id,
            address,
            client: new.client.to_owned(),
            name: new.name.to_owned(),
            services: new.services,
            created: now,
            used: now,
            expires: now + self.config().grant_idle_seconds,
            refresh: hash,
            before: None,
        };
        if !self.replace_grant(account, None, &grant).await? {
            return Err(GrantError::Exists);
        }
        Ok((grant, token))
    }

    /// Ends a grant, and keeps that it was there: its code must not make it again.
    pub(crate) async fn spend(&self, account: AccountId, id: GrantId) -> Result<(), Temporary> {
        while let Some((row, grant)) = self.good_grant(account, id).await? {
            if self.replace_grant(account, Some(row), &Grant { expires: 0, ..grant }).await? {
                break;
            }
        }
        self.inner.logged_in.look();
        Ok(())
    }

    /// What an account has allowed, whether it has ended or not.
    pub async fn grants(&self, account: AccountId) -> Result<Vec<Grant>, Temporary> {
        let (mut grants, mut from) = (Vec::new(), Bytes::new());
        // What ended is removed when another is made, so there are never many more than the limit.
        let scan = 2 * self.config().grants_max.max(1);
        loop {
            let rows = self.rows().scan(Table::Mark, partition(account), from, scan).await;
            let rows = rows.map_err(|error| failed(&error))?;
            for (_, row) in &rows {
                grants.push(read(row)?);
            }
            match rows.last() {
                Some((last, _)) if rows.len() == scan => from = successor(last),
                _ => return Ok(grants),
            }
        }
    }

    /// Ends a grant. `false`: there is none.
    pub async fn revoke(&self, account: AccountId, id: GrantId) -> Result<bool, Temporary> {
        let ended = self.end_grant(account, id).await;
        self.inner.logged_in.look();
        ended
    }

    async fn end_grant(&self, account: AccountId, id: GrantId) -> Result<bool, Temporary> {
        let Some(row) = self.grant_row(account, id).await? else { return Ok(false) };
        match self.rows().replace_if(key(account, id), Some(row), None).await {
            Ok(true) => Ok(true),
            // It was used just now, and is ended all the same.
            Ok(false) => Box::pin(self.end_grant(account, id)).await,
            Err(error) => match self.grant_row(account, id).await? {
                None => Ok(true),
                Some(_) => Err(failed(&error)),
            },
        }
    }

    /// Ends all grants of an account that is removed.
    pub(crate) async fn revoke_all(&self, account: AccountId) -> Result<(), Temporary> {
        for grant in self.grants(account).await? {
            self.revoke(account, grant.id).await?;
        }
        Ok(())
    }

    /// The grant of a refresh token, and the token that is good from now on (RFC 6749 §6).
    pub async fn refresh(&self, token: &str) -> Result<(AccountId, Grant, RefreshToken), GrantError> {
        let (account, id, secret) = parse_token(token).ok_or(GrantError::Invalid)?;
        let (row, grant) = self.good_grant(account, id).await?.ok_or(GrantError::Invalid)?;
        let (hash, now) = (hash(&secret), unix_now());
        if !same(&hash, &grant.refresh) {
            if grant.before.is_some_and(|before| same(&hash, &before)) {
                if now >= grant.used + self.config().refresh_again_seconds {
                    tracing::warn!(account_id = %account, grant = %id, "a refresh token came twice; the grant ends");
                    self.revoke(account, id).await?;
                    return Err(GrantError::Invalid);
                }
            } else {
                return Err(GrantError::Invalid);
            }
        }
        let (fresh, fresh_hash) = make_token(account, id)?;
        let grant = Grant {
            used: now,
            expires: now + self.config().grant_idle_seconds,
            refresh: fresh_hash,
            // Whoever lost the answer brings this one again.
            before: Some(hash),
            ..grant
        };
        if self.replace_grant(account, Some(row), &grant).await? {
            Ok((account, grant, fresh))
        } else {
            // Another request with the same token was faster, and its answer holds.
            Err(Temporary("the grant was used at the same time".to_owned()).into())
        }
    }

    /// A grant that has not ended.
    pub(crate) async fn good_grant(
        &self,
        account: AccountId,
        id: GrantId,
    ) -> Result<Option<(Bytes, Grant)>, Temporary> {
        let Some(row) = self.grant_row(account, id).await? else { return Ok(None) };
        let grant = read(&row)?;
        Ok(grant.is_good(unix_now()).then_some((row, grant)))
    }

    async fn grant_row(&self, account: AccountId, id: GrantId) -> Result<Option<Bytes>, Temporary> {
        self.rows().get(key(account, id)).await.map_err(|error| failed(&error))
    }

    async fn replace_grant(
        &self,
        account: AccountId,
        before: Option<Bytes>,
        grant: &Grant,
    ) -> Result<bool, Temporary> {
        let row = write(grant)?;
        match self.rows().replace_if(key(account, grant.id), before, Some(row.clone())).await {
            Ok(replaced) => Ok(replaced),
            // No other row has this token's hash.
            Err(error) => match self.grant_row(account, grant.id).await? {
                Some(found) if found == row => Ok(true),
                _ => Err(failed(&error)),
            },
        }
    }
}

impl Grant {
    fn is_good(&self, now: u64) -> bool {
        now < self.expires
    }
}

pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), GrantError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(GrantError::BadName(what));
    }
    Ok(())
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], Temporary> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| Temporary("no random numbers".to_owned()))?;
    Ok(bytes)
}

fn make_token(account: AccountId, id: GrantId) -> Result<(RefreshToken, [u8; 32]), Temporary> {
    let secret: [u8; 32] = random()?;
    let octets = [account.0.as_bytes().as_slice(), id.0.as_bytes(), &secret].concat();
    Ok((RefreshToken(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(octets))), hash(&secret)))
}

fn parse_token(token: &str) -> Option<(AccountId, GrantId, [u8; 32])> {
    let text = token.strip_prefix(PREFIX)?;
    if text.len() > 2 * TOKEN_LENGTH {
        return None;
    }
    let octets: [u8; TOKEN_LENGTH] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    let (account, rest) = octets.split_first_chunk()?;
    let (id, secret) = rest.split_first_chunk()?;
    Some((AccountId(Uuid::from_bytes(*account)), GrantId(Uuid::from_bytes(*id)), secret.try_into().ok()?))
}

fn hash(secret: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, secret).as_ref().try_into().expect("SHA-256 gives 32 octets")
}

fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}

fn partition(account: AccountId) -> Bytes {
    [PARTITION, account.0.as_bytes()].concat().into()
}

fn key(account: AccountId, id: GrantId) -> RowKey {
    RowKey::new(Table::Mark, partition(account), id.0.as_bytes().to_vec())
}

fn write(grant: &Grant) -> Result<Bytes, Temporary> {
    let row = postcard::to_extend(grant, vec![VERSION]).map_err(|error| Temporary(error.to_string()))?;
    Ok(row.into())
}

fn read(row: &[u8]) -> Result<Grant, Temporary> {
    row.strip_prefix(&[VERSION])
        .and_then(|row| postcard::from_bytes(row).ok())
        .ok_or_else(|| Temporary("a grant is not understood".to_owned()))
}

fn failed(error: &EngineError) -> Temporary {
    Temporary(with_causes(error))
}
