//! ENABLE (RFC 9051 §6.3.1).

use imap_protocol::response::untagged;

use crate::reply::Reply;
use crate::session::Session;

pub(crate) fn run(session: &mut Session, names: &[String]) -> Reply {
    let mut enabled = String::from("ENABLED");
    for name in names {
        match name.as_str() {
            "CONDSTORE" => session.enable_condstore(),
            // RFC 7162 §3.2.3: QRESYNC implies CONDSTORE.
            "QRESYNC" => {
                session.enable_condstore();
                session.qresync = true;
            }
            _ => continue,
        }
        enabled.push(' ');
        enabled.push_str(name);
    }
    untagged(session.out(), &enabled);
    Reply::ok("Enabled")
}
