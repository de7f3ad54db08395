//! The operations of an account's log.
//!
//! An operation is a resolved effect: it says which UIDs get which flags, not what a client asked for, and what that
//! means for the counts in the root. Variants and fields are stored: new variants go to the end, and what exists keeps
//! its meaning for ever.

use bytes::Bytes;
use engine::FormatError;
use mail::flag::Keyword;
use mail::uid::UidSet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::append::IngestId;
use crate::mailbox::Role;
use crate::marks::Marks;
use crate::pack::{Unpack, packed_numbers, packed_uids, put_delta, put_varint, put_zigzag};
use crate::suppression::Suppressed;
use crate::upload::Upload;

/// First byte of every stored operation.
const VERSION: u8 = 1;

/// A change of an account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Operation {
    /// A new email in a mailbox.
    AppendMessage(AppendMessage),
    /// Flags and keywords of messages.
    Flags(FlagsChanged),
    /// Messages in another mailbox too.
    Copy(CopyMessages),
    /// Messages in another mailbox instead.
    Move(MoveMessages),
    /// Messages taken out of a mailbox.
    Expunge(ExpungeMessages),
    /// A new mailbox.
    MailboxCreate(MailboxCreate),
    /// Mailboxes with new names; a mailbox is renamed together with its inferiors.
    MailboxRename {
        /// Mailbox and new name.
        names: Vec<(u32, String)>,
    },
    /// A mailbox, emptied before, is gone.
    MailboxDelete {
        /// Which.
        mailbox: u32,
    },
    /// A subscription to a name.
    Subscribe {
        /// The name.
        name: String,
        /// Whether it begins or ends.
        subscribed: bool,
    },
    /// A keyword has got the next free number.
    KeywordNamed {
        /// Its number.
        number: u8,
        /// Its name.
        name: Keyword,
    },
    /// A delivery will not happen.
    IngestRejected(Ingest),
    /// All items of a producer below a number are done.
    Watermark {
        /// The producer's log.
        producer: Uuid,
        /// The number.
        below: u64,
    },
    /// Entries up to a number are in the archive.
    Archived {
        /// The number.
        to: u64,
        /// Where the newest chunk lies.
        address: Bytes,
        /// Tells attempts apart.
        nonce: Uuid,
    },
    /// Memories end.
    Forget {
        /// Expunges up to this number are forgotten.
        expunged_to: u64,
        /// What messages were that were expunged up to this number is forgotten.
        retained_to: u64,
        /// Records of these emails go; they are in no mailbox and in nothing retained.
        #[serde(with = "packed_numbers")]
        emails: Vec<u64>,
    },
    /// The account is closed; nothing follows but what opens it again.
    Closed,
    /// New limits.
    QuotaLimit {
        /// Octets.
        bytes_max: Option<u64>,
        /// Messages.
        messages_max: Option<u64>,
    },
    /// A mailbox has another role, or none.
    MailboxRole {
        /// Which.
        mailbox: u32,
        /// Its role.
        role: Option<Role>,
    },
    /// Mail of the account is not sent to an address any more, or again.
    Suppress {
        /// The address, as `Address::key` has it.
        address: String,
        /// Why not. `None`: it is sent again.
        why: Option<Suppressed>,
    },
    /// An account that was closed goes on: it has come from another region.
    Opened {
        /// From which one.
        from: String,
        /// Into which one.
        into: String,
    },
    /// Messages taken out of a mailbox, with what that means for emails and threads. Takes the place of
    /// [`Operation::Expunge`], which does not say it.
    ExpungeEmails(ExpungeEmails),
    /// Messages in another mailbox instead, some of whose emails that mailbox held already.
    MoveShared {
        /// As by [`Operation::Move`].
        moved: MoveMessages,
        /// Emails that are no longer where they were and go on where they were too; what came there instead is another
        /// email.
        #[serde(with = "packed_numbers")]
        left: Vec<u64>,
    },
    /// Where clients show a mailbox among its neighbours (RFC 8621 §2 `sortOrder`).
    MailboxOrder {
        /// Which.
        mailbox: u32,
        /// Ascending; zero where nothing was said.
        sort_order: u32,
    },
    /// What changed up to a number is forgotten.
    ForgetHistory {
        /// The number.
        to: u64,
    },
    /// An object of the account has this value.
    ObjectPut {
        /// Its kind.
        kind: u8,
        /// Its id, among those of its kind.
        id: String,
        /// Its value.
        value: Bytes,
    },
    /// An object of the account is gone.
    ObjectRemove {
        /// Its kind.
        kind: u8,
        /// Its id.
        id: String,
    },
    /// Bytes that are no message, or none yet, are held for a while. The operation's number is their name.
    UploadPut(Upload),
    /// Such bytes are not held any more.
    UploadRemove {
        /// Which.
        #[serde(with = "packed_numbers")]
        uploads: Vec<u64>,
    },
}

