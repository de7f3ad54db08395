//! The stored bytes of a table: root and pages, each a version byte and a postcard value. Checksums and sealing are
//! the engine's.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{FormatError, PageId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;

/// A page is cut before it grows beyond this, unless one record alone is larger. One look-up reads one page.
pub(crate) const PAGE_BYTES: usize = 32 * 1024;

/// The root of a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Root<S> {
    pub(crate) settings: S,
    /// Records in all pages.
    pub(crate) count: u64,
    /// Exclusive or of the digests of all records.
    pub(crate) content: [u8; 32],
    pub(crate) archived_seq: u64,
    pub(crate) archived_address: Vec<u8>,
    /// The pages by first key. The first one covers everything before the second.
    pub(crate) pages: Vec<StoredPage>,
}

/// A page as the root names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredPage {
    /// No key in the page is smaller. Keys from here up to the next page's first one belong here.
    pub(crate) first: String,
    pub(crate) id: PageId,
    /// Octets of the encoded page.
    pub(crate) bytes: u32,
}

/// The records of a page in memory.
pub(crate) type Records<R> = BTreeMap<String, Arc<R>>;

/// Writes a version byte and the value.
pub(crate) fn encode<V: Serialize>(value: &V) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).expect("stored values hold nothing that postcard cannot write")
}

/// Reads what [`encode`] wrote, to the last octet.
pub(crate) fn decode<V: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<V, FormatError> {
    match bytes.split_first() {
        Some((&VERSION, value)) => match postcard::take_from_bytes(value) {
            Ok((value, [])) => Ok(value),
            Ok(_) => Err(FormatError::malformed(what, "octets after its end")),
            Err(error) => Err(FormatError::malformed(what, error)),
        },
        Some((&version, _)) => Err(FormatError::Unknown { what, number: version.into() }),
        None => Err(FormatError::malformed(what, "empty")),
    }
}

/// Reads a page; its keys must ascend.
pub(crate) fn decode_records<R: DeserializeOwned>(bytes: &[u8]) -> Result<Records<R>, FormatError> {
    let list: Vec<(String, R)> = decode("directory page", bytes)?;
    if !list.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(FormatError::malformed("directory page", "keys do not ascend"));
    }
    Ok(list.into_iter().map(|(key, record)| (key, Arc::new(record))).collect())
}

/// Cuts records into pages; at least one, and none larger than [`PAGE_BYTES`] but for single records that are.
pub(crate) fn encode_records<R: Serialize>(records: &Records<R>) -> Vec<(Option<&str>, Vec<u8>)> {
    // The list of (key, record) pairs is written by hand, so that each pair is encoded once and the cut is exact.
    let mut pages: Vec<(Option<&str>, Vec<u8>)> = Vec::new();
    let mut pairs: Vec<u8> = Vec::new();
    let mut count = 0_usize;
    let mut first = None;
    for (key, record) in records {
        let pair =
            postcard::to_stdvec(&(key, &**record)).expect("records hold nothing that postcard cannot write");
        if count > 0 && pairs.len() + pair.len() > PAGE_BYTES {
            pages.push((first, assemble(count, &pairs)));
            pairs.clear();
            count = 0;
        }
        if count == 0 {
            first = Some(key.as_str());
        }
        count += 1;
        pairs.extend_from_slice(&pair);
    }
    pages.push((first, assemble(count, &pairs)));
    pages
}

fn assemble(count: usize, pairs: &[u8]) -> Vec<u8> {
    let mut page = postcard::to_extend(&count, vec![VERSION]).expect("a number can be written");
    page.extend_from_slice(pairs);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(numbers: std::ops::Range<u32>, size: usize) -> Records<String> {
        numbers.map(|n| (format!("key{n:05}"), Arc::new("x".repeat(size)))).collect()
    }

    #[test]
    fn pages_hold_what_was_put_in_and_are_cut() {
        for (count, size, pages) in [(0, 0, 1), (1, 10, 1), (10, 10, 1), (100, 1000, 4), (3, 100_000, 3)] {
            let whole = records(0..count, size);
            let cut = encode_records(&whole);
            assert_eq!(cut.len(), pages);
            let mut back = Records::new();
            for (first, bytes) in &cut {
                let page = decode_records::<String>(bytes).unwrap();
                assert_eq!(page.keys().next().map(String::as_str), *first);
                assert!(bytes.len() <= PAGE_BYTES + 16 || page.len() == 1);
                back.extend(page);
            }
            assert_eq!(back, whole);
        }
    }

    #[test]
    fn damage_is_refused() {
        let (_, good) = encode_records(&records(0..5, 20)).remove(0);
        assert!(decode_records::<String>(&good).is_ok());
        assert!(decode_records::<String>(&[]).is_err());
        assert!(decode_records::<String>(&good[..good.len() - 1]).is_err());
        let longer: Vec<u8> = good.iter().copied().chain([0]).collect();
        assert!(decode_records::<String>(&longer).is_err());
        let newer: Vec<u8> = [2].into_iter().chain(good[1..].iter().copied()).collect();
        assert_eq!(
            decode_records::<String>(&newer),
            Err(FormatError::Unknown { what: "directory page", number: 2 })
        );
        let unsorted = encode(&vec![("b", "1"), ("a", "2")]);
        assert!(decode_records::<String>(&unsorted).is_err());
    }
}
