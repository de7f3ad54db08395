//! STATUS (RFC 9051 §7.3.4).

use bytes::{BufMut, BytesMut};

use super::number;
use super::string::mailbox;
use crate::command::StatusItem;

/// Writes `* STATUS name (item value …)`; a value of `None` is NIL.
pub fn status(out: &mut BytesMut, name: &str, values: impl IntoIterator<Item = (StatusItem, Option<u64>)>) {
    out.put_slice(b"* STATUS ");
    mailbox(out, name);
    out.put_slice(b" (");
    let mut first = true;
    for (item, value) in values {
        super::fetch::separate(out, &mut first);
        out.put_slice(item.as_str().as_bytes());
        out.put_u8(b' ');
        match value {
            Some(value) => number(out, value),
            None => out.put_slice(b"NIL"),
        }
    }
    out.put_slice(b")\r\n");
}