/// See [`Operation::AppendMessage`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AppendMessage {
    /// Where.
    pub mailbox: u32,
    /// Its UID: the mailbox's UIDNEXT before this.
    pub uid: u32,
    /// Its email id: the account's next.
    pub email: u64,
    /// Its thread: its own number where it begins one.
    pub thread: u64,
    /// Its flags.
    pub marks: Marks,
    /// Its size with the prefix.
    pub size: u32,
    /// Its internal date, packed.
    pub internal_date: i64,
    /// When it was put, in seconds since 1970.
    pub saved_date: u32,
    /// The email's record, encoded.
    pub record: Bytes,
    /// Keys that lead to the thread from now on; none of them led anywhere before.
    #[serde(with = "packed_numbers")]
    pub thread_keys: Vec<u64>,
    /// Where it was delivered from.
    pub ingest: Option<Ingest>,
}

/// An item of a producer, with the producer's watermark.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ingest {
    /// Which item.
    pub id: IngestId,
    /// All the producer's items below this are done.
    pub watermark: u64,
}

/// See [`Operation::Flags`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FlagsChanged {
    /// In which mailbox.
    pub mailbox: u32,
    /// Which messages; all of them exist.
    #[serde(with = "packed_uids")]
    pub uids: UidSet,
    /// Marks that are set.
    pub add: Marks,
    /// Marks that are cleared, before others are set.
    pub remove: Marks,
    /// How the number of unseen messages changes.
    pub unseen: i32,
    /// How the number of deleted messages changes.
    pub deleted: i32,
}

/// How much some messages are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Their number.
    pub messages: u32,
    /// Those without `\Seen`.
    pub unseen: u32,
    /// Those with `\Deleted`.
    pub deleted: u32,
    /// The sum of their sizes.
    pub size: u64,
}

/// See [`Operation::Copy`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CopyMessages {
    /// Where they are.
    pub from: u32,
    /// Originals that become *shared* by this.
    #[serde(with = "packed_uids")]
    pub shared: UidSet,
    /// The copies.
    pub placed: Placed,
}

/// See [`Operation::Move`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MoveMessages {
    /// Where they were.
    pub from: u32,
    /// Their UIDs there.
    #[serde(with = "packed_uids")]
    pub uids: UidSet,
    /// How much they were there.
    pub tally: Tally,
    /// Where they are now.
    pub placed: Placed,
}

/// Messages that are put into a mailbox from another one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Placed {
    /// Where.
    pub mailbox: u32,
    /// UID of the first: the mailbox's UIDNEXT before this. The others follow without gap.
    pub first_uid: u32,
    /// When, in seconds since 1970.
    pub saved_date: u32,
    /// Complete rows, so that this can be folded without the mailbox they come from.
    #[serde(with = "packed_rows")]
    pub rows: Vec<PlacedRow>,
    /// Records of emails that are new: an email that the mailbox holds already comes into it as another one.
    pub records: Vec<(u64, Bytes)>,
}

/// A message of [`Placed`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlacedRow {
    /// The email.
    pub email: u64,
    /// Its thread.
    pub thread: u64,
    /// Its flags.
    pub marks: Marks,
    /// Its size.
    pub size: u32,
    /// Its internal date, packed.
    pub internal_date: i64,
}

/// See [`Operation::Expunge`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExpungeMessages {
    /// From which mailbox.
    pub mailbox: u32,
    /// Which messages; all of them exist.
    #[serde(with = "packed_uids")]
    pub uids: UidSet,
    /// How much they are.
    pub tally: Tally,
    /// Emails among them that are in no other mailbox.
    #[serde(with = "packed_numbers")]
    pub destroyed: Vec<u64>,
}

/// See [`Operation::ExpungeEmails`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExpungeEmails {
    /// From which mailbox.
    pub mailbox: u32,
    /// Which messages; all of them exist.
    #[serde(with = "packed_uids")]
    pub uids: UidSet,
    /// How much they are.
    pub tally: Tally,
    /// Emails among them that are in no other mailbox.
    #[serde(with = "packed_numbers")]
    pub destroyed: Vec<u64>,
    /// For each of `destroyed`, by how much its number is above that of its thread.
    #[serde(with = "packed_numbers")]
    pub threads: Vec<u64>,
    /// Emails among them that are in another mailbox too.
    #[serde(with = "packed_numbers")]
    pub left: Vec<u64>,
}

