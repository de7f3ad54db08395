//! The ring: keys from rows, kept in memory while in use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::{EngineError, Row, RowKey, Rows, Sealer, Table};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::material::Material;
use super::{Fingerprint, KeyEncryptionKey, KeyError, KeyId};
use crate::Config;
use crate::address::WrappedKey;
use crate::format::chunk::BlobKey;

const ROW_VERSION: u8 = 1;
/// How often a compare-and-swap of a key row is tried. Key rows change a few times in their life.
const SWAPS_MAX: usize = 16;

/// The keys, and what they do. Cheap to clone.
#[derive(Clone)]
pub struct KeyRing(Arc<Inner>);

struct Inner {
    kek: KeyEncryptionKey,
    rows: Arc<dyn Rows>,
    cache: Cache<KeyId, Cached>,
    fresh_for: Duration,
}

#[derive(Clone)]
struct Cached {
    material: Arc<Material>,
    read_at: Instant,
}

/// What a key row holds, behind a version byte.
#[derive(Serialize, Deserialize)]
enum KeyRow {
    /// The key, sealed by the key-encryption key and bound to its id.
    Live { kek: Fingerprint, sealed: Vec<u8> },
    /// The key is gone for ever. The row stays, so that the id cannot come back to life.
    Erased,
}

impl KeyRing {
    /// Keys in `rows`, sealed by `kek`.
    pub fn new(kek: KeyEncryptionKey, rows: Arc<dyn Rows>, config: &Config) -> Self {
        Self(Arc::new(Inner {
            kek,
            rows,
            cache: Cache::new(config.keys_cached.max(1)),
            fresh_for: Duration::from_secs(config.key_cache_seconds),
        }))
    }

