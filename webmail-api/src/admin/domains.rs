//! `/admin/v1/domains`.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use directory::account::Quota;
use directory::admin::DomainView;
use directory::entry::{DomainSettings, Entry};
use serde::{Deserialize, Serialize};

use super::accounts::AccountBody;
use super::aliases::AliasBody;
use super::api::Api;
use super::body::{Body, DomainInPath, Patch, QuotaPatch, acted, address, domain, done};
use super::lists::ListBody;
use super::problem::Problem;

/// A domain.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DomainBody {
    pub(crate) name: String,
    pub(crate) alias_of: Option<String>,
    pub(crate) catch_all: Option<String>,
    pub(crate) subaddress_delimiters: Option<String>,
    pub(crate) disabled: bool,
    pub(crate) quota: Quota,
    pub(crate) description: String,
    pub(crate) names: u64,
    pub(crate) created: u64,
}

/// A domain to be made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewDomain {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) alias_of: Option<String>,
    #[serde(default)]
    pub(crate) catch_all: Option<String>,
    #[serde(default)]
    pub(crate) subaddress_delimiters: Option<String>,
    #[serde(default)]
    pub(crate) disabled: bool,
    #[serde(default)]
    pub(crate) quota: Quota,
    #[serde(default)]
    pub(crate) description: String,
}

/// What is to change of a domain; what is left out stays, what is null goes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DomainPatch {
    pub(crate) catch_all: Patch<String>,
    pub(crate) subaddress_delimiters: Patch<String>,
    pub(crate) disabled: Option<bool>,
    pub(crate) quota: QuotaPatch,
    pub(crate) description: Option<String>,
}

/// Which part of a listing is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Range {
    from: String,
    limit: usize,
}

impl Default for Range {
    fn default() -> Self {
        Self { from: String::new(), limit: 100 }
    }
}

/// Names of a domain.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NamesBody {
    pub(crate) names: Vec<NameBody>,
    pub(crate) next: Option<String>,
}

/// One of `account`, `alias`, `list`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NameBody {
    Account(AccountBody),
    Alias(AliasBody),
    List(ListBody),
}

impl From<DomainView> for DomainBody {
    fn from(view: DomainView) -> Self {
        let DomainView { name, alias_of, settings, names, created } = view;
        let DomainSettings { catch_all, subaddress_delimiters, disabled, quota, description } = settings;
        Self {
            name,
            alias_of,
            catch_all,
            subaddress_delimiters,
            disabled,
            quota,
            description,
            names,
            created,
        }
    }
}

pub(crate) async fn list(State(api): State<Api>) -> Result<Json<Vec<DomainBody>>, Problem> {
    Ok(Json(api.directory().domains().await?.into_iter().map(DomainBody::from).collect()))
}

pub(crate) async fn create(State(api): State<Api>, Body(new): Body<NewDomain>) -> Result<Response, Problem> {
    let name = domain(&new.name)?;
    if let Some(of) = &new.alias_of {
        api.directory().create_domain_alias(&name, &domain(of)?).await?;
    } else {
        let catch_all = new.catch_all.as_deref().map(address).transpose()?;
        let settings = DomainSettings {
            catch_all: catch_all.map(|address| address.to_string()),
            subaddress_delimiters: new.subaddress_delimiters,
            disabled: new.disabled,
            quota: new.quota,
            description: new.description,
        };
        api.directory().create_domain(&name, settings).await?;
    }
    let view = api.directory().domain_view(&name).await?;
    Ok(acted(StatusCode::CREATED, &name, DomainBody::from(view)))
}

pub(crate) async fn show(
    State(api): State<Api>,
    DomainInPath(name): DomainInPath,
) -> Result<Json<DomainBody>, Problem> {
    Ok(Json(api.directory().domain_view(&name).await?.into()))
}

pub(crate) async fn change(
    State(api): State<Api>,
    DomainInPath(name): DomainInPath,
    Body(patch): Body<DomainPatch>,
) -> Result<Response, Problem> {
    let change = move |settings: &mut DomainSettings| {
        patch.catch_all.apply(&mut settings.catch_all);
        patch.subaddress_delimiters.apply(&mut settings.subaddress_delimiters);
        if let Some(description) = &patch.description {
            settings.description.clone_from(description);
        }
        settings.disabled = patch.disabled.unwrap_or(settings.disabled);
        settings.quota = settings.quota.changed(patch.quota.change());
    };
    api.directory().change_domain(&name, change).await?;
    let view = api.directory().domain_view(&name).await?;
    Ok(acted(StatusCode::OK, &name, DomainBody::from(view)))
}

pub(crate) async fn delete(
    State(api): State<Api>,
    DomainInPath(name): DomainInPath,
) -> Result<Response, Problem> {
    api.directory().delete_domain(&name).await?;
    Ok(done(name))
}

pub(crate) async fn names(
    State(api): State<Api>,
    DomainInPath(name): DomainInPath,
    range: Result<Query<Range>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<NamesBody>, Problem> {
    let Query(range) = range.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let limit = range.limit.clamp(1, api.config().page_entries_max.max(1));
    let page = api.directory().names(&name, &range.from, limit).await?;
    let names = page.entries.iter().map(|entry| name_body(entry, &name.ascii())).collect();
    Ok(Json(NamesBody { names, next: page.next }))
}

fn name_body(entry: &Entry, domain: &str) -> NameBody {
    match entry {
        Entry::Account(account) => NameBody::Account(AccountBody::new(account, domain)),
        Entry::Alias(alias) => NameBody::Alias(AliasBody::new(alias, domain)),
        Entry::List(list) => NameBody::List(ListBody::without_members(list, domain)),
    }
}
