//! What is said about leases between nodes: version 1, then postcard.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Need;

const VERSION: u8 = 1;

/// Longest name of a site.
const SITE_BYTES_MAX: usize = 1_024;

/// A node asks the owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ask {
    pub(super) site: String,
    pub(super) need: Need,
}

/// The owner's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) slots: u32,
    pub(super) messages: u32,
}

/// Site, slots in use and wanted, messages wanted and not used.
type AskForm = (String, u32, u32, u32, u32);

impl Ask {
    pub(super) fn encode(&self) -> Bytes {
        let Need { slots_in_use, slots_wanted, messages_wanted, messages_unused } = self.need;
        let form: AskForm = (self.site.clone(), slots_in_use, slots_wanted, messages_wanted, messages_unused);
        encode(&form)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let form: AskForm = decode(bytes)?;
        let (site, slots_in_use, slots_wanted, messages_wanted, messages_unused) = form;
        let need = Need { slots_in_use, slots_wanted, messages_wanted, messages_unused };
        (site.len() <= SITE_BYTES_MAX).then_some(Self { site, need })
    }
}

impl Grant {
    pub(super) fn encode(self) -> Bytes {
        encode(&self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        decode(bytes)
    }
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    postcard::to_extend(value, vec![VERSION]).expect("texts and numbers can be written").into()
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (version, rest) = bytes.split_first()?;
    let (value, rest) = postcard::take_from_bytes(rest).ok()?;
    (*version == VERSION && rest.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    #[test]
    fn the_bytes_are_frozen() {
        let need = Need { slots_in_use: 1, slots_wanted: 200, messages_wanted: 3, messages_unused: 4 };
        let ask = Ask { site: "mx".into(), need };
        assert_eq!(ask.encode()[..], [1, 2, b'm', b'x', 1, 200, 1, 3, 4]);
        assert_eq!(Ask::decode(&ask.encode()), Some(ask));
        let grant = Grant { slots: 5, messages: 300 };
        assert_eq!(grant.encode()[..], [1, 5, 172, 2]);
        assert_eq!(Grant::decode(&grant.encode()), Some(grant));
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn garbage_is_refused_or_harmless(garbage in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Grant::decode(&garbage);
            if let Some(ask) = Ask::decode(&garbage) {
                prop_assert_eq!(Ask::decode(&ask.encode()), Some(ask));
            }
        }
    }
}
