//! The tagged answer of a command, and what ends a session instead of one.

use std::borrow::Cow;

use imap_protocol::server::Outcome;
use net::pump::PumpError;
use storage::{
    AppendError, BodyError, CopyError, ExpungeError, FlagsError, MailboxError, OpenError, StorageError,
};
use tracing::{error, warn};

/// What is said behind the tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) outcome: Outcome,
    /// With the response code, if there is one.
    pub(crate) text: Cow<'static, str>,
}

impl Reply {
    pub(crate) fn ok(text: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome: Outcome::Ok, text: text.into() }
    }

    pub(crate) fn no(text: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome: Outcome::No, text: text.into() }
    }

    pub(crate) fn bad(text: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome: Outcome::Bad, text: text.into() }
    }

    /// Whether name, password or token were wrong, as [`crate::command::login`] says it.
    pub(crate) fn is_wrong_login(&self) -> bool {
        self.outcome == Outcome::No && self.text.starts_with("[AUTHENTICATIONFAILED]")
    }

    /// Every command that names a mailbox may find that there is none.
    pub(crate) fn no_mailbox() -> Self {
        Self::no("[NONEXISTENT] No such mailbox")
    }
}

/// Why the session ends in the middle of a command.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The connection is gone or useless.
    Connection(PumpError),
    /// The client hung up in the middle of a command.
    Disconnected,
    /// BYE with this text.
    Bye(&'static str),
}

impl From<PumpError> for Stop {
    fn from(error: PumpError) -> Self {
        Self::Connection(error)
    }
}

/// What a command leads to.
pub(crate) type Answer = Result<Reply, Stop>;

/// A failure of storage as an answer. The two texts differ: the client sees what it can act on, the log the rest.
pub(crate) fn storage_failure(error: &StorageError) -> Answer {
    match error {
        StorageError::Undecided => {
            warn!(%error, "commit undecided, session ended");
            // Neither OK nor NO would be true.
            Err(Stop::Bye("[UNAVAILABLE] The outcome of the last command is not known"))
        }
        StorageError::Unavailable(_) => {
            warn!(%error, "storage unavailable");
            Ok(Reply::no("[UNAVAILABLE] Storage is not available, try again later"))
        }
        StorageError::Full => {
            error!("storage is full");
            Ok(Reply::no("[UNAVAILABLE] Storage is full, try again later"))
        }
        StorageError::Damaged(_) => {
            error!(%error, "stored data is damaged");
            Ok(Reply::no("[CONTACTADMIN] Stored data cannot be read"))
        }
        StorageError::Closed => Err(Stop::Bye("[UNAVAILABLE] The account is closed")),
        StorageError::Denied => Ok(Reply::no("[NOPERM] Not permitted")),
    }
}

pub(crate) fn open_failure(error: &OpenError) -> Answer {
    match error {
        OpenError::Missing => {
            error!("the directory names an account that has no log");
            Ok(Reply::no("[CONTACTADMIN] The account cannot be opened"))
        }
        OpenError::Storage(error) => storage_failure(error),
    }
}

pub(crate) fn mailbox_failure(error: &MailboxError) -> Answer {
    Ok(match error {
        MailboxError::Missing => Reply::no_mailbox(),
        MailboxError::Exists => Reply::no("[ALREADYEXISTS] The mailbox exists"),
        MailboxError::InvalidName(why) => Reply::no(format!("[CANNOT] Invalid mailbox name: {why}")),
        MailboxError::HasChildren => Reply::no("[HASCHILDREN] The mailbox has inferior mailboxes"),
        MailboxError::NotPossible(why) => Reply::no(format!("[CANNOT] {why}")),
        MailboxError::RoleTaken => Reply::no("[USEATTR] Another mailbox has this special use"),
        MailboxError::TooMany => Reply::no("[LIMIT] Too many mailboxes"),
        MailboxError::Storage(error) => return storage_failure(error),
    })
}

pub(crate) fn append_failure(error: &AppendError) -> Answer {
    Ok(match error {
        AppendError::NoMailbox => Reply::no("[TRYCREATE] No such mailbox"),
        AppendError::OverQuota => Reply::no("[OVERQUOTA] Not enough room"),
        AppendError::TooManyKeywords => Reply::no("[LIMIT] Too many keywords"),
        AppendError::TooLarge => Reply::no("[TOOBIG] The structure of the message is too large"),
        AppendError::NoUids => Reply::no("[LIMIT] The mailbox has no UIDs left"),
        AppendError::Mailbox(error) => return mailbox_failure(error),
        AppendError::Storage(error) => return storage_failure(error),
    })
}

pub(crate) fn copy_failure(error: &CopyError) -> Answer {
    Ok(match error {
        CopyError::NoSource => return Err(Stop::Bye(MAILBOX_GONE)),
        CopyError::NoTarget => Reply::no("[TRYCREATE] No such mailbox"),
        CopyError::OverQuota => Reply::no("[OVERQUOTA] Not enough room"),
        CopyError::NoUids => Reply::no("[LIMIT] The mailbox has no UIDs left"),
        CopyError::Storage(error) => return storage_failure(error),
    })
}

pub(crate) fn flags_failure(error: &FlagsError) -> Answer {
    Ok(match error {
        FlagsError::NoMailbox => return Err(Stop::Bye(MAILBOX_GONE)),
        FlagsError::TooManyKeywords => Reply::no("[LIMIT] Too many keywords"),
        FlagsError::Storage(error) => return storage_failure(error),
    })
}

pub(crate) fn expunge_failure(error: &ExpungeError) -> Answer {
    match error {
        ExpungeError::NoMailbox => Err(Stop::Bye(MAILBOX_GONE)),
        ExpungeError::Storage(error) => storage_failure(error),
    }
}

pub(crate) fn body_failure(error: &BodyError) -> Answer {
    match error {
        BodyError::Read(error) => {
            error!(%error, "a message cannot be read");
            Ok(Reply::no("[CONTACTADMIN] A message cannot be read"))
        }
        BodyError::Storage(error) => storage_failure(error),
    }
}

/// Said when another session has deleted the mailbox that is selected here: there is no other way to leave it.
pub(crate) const MAILBOX_GONE: &str = "[UNAVAILABLE] The selected mailbox was deleted";
