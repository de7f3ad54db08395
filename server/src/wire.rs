//! Puts the crates together: which back ends there are, and who gets what. Nothing else knows all of them.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use blob::keys::KeyEncryptionKey;
use blob::{BlobArchive, BlobStore, KeyId, KeyRing};
use bytes::Bytes;
use cluster::MessageKey;
use delivery::Delivery;
use directory::account::Quota;
use directory::{AccountStores, Directory, LogKeys, Temporary};
use engine::{Archive, Engine, LogId, Sealer, with_causes};
use imap::Imap;
use mail::address::Address as MailAddress;
use mail::id::AccountId;
use net::listener::{Address, Listener};
use net::shutdown::Shutdown;
use net::tls::TlsServer;
use queue::{Clock, Foundation, Queue, Sharing};
use smtp_in::SmtpIn;
use smtp_out::SmtpOut;
use storage::{AccountSettings, OpenError, Principal, Storage};
use tokio::task::JoinHandle;
use webmail_api::admin::monitor::Monitor;
use webmail_api::admin::token::Tokens;
use webmail_api::admin::{Api, Parts};
use webmail_api::jmap::{self, Indexed, Jmap, Scan, Sending, SendingRules};
use webmail_api::oauth::Issuer;

use crate::audit::AuditLog;
use crate::back_end::{BackEnd, log_options};
use crate::cluster::Cluster;
use crate::config::{Config, ServiceKind};
use crate::health::Health;
use crate::index::Index;
use crate::level::{self, Admitted};
use crate::maintenance::Maintenance;
use crate::migration::Migration;
use crate::regions::{Answering, Neighbourhood};
use crate::role::Role;

/// How long closing may take before the process ends all the same. What is durable stays so; the next start recovers
/// what was left open.
const CLOSE_PATIENCE: Duration = Duration::from_secs(20);

/// Measurements that nobody has asked for are folded into their histograms this often, which bounds their memory.
const UPKEEP_PAUSE: Duration = Duration::from_secs(5);

/// What everything that is stored stands on, opened. One process has it at a time.
pub(crate) struct Ground {
    pub(crate) engine: Engine,
    pub(crate) keys: KeyRing,
    pub(crate) blobs: BlobStore,
    pub(crate) archive: Arc<dyn Archive>,
    pub(crate) storage: Storage,
    pub(crate) directory: Directory,
    /// The other regions, where there are any.
    neighbourhood: Option<Neighbourhood>,
    pub(crate) audit: AuditLog,
    back_end: BackEnd,
    /// What this process may read and write.
    pub(crate) admitted: Admitted,
    /// What messages of other nodes are known by.
    pub(crate) message_key: MessageKey,
}

impl Ground {
    /// Opens the data folder; makes it when it is not there.
    pub(crate) async fn open(config: &Config) -> anyhow::Result<Self> {
        make_folder(&config.data)?;
        let back_end = BackEnd::open(config).await?;
        let admitted = level::admit(config, &*back_end.engine.rows).await?;
        let engine = back_end.engine.clone().with_level(admitted.level.clone());
        let kek = if config.in_cluster() {
            crate::cluster::key(config, &*engine.rows).await?
        } else {
            KeyEncryptionKey::read_or_create(&config.key_path()).context("key-encryption key")?
        };
        let neighbourhood = Box::pin(Neighbourhood::open(config, &*engine.rows)).await?;
        let message_key = MessageKey::derive(kek.message_secret());
        let keys = KeyRing::new(kek, Arc::clone(&engine.rows), &config.blob);
        let rows = Arc::clone(&engine.rows);
        let blobs = BlobStore::new(Arc::clone(&back_end.blobs), rows, keys.clone(), config.blob.clone())
            .await
            .context("segments")?;
        let archive: Arc<dyn Archive> = Arc::new(BlobArchive::new(blobs.clone()));
        let storage = Storage::new(
            engine.clone(),
            log_options(config),
            Some(Arc::clone(&archive)),
            blobs.clone(),
            config.storage.clone(),
        );
        let audit = AuditLog::open(&config.data.join("audit.jsonl"))?;
        let login_audit = audit.clone();
        let directory = Directory::open(directory::Parts {
            config: config.directory.clone(),
            engine: engine.clone(),
            logs: log_options(config),
            archive: Some(Arc::clone(&archive)),
            keys: Arc::new(SystemKeys(keys.clone())),
            stores: Arc::new(Accounts(storage.clone())),
            homes: neighbourhood.as_ref().map(|others| others.homes.clone()),
            on_login_failure: Box::new(move |failure| login_audit.login_failed(failure)),
        })
        .await
        .context("directory")?;
        Ok(Self {
            engine,
            keys,
            blobs,
            archive,
            storage,
            directory,
            neighbourhood,
            audit,
            back_end,
            admitted,
            message_key,
        })
    }

