//! ID (RFC 2971).

use bytes::BufMut;
use imap_protocol::response::string::string;
use tracing::debug;

use crate::reply::Reply;
use crate::session::Session;

pub(crate) fn run(session: &mut Session, fields: &[(String, Option<String>)]) -> Reply {
    let value = |name: &str| {
        fields
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .and_then(|(_, value)| value.as_deref())
    };
    debug!(client = value("name"), version = value("version"), os = value("os"), "client says who it is");
    let out = session.out();
    out.put_slice(b"* ID (\"name\" ");
    string(out, b"Postrider");
    // Whoever has not logged in learns no version.
    if session.user.is_some() {
        let out = session.out();
        out.put_slice(b" \"version\" ");
        string(out, env!("CARGO_PKG_VERSION").as_bytes());
    }
    session.out().put_slice(b")\r\n");
    Reply::ok("ID completed")
}
