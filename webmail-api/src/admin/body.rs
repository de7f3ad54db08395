//! Bodies of requests and answers.

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use directory::account::{LimitChange, QuotaChange};
use mail::address::{Address, Domain};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use super::problem::Problem;

/// A JSON body of a request; what is wrong with one is told as a [`Problem`].
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(Problem::new(rejection.status(), rejection.body_text())),
        }
    }
}

/// What a request is about: said in the audit log, where the path does not say it.
#[derive(Clone, Debug)]
pub(crate) struct Object(pub(crate) String);

/// An answer with a status and the object that was acted on.
pub(crate) fn acted(status: StatusCode, object: impl ToString, body: impl Serialize) -> Response {
    let mut response = (status, Json(body)).into_response();
    response.extensions_mut().insert(Object(object.to_string()));
    response
}

/// An answer without a body, likewise.
pub(crate) fn done(object: impl ToString) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.extensions_mut().insert(Object(object.to_string()));
    response
}

pub(crate) fn address(text: &str) -> Result<Address, Problem> {
    Address::parse(text).map_err(|error| Problem::unprocessable(format!("{text:?}: {error}")))
}

pub(crate) fn addresses(texts: &[String]) -> Result<Vec<Address>, Problem> {
    texts.iter().map(|text| address(text)).collect()
}

pub(crate) fn domain(text: &str) -> Result<Domain, Problem> {
    Domain::parse(text).map_err(|error| Problem::unprocessable(format!("{text:?}: {error}")))
}

/// The `{address}` of a path.
pub(crate) struct AddressInPath(pub(crate) Address);

impl<S: Send + Sync> FromRequestParts<S> for AddressInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = path::<String, S>(parts, state).await?;
        Ok(Self(address(&text)?))
    }
}

/// The `{domain}` of a path.
pub(crate) struct DomainInPath(pub(crate) Domain);

impl<S: Send + Sync> FromRequestParts<S> for DomainInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = path::<String, S>(parts, state).await?;
        Ok(Self(domain(&text)?))
    }
}

async fn path<T: DeserializeOwned + Send, S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
) -> Result<Path<T>, Problem> {
    Path::from_request_parts(parts, state)
        .await
        .map_err(|rejection| Problem::bad_request(rejection.body_text()))
}

/// A member that can be left out, null, or have a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Patch<T> {
    /// Left out: it stays.
    #[default]
    Keep,
    /// Null: it goes.
    Clear,
    /// It becomes this.
    Set(T),
}

impl<T: Clone> Patch<T> {
    /// Applies it.
    pub(crate) fn apply(&self, to: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Clear => *to = None,
            Self::Set(value) => *to = Some(value.clone()),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Clear, Self::Set))
    }
}

/// What is to change of a quota.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct QuotaPatch {
    bytes: Patch<u64>,
    messages: Patch<u64>,
}

impl QuotaPatch {
    pub(crate) fn change(&self) -> QuotaChange {
        let limit = |patch: &Patch<u64>| match patch {
            Patch::Keep => LimitChange::Keep,
            Patch::Clear => LimitChange::To(None),
            Patch::Set(limit) => LimitChange::To(Some(*limit)),
        };
        QuotaChange { bytes: limit(&self.bytes), messages: limit(&self.messages) }
    }
}