    /// What the queue stands on. Without other nodes the engine's lock keeps every other process out; a command that only
    /// looks at a cluster is none of its nodes.
    pub(crate) fn under_queue(&self, config: &Config, cluster: Option<&Cluster>) -> Foundation {
        let sharing = match cluster {
            Some(cluster) => Sharing::Nodes(cluster.membership().clone()),
            None if config.in_cluster() => Sharing::Unknown,
            None => Sharing::Alone,
        };
        Foundation {
            engine: self.engine.clone(),
            log_options: log_options(config),
            archive: Some(Arc::clone(&self.archive)),
            blobs: self.blobs.clone(),
            keys: self.keys.clone(),
            clock: Clock::system(),
            sharing,
        }
    }

    /// The move to other back ends, if there is one.
    pub(crate) fn migration(&self) -> &Migration {
        &self.back_end.migration
    }

    async fn is_moving_away(&self) -> anyhow::Result<bool> {
        self.back_end.is_moving_away().await
    }

    /// Closes everything in order. To be called when nothing uses it any more.
    pub(crate) async fn close(self) {
        let Self { engine, keys, blobs, archive, storage, directory, neighbourhood, audit, back_end, .. } =
            self;
        directory.close();
        storage.close();
        drop((engine, keys, archive, storage, directory, neighbourhood, audit));
        if tokio::time::timeout(CLOSE_PATIENCE, blobs.close()).await.is_err() {
            tracing::warn!("segments are still in use and were not closed in order");
        }
        back_end.close().await;
    }
}

/// The ground with the queue on it: what services work with.
pub(crate) struct Stores {
    pub(crate) ground: Ground,
    pub(crate) queue: Queue,
    pub(crate) health: Health,
    pub(crate) cluster: Option<Cluster>,
    maintenance: Maintenance,
    /// Looks after those who are logged in.
    logins: JoinHandle<()>,
    /// What finds text in messages.
    index: Option<Index>,
}

impl Stores {
    /// Opens everything. The queue counts this as a start, which matters for items that were being worked on when the
    /// last process died.
    pub(crate) async fn open(config: &Config) -> anyhow::Result<Self> {
        let health = Health::new(crate::metrics::install()?);
        let ground = Ground::open(config).await?;
        let cluster = if config.in_cluster() { Some(Cluster::join(config, &ground).await?) } else { None };
        // Looked at again now that the others see this node: one that begins to move, and does not see it, is seen here.
        let begun_elsewhere =
            cluster.is_some() && ground.migration().view().is_none() && ground.is_moving_away().await?;
        if begun_elsewhere {
            ground.close().await;
            bail!("another node is moving everything to other back ends: no other may run meanwhile");
        }
        let queue =
            match Queue::open(ground.under_queue(config, cluster.as_ref()), config.queue.clone()).await {
                Ok(queue) => queue,
                Err(error) => {
                    ground.close().await;
                    return Err(error).context("queue");
                }
            };
        if let Some(cluster) = &cluster {
            cluster.works_on(&queue);
            health.joined(cluster.clone());
        }
        health.may_move(ground.migration().clone());
        let alone = health.clone();
        ground.migration().resume(Box::new(move || alone.alone()));
        let index = match Index::open(config, &ground.engine, &ground.storage).await {
            Ok(index) => index,
            Err(error) => {
                queue.close();
                drop((queue, cluster));
                ground.close().await;
                return Err(error);
            }
        };
        let (blobs, s3) = (ground.blobs.clone(), ground.back_end.s3());
        let maintenance = Maintenance::start(&config.maintenance, blobs, s3, cluster.as_ref());
        let logins = tokio::spawn(ground.directory.clone().look_after_logins());
        let stores = Self { ground, queue, health, cluster, maintenance, logins, index };
        stores.watch();
        Ok(stores)
    }

