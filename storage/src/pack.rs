//! Packing by hand what serde would make large: columns and UID sets. And the digest of a row.

use engine::FormatError;
use mail::id::Uid;
use mail::uid::{UidRange, UidSet};

/// Appends a number, seven bits to a byte, low bits first.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// As [`put_varint`], for numbers near zero on either side.
pub(crate) fn put_zigzag(out: &mut Vec<u8>, number: i64) {
    put_varint(out, (number << 1 ^ number >> 63) as u64);
}

/// Appends the difference to the number before, which becomes this one.
pub(crate) fn put_delta(out: &mut Vec<u8>, before: &mut u64, number: u64) {
    put_zigzag(out, number.wrapping_sub(*before) as i64);
    *before = number;
}

/// Takes packed values apart. Whatever the bytes are: an error, never a panic, and no more memory than they justify.
pub(crate) struct Unpack<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Unpack<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { bytes, what }
    }

    pub(crate) fn malformed(&self, reason: &'static str) -> FormatError {
        FormatError::malformed(self.what, reason)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, FormatError> {
        let (first, rest) = self.bytes.split_first().ok_or_else(|| self.malformed("too short"))?;
        self.bytes = rest;
        Ok(*first)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, FormatError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.malformed("number too long"))
    }

    pub(crate) fn varint_u32(&mut self) -> Result<u32, FormatError> {
        self.varint()?.try_into().map_err(|_| self.malformed("number too large"))
    }

    pub(crate) fn zigzag(&mut self) -> Result<i64, FormatError> {
        let number = self.varint()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub(crate) fn delta(&mut self, before: &mut u64) -> Result<u64, FormatError> {
        *before = before.wrapping_add(self.zigzag()? as u64);
        Ok(*before)
    }

    /// A number of things that take at least one byte each.
    pub(crate) fn count(&mut self, at_most: usize) -> Result<usize, FormatError> {
        let count = self.varint()? as usize;
        if count > at_most || count > self.bytes.len() {
            return Err(self.malformed("too many"));
        }
        Ok(count)
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn finish(self) -> Result<(), FormatError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.malformed("bytes left over")) }
    }
}

const RANGES: u8 = 0;
const BITMAP: u8 = 1;

/// Packs a set as ranges or as a bitmap, whichever is smaller: one message in two costs a bit, not two bytes.
pub(crate) fn pack_uids(set: &UidSet) -> Vec<u8> {
    let mut ranges = vec![RANGES];
    put_varint(&mut ranges, set.ranges().len() as u64);
    let mut before = 0;
    for range in set.ranges() {
        put_varint(&mut ranges, u64::from(range.first.get() - before));
        put_varint(&mut ranges, range.len() - 1);
        before = range.last.get();
    }
    let (Some(first), Some(last)) = (set.first(), set.last()) else { return ranges };
    let bitmap_bytes = (last.get() - first.get()) as usize / 8 + 1;
    if ranges.len() <= bitmap_bytes + 6 {
        return ranges;
    }
    let mut packed = vec![BITMAP];
    put_varint(&mut packed, u64::from(first.get()));
    let start = packed.len();
    packed.resize(start + bitmap_bytes, 0);
    for uid in set.iter() {
        let bit = (uid.get() - first.get()) as usize;
        packed[start + bit / 8] |= 1 << (bit % 8);
    }
    packed
}

/// Reverse of [`pack_uids`].
pub(crate) fn unpack_uids(packed: &[u8]) -> Result<UidSet, FormatError> {
    let mut unpack = Unpack::new("UID set", packed);
    match unpack.byte()? {
        RANGES => {
            let count = unpack.count(packed.len() / 2)?;
            let mut ranges = Vec::with_capacity(count);
            let mut before = 0u32;
            for _ in 0..count {
                let gap = unpack.varint_u32()?;
                let more = unpack.varint_u32()?;
                let first = before.checked_add(gap).and_then(Uid::new).filter(|_| gap > 0);
                let last = first.and_then(|first| first.get().checked_add(more)).and_then(Uid::new);
                let (Some(first), Some(last)) = (first, last) else {
                    return Err(unpack.malformed("not ascending"));
                };
                ranges.push(UidRange { first, last });
                before = last.get();
            }
            unpack.finish()?;
            Ok(ranges.into_iter().collect())
        }
        BITMAP => {
            let first = unpack.varint_u32()?;
            let bits = unpack.rest();
            let mut set = UidSet::new();
            let mut open: Option<u32> = None;
            for bit in 0..=bits.len() * 8 {
                let is_set = bit < bits.len() * 8 && bits[bit / 8] >> (bit % 8) & 1 != 0;
                let at = u64::from(first) + bit as u64;
                match open {
                    None if is_set => {
                        open = Some(u32::try_from(at).map_err(|_| unpack.malformed("beyond the last UID"))?);
                    }
                    Some(begin) if !is_set => {
                        let ends = Uid::new(begin).zip(u32::try_from(at - 1).ok().and_then(Uid::new));
                        let (first, last) = ends.ok_or_else(|| unpack.malformed("not a UID"))?;
                        set.insert_range(UidRange { first, last });
                        open = None;
                    }
                    _ => {}
                }
            }
            Ok(set)
        }
        form => Err(FormatError::Unknown { what: "form of UID set", number: form.into() }),
    }
}

