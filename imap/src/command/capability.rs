//! CAPABILITY (RFC 9051 §6.1.1).

use imap_protocol::response::untagged;

use crate::reply::Reply;
use crate::session::Session;

pub(crate) fn run(session: &mut Session) -> Reply {
    let capabilities = format!("CAPABILITY {}", session.capabilities());
    untagged(session.out(), &capabilities);
    Reply::ok("Capability completed")
}
