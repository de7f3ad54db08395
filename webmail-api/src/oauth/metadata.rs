//! `/.well-known/oauth-authorization-server` (RFC 8414): where everything is.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use serde_json::{Value, json};

use super::Issuer;
use super::authorize::SCOPES;

pub(super) async fn show(State(issuer): State<Issuer>, uri: Uri, headers: HeaderMap) -> Json<Value> {
    let origin = issuer.origin(&headers, &uri);
    let scopes: Vec<&str> = SCOPES.iter().map(|(name, _)| *name).collect();
    let mut document = json!({
        "issuer": origin,
        "authorization_endpoint": format!("{origin}/oauth/authorize"),
        "token_endpoint": format!("{origin}/oauth/token"),
        "revocation_endpoint": format!("{origin}/oauth/revoke"),
        "scopes_supported": scopes,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
    });
    if issuer.inner.config.registration {
        document["registration_endpoint"] = format!("{origin}/oauth/register").into();
    }
    Json(document)
}
