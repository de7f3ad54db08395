//! Accounts: mailboxes, messages and what happens to them.
//!
//! An account is one log and the snapshot it starts from (crate `engine`); the bytes of its messages lie in segments
//! (crate `blob`). This crate brings what the log folds into, [`AccountState`], its operations and pages, and the
//! verbs that services call: each is one commit, decided inside it, so that UIDs, MODSEQs, threads, quota and duplicate
//! detection are right whenever the commit succeeds.
//!
//! It is not a mail protocol: IMAP's untagged responses, JMAP's objects and SMTP's replies are the affair of the
//! services. Nor does it search.
//!
//! Start reading at [`Storage`] and [`Account`], then [`state`] and [`entry`]. `storage/DESIGN.md` has the bytes.

pub mod account;
pub mod append;
pub mod body;
pub mod changes;
pub mod config;
pub mod copy;
pub mod date;
mod draft;
pub mod email;
mod email_page;
pub mod entry;
pub mod error;
pub mod expunge;
pub mod flags;
mod fold;
pub mod index;
mod ingest;
pub mod mailbox;
mod mailbox_name;
pub mod marks;
pub mod news;
mod pack;
mod page;
pub mod quota;
pub mod records;
pub mod relocate;
pub mod rights;
pub mod root;
mod run;
mod snapshot;
pub mod state;
pub mod store;
mod suppression;
mod thread;
mod trail;
pub mod verify;

pub use account::Account;
pub use append::{AppendError, AppendRequest, Appended, Delivered, Delivery, IngestId, Target};
pub use body::{BodyError, BodyReader, MessageWriter, StoredBody};
pub use changes::{Changes, Vanished};
pub use config::Config;
pub use copy::{Copied, CopyError, Moved};
pub use date::InternalDate;
pub use email::EmailRecord;
pub use error::StorageError;
pub use expunge::{ExpungeError, Expunged};
pub use flags::{FlagAction, FlagChange, FlagsError, FlagsSet};
pub use index::{MailboxIndex, MarkedRow, MessageRow};
pub use ingest::Deliveries;
pub use mailbox::{Mailbox, MailboxError, Role};
pub use marks::Marks;
pub use news::Destroyed;
pub use quota::Quota;
pub use relocate::{Holding, Resting};
pub use rights::Principal;
pub use root::Layout;
pub use state::AccountState;
pub use store::{AccountSettings, CreateError, OpenError, Storage};
pub use suppression::Suppressed;
pub use verify::{CheckDepth, CheckReport};
