//! One node: the libraries over the engines, wired as the server wires them, and its doors.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use blob::keys::KeyEncryptionKey;
use blob::{BlobArchive, BlobStore, KeyRing};
use cluster::{Membership, Node};
use delivery::Delivery;
use directory::account::Quota;
use directory::config::Argon2Config;
use directory::{AccountStores, Directory, LogKeys, Parts, Temporary};
use engine::seal::Unencrypted;
use engine::{Engine, Hints, LogId, LogOptions, Sealer};
use imap::Imap;
use mail::address::Address;
use mail::id::AccountId;
use net::shutdown::Shutdown;
use net::stream::Stream;
use queue::{Clock, Foundation, Queue, Sharing};
use smtp_in::{Role, SmtpIn};
use storage::{AccountSettings, Layout, Storage};
use turmoil::net::{TcpListener, TcpStream};

use crate::hints;
use crate::reach::{NodeBlobs, NodeEngine};
use crate::world::World;

pub(crate) const SMTP: u16 = 25;
pub(crate) const IMAP: u16 = 143;

/// What the wall clock of the simulation shows at its begin, unix seconds.
const BEGIN: u64 = 1_800_000_000;
/// How often a node's wall clock is put forward.
const CLOCK_STEP: Duration = Duration::from_millis(200);
/// Bytes that wait between a connection and its session.
const PIPE_BYTES: usize = 64 * 1024;

pub(crate) fn name(node: usize) -> String {
    format!("node{node}")
}

/// The libraries over an engine.
pub(crate) struct Services {
    pub(crate) storage: Storage,
    pub(crate) directory: Directory,
    pub(crate) queue: Queue,
}

impl Services {
    /// Opens everything. `inspects`: as an operator does, working on nothing.
    pub(crate) async fn open(
        engine: Engine,
        blobs: Arc<dyn blob::Blobs>,
        clock: Clock,
        sharing: Sharing,
        inspects: bool,
    ) -> Result<Self> {
        let config = blob::Config { key_cache_seconds: 3_600, ..blob::Config::default() };
        let keys = KeyRing::new(KeyEncryptionKey::from_secret(&[7; 32]), engine.rows.clone(), &config);
        let blobs = BlobStore::new(blobs, engine.rows.clone(), keys.clone(), config).await?;
        let archive: Arc<dyn engine::Archive> = Arc::new(BlobArchive::new(blobs.clone()));
        let layout = Layout { index_messages: 4, email_records: 6, run_keys: 4, trail_bytes: 60 };
        let settings = storage::Config { layout, expunged_bytes_max: 400, ..storage::Config::default() };
        let storage =
            Storage::new(engine.clone(), log_options(), Some(archive.clone()), blobs.clone(), settings);
        let directory = Directory::open(Parts {
            config: directory::Config {
                argon2: Argon2Config { memory_kib: 64, passes: 1, lanes: 1 },
                scram_iterations: 4_096,
                ..directory::Config::default()
            },
            engine: engine.clone(),
            logs: log_options(),
            archive: None,
            keys: Arc::new(NoKeys),
            stores: Arc::new(Accounts(storage.clone())),
            homes: None,
            on_login_failure: Box::new(|_| {}),
        })
        .await?;
        let foundation = Foundation {
            engine,
            log_options: log_options(),
            archive: Some(archive),
            blobs,
            keys,
            clock,
            sharing,
        };
        let queue = if inspects {
            Queue::inspect(foundation, queue_config()).await?
        } else {
            Queue::open(foundation, queue_config()).await?
        };
        Ok(Self { storage, directory, queue })
    }

    pub(crate) fn close(&self) {
        self.queue.close();
        self.storage.close();
        self.directory.close();
    }
}

/// Everything that happens seldom happens often.
fn log_options() -> LogOptions {
    LogOptions {
        snapshot_entries_min: 3,
        snapshot_bytes_min: 500,
        snapshot_entries_max: 12,
        read_entries_max: 5,
        deadline_seconds: 6,
        shared: true,
        head_poll_ms: 700,
        backoff_ms_min: 2,
        backoff_ms_max: 100,
        retry_ms: 50,
        ..LogOptions::default()
    }
}

fn queue_config() -> queue::Config {
    queue::Config {
        ingest_shards: 3,
        outbound_shards: 1,
        poll_seconds: 1,
        expiry_grace_seconds: 0,
        retry_seconds_min: 1,
        retry_seconds_max: 4,
        // As many as there may be in a run, so that nothing is put aside for them.
        crashes_max: 100,
        ..queue::Config::default()
    }
}