/// For `#[serde(with = "packed_uids")]`.
pub(crate) mod packed_uids {
    use mail::uid::UidSet;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(set: &UidSet, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&super::pack_uids(set))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UidSet, D::Error> {
        let packed = <&[u8]>::deserialize(deserializer)?;
        super::unpack_uids(packed).map_err(D::Error::custom)
    }
}

/// Packs ascending or nearly ascending numbers.
pub(crate) fn pack_numbers(numbers: &[u64]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(numbers.len() * 2);
    let mut before = 0;
    for number in numbers {
        put_delta(&mut packed, &mut before, *number);
    }
    packed
}

/// Reverse of [`pack_numbers`].
pub(crate) fn unpack_numbers(packed: &[u8]) -> Result<Vec<u64>, FormatError> {
    let mut unpack = Unpack::new("numbers", packed);
    let mut numbers = Vec::new();
    let mut before = 0;
    while !unpack.rest().is_empty() {
        numbers.push(unpack.delta(&mut before)?);
    }
    Ok(numbers)
}

/// For `#[serde(with = "packed_numbers")]`.
pub(crate) mod packed_numbers {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(numbers: &[u64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&super::pack_numbers(numbers))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
        let packed = <&[u8]>::deserialize(deserializer)?;
        super::unpack_numbers(packed).map_err(D::Error::custom)
    }
}

/// The digest of one row. Digests of rows are added up, so that the digest of a state depends neither on the pages that
/// its rows lie in nor on the order in which they came there.
pub(crate) fn row_digest(table: u8, row: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[table]);
    hasher.update(row);
    let hash = hasher.finalize();
    let (low, _) = hash.as_bytes().split_at(16);
    u128::from_le_bytes(low.try_into().expect("split at 16"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(text: &str) -> UidSet {
        UidSet::parse(text).unwrap()
    }

    #[test]
    fn uid_sets_take_the_smaller_form() {
        let every_second: UidSet = (1..50_000).step_by(2).filter_map(Uid::new).collect();
        for (set, bytes_max) in [
            (UidSet::new(), 2),
            (set("1:4294967295"), 8),
            (set("1,4294967295"), 10),
            (set("7,9,11"), 8),
            (every_second, 6_300),
        ] {
            let packed = pack_uids(&set);
            assert!(packed.len() <= bytes_max, "{} bytes", packed.len());
            assert_eq!(unpack_uids(&packed).unwrap(), set);
        }
    }

    #[test]
    fn damaged_uid_sets_are_refused() {
        for packed in [
            &[][..],
            &[2, 0],
            &[0, 1],
            &[0, 1, 0, 0],
            &[0, 2, 1, 0, 0, 0],
            &[0, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, 1],
            &[0, 1, 1, 0, 9],
            &[1, 0, 1],
            &[1, 0xff, 0xff, 0xff, 0xff, 0x0f, 3],
            &[0, 0xff, 0xff, 0xff, 0xff, 0x7f],
        ] {
            assert!(unpack_uids(packed).is_err(), "{packed:?}");
        }
    }

    #[test]
    fn numbers_at_their_ends_survive() {
        let mut out = Vec::new();
        for number in [0, 1, 127, 128, u64::MAX - 1, u64::MAX] {
            put_varint(&mut out, number);
            put_zigzag(&mut out, number as i64);
        }
        let mut unpack = Unpack::new("test", &out);
        for number in [0, 1, 127, 128, u64::MAX - 1, u64::MAX] {
            assert_eq!(unpack.varint().unwrap(), number);
            assert_eq!(unpack.zigzag().unwrap(), number as i64);
        }
        unpack.finish().unwrap();
        assert!(Unpack::new("test", &[0xff; 10]).varint().is_err());
        assert!(Unpack::new("test", &[0xff; 9]).varint().is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_uid_set_survives(uids in proptest::collection::vec(1u32..3000, 0..400), far in any::<u32>()) {
            let set: UidSet = uids.into_iter().chain([far]).filter_map(Uid::new).collect();
            prop_assert_eq!(unpack_uids(&pack_uids(&set)).unwrap(), set);
        }

        #[test]
        fn any_bytes_are_a_set_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = unpack_uids(&bytes);
        }

        #[test]
        fn any_numbers_survive(numbers in proptest::collection::vec(any::<u64>(), 0..50)) {
            prop_assert_eq!(unpack_numbers(&pack_numbers(&numbers)).unwrap(), numbers);
        }
    }
}
