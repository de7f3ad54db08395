//! Access tokens: what a program logs in with for an hour, at every service and every node alike.
//!
//! ```text
//! "postrider-access-" base64url( version 1 · account 16 · grant 16 · expires 8 · services 2 · address · MAC 32 )
//! ```
//!
//! The MAC's key is the installation's, so a token is checked without being looked up; that its grant still stands is a row
//! that is read each time. So a token is good for exactly as long as what it came of.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mail::id::AccountId;
use uuid::Uuid;

use crate::app_password::ServiceSet;
use crate::grant::{Grant, GrantError, GrantId};
use crate::look::{Directory, unix_now};

/// Stands in front of every access token, so that one that leaked is recognised, and none is taken for a password.
const PREFIX: &str = "postrider-access-";
const VERSION: u8 = 1;
/// Octets before the address.
const HEAD: usize = 1 + 16 + 16 + 8 + 2;
const MAC: usize = 32;
/// What the key is for.
const PURPOSE: &[u8] = b"postrider access tokens 1";

/// An access token in clear.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken {
    token: String,
    /// For how long it is good, in seconds.
    pub seconds: u64,
}

impl AccessToken {
    /// The token.
    pub fn reveal(&self) -> &str {
        &self.token
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken").field("seconds", &self.seconds).finish_non_exhaustive()
    }
}

/// What a token says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) account: AccountId,
    pub(crate) grant: GrantId,
    pub(crate) expires: u64,
    pub(crate) services: ServiceSet,
    /// Under which the account is looked up.
    pub(crate) address: String,
}

impl Directory {
    /// A token of this grant, good for the configured time.
    pub fn access_token(&self, account: AccountId, grant: &Grant) -> AccessToken {
        let seconds = self.config().access_token_seconds;
        let claims = Claims {
            account,
            grant: grant.id,
            expires: unix_now() + seconds,
            services: grant.services,
            address: grant.address.clone(),
        };
        AccessToken { token: claims.sign(&self.inner.token_key), seconds }
    }

    /// Ends the grant that a token, of either kind, came of (RFC 7009). A token that is none ends nothing, which is no error.
    pub async fn revoke_token(&self, token: &str) -> Result<(), GrantError> {
        if let Some(claims) = Claims::verify(token, &self.inner.token_key) {
            self.revoke(claims.account, claims.grant).await?;
            return Ok(());
        }
        match self.refresh(token).await {
            Ok((account, grant, _)) => {
                self.revoke(account, grant.id).await?;
                Ok(())
            }
            Err(GrantError::Invalid) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Directory {
    /// A key of this installation, the same at all nodes, for something that is signed for this purpose alone.
    pub fn derived_key(&self, purpose: &[u8]) -> hmac::Key {
        derive(&self.inner.decoy_secret, purpose)
    }
}

/// Whether this is meant as an access token, whatever it is worth.
pub(crate) fn is_token(secret: &str) -> bool {
    secret.starts_with(PREFIX)
}

/// Whose token this claims to be. Anybody can write such a token: it says whom to ask.
pub fn claimed_login(secret: &str) -> Option<String> {
    let (claims, _, _) = Claims::read(secret)?;
    Some(claims.address)
}

/// The key of all tokens of an installation.
pub(crate) fn key(secret: &[u8; 32]) -> hmac::Key {
    derive(secret, PURPOSE)
}

fn derive(secret: &[u8; 32], purpose: &[u8]) -> hmac::Key {
    let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), purpose);
    hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
}

impl Claims {
    fn sign(&self, key: &hmac::Key) -> String {
        let mut octets = vec![VERSION];
        octets.extend_from_slice(self.account.0.as_bytes());
        octets.extend_from_slice(self.grant.0.as_bytes());
        octets.extend_from_slice(&self.expires.to_be_bytes());
        octets.extend_from_slice(&self.services.bits().to_be_bytes());
        octets.extend_from_slice(self.address.as_bytes());
        let mac = hmac::sign(key, &octets);
        octets.extend_from_slice(mac.as_ref());
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(octets))
    }

    /// What a token says, if it was made here.
    pub(crate) fn verify(token: &str, key: &hmac::Key) -> Option<Self> {
        let (claims, signed, mac) = Self::read(token)?;
        hmac::verify(key, &signed, &mac).is_ok().then_some(claims)
    }

    fn read(token: &str) -> Option<(Self, Vec<u8>, Vec<u8>)> {
        let mut octets = URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX)?).ok()?;
        let mac = octets.split_off(octets.len().checked_sub(MAC)?);
        let (version, rest) = octets.split_first()?;
        let (account, rest) = rest.split_first_chunk()?;
        let (grant, rest) = rest.split_first_chunk()?;
        let (expires, rest) = rest.split_first_chunk()?;
        let (services, address) = rest.split_first_chunk()?;
        debug_assert_eq!(octets.len() - address.len(), HEAD, "as documented");
        let claims = Self {
            account: AccountId(Uuid::from_bytes(*account)),
            grant: GrantId(Uuid::from_bytes(*grant)),
            expires: u64::from_be_bytes(*expires),
            services: ServiceSet::from_bits(u16::from_be_bytes(*services)),
            address: String::from_utf8(address.to_vec()).ok()?,
        };
        (*version == VERSION).then_some((claims, octets, mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bit_of_a_token_can_be_changed() {
        let claims = Claims {
            account: AccountId(Uuid::from_u128(7)),
            grant: GrantId(Uuid::from_u128(8)),
            expires: 1_900_000_000,
            services: ServiceSet::ALL,
            address: "jürgen@example.test".to_owned(),
        };
        let (ours, other) = (key(&[1; 32]), key(&[2; 32]));
        let token = claims.sign(&ours);
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{token}");
        assert_eq!(Claims::verify(&token, &ours), Some(claims.clone()));
        assert_eq!(claimed_login(&token).as_deref(), Some("jürgen@example.test"));
        assert_eq!(Claims::verify(&token, &other), None);
        let octets = URL_SAFE_NO_PAD.decode(&token[PREFIX.len()..]).unwrap();
        for at in 0..octets.len() {
            for bit in 0..8 {
                let mut changed = octets.clone();
                changed[at] ^= 1 << bit;
                let changed = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(changed));
                assert_eq!(Claims::verify(&changed, &ours), None, "octet {at}, bit {bit}");
            }
        }
        for end in 0..token.len() {
            assert_eq!(Claims::verify(&token[..end], &ours), None, "{end} characters");
        }
    }
}
