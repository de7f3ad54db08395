//! What is said to a client when it is not the protocol that speaks. The log says more than the client may know.

use queue::{BodyError, SubmitError};
use smtp_protocol::reply::Reply;
use smtp_protocol::status::status;
use storage::{AppendError, OpenError, StorageError};

pub(crate) fn sender_accepted() -> Reply {
    Reply::new(250, status(2, 1, 0), "Sender OK")
}

/// Something of ours is out of order; the client has done nothing wrong and is to come again.
pub(crate) fn later() -> Reply {
    Reply::new(451, status(4, 3, 0), "Temporary trouble here, try again later")
}

/// There is no room for the message on this server.
pub(crate) fn no_space() -> Reply {
    Reply::new(452, status(4, 3, 1), "Insufficient storage, try again later")
}

pub(crate) fn shutting_down() -> Reply {
    Reply::new(421, status(4, 3, 2), "Shutting down")
}

pub(crate) fn login_withdrawn() -> Reply {
    Reply::new(421, status(4, 7, 0), "The login was withdrawn")
}

pub(crate) fn no_tls() -> Reply {
    Reply::new(421, status(4, 7, 0), "TLS is needed and not available")
}

pub(crate) fn login_later() -> Reply {
    Reply::new(454, status(4, 7, 0), "Temporary authentication failure")
}

/// 5.7.1 is about policy: nothing is wrong with the address.
pub(crate) fn no_relay() -> Reply {
    Reply::new(550, status(5, 7, 1), "Relaying denied")
}

pub(crate) fn not_your_address() -> Reply {
    Reply::new(553, status(5, 7, 1), "Sender address does not belong to this login")
}

/// 452, since a full mailbox can be emptied while the sender still has the message.
pub(crate) fn mailbox_full() -> Reply {
    Reply::new(452, status(4, 2, 2), "Mailbox full")
}

pub(crate) fn mailbox_disabled() -> Reply {
    Reply::new(550, status(5, 2, 1), "Mailbox disabled")
}

pub(crate) fn no_such_user() -> Reply {
    Reply::new(550, status(5, 1, 1), "No such user here")
}

pub(crate) fn too_many_for_null_sender() -> Reply {
    Reply::new(452, status(4, 5, 3), "Too many recipients for a notification")
}

/// 450: the message can be sent later. 4.7.1 is about policy.
pub(crate) fn too_many_for_user() -> Reply {
    Reply::new(450, status(4, 7, 1), "Too many recipients within an hour, try again later")
}

pub(crate) fn loops() -> Reply {
    Reply::new(554, status(5, 4, 6), "Routing loop, too many Received lines")
}

pub(crate) fn too_large() -> Reply {
    Reply::new(552, status(5, 3, 4), "Message too large")
}

/// The machine keeps the order of commands, so this is never heard unless it errs.
pub(crate) fn no_transaction() -> Reply {
    Reply::new(503, status(5, 5, 1), "No transaction")
}

/// The message could not be written.
pub(crate) fn for_body(error: &BodyError) -> Reply {
    match error {
        BodyError::Write(error) => for_write(error),
        BodyError::Key(_) => later(),
    }
}

/// The message could not be written.
pub(crate) fn for_write(error: &blob::WriteError) -> Reply {
    match error {
        blob::WriteError::TooLarge { .. } => too_large(),
        blob::WriteError::Blobs(blob::BlobsError::Full { .. }) => no_space(),
        _ => later(),
    }
}

/// The queue did not take the message.
pub(crate) fn for_submit(error: &SubmitError) -> Reply {
    match error {
        SubmitError::Full { .. } => no_space(),
        SubmitError::Recipients { .. } => Reply::new(554, status(5, 5, 3), "Too many recipients"),
        // What is ours to get right is no fault of the client, whatever the queue thinks of us.
        SubmitError::Unavailable { .. }
        | SubmitError::Undecided
        | SubmitError::Prefix { .. }
        | SubmitError::Malformed { .. } => later(),
    }
}

/// An account did not open.
pub(crate) fn for_open(error: &OpenError) -> Reply {
    match error {
        OpenError::Missing => later(),
        OpenError::Storage(error) => for_storage(error),
    }
}

/// An account did not take the message.
pub(crate) fn for_append(error: &AppendError) -> Reply {
    match error {
        AppendError::OverQuota => mailbox_full(),
        AppendError::TooLarge => too_large(),
        AppendError::Storage(error) => for_storage(error),
        AppendError::NoMailbox
        | AppendError::TooManyKeywords
        | AppendError::NoUids
        | AppendError::Mailbox(_) => later(),
    }
}

pub(crate) fn for_storage(error: &StorageError) -> Reply {
    match error {
        StorageError::Full => no_space(),
        _ => later(),
    }
}
