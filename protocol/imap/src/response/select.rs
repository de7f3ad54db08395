//! What SELECT answers, and what is said about a selected mailbox later.

use bytes::{BufMut, BytesMut};
use mail::flag::Flags;

use super::number;

/// `* FLAGS (…)`: what is defined in the mailbox.
pub fn flags<'a>(out: &mut BytesMut, keywords: impl IntoIterator<Item = &'a str>) {
    out.put_slice(b"* ");
    super::fetch::flags(out, Flags::ALL, keywords);
    out.put_slice(b"\r\n");
}

/// Which flags a client may change for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permanent {
    /// None: the mailbox was opened for reading.
    Nothing,
    /// Those that exist.
    Existing,
    /// Those that exist, and new keywords (`\*`).
    Anything,
}

/// `* OK [PERMANENTFLAGS (… \*)]`
pub fn permanent_flags<'a>(
    out: &mut BytesMut,
    permanent: Permanent,
    keywords: impl IntoIterator<Item = &'a str>,
) {
    if permanent == Permanent::Nothing {
        out.put_slice(b"* OK [PERMANENTFLAGS ()] Read-only mailbox\r\n");
        return;
    }
    out.put_slice(b"* OK [PERMANENTFLAGS (");
    let mut first = true;
    for name in Flags::ALL.iter().map(|flag| flag.as_str()).chain(keywords) {
        super::fetch::separate(out, &mut first);
        out.put_slice(name.as_bytes());
    }
    out.put_slice(if permanent == Permanent::Anything { b" \\*" } else { b"" });
    out.put_slice(b")] Flags permitted\r\n");
}

/// `* OK [CODE n] text`
pub fn code_number(out: &mut BytesMut, code: &str, value: u64, text: &str) {
    out.put_slice(b"* OK [");
    out.put_slice(code.as_bytes());
    out.put_u8(b' ');
    number(out, value);
    out.put_slice(b"] ");
    out.put_slice(text.as_bytes());
    out.put_slice(b"\r\n");
}

/// `* VANISHED [(EARLIER)] uids` (RFC 7162 §3.2.10). `uids` is a sequence set, not empty.
pub fn vanished(out: &mut BytesMut, earlier: bool, uids: &str) {
    out.put_slice(if earlier { b"* VANISHED (EARLIER) " } else { b"* VANISHED " });
    out.put_slice(uids.as_bytes());
    out.put_slice(b"\r\n");
}
