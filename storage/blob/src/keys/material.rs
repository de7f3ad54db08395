//! What is done with 32 secret bytes.

use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::key_wrap::{AES_256 as WRAP_AES_256, AesKek, KeyWrap};
use engine::{Sealer, Unsealed};
use rand::RngCore;
use zeroize::Zeroizing;

use crate::address::WrappedKey;
use crate::format::chunk::BlobKey;

/// Version byte of sealed bytes.
const SEALED: u8 = 1;
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const WRAPPED_BYTES: usize = 40;

/// A key in use. Each purpose has a key derived from it, so that none can be played off against another.
pub(crate) struct Material {
    wrap: Zeroizing<[u8; 32]>,
    seal: Zeroizing<[u8; 32]>,
    erased: AtomicBool,
}

impl Material {
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        Self {
            wrap: Zeroizing::new(blake3::derive_key("postrider wrap blob keys v1", secret)),
            seal: Zeroizing::new(blake3::derive_key("postrider seal rows v1", secret)),
            erased: AtomicBool::new(false),
        }
    }

    /// A random secret.
    pub(crate) fn random_secret() -> Zeroizing<[u8; 32]> {
        let mut secret = Zeroizing::new([0; 32]);
        rand::rng().fill_bytes(secret.as_mut_slice());
        secret
    }

    /// The key was erased: what is open under it closes.
    pub(crate) fn mark_erased(&self) {
        self.erased.store(true, Ordering::Release);
    }

    pub(crate) fn wrap(&self, key: &BlobKey) -> WrappedKey {
        let mut out = [0; WRAPPED_BYTES];
        let written = self.kek().wrap(key.0.as_slice(), &mut out).expect("32 bytes wrap into 40");
        let (head, tail) = written.split_at(32);
        WrappedKey(*head.first_chunk().expect("32 bytes"), *tail.first_chunk().expect("8 bytes"))
    }

    /// `None`: not wrapped by this key.
    pub(crate) fn unwrap(&self, wrapped: &WrappedKey) -> Option<BlobKey> {
        let mut bytes = [0; WRAPPED_BYTES];
        bytes[..32].copy_from_slice(&wrapped.0);
        bytes[32..].copy_from_slice(&wrapped.1);
        // Eight bytes more than the key are needed while it is unwrapped.
        let mut out = Zeroizing::new([0; WRAPPED_BYTES]);
        let plain = self.kek().unwrap(&bytes, out.as_mut_slice()).ok()?;
        Some(BlobKey(Zeroizing::new(*plain.first_chunk()?)))
    }

    fn kek(&self) -> AesKek {
        AesKek::new(&WRAP_AES_256, self.wrap.as_slice()).expect("the key has the length of AES-256")
    }

    /// The cipher for one sealing. The salt makes a key of its own each time, so a key seals any number of rows
    /// without regard to the 2³² random nonces that GCM allows.
    fn cipher(&self, salt: &[u8]) -> LessSafeKey {
        let key = Zeroizing::new(*blake3::keyed_hash(&self.seal, salt).as_bytes());
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).expect("the key has the length of AES-256");
        LessSafeKey::new(key)
    }
}

/// `version 1 · salt 16 · ciphertext · tag 16`
impl Sealer for Material {
    fn seal(&self, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + SALT_BYTES + plain.len() + TAG_BYTES);
        bytes.push(SEALED);
        let mut salt = [0; SALT_BYTES];
        rand::rng().fill_bytes(&mut salt);
        bytes.extend_from_slice(&salt);
        bytes.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag = self
            .cipher(&salt)
            .seal_in_place_separate_tag(nonce, Aad::from(aad), &mut bytes[1 + SALT_BYTES..])
            .expect("what is sealed is far below the limit of GCM");
        bytes.extend_from_slice(tag.as_ref());
        bytes
    }

    fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unsealed> {
        if self.erased.load(Ordering::Acquire) {
            return Err(Unsealed::Erased);
        }
        let Some((&[SEALED], rest)) = sealed.split_first_chunk::<1>() else {
            return Err(Unsealed::Forged);
        };
        let (salt, rest) = rest.split_first_chunk::<SALT_BYTES>().ok_or(Unsealed::Forged)?;
        let mut bytes = rest.to_vec();
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let length = self
            .cipher(salt)
            .open_in_place(nonce, Aad::from(aad), &mut bytes)
            .map_err(|_| Unsealed::Forged)?
            .len();
        bytes.truncate(length);
        Ok(bytes)
    }
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Material(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seals_are_bound_to_key_place_and_every_bit() {
        let key = Material::new(&[7; 32]);
        let sealed = key.seal(b"log 1, entry 5", b"the entry");
        assert_eq!(key.open(b"log 1, entry 5", &sealed), Ok(b"the entry".to_vec()));
        assert_eq!(key.open(b"log 1, entry 6", &sealed), Err(Unsealed::Forged));
        assert_eq!(Material::new(&[8; 32]).open(b"log 1, entry 5", &sealed), Err(Unsealed::Forged));
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open(b"log 1, entry 5", &flipped), Err(Unsealed::Forged), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert_eq!(
                key.open(b"log 1, entry 5", &sealed[..length]),
                Err(Unsealed::Forged),
                "cut at {length}"
            );
        }
        assert_ne!(sealed, key.seal(b"log 1, entry 5", b"the entry"), "each seal has a salt of its own");
        key.mark_erased();
        assert_eq!(key.open(b"log 1, entry 5", &sealed), Err(Unsealed::Erased));
    }

    #[test]
    fn blob_keys_unwrap_with_the_key_that_wrapped_them_only() {
        let key = Material::new(&[1; 32]);
        let blob = BlobKey::random();
        let wrapped = key.wrap(&blob);
        assert_eq!(key.unwrap(&wrapped).map(|key| *key.0), Some(*blob.0));
        assert!(Material::new(&[2; 32]).unwrap(&wrapped).is_none());
        for bit in 0..320 {
            let mut flipped = wrapped;
            if bit < 256 {
                flipped.0[bit / 8] ^= 1 << (bit % 8);
            } else {
                flipped.1[(bit - 256) / 8] ^= 1 << (bit % 8);
            }
            assert!(key.unwrap(&flipped).is_none(), "bit {bit}");
        }
    }
}
