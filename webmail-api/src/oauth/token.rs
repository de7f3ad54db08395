//! `/oauth/token` (RFC 6749 §3.2) and `/oauth/revoke` (RFC 7009).

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use directory::{AccessToken, Grant, GrantError, Redemption, RefreshToken};
use serde_json::json;

use super::Issuer;
use super::authorize::scope_of;
use super::page::Form;

/// An error as RFC 6749 §5.2 has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OAuthError {
    status: StatusCode,
    error: &'static str,
    description: String,
}

impl OAuthError {
    pub(super) fn new(error: &'static str, description: &str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error, description: description.to_owned() }
    }
}

impl From<GrantError> for OAuthError {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::Temporary(error) => {
                tracing::warn!(%error, "a token cannot be made");
                let description = "try again later".to_owned();
                Self {
                    status: StatusCode::SERVICE_UNAVAILABLE,
                    error: "temporarily_unavailable",
                    description,
                }
            }
            GrantError::TooMany(_) => Self::new("access_denied", "the account has too many of them"),
            GrantError::Invalid | GrantError::Exists | GrantError::BadName(_) => {
                Self::new("invalid_grant", "it is not known, has ended, or was used")
            }
        }
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.error, "error_description": self.description });
        no_store((self.status, Json(body)).into_response())
    }
}

/// RFC 6749 §5.1: nobody between keeps it.
pub(super) fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `POST /oauth/token`.
pub(super) async fn issue(State(issuer): State<Issuer>, headers: HeaderMap, body: Bytes) -> Response {
    match issuer.issue(&headers, &body).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

/// `POST /oauth/revoke`.
pub(super) async fn revoke(State(issuer): State<Issuer>, headers: HeaderMap, body: Bytes) -> Response {
    let revoked = async {
        let form = issuer.form(&headers, &body)?;
        let token = form.one("token")?;
        // RFC 7009 §2.2: a token that is none is as good as ended.
        Ok::<_, OAuthError>(issuer.inner.directory.revoke_token(token).await?)
    };
    match revoked.await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => error.into_response(),
    }
}

impl Issuer {
    fn form<'a>(&self, headers: &HeaderMap, body: &'a [u8]) -> Result<Form<'a>, OAuthError> {
        let kind =
            headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_form = kind.split(';').next().unwrap_or_default().trim();
        if !is_form.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(OAuthError::new("invalid_request", "not application/x-www-form-urlencoded"));
        }
        if body.len() > self.inner.config.body_bytes_max {
            return Err(OAuthError::new("invalid_request", "too long"));
        }
        Form::parse(body).map_err(|why| OAuthError::new("invalid_request", why))
    }

    async fn issue(&self, headers: &HeaderMap, body: &[u8]) -> Result<Response, OAuthError> {
        let form = self.form(headers, body)?;
        let directory = &self.inner.directory;
        match form.one("grant_type")? {
            "authorization_code" => {
                let client = form.one("client_id")?;
                if self.client(client).is_none() {
                    return Err(OAuthError::new("invalid_client", "no such client"));
                }
                let id = client_key(client);
                let redeemed = directory
                    .redeem(Redemption {
                        code: form.one("code")?,
                        client: &id,
                        redirect_uri: form.one("redirect_uri")?,
                        verifier: form.one("code_verifier")?,
                    })
                    .await?;
                let access = directory.access_token(redeemed.account, &redeemed.grant);
                Ok(tokens(&redeemed.grant, &access, &redeemed.refresh))
            }
            "refresh_token" => {
                let (account, grant, refresh) = directory.refresh(form.one("refresh_token")?).await?;
                // A public client says who it is, which proves nothing, so it only has to be consistent.
                if form.get("client_id").is_some_and(|client| client_key(client) != grant.client) {
                    return Err(OAuthError::new("invalid_grant", "it is another client's"));
                }
                let access = directory.access_token(account, &grant);
                Ok(tokens(&grant, &access, &refresh))
            }
            _ => Err(OAuthError::new("unsupported_grant_type", "authorization_code or refresh_token")),
        }
    }
}

fn tokens(grant: &Grant, access: &AccessToken, refresh: &RefreshToken) -> Response {
    no_store(
        Json(json!({
            "access_token": access.reveal(),
            "token_type": "Bearer",
            "expires_in": access.seconds,
            "refresh_token": refresh.reveal(),
            "scope": scope_of(grant.services),
        }))
        .into_response(),
    )
}

/// How a grant keeps a client's id, which may be long: as it is, or its hash.
pub(super) fn client_key(id: &str) -> String {
    if id.len() <= 64 {
        return id.to_owned();
    }
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, id.as_bytes());
    let hex: Vec<String> = hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("registered-{}", hex.concat())
}
