//! Faults, each with how it begins and how it ends. Which one, of whom and for how long comes from a seed.
//!
//! Between two nodes of Cassandra there is no proxy, and where `tc` and `iptables` may not be used nothing cuts them off
//! from each other alone: a paused node stands for that.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::Rng;
use rand::rngs::StdRng;

use crate::Cluster;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// kill -9 of a node.
    KillNode,
    /// A node stands still, and goes on as if nothing had been.
    PauseNode,
    /// All nodes are stopped in order and started again, one after the other.
    RollingRestart,
    /// kill -9 of one node of Cassandra.
    KillCassandra,
    /// One node of Cassandra stands still.
    PauseCassandra,
    /// kill -9 of two: there is no majority, and no service.
    KillTwoCassandras,
    /// Two stand still.
    PauseTwoCassandras,
    /// kill -9 of NATS.
    KillNats,
    /// NATS stands still.
    PauseNats,
    /// kill -9 of S3.
    KillS3,
    /// S3 stands still.
    PauseS3,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::KillNode,
        Self::PauseNode,
        Self::RollingRestart,
        Self::KillCassandra,
        Self::PauseCassandra,
        Self::KillTwoCassandras,
        Self::PauseTwoCassandras,
        Self::KillNats,
        Self::PauseNats,
        Self::KillS3,
        Self::PauseS3,
    ];

    /// In a word, as result lines have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillNode => "kill-node",
            Self::PauseNode => "pause-node",
            Self::RollingRestart => "rolling-restart",
            Self::KillCassandra => "kill-cassandra",
            Self::PauseCassandra => "pause-cassandra",
            Self::KillTwoCassandras => "kill-two-cassandras",
            Self::PauseTwoCassandras => "pause-two-cassandras",
            Self::KillNats => "kill-nats",
            Self::PauseNats => "pause-nats",
            Self::KillS3 => "kill-s3",
            Self::PauseS3 => "pause-s3",
        }
    }

    /// The fault of this name.
    pub fn named(name: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .with_context(|| format!("not one of {}", known()))
    }

    /// Whether nothing can be committed anywhere while it lasts.
    pub fn stops_all_commits(self) -> bool {
        matches!(self, Self::KillTwoCassandras | Self::PauseTwoCassandras)
    }
}

/// A fault, of somebody, for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// Which of those that it may befall, from 0.
    pub whom: usize,
    /// For how long.
    pub seconds: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} for {} s", self.kind.name(), self.whom, self.seconds)
    }
}

impl Fault {
    /// A fault of this kind; seconds from 5 to `seconds_max`.
    pub fn of(kind: Kind, random: &mut StdRng, seconds_max: u64) -> Self {
        Self { kind, whom: random.random_range(0..3), seconds: random.random_range(5..=seconds_max.max(5)) }
    }

    /// For how long to wait between [`Self::begin`] and [`Self::end`].
    pub fn lasts(&self) -> Duration {
        match self.kind {
            // What it does takes the time that it takes.
            Kind::RollingRestart => Duration::ZERO,
            _ => Duration::from_secs(self.seconds),
        }
    }

    /// The other one, where it befalls two.
    fn other(&self) -> usize {
        (self.whom + 1) % 3
    }

    /// Lets it happen.
    pub fn begin(&self, cluster: &mut Cluster) -> Result<()> {
        let (whom, other) = (self.whom, self.other());
        match self.kind {
            Kind::KillNode => cluster.take_node(whom)?.kill(),
            Kind::PauseNode => cluster.node(whom)?.pause(),
            Kind::RollingRestart => (0..cluster.nodes.len()).try_for_each(|turn| {
                let number = (whom + turn) % cluster.nodes.len();
                cluster.stop_node(number)?;
                cluster.restart_node(number)
            }),
            Kind::KillCassandra => cassandra(cluster, whom)?.kill(),
            Kind::PauseCassandra => cassandra(cluster, whom)?.pause(),
            Kind::KillTwoCassandras => {
                cassandra(cluster, whom)?.kill()?;
                cassandra(cluster, other)?.kill()
            }
            Kind::PauseTwoCassandras => {
                cassandra(cluster, whom)?.pause()?;
                cassandra(cluster, other)?.pause()
            }
            Kind::KillNats => nats(cluster)?.kill(),
            Kind::PauseNats => nats(cluster)?.pause(),
            Kind::KillS3 => s3(cluster)?.kill(),
            Kind::PauseS3 => s3(cluster)?.pause(),
        }
    }

    /// Puts it right.
    pub fn end(&self, cluster: &mut Cluster) -> Result<()> {
        let (whom, other) = (self.whom, self.other());
        match self.kind {
            Kind::KillNode => cluster.restart_node(whom),
            Kind::PauseNode => cluster.node(whom)?.resume(),
            Kind::RollingRestart => Ok(()),
            Kind::KillCassandra => cassandra(cluster, whom)?.start(),
            Kind::PauseCassandra => cassandra(cluster, whom)?.resume(),
            Kind::KillTwoCassandras => {
                cassandra(cluster, whom)?.start()?;
                cassandra(cluster, other)?.start()
            }
            Kind::PauseTwoCassandras => {
                cassandra(cluster, whom)?.resume()?;
                cassandra(cluster, other)?.resume()
            }
            Kind::KillNats => nats(cluster)?.start(),
            Kind::PauseNats => nats(cluster)?.resume(),
            Kind::KillS3 => s3(cluster)?.start(),
            Kind::PauseS3 => s3(cluster)?.resume(),
        }
    }
}

fn cassandra(cluster: &mut Cluster, number: usize) -> Result<&mut engines::Engine> {
    let nodes = &mut cluster.engines.cassandra;
    let count = nodes.len();
    match nodes.get_mut(number) {
        Some(node) => Ok(node),
        None => bail!("there is no Cassandra {number} of {count}"),
    }
}

fn nats(cluster: &mut Cluster) -> Result<&mut engines::Engine> {
    cluster.engines.nats.as_mut().context("no NATS")
}

fn s3(cluster: &mut Cluster) -> Result<&mut engines::Engine> {
    Ok(&mut cluster.engines.s3.as_mut().context("no S3")?.engine)
}
