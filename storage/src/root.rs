//! The root of an account: what is always read, and which pages there are.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use bytes::Bytes;
use engine::FormatError;
use mail::flag::Keyword;
use mail::id::{MailboxId, ModSeq, Uid, UidValidity};
use serde::{Deserialize, Serialize};

use crate::email_page::StoredEmailSlot;
use crate::history::Latest;
use crate::index::{StoredPage, StoredSlot};
use crate::mailbox::{Mailbox, Role};
use crate::marks::Marks;
use crate::object::Objects;
use crate::quota::Quota;
use crate::run::StoredRunPage;
use crate::suppression::Suppressed;
use crate::trail::StoredTrail;
use crate::upload::Upload;

const VERSION: u8 = 1;
/// As version 1, and behind it the addresses that mail is not sent to.
const VERSION_WITH_SUPPRESSIONS: u8 = 2;
/// As version 2, and behind it an [`Extension`]. The others are only read.
const VERSION_WITH_EXTENSION: u8 = 3;

/// How large the pages of an account are. Fixed when the account is made, so that all nodes cut them alike; no state
/// depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Layout {
    /// Messages on an index page. Each commit to a mailbox copies its last page in memory, and each snapshot writes it
    /// (some 18 bytes per message); each page costs 60 bytes in the root.
    pub index_messages: u16,
    /// Records on an email page.
    pub email_records: u16,
    /// Keys on a page of thread keys. A look-up reads such a page of each run.
    pub run_keys: u16,
    /// Octets of a page of expunges or of retained messages.
    pub trail_bytes: u16,
}

impl Default for Layout {
    fn default() -> Self {
        Self { index_messages: 1024, email_records: 256, run_keys: 1024, trail_bytes: 32 << 10 }
    }
}

/// The part of the root that is not about pages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Base {
    pub(crate) layout: Layout,
    pub(crate) next_mailbox: u32,
    pub(crate) next_email: u64,
    pub(crate) last_uid_validity: u32,
    pub(crate) keywords: Vec<Keyword>,
    pub(crate) subscriptions: BTreeSet<String>,
    pub(crate) quota: Quota,
    pub(crate) archived_seq: u64,
    pub(crate) archived_address: Bytes,
    pub(crate) closed: bool,
}

/// A mailbox without its messages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct MailboxRoot {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) role: Option<Role>,
    pub(crate) uid_validity: NonZeroU32,
    /// Beyond `u32::MAX` when all have been given out.
    pub(crate) uid_next: u64,
    pub(crate) messages: u32,
    pub(crate) unseen: u32,
    pub(crate) deleted: u32,
    pub(crate) size: u64,
    pub(crate) highest_modseq: u64,
    pub(crate) keywords: Marks,
}

/// The root as stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Root {
    pub(crate) seq: u64,
    pub(crate) base: Base,
    pub(crate) mailboxes: Vec<(MailboxRoot, Vec<StoredSlot>)>,
    pub(crate) emails: Vec<StoredEmailSlot>,
    pub(crate) threads: Vec<Vec<StoredRunPage>>,
    pub(crate) expunged: StoredTrail,
    pub(crate) retained: StoredTrail,
    pub(crate) producers: Option<StoredPage>,
}

/// What stands behind the root and the suppressed addresses.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Extension {
    pub(crate) history: StoredTrail,
    pub(crate) latest: Latest,
    pub(crate) sort_orders: BTreeMap<u32, u32>,
    pub(crate) objects: Objects,
    pub(crate) uploads: BTreeMap<u64, Upload>,
}

/// A root with all that stands behind it. `None`: it was written when there was nothing to stand there.
pub(crate) type WholeRoot = (Root, BTreeMap<String, Suppressed>, Option<Extension>);

impl Root {
    pub(crate) fn encode(
        &self,
        suppressions: &BTreeMap<String, Suppressed>,
        extension: &Extension,
    ) -> Vec<u8> {
        const NOTHING_REFUSED: &str = "the root holds nothing that postcard refuses";
        let root = postcard::to_extend(self, vec![VERSION_WITH_EXTENSION]).expect(NOTHING_REFUSED);
        let root = postcard::to_extend(suppressions, root).expect(NOTHING_REFUSED);
        postcard::to_extend(extension, root).expect(NOTHING_REFUSED)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<WholeRoot, FormatError> {
        let malformed = |error| FormatError::malformed("account root", error);
        let (version, payload) =
            bytes.split_first().ok_or_else(|| FormatError::malformed("account root", "empty"))?;
        if !(VERSION..=VERSION_WITH_EXTENSION).contains(version) {
            return Err(FormatError::Unknown { what: "version of account root", number: (*version).into() });
        }
        let (root, mut rest) = postcard::take_from_bytes(payload).map_err(malformed)?;
        let mut suppressions = BTreeMap::new();
        if *version >= VERSION_WITH_SUPPRESSIONS {
            (suppressions, rest) = postcard::take_from_bytes(rest).map_err(malformed)?;
        }
        let mut extension = None;
        if *version >= VERSION_WITH_EXTENSION {
            let (found, after) = postcard::take_from_bytes(rest).map_err(malformed)?;
            (extension, rest) = (Some(found), after);
        }
        if !rest.is_empty() {
            return Err(FormatError::malformed("account root", "bytes left over"));
        }
        Ok((root, suppressions, extension))
    }
}

impl MailboxRoot {
    pub(crate) fn view(&self, sort_order: u32) -> Mailbox {
        Mailbox {
            id: MailboxId(self.id),
            name: self.name.clone(),
            role: self.role,
            uid_validity: UidValidity(self.uid_validity),
            uid_next: u32::try_from(self.uid_next).ok().and_then(Uid::new),
            messages: self.messages,
            unseen: self.unseen,
            deleted: self.deleted,
            size: self.size,
            highest_modseq: ModSeq(self.highest_modseq),
            keywords: self.keywords.visible(),
            sort_order,
        }
    }
}
