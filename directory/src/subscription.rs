//! Where programs want to hear that an account has changed while they do not run: *push subscriptions* (RFC 8620 §7.2).
//!
//! A subscription belongs to the login that it was made with, and ends with it. It is a row of table `Mark`, written by
//! conditions alone and sealed like all that says who somebody is; partition `push/` and a shard, key: the account and the
//! subscription. Whoever pushes finds the accounts of a shard together, and what is known of an account in one place.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use engine::rows::successor;
use engine::{RowKey, Sealer, Table};
use mail::address::Address;
use mail::id::AccountId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::app_password::ServiceSet;
use crate::login::{Principal, Proof};
use crate::look::{Directory, Look, Temporary, temporary};

const PARTITION: &[u8] = b"push/";
/// The first byte of what is sealed.
const VERSION: u8 = 1;
/// Accounts are spread over so many partitions, each of which somebody else can look after. Frozen.
pub const SHARDS: u8 = 64;
/// Rows that are read at once.
const SCAN: usize = 500;

/// Tells one subscription of an account from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub Uuid);

impl SubscriptionId {
    /// One that nobody has.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl FromStr for SubscriptionId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// What pushes are encrypted for (RFC 8291 §2).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionKeys {
    /// The client's public key, a point of P-256.
    pub public: Vec<u8>,
    /// The secret that it shares with who pushes.
    pub secret: Vec<u8>,
}

/// Where a program wants to hear of changes, and of which. The order of the fields is part of the stored format.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Whose, as it was written at login.
    pub address: String,
    /// The login it belongs to.
    pub by: Proof,
    /// What the client calls itself and the device it runs on.
    pub device: String,
    /// Where to.
    pub url: String,
    /// How pushes are encrypted. `None`: not beyond TLS.
    pub keys: Option<SubscriptionKeys>,
    /// What the client has to say to show that pushes reach it.
    pub code: String,
    /// It has said it.
    pub is_verified: bool,
    /// Unix seconds.
    pub created: u64,
    /// Nothing is pushed from then on, in Unix seconds.
    pub expires: u64,
    /// Changes of what. `None`: of everything.
    pub types: Option<Vec<String>>,
    /// What the client was told last: types and their states.
    pub told: Vec<(String, String)>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("device", &self.device)
            .field("is_verified", &self.is_verified)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl Subscription {
    /// Whether it belongs to this login (RFC 8620 §7.2: nobody else sees it).
    pub fn is_of(&self, principal: &Principal) -> bool {
        match (&self.by, &principal.by) {
            // The account's password is one secret, however it was shown.
            (Proof::Password | Proof::Scram, Proof::Password | Proof::Scram) => true,
            (own, other) => own == other,
        }
    }
}

/// A subscription as it is stored.
#[derive(Clone, Debug)]
pub struct KeptSubscription {
    /// The account.
    pub account: AccountId,
    /// Its number.
    pub id: SubscriptionId,
    /// What it says.
    pub subscription: Subscription,
    /// The row, which is another each time that it is written.
    row: Bytes,
}

/// The shard of an account's subscriptions.
pub fn shard(account: AccountId) -> u8 {
    account.0.as_bytes()[15] % SHARDS
}

