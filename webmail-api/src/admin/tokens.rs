//! `/admin/v1/tokens`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::api::Api;
use super::body::{Body, acted, done};
use super::caller::Scope;
use super::problem::Problem;
use super::token::{Token, TokenError};

/// A token without its secret.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TokenBody {
    pub(crate) name: String,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) created: u64,
    pub(crate) expires: Option<u64>,
}

/// A token to be made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    pub(crate) name: String,
    pub(crate) scopes: Vec<Scope>,
    #[serde(default)]
    pub(crate) expires: Option<u64>,
}

/// A secret that is shown once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Secret {
    pub(crate) secret: String,
}

pub(crate) async fn list(State(api): State<Api>) -> Json<Vec<TokenBody>> {
    let body = |token: Token| TokenBody {
        name: token.name,
        scopes: token.scopes,
        created: token.created,
        expires: token.expires,
    };
    Json(api.tokens().list().into_iter().map(body).collect())
}

pub(crate) async fn create(State(api): State<Api>, Body(new): Body<NewToken>) -> Result<Response, Problem> {
    let name = new.name.clone();
    let (_, secret) = blocking(move || api.tokens().create(&new.name, new.scopes, new.expires)).await?;
    Ok(acted(StatusCode::CREATED, name, Secret { secret }))
}

pub(crate) async fn delete(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Problem> {
    let gone = name.clone();
    blocking(move || api.tokens().delete(&name)).await?;
    Ok(done(gone))
}

async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, TokenError> + Send + 'static,
) -> Result<R, Problem> {
    let failed = |detail| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail);
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| match &error {
            TokenError::Exists(_) => Problem::new(StatusCode::CONFLICT, error.to_string()),
            TokenError::Missing(_) => Problem::new(StatusCode::NOT_FOUND, error.to_string()),
            TokenError::Invalid(_) | TokenError::TooMany(_) => Problem::unprocessable(error.to_string()),
            TokenError::File { source, .. } => failed(format!("{error}: {source}")),
            TokenError::Random => failed(error.to_string()),
        }),
        Err(_) => Err(failed("the work was broken off".to_owned())),
    }
}
