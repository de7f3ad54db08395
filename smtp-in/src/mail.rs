//! MAIL: a transaction begins.

use ::mail::address::ReversePath;
use ::mail::envelope::Envelope;
use smtp_protocol::parameter::MailParameters;
use smtp_protocol::reply::Reply;

use crate::service::{Inner, Role};
use crate::session::{Client, Transaction};
use crate::submission;

/// Begins a transaction, or says why not.
pub(crate) async fn begin(
    service: &Inner,
    client: &Client,
    reverse_path: ReversePath,
    parameters: MailParameters,
) -> Result<Transaction, Reply> {
    if client.role == Role::Submission {
        submission::check_sender(service, client, &reverse_path).await?;
    }
    let mut envelope = Envelope::new(reverse_path);
    envelope.body = parameters.body;
    envelope.smtputf8 = parameters.smtputf8;
    envelope.ret = parameters.ret;
    envelope.envid.clone_from(&parameters.envid);
    submission::take_wishes(&service.config, &parameters, service.queue.clock().now(), &mut envelope)?;
    Ok(Transaction { envelope, resolved: Vec::new(), declared_size: parameters.size })
}
