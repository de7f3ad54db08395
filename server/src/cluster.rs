//! This process as one of the nodes of a cluster.

use std::sync::{Arc, OnceLock};

use anyhow::{Context, bail};
use blob::keys::KeyEncryptionKey;
use cluster::level::LevelError;
use cluster::{
    Bus, Levels, Member, Membership, Node, NodeId, Requests, SiteLeases, Standing, Wake, agreement,
};
use engine::Rows;
use queue::Queue;
use webmail_api::admin::nodes::{ClusterView, NodeView};

use crate::config::Config;
use crate::level::Admitted;
use crate::logins::Logins;
use crate::role::Role;
use crate::wire::Ground;

/// What all nodes must have the same.
const KEY: &str = "key-encryption key";

/// This node among the others. Ends with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    membership: Membership,
    bus: Bus,
    requests: Requests,
    _wake: Arc<Wake>,
    levels: Arc<Levels>,
    _logins: Arc<Logins>,
    name: NodeId,
    queue: Arc<OnceLock<Queue>>,
}

impl Cluster {
    /// Begins to be one of the nodes.
    pub(crate) async fn join(config: &Config, ground: &Ground) -> anyhow::Result<Self> {
        let settings = &config.cluster;
        let name = settings.node_id().context("cluster")?;
        let mut node = Node::new(name.clone(), config.roles.iter().map(|role| Role::name(*role)));
        node.address.clone_from(&config.hostname);
        env!("CARGO_PKG_VERSION").clone_into(&mut node.release);
        let Admitted { own, agreed, level } = ground.admitted.clone();
        node.feature_level = own;
        node.agreed_level = agreed;
        let boot = node.boot;
        let bus = Bus::connect(&settings.nats, &config.cql.keyspace, boot, ground.message_key.clone())
            .await
            .context("cluster.nats")?;
        let rows = Arc::clone(&ground.engine.rows);
        let membership = Membership::join(Arc::clone(&rows), node, settings.clone());
        let levels = Levels::start(rows, membership.clone(), level, own, agreed, settings);
        let wake = Wake::start(ground.engine.hints.clone(), bus.clone(), settings);
        let requests = Requests::start(bus.clone(), settings);
        tracing::info!(node = %name, %boot, "joins the cluster");
        let logins = Logins::start(&ground.directory, bus.clone(), membership.clone(), settings);
        Ok(Self {
            membership,
            bus,
            requests,
            _wake: Arc::new(wake),
            levels: Arc::new(levels),
            _logins: Arc::new(logins),
            name,
            queue: Arc::default(),
        })
    }

    pub(crate) fn membership(&self) -> &Membership {
        &self.membership
    }

    /// How the nodes look from here.
    pub(crate) fn view(&self) -> ClusterView {
        let view = self.membership.view();
        let shards = self.queue.get().map(Queue::shards_worked_on);
        let nodes = view.members.iter().map(|Member { node, standing }| NodeView {
            name: node.id.to_string(),
            standing: match standing {
                Standing::Live => "live",
                Standing::Leaving => "leaving",
                Standing::Silent => "silent",
                Standing::Superseded => "superseded",
            },
            roles: node.roles.iter().cloned().collect(),
            address: node.address.clone(),
            release: node.release.clone(),
            feature_level: node.feature_level,
            boot: node.boot.to_string(),
            shards: shards.filter(|_| node.boot == self.membership.boot()),
        });
        ClusterView {
            node: self.name.to_string(),
            connected: self.bus.is_connected(),
            stale: view.stale,
            isolated: self.membership.is_isolated(),
            feature_level: view.feature_level().unwrap_or_else(|| self.levels.agreed()),
            agreed_level: self.levels.agreed(),
            nodes: nodes.collect(),
        }
    }

    /// What this node may use of the sites that it sends to.
    pub(crate) fn site_leases(&self, config: &Config) -> SiteLeases {
        let sending = config.smtp_out.clone();
        SiteLeases::start(
            self.membership.clone(),
            self.requests.clone(),
            Role::SmtpOut.name(),
            &config.cluster,
            move |site| smtp_out::share::budget(sending.limits_of(site)),
        )
    }

    /// The queue whose shards the nodes share out.
    pub(crate) fn works_on(&self, queue: &Queue) {
        let _ = self.queue.set(queue.clone());
    }

    /// Waits until this node must not go on, since the others write what it cannot read, and says why.
    pub(crate) fn until_level_too_low(&self) -> impl Future<Output = LevelError> + Send + use<> {
        self.levels.until_too_low()
    }

    /// Gives up what this node owns. What fails, the others notice by its silence.
    pub(crate) async fn leave(&self) {
        if let Err(error) = self.membership.leave().await {
            tracing::warn!(%error, "the other nodes could not be told that this one leaves");
        }
    }
}

/// The key-encryption key, which is that of all nodes. Only the first node of a cluster may make one.
pub(crate) async fn key(config: &Config, rows: &dyn Rows) -> anyhow::Result<KeyEncryptionKey> {
    let path = config.key_path();
    let agreed = agreement::agreed(rows, KEY).await?;
    if let (Some(agreed), false) = (&agreed, path.exists()) {
        bail!(
            "this cluster has a key-encryption key ({agreed}), and {} is not there: copy the file from another node",
            path.display()
        );
    }
    let kek = KeyEncryptionKey::read_or_create(&path).context("key-encryption key")?;
    agreement::agree(rows, KEY, &kek.fingerprint().to_string()).await.with_context(|| {
        format!("{} is not the key of this cluster: copy the file from another node", path.display())
    })?;
    Ok(kek)
}