/// The engine without faults, as whoever prepares and whoever judges reaches it.
pub(crate) async fn faultless(world: &Arc<World>, inspects: bool) -> Result<Services> {
    let blobs = Arc::new(world.blobs.clone());
    let clock = Clock::standing(BEGIN + turmoil::sim_elapsed().unwrap_or_default().as_secs());
    Services::open(world.engine.engine(), blobs, clock, Sharing::Unknown, inspects).await
}

/// What a host runs, from its start until it is stopped.
pub(crate) async fn run(world: Arc<World>, node: usize) -> turmoil::Result {
    world.note(format_args!("node {node} starts"));
    while !world.is_ready.load(std::sync::atomic::Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let clock = Clock::standing(BEGIN);
    set_clock(&world, node, &clock);
    tokio::spawn({
        let (world, clock) = (world.clone(), clock.clone());
        async move {
            loop {
                set_clock(&world, node, &clock);
                tokio::time::sleep(CLOCK_STEP).await;
            }
        }
    });
    let node_engine = NodeEngine::new(world.clone(), node);
    let hints = Hints::new(1_000);
    hints::carry(&world, node, &hints).await?;
    let engine = node_engine.engine(hints);
    let config = cluster::Config { heartbeat_ms: 300, dead_after_ms: 1_500, ..cluster::Config::default() };
    let itself = Node::new(name(node).parse()?, ["delivery", "smtp-in", "imap"]);
    let membership = Membership::join(engine.rows.clone(), itself, config);
    let services = loop {
        let blobs = Arc::new(NodeBlobs(node_engine.clone()));
        let sharing = Sharing::Nodes(membership.clone());
        match Services::open(engine.clone(), blobs, clock.clone(), sharing, false).await {
            Ok(services) => break services,
            Err(error) => {
                world.note(format_args!("node {node} does not start: {error:#}"));
                tracing::debug!(node, "does not start: {error:#}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    };
    world.note(format_args!("node {node} serves"));
    let Services { storage, directory, queue } = services;
    let settings = delivery::Config { hostname: "mx.example.test".to_owned(), ..delivery::Config::default() };
    let agent = Delivery::new(queue.clone(), storage.clone(), directory.clone(), settings);
    tokio::spawn(async move { agent.run(std::future::pending()).await });

    let shutdown = Shutdown::new();
    let settings = smtp_in::Config { hostname: "mx.example.test".to_owned(), ..smtp_in::Config::default() };
    let smtp = SmtpIn::new(settings, directory.clone(), queue, storage.clone(), None);
    let settings = imap::Config { idle_poll_seconds: 1, ..imap::Config::default() };
    let imap = Imap::new(settings, storage, directory, None);
    let smtp_door = door(SMTP, |stream| tokio::spawn(smtp.serve(Role::Mx, stream, shutdown.guard())));
    let imap_door = door(IMAP, |stream| tokio::spawn(imap.serve(stream, shutdown.guard())));
    tokio::try_join!(smtp_door, imap_door)?;
    Ok(())
}

/// Takes connections. A session has its end of a pipe, as in other tests; the other end goes over the network.
async fn door(port: u16, serve: impl Fn(Stream) -> tokio::task::JoinHandle<()>) -> turmoil::Result {
    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)).await?;
    loop {
        let (connection, _) = listener.accept().await?;
        let (here, there) = tokio::io::duplex(PIPE_BYTES);
        serve(Stream::from_memory(here));
        tokio::task::spawn_local(pipe(connection, there));
    }
}

async fn pipe(mut connection: TcpStream, mut there: tokio::io::DuplexStream) {
    let _ = tokio::io::copy_bidirectional(&mut connection, &mut there).await;
}

fn set_clock(world: &World, node: usize, clock: &Clock) {
    let now = BEGIN + turmoil::sim_elapsed().unwrap_or_default().as_secs();
    clock.set(now.saturating_add_signed(world.seconds_ahead(node)));
}

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

struct Accounts(Storage);

#[async_trait]
impl AccountStores for Accounts {
    async fn create(&self, account: AccountId, _: &Address, quota: Quota) -> Result<(), Temporary> {
        let settings = AccountSettings { quota_bytes: quota.bytes, quota_messages: quota.messages };
        self.0.create_account(account, settings).await.map_err(|error| Temporary(error.to_string()))
    }
    async fn set_quota(&self, _: AccountId, _: Quota) -> Result<(), Temporary> {
        Err(Temporary("not in these tests".to_owned()))
    }
    async fn delete(&self, _: AccountId) -> Result<(), Temporary> {
        Err(Temporary("not in these tests".to_owned()))
    }
}

/// An address in the domain of the simulation.
pub(crate) fn address(name: &str) -> Result<Address> {
    Address::parse(&format!("{name}@example.test")).context("an address")
}