impl Directory {
    /// The subscriptions of an account, whether they have expired or not; without those that cannot be read.
    pub async fn subscriptions(&self, account: AccountId) -> Result<Vec<KeptSubscription>, Temporary> {
        let prefix = Bytes::copy_from_slice(account.0.as_bytes());
        let (mut found, mut from) = (Vec::new(), prefix.clone());
        let sealer = self.registry_sealer().await?;
        loop {
            let rows = self.rows().scan(Table::Mark, partition(account), from, SCAN).await;
            let rows = rows.map_err(|error| temporary(&error))?;
            for (key, row) in &rows {
                if !key.starts_with(&prefix) {
                    return Ok(found);
                }
                let Some((_, id)) = parse_key(key) else { continue };
                match read(&*sealer, account, id, row.clone()) {
                    Ok(kept) => found.push(kept),
                    // The others are none the worse for it.
                    Err(error) => {
                        tracing::warn!(account_id = %account, subscription = %id, %error, "left out");
                    }
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == SCAN => from = successor(last),
                _ => return Ok(found),
            }
        }
    }

    /// One subscription of an account.
    pub async fn subscription(
        &self,
        account: AccountId,
        id: SubscriptionId,
    ) -> Result<Option<KeptSubscription>, Temporary> {
        let row = self.rows().get(key(account, id)).await.map_err(|error| temporary(&error))?;
        match row {
            None => Ok(None),
            Some(row) => read(&*self.registry_sealer().await?, account, id, row).map(Some),
        }
    }

    /// Up to so many accounts of a shard that have subscriptions, behind `after`, and the last that was looked at where
    /// there may be more. An account can be there twice.
    pub async fn subscribers(
        &self,
        shard: u8,
        after: Option<(AccountId, SubscriptionId)>,
    ) -> Result<(Vec<AccountId>, Option<(AccountId, SubscriptionId)>), Temporary> {
        let partition = partition_of(shard);
        let from = after.map_or_else(Bytes::new, |(account, id)| successor(&key(account, id).key));
        let keys = self.rows().scan_keys(Table::Mark, partition, from, SCAN).await;
        let keys = keys.map_err(|error| temporary(&error))?;
        let found: Vec<_> = keys.iter().filter_map(|key| parse_key(key)).collect();
        let next = if keys.len() == SCAN { found.last().copied() } else { None };
        Ok((found.into_iter().map(|(account, _)| account).collect(), next))
    }

    /// Keeps a new subscription.
    pub async fn subscribe(
        &self,
        account: AccountId,
        id: SubscriptionId,
        subscription: &Subscription,
    ) -> Result<KeptSubscription, Temporary> {
        match self.replace_subscription(account, id, None, subscription).await? {
            Some(kept) => Ok(kept),
            None => Err(Temporary("two subscriptions have one id".to_owned())),
        }
    }

    /// Changes a subscription, unless somebody else has changed or ended it since it was read: then `None`.
    pub async fn change_subscription(
        &self,
        before: &KeptSubscription,
        subscription: &Subscription,
    ) -> Result<Option<KeptSubscription>, Temporary> {
        self.replace_subscription(before.account, before.id, Some(before.row.clone()), subscription).await
    }

    /// Ends a subscription, and with it all that is known of it (RFC 8620 §7.2). `false`: there is none.
    pub async fn unsubscribe(&self, account: AccountId, id: SubscriptionId) -> Result<bool, Temporary> {
        loop {
            let row = self.rows().get(key(account, id)).await.map_err(|error| temporary(&error))?;
            let Some(row) = row else { return Ok(false) };
            match self.rows().replace_if(key(account, id), Some(row), None).await {
                Ok(true) => return Ok(true),
                // It was changed just now, and is ended all the same.
                Ok(false) => {}
                Err(error) => return Err(temporary(&error)),
            }
        }
    }

    /// Ends all subscriptions of an account that is removed.
    pub(crate) async fn unsubscribe_all(&self, account: AccountId) -> Result<(), Temporary> {
        // Without opening them: one that cannot be read has to go as well.
        let prefix = Bytes::copy_from_slice(account.0.as_bytes());
        let mut from = prefix.clone();
        loop {
            let keys = self.rows().scan_keys(Table::Mark, partition(account), from, SCAN).await;
            let keys = keys.map_err(|error| temporary(&error))?;
            let own = keys.iter().take_while(|key| key.starts_with(&prefix));
            for (account, id) in own.filter_map(|key| parse_key(key)) {
                self.unsubscribe(account, id).await?;
            }
            match keys.last() {
                Some(last) if keys.len() == SCAN && last.starts_with(&prefix) => from = successor(last),
                _ => return Ok(()),
            }
        }
    }

    /// Whether the login that a subscription was made with still holds. Asks as the directory stands now.
    pub async fn subscription_holds(&self, kept: &KeptSubscription) -> Result<bool, Temporary> {
        let Ok(address) = Address::parse(&kept.subscription.address) else { return Ok(false) };
        let by = kept.subscription.by.clone();
        let principal = Principal { account: kept.account, address, by, services: ServiceSet::ALL };
        self.still_holds(&principal, Look::Fresh).await
    }

    async fn replace_subscription(
        &self,
        account: AccountId,
        id: SubscriptionId,
        before: Option<Bytes>,
        subscription: &Subscription,
    ) -> Result<Option<KeptSubscription>, Temporary> {
        let plain = postcard::to_extend(subscription, vec![VERSION]);
        let plain = plain.map_err(|error| Temporary(error.to_string()))?;
        let row = Bytes::from(self.registry_sealer().await?.seal(&binding(account, id), &plain));
        let kept = KeptSubscription { account, id, subscription: subscription.clone(), row: row.clone() };
        match self.rows().replace_if(key(account, id), before, Some(row.clone())).await {
            Ok(replaced) => Ok(replaced.then_some(kept)),
            // It may be done after all.
            Err(error) => {
                let found = self.rows().get(key(account, id)).await.map_err(|error| temporary(&error))?;
                if found == Some(row) { Ok(Some(kept)) } else { Err(temporary(&error)) }
            }
        }
    }
}

fn read(
    sealer: &dyn Sealer,
    account: AccountId,
    id: SubscriptionId,
    row: Bytes,
) -> Result<KeptSubscription, Temporary> {
    let damaged = || Temporary("a push subscription cannot be read".to_owned());
    let plain = sealer.open(&binding(account, id), &row).map_err(|_| damaged())?;
    let subscription = match plain.split_first() {
        Some((&VERSION, payload)) => postcard::from_bytes(payload).map_err(|_| damaged())?,
        _ => return Err(damaged()),
    };
    Ok(KeptSubscription { account, id, subscription, row })
}

fn partition(account: AccountId) -> Bytes {
    partition_of(shard(account))
}

fn partition_of(shard: u8) -> Bytes {
    [PARTITION, &[shard]].concat().into()
}

fn key(account: AccountId, id: SubscriptionId) -> RowKey {
    let key = [account.0.as_bytes().as_slice(), id.0.as_bytes()].concat();
    RowKey::new(Table::Mark, partition(account), key)
}

fn parse_key(key: &[u8]) -> Option<(AccountId, SubscriptionId)> {
    let (account, id) = key.split_first_chunk()?;
    Some((AccountId(Uuid::from_bytes(*account)), SubscriptionId(Uuid::from_bytes(id.try_into().ok()?))))
}

/// What a row is sealed for, so that it is no other's.
fn binding(account: AccountId, id: SubscriptionId) -> Vec<u8> {
    [PARTITION, account.0.as_bytes(), id.0.as_bytes()].concat()
}
