//! NAMESPACE (RFC 9051 §6.3.10).

use imap_protocol::response::list;

use crate::reply::Reply;
use crate::session::Session;

pub(crate) fn run(session: &mut Session) -> Reply {
    list::namespace(session.out());
    Reply::ok("Namespace completed")
}
