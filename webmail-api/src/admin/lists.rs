//! `/admin/v1/lists`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use directory::entry::{Entry, ListEntry};
use serde::{Deserialize, Serialize};

use super::accounts::in_domain;
use super::api::Api;
use super::body::{AddressInPath, Body, acted, address, addresses, done};
use super::problem::Problem;

/// A mailing list. Listings of a domain leave the members out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ListBody {
    pub(crate) address: String,
    pub(crate) owner: String,
    pub(crate) members_count: usize,
    pub(crate) members: Option<Vec<String>>,
    pub(crate) created: u64,
}

/// A list to be made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewList {
    pub(crate) address: String,
    pub(crate) owner: String,
    #[serde(default)]
    pub(crate) members: Vec<String>,
}

/// What is to change of a list; what is left out stays.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ListPatch {
    pub(crate) owner: Option<String>,
    pub(crate) add: Vec<String>,
    pub(crate) remove: Vec<String>,
}

impl ListBody {
    pub(crate) fn new(list: &ListEntry, domain: &str) -> Self {
        Self { members: Some(list.members.clone()), ..Self::without_members(list, domain) }
    }

    pub(crate) fn without_members(list: &ListEntry, domain: &str) -> Self {
        Self {
            address: in_domain(&list.name, domain),
            owner: list.owner.clone(),
            members_count: list.members.len(),
            members: None,
            created: list.created,
        }
    }
}

pub(crate) async fn create(State(api): State<Api>, Body(new): Body<NewList>) -> Result<Response, Problem> {
    let (address, owner) = (address(&new.address)?, address(&new.owner)?);
    let members = addresses(&new.members)?;
    api.directory().create_list(&address, &owner).await?;
    if !members.is_empty() {
        api.directory().change_members(&address, &members, &[]).await?;
    }
    Ok(acted(StatusCode::CREATED, &address, list_body(&api, &address).await?))
}

pub(crate) async fn show(
    State(api): State<Api>,
    AddressInPath(address): AddressInPath,
) -> Result<Json<ListBody>, Problem> {
    Ok(Json(list_body(&api, &address).await?))
}

pub(crate) async fn change(
    State(api): State<Api>,
    AddressInPath(list): AddressInPath,
    Body(patch): Body<ListPatch>,
) -> Result<Response, Problem> {
    let (add, remove) = (addresses(&patch.add)?, addresses(&patch.remove)?);
    if let Some(owner) = &patch.owner {
        api.directory().change_list_owner(&list, &address(owner)?).await?;
    }
    api.directory().change_members(&list, &add, &remove).await?;
    Ok(acted(StatusCode::OK, &list, list_body(&api, &list).await?))
}

pub(crate) async fn delete(
    State(api): State<Api>,
    AddressInPath(address): AddressInPath,
) -> Result<Response, Problem> {
    api.directory().delete_list(&address).await?;
    Ok(done(address))
}

async fn list_body(api: &Api, address: &mail::address::Address) -> Result<ListBody, Problem> {
    match api.directory().entry(address).await?.as_deref() {
        Some(Entry::List(list)) => Ok(ListBody::new(list, &address.domain().ascii())),
        _ => Err(Problem::new(StatusCode::NOT_FOUND, format!("no such list: {address}"))),
    }
}
