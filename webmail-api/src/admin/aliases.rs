//! `/admin/v1/aliases`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use directory::entry::{AliasEntry, Entry};
use serde::{Deserialize, Serialize};

use super::accounts::in_domain;
use super::api::Api;
use super::body::{AddressInPath, Body, acted, address, addresses, done};
use super::problem::Problem;

/// An alias.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AliasBody {
    pub(crate) address: String,
    pub(crate) targets: Vec<String>,
    pub(crate) send_as: bool,
    pub(crate) created: u64,
}

/// An alias to be made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAlias {
    pub(crate) address: String,
    pub(crate) targets: Vec<String>,
    #[serde(default)]
    pub(crate) send_as: bool,
}

/// What is to change of an alias; what is left out stays.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AliasPatch {
    pub(crate) targets: Option<Vec<String>>,
    pub(crate) send_as: Option<bool>,
}

impl AliasBody {
    pub(crate) fn new(alias: &AliasEntry, domain: &str) -> Self {
        Self {
            address: in_domain(&alias.name, domain),
            targets: alias.targets.clone(),
            send_as: alias.send_as,
            created: alias.created,
        }
    }
}

pub(crate) async fn create(State(api): State<Api>, Body(new): Body<NewAlias>) -> Result<Response, Problem> {
    let address = address(&new.address)?;
    api.directory().create_alias(&address, addresses(&new.targets)?, new.send_as).await?;
    Ok(acted(StatusCode::CREATED, &address, alias_body(&api, &address).await?))
}

pub(crate) async fn show(
    State(api): State<Api>,
    AddressInPath(address): AddressInPath,
) -> Result<Json<AliasBody>, Problem> {
    Ok(Json(alias_body(&api, &address).await?))
}

pub(crate) async fn change(
    State(api): State<Api>,
    AddressInPath(address): AddressInPath,
    Body(patch): Body<AliasPatch>,
) -> Result<Response, Problem> {
    let targets = patch.targets.as_deref().map(addresses).transpose()?;
    let alias = api.directory().change_alias(&address, targets, patch.send_as).await?;
    Ok(acted(StatusCode::OK, &address, AliasBody::new(&alias, &address.domain().ascii())))
}

pub(crate) async fn delete(
    State(api): State<Api>,
    AddressInPath(address): AddressInPath,
) -> Result<Response, Problem> {
    api.directory().delete_alias(&address).await?;
    Ok(done(address))
}

async fn alias_body(api: &Api, address: &mail::address::Address) -> Result<AliasBody, Problem> {
    match api.directory().entry(address).await?.as_deref() {
        Some(Entry::Alias(alias)) => Ok(AliasBody::new(alias, &address.domain().ascii())),
        _ => Err(Problem::new(StatusCode::NOT_FOUND, format!("no such alias: {address}"))),
    }
}
