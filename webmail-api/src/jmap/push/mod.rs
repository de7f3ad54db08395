//! Push to clients that do not run (RFC 8620 §7.2): when an account has changed, the push services that its clients have
//! named are told so.
//!
//! Subscriptions are rows of `directory`, and each says what its client was told last: so what is missed, by whatever
//! accident, is told later, and nothing is told twice for long. Which accounts have any is looked up now and then; that
//! one of them has changed comes as a hint ([`engine::Hints`]). Among nodes an account is looked after by the owner of its
//! shard, softly: two that both think so push twice, which clients do not mind.

mod config;
mod encrypt;
mod endpoint;
mod made;
mod post;
mod turn;
mod vapid;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use directory::subscription::{SHARDS, shard};
use directory::{Directory, KeptSubscription, Subscription, Temporary};
use engine::{Hints, LogKind, with_causes};
use futures_util::future::join_all;
use jmap_protocol::Object;
use mail::id::AccountId;
use net::shutdown::ShutdownGuard;
use parking_lot::Mutex;
use serde_json::{Value, json};
use storage::Storage;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep};

pub use config::PushConfig;
pub(super) use encrypt::keys;
pub(super) use endpoint::Endpoint;

use self::made::Made;
use self::post::{Outcome, Poster, Urgency};
use self::turn::{Due, Trouble, Troubles, Turns};
use self::vapid::Vapid;
use super::eventsource::at;
use super::{ids, view};

/// New subscriptions whose clients wait to be told their code.
const CODES_MAX: usize = 64;
/// After these seconds a code is said, and said again where it was not taken.
const CODE_AFTER_SECONDS: [u64; 3] = [0, 10, 60];
/// For how long the client may take to say its code.
const UNVERIFIED_SECONDS: u64 = 86_400;
/// Pushes for one account at one time.
const AT_ONCE: usize = 4;
/// How often a row is written that somebody else changes meanwhile.
const TRIES: usize = 4;

/// Whether this process looks after what has this key, where there are others.
pub type Owns = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// What push needs of its surroundings.
#[derive(Clone)]
pub struct Surroundings {
    /// Where it is heard that an account has changed.
    pub hints: Hints,
    /// Whose accounts this process pushes for.
    pub owns: Owns,
}

impl Surroundings {
    /// Those of a process that is the only one.
    pub fn alone(hints: Hints) -> Self {
        Self { hints, owns: Arc::new(|_| true) }
    }
}

/// Pushes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Push {
    inner: Arc<Inner>,
}

struct Inner {
    config: PushConfig,
    directory: Directory,
    storage: Storage,
    surroundings: Surroundings,
    poster: Poster,
    turns: Mutex<Turns>,
    /// Something may be due.
    wake: Notify,
    made: Made,
    codes: mpsc::Sender<KeptSubscription>,
    codes_wanted: Mutex<Option<mpsc::Receiver<KeptSubscription>>>,
}

/// A new subscription will be told its code.
#[derive(Debug)]
pub(super) struct CodePermit(mpsc::OwnedPermit<KeptSubscription>);

impl CodePermit {
    /// The subscription is kept.
    pub(super) fn say(self, kept: KeptSubscription) {
        self.0.send(kept);
    }
}

