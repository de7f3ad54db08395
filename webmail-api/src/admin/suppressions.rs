//! `/admin/v1/accounts/{address}/suppressions`: addresses that an account's mail is not sent to any more.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use directory::entry::Entry;
use mail::address::Address;
use serde::Serialize;
use storage::{Account, OpenError, Principal, StorageError};

use super::api::Api;
use super::body::{AddressInPath, address, done};
use super::problem::Problem;

/// An address that mail is not sent to.
#[derive(Debug, Serialize)]
pub(crate) struct SuppressionBody {
    address: String,
    since: u64,
    /// The status that was reported.
    status: String,
    /// What was said.
    reason: String,
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        tracing::warn!(%error, "an account cannot be used");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

async fn open(api: &Api, address: &Address) -> Result<Account, Problem> {
    let missing = || Problem::new(StatusCode::NOT_FOUND, format!("no such account: {address}"));
    let entry = api.directory().entry(address).await?;
    let Some(Entry::Account(account)) = entry.as_deref() else { return Err(missing()) };
    match api.storage().account(&Principal::Operator, account.id).await {
        Ok(opened) => Ok(opened),
        Err(OpenError::Missing) => Err(missing()),
        Err(OpenError::Storage(error)) => Err(error.into()),
    }
}

pub(crate) async fn list(
    State(api): State<Api>,
    AddressInPath(address): AddressInPath,
) -> Result<Json<Vec<SuppressionBody>>, Problem> {
    let state = open(&api, &address).await?.refresh().await?;
    let body = |(address, why): (&str, &storage::Suppressed)| SuppressionBody {
        address: address.to_owned(),
        since: why.since,
        status: why.status.clone(),
        reason: why.reason.clone(),
    };
    Ok(Json(state.suppressions().map(body).collect()))
}

pub(crate) async fn remove(
    State(api): State<Api>,
    Path((of, suppressed)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let suppressed = address(&suppressed)?;
    if open(&api, &address(&of)?).await?.unsuppress(&suppressed).await? {
        Ok(done(suppressed))
    } else {
        Err(Problem::new(StatusCode::NOT_FOUND, format!("{suppressed} is not suppressed")))
    }
}
