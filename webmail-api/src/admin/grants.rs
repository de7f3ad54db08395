//! `/admin/v1/accounts/{address}/grants`: programs and browsers that act for an account.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use directory::entry::Entry;
use directory::{Grant, GrantError, GrantId, NewGrant, Service, ServiceSet};
use mail::address::Address;
use mail::id::AccountId;
use serde::{Deserialize, Serialize};

use super::api::Api;
use super::body::{AddressInPath, Body, acted, address, done};
use super::problem::Problem;

/// What a program may do.
#[derive(Debug, Serialize)]
pub(crate) struct GrantBody {
    id: String,
    client: String,
    name: String,
    services: Vec<Service>,
    created: u64,
    used: u64,
    expires: u64,
}

impl From<&Grant> for GrantBody {
    fn from(grant: &Grant) -> Self {
        Self {
            id: grant.id.to_string(),
            client: grant.client.clone(),
            name: grant.name.clone(),
            services: grant.services.iter().collect(),
            created: grant.created,
            used: grant.used,
            expires: grant.expires,
        }
    }
}

/// A grant to be made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewGrantBody {
    client: String,
    name: String,
    #[serde(default)]
    services: Vec<Service>,
}

/// What a program logs in with, and how it comes by more: shown once.
#[derive(Debug, Serialize)]
pub(crate) struct GrantTokens {
    id: String,
    access_token: String,
    expires_in: u64,
    refresh_token: String,
}

impl From<GrantError> for Problem {
    fn from(error: GrantError) -> Self {
        let status = match &error {
            GrantError::Invalid | GrantError::BadName(_) => StatusCode::BAD_REQUEST,
            GrantError::Exists | GrantError::TooMany(_) => StatusCode::CONFLICT,
            GrantError::Temporary(error) => {
                tracing::warn!(%error, "grants cannot be used");
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Self::new(status, error.to_string())
    }
}

async fn account(api: &Api, address: &Address) -> Result<AccountId, Problem> {
    match api.directory().entry(address).await?.as_deref() {
        Some(Entry::Account(account)) => Ok(account.id),
        _ => Err(Problem::new(StatusCode::NOT_FOUND, format!("no such account: {address}"))),
    }
}

pub(crate) async fn list(
    State(api): State<Api>,
    AddressInPath(address): AddressInPath,
) -> Result<Json<Vec<GrantBody>>, Problem> {
    let account = account(&api, &address).await?;
    let grants = api.directory().grants(account).await.map_err(GrantError::from)?;
    Ok(Json(grants.iter().map(GrantBody::from).collect()))
}

pub(crate) async fn create(
    State(api): State<Api>,
    AddressInPath(address): AddressInPath,
    Body(new): Body<NewGrantBody>,
) -> Result<Response, Problem> {
    let account = account(&api, &address).await?;
    let services =
        if new.services.is_empty() { ServiceSet::ALL } else { new.services.iter().copied().collect() };
    let directory = api.directory();
    let wanted = NewGrant { client: &new.client, name: &new.name, services };
    let (grant, refresh) = directory.grant_by_operator(account, &address, &wanted).await?;
    let access = directory.access_token(account, &grant);
    let tokens = GrantTokens {
        id: grant.id.to_string(),
        access_token: access.reveal().to_owned(),
        expires_in: access.seconds,
        refresh_token: refresh.reveal().to_owned(),
    };
    Ok(acted(StatusCode::CREATED, grant.id, tokens))
}

pub(crate) async fn remove(
    State(api): State<Api>,
    Path((of, id)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let account = account(&api, &address(&of)?).await?;
    let missing = || Problem::new(StatusCode::NOT_FOUND, format!("no such grant: {id}"));
    let grant: GrantId = id.parse().map_err(|_| missing())?;
    if api.directory().revoke(account, grant).await.map_err(GrantError::from)? {
        Ok(done(grant))
    } else {
        Err(missing())
    }
}
