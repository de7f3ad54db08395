//! What is handed to the queue, and what comes back.

use std::net::IpAddr;

use bytes::Bytes;
use mail::envelope::Envelope;
use mail::id::{AccountId, QueueId};
use serde::{Deserialize, Serialize};

use crate::body::Body;

/// A message to be taken over.
#[derive(Debug)]
pub struct Submission {
    /// Who sends and who receives.
    pub envelope: Envelope,
    /// What each recipient was found to be when it was accepted, in the order of the envelope's recipients and as many.
    /// Where every one is known already, nothing has to be looked up again, and a commit is saved.
    pub resolved: Vec<Resolved>,
    /// The message, durable already.
    pub body: Body,
    /// Header fields that stand before the message's own: `Received`, and what a submission lacked. Whole lines that
    /// end in CRLF. `Return-Path` is not among them; delivery writes it.
    pub prefix: Bytes,
    /// Where the message came from.
    pub origin: Origin,
}

/// What a recipient was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// One account here.
    Account {
        /// The account.
        id: AccountId,
        /// What followed the subaddress delimiter.
        detail: Option<String>,
    },
    /// An address elsewhere, which the sender may send to.
    Remote,
    /// An alias, a list, or not known: delivery looks it up.
    Later,
}

/// Where a message came from; for the trace and the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Who had logged in.
    pub principal: Option<AccountId>,
    /// The peer's address.
    pub remote_ip: Option<IpAddr>,
    /// The session, as the log names it.
    pub session_id: String,
}

/// The message is in the queue, durably: body and entry. Only [`crate::Queue`] makes one, after the commit.
#[derive(Clone, Debug)]
pub struct Committed {
    queue_id: QueueId,
}

impl Committed {
    pub(crate) fn new(queue_id: QueueId) -> Self {
        Self { queue_id }
    }

    /// The message's id, as logs and traces name it.
    pub fn queue_id(&self) -> QueueId {
        self.queue_id
    }
}
