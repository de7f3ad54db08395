//! Health and metrics: what a monitor asks for.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::api::Api;
use super::migration::MigrationView;
use super::nodes::ClusterView;
use super::problem::Problem;

/// What the process knows of itself.
pub trait Monitor: Send + Sync + 'static {
    /// Whether the process works at all; an error says what is wrong. A process that is not healthy should be started
    /// anew.
    fn health(&self) -> Result<(), String>;
    /// Whether it takes work now; an error says why not. A process that is not ready should get no connections.
    fn ready(&self) -> Result<(), String>;
    /// All metrics in the text format of Prometheus.
    fn metrics(&self) -> String;
    /// The nodes of the cluster. `None`: the process is not part of one.
    fn cluster(&self) -> Option<ClusterView> {
        None
    }
    /// Begins to move everything to the back ends of the configuration file at this path, or goes on with it. An error
    /// says why not.
    fn migrate(&self, _to: String) -> Result<(), String> {
        Err("only a running server moves".to_owned())
    }
    /// How far that is. `None`: nothing moves.
    fn migration(&self) -> Option<MigrationView> {
        None
    }
    /// Tells the process to end in order.
    fn drain(&self) {}
}

pub(crate) async fn health(State(api): State<Api>) -> Response {
    answer(api.monitor().health())
}

pub(crate) async fn ready(State(api): State<Api>) -> Response {
    answer(api.monitor().ready())
}

fn answer(state: Result<(), String>) -> Response {
    match state {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(why) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
    }
}

pub(crate) async fn metrics(State(api): State<Api>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.monitor().metrics())
        .into_response()
}
