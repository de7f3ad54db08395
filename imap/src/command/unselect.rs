//! UNSELECT (RFC 9051 §6.4.2): as CLOSE, and nothing is expunged.

use crate::reply::Reply;
use crate::session::Session;

pub(crate) fn run(session: &mut Session) -> Reply {
    session.deselect();
    Reply::ok("Unselect completed")
}
