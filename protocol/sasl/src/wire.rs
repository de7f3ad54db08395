//! How the line protocols carry messages of an exchange: base64 (RFC 4648 §4), `=` for an empty initial response.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Not base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not base64")]
pub struct NotBase64;

/// Longest message of an exchange, decoded. PLAIN with its longest names and password is 1.5 KiB.
pub const MESSAGE_BYTES_MAX: usize = 4096;
/// The same in base64.
pub const ENCODED_BYTES_MAX: usize = MESSAGE_BYTES_MAX.div_ceil(3) * 4;

/// A message as it is sent.
pub fn encode(message: &[u8]) -> String {
    STANDARD.encode(message)
}

/// A message as it came on a line of its own.
pub fn decode(line: &[u8]) -> Result<Vec<u8>, NotBase64> {
    if line.len() > ENCODED_BYTES_MAX {
        return Err(NotBase64);
    }
    STANDARD.decode(line).map_err(|_| NotBase64)
}

/// An initial response as it came in the command: `=` is an empty one (RFC 4954 §4, RFC 4959 §3).
pub fn decode_initial(argument: &[u8]) -> Result<Vec<u8>, NotBase64> {
    if argument == b"=" { Ok(Vec::new()) } else { decode(argument) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding() {
        assert_eq!(decode(b"AGEAYg==").unwrap(), b"\0a\0b");
        assert_eq!(decode(b"").unwrap(), b"");
        assert_eq!(decode_initial(b"=").unwrap(), b"");
        for bad in [&b"="[..], b"AGEAYg", b"AGE AYg==", b"*", b"AGEAYg==\r"] {
            assert_eq!(decode(bad), Err(NotBase64));
        }
        assert_eq!(decode(&vec![b'A'; ENCODED_BYTES_MAX + 4]), Err(NotBase64));
    }
}
