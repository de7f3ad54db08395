//! The connection to NATS: what carries hints and requests, at most once, and is allowed to be away.
//!
//! Nothing waits for it. While there is no connection what would go out is dropped, so that nothing piles up and nothing
//! old comes when it is back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Subscriber};
use bytes::Bytes;
use tokio::time::timeout;

use crate::authentic::{MessageKey, Opened};
use crate::config::NatsConfig;
use crate::count::Count;
use crate::node::Boot;

/// Messages that wait to be written. NATS takes hundreds of thousands a second, so more means that it is stuck.
const OUTGOING_MAX: usize = 256;

/// Messages of one subscription that wait to be read.
const INCOMING_MAX: usize = 4_096;

/// How long a message may wait for room before it is dropped.
const PUBLISH_WITHIN: Duration = Duration::from_millis(250);

/// How long one attempt to connect may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Time between two probes of a connection; after two without an answer it is made anew.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// Longest pause between two attempts to connect.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Where nodes of one installation talk to each other. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None`: no server is configured.
    client: Option<Client>,
    prefix: String,
    boot: Boot,
    key: MessageKey,
    counts: Counts,
}

/// What became of messages.
pub(crate) struct Counts {
    /// Messages that no node of this installation can have written.
    pub(crate) forged: Count,
    /// Messages of nodes that say nothing that we understand, or the same thing twice.
    pub(crate) refused: Count,
    /// Hints that did not go out.
    pub(crate) hints_dropped: Count,
}

/// Why there can be no connection, now or ever. A server that is away is no such reason.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The name of the installation stands in subjects.
    #[error("a cluster's name has 1 to 64 letters, digits, hyphens and underscores")]
    Cluster,
    /// A file with a login or certificates.
    #[error("{0} cannot be used")]
    File(String, #[source] std::io::Error),
    /// An address or TLS.
    #[error("the connection to NATS cannot be set up")]
    Setup(#[source] async_nats::ConnectError),
}

impl Bus {
    /// Begins to connect, and goes on until it succeeds, and again whenever the connection is lost. `cluster` names the
    /// installation among those that use the same servers. Without servers this is [`Self::none`].
    pub async fn connect(
        config: &NatsConfig,
        cluster: &str,
        boot: Boot,
        key: MessageKey,
    ) -> Result<Self, BusError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !(1..=64).contains(&cluster.len()) || !cluster.bytes().all(good) {
            return Err(BusError::Cluster);
        }
        if config.servers.is_empty() {
            return Ok(Self::new(None, cluster, boot, key));
        }
        let options = options(config, boot).await?;
        let client = options.connect(&config.servers[..]).await.map_err(BusError::Setup)?;
        Ok(Self::new(Some(client), cluster, boot, key))
    }

    /// Carries nothing: for a node that has no servers.
    pub fn none(boot: Boot) -> Self {
        Self::new(None, "none", boot, MessageKey::derive(&[]))
    }

    fn new(client: Option<Client>, cluster: &str, boot: Boot, key: MessageKey) -> Self {
        let counts = Counts {
            forged: Count::new(metrics::counter!("postrider_cluster_messages_forged_total")),
            refused: Count::new(metrics::counter!("postrider_cluster_messages_refused_total")),
            hints_dropped: Count::new(metrics::counter!("postrider_cluster_hints_dropped_total")),
        };
        let prefix = format!("postrider.{cluster}");
        Self { inner: Arc::new(Inner { client, prefix, boot, key, counts }) }
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.inner.client.as_ref().is_some_and(|client| client.connection_state() == State::Connected)
    }

    /// Messages that came and that no node of this installation can have written.
    pub fn forged(&self) -> u64 {
        self.inner.counts.forged.get()
    }

    /// Messages of nodes that were not understood, or came twice.
    pub fn refused(&self) -> u64 {
        self.inner.counts.refused.get()
    }

    /// Hints that did not go out because there was no connection, or a stuck one.
    pub fn hints_dropped(&self) -> u64 {
        self.inner.counts.hints_dropped.get()
    }

    pub(crate) fn boot(&self) -> Boot {
        self.inner.boot
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.inner.counts
    }

    /// A subject of this installation.
    pub(crate) fn subject(&self, rest: &str) -> String {
        format!("{}.{rest}", self.inner.prefix)
    }

    /// Sends a message, if it can go at once or soon. Whether it was given to the connection, which says nothing of
    /// whether it arrives.
    pub(crate) async fn publish(
        &self,
        subject: String,
        reply: Option<String>,
        number: u64,
        body: &[u8],
    ) -> bool {
        let Some(client) = &self.inner.client else { return false };
        if !self.is_connected() {
            return false;
        }
        let message = self.inner.key.close(&subject, self.inner.boot, number, body);
        let sent = async {
            match reply {
                Some(reply) => client.publish_with_reply(subject, reply, message).await,
                None => client.publish(subject, message).await,
            }
        };
        matches!(timeout(PUBLISH_WITHIN, sent).await, Ok(Ok(())))
    }

    /// What comes for a subject, now or when there is a connection. `None`: nothing ever comes.
    pub(crate) async fn subscribe(&self, subject: String) -> Option<Subscriber> {
        let client = self.inner.client.as_ref()?;
        match client.subscribe(subject).await {
            Ok(subscriber) => Some(subscriber),
            Err(error) => {
                tracing::error!(%error, "no messages of other nodes can be had");
                None
            }
        }
    }

    /// A message of another node with at most `body_bytes_max`; all else is counted.
    pub(crate) fn open(&self, subject: &str, message: &Bytes, body_bytes_max: usize) -> Option<Opened> {
        // A long one is not even hashed.
        let short = message.len() <= body_bytes_max.saturating_add(crate::authentic::OVERHEAD_BYTES);
        let opened = if short { self.inner.key.open(subject, message) } else { None };
        if opened.is_none() {
            self.inner.counts.forged.add(1);
        }
        opened
    }
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").field("prefix", &self.inner.prefix).finish_non_exhaustive()
    }
}

