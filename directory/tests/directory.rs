//! The directory on the engine in memory: what administrators do is what services see, on every node.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use directory::account::{AccountStatus, LimitChange, Quota, QuotaChange};
use directory::admin::{AccountChange, NewAccount, NewPassword};
use directory::config::{Argon2Config, ThrottleConfig};
use directory::entry::{DomainSettings, Entry};
use directory::login::Proof;
use directory::subscription::SHARDS;
use directory::{
    AccountStores, AdminError, Agreed, AuthError, Config, Directory, GrantError, Homes, LogKeys, Login,
    NewGrant, Parts, PlainLogin, Redemption, Resolution, Route, Service, ServiceSet, Subscription,
    SubscriptionId, Temporary,
};
use engine::memory::{Faults, MemoryEngine};
use engine::seal::Unencrypted;
use engine::{EngineError, LogId, LogOptions, Row, RowKey, Rows, Sealer, Table};
use mail::address::{Address, Domain};
use mail::id::AccountId;

struct NoKeys;

#[async_trait]
impl LogKeys for NoKeys {
    async fn create(&self, _: LogId) -> Result<Arc<dyn Sealer>, Temporary> {
        Ok(Arc::new(Unencrypted))
    }
    async fn open(&self, _: LogId) -> Result<Arc<dyn Sealer>, Temporary> {
        Ok(Arc::new(Unencrypted))
    }
    async fn erase(&self, _: LogId) -> Result<(), Temporary> {
        Ok(())
    }
}

/// Accounts' storage as the directory sees it.
#[derive(Default)]
struct Stores(Mutex<HashMap<AccountId, Quota>>);

#[async_trait]
impl AccountStores for Stores {
    async fn create(&self, account: AccountId, _: &Address, quota: Quota) -> Result<(), Temporary> {
        self.0.lock().unwrap().insert(account, quota);
        Ok(())
    }
    async fn set_quota(&self, account: AccountId, quota: Quota) -> Result<(), Temporary> {
        self.0.lock().unwrap().insert(account, quota);
        Ok(())
    }
    async fn delete(&self, account: AccountId) -> Result<(), Temporary> {
        self.0.lock().unwrap().remove(&account);
        Ok(())
    }
}

struct Bench {
    engine: MemoryEngine,
    stores: Arc<Stores>,
    failures: Arc<Mutex<Vec<String>>>,
    config: Config,
    homes: Option<Homes>,
}

impl Bench {
    fn new() -> Self {
        let config = Config {
            argon2: Argon2Config { memory_kib: 64, passes: 1, lanes: 1 },
            scram_iterations: 4096,
            throttle_account: ThrottleConfig { failures_burst: 5, refill_seconds: 3600 },
            throttle_network: ThrottleConfig { failures_burst: 1000, refill_seconds: 3600 },
            ..Config::default()
        };
        let (engine, homes) = (MemoryEngine::new(), None);
        Self { engine, stores: Arc::default(), failures: Arc::default(), config, homes }
    }

    /// A region, with a table of names that it shares with others.
    fn region(name: &str, names: &Arc<Slow>) -> Self {
        let rows = Arc::clone(names) as Arc<dyn Rows>;
        Self { homes: Some(Homes::new(rows, name.parse().unwrap(), b"secret")), ..Self::new() }
    }

