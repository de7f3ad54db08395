//! Authorization codes (RFC 6749 §4.1.2) with PKCE (RFC 7636): how a program that may not see the password gets a grant.
//!
//! A code says all there is to it and is signed, so nothing is stored until it is redeemed; then it becomes the grant whose
//! id it bears, which can be made once. Whoever brings it again ends that grant, and gets none (RFC 6749 §4.1.2: "SHOULD
//! revoke").
//!
//! ```text
//! "postrider-code-" base64url( postcard(version 1 · claims) · MAC 32 )
//! ```

use std::fmt;

use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mail::id::AccountId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::app_password::ServiceSet;
use crate::grant::{Grant, GrantError, GrantId, NewGrant, RefreshToken, check_name, random};
use crate::login::Principal;
use crate::look::{Directory, unix_now};

const PREFIX: &str = "postrider-code-";
const VERSION: u8 = 1;
/// What is signed is no access token.
const PURPOSE: &[u8] = b"postrider authorization codes 1";
const MAC: usize = 32;
/// Redirect URIs longer than this are no client's.
const REDIRECT_BYTES_MAX: usize = 2_048;
/// RFC 7636 §4.1.
const VERIFIER_LENGTH: std::ops::RangeInclusive<usize> = 43..=128;

/// What a program asks for, and somebody who has logged in has agreed to.
#[derive(Clone, Copy, Debug)]
pub struct Agreed<'a> {
    /// To whom, and where it is good.
    pub grant: &'a NewGrant<'a>,
    /// Where the code is sent, as the client said.
    pub redirect_uri: &'a str,
    /// `code_challenge` of method `S256`, as the client said (RFC 7636 §4.2).
    pub challenge: &'a str,
}

/// An authorization code in clear.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorizationCode(String);

impl AuthorizationCode {
    /// The code.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AuthorizationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthorizationCode(…)")
    }
}

/// What a client brings for a grant (RFC 6749 §4.1.3, RFC 7636 §4.5).
#[derive(Clone, Copy, Debug)]
pub struct Redemption<'a> {
    /// The code.
    pub code: &'a str,
    /// Who it says it is.
    pub client: &'a str,
    /// Where it got the code.
    pub redirect_uri: &'a str,
    /// What its challenge was made of.
    pub verifier: &'a str,
}

/// What has come of a code.
#[derive(Clone, Debug)]
pub struct Redeemed {
    /// Whose grant it is.
    pub account: AccountId,
    /// The grant.
    pub grant: Grant,
    /// What it is used with.
    pub refresh: RefreshToken,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    version: u8,
    account: AccountId,
    address: String,
    grant: GrantId,
    client: String,
    name: String,
    services: ServiceSet,
    redirect_uri: String,
    challenge: [u8; 32],
    expires: u64,
}

impl Directory {
    /// A code for what somebody who has logged in has agreed to.
    pub fn authorize(
        &self,
        principal: &Principal,
        agreed: Agreed<'_>,
    ) -> Result<AuthorizationCode, GrantError> {
        let Agreed { grant, redirect_uri, challenge } = agreed;
        check_name("id", grant.client)?;
        check_name("name", grant.name)?;
        let challenge = URL_SAFE_NO_PAD.decode(challenge).ok().and_then(|octets| octets.try_into().ok());
        let challenge = challenge.ok_or(GrantError::Invalid)?;
        if redirect_uri.len() > REDIRECT_BYTES_MAX {
            return Err(GrantError::Invalid);
        }
        let claims = Claims {
            version: VERSION,
            account: principal.account,
            address: principal.address.key(),
            grant: GrantId(Uuid::from_bytes(random()?)),
            client: grant.client.to_owned(),
            name: grant.name.to_owned(),
            services: grant.services.and(principal.services),
            redirect_uri: redirect_uri.to_owned(),
            challenge,
            expires: unix_now() + self.config().authorization_code_seconds,
        };
        Ok(AuthorizationCode(claims.sign(&self.inner.token_key).ok_or(GrantError::Invalid)?))
    }

    /// Makes the grant that a code stands for: once.
    pub async fn redeem(&self, redemption: Redemption<'_>) -> Result<Redeemed, GrantError> {
        let claims = Claims::verify(redemption.code, &self.inner.token_key).ok_or(GrantError::Invalid)?;
        if claims.expires <= unix_now()
            || claims.client != redemption.client
            || claims.redirect_uri != redemption.redirect_uri
            || !claims.is_proved_by(redemption.verifier)
        {
            return Err(GrantError::Invalid);
        }
        // Whoever was refused since then has agreed to nothing.
        let account = self.account_of(&claims.address).await?.map(|(_, account)| account);
        if !account.is_some_and(|account| account.id == claims.account && account.status.logs_in()) {
            return Err(GrantError::Invalid);
        }
        let new = NewGrant { client: &claims.client, name: &claims.name, services: claims.services };
        match self.make_grant(claims.account, claims.address.clone(), claims.grant, &new).await {
            Ok((grant, refresh)) => Ok(Redeemed { account: claims.account, grant, refresh }),
            Err(GrantError::Exists) => {
                tracing::warn!(account_id = %claims.account, grant = %claims.grant, "a code came twice; its grant ends");
                self.spend(claims.account, claims.grant).await?;
                Err(GrantError::Invalid)
            }
            Err(error) => Err(error),
        }
    }
}

impl Claims {
    fn sign(&self, key: &hmac::Key) -> Option<String> {
        let mut octets = postcard::to_allocvec(self).ok()?;
        let mac = signature(key, &octets);
        octets.extend_from_slice(mac.as_ref());
        Some(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(octets)))
    }

    fn verify(code: &str, key: &hmac::Key) -> Option<Self> {
        let mut octets = URL_SAFE_NO_PAD.decode(code.strip_prefix(PREFIX)?).ok()?;
        let mac = octets.split_off(octets.len().checked_sub(MAC)?);
        constant_time::verify_slices_are_equal(signature(key, &octets).as_ref(), &mac).ok()?;
        let claims: Self = postcard::from_bytes(&octets).ok()?;
        (claims.version == VERSION).then_some(claims)
    }

    /// RFC 7636 §4.6, for `S256`; `plain` is not taken (RFC 9700 §2.1.1).
    fn is_proved_by(&self, verifier: &str) -> bool {
        let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let hash = digest::digest(&digest::SHA256, verifier.as_bytes());
        VERIFIER_LENGTH.contains(&verifier.len())
            && verifier.bytes().all(is_unreserved)
            && constant_time::verify_slices_are_equal(hash.as_ref(), &self.challenge).is_ok()
    }
}

fn signature(key: &hmac::Key, octets: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(PURPOSE);
    context.update(octets);
    context.sign()
}