    /// Closes everything in order. To be called when no service uses it any more.
    pub(crate) async fn close(self) {
        let Self { ground, queue, health, cluster, maintenance, logins, index } = self;
        logins.abort();
        // It has let go of the directory when it is joined.
        let _ = logins.await;
        queue.close();
        if let Some(index) = index {
            index.close().await;
        }
        drop((queue, health, cluster, maintenance));
        ground.close().await;
    }

    /// Lets the process end when the engine has seen a write fail, and keeps figures current.
    fn watch(&self) {
        crate::memory::give_back();
        for mut poisoned in self.ground.back_end.poisoned() {
            let health = self.health.clone();
            tokio::spawn(async move {
                if let Ok(why) = poisoned.wait_for(Option::is_some).await {
                    health.broke(why.as_deref().unwrap_or("the storage engine failed"));
                }
            });
        }
        if let Some(cluster) = &self.cluster {
            let (too_low, health) = (cluster.until_level_too_low(), self.health.clone());
            tokio::spawn(async move { health.broke(&too_low.await.to_string()) });
        }
        let health = self.health.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP_PAUSE).await;
                health.upkeep();
            }
        });
    }
}

/// The admin API over a directory, and over the queue where it is open.
pub(crate) async fn admin_api(
    config: &Config,
    ground: &Ground,
    queue: Option<Queue>,
    monitor: Arc<dyn Monitor>,
) -> anyhow::Result<Api> {
    let tokens = Tokens::new(Arc::clone(&ground.engine.rows), &config.admin);
    tokens.take_over(&config.data.join("admin-tokens.json")).await?;
    Ok(Api::new(Parts {
        config: config.admin.clone(),
        directory: ground.directory.clone(),
        storage: ground.storage.clone(),
        queue,
        tokens,
        audit: Arc::new(ground.audit.clone()),
        monitor,
    }))
}

/// What is handed in by JMAP is taken by the rules of what is handed in by SMTP.
fn sending_rules(smtp: &smtp_in::Config, config: &Config) -> SendingRules {
    // Two nodes may be as far from each other as each may be from what most say, and one that is not told of a change at
    // once looks for it by itself. That a node works on a shard itself does not make it less: two may believe that they do.
    let undo_margin_seconds = if config.in_cluster() {
        let refused_ms = match config.cql.clock_difference_ms_refused {
            // Nobody looks; so as if what is usual were so.
            0 => engine_cql::Config::default().clock_difference_ms_refused,
            refused_ms => refused_ms,
        };
        (2 * refused_ms).div_ceil(1_000) + config.queue.poll_seconds + 1
    } else {
        1
    };
    SendingRules {
        hostname: smtp.hostname.clone(),
        received_max: smtp.received_max,
        sender_login_check: smtp.sender_login_check,
        message_bytes_max: smtp.limits.message_bytes_max,
        text_line_bytes_max: smtp.limits.text_line_bytes_max,
        recipients_max: smtp.limits.recipients_max as usize,
        hold_seconds_max: smtp.hold_seconds_max,
        deliver_by_seconds_min: smtp.deliver_by_seconds_min,
        priorities: smtp.priorities,
        undo_margin_seconds,
    }
}

/// The services of this process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Services {
    delivery: Delivery,
    smtp_in: SmtpIn,
    smtp_out: Option<SmtpOut>,
    imap: Imap,
    jmap: Jmap,
    answering: Option<Answering>,
}