    /// The fingerprint of the key-encryption key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.kek.fingerprint()
    }

    /// Makes the key unless it is there. An erased one stays erased.
    pub async fn ensure(&self, key: KeyId) -> Result<(), KeyError> {
        match self.material(key).await {
            Err(KeyError::Missing(_)) => {}
            other => return other.map(drop),
        }
        let row = Row { key: row_key(key), value: self.fresh_row(key) };
        match self.0.rows.put_new(row).await {
            // Made now, or by another at the same time: the row says which.
            Ok(_) => self.material(key).await.map(drop),
            // Not known. No row now does not mean that there will be none, so it is no missing key.
            Err(undecided @ EngineError::Undecided { .. }) => match self.material(key).await {
                Err(KeyError::Missing(_)) => Err(KeyError::Rows(undecided)),
                other => other.map(drop),
            },
            Err(error) => Err(KeyError::Rows(error)),
        }
    }

    /// The queue key of the day that holds `unix_seconds`; made when it is the day's first.
    pub async fn queue_key(&self, unix_seconds: u64) -> Result<KeyId, KeyError> {
        let key = KeyId::Queue(u32::try_from(unix_seconds / 86_400).unwrap_or(u32::MAX));
        self.ensure(key).await?;
        Ok(key)
    }

    /// Up to `limit` queue days above `after` that have a key which was not erased, ascending.
    pub async fn queue_days(&self, after: Option<u32>, limit: usize) -> Result<Vec<u32>, KeyError> {
        let mut days = Vec::new();
        let mut from = after.map_or(Some(0), |day| day.checked_add(1));
        while let Some(first) = from
            && days.len() < limit
        {
            let key = Bytes::copy_from_slice(&first.to_be_bytes());
            let rows = self.0.rows.scan(Table::Key, Bytes::from_static(b"queue"), key, 256).await;
            let rows = rows.map_err(KeyError::Rows)?;
            from = None;
            for (key, value) in rows {
                let day = u32::from_be_bytes(*key.first_chunk().ok_or(KeyError::Damaged(KeyId::Queue(0)))?);
                if matches!(decode_row(KeyId::Queue(day), &value)?, KeyRow::Live { .. }) && days.len() < limit
                {
                    days.push(day);
                }
                from = day.checked_add(1);
            }
        }
        Ok(days)
    }

    /// What seals and opens the entries and pages of the key's log.
    pub async fn sealer(&self, key: KeyId) -> Result<Arc<dyn Sealer>, KeyError> {
        Ok(self.material(key).await?)
    }

    /// Erases a key: what it sealed can never be read again, here or from a backup of the log or of the segments.
    /// Other nodes notice when they next read the row. `false`: it was erased already, or never made.
    pub async fn erase(&self, key: KeyId) -> Result<bool, KeyError> {
        let erased = encode_row(&KeyRow::Erased);
        let mut tried = false;
        for _ in 0..SWAPS_MAX {
            let old = self.0.rows.get(row_key(key)).await.map_err(KeyError::Rows)?;
            let live = match &old {
                None => return Ok(false),
                Some(value) => matches!(decode_row(key, value)?, KeyRow::Live { .. }),
            };
            if !live {
                self.forget(key);
                return Ok(tried);
            }
            tried = true;
            match self.0.rows.replace_if(row_key(key), old, Some(erased.clone())).await {
                Ok(true) => {
                    self.forget(key);
                    return Ok(true);
                }
                Ok(false) | Err(EngineError::Undecided { .. }) => {}
                Err(error) => return Err(KeyError::Rows(error)),
            }
        }
        Err(KeyError::Rows(EngineError::unavailable("the key's row does not come to rest")))
    }

    /// Takes a key over from another ring, whose key-encryption key is another. Done again it does nothing.
    pub async fn carry(&self, from: &Self, key: KeyId) -> Result<(), KeyError> {
        let theirs = from.secret(key).await?.ok_or(KeyError::Missing(key))?;
        if self.secret(key).await?.is_none() {
            let sealed = self.0.kek.material.seal(&binding(key), theirs.as_slice());
            let value = encode_row(&KeyRow::Live { kek: self.fingerprint(), sealed });
            match self.0.rows.put_new(Row { key: row_key(key), value }).await {
                Ok(_) | Err(EngineError::Undecided { .. }) => {}
                Err(error) => return Err(KeyError::Rows(error)),
            }
        }
        match self.secret(key).await? {
            Some(ours) if ours == theirs => Ok(()),
            // Two keys for one id: nothing of this could be read.
            Some(_) => Err(KeyError::Damaged(key)),
            None => Err(KeyError::Missing(key)),
        }
    }

    /// Removes a key that another ring has taken over; other than an erased one it may come back.
    pub async fn withdraw(&self, key: KeyId) -> Result<(), KeyError> {
        for _ in 0..SWAPS_MAX {
            let Some(old) = self.0.rows.get(row_key(key)).await.map_err(KeyError::Rows)? else { break };
            match self.0.rows.replace_if(row_key(key), Some(old), None).await {
                Ok(_) | Err(EngineError::Undecided { .. }) => {}
                Err(error) => return Err(KeyError::Rows(error)),
            }
        }
        self.forget(key);
        Ok(())
    }

    /// The secret of a key, from its row.
    async fn secret(&self, key: KeyId) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
        let value = self.0.rows.get(row_key(key)).await.map_err(KeyError::Rows)?;
        let Some(value) = value else { return Ok(None) };
        match decode_row(key, &value)? {
            KeyRow::Erased => Err(KeyError::Erased(key)),
            KeyRow::Live { kek, sealed } => self.open_sealed(key, kek, &sealed).map(Some),
        }
    }

    pub(crate) async fn wrap(&self, key: KeyId, blob: &BlobKey) -> Result<WrappedKey, KeyError> {
        Ok(self.material(key).await?.wrap(blob))
    }

    pub(crate) async fn unwrap(&self, key: KeyId, wrapped: &WrappedKey) -> Result<BlobKey, KeyError> {
        self.material(key).await?.unwrap(wrapped).ok_or(KeyError::Damaged(key))
    }

    async fn material(&self, key: KeyId) -> Result<Arc<Material>, KeyError> {
        let cached = self.0.cache.get(&key);
        if let Some(cached) = &cached
            && cached.read_at.elapsed() < self.0.fresh_for
        {
            return Ok(Arc::clone(&cached.material));
        }
        let read_at = Instant::now();
        let value = self.0.rows.get(row_key(key)).await.map_err(KeyError::Rows)?;
        let value = value.ok_or(KeyError::Missing(key))?;
        match decode_row(key, &value)? {
            KeyRow::Erased => {
                self.forget(key);
                Err(KeyError::Erased(key))
            }
            KeyRow::Live { kek, sealed } => {
                // The same material goes on, so that an erasure reaches every sealer that was given out.
                let material = match cached {
                    Some(cached) => cached.material,
                    None => Arc::new(self.unseal(key, kek, &sealed)?),
                };
                self.0.cache.insert(key, Cached { material: Arc::clone(&material), read_at });
                Ok(material)
            }
        }
    }

    fn forget(&self, key: KeyId) {
        if let Some((_, cached)) = self.0.cache.remove(&key) {
            cached.material.mark_erased();
        }
    }

    fn fresh_row(&self, key: KeyId) -> Bytes {
        let secret = Material::random_secret();
        let sealed = self.0.kek.material.seal(&binding(key), secret.as_slice());
        encode_row(&KeyRow::Live { kek: self.fingerprint(), sealed })
    }

    fn unseal(&self, key: KeyId, kek: Fingerprint, sealed: &[u8]) -> Result<Material, KeyError> {
        let secret = self.open_sealed(key, kek, sealed)?;
        let secret =
            secret.first_chunk::<32>().filter(|_| secret.len() == 32).ok_or(KeyError::Damaged(key))?;
        Ok(Material::new(secret))
    }

    fn open_sealed(
        &self,
        key: KeyId,
        kek: Fingerprint,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let node = self.fingerprint();
        if kek != node {
            return Err(KeyError::OtherKek { key, row: kek, node });
        }
        let secret = self.0.kek.material.open(&binding(key), sealed).map_err(|_| KeyError::Damaged(key))?;
        Ok(Zeroizing::new(secret))
    }
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyRing({})", self.fingerprint())
    }
}

