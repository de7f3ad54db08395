//! Which region has a name, where there are several.
//!
//! A region is an installation of its own; this is the only thing that all of them share: rows of an engine that each of
//! them reaches, from the hash of a name to the region whose directory has it. A name is claimed before it is made and
//! given back after it is removed, so that it is in one region only, whatever is cut short in between. A directory asks
//! here about names of its domains that it has not itself, and about no others: who is at home needs nobody else.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use bytes::Bytes;
use engine::{EngineError, RowKey, Rows, Table};
use mail::region::Region;

use crate::admin::AdminError;
use crate::look::{Temporary, temporary};

/// The table's partitions are named for what they hold; each has one row, so that names do not wait for each other.
const PARTITION: &[u8] = b"home/";
const KEY: &[u8] = b"region";
/// The first byte of a row.
const VERSION: u8 = 1;
/// How often a name is claimed that is given back at once, each time.
const CLAIMS_MAX: usize = 8;
/// What the key of the hash is made for.
const PURPOSE: &[u8] = b"postrider names of regions v1";

/// The regions' common table, as one of them sees it. Cheap to clone.
#[derive(Clone)]
pub struct Homes {
    rows: Arc<dyn Rows>,
    here: Region,
    /// Whoever reads the rows must not learn by guessing who has an account, so the hash has a key.
    key: Arc<hmac::Key>,
}

impl Homes {
    /// The table in `rows`, for the region `here`. All regions have the same `secret`.
    pub fn new(rows: Arc<dyn Rows>, here: Region, secret: &[u8]) -> Self {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), PURPOSE);
        Self { rows, here, key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())) }
    }

    /// The region that this directory is of.
    pub fn here(&self) -> &Region {
        &self.here
    }

    /// The region that has a name (`local@domain`, folded), if any.
    pub async fn of(&self, name: &str) -> Result<Option<Region>, Temporary> {
        let row = self.rows.get(self.row(name)).await.map_err(|error| temporary(&error))?;
        row.map(|bytes| read(&bytes)).transpose()
    }

    /// The other region that has a name, if any.
    pub(crate) async fn elsewhere(&self, name: &str) -> Result<Option<Region>, Temporary> {
        Ok(self.of(name).await?.filter(|region| *region != self.here))
    }

    /// Claims a name for this region. Claiming what is ours already does nothing.
    pub(crate) async fn claim(&self, name: &str) -> Result<(), AdminError> {
        for _ in 0..CLAIMS_MAX {
            // A commit of unknown outcome is seen below, as ours or as another's.
            let outcome = self.replace(name, None, Some(&self.here)).await;
            match self.of(name).await? {
                Some(region) if region == self.here => return Ok(()),
                Some(region) => return Err(AdminError::Elsewhere { name: name.to_owned(), region }),
                // Given back at once, by a removal of the same name.
                None => outcome.map(drop).map_err(|error| temporary(&error))?,
            }
        }
        Err(Temporary("a claim on a name was taken back at once".to_owned()).into())
    }

    /// Gives a name back. One that is not ours is left alone.
    pub(crate) async fn release(&self, name: &str) -> Result<(), Temporary> {
        self.replace(name, Some(&self.here), None).await.map(drop).map_err(|error| temporary(&error))
    }

    /// Says that another region has a name that is ours. Done again it does nothing.
    pub(crate) async fn hand_over(&self, name: &str, to: &Region) -> Result<(), AdminError> {
        // A commit of unknown outcome is seen below.
        let outcome = self.replace(name, Some(&self.here), Some(to)).await;
        match self.of(name).await? {
            Some(region) if region == *to => Ok(()),
            found => Err(match outcome {
                Err(error) => temporary(&error).into(),
                Ok(_) => AdminError::Undecided(match found {
                    Some(region) => format!("{name} is in region {region}"),
                    None => format!("{name} is in no region"),
                }),
            }),
        }
    }

    async fn replace(
        &self,
        name: &str,
        from: Option<&Region>,
        to: Option<&Region>,
    ) -> Result<bool, EngineError> {
        self.rows.replace_if(self.row(name), from.map(write), to.map(write)).await
    }

    fn row(&self, name: &str) -> RowKey {
        let hash = hmac::sign(&self.key, name.as_bytes());
        RowKey::new(Table::Mark, [PARTITION, hash.as_ref()].concat(), KEY)
    }
}

impl fmt::Debug for Homes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Homes").field("here", &self.here).finish_non_exhaustive()
    }
}

fn write(region: &Region) -> Bytes {
    [&[VERSION], region.as_str().as_bytes()].concat().into()
}

fn read(bytes: &[u8]) -> Result<Region, Temporary> {
    let text = bytes.strip_prefix(&[VERSION]).and_then(|name| std::str::from_utf8(name).ok());
    // Another release wrote it, or nobody did: either way not a thing to guess about.
    text.and_then(|name| name.parse().ok())
        .ok_or_else(|| Temporary("the regions' table has a row that is not understood".to_owned()))
}

#[cfg(test)]
mod tests {
    use engine::memory::MemoryEngine;

    use super::*;

    fn homes(engine: &MemoryEngine, region: &str, secret: &[u8]) -> Homes {
        Homes::new(engine.engine().rows, region.parse().expect("a name"), secret)
    }

    #[tokio::test]
    async fn a_name_has_one_region() {
        let engine = MemoryEngine::new();
        let [eu, us] = ["eu", "us"].map(|region| homes(&engine, region, b"secret"));
        eu.claim("alice@example.test").await.expect("free");
        eu.claim("alice@example.test").await.expect("ours");
        let taken = us.claim("alice@example.test").await;
        assert!(matches!(taken, Err(AdminError::Elsewhere { region, .. }) if region.as_str() == "eu"));
        us.release("alice@example.test").await.expect("nothing to do");
        assert_eq!(us.elsewhere("alice@example.test").await.unwrap().unwrap().as_str(), "eu");
        assert_eq!(eu.elsewhere("alice@example.test").await.unwrap(), None, "it is here");
        assert_eq!(us.elsewhere("bob@example.test").await.unwrap(), None);
        eu.release("alice@example.test").await.unwrap();
        us.claim("alice@example.test").await.expect("free again");
        assert_eq!(eu.of("alice@example.test").await.unwrap().unwrap().as_str(), "us");
    }

    #[tokio::test]
    async fn rows_do_not_say_whose_they_are() {
        let engine = MemoryEngine::new();
        homes(&engine, "eu", b"secret").claim("alice@example.test").await.unwrap();
        assert_eq!(homes(&engine, "us", b"another").of("alice@example.test").await.unwrap(), None);
    }
}
