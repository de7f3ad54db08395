//! Faults, each with how it begins and how it ends. Which one, of whom and for how long comes from a seed.
//!
//! Between two nodes of Cassandra there is no proxy, and where `tc` and `iptables` may not be used nothing cuts them off
//! from each other alone: a paused node stands for that.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::Rng;
use rand::rngs::StdRng;

use crate::between::cql::Traffic;
use crate::between::s3::Manner;
use crate::{Between, Cluster, clock};

/// A node with this writes fewer heartbeats than the others wait for, and is content with that.
const SLUGGISH: &str = "heartbeat_ms = 20000\ndead_after_ms = 60000\n";

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// kill -9 of a node.
    KillNode,
    /// A node stands still, and goes on as if nothing had been.
    PauseNode,
    /// All nodes are stopped in order and started again, one after the other.
    RollingRestart,
    /// All nodes are replaced by such of an earlier release, one after the other, and these by the present one again. As
    /// long as the feature level was not raised there is that way back.
    RollingUpgrade,
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
    /// S3 answers 503.
    RefuseS3,
    /// S3 is slow.
    SlowS3,
    /// S3 breaks off in the midst of bodies.
    BreakS3,
    /// S3 gives back other bytes than were stored.
    LieS3,
    /// A node is cut off from one node of Cassandra.
    CutOne,
    /// A node is cut off from all nodes of Cassandra.
    CutAll,
    /// Nothing comes through between a node and all nodes of Cassandra, until all of it comes late.
    StallAll,
    /// A node hears no answers of Cassandra for a while; what it asked for happens.
    KeepAnswers,
    /// Of ten answers of Cassandra to a node one is lost; what was asked for has happened.
    LoseAnswers,
    /// Of ten requests of a node to Cassandra one is lost.
    LoseRequests,
    /// The clock of a node is ten minutes ahead, and put right.
    ClockAhead,
    /// The clock of a node is ten minutes behind, and put right.
    ClockBehind,
    /// The others hold a node for dead most of the time, which takes itself for the owner of what it owned.
    TwoOwners,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::KillNode,
        Self::PauseNode,
        Self::RollingRestart,
        Self::RollingUpgrade,
        Self::KillCassandra,
        Self::PauseCassandra,
        Self::KillTwoCassandras,
        Self::PauseTwoCassandras,
        Self::KillNats,
        Self::PauseNats,
        Self::KillS3,
        Self::PauseS3,
        Self::RefuseS3,
        Self::SlowS3,
        Self::BreakS3,
        Self::LieS3,
        Self::CutOne,
        Self::CutAll,
        Self::StallAll,
        Self::KeepAnswers,
        Self::LoseAnswers,
        Self::LoseRequests,
        Self::ClockAhead,
        Self::ClockBehind,
        Self::TwoOwners,
    ];

    /// In a word, as result lines have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillNode => "kill-node",
            Self::PauseNode => "pause-node",
            Self::RollingRestart => "rolling-restart",
            Self::RollingUpgrade => "rolling-upgrade",
            Self::KillCassandra => "kill-cassandra",
            Self::PauseCassandra => "pause-cassandra",
            Self::KillTwoCassandras => "kill-two-cassandras",
            Self::PauseTwoCassandras => "pause-two-cassandras",
            Self::KillNats => "kill-nats",
            Self::PauseNats => "pause-nats",
            Self::KillS3 => "kill-s3",
            Self::PauseS3 => "pause-s3",
            Self::RefuseS3 => "s3-refuses",
            Self::SlowS3 => "s3-slow",
            Self::BreakS3 => "s3-breaks-off",
            Self::LieS3 => "s3-lies",
            Self::CutOne => "cut-one-cassandra",
            Self::CutAll => "cut-all-cassandras",
            Self::StallAll => "stall-all-cassandras",
            Self::KeepAnswers => "keep-answers",
            Self::LoseAnswers => "lose-answers",
            Self::LoseRequests => "lose-requests",
            Self::ClockAhead => "clock-ahead",
            Self::ClockBehind => "clock-behind",
            Self::TwoOwners => "two-owners",
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

    /// Those that can be drawn here: an earlier release is not always at hand.
    pub fn at_hand() -> Vec<Self> {
        let earlier = crate::earlier_binary().is_ok();
        Self::ALL.into_iter().filter(|kind| earlier || *kind != Self::RollingUpgrade).collect()
    }

    /// Whether what is written meanwhile may bear a wrong time.
    pub fn moves_clock(self) -> bool {
        matches!(self, Self::ClockAhead | Self::ClockBehind)
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
            // For a while it is not held for dead, and it sees itself late.
            Kind::TwoOwners => Duration::from_secs(self.seconds.max(60)),
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
            Kind::RollingRestart => in_turn(cluster, whom, |cluster, node| {
                cluster.stop_node(node)?;
                cluster.restart_node(node)
            }),
            Kind::RollingUpgrade => {
                in_turn(cluster, whom, |cluster, node| replace(cluster, node, Release::Earlier))?;
                // From here to the end both run side by side.
                replace(cluster, whom, Release::Present)
            }
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
            Kind::RefuseS3 => behaves(cluster, Manner::Refuses),
            Kind::SlowS3 => behaves(cluster, Manner::IsSlow),
            Kind::BreakS3 => behaves(cluster, Manner::BreaksOff),
            Kind::LieS3 => behaves(cluster, Manner::Lies),
            Kind::CutOne => {
                between(cluster)?.cql.set(whom, other, Traffic::IsCut);
                Ok(())
            }
            Kind::CutAll => disturbs(cluster, whom, Traffic::IsCut),
            Kind::StallAll => disturbs(cluster, whom, Traffic::Stalls),
            Kind::KeepAnswers => disturbs(cluster, whom, Traffic::KeepsAnswers),
            Kind::LoseAnswers => disturbs(cluster, whom, Traffic::LosesAnswers(10)),
            Kind::LoseRequests => disturbs(cluster, whom, Traffic::LosesRequests(10)),
            Kind::ClockAhead => clock_goes(cluster, whom, "+10m"),
            Kind::ClockBehind => clock_goes(cluster, whom, "-10m"),
            Kind::TwoOwners => {
                cluster.membership.insert(whom, SLUGGISH);
                cluster.stop_node(whom)?;
                cluster.restart_node(whom)
            }
        }
    }

    /// Puts it right.
    pub fn end(&self, cluster: &mut Cluster) -> Result<()> {
        let (whom, other) = (self.whom, self.other());
        match self.kind {
            Kind::KillNode => cluster.restart_node(whom),
            Kind::PauseNode => cluster.node(whom)?.resume(),
            Kind::RollingRestart => Ok(()),
            Kind::RollingUpgrade => in_turn(cluster, whom, |cluster, node| {
                if cluster.earlier.contains(&node) {
                    replace(cluster, node, Release::Present)
                } else {
                    Ok(())
                }
            }),
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
            Kind::RefuseS3 | Kind::SlowS3 | Kind::BreakS3 | Kind::LieS3 => behaves(cluster, Manner::Sound),
            Kind::CutOne
            | Kind::CutAll
            | Kind::StallAll
            | Kind::KeepAnswers
            | Kind::LoseAnswers
            | Kind::LoseRequests => {
                between(cluster)?.cql.heal();
                Ok(())
            }
            Kind::ClockAhead | Kind::ClockBehind => {
                // From its next start on it has the clock of the machine.
                let clock = cluster.clocks.remove(&whom).context("its clock is ours")?;
                clock::set(&clock, clock::RIGHT)
            }
            Kind::TwoOwners => {
                cluster.membership.remove(&whom);
                cluster.stop_node(whom)?;
                cluster.restart_node(whom)
            }
        }
    }
}

