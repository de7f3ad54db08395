//! Message bytes, written once: segments, the keys that seal them, and the references that keep them.
//!
//! A message's bytes go into an immutable *segment* that many messages share. [`BlobStore::writer`] takes them as they
//! come and answers with a [`Stored`] once they are durable; [`BlobStore::open`] gives them back by range. What holds
//! a blob is said by a *reference* ([`BlobStore::reference`]), put before the commit that uses it. Every blob has a
//! random key of its own, wrapped by the key of whoever holds it ([`KeyRing`]), so that erasing an account's key
//! erases its mail everywhere.
//!
//! The crate knows bytes, not mail: facts about a message are opaque to it. Where segments lie is the affair of a
//! back end behind [`Blobs`]: [`memory::MemoryBlobs`] for tests, [`dir::DirBlobs`] for local files; S3 has a package of
//! its own.
//!
//! Start reading at [`BlobStore`], then `format`, which has the bytes. `storage/DESIGN.md` has every legal state.

mod address;
mod archive;
mod blobs;
mod carry;
mod config;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod dir;
pub mod format;
mod frame_builder;
mod group;
pub mod keys;
pub mod memory;
mod orphans;
mod reader;
mod recovery;
mod reference;
mod scan;
mod store;
mod writer;

pub use address::{BlobAddress, BlobId, Holder, Nonce, SegmentId, WrappedKey};
pub use archive::{BlobArchive, archive_holding};
pub use blobs::{Appender, Blobs, BlobsError, Growth, SegmentInfo};
pub use carry::CarryError;
pub use config::Config;
// For back ends, which know this crate alone.
pub use engine::with_causes;
pub use keys::{KeyError, KeyId, KeyRing};
pub use orphans::{Orphan, OrphanPage};
pub use reader::{BlobReader, ReadError};
pub use recovery::{Fate, Recovered};
pub use reference::{Moved, Reference, ReferenceError, Referenced, References};
pub use store::{BlobStore, CheckError, SegmentCheck, check_segment};
pub use writer::{BlobWriter, Stored, WriteError};