/// See [`Operation::MailboxCreate`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MailboxCreate {
    /// Its number: the account's next.
    pub mailbox: u32,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Option<Role>,
    /// Greater than any before.
    pub uid_validity: u32,
}

impl Operation {
    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        let taken = std::mem::take(out);
        *out = postcard::to_extend(self, taken).expect("operations hold nothing that postcard refuses");
    }

    /// Reverse of [`Self::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (version, payload) =
            bytes.split_first().ok_or_else(|| FormatError::malformed("operation", "empty"))?;
        if *version != VERSION {
            return Err(FormatError::Unknown { what: "version of operation", number: (*version).into() });
        }
        let (operation, rest) =
            postcard::take_from_bytes(payload).map_err(|error| FormatError::malformed("operation", error))?;
        if !rest.is_empty() {
            return Err(FormatError::malformed("operation", "bytes left over"));
        }
        Ok(operation)
    }
}

impl Tally {
    /// Counts one message.
    pub(crate) fn add(&mut self, marks: Marks, size: u32) {
        use mail::flag::Flag;
        self.messages += 1;
        self.unseen += u32::from(!marks.has(Flag::Seen));
        self.deleted += u32::from(marks.has(Flag::Deleted));
        self.size += u64::from(size);
    }
}

pub(crate) mod packed_rows {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::PlacedRow;

    pub(crate) fn serialize<S: Serializer>(rows: &[PlacedRow], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&super::pack_rows(rows))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<PlacedRow>, D::Error> {
        let packed = <&[u8]>::deserialize(deserializer)?;
        super::unpack_rows(packed).map_err(D::Error::custom)
    }
}

fn pack_rows(rows: &[PlacedRow]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(rows.len() * 16);
    let (mut email, mut date) = (0, 0);
    for row in rows {
        put_delta(&mut packed, &mut email, row.email);
        put_zigzag(&mut packed, row.email.wrapping_sub(row.thread) as i64);
        put_varint(&mut packed, row.marks.bits() as u64);
        put_varint(&mut packed, (row.marks.bits() >> 64) as u64);
        put_varint(&mut packed, row.size.into());
        put_delta(&mut packed, &mut date, row.internal_date as u64);
    }
    packed
}

