//! Writers of responses. Each appends to a buffer, usually [`crate::server::Server::output`].
//!
//! Nothing here decides what is said; a writer knows only how it is spelled. Message bytes of `BODY[…]` are not
//! written here: [`fetch::literal_head`] announces them and the service streams them behind it.

pub mod envelope;
pub mod fetch;
pub mod list;
pub mod search;
pub mod select;
pub mod status;
pub mod string;
pub mod structure;

use bytes::{BufMut, BytesMut};

/// Writes a number in decimal.
pub fn number(out: &mut BytesMut, number: u64) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    let mut rest = number;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[start..]);
}

/// Writes `* `, the number, a space and a word: `* 3 EXPUNGE`.
pub fn numbered(out: &mut BytesMut, number: u32, word: &str) {
    out.put_slice(b"* ");
    self::number(out, u64::from(number));
    out.put_slice(b" ");
    out.put_slice(word.as_bytes());
    out.put_slice(b"\r\n");
}

/// Writes an untagged response of one line.
pub fn untagged(out: &mut BytesMut, text: &str) {
    debug_assert!(!text.contains(['\r', '\n']), "a response is one line");
    out.put_slice(b"* ");
    out.put_slice(text.as_bytes());
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