impl Services {
    pub(crate) fn new(config: &Config, stores: &Stores, tls: Option<&TlsServer>) -> anyhow::Result<Self> {
        let mut smtp = config.smtp_in.clone();
        if smtp.hostname == smtp_in::Config::default().hostname {
            smtp.hostname.clone_from(&config.hostname);
        }
        smtp.details_are_filed = config.delivery.subaddress != delivery::Subaddress::Inbox;
        let Stores { ground: Ground { directory, storage, neighbourhood, .. }, queue, cluster, .. } = stores;
        let mut local = config.delivery.clone();
        if local.hostname.is_empty() {
            local.hostname.clone_from(&config.hostname);
        }
        let delivery = Delivery::new(queue.clone(), storage.clone(), directory.clone(), local);
        let regions = neighbourhood.as_ref().map(|others| others.regions.clone());
        let (storage, tls) = (storage.clone(), tls.cloned());
        let rules = sending_rules(&smtp, config);
        let smtp_in = SmtpIn::in_region(
            smtp,
            directory.clone(),
            queue.clone(),
            storage.clone(),
            tls.clone(),
            regions.clone(),
        );
        let imap =
            Imap::in_region(config.imap.clone(), storage.clone(), directory.clone(), tls, regions.clone());
        // What a user may write within an hour is counted once, whichever way they write.
        let counting = smtp_in.clone();
        let sending = Sending {
            queue: queue.clone(),
            rules,
            may_write_to_one_more: Box::new(move |user| counting.may_write_to_one_more(user)),
        };
        let jmap = Jmap::new(jmap::Parts {
            config: config.jmap.clone(),
            storage: storage.clone(),
            directory: directory.clone(),
            text: match &stores.index {
                Some(index) => Arc::new(Indexed::new(index.search.clone())),
                None => Arc::new(Scan { limits: config.search.text, ..Scan::default() }),
            },
            issuer: Some(Issuer::new(config.oauth.clone(), directory.clone(), config.jmap.base_url.clone())),
            sending: Some(sending),
        });
        if let Some(index) = &stores.index {
            imap.search_with(index.search.clone());
        }
        let answering = regions.map(|regions| {
            Answering::new(config, regions, directory.clone(), storage, smtp_in.clone(), imap.clone())
        });
        let smtp_out = if config.roles.contains(&Role::SmtpOut) {
            let elsewhere = neighbourhood.as_ref().map(|others| others.mail(directory, &smtp_in));
            Some(sender(config, queue, elsewhere, cluster.as_ref())?)
        } else {
            None
        };
        Ok(Self { delivery, smtp_in, smtp_out, imap, jmap, answering })
    }

    /// Sends mail to other hosts until the process ends, where that is this process's work; what is being sent then is
    /// finished first.
    pub(crate) fn send(&self, shutdown: &Shutdown) {
        let Some(smtp_out) = self.smtp_out.clone() else { return };
        let guard = shutdown.guard();
        tokio::spawn(async move {
            tokio::select! {
                () = smtp_out.run(guard.requested()) => {}
                () = guard.aborted() => {}
            }
        });
    }

    /// Delivers from the queue into mailboxes until the process ends; what is under way then is finished first.
    pub(crate) fn deliver(&self, shutdown: &Shutdown) {
        let (delivery, guard) = (self.delivery.clone(), shutdown.guard());
        tokio::spawn(async move {
            tokio::select! {
                () = delivery.run(guard.requested()) => {}
                () = guard.aborted() => {}
            }
        });
    }

    /// What is said to connections that are over a limit.
    pub(crate) fn refusal(kind: ServiceKind) -> Bytes {
        match kind {
            ServiceKind::Imap | ServiceKind::Imaps => Bytes::from_static(imap::service::REFUSAL),
            ServiceKind::Smtp | ServiceKind::Submission | ServiceKind::Submissions | ServiceKind::Lmtp => {
                Bytes::from_static(b"421 4.7.0 too many connections, try again later\r\n")
            }
            ServiceKind::Https | ServiceKind::Region | ServiceKind::Admin => Bytes::new(),
        }
    }

