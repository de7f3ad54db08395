//! Messages between nodes, and how one knows that another node wrote them.
//!
//! ```text
//! version 1 · boot of the sender 16 · number 8 (BE) · body · keyed BLAKE3 32 of subject length 8 (BE), subject and all before
//! ```
//!
//! The subject is part of what is authenticated, so that a message cannot be moved to another purpose, another receiver
//! or another installation. Against saying the same thing twice stands the number, where that matters.

use bytes::{BufMut, Bytes, BytesMut};
use zeroize::Zeroizing;

use crate::node::Boot;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 16 + 8;
const MAC_BYTES: usize = 32;

/// What a message has beside its body.
pub(crate) const OVERHEAD_BYTES: usize = HEAD_BYTES + MAC_BYTES;

/// The key that all nodes of an installation share.
#[derive(Clone)]
pub struct MessageKey(Zeroizing<[u8; 32]>);

/// A message that a node wrote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Opened {
    pub(crate) from: Boot,
    pub(crate) number: u64,
    pub(crate) body: Bytes,
}

impl MessageKey {
    /// The key for messages that belongs to a secret of the installation, which may serve for other things too.
    pub fn derive(secret: &[u8]) -> Self {
        Self(Zeroizing::new(blake3::derive_key("postrider node messages v1", secret)))
    }

    pub(crate) fn close(&self, subject: &str, from: Boot, number: u64, body: &[u8]) -> Bytes {
        let mut message = BytesMut::with_capacity(OVERHEAD_BYTES + body.len());
        message.put_u8(VERSION);
        message.put_slice(from.as_bytes());
        message.put_u64(number);
        message.put_slice(body);
        let mac = self.mac(subject, &message);
        message.put_slice(mac.as_bytes());
        message.freeze()
    }

    /// `None`: no node wrote this, or not for this subject.
    pub(crate) fn open(&self, subject: &str, message: &Bytes) -> Option<Opened> {
        let signed = message.len().checked_sub(MAC_BYTES).filter(|length| *length >= HEAD_BYTES)?;
        let (written, mac) = message.split_at(signed);
        let mac: [u8; MAC_BYTES] = mac.try_into().ok()?;
        // Hashes are compared in constant time.
        if self.mac(subject, written) != blake3::Hash::from_bytes(mac) || written[0] != VERSION {
            return None;
        }
        let from = Boot::from_bytes(&written[1..17])?;
        let number = u64::from_be_bytes(written[17..HEAD_BYTES].try_into().ok()?);
        Some(Opened { from, number, body: message.slice(HEAD_BYTES..signed) })
    }

    fn mac(&self, subject: &str, written: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&(subject.len() as u64).to_be_bytes());
        hasher.update(subject.as_bytes()).update(written).finalize()
    }
}

impl std::fmt::Debug for MessageKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MessageKey")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn key() -> MessageKey {
        MessageKey::derive(b"secret")
    }

    #[test]
    fn what_was_closed_opens_for_its_subject_and_key_only() {
        let from = Boot::fresh();
        let message = key().close("a.b", from, 7, b"body");
        let opened = Opened { from, number: 7, body: Bytes::from_static(b"body") };
        assert_eq!(key().open("a.b", &message), Some(opened));
        assert_eq!(key().open("a.c", &message), None);
        assert_eq!(MessageKey::derive(b"other").open("a.b", &message), None);
        // Bytes cannot go from the subject to the message.
        assert_eq!(key().open("a.b\u{1}", &message.slice(1..)), None);
    }

    #[test]
    fn every_bit_counts() {
        let message = key().close("s", Boot::fresh(), 1, b"xy");
        for bit in 0..message.len() * 8 {
            let mut changed = message.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key().open("s", &changed.into()), None, "{bit}");
        }
        for length in 0..message.len() {
            assert_eq!(key().open("s", &message.slice(..length)), None, "{length}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn garbage_is_refused(garbage in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(key().open("s", &garbage.into()), None);
        }
    }
}
