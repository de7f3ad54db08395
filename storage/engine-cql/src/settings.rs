//! A look at how the nodes are set up: what would lose mail, and what would make it slow.

use std::sync::Arc;

use scylla::client::session::Session;
use scylla::cluster::Node;

use crate::clock;
use crate::config::Config;
use crate::session::asked_of;

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Good to know.
    Notice,
    /// Slow, or in the way of repairs.
    Warning,
    /// Acknowledged mail can be lost.
    Danger,
}

/// Something about a node that an operator should know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The node's address; empty: all of them.
    pub node: String,
    /// How much it matters.
    pub severity: Severity,
    /// What it is, what it means and what to do.
    pub text: String,
}

impl Finding {
    fn new(node: &Node, severity: Severity, text: impl Into<String>) -> Self {
        Self { node: node.address.to_string(), severity, text: text.into() }
    }

    pub(crate) fn log(&self) {
        let Self { node, severity, text } = self;
        match severity {
            Severity::Notice => tracing::info!(node, "{text}"),
            Severity::Warning | Severity::Danger => tracing::warn!(node, "{text}"),
        }
    }
}

/// Asks every node that can be reached.
pub(crate) async fn look(session: &Session, config: &Config) -> Vec<Finding> {
    let state = session.get_cluster_state();
    let nodes = state.get_nodes_info();
    let mut findings = Vec::new();
    let of_ours = |node: &&Arc<Node>| {
        config.datacentre.is_empty() || node.datacenter.as_deref() == Some(config.datacentre.as_str())
    };
    let count = nodes.iter().filter(of_ours).count();
    if config.replication < 3 || count < config.replication {
        findings.push(Finding {
            node: String::new(),
            severity: if count < config.replication { Severity::Danger } else { Severity::Warning },
            text: format!(
                "{count} nodes, {} replicas of each row: with fewer than three of both, one lost node stops accounts, \
                 and its disk may hold the only copy",
                config.replication
            ),
        });
    }
    for node in nodes {
        look_at(session, config, node, &mut findings).await;
    }
    findings
}

async fn look_at(session: &Session, config: &Config, node: &Arc<Node>, findings: &mut Vec<Finding>) {
    match clock::ahead_ms(session, node).await {
        Some(ahead_ms) => {
            let difference = ahead_ms.unsigned_abs();
            if difference > config.clock_difference_ms_max {
                let text =
                    format!("its clock and ours are {difference} ms apart: let both follow one time server");
                findings.push(Finding::new(node, Severity::Warning, text));
            }
        }
        None => findings.push(Finding::new(node, Severity::Warning, "it cannot be asked: is it down?")),
    }
    // ScyllaDB has another table and none of these settings: it syncs its commit log by shards, and has one Paxos.
    let settings = "SELECT name, value FROM system_views.settings WHERE name IN \
                    ('commitlog_sync', 'paxos_variant')";
    let Ok(answer) = session.query_unpaged(asked_of(node, settings), ()).await else { return };
    let Ok(rows) = answer.into_rows_result() else { return };
    let Ok(rows) = rows.rows::<(String, Option<String>)>() else { return };
    for (name, value) in rows.flatten() {
        if let Some((severity, text)) = judge(&name, value.as_deref().unwrap_or_default()) {
            findings.push(Finding::new(node, severity, text));
        }
    }
}

/// What a setting of Cassandra means for mail.
fn judge(name: &str, value: &str) -> Option<(Severity, String)> {
    match (name, value) {
        ("commitlog_sync", "group" | "batch") => None,
        ("commitlog_sync", other) => Some((
            Severity::Danger,
            format!(
                "commitlog_sync is {other}: a node answers before it has synced, so a power cut that reaches a majority \
                 loses acknowledged mail; set commitlog_sync: group"
            ),
        )),
        ("paxos_variant", "v2") => None,
        ("paxos_variant", other) => Some((
            Severity::Danger,
            format!(
                "paxos_variant is {other}: a commit that was refused may be applied later all the same; set \
                 paxos_variant: v2"
            ),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_cassandra_are_findings_and_ours_are_not() {
        for (name, value, severity) in [
            ("commitlog_sync", "periodic", Some(Severity::Danger)),
            ("commitlog_sync", "group", None),
            ("commitlog_sync", "batch", None),
            ("paxos_variant", "v1", Some(Severity::Danger)),
            ("paxos_variant", "v2", None),
            ("num_tokens", "16", None),
        ] {
            assert_eq!(judge(name, value).map(|(severity, _)| severity), severity, "{name} {value}");
        }
    }
}
