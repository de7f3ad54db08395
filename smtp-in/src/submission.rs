//! What users' own mail gets that other mail does not: a check that they write under their own name, and the fields
//! that their programs forgot (RFC 6409 §6 and §8).

use ::mail::address::ReversePath;
use ::mail::mime::Facts;
use smtp_protocol::reply::Reply;
use tracing::{info, warn};
use uuid::Uuid;

use crate::policy;
use crate::service::Inner;
use crate::session::Client;
use crate::trace;

/// Whether the user may send as this. The null reverse-path belongs to everybody: read receipts have it.
pub(crate) async fn check_sender(
    service: &Inner,
    client: &Client,
    reverse_path: &ReversePath,
) -> Result<(), Reply> {
    let (Some(principal), Some(address)) = (&client.principal, reverse_path.address()) else {
        return Ok(());
    };
    if !service.config.sender_login_check {
        return Ok(());
    }
    match service.directory.may_send_as(principal, address).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            info!(account_id = %principal.account, sender = %address, "sender is not the user's");
            Err(policy::not_your_address())
        }
        Err(error) => {
            warn!(%error, "sender not decided");
            Err(policy::later())
        }
    }
}

/// Adds `Date` and `Message-ID` where they are missing. They stand in front with the trace fields, so that not a byte
/// of what the user sent is changed.
pub(crate) fn complete(prefix: &mut Vec<u8>, facts: &Facts, hostname: &str) {
    if facts.summary.date.is_none() {
        prefix.extend_from_slice(format!("Date: {}\r\n", trace::now().rfc5322()).as_bytes());
    }
    if facts.summary.message_id.is_none() {
        let id = Uuid::new_v4().as_simple().to_string();
        prefix.extend_from_slice(format!("Message-ID: <{id}@{hostname}>\r\n").as_bytes());
    }
}
