//! HELO, EHLO, LHLO, and the new beginning after STARTTLS.

use smtp_protocol::command::HelloKind;

use crate::session::Session;

/// The client says who it is. That is believed to be what it says, and goes into the `Received` line beside the
/// address, which is known.
pub(crate) fn greeted(session: &mut Session, kind: HelloKind, domain: String) {
    session.forget();
    session.client.hello = Some((kind, domain));
    let now = session.service.queue.clock().now();
    session.pump.machine().tell_time(now);
    session.pump.machine().proceed();
}

/// RFC 3207 §4.2: what was said in the clear does not count.
pub(crate) fn encrypted(session: &mut Session) {
    session.forget();
    session.scram = None;
    session.proving = None;
    session.client.hello = None;
    session.client.principal = None;
    session.client.peer = session.pump.peer().clone();
}
