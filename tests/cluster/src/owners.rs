//! Shards that two nodes take for theirs at one time: how often that is so, and what it costs.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Cluster;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// How a time with one owner for each shard, and one with two for many, went.
#[derive(Clone, Copy, Debug)]
pub struct Owners {
    /// While each shard had one owner.
    one: Cost,
    /// While some had two.
    two: Cost,
    /// Looks, and those at which shards had two owners.
    looks: u32,
    doubly: u32,
    /// Shards that had two owners, at most.
    shared_max: usize,
}

impl Owners {
    /// What the two times were, and what was seen in the second.
    pub fn of(one: Cost, two: Cost, watched: Watched) -> Result<Self> {
        let Watched { looks, doubly, shared_max } = watched;
        ensure!(doubly > 0, "no shard was seen with two owners, so nothing was tested");
        Ok(Self { one, two, looks, doubly, shared_max })
    }
}

impl fmt::Display for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { one, two, looks, doubly, shared_max } = self;
        write!(
            f,
            "owned_twice={doubly}/{looks} shards_shared_max={shared_max} steps_per_s={:.1}→{:.1} \
             lwt_per_step={:.2}→{:.2} conflicts_per_step={:.3}→{:.3}",
            one.each_second(one.steps),
            two.each_second(two.steps),
            one.each_step(one.conditional),
            two.each_step(two.conditional),
            one.each_step(one.conflicts),
            two.each_step(two.conflicts),
        )
    }
}

/// What happened between two moments in which all nodes were up.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    seconds: f64,
    steps: f64,
    conditional: f64,
    conflicts: f64,
}

impl Cost {
    fn each_second(&self, count: f64) -> f64 {
        count / self.seconds.max(f64::MIN_POSITIVE)
    }

    fn each_step(&self, count: f64) -> f64 {
        count / self.steps.max(1.0)
    }
}

/// The first of two moments.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    at: Instant,
    steps: usize,
    conditional: f64,
    conflicts: f64,
}

impl Moment {
    /// Now; `steps` have been acknowledged by now.
    pub fn now(cluster: &Cluster, steps: usize) -> Result<Self> {
        let (mut conditional, mut conflicts) = (0.0, 0.0);
        for number in 0..cluster.nodes.len() {
            let metrics = cluster.node(number)?.metrics()?;
            conditional +=
                testkit::metrics::sum(&metrics, "postrider_cql_calls_total", "kind=\"conditional\"");
            conflicts += testkit::metrics::sum(&metrics, "postrider_log_conflicts_total", "");
        }
        Ok(Self { at: Instant::now(), steps, conditional, conflicts })
    }

    /// From this moment to a later one, between which no node was started.
    pub fn until(&self, later: &Self) -> Cost {
        Cost {
            seconds: (later.at - self.at).as_secs_f64(),
            steps: (later.steps - self.steps) as f64,
            conditional: later.conditional - self.conditional,
            conflicts: later.conflicts - self.conflicts,
        }
    }
}

/// Shards that a node works on although another one holds it for dead and works on them too.
fn shared(cluster: &Cluster, node: usize) -> Result<usize> {
    let other = (node + 1) % cluster.nodes.len();
    let view = |number: usize| -> Result<Vec<Value>> {
        let view: Value = serde_json::from_str(&cluster.node(number)?.get("/admin/v1/cluster")?)?;
        Ok(view["nodes"].as_array().context("nodes")?.clone())
    };
    let name = format!("node{node}");
    let boot = |seen: &Value| seen["boot"].as_str().unwrap_or_default().to_owned();
    // Of its own shards each knows alone.
    let Some(own) = view(node)?.into_iter().find(|seen| seen["shards"].is_u64()) else {
        // It has not seen itself yet.
        return Ok(0);
    };
    let as_seen = view(other)?.into_iter().find(|seen| boot(seen) == boot(&own));
    let dead = as_seen.is_some_and(|seen| seen["name"] == name.as_str() && seen["standing"] == "silent");
    Ok(if dead { own["shards"].as_u64().unwrap_or_default() as usize } else { 0 })
}

/// What looks have seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watched {
    looks: u32,
    doubly: u32,
    shared_max: usize,
}

/// Looks for so long at this node, which is held for dead.
pub fn watch(cluster: &Cluster, node: usize, lasts: Duration) -> Result<Watched> {
    let (began, mut watched) = (Instant::now(), Watched::default());
    while began.elapsed() < lasts {
        std::thread::sleep(PAUSE.min(lasts.saturating_sub(began.elapsed())));
        let shared = shared(cluster, node)?;
        watched.looks += 1;
        watched.doubly += u32::from(shared > 0);
        watched.shared_max = watched.shared_max.max(shared);
    }
    Ok(watched)
}
