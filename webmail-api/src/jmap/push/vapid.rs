//! Who pushes (RFC 8292): push services are shown a token, signed with the installation's key, for which a client can have
//! its subscription made (RFC 9749).

use std::fmt;

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

/// What the key is for.
pub(super) const PURPOSE: &[u8] = b"postrider push 1";
/// RFC 8292 §2: a day at most.
const GOOD_SECONDS: u64 = 12 * 3_600;

/// The installation's key.
pub(crate) struct Vapid {
    pair: EcdsaKeyPair,
    /// As push services know it.
    public: String,
    contact: String,
}

impl fmt::Debug for Vapid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vapid").field("public", &self.public).finish_non_exhaustive()
    }
}

impl Vapid {
    /// The key that is made from a secret of the installation, so that it is the same at all nodes. `None`: there is no
    /// cryptography.
    pub(crate) fn derive(secret: &hmac::Key, contact: &str) -> Option<Self> {
        // Nearly each number of so many bits is a key; the next one is taken where one is not.
        let mut tries = 0..=u8::MAX;
        let (private, public) = tries.find_map(|number| {
            let private = hmac::sign(secret, &[number]);
            let key = PrivateKey::from_private_key(&ECDH_P256, private.as_ref()).ok()?;
            Some((private, key.compute_public_key().ok()?))
        })?;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            private.as_ref(),
            public.as_ref(),
        );
        let public = URL_SAFE_NO_PAD.encode(&public);
        Some(Self { pair: pair.ok()?, public, contact: contact.to_owned() })
    }

    /// The public key, as clients are told (RFC 9749 §3).
    pub(crate) fn public(&self) -> &str {
        &self.public
    }

    /// What is shown to the push service of this origin (RFC 8292 §2, §3). `None`: it could not be signed.
    pub(crate) fn authorization(&self, origin: &str, now: u64) -> Option<String> {
        let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = encode(json!({"typ": "JWT", "alg": "ES256"}));
        let claims = encode(json!({"aud": origin, "exp": now + GOOD_SECONDS, "sub": self.contact}));
        let said = format!("{head}.{claims}");
        let signature = self.pair.sign(&SystemRandom::new(), said.as_bytes()).ok()?;
        Some(format!("vapid t={said}.{}, k={}", URL_SAFE_NO_PAD.encode(signature), self.public))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_token_that_others_can_check() {
        let secret = |octet: u8| hmac::Key::new(hmac::HMAC_SHA256, &[octet; 32]);
        let vapid = Vapid::derive(&secret(1), "mailto:postmaster@example.test").unwrap();
        assert_eq!(vapid.public(), Vapid::derive(&secret(1), "").unwrap().public());
        assert_ne!(vapid.public(), Vapid::derive(&secret(2), "").unwrap().public());
        let shown = vapid.authorization("https://push.example.test", 1_000).unwrap();
        let (token, key) = shown.strip_prefix("vapid t=").unwrap().split_once(", k=").unwrap();
        assert_eq!(key, vapid.public());
        let (said, signature) = token.rsplit_once('.').unwrap();
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, decode(key))
            .verify(said.as_bytes(), &decode(signature))
            .unwrap();
        let claims: serde_json::Value =
            serde_json::from_slice(&decode(said.split_once('.').unwrap().1)).unwrap();
        let expected = json!({"aud": "https://push.example.test", "exp": 44_200, "sub": "mailto:postmaster@example.test"});
        assert_eq!(claims, expected);
    }
}