/// Does something to each node, beginning with this one.
fn in_turn(
    cluster: &mut Cluster,
    first: usize,
    mut what: impl FnMut(&mut Cluster, usize) -> Result<()>,
) -> Result<()> {
    let count = cluster.nodes.len();
    (0..count).try_for_each(|turn| what(cluster, (first + turn) % count))
}

/// Which binary a node is started with.
#[derive(Clone, Copy, Debug)]
enum Release {
    Earlier,
    Present,
}

/// Ends a node in order and starts another release in its place.
fn replace(cluster: &mut Cluster, node: usize, release: Release) -> Result<()> {
    cluster.stop_node(node)?;
    match release {
        Release::Earlier => cluster.earlier.insert(node),
        Release::Present => cluster.earlier.remove(&node),
    };
    cluster.restart_node(node).with_context(|| format!("{release:?}"))
}

fn between(cluster: &Cluster) -> Result<&Between> {
    cluster.between.as_ref().context("no proxies")
}

fn behaves(cluster: &Cluster, manner: Manner) -> Result<()> {
    between(cluster)?.s3.set(manner);
    Ok(())
}

fn disturbs(cluster: &Cluster, node: usize, traffic: Traffic) -> Result<()> {
    for number in 0..cluster.engines.cassandra.len() {
        between(cluster)?.cql.set(node, number, traffic);
    }
    Ok(())
}

/// The node is started again with a clock that can be moved, and works before it is.
fn clock_goes(cluster: &mut Cluster, node: usize, offset: &str) -> Result<()> {
    cluster.stop_node(node)?;
    let clock = cluster.data(node).with_extension("clock");
    clock::set(&clock, clock::RIGHT)?;
    cluster.clocks.insert(node, clock.clone());
    cluster.restart_node(node)?;
    std::thread::sleep(Duration::from_secs(3));
    clock::set(&clock, offset)
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