async fn options(config: &NatsConfig, boot: Boot) -> Result<ConnectOptions, BusError> {
    let mut options = ConnectOptions::new()
        .name(format!("postrider {boot}"))
        .retry_on_initial_connect()
        .no_echo()
        .client_capacity(OUTGOING_MAX)
        .subscription_capacity(INCOMING_MAX)
        .connection_timeout(CONNECT_WITHIN)
        .ping_interval(PROBE_EVERY)
        .reconnect_delay_callback(pause_before)
        .require_tls(config.tls);
    let unusable = |path: &Path, error| BusError::File(path.display().to_string(), error);
    if !config.credentials_file.as_os_str().is_empty() {
        let path = &config.credentials_file;
        options = options.credentials_file(path).await.map_err(|error| unusable(path, error))?;
    }
    if !config.user.is_empty() {
        options = options.user_and_password(config.user.clone(), config.password.reveal().to_owned());
    }
    if !config.token.is_empty() {
        options = options.token(config.token.reveal().to_owned());
    }
    for path in [&config.ca_file, &config.certificate_file, &config.key_file] {
        if !path.as_os_str().is_empty() {
            // They are read again with each connection, where a mistake would only be retried for ever.
            tokio::fs::metadata(path).await.map_err(|error| unusable(path, error))?;
        }
    }
    if !config.ca_file.as_os_str().is_empty() {
        options = options.add_root_certificates(config.ca_file.clone());
    }
    if !config.certificate_file.as_os_str().is_empty() {
        options = options.add_client_certificate(config.certificate_file.clone(), config.key_file.clone());
    }
    Ok(options)
}

/// The pause before attempt number `attempt` to connect: none before the first, then longer each time.
fn pause_before(attempt: usize) -> Duration {
    match attempt {
        0 | 1 => Duration::ZERO,
        _ => Duration::from_millis(25 << attempt.min(7)).min(RECONNECT_PAUSE_MAX),
    }
}
