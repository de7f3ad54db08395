//! A connection has been made.

use crate::policy;
use crate::service::Role;
use crate::session::Session;

/// Greets the client, or says why not. How many may come has been decided by the listener.
pub(crate) fn greet(session: &mut Session) {
    let has_tls = session.client.peer.tls.is_some();
    if session.client.role == Role::Submission && !has_tls && !session.service.can_take_submissions() {
        // Without TLS and without permission to do without, every MAIL would be answered with 530.
        session.pump.machine().close(&policy::no_tls());
    } else {
        session.pump.machine().greet();
    }
}
