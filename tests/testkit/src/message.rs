//! Messages that can be told apart and checked to the byte.

use std::fmt::Write as _;

/// The header field that names a test message.
pub const ID_FIELD: &str = "X-Test-Id";

/// A message of about `size` bytes whose every line depends on `id`, with CRLF line ends.
pub fn numbered(id: u64, size: usize) -> String {
    let mut text = format!(
        "From: Load <load@example.net>\r\nTo: someone@example.test\r\nSubject: test {id}\r\n\
         Date: Mon, 02 Mar 2026 10:00:00 +0000\r\nMessage-ID: <{}>\r\n{ID_FIELD}: {id}\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n",
        message_id(id)
    );
    let mut line = 0_u64;
    while text.len() < size {
        let word = id.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left((line % 64) as u32) ^ line;
        let _ = write!(text, "line {line} of message {id}: {word:016x} the quick brown fox\r\n");
        line += 1;
    }
    text
}

/// The Message-ID of a numbered message, without the angle brackets.
pub fn message_id(id: u64) -> String {
    format!("{id}@load.example.net")
}

/// The number in the id field of a header block.
pub fn id_of(header: &str) -> Option<u64> {
    header.lines().find_map(|line| line.strip_prefix(ID_FIELD)?.strip_prefix(':')?.trim().parse().ok())
}
