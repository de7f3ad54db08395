//! Pushes that only the client can read: the content coding aes128gcm (RFC 8188) with keys agreed on as RFC 8291 says.

use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::{aead, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use directory::SubscriptionKeys;

/// The name of the coding (RFC 8188 §2).
pub(super) const CODING: &str = "aes128gcm";
/// Octets of a record (RFC 8188 §2); there is one only (RFC 8291 §4).
const RECORD: u32 = 4096;
/// Octets of a body that every push service takes (RFC 8030 §7.2).
const BODY_MAX: usize = 4096;
/// Octets before what is encrypted.
const HEAD: usize = 16 + 4 + 1 + POINT;
/// Octets of a push that fit into it: without head, delimiter and the tag of the cipher.
const PLAIN_MAX: usize = BODY_MAX - HEAD - 1 - 16;
/// Octets of a point of P-256, uncompressed (RFC 8291 §3.1).
const POINT: usize = 65;
/// Octets of the secret (RFC 8291 §3.2).
const SECRET: usize = 16;

/// Why something cannot be encrypted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncryptError {
    /// The client's key is no point of the curve.
    #[error("the public key is no point of P-256")]
    Key,
    /// It is longer than a push may be.
    #[error("longer than a push may be")]
    TooLong,
    /// There is no randomness, or the cipher failed.
    #[error("no cryptography")]
    Broken,
}

/// Reads the keys of a subscription (RFC 8620 §7.2). `None`: they are none.
pub(crate) fn keys(p256dh: &str, auth: &str) -> Option<SubscriptionKeys> {
    // RFC 4648 §5 leaves it open whether there is padding.
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
    let (public, secret) = (decode(p256dh)?, decode(auth)?);
    if public.len() != POINT || secret.len() != SECRET {
        return None;
    }
    let keys = SubscriptionKeys { public, secret };
    // A point that is not of the curve shows when something is encrypted for it.
    encrypt(&keys, b"").is_ok().then_some(keys)
}

/// Encrypts a push, as the body of a request.
pub(crate) fn encrypt(keys: &SubscriptionKeys, plain: &[u8]) -> Result<Vec<u8>, EncryptError> {
    let private = PrivateKey::generate(&ECDH_P256).map_err(|_| EncryptError::Broken)?;
    let mut salt = [0; 16];
    rand::fill(&mut salt).map_err(|_| EncryptError::Broken)?;
    seal(keys, plain, &private, salt)
}

fn seal(
    keys: &SubscriptionKeys,
    plain: &[u8],
    private: &PrivateKey,
    salt: [u8; 16],
) -> Result<Vec<u8>, EncryptError> {
    if plain.len() > PLAIN_MAX {
        return Err(EncryptError::TooLong);
    }
    let own = private.compute_public_key().map_err(|_| EncryptError::Broken)?;
    let peer = UnparsedPublicKey::new(&ECDH_P256, &keys.public);
    // RFC 8291 §3.3: what both know goes with the secret of the client into the keying material.
    let material = agreement::agree(private, peer, EncryptError::Key, |shared| {
        let prk = Salt::new(HKDF_SHA256, &keys.secret).extract(shared);
        expand::<32>(&prk, &[b"WebPush: info\0", &keys.public, own.as_ref()])
    })?;
    // RFC 8188 §2.2, §2.3.
    let prk = Salt::new(HKDF_SHA256, &salt).extract(&material);
    let key = expand::<16>(&prk, &[b"Content-Encoding: aes128gcm\0"])?;
    let nonce = expand::<12>(&prk, &[b"Content-Encoding: nonce\0"])?;
    let key = aead::UnboundKey::new(&aead::AES_128_GCM, &key).map_err(|_| EncryptError::Broken)?;
    // RFC 8188 §2: two says that this is the last record.
    let mut sealed = [plain, &[2]].concat();
    aead::LessSafeKey::new(key)
        .seal_in_place_append_tag(aead::Nonce::assume_unique_for_key(nonce), aead::Aad::empty(), &mut sealed)
        .map_err(|_| EncryptError::Broken)?;
    // RFC 8188 §2.1, RFC 8291 §4: salt, size of records, and our public key as the id of the key.
    let head = [salt.as_slice(), &RECORD.to_be_bytes(), &[POINT as u8], own.as_ref()].concat();
    Ok([head, sealed].concat())
}

/// How much is to be expanded.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand<const N: usize>(prk: &Prk, info: &[&[u8]]) -> Result<[u8; N], EncryptError> {
    let mut out = [0; N];
    let expanded = prk.expand(info, Length(N)).and_then(|okm| okm.fill(&mut out));
    expanded.map(|()| out).map_err(|_| EncryptError::Broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

    fn decode(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    /// RFC 8291 §5 and appendix A
    #[test]
    fn the_example_of_the_rfc() {
        let keys = keys(PUBLIC, AUTH).unwrap();
        let private =
            PrivateKey::from_private_key(&ECDH_P256, &decode("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"))
                .unwrap();
        let salt = decode("DGv6ra1nlYgDCS1FRnbzlw").try_into().unwrap();
        let sealed = seal(&keys, b"When I grow up, I want to be a watermelon", &private, salt).unwrap();
        assert_eq!(
            URL_SAFE_NO_PAD.encode(sealed),
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
        );
    }

    #[test]
    fn keys_that_are_none() {
        assert!(keys(&format!("{PUBLIC}="), &format!("{AUTH}==")).is_some());
        let mut off = decode(PUBLIC);
        off[64] ^= 1;
        let off = URL_SAFE_NO_PAD.encode(off);
        for (public, auth) in
            [("", AUTH), (PUBLIC, ""), (PUBLIC, "AAAA"), (&PUBLIC[1..], AUTH), (&off, AUTH), (PUBLIC, "!")]
        {
            assert!(keys(public, auth).is_none(), "{public} {auth}");
        }
    }

    #[test]
    fn each_push_is_another_and_has_its_limit() {
        let keys = keys(PUBLIC, AUTH).unwrap();
        assert_ne!(encrypt(&keys, b"x").unwrap(), encrypt(&keys, b"x").unwrap());
        assert_eq!(encrypt(&keys, &[0; PLAIN_MAX]).unwrap().len(), BODY_MAX);
        assert!(matches!(encrypt(&keys, &[0; PLAIN_MAX + 1]), Err(EncryptError::TooLong)));
    }
}
