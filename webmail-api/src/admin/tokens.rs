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

pub(crate) async fn list(State(api): State<Api>) -> Result<Json<Vec<TokenBody>>, Problem> {
    let body = |token: Token| TokenBody {
        name: token.name,
        scopes: token.scopes,
        created: token.created,
        expires: token.expires,
    };
    Ok(Json(api.tokens().list().await?.into_iter().map(body).collect()))
}

pub(crate) async fn create(State(api): State<Api>, Body(new): Body<NewToken>) -> Result<Response, Problem> {
    let (_, secret) = api.tokens().create(&new.name, new.scopes, new.expires).await?;
    Ok(acted(StatusCode::CREATED, new.name, Secret { secret }))
}

pub(crate) async fn delete(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Problem> {
    api.tokens().delete(&name).await?;
    Ok(done(name))
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let status = match &error {
            TokenError::Exists(_) => StatusCode::CONFLICT,
            TokenError::Missing(_) => StatusCode::NOT_FOUND,
            TokenError::Invalid(_) | TokenError::TooMany(_) => return Self::unprocessable(error.to_string()),
            TokenError::Rows(_) => StatusCode::SERVICE_UNAVAILABLE,
            TokenError::File { .. } | TokenError::Random => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}
