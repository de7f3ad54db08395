//! Who asks: Bearer (RFC 6750), with an access token; or Basic (RFC 7617), with an application password, or with the
//! account's own where that is configured.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use directory::login::Proof;
use directory::{AuthError, PlainLogin, Principal, Service};
use storage::{Account, OpenError};

use super::ids;
use super::problem::Problem;
use super::service::Jmap;
use crate::request::Remote;

/// Octets of a name with its password; names have 320 at most.
const CREDENTIALS_MAX: usize = 2048;

/// Somebody who has proved who they are, with the account opened.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) principal: Principal,
    pub(crate) account: Account,
    /// From where the request comes.
    pub(crate) remote: IpAddr,
}

impl User {
    /// The only account that this user has.
    pub(crate) fn account_id(&self) -> jmap_protocol::Id {
        ids::account(self.principal.account)
    }
}

impl FromRequestParts<Jmap> for User {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, jmap: &Jmap) -> Result<Self, Problem> {
        let remote = parts.extensions.get::<Remote>().map(|remote| remote.0);
        let Some(remote) = remote else { return Err(Problem::unauthorized("from nowhere")) };
        let given = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(given) = given else {
            return Err(Problem::unauthorized("a name and a password are needed"));
        };
        let Some((login, password)) = bearer(given).or_else(|| basic(given)) else {
            return Err(Problem::unauthorized("neither a token nor a name and a password"));
        };
        authenticate(jmap, login, password, remote).await
    }
}

async fn authenticate(jmap: &Jmap, login: String, password: String, remote: IpAddr) -> Result<User, Problem> {
    let login = PlainLogin { login, password, service: Service::Jmap };
    let principal = jmap.inner.directory.authenticate(&login, remote).await.map_err(refused)?;
    let is_for_programs = matches!(principal.by, Proof::AppPassword(_) | Proof::Token(_));
    if !is_for_programs && !jmap.inner.config.account_passwords {
        // The same words as for a wrong password: this is not to be a place where passwords are tried out.
        return Err(wrong());
    }
    let owner = storage::Principal::Owner(principal.account);
    match jmap.inner.storage.account(&owner, principal.account).await {
        Ok(account) => Ok(User { principal, account, remote }),
        Err(OpenError::Missing) => Err(wrong()),
        Err(error) => {
            tracing::warn!(account_id = %principal.account, %error, "account not opened");
            Err(Problem::later(StatusCode::SERVICE_UNAVAILABLE, "the account cannot be opened now", 5))
        }
    }
}

fn wrong() -> Problem {
    Problem::unauthorized("wrong name or password, or not an application password")
}

fn refused(error: AuthError) -> Problem {
    match error {
        AuthError::Rejected => wrong(),
        AuthError::Throttled { retry_after } => {
            Problem::later(StatusCode::TOO_MANY_REQUESTS, "too many failed logins", retry_after.as_secs())
        }
        AuthError::Busy => Problem::later(StatusCode::SERVICE_UNAVAILABLE, "too many logins at one time", 1),
        AuthError::Elsewhere(region) => {
            tracing::debug!(%region, "the account is in another region");
            Problem::new(StatusCode::MISDIRECTED_REQUEST, "the account is in another region")
        }
        AuthError::Temporary(error) => {
            tracing::warn!(%error, "directory unavailable");
            Problem::later(StatusCode::SERVICE_UNAVAILABLE, "logins cannot be checked now", 5)
        }
    }
}

/// The token of `Bearer …` (RFC 6750 §2.1). It says itself whose it is.
fn bearer(value: &str) -> Option<(String, String)> {
    let (scheme, token) = value.split_once(' ')?;
    let is_one = scheme.eq_ignore_ascii_case("Bearer") && token.len() <= CREDENTIALS_MAX;
    is_one.then(|| (String::new(), token.trim().to_owned()))
}

/// Name and password of `Basic …` (RFC 7617 §2).
fn basic(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") || encoded.len() > CREDENTIALS_MAX {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (login, password) = decoded.split_once(':')?;
    Some((login.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_rfc7617() {
        let pair = |login: &str, password: &str| Some((login.to_owned(), password.to_owned()));
        assert_eq!(basic("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), pair("Aladdin", "open sesame"));
        assert_eq!(basic("basic YTpiOmM="), pair("a", "b:c"));
        assert_eq!(basic("Basic dGVzdDoxMjPCow=="), pair("test", "123£"));
        assert_eq!(bearer("Bearer abc"), pair("", "abc"));
        assert_eq!(bearer("Basic YTpi"), None);
        for bad in ["", "Basic", "Basic !", "Bearer YTpi", "Basic YWI=", "Basic /zr/"] {
            assert_eq!(basic(bad), None, "{bad}");
        }
    }
}