    /// A node: all of them work on one engine.
    async fn node(&self) -> Directory {
        let failures = Arc::clone(&self.failures);
        Directory::open(Parts {
            config: self.config.clone(),
            engine: self.engine.engine(),
            logs: LogOptions {
                shared: true,
                snapshot_entries_min: 4,
                snapshot_bytes_min: 64,
                ..LogOptions::default()
            },
            archive: None,
            keys: Arc::new(NoKeys),
            stores: Arc::clone(&self.stores) as Arc<dyn AccountStores>,
            homes: self.homes.clone(),
            on_login_failure: Box::new(move |failure| {
                failures.lock().unwrap().push(format!("{} {}", failure.login, failure.reason));
            }),
        })
        .await
        .unwrap()
    }
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn home() -> IpAddr {
    [192, 0, 2, 1].into()
}

fn with_password(password: &str) -> NewAccount {
    NewAccount { password: NewPassword::Clear(password.to_owned()), ..NewAccount::default() }
}

fn login(login: &str, password: &str) -> PlainLogin {
    PlainLogin { login: login.to_owned(), password: password.to_owned(), service: Service::Imap }
}

/// What an address stands for, in short.
async fn stands_for(directory: &Directory, text: &str) -> String {
    match directory.resolve(&address(text)).await.unwrap() {
        Resolution::Account(route) => match route.detail {
            Some(detail) => format!("{} [{detail}]", route.address),
            None => route.address.to_string(),
        },
        Resolution::Alias { targets } => format!("alias {targets:?}"),
        Resolution::List { owner, members } => format!("list {owner:?} {members:?}"),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn addresses_are_resolved() {
    let bench = Bench::new();
    let directory = bench.node().await;
    directory.create_domain(&domain("example.test"), DomainSettings::default()).await.unwrap();
    directory.create_domain(&domain("bücher.test"), DomainSettings::default()).await.unwrap();
    directory.create_domain_alias(&domain("other.test"), &domain("example.test")).await.unwrap();
    directory.create_account(&address("Alice@example.test"), NewAccount::default()).await.unwrap();
    directory.create_account(&address("jörg@bücher.test"), NewAccount::default()).await.unwrap();
    directory.create_account(&address("a+b@example.test"), NewAccount::default()).await.unwrap();
    directory
        .create_alias(&address("info@example.test"), vec![address("alice@example.test")], true)
        .await
        .unwrap();
    directory.create_list(&address("all@example.test"), &address("owner@there.test")).await.unwrap();
    let members = [address("alice@example.test"), address("x@there.test")];
    assert_eq!(directory.change_members(&address("all@example.test"), &members, &[]).await.unwrap(), 2);

    for (text, expected) in [
        ("alice@example.test", "Alice@example.test"),
        ("ALICE@EXAMPLE.TEST", "Alice@example.test"),
        ("alice+news@example.test", "Alice@example.test [news]"),
        ("alice+@example.test", "NoSuchUser"),
        ("a+b@example.test", "a+b@example.test"),
        ("a+b+c@example.test", "NoSuchUser"),
        ("alice@other.test", "Alice@example.test"),
        ("info@other.test", "alias [Address(alice@example.test)]"),
        ("JÖRG@xn--bcher-kva.test", "jörg@xn--bcher-kva.test"),
        ("bob@example.test", "NoSuchUser"),
        ("alice@elsewhere.test", "NotLocal"),
        ("alice@[192.0.2.1]", "NotLocal"),
        (
            "all@example.test",
            "list Address(owner@there.test) [Address(alice@example.test), Address(x@there.test)]",
        ),
    ] {
        assert_eq!(stands_for(&directory, text).await, expected, "{text}");
    }

    let change = |settings: &mut DomainSettings| {
        settings.catch_all = Some("alice@example.test".to_owned());
        settings.subaddress_delimiters = Some("-".to_owned());
    };
    directory.change_domain(&domain("example.test"), change).await.unwrap();
    assert_eq!(stands_for(&directory, "alice-news@example.test").await, "Alice@example.test [news]");
    assert_eq!(
        stands_for(&directory, "alice+news@example.test").await,
        "alias [Address(alice@example.test)]"
    );

    let expansion = directory.expand(&address("all@example.test")).await.unwrap();
    let ends: Vec<_> =
        expansion.targets.iter().map(|target| (&target.route, target.owner.as_ref())).collect();
    let owner = address("owner@there.test");
    assert!(matches!(ends[0], (Route::Local(route), Some(by)) if route.detail.is_none() && *by == owner));
    assert_eq!(ends[1], (&Route::Remote(address("x@there.test")), Some(&owner)));

    let disabled = AccountChange { status: Some(AccountStatus::Disabled), ..AccountChange::default() };
    directory.change_account(&address("alice@example.test"), disabled).await.unwrap();
    assert_eq!(stands_for(&directory, "alice@example.test").await, "Disabled");
    assert!(directory.is_local(&domain("OTHER.test")).await.unwrap());
    assert!(!directory.is_local(&domain("nowhere.test")).await.unwrap());
}

#[tokio::test]
async fn the_postmaster_is_always_somebody() {
    let mut bench = Bench::new();
    bench.config.postmaster = "alice@example.test".to_owned();
    let directory = bench.node().await;
    directory.create_domain(&domain("example.test"), DomainSettings::default()).await.unwrap();
    directory.create_domain(&domain("second.test"), DomainSettings::default()).await.unwrap();
    directory.create_account(&address("alice@example.test"), NewAccount::default()).await.unwrap();
    assert_eq!(stands_for(&directory, "Postmaster@second.test").await, "alias [Address(alice@example.test)]");
    assert!(matches!(directory.resolve_postmaster().await.unwrap(), Resolution::Account(_)));
    directory.create_account(&address("postmaster@second.test"), NewAccount::default()).await.unwrap();
    assert_eq!(stands_for(&directory, "postmaster@second.test").await, "postmaster@second.test");
}

#[tokio::test]
async fn administrative_acts_are_checked() {
    let bench = Bench::new();
    let directory = bench.node().await;
    let (here, alice) = (domain("example.test"), address("alice@example.test"));
    let new = NewAccount::default;
    assert!(matches!(directory.create_account(&alice, new()).await, Err(AdminError::NoSuchDomain(_))));
    directory.create_domain(&here, DomainSettings::default()).await.unwrap();
    let again = directory.create_domain(&domain("EXAMPLE.test"), DomainSettings::default()).await;
    assert!(matches!(again, Err(AdminError::Exists { .. })));
    let literal = directory.create_domain(&domain("[192.0.2.1]"), DomainSettings::default()).await;
    assert!(matches!(literal, Err(AdminError::Invalid { .. })));

    directory.create_account(&alice, new()).await.unwrap();
    let again = directory.create_account(&address("ALICE@example.test"), new()).await;
    assert!(matches!(again, Err(AdminError::Exists { .. })));
    assert_eq!(bench.stores.0.lock().unwrap().len(), 1, "the refused one left nothing behind");
    let short = directory.create_account(&address("bob@example.test"), with_password("short")).await;
    assert!(matches!(short, Err(AdminError::Password(_))));

    let itself =
        directory.create_alias(&address("x@example.test"), vec![address("X@example.test")], false).await;
    assert!(matches!(itself, Err(AdminError::Invalid { .. })));
    assert!(matches!(directory.delete_alias(&alice).await, Err(AdminError::NoSuchName { .. })));
    assert!(matches!(directory.delete_domain(&here).await, Err(AdminError::DomainInUse { .. })));

    let quota = QuotaChange { bytes: LimitChange::To(Some(7)), ..QuotaChange::default() };
    directory.change_account(&alice, AccountChange { quota, ..AccountChange::default() }).await.unwrap();
    assert_eq!(bench.stores.0.lock().unwrap().values().next().unwrap().bytes, Some(7));
    directory.delete_account(&alice).await.unwrap();
    assert!(bench.stores.0.lock().unwrap().is_empty());
    assert!(matches!(directory.delete_account(&alice).await, Err(AdminError::NoSuchName { .. })));

    directory.create_domain_alias(&domain("other.test"), &here).await.unwrap();
    assert!(matches!(directory.delete_domain(&here).await, Err(AdminError::DomainInUse { .. })));
    let there = directory.create_account(&address("a@other.test"), new()).await;
    assert!(matches!(there, Err(AdminError::DomainAlias { .. })));
    directory.delete_domain(&domain("other.test")).await.unwrap();
    directory.delete_domain(&here).await.unwrap();
    assert!(directory.domains().await.unwrap().is_empty());
    directory.create_domain(&here, DomainSettings::default()).await.unwrap();
}

#[tokio::test]
async fn logins_are_checked_and_told_nothing() {
    let bench = Bench::new();
    let directory = bench.node().await;
    directory.create_domain(&domain("example.test"), DomainSettings::default()).await.unwrap();
    let alice = address("alice@example.test");
    let id = directory.create_account(&alice, with_password("correct horse")).await.unwrap();
    for _ in 0..2 {
        // The second time from the memory of what was right.
        let principal =
            directory.authenticate(&login("Alice@Example.TEST", "correct horse"), home()).await.unwrap();
        assert_eq!((principal.account, principal.address.to_string().as_str()), (id, "alice@example.test"));
        assert!(directory.may_send_as(&principal, &address("alice+x@example.test")).await.unwrap());
        assert!(!directory.may_send_as(&principal, &address("bob@example.test")).await.unwrap());
    }
    for (name, password) in [
        ("alice@example.test", "correct horsf"),
        ("nobody@example.test", "correct horse"),
        ("alice@elsewhere.test", "correct horse"),
        ("alice", "correct horse"),
        ("", ""),
    ] {
        let refused = directory.authenticate(&login(name, password), home()).await;
        assert!(matches!(refused, Err(AuthError::Rejected)), "{name}");
    }
    assert_eq!(bench.failures.lock().unwrap().len(), 5);

    let principal =
        directory.authenticate(&login("alice@example.test", "correct horse"), home()).await.unwrap();
    directory.create_alias(&address("info@example.test"), vec![alice.clone()], true).await.unwrap();
    directory.create_alias(&address("sales@example.test"), vec![alice.clone()], false).await.unwrap();
    assert!(directory.may_send_as(&principal, &address("info@example.test")).await.unwrap());
    assert!(!directory.may_send_as(&principal, &address("sales@example.test")).await.unwrap());

    let off = AccountChange { status: Some(AccountStatus::LoginDisabled), ..AccountChange::default() };
    directory.change_account(&alice, off).await.unwrap();
    let refused = directory.authenticate(&login("alice@example.test", "correct horse"), home()).await;
    assert!(matches!(refused, Err(AuthError::Rejected)), "what was remembered does not count any more");
    assert_eq!(stands_for(&directory, "alice@example.test").await, "alice@example.test");
}

#[tokio::test]
async fn app_passwords_are_limited_to_their_services() {
    let bench = Bench::new();
    let directory = bench.node().await;
    directory.create_domain(&domain("example.test"), DomainSettings::default()).await.unwrap();
    let alice = address("alice@example.test");
    directory.create_account(&alice, NewAccount::default()).await.unwrap();
    let imap: ServiceSet = [Service::Imap].into_iter().collect();
    let secret = directory.create_app_password(&alice, "phone", imap).await.unwrap();
    let principal =
        directory.authenticate(&login("alice@example.test", secret.reveal()), home()).await.unwrap();
    assert_eq!(principal.services, imap);
    let smtp = PlainLogin { service: Service::Smtp, ..login("alice@example.test", secret.reveal()) };
    assert!(matches!(directory.authenticate(&smtp, home()).await, Err(AuthError::Rejected)));
    let again = directory.create_app_password(&alice, "phone", imap).await;
    assert!(matches!(again, Err(AdminError::Exists { .. })));
    directory.delete_app_password(&alice, "phone").await.unwrap();
    let gone = directory.authenticate(&login("alice@example.test", secret.reveal()), home()).await;
    assert!(matches!(gone, Err(AuthError::Rejected)));
}

#[tokio::test]
async fn tokens_are_good_as_long_as_what_they_came_of() {
    let bench = Bench::new();
    let [directory, other] = [bench.node().await, bench.node().await];
    directory.create_domain(&domain("example.test"), DomainSettings::default()).await.unwrap();
    let alice = address("alice@example.test");
    directory.create_account(&alice, with_password("correct horse")).await.unwrap();
    let principal =
        directory.authenticate(&login("alice@example.test", "correct horse"), home()).await.unwrap();
    let new = NewGrant {
        client: "thunderbird",
        name: "Thunderbird on a laptop",
        services: [Service::Imap].into_iter().collect(),
    };
    let (grant, refresh) = directory.grant(&principal, new.clone()).await.unwrap();
    let token = directory.access_token(principal.account, &grant);

    // At any node, with the name or without it, and where it was made for.
    for name in ["alice@example.test", ""] {
        let principal = other.authenticate(&login(name, token.reveal()), home()).await.unwrap();
        assert_eq!(
            (principal.by, principal.address.to_string()),
            (Proof::Token(grant.id), alice.to_string())
        );
    }
    let smtp = PlainLogin { service: Service::Smtp, ..login("", token.reveal()) };
    assert!(matches!(other.authenticate(&smtp, home()).await, Err(AuthError::Rejected)));
    let bob = address("bob@example.test");
    directory.create_account(&bob, with_password("correct horse")).await.unwrap();
    let not_his = other.authenticate(&login("bob@example.test", token.reveal()), home()).await;
    assert!(matches!(not_his, Err(AuthError::Rejected)), "a token is its owner's");
    let broken = token.reveal().replace("access-A", "access-B");
    assert!(other.authenticate(&login("", &broken), home()).await.is_err());

    // Each refresh gives another token; the one before is taken once more for a moment.
    let (account, grant, second) = other.refresh(refresh.reveal()).await.unwrap();
    assert_eq!(account, principal.account);
    let (_, _, third) = directory.refresh(refresh.reveal()).await.unwrap();
    assert!(matches!(directory.refresh(second.reveal()).await, Err(GrantError::Invalid)), "overtaken");
    assert!(matches!(directory.refresh("postrider-refresh-AAAA").await, Err(GrantError::Invalid)));

    // Withdrawn at one node it is withdrawn at all.
    assert_eq!(directory.grants(principal.account).await.unwrap().len(), 1);
    assert!(other.revoke(principal.account, grant.id).await.unwrap());
    assert!(!other.revoke(principal.account, grant.id).await.unwrap());
    let gone = directory.authenticate(&login("", token.reveal()), home()).await;
    assert!(matches!(gone, Err(AuthError::Rejected)));
    assert!(matches!(directory.refresh(third.reveal()).await, Err(GrantError::Invalid)));

    // Either kind of token can be given back.
    for by_refresh in [false, true] {
        let (grant, refresh) = directory.grant(&principal, new.clone()).await.unwrap();
        let token = directory.access_token(principal.account, &grant);
        let given_back = if by_refresh { refresh.reveal() } else { token.reveal() };
        directory.revoke_token(given_back).await.unwrap();
        assert!(directory.authenticate(&login("", token.reveal()), home()).await.is_err());
    }
    directory.revoke_token("nonsense").await.unwrap();

    // An account that may not log in has no tokens, and one that is removed leaves nothing.
    let (grant, _) = directory.grant(&principal, new.clone()).await.unwrap();
    let token = directory.access_token(principal.account, &grant);
    let off = AccountChange { status: Some(AccountStatus::LoginDisabled), ..AccountChange::default() };
    directory.change_account(&alice, off).await.unwrap();
    assert!(directory.authenticate(&login("", token.reveal()), home()).await.is_err());
    directory.delete_account(&alice).await.unwrap();
    assert!(directory.grants(principal.account).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_code_becomes_one_grant() {
    let bench = Bench::new();
    let [directory, other] = [bench.node().await, bench.node().await];
    directory.create_domain(&domain("example.test"), DomainSettings::default()).await.unwrap();
    directory.create_account(&address("alice@example.test"), with_password("correct horse")).await.unwrap();
    let principal =
        directory.authenticate(&login("alice@example.test", "correct horse"), home()).await.unwrap();
    // The example of RFC 7636, appendix B.
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let grant = NewGrant { client: "c", name: "a program", services: [Service::Jmap].into_iter().collect() };
    let agreed = Agreed {
        grant: &grant,
        redirect_uri: "http://127.0.0.1/done",
        challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    };
    let code = directory.authorize(&principal, agreed).unwrap();
    let right =
        Redemption { code: code.reveal(), client: "c", redirect_uri: "http://127.0.0.1/done", verifier };
    let changed = verifier.replace('d', "e");
    for wrong in [
        Redemption { client: "d", ..right },
        Redemption { redirect_uri: "http://127.0.0.1/other", ..right },
        Redemption { verifier: &changed, ..right },
        Redemption { verifier: "", ..right },
        Redemption { code: &code.reveal()[..code.reveal().len() - 2], ..right },
        Redemption { code: "postrider-code-AAAA", ..right },
    ] {
        assert!(matches!(other.redeem(wrong).await, Err(GrantError::Invalid)), "{wrong:?}");
    }
    let redeemed = other.redeem(right).await.unwrap();
    assert_eq!((redeemed.account, &*redeemed.grant.address), (principal.account, "alice@example.test"));
    let token = other.access_token(redeemed.account, &redeemed.grant);
    let jmap = PlainLogin { service: Service::Jmap, ..login("", token.reveal()) };
    directory.authenticate(&jmap, home()).await.unwrap();
    // A code that comes twice ends what came of it, and nothing comes of it ever again.
    for _ in 0..3 {
        assert!(matches!(directory.redeem(right).await, Err(GrantError::Invalid)));
        assert!(matches!(directory.authenticate(&jmap, home()).await, Err(AuthError::Rejected)));
    }
    assert!(directory.refresh(redeemed.refresh.reveal()).await.is_err());
    // The same while another grant is made, which clears away what has ended.
    directory.grant(&principal, grant.clone()).await.unwrap();
    assert!(matches!(directory.redeem(right).await, Err(GrantError::Invalid)));

    let malformed = Agreed { challenge: "E9Melhoa2", ..agreed };
    assert!(matches!(directory.authorize(&principal, malformed), Err(GrantError::Invalid)));
    // An access token is no code, and a code no token.
    let token = directory.authenticate(&login("", code.reveal()), home()).await;
    assert!(matches!(token, Err(AuthError::Rejected)));
    let late = directory.authorize(&principal, agreed).unwrap();
    let off = AccountChange { status: Some(AccountStatus::LoginDisabled), ..AccountChange::default() };
    directory.change_account(&address("alice@example.test"), off).await.unwrap();
    let refused = directory.redeem(Redemption { code: late.reveal(), ..right }).await;
    assert!(matches!(refused, Err(GrantError::Invalid)), "who may not log in has agreed to nothing");
}

#[tokio::test]
async fn push_subscriptions_are_of_a_login_and_go_with_their_account() {
    let bench = Bench::new();
    let [directory, other] = [bench.node().await, bench.node().await];
    directory.create_domain(&domain("example.test"), DomainSettings::default()).await.unwrap();
    directory.create_account(&address("alice@example.test"), with_password("correct horse")).await.unwrap();
    directory.create_account(&address("bob@example.test"), with_password("correct horse")).await.unwrap();
    let principal =
        directory.authenticate(&login("alice@example.test", "correct horse"), home()).await.unwrap();
    let subscription = |by: Proof| Subscription {
        address: "alice@example.test".to_owned(),
        by,
        device: "d".to_owned(),
        url: "https://push.example.test/".to_owned(),
        keys: None,
        code: "c".to_owned(),
        is_verified: false,
        created: 1,
        expires: 2,
        types: None,
        told: Vec::new(),
    };
    let account = principal.account;
    let own =
        directory.subscribe(account, SubscriptionId::random(), &subscription(Proof::Password)).await.unwrap();
    let phone = Proof::AppPassword("phone".to_owned());
    let its = other.subscribe(account, SubscriptionId::random(), &subscription(phone)).await.unwrap();
    assert!(own.subscription.is_of(&principal) && !its.subscription.is_of(&principal));
    assert!(other.subscription_holds(&own).await.unwrap());
    assert!(!directory.subscription_holds(&its).await.unwrap(), "there is no such password");
    let found = directory.subscriptions(account).await.unwrap();
    assert_eq!(found.len(), 2);
    assert!(directory.subscriptions(AccountId::random()).await.unwrap().is_empty());
    let mut subscribers = HashMap::new();
    for shard in 0..SHARDS {
        let (found, next) = other.subscribers(shard, None).await.unwrap();
        assert_eq!(next, None);
        for account in found {
            *subscribers.entry(account).or_insert(0) += 1;
        }
    }
    assert_eq!(subscribers, HashMap::from([(account, 2)]));
    // Who comes second does not undo what the first one did.
    let verified = Subscription { is_verified: true, ..own.subscription.clone() };
    assert!(directory.change_subscription(&own, &verified).await.unwrap().is_some());
    assert!(other.change_subscription(&own, &own.subscription).await.unwrap().is_none());
    let found = other.subscription(account, own.id).await.unwrap().unwrap();
    assert!(found.subscription.is_verified);
    assert!(directory.unsubscribe(account, its.id).await.unwrap());
    assert!(!other.unsubscribe(account, its.id).await.unwrap());
    assert!(other.change_subscription(&its, &its.subscription).await.unwrap().is_none());
    directory.delete_account(&address("alice@example.test")).await.unwrap();
    assert!(other.subscriptions(account).await.unwrap().is_empty());
    assert!(!other.subscription_holds(&found).await.unwrap());
}

#[tokio::test]
async fn a_stolen_refresh_token_ends_its_grant() {
    let mut bench = Bench::new();
    bench.config.refresh_again_seconds = 0;
    bench.config.grants_max = 2;
    let directory = bench.node().await;
    directory.create_domain(&domain("example.test"), DomainSettings::default()).await.unwrap();
    directory.create_account(&address("alice@example.test"), with_password("correct horse")).await.unwrap();
    let principal =
        directory.authenticate(&login("alice@example.test", "correct horse"), home()).await.unwrap();
    let new = NewGrant { client: "c", name: "n", services: ServiceSet::ALL };
    let (_, first) = directory.grant(&principal, new.clone()).await.unwrap();
    let (_, _, second) = directory.refresh(first.reveal()).await.unwrap();
    assert!(matches!(directory.refresh(first.reveal()).await, Err(GrantError::Invalid)));
    assert!(matches!(directory.refresh(second.reveal()).await, Err(GrantError::Invalid)), "nobody has it");
    assert!(directory.grants(principal.account).await.unwrap().is_empty());

    for _ in 0..2 {
        directory.grant(&principal, new.clone()).await.unwrap();
    }
    assert!(matches!(directory.grant(&principal, new.clone()).await, Err(GrantError::TooMany(2))));
    for (client, name) in [("", "n"), ("c", ""), ("c\n", "n"), ("c", &"x".repeat(129))] {
        let refused = directory.grant(&principal, NewGrant { client, name, services: ServiceSet::ALL }).await;
        assert!(matches!(refused, Err(GrantError::BadName(_))), "{client:?} {name:?}");
    }
    // What has ended makes room.
    bench.config.grant_idle_seconds = 0;
    bench.config.authorization_code_seconds = 0;
    let short = bench.node().await;
    let bob = address("bob@example.test");
    short.create_account(&bob, with_password("correct horse")).await.unwrap();
    let principal = short.authenticate(&login("bob@example.test", "correct horse"), home()).await.unwrap();
    for _ in 0..4 {
        let (grant, refresh) = short.grant(&principal, new.clone()).await.unwrap();
        assert!(short.refresh(refresh.reveal()).await.is_err(), "it has ended");
        let token = short.access_token(principal.account, &grant);
        assert!(short.authenticate(&login("", token.reveal()), home()).await.is_err());
    }
    assert_eq!(short.grants(principal.account).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn sessions_hear_of_withdrawn_logins() {
    let bench = Bench::new();
    let [here, there] = [bench.node().await, bench.node().await];
    here.create_domain(&domain("example.test"), DomainSettings::default()).await.unwrap();
    let alice = address("alice@example.test");
    here.create_account(&alice, with_password("correct horse")).await.unwrap();
    let imap: ServiceSet = [Service::Imap].into_iter().collect();
    let secret = here.create_app_password(&alice, "phone", imap).await.unwrap();
    let logins = [login("alice@example.test", "correct horse"), login("alice@example.test", secret.reveal())];
    let mut sessions = Vec::new();
    for directory in [&here, &there] {
        for login in &logins {
            let principal = directory.authenticate(login, home()).await.unwrap();
            sessions.push(directory.logged_in(&principal));
        }
    }
    let tasks = [here.clone(), there.clone()].map(|directory| tokio::spawn(directory.look_after_logins()));
    let ends = async |login: &mut Login, seconds| {
        tokio::time::timeout(Duration::from_secs(seconds), login.withdrawn()).await.is_ok()
    };
    let [here_whole, here_app, there_whole, there_app] = &mut sessions[..] else { panic!() };
    assert!(!ends(here_app, 100).await, "nothing was withdrawn");
    here.delete_app_password(&alice, "phone").await.unwrap();
    assert!(ends(here_app, 1).await, "here at once");
    assert!(ends(there_app, 30).await, "and there soon");
    assert!(!ends(here_whole, 100).await && !ends(there_whole, 100).await, "the password is good");
    let off = AccountChange { status: Some(AccountStatus::Disabled), ..AccountChange::default() };
    there.change_account(&alice, off).await.unwrap();
    assert!(ends(there_whole, 1).await && ends(here_whole, 30).await);
    for task in tasks {
        task.abort();
    }
}

#[tokio::test]
async fn scram_has_a_verifier_for_everybody() {
    let bench = Bench::new();
    let directory = bench.node().await;
    directory.create_domain(&domain("example.test"), DomainSettings::default()).await.unwrap();
    let alice = address("alice@example.test");
    directory.create_account(&alice, with_password("correct horse")).await.unwrap();
    let Some(Entry::Account(account)) = directory.entry(&alice).await.unwrap().as_deref().cloned() else {
        panic!()
    };
    let password = account.password.unwrap();

    let begun = directory.scram("alice@example.test", Service::Imap, home()).await.unwrap();
    assert_eq!(Some(begun.verifier()), password.scram.as_ref());
    assert_eq!(begun.succeeded().unwrap().account, account.id);
    let decoy = directory.scram("nobody@example.test", Service::Imap, home()).await.unwrap();
    let again = bench.node().await.scram("nobody@example.test", Service::Imap, home()).await.unwrap();
    assert_eq!(decoy.verifier(), again.verifier(), "the same on every node and after a restart");
    assert!(matches!(decoy.succeeded(), Err(AuthError::Rejected)));

    directory.set_password(&alice, NewPassword::Hash(password.phc.clone())).await.unwrap();
    assert!(directory.authenticate(&login("alice@example.test", "correct horse"), home()).await.is_ok());
    let imported = directory.scram("alice@example.test", Service::Imap, home()).await.unwrap();
    assert_ne!(Some(imported.verifier()), password.scram.as_ref());
    assert!(matches!(imported.succeeded(), Err(AuthError::Rejected)));
}

#[tokio::test]
async fn guessing_is_throttled() {
    let bench = Bench::new();
    let directory = bench.node().await;
    directory.create_domain(&domain("example.test"), DomainSettings::default()).await.unwrap();
    directory.create_account(&address("alice@example.test"), with_password("correct horse")).await.unwrap();
    directory.authenticate(&login("alice@example.test", "correct horse"), home()).await.unwrap();
    let outcomes =
        (0..20u8).map(|n| {
            let directory = &directory;
            async move {
                directory.authenticate(&login("alice@example.test", "wrong"), [203, 0, 113, n].into()).await
            }
        });
    let mut refused = 0;
    for outcome in outcomes {
        refused += usize::from(matches!(outcome.await, Err(AuthError::Throttled { .. })));
    }
    assert_eq!(refused, 15);
    let stranger =
        directory.authenticate(&login("alice@example.test", "correct horse"), [203, 0, 113, 99].into()).await;
    assert!(matches!(stranger, Err(AuthError::Throttled { .. })));
    directory.authenticate(&login("alice@example.test", "correct horse"), home()).await.unwrap();
}

#[tokio::test]
async fn what_another_node_did_is_seen_before_something_is_denied() {
    let bench = Bench::new();
    let (one, two) = (bench.node().await, bench.node().await);
    assert_eq!(stands_for(&two, "alice@example.test").await, "NotLocal");
    one.create_domain(&domain("example.test"), DomainSettings::default()).await.unwrap();
    assert_eq!(stands_for(&two, "alice@example.test").await, "NoSuchUser");
    for n in 0..40 {
        let text = format!("user{n}@example.test");
        one.create_account(&address(&text), with_password(&format!("password {n}"))).await.unwrap();
        assert_eq!(stands_for(&two, &text).await, text);
        two.authenticate(&login(&text, &format!("password {n}")), home()).await.unwrap();
    }
    let again = two.create_account(&address("user7@example.test"), NewAccount::default()).await;
    assert!(matches!(again, Err(AdminError::Exists { .. })));

    // A third one begins from the snapshots.
    let three = bench.node().await;
    let mut seen = Vec::new();
    let mut from = String::new();
    loop {
        let page = three.names(&domain("example.test"), &from, 7).await.unwrap();
        seen.extend(page.entries.iter().map(|entry| entry.name().to_owned()));
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    let mut expected: Vec<String> = (0..40).map(|n| format!("user{n}")).collect();
    expected.sort();
    assert_eq!(seen, expected);
    assert_eq!(three.domain_view(&domain("example.test")).await.unwrap().names, 40);
    let report = three.verify().await.unwrap();
    assert_eq!((report.domains, report.names, report.accounts.len(), report.findings), (1, 40, 40, vec![]));
}

#[tokio::test]
async fn a_failing_engine_is_a_temporary_failure() {
    let bench = Bench::new();
    let directory = bench.node().await;
    directory.create_domain(&domain("example.test"), DomainSettings::default()).await.unwrap();
    let alice = address("alice@example.test");
    directory.create_account(&alice, with_password("correct horse")).await.unwrap();
    bench.engine.set_faults(Faults { unavailable: 1.0, ..Faults::default() });
    assert!(directory.resolve(&address("bob@example.test")).await.is_err(), "not denied unseen");
    for _ in 0..10 {
        let failed = directory.authenticate(&login("alice@example.test", "correct horse"), home()).await;
        assert!(matches!(failed, Err(AuthError::Temporary(_))));
    }
    bench.engine.set_faults(Faults::default());
    directory.authenticate(&login("alice@example.test", "correct horse"), home()).await.unwrap();
}

#[tokio::test]
async fn large_lists_are_changed_in_slices() {
    let bench = Bench::new();
    let directory = bench.node().await;
    directory.create_domain(&domain("example.test"), DomainSettings::default()).await.unwrap();
    let list = address("all@example.test");
    directory.create_list(&list, &address("owner@example.test")).await.unwrap();
    let members: Vec<Address> =
        (0..3000).map(|n| address(&format!("member{n:04}@somewhere.example"))).collect();
    assert_eq!(directory.change_members(&list, &members, &[]).await.unwrap(), 3000);
    assert_eq!(directory.change_members(&list, &members[..10], &members[..2990]).await.unwrap(), 20);
    directory.change_list_owner(&list, &address("new@example.test")).await.unwrap();
    match directory.resolve(&list).await.unwrap() {
        Resolution::List { owner, members: left } => {
            assert_eq!(owner, address("new@example.test"));
            assert_eq!(left.len(), 20);
            assert_eq!(left[0], members[0]);
        }
        other => panic!("{other:?}"),
    }
    let too_many: Vec<Address> = (0..5001).map(|n| address(&format!("m{n}@somewhere.example"))).collect();
    assert!(matches!(directory.change_members(&list, &too_many, &[]).await, Err(AdminError::Limit { .. })));
}

/// Rows that let others go first, so that whoever calls can be cut off before a call and behind it.
struct Slow {
    rows: Arc<dyn Rows>,
    /// How often: a seed, or zero for once.
    seed: AtomicU64,
}

impl Slow {
    fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { rows: MemoryEngine::new().engine().rows, seed: AtomicU64::new(seed) })
    }

    async fn pause(&self) {
        let state = self.seed.load(Ordering::Relaxed);
        let next = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(u64::from(state > 0));
        self.seed.store(next, Ordering::Relaxed);
        for _ in 0..=(next >> 60) {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Rows for Slow {
    async fn put(&self, rows: Vec<Row>) -> Result<(), EngineError> {
        self.rows.put(rows).await
    }
    async fn put_new(&self, row: Row) -> Result<bool, EngineError> {
        self.rows.put_new(row).await
    }
    async fn replace_if(
        &self,
        key: RowKey,
        expected: Option<Bytes>,
        new: Option<Bytes>,
    ) -> Result<bool, EngineError> {
        self.pause().await;
        let replaced = self.rows.replace_if(key, expected, new).await;
        self.pause().await;
        replaced
    }
    async fn get(&self, key: RowKey) -> Result<Option<Bytes>, EngineError> {
        self.pause().await;
        self.rows.get(key).await
    }
    async fn scan(
        &self,
        table: Table,
        partition: Bytes,
        from: Bytes,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        self.rows.scan(table, partition, from, limit).await
    }
    async fn partitions(
        &self,
        table: Table,
        after: Option<Bytes>,
        limit: usize,
    ) -> Result<Vec<Bytes>, EngineError> {
        self.rows.partitions(table, after, limit).await
    }
    async fn delete(&self, keys: Vec<RowKey>) -> Result<(), EngineError> {
        self.rows.delete(keys).await
    }
}

/// Does something until it has been at rest so many times; then whoever did it is gone. Says whether it came to its end.
async fn cut_after(rests: usize, act: impl Future<Output = Result<(), AdminError>>) -> bool {
    let rest = async {
        for _ in 0..rests {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        ended = act => {
            ended.unwrap();
            true
        }
        () = rest => false,
    }
}

/// Wherever a removal is cut off, the name is in one region, and the removal can be repeated.
#[tokio::test]
async fn a_removal_that_is_cut_off_leaves_a_name_in_one_region() {
    let (here, target) = (domain("example.test"), address("x@there.test"));
    for name in ["alias@example.test", "account@example.test"].map(address) {
        let mut ended = false;
        for rests in 0.. {
            if ended {
                assert!(rests > 5, "there was nothing to cut");
                break;
            }
            let names = Slow::new(0);
            let [eu, us] = ["eu", "us"].map(|region| Bench::region(region, &names));
            let (node, there) = (eu.node().await, us.node().await);
            for directory in [&node, &there] {
                directory.create_domain(&here, DomainSettings::default()).await.unwrap();
            }
            let is_alias = name.local() == "alias";
            if is_alias {
                node.create_alias(&name, vec![target.clone()], false).await.unwrap();
            } else {
                node.create_account(&name, NewAccount::default()).await.unwrap();
            }
            let remove = async |node: &Directory| {
                if is_alias {
                    node.delete_alias(&name).await
                } else {
                    node.delete_account(&name).await.map(drop)
                }
            };
            ended = cut_after(rests, remove(&node)).await;
            node.close();
            let node = eu.node().await;
            let taken = there.create_alias(&name, vec![target.clone()], false).await;
            if let Err(error) = &taken {
                assert!(!ended && matches!(error, AdminError::Elsewhere { .. }), "{name} {rests}: {error}");
                let again = remove(&node).await;
                assert!(matches!(again, Ok(()) | Err(AdminError::NoSuchName { .. })), "{rests}: {again:?}");
                there.create_alias(&name, vec![target.clone()], false).await.unwrap();
            }
            assert_eq!(node.entry(&name).await.unwrap(), None, "{name} is in two regions after {rests}");
            assert_eq!(eu.homes.as_ref().unwrap().of(&name.key()).await.unwrap().unwrap().as_str(), "us");
        }
    }
}

/// Removals and a making of one name at the same time: in the end it is claimed if it is there.
#[tokio::test]
async fn a_name_that_is_made_while_it_is_removed_keeps_its_claim() {
    let (name, target) = (address("info@example.test"), address("x@there.test"));
    let mut ends = [0; 2];
    for seed in 1..300 {
        let names = Slow::new(seed);
        let eu = Bench::region("eu", &names);
        let [one, other] = [eu.node().await, eu.node().await];
        one.create_domain(&domain("example.test"), DomainSettings::default()).await.unwrap();
        one.create_alias(&name, vec![target.clone()], false).await.unwrap();
        let late = async || {
            for _ in 0..12 {
                names.pause().await;
            }
        };
        let (removed, again, made) = tokio::join!(
            async {
                late().await;
                one.delete_alias(&name).await
            },
            async {
                late().await;
                other.delete_alias(&name).await
            },
            async {
                late().await;
                other.create_alias(&name, vec![target.clone()], true).await
            },
        );
        assert!(removed.is_ok() || again.is_ok(), "{seed}: {removed:?} {again:?}");
        assert!(matches!(made, Ok(()) | Err(AdminError::Exists { .. })), "{seed}: {made:?}");
        let is_there = one.entry(&name).await.unwrap().is_some();
        let is_claimed = async || eu.homes.as_ref().unwrap().of(&name.key()).await.unwrap().is_some();
        assert!(!is_there || is_claimed().await, "{seed}: {removed:?} {again:?} {made:?}");
        if !is_there && is_claimed().await {
            // Claimed once more behind the last removal; another one gives it back.
            let removed = one.delete_alias(&name).await;
            assert!(matches!(removed, Err(AdminError::NoSuchName { .. })), "{seed}: {removed:?}");
            assert!(!is_claimed().await, "{seed}");
        }
        ends[usize::from(is_there)] += 1;
    }
    assert!(ends[0] > 0 && ends[1] > 0, "one of them always came first: {ends:?}");
}