impl Push {
    pub(super) fn new(
        config: PushConfig,
        directory: Directory,
        storage: Storage,
        surroundings: Surroundings,
    ) -> Self {
        let contact = match config.contact.as_str() {
            "" => "mailto:postmaster@localhost",
            contact => contact,
        };
        let vapid = Vapid::derive(&directory.derived_key(vapid::PURPOSE), contact);
        let (codes, codes_wanted) = mpsc::channel(CODES_MAX);
        let inner = Inner {
            poster: Poster::new(config.clone(), vapid),
            config,
            directory,
            storage,
            surroundings,
            turns: Mutex::default(),
            wake: Notify::new(),
            made: Made::default(),
            codes,
            codes_wanted: Mutex::new(Some(codes_wanted)),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn config(&self) -> &PushConfig {
        &self.inner.config
    }

    /// The key that clients have their subscriptions made for (RFC 9749 §3).
    pub(super) fn vapid_key(&self) -> Option<&str> {
        self.inner.poster.vapid().map(Vapid::public)
    }

    /// Whether an account may make one more subscription now.
    pub(super) fn may_subscribe(&self, account: AccountId) -> bool {
        self.inner.made.one_more(account, self.inner.config.subscribed_per_hour_max, Instant::now())
    }

    /// `None`: too many wait for their codes already.
    pub(super) fn code_permit(&self) -> Option<CodePermit> {
        self.inner.codes.clone().try_reserve_owned().ok().map(CodePermit)
    }

    /// An account has a subscription that something may have to be said to.
    pub(super) fn watch(&self, account: AccountId) {
        // Whoever else looks after it sees it by itself.
        if self.owns(shard(account)) {
            let (mut turns, now) = (self.inner.turns.lock(), Instant::now());
            turns.add(account, now);
            turns.changed(account, now);
            drop(turns);
            self.inner.wake.notify_one();
        }
    }

    /// Pushes until the process ends. What is under way then is said again at the next start.
    pub(super) async fn run(&self, guard: &ShutdownGuard) {
        let Some(codes) = self.inner.codes_wanted.lock().take() else { return };
        let hears = self.clone();
        let following = self.inner.surroundings.hints.follow(move |log| {
            if log.kind == LogKind::Account
                && hears.inner.turns.lock().changed(AccountId(log.id), Instant::now())
            {
                hears.inner.wake.notify_one();
            }
        });
        tokio::select! {
            () = guard.requested() => {}
            () = self.look_now_and_then() => {}
            () = self.work(codes) => {}
        }
        drop(following);
    }

    fn owns(&self, shard: u8) -> bool {
        (self.inner.surroundings.owns)(&[b"push ".as_slice(), &[shard]].concat())
    }

    /// Finds out which accounts have subscriptions.
    async fn look_now_and_then(&self) {
        let config = &self.inner.config;
        let look_every = Duration::from_secs(config.look_seconds);
        let mut looked = Instant::now();
        loop {
            let began = Instant::now();
            match self.subscribers().await {
                Ok(accounts) => self.inner.turns.lock().keep(&accounts, began, Instant::now()),
                Err(error) => tracing::warn!(%error, "push subscriptions cannot be read"),
            }
            if !look_every.is_zero() && looked.elapsed() >= look_every {
                looked = Instant::now();
                self.inner.turns.lock().look_at_all(looked, look_every / 2);
            }
            self.inner.wake.notify_one();
            sleep(Duration::from_secs(config.scan_seconds.max(1))).await;
        }
    }

    async fn subscribers(&self) -> Result<HashSet<AccountId>, Temporary> {
        let mut accounts = HashSet::new();
        for shard in (0..SHARDS).filter(|shard| self.owns(*shard)) {
            let mut after = None;
            loop {
                let (found, next) = self.inner.directory.subscribers(shard, after).await?;
                accounts.extend(found);
                after = next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(accounts)
    }

    async fn work(&self, mut codes: mpsc::Receiver<KeptSubscription>) {
        let most = self.inner.config.at_once_max.max(1);
        let (mut pushing, mut saying) = (JoinSet::new(), JoinSet::new());
        loop {
            let mut next = None;
            if pushing.len() < most {
                let taken = self.inner.turns.lock().take(Instant::now());
                if let Some(due) = taken {
                    let push = self.clone();
                    pushing.spawn(async move { push.take_turn(due).await });
                    continue;
                }
                next = self.inner.turns.lock().next_due();
            }
            tokio::select! {
                Some(done) = pushing.join_next() => note(done),
                Some(done) = saying.join_next() => note(done),
                Some(kept) = codes.recv(), if saying.len() < CODES_MAX => {
                    let push = self.clone();
                    saying.spawn(async move { push.say_code(kept).await });
                }
                () = self.inner.wake.notified() => {}
                () = at(next) => {}
            }
        }
    }

    async fn take_turn(&self, due: Due) {
        let Due { account, look, mut troubles } = due;
        let retry = match self.tell(account, look, &mut troubles).await {
            Ok(retry) => retry,
            Err(error) => {
                tracing::debug!(account_id = %account, error, "nothing can be pushed for an account now");
                Some(Instant::now() + Duration::from_secs(self.inner.config.retry_seconds.max(1)))
            }
        };
        let pause = Duration::from_secs(self.inner.config.pause_seconds);
        self.inner.turns.lock().done(account, troubles, retry, Instant::now(), pause);
        self.inner.wake.notify_one();
    }

    /// Tells all subscriptions of an account what has changed since they were told last. The answer: when to try again.
    async fn tell(
        &self,
        id: AccountId,
        look: bool,
        troubles: &mut Troubles,
    ) -> Result<Option<Instant>, String> {
        let temporary = |error: Temporary| error.to_string();
        let kept = self.inner.directory.subscriptions(id).await.map_err(temporary)?;
        if kept.is_empty() {
            self.inner.turns.lock().remove(id);
            return Ok(None);
        }
        let now = unix_now();
        let (good, over): (Vec<_>, Vec<_>) = kept.into_iter().partition(|kept| is_good(kept, now));
        for kept in over {
            self.end(&kept, "it is over").await.map_err(temporary)?;
        }
        let told: Vec<_> = good.into_iter().filter(|kept| kept.subscription.is_verified).collect();
        troubles.retain(|id, _| told.iter().any(|kept| kept.id == *id));
        if told.is_empty() {
            return Ok(None);
        }
        let states = {
            // Not kept open while push services are waited for.
            let owner = storage::Principal::Owner(id);
            let account =
                self.inner.storage.account(&owner, id).await.map_err(|error| with_causes(&error))?;
            view::states(&*account.refresh().await.map_err(|error| with_causes(&error))?)
        };
        for some in told.chunks(AT_ONCE) {
            let telling = some.iter().map(|kept| {
                let trouble = troubles.get(&kept.id).copied();
                self.tell_one(kept, &states, look, trouble)
            });
            for (kept, came) in some.iter().zip(join_all(telling).await) {
                match came.map_err(temporary)? {
                    Some(trouble) => drop(troubles.insert(kept.id, trouble)),
                    None => drop(troubles.remove(&kept.id)),
                }
            }
        }
        Ok(troubles.values().map(|trouble| trouble.until).min())
    }

    async fn tell_one(
        &self,
        kept: &KeptSubscription,
        states: &BTreeMap<&'static str, String>,
        look: bool,
        trouble: Option<Trouble>,
    ) -> Result<Option<Trouble>, Temporary> {
        let changed = changed(&kept.subscription, states);
        let waits = trouble.is_some_and(|trouble| trouble.until > Instant::now());
        if !look && (changed.is_empty() || waits) {
            return Ok(trouble.filter(|_| waits));
        }
        // RFC 8620 §7.2: it is destroyed when the login it was made with is no more.
        if !self.inner.directory.subscription_holds(kept).await? {
            self.end(kept, "its login was withdrawn").await?;
            return Ok(None);
        }
        if changed.is_empty() || waits {
            return Ok(trouble.filter(|_| waits));
        }
        let mut accounts = Object::new();
        accounts.insert(ids::account(kept.account).to_string(), changed.into());
        let said = json!({"@type": "StateChange", "changed": accounts});
        let urgency = if has_mail(&kept.subscription, states) { Urgency::Normal } else { Urgency::Low };
        let trouble = match self.inner.poster.push(&kept.subscription, &said, urgency).await {
            Outcome::Taken => {
                self.remember(kept, states).await?;
                None
            }
            Outcome::Ended(why) => {
                self.end(kept, &why).await?;
                None
            }
            Outcome::Later(after, why) => {
                let failures = trouble.map_or(0, |trouble| trouble.failures) + 1;
                if failures >= self.inner.config.failures_max.max(1) {
                    self.end(kept, &why).await?;
                    return Ok(None);
                }
                tracing::debug!(account_id = %kept.account, subscription = %kept.id, failures, why, "push failed");
                let wait = self.back_off(failures).max(after.unwrap_or_default());
                Some(Trouble { failures, until: Instant::now() + wait })
            }
        };
        Ok(trouble)
    }

    /// How long to wait after so many failures in a row.
    fn back_off(&self, failures: u32) -> Duration {
        let config = &self.inner.config;
        let doubled = config.retry_seconds.max(1).saturating_mul(1 << failures.saturating_sub(1).min(20));
        Duration::from_secs(doubled.min(config.retry_seconds_max.max(1)))
    }

    /// A client was told how things are.
    async fn remember(
        &self,
        kept: &KeptSubscription,
        states: &BTreeMap<&'static str, String>,
    ) -> Result<(), Temporary> {
        let told = states.iter().map(|(name, state)| ((*name).to_owned(), state.clone()));
        let told: Vec<(String, String)> = told.collect();
        let mut current = kept.clone();
        for _ in 0..TRIES {
            let new = Subscription { told: told.clone(), ..current.subscription.clone() };
            if self.inner.directory.change_subscription(&current, &new).await?.is_some() {
                break;
            }
            match self.inner.directory.subscription(kept.account, kept.id).await? {
                Some(found) => current = found,
                None => break,
            }
        }
        Ok(())
    }

    /// RFC 8620 §7.2.2: the first push is a code, which the client says to show that it comes through.
    async fn say_code(&self, mut kept: KeptSubscription) {
        for seconds in CODE_AFTER_SECONDS {
            if seconds > 0 {
                sleep(Duration::from_secs(seconds)).await;
                match self.inner.directory.subscription(kept.account, kept.id).await {
                    Ok(Some(found)) if !found.subscription.is_verified => kept = found,
                    Ok(_) => return,
                    Err(error) => tracing::debug!(%error, "a push subscription cannot be read"),
                }
            }
            let said = json!({
                "@type": "PushVerification",
                "pushSubscriptionId": ids::subscription(kept.id),
                "verificationCode": kept.subscription.code,
            });
            match self.inner.poster.push(&kept.subscription, &said, Urgency::Normal).await {
                Outcome::Taken => return,
                Outcome::Ended(why) => {
                    if let Err(error) = self.end(&kept, &why).await {
                        tracing::debug!(%error, "a push subscription that is over is still there");
                    }
                    return;
                }
                Outcome::Later(_, why) => {
                    tracing::debug!(account_id = %kept.account, subscription = %kept.id, why, "push failed");
                }
            }
        }
    }

    async fn end(&self, kept: &KeptSubscription, why: &str) -> Result<(), Temporary> {
        if self.inner.directory.unsubscribe(kept.account, kept.id).await? {
            tracing::info!(account_id = %kept.account, subscription = %kept.id, why, "a push subscription ends");
        }
        Ok(())
    }
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Push").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

fn note(done: Result<(), JoinError>) {
    if let Err(error) = done {
        tracing::error!(%error, "pushing for an account broke off");
    }
}

/// Whether a subscription is not over yet.
pub(super) fn is_good(kept: &KeptSubscription, now: u64) -> bool {
    let Subscription { expires, created, is_verified, .. } = kept.subscription;
    now < expires && (is_verified || now < created + UNVERIFIED_SECONDS)
}

/// What a client wants to hear of, and was told otherwise last.
fn changed(subscription: &Subscription, states: &BTreeMap<&'static str, String>) -> Object {
    let is_wanted = |name: &str| {
        subscription.types.as_ref().is_none_or(|types| types.iter().any(|wanted| wanted == name))
    };
    states
        .iter()
        .filter(|(name, state)| is_wanted(name) && told(subscription, name) != Some(state))
        .map(|(name, state)| ((*name).to_owned(), Value::from(state.as_str())))
        .collect()
}

/// Whether somebody has written since.
fn has_mail(subscription: &Subscription, states: &BTreeMap<&'static str, String>) -> bool {
    states.get("EmailDelivery").is_some_and(|state| told(subscription, "EmailDelivery") != Some(state))
}

fn told<'a>(subscription: &'a Subscription, name: &str) -> Option<&'a String> {
    subscription.told.iter().find(|(told, _)| told == name).map(|(_, state)| state)
}

/// Unix seconds: what clients mean by a moment.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