fn unpack_rows(packed: &[u8]) -> Result<Vec<PlacedRow>, FormatError> {
    let mut unpack = Unpack::new("placed rows", packed);
    let (mut email, mut date) = (0, 0);
    let mut rows = Vec::with_capacity(packed.len() / 8);
    while !unpack.rest().is_empty() {
        let email = unpack.delta(&mut email)?;
        let thread = email.wrapping_sub(unpack.zigzag()? as u64);
        let marks = u128::from(unpack.varint()?) | u128::from(unpack.varint()?) << 64;
        let size = unpack.varint_u32()?;
        let internal_date = unpack.delta(&mut date)? as i64;
        rows.push(PlacedRow { email, thread, marks: Marks::from_bits(marks), size, internal_date });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u64) -> PlacedRow {
        PlacedRow {
            email: number * 3,
            thread: number,
            marks: Marks::from_keyword(number as usize % 120),
            size: number as u32 * 100,
            internal_date: -5 + number as i64,
        }
    }

    fn samples() -> Vec<Operation> {
        let uids = UidSet::parse("1:7,9").unwrap();
        let id = IngestId { producer: Uuid::from_u128(5), item: 6, part: 7 };
        let tally = Tally { messages: 8, unseen: 1, deleted: 2, size: 3 };
        let placed = Placed {
            mailbox: 2,
            first_uid: 70,
            saved_date: 1_700_000_000,
            rows: (0..5).map(row).collect(),
            records: vec![(9, Bytes::from_static(b"record"))],
        };
        let again = placed.clone();
        vec![
            Operation::AppendMessage(AppendMessage {
                mailbox: 1,
                uid: 2,
                email: 3,
                thread: 3,
                marks: Marks::from_keyword(0),
                size: 4,
                internal_date: -5,
                saved_date: 6,
                record: Bytes::from_static(b"bytes"),
                thread_keys: vec![u64::MAX, 0, 7],
                ingest: Some(Ingest { id, watermark: 5 }),
            }),
            Operation::Flags(FlagsChanged {
                mailbox: 1,
                uids: uids.clone(),
                add: Marks::ALL,
                remove: Marks::EMPTY,
                unseen: -8,
                deleted: 8,
            }),
            Operation::Copy(CopyMessages { from: 1, shared: uids.clone(), placed: placed.clone() }),
            Operation::Move(MoveMessages { from: 1, uids: uids.clone(), tally, placed }),
            Operation::Expunge(ExpungeMessages { mailbox: 1, uids, tally, destroyed: vec![4, 5, 900] }),
            Operation::MailboxCreate(MailboxCreate {
                mailbox: 1,
                name: "a/b".into(),
                role: Some(Role::Archive),
                uid_validity: 9,
            }),
            Operation::MailboxRename { names: vec![(3, "c".into())] },
            Operation::MailboxDelete { mailbox: 3 },
            Operation::Subscribe { name: "x".into(), subscribed: true },
            Operation::KeywordNamed { number: 4, name: Keyword::new("$Junk").unwrap() },
            Operation::IngestRejected(Ingest { id, watermark: 5 }),
            Operation::Watermark { producer: Uuid::from_u128(1), below: 4 },
            Operation::Archived { to: 9, address: Bytes::from_static(b"at"), nonce: Uuid::from_u128(2) },
            Operation::Forget { expunged_to: 1, retained_to: 2, emails: vec![3] },
            Operation::Closed,
            Operation::QuotaLimit { bytes_max: Some(1), messages_max: None },
            Operation::MailboxRole { mailbox: 1, role: None },
            Operation::Suppress { address: "a@b".into(), why: Some(Suppressed::new(7, "5.1.1", "no")) },
            Operation::Opened { from: "eu".into(), into: "us".into() },
            Operation::ExpungeEmails(ExpungeEmails {
                mailbox: 1,
                uids: UidSet::parse("1:7,9").unwrap(),
                tally,
                destroyed: vec![4, 5, 900],
                threads: vec![0, 1, 700],
                left: vec![6],
            }),
            Operation::MoveShared {
                moved: MoveMessages { from: 1, uids: UidSet::parse("3").unwrap(), tally, placed: again },
                left: vec![4],
            },
            Operation::MailboxOrder { mailbox: 2, sort_order: 10 },
            Operation::ForgetHistory { to: 300 },
            Operation::ObjectPut { kind: 1, id: "o1".into(), value: Bytes::from_static(b"{}") },
            Operation::ObjectRemove { kind: 1, id: "o1".into() },
            Operation::UploadPut(Upload::sample()),
            Operation::UploadRemove { uploads: vec![7, 9] },
        ]
    }

    /// The stored form is frozen: a change of this digest means that existing logs are read differently.
    #[test]
    fn stored_form_is_frozen() {
        let mut stored = Vec::new();
        let mut later = Vec::new();
        for (number, operation) in samples().iter().enumerate() {
            let mut bytes = Vec::new();
            operation.encode(&mut bytes);
            assert_eq!(usize::from(bytes[1]), number, "variant numbers are stored");
            assert_eq!(&Operation::decode(&bytes).unwrap(), operation);
            for cut in 0..bytes.len() {
                assert!(Operation::decode(&bytes[..cut]).is_err());
            }
            if matches!(operation, Operation::Opened { .. }) {
                // It came after the digest was taken, and is short enough to stand here.
                assert_eq!(bytes, b"\x01\x12\x02eu\x02us");
                continue;
            }
            // What came after the digest was taken has one of its own.
            let of_first = number < 18;
            let kept = if of_first { &mut stored } else { &mut later };
            kept.extend(bytes);
        }
        assert_eq!(blake3::hash(&later).to_hex()[..16], *"180d14b5f606abc0");
        assert_eq!(blake3::hash(&stored).to_hex()[..16], *"979bfc7c054d4ef2");
    }

    #[test]
    fn unknown_operations_stop_the_fold() {
        assert!(matches!(Operation::decode(&[2, 0]), Err(FormatError::Unknown { number: 2, .. })));
        assert!(Operation::decode(&[1, 200]).is_err());
        assert!(Operation::decode(&[1, 14, 0]).is_err(), "bytes left over");
    }

    #[test]
    fn a_copied_message_costs_few_bytes() {
        let rows: Vec<_> = (0..1000).map(row).collect();
        let packed = pack_rows(&rows);
        assert!(packed.len() < 24_000, "{}", packed.len());
        assert_eq!(unpack_rows(&packed).unwrap(), rows);
    }
}
