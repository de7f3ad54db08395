//! MAIL: a transaction begins.

use ::mail::address::ReversePath;
use ::mail::envelope::Envelope;
use smtp_protocol::parameter::MailParameters;
use smtp_protocol::reply::{Reply, ok};
use smtp_protocol::status::status;

use crate::service::Role;
use crate::session::{Session, Transaction};
use crate::submission;

/// Begins a transaction, or says why not.
pub(crate) async fn begin(
    session: &mut Session,
    reverse_path: ReversePath,
    parameters: MailParameters,
) -> Reply {
    if session.role == Role::Submission
        && let Err(reply) = submission::check_sender(session, &reverse_path).await
    {
        return reply;
    }
    let mut envelope = Envelope::new(reverse_path);
    envelope.body = parameters.body;
    envelope.smtputf8 = parameters.smtputf8;
    envelope.ret = parameters.ret;
    envelope.envid = parameters.envid;
    session.transaction =
        Some(Transaction { envelope, resolved: Vec::new(), declared_size: parameters.size, writer: None });
    ok(status(2, 1, 0), "Sender OK")
}
