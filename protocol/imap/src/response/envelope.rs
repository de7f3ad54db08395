//! ENVELOPE (RFC 9051 §7.5.2).

use bytes::{BufMut, BytesMut};
use mail::header::{HeaderAddress, HeaderSummary, RawText};

use super::string::nstring;

/// Writes the parenthesised envelope, without its name.
pub fn envelope(out: &mut BytesMut, summary: &HeaderSummary) {
    out.put_u8(b'(');
    text(out, summary.date.as_ref());
    out.put_u8(b' ');
    text(out, summary.subject.as_ref());
    // RFC 9051 §7.5.2: absent or empty Sender and Reply-To are shown as From.
    let or_from = |list| if <[HeaderAddress]>::is_empty(list) { &summary.from } else { list };
    addresses(out, &summary.from);
    addresses(out, or_from(&summary.sender));
    addresses(out, or_from(&summary.reply_to));
    addresses(out, &summary.to);
    addresses(out, &summary.cc);
    addresses(out, &summary.bcc);
    out.put_u8(b' ');
    text(out, summary.in_reply_to.as_ref());
    out.put_u8(b' ');
    text(out, summary.message_id.as_ref());
    out.put_u8(b')');
}

fn addresses(out: &mut BytesMut, list: &[HeaderAddress]) {
    out.put_u8(b' ');
    if list.is_empty() {
        out.put_slice(b"NIL");
        return;
    }
    out.put_u8(b'(');
    for address in list {
        let fields = [&address.name, &address.route, &address.mailbox, &address.host];
        for (index, field) in fields.into_iter().enumerate() {
            out.put_u8(if index == 0 { b'(' } else { b' ' });
            text(out, field.as_ref());
        }
        out.put_u8(b')');
    }
    out.put_u8(b')');
}

fn text(out: &mut BytesMut, text: Option<&RawText>) {
    nstring(out, text.map(RawText::as_bytes));
}
