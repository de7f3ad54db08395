//! Accounts: mailboxes, messages and what happens to them.
//!
//! An account is one log and the snapshot it starts from (crate `engine`); the bytes of its messages lie in segments
//! (crate `blob`). This crate brings what the log folds into, [`AccountState`], its operations and pages, and the
//! verbs that services call: each is one commit, decided inside it, so that UIDs, MODSEQs, threads, quota and duplicate
//! detection are right whenever the commit succeeds.
//!
//! Who thinks in mailboxes and UIDs, as IMAP does, asks [`Account::mailbox`] and [`Account::changes`]; who thinks in
//! emails and threads, as JMAP does, asks [`Account::view`], [`Account::email_changes`] and the like, and changes emails
//! by [`Account::update_emails`]. Both are faces of one state and can never disagree.
//!
//! It is not a mail protocol: IMAP's untagged responses, JMAP's objects and SMTP's replies are the affair of the
//! services. Nor does it search.
//!
//! Start reading at [`Storage`] and [`Account`], then [`state`] and [`entry`]. `storage/DESIGN.md` has the bytes.

pub mod account;
pub mod append;
pub mod blob_name;
pub mod body;
pub mod changes;
pub mod compose;
pub mod config;
pub mod copy;
pub mod date;
mod draft;
pub mod email;
pub mod email_changes;
mod email_page;
pub mod email_update;
pub mod entry;
pub mod error;
pub mod expunge;
pub mod flags;
mod fold;
pub mod history;
pub mod import;
pub mod index;
mod ingest;
pub mod mailbox;
mod mailbox_name;
pub mod mailbox_set;
pub mod marks;
pub mod news;
pub mod object;
mod ordered;
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
pub mod transfer;
pub mod upload;
pub mod verify;
pub mod view;

pub use account::Account;
pub use append::{AppendError, AppendRequest, Appended, Delivered, Delivery, IngestId, Target};
pub use blob_name::{BlobName, MessageOfError, NamedBlob, NotABlobName};
pub use body::{BodyError, BodyReader, MessageWriter, StoredBody};
pub use changes::{Changes, Vanished};
pub use compose::{ChangeSet, ChangesError, NotAState, Since};
pub use config::Config;
pub use copy::{Copied, CopyError, Moved};
pub use date::InternalDate;
pub use email::EmailRecord;
pub use email_changes::MailboxChanges;
pub use email_update::{
    ChangeEmailsError, EmailUpdate, EmailUpdateError, EmailsChanged, KeywordsPatch, MailboxesPatch,
};
pub use error::StorageError;
pub use expunge::{ExpungeError, Expunged};
pub use flags::{FlagAction, FlagChange, FlagsError, FlagsSet};
pub use history::Latest;
pub use import::{EmailsImported, ImportRequest, Imported};
pub use index::{MailboxIndex, MarkedRow, MessageRow};
pub use ingest::Deliveries;
pub use mailbox::{Mailbox, MailboxError, Role};
pub use mailbox_set::{MailboxPatch, MailboxSet, MailboxSetError, NewMailbox, OnDestroy};
pub use marks::Marks;
pub use news::Destroyed;
pub use object::{Object, ObjectError, ObjectKind, ObjectWrite, ObjectsWritten, WriteObjectsError};
pub use quota::Quota;
pub use relocate::{Holding, Resting};
pub use rights::Principal;
pub use root::Layout;
pub use state::AccountState;
pub use store::{AccountSettings, CreateError, OpenError, Storage};
pub use suppression::Suppressed;
pub use transfer::{Decoder, TransferEncoding};
pub use upload::{Upload, UploadError, UploadId};
pub use verify::{CheckDepth, CheckReport};
pub use view::{EmailView, MailboxCounts, ViewedEmail};
