//! LIST, LSUB and NAMESPACE.

use bytes::{BufMut, BytesMut};

use super::string::mailbox;
use crate::mailbox_name::DELIMITER;

/// One mailbox of a LIST or LSUB response.
#[derive(Clone, Debug)]
pub struct Listed<'a> {
    /// LSUB instead of LIST.
    pub lsub: bool,
    /// The attributes, with their backslashes.
    pub attributes: &'a [&'a str],
    /// The name in the form of the connection.
    pub name: &'a str,
    /// CHILDINFO: which selection options the children meet (RFC 5258 §3.5).
    pub child_info: &'a [&'a str],
}

/// Writes `* LIST (…) "/" name`.
pub fn list(out: &mut BytesMut, listed: &Listed<'_>) {
    out.put_slice(if listed.lsub { b"* LSUB (" } else { b"* LIST (" });
    out.put_slice(listed.attributes.join(" ").as_bytes());
    out.put_slice(b") \"");
    out.put_u8(DELIMITER as u8);
    out.put_slice(b"\" ");
    mailbox(out, listed.name);
    if !listed.child_info.is_empty() {
        out.put_slice(b" (\"CHILDINFO\" (");
        for (index, option) in listed.child_info.iter().enumerate() {
            out.put_slice(if index == 0 { b"\"" } else { b" \"" });
            out.put_slice(option.as_bytes());
            out.put_u8(b'"');
        }
        out.put_slice(b"))");
    }
    out.put_slice(b"\r\n");
}

/// Writes the answer to `LIST "" ""`: the separator and the root (RFC 9051 §6.3.9).
pub fn root(out: &mut BytesMut, lsub: bool) {
    out.put_slice(if lsub { b"* LSUB" } else { b"* LIST" });
    out.put_slice(b" (\\Noselect) \"");
    out.put_u8(DELIMITER as u8);
    out.put_slice(b"\" \"\"\r\n");
}

/// Writes the one namespace there is: personal, with the empty prefix.
pub fn namespace(out: &mut BytesMut) {
    out.put_slice(b"* NAMESPACE ((\"\" \"");
    out.put_u8(DELIMITER as u8);
    out.put_slice(b"\")) NIL NIL\r\n");
}
