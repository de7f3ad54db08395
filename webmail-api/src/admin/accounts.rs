//! `/admin/v1/accounts`: accounts, their passwords and application passwords.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use directory::account::{AccountEntry, AccountStatus, Quota};
use directory::admin::{AccountChange, NewAccount, NewPassword};
use directory::entry::Entry;
use directory::{Service, ServiceSet};
use mail::address::Address;
use serde::{Deserialize, Serialize};

use super::api::Api;
use super::body::{AddressInPath, Body, QuotaPatch, acted, address, done};
use super::problem::Problem;
use super::tokens::Secret;

/// An account, without anything secret.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AccountBody {
    pub(crate) address: String,
    pub(crate) id: String,
    pub(crate) display_name: String,
    pub(crate) status: Status,
    pub(crate) quota: Quota,
    pub(crate) password: PasswordBody,
    pub(crate) app_passwords: Vec<AppPasswordBody>,
    pub(crate) created: u64,
}

/// What an account may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Status {
    Active,
    LoginDisabled,
    Disabled,
    Closing,
    Moving,
}

/// What is known of a password.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PasswordBody {
    pub(crate) set: bool,
    pub(crate) scram: bool,
    pub(crate) changed: Option<u64>,
}

/// An application password.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AppPasswordBody {
    pub(crate) name: String,
    pub(crate) services: Vec<Service>,
    pub(crate) created: u64,
}

/// An account to be made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAccountBody {
    pub(crate) address: String,
    #[serde(default)]
    pub(crate) display_name: String,
    #[serde(default)]
    pub(crate) password: Option<String>,
    #[serde(default)]
    pub(crate) password_hash: Option<String>,
    #[serde(default)]
    pub(crate) quota: Option<Quota>,
}

/// What is to change of an account; what is left out stays.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AccountPatch {
    pub(crate) display_name: Option<String>,
    pub(crate) status: Option<Status>,
    pub(crate) quota: QuotaPatch,
}

/// A password to be set: in clear, as a hash, or (with neither) none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPasswordBody {
    #[serde(default)]
    pub(crate) password: Option<String>,
    #[serde(default)]
    pub(crate) password_hash: Option<String>,
}

/// An application password to be made. Without services: good for all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAppPassword {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) services: Vec<Service>,
}

impl AccountBody {
    pub(crate) fn new(account: &AccountEntry, domain: &str) -> Self {
        let password = PasswordBody {
            set: account.password.is_some(),
            scram: account.password.as_ref().is_some_and(|password| password.scram.is_some()),
            changed: account.password.as_ref().map(|password| password.changed),
        };
        let app_passwords = account.app_passwords.iter().map(|app| AppPasswordBody {
            name: app.name.clone(),
            services: app.services.iter().collect(),
            created: app.created,
        });
        Self {
            address: in_domain(&account.name, domain),
            id: account.id.to_string(),
            display_name: account.display_name.clone(),
            status: account.status.into(),
            quota: account.quota,
            password,
            app_passwords: app_passwords.collect(),
            created: account.created,
        }
    }
}

impl From<AccountStatus> for Status {
    fn from(status: AccountStatus) -> Self {
        match status {
            AccountStatus::Active => Self::Active,
            AccountStatus::LoginDisabled => Self::LoginDisabled,
            AccountStatus::Disabled => Self::Disabled,
            AccountStatus::Closing => Self::Closing,
            AccountStatus::Moving { .. } => Self::Moving,
        }
    }
}

impl From<Status> for AccountStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Active => Self::Active,
            Status::LoginDisabled => Self::LoginDisabled,
            Status::Disabled => Self::Disabled,
            Status::Closing => Self::Closing,
            // Nobody sets it; it is refused like the one above.
            Status::Moving => Self::Moving { logs_in: false, receives: false },
        }
    }
}

/// The address of a stored local part, quoted where it has to be.
pub(crate) fn in_domain(name: &str, domain: &str) -> String {
    mail::address::Domain::parse(domain)
        .and_then(|domain| Address::new(name, domain))
        .map_or_else(|_| format!("{name}@{domain}"), |address| address.to_string())
}

fn password_of(clear: Option<String>, hash: Option<String>) -> Result<NewPassword, Problem> {
    match (clear, hash) {
        (None, None) => Ok(NewPassword::None),
        (Some(clear), None) => Ok(NewPassword::Clear(clear)),
        (None, Some(hash)) => Ok(NewPassword::Hash(hash)),
        (Some(_), Some(_)) => Err(Problem::unprocessable("password and password_hash exclude one another")),
    }
}

pub(crate) async fn create(
    State(api): State<Api>,
    Body(new): Body<NewAccountBody>,
) -> Result<Response, Problem> {
    let address = address(&new.address)?;
    let password = password_of(new.password, new.password_hash)?;
    let new = NewAccount { display_name: new.display_name, password, quota: new.quota };
    api.directory().create_account(&address, new).await?;
    Ok(acted(StatusCode::CREATED, &address, account_body(&api, &address).await?))
}

pub(crate) async fn show(
    State(api): State<Api>,
    AddressInPath(address): AddressInPath,
) -> Result<Json<AccountBody>, Problem> {
    Ok(Json(account_body(&api, &address).await?))
}

pub(crate) async fn change(
    State(api): State<Api>,
    AddressInPath(address): AddressInPath,
    Body(patch): Body<AccountPatch>,
) -> Result<Response, Problem> {
    let AccountPatch { display_name, status, quota } = patch;
    let change =
        AccountChange { display_name, status: status.map(AccountStatus::from), quota: quota.change() };
    let account = api.directory().change_account(&address, change).await?;
    Ok(acted(StatusCode::OK, &address, AccountBody::new(&account, &address.domain().ascii())))
}

pub(crate) async fn delete(
    State(api): State<Api>,
    AddressInPath(address): AddressInPath,
) -> Result<Response, Problem> {
    api.directory().delete_account(&address).await?;
    Ok(done(address))
}

pub(crate) async fn set_password(
    State(api): State<Api>,
    AddressInPath(address): AddressInPath,
    Body(new): Body<NewPasswordBody>,
) -> Result<Response, Problem> {
    api.directory().set_password(&address, password_of(new.password, new.password_hash)?).await?;
    Ok(done(address))
}

pub(crate) async fn create_app_password(
    State(api): State<Api>,
    AddressInPath(address): AddressInPath,
    Body(new): Body<NewAppPassword>,
) -> Result<Response, Problem> {
    let services =
        if new.services.is_empty() { ServiceSet::ALL } else { new.services.iter().copied().collect() };
    let secret = api.directory().create_app_password(&address, &new.name, services).await?;
    Ok(acted(StatusCode::CREATED, new.name, Secret { secret: secret.reveal().to_owned() }))
}

pub(crate) async fn delete_app_password(
    State(api): State<Api>,
    Path((text, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    api.directory().delete_app_password(&address(&text)?, &name).await?;
    Ok(done(name))
}

async fn account_body(api: &Api, address: &Address) -> Result<AccountBody, Problem> {
    match api.directory().entry(address).await?.as_deref() {
        Some(Entry::Account(account)) => Ok(AccountBody::new(account, &address.domain().ascii())),
        _ => Err(Problem::new(StatusCode::NOT_FOUND, format!("no such account: {address}"))),
    }
}