/// A partition for each key, but one for those of the queue, which are listed.
fn row_key(key: KeyId) -> RowKey {
    let of = |tag: u8, id: uuid::Uuid| {
        let mut partition = vec![tag];
        partition.extend_from_slice(id.as_bytes());
        RowKey::new(Table::Key, partition, Bytes::from_static(b"key"))
    };
    match key {
        KeyId::Account(id) => of(b'a', id),
        KeyId::System(id) => of(b's', id),
        KeyId::Queue(day) => {
            RowKey::new(Table::Key, Bytes::from_static(b"queue"), day.to_be_bytes().to_vec())
        }
    }
}

/// What a sealed key is bound to, so that rows cannot be exchanged.
fn binding(key: KeyId) -> Vec<u8> {
    let mut bytes = b"postrider key row v1 ".to_vec();
    match key {
        KeyId::Account(id) => {
            bytes.push(b'a');
            bytes.extend_from_slice(id.as_bytes());
        }
        KeyId::System(id) => {
            bytes.push(b's');
            bytes.extend_from_slice(id.as_bytes());
        }
        KeyId::Queue(day) => {
            bytes.push(b'q');
            bytes.extend_from_slice(&day.to_be_bytes());
        }
    }
    bytes
}

fn encode_row(row: &KeyRow) -> Bytes {
    let mut bytes = vec![ROW_VERSION];
    bytes.extend(postcard::to_stdvec(row).expect("a key row has only types that postcard encodes"));
    bytes.into()
}

fn decode_row(key: KeyId, value: &[u8]) -> Result<KeyRow, KeyError> {
    match value.split_first() {
        Some((&ROW_VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| KeyError::Damaged(key)),
        _ => Err(KeyError::Damaged(key)),
    }
}
