//! `/admin/v1/cluster`: the nodes, as the one that is asked sees them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::api::Api;
use super::problem::Problem;

/// The nodes of a cluster, as one of them sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterView {
    /// The name of the node that was asked.
    pub node: String,
    /// Whether hints and requests have a way now.
    pub connected: bool,
    /// Whether it could not look the last time, so that what it says of the others is old.
    pub stale: bool,
    /// Whether the others may hold it for dead.
    pub isolated: bool,
    /// The level up to which all nodes can read.
    pub feature_level: u32,
    /// The level up to which nodes write, and which a node must be able to read to take part.
    pub agreed_level: u32,
    /// All nodes, by name.
    pub nodes: Vec<NodeView>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// `live`, `leaving`, `silent` (held for dead) or `superseded` (by a later start of the same name).
    pub standing: &'static str,
    /// What it does.
    pub roles: Vec<String>,
    /// The name of its host.
    pub address: String,
    /// The release that it runs.
    pub release: String,
    /// The level up to which it can read and write.
    pub feature_level: u32,
    /// Which start of the process this is.
    pub boot: String,
    /// Shards of the queue that it works on; known of the node that is asked.
    pub shards: Option<usize>,
}

pub(crate) async fn show(State(api): State<Api>) -> Result<Json<ClusterView>, Problem> {
    let view = api.monitor().cluster();
    view.map(Json).ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "this server is not part of a cluster"))
}

/// The node stops to accept, finishes what it has in hand, gives up what it owns and ends.
pub(crate) async fn drain(State(api): State<Api>) -> Response {
    api.monitor().drain();
    StatusCode::ACCEPTED.into_response()
}
