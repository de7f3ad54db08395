//! `/admin/v1/migrate`: everything moves to other back ends while the server runs.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::api::Api;
use super::body::Body;
use super::problem::Problem;

/// How far a move is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MigrationView {
    /// The configuration file of the other side.
    pub to: String,
    /// `opening`, `rows`, `segments`, `logs`, `rest` or `done`.
    pub stage: &'static str,
    /// Accounts and other logs that are there.
    pub logs_done: u64,
    /// Those that were found.
    pub logs_total: u64,
    /// Segments that are there.
    pub segments_done: u64,
    /// Those that were found.
    pub segments_total: u64,
    /// Rows that were compared.
    pub rows: u64,
    /// Bytes that this process copied.
    pub bytes: u64,
    /// Seconds since this process began.
    pub seconds: f64,
    /// What went wrong last, or keeps it from going on.
    pub trouble: Option<String>,
    /// Whether it goes on by itself.
    pub running: bool,
}

/// Where to move.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMigration {
    /// The configuration file of the other side, as the server finds it.
    to: String,
}

pub(crate) async fn begin(
    State(api): State<Api>,
    Body(NewMigration { to }): Body<NewMigration>,
) -> Result<Response, Problem> {
    api.monitor().migrate(to).map_err(|why| Problem::new(StatusCode::CONFLICT, why))?;
    Ok(StatusCode::ACCEPTED.into_response())
}

pub(crate) async fn show(State(api): State<Api>) -> Result<Json<MigrationView>, Problem> {
    let view = api.monitor().migration();
    view.map(Json).ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "nothing moves"))
}
