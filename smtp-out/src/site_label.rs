//! The names of sites in metrics. A label that anybody on the internet can make up would fill the memory of whoever
//! collects them, so only some sites have their own: the first 200 that have been sent ten messages. The rest is
//! *other*.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

/// Sites with a label of their own.
const NAMED_MAX: usize = 200;
/// Messages after which a site gets one.
const MESSAGES_MIN: u32 = 10;
/// Sites that are counted on their way there.
const COUNTED_MAX: NonZeroUsize = NonZeroUsize::new(4_096).expect("not zero");

pub(crate) struct SiteLabels(Mutex<Labels>);

struct Labels {
    named: HashSet<Arc<str>>,
    counted: LruCache<Arc<str>, u32>,
}

impl SiteLabels {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Labels { named: HashSet::new(), counted: LruCache::new(COUNTED_MAX) }))
    }

    /// The label for a message to a site.
    pub(crate) fn of(&self, site: &Arc<str>) -> Arc<str> {
        let mut labels = self.0.lock();
        if labels.named.contains(site) {
            return site.clone();
        }
        if labels.named.len() < NAMED_MAX {
            let count = labels.counted.get_or_insert_mut(site.clone(), || 0);
            *count += 1;
            if *count >= MESSAGES_MIN {
                labels.counted.pop(site);
                labels.named.insert(site.clone());
                return site.clone();
            }
        }
        Arc::from("other")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded() {
        let labels = SiteLabels::new();
        let mut own = 0;
        for number in 0..1_000 {
            let site: Arc<str> = Arc::from(format!("site{number}.test"));
            for message in 1..=MESSAGES_MIN {
                let label = labels.of(&site);
                assert!(message == MESSAGES_MIN || &*label == "other");
                own += u32::from(label == site);
            }
        }
        assert_eq!(own, NAMED_MAX as u32);
        assert_eq!(&*labels.of(&"site0.test".into()), "site0.test");
    }
}