    /// Accepts connections of a service until the process ends.
    pub(crate) fn accept(&self, kind: ServiceKind, listener: Listener, shutdown: Shutdown) {
        let role = match kind {
            ServiceKind::Smtp => smtp_in::Role::Mx,
            ServiceKind::Submission | ServiceKind::Submissions => smtp_in::Role::Submission,
            ServiceKind::Lmtp => smtp_in::Role::Lmtp,
            ServiceKind::Imap | ServiceKind::Imaps => {
                let imap = self.imap.clone();
                let serve = move |stream, guard| {
                    let imap = imap.clone();
                    async move { imap.serve(stream, guard).await }
                };
                tokio::spawn(listener.run(shutdown, serve));
                return;
            }
            ServiceKind::Https => {
                let jmap = self.jmap.clone();
                let serve = move |stream, guard| {
                    let jmap = jmap.clone();
                    async move { jmap.serve(stream, guard).await }
                };
                tokio::spawn(listener.run(shutdown, serve));
                return;
            }
            ServiceKind::Region => {
                // Without regions there is no such listener.
                let Some(answering) = self.answering.clone() else { return };
                let serve = move |stream, guard| {
                    let answering = answering.clone();
                    async move { answering.serve(stream, guard).await }
                };
                tokio::spawn(listener.run(shutdown, serve));
                return;
            }
            ServiceKind::Admin => return,
        };
        let smtp_in = self.smtp_in.clone();
        let serve = move |stream, guard| {
            let smtp_in = smtp_in.clone();
            async move { smtp_in.serve(role, stream, guard).await }
        };
        tokio::spawn(listener.run(shutdown, serve));
    }
}

/// The service that sends to other hosts.
fn sender(
    config: &Config,
    queue: &Queue,
    elsewhere: Option<smtp_out::Elsewhere>,
    cluster: Option<&Cluster>,
) -> anyhow::Result<SmtpOut> {
    let mx = config.listeners.iter().filter(|listener| listener.service == ServiceKind::Smtp);
    let listeners = mx.filter_map(|listener| match listener.address {
        Address::Tcp(address) => Some(address),
        Address::Unix(_) => None,
    });
    let parts = smtp_out::Parts {
        config: config.smtp_out.clone(),
        hostname: &config.hostname,
        listeners: listeners.collect(),
        queue,
        elsewhere,
        leases: cluster.map(|cluster| cluster.site_leases(config)),
    };
    SmtpOut::new(parts).context("smtp_out")
}

fn make_folder(path: &Path) -> anyhow::Result<()> {
    // Only the server's own user has any business here.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the data folder {}", path.display()))
}

/// Keys of the directory's logs.
struct SystemKeys(KeyRing);

#[async_trait]
impl LogKeys for SystemKeys {
    async fn create(&self, log: LogId) -> Result<Arc<dyn Sealer>, Temporary> {
        self.0.ensure(KeyId::of_log(log)).await.map_err(|error| Temporary(with_causes(&error)))?;
        self.open(log).await
    }

    async fn open(&self, log: LogId) -> Result<Arc<dyn Sealer>, Temporary> {
        self.0.sealer(KeyId::of_log(log)).await.map_err(|error| Temporary(with_causes(&error)))
    }

    async fn erase(&self, log: LogId) -> Result<(), Temporary> {
        self.0.erase(KeyId::of_log(log)).await.map(drop).map_err(|error| Temporary(with_causes(&error)))
    }
}

/// The accounts' storage, as the directory sees it.
struct Accounts(Storage);

#[async_trait]
impl AccountStores for Accounts {
    async fn create(
        &self,
        account: AccountId,
        _address: &MailAddress,
        quota: Quota,
    ) -> Result<(), Temporary> {
        self.0.create_account(account, settings(quota)).await.map_err(|error| Temporary(with_causes(&error)))
    }

    async fn set_quota(&self, account: AccountId, quota: Quota) -> Result<(), Temporary> {
        let open = self.0.account(&Principal::Operator, account).await;
        let open = open.map_err(|error| Temporary(with_causes(&error)))?;
        open.set_quota(settings(quota)).await.map_err(|error| Temporary(with_causes(&error)))
    }

    async fn delete(&self, account: AccountId) -> Result<(), Temporary> {
        match self.0.delete_account(account).await {
            // It was deleted before, and only its name is left.
            Ok(()) | Err(OpenError::Missing) => Ok(()),
            Err(error) => Err(Temporary(with_causes(&error))),
        }
    }
}

fn settings(quota: Quota) -> AccountSettings {
    AccountSettings { quota_bytes: quota.bytes, quota_messages: quota.messages }
}
