//! Sealing: entries, pages and archives are bound to their log and place, and unreadable without its key.

use crate::error::Unsealed;

/// Seals and opens what is stored of one log. Implemented by the key ring of the blob crate.
pub trait Sealer: Send + Sync + 'static {
    /// Seals `plain`; `aad` says where it belongs and must be given again to open it.
    fn seal(&self, aad: &[u8], plain: &[u8]) -> Vec<u8>;

    /// Opens what was sealed with the same `aad`.
    fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unsealed>;
}

/// Stores bytes as they are: for tests, and for logs that hold nothing personal. Binding to the place is kept by the
/// hash chain and the checksums alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unencrypted;

impl Sealer for Unencrypted {
    fn seal(&self, _aad: &[u8], plain: &[u8]) -> Vec<u8> {
        plain.to_vec()
    }

    fn open(&self, _aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unsealed> {
        Ok(sealed.to_vec())
    }
}
