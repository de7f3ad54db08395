//! The trace fields that final delivery adds (RFC 5321 §4.4).

use bytes::Bytes;
use mail::address::{Address, ReversePath};

/// What stands before the message in a mailbox: the reverse-path that it came with, the recipient that it came for, and
/// what was put before it when it was accepted.
pub(crate) fn prefix(reverse_path: &ReversePath, recipient: &Address, accepted: &[u8]) -> Bytes {
    let mut fields = format!("Return-Path: {reverse_path}\r\nDelivered-To: {recipient}\r\n").into_bytes();
    fields.extend_from_slice(accepted);
    fields.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_rfc5321_4_4() {
        let check = |reverse_path: &str, expected: &str| {
            let path = match reverse_path {
                "" => ReversePath::NULL,
                text => ReversePath(Some(Address::parse(text).unwrap())),
            };
            let recipient = Address::parse("bob@example.test").unwrap();
            assert_eq!(prefix(&path, &recipient, b"Received: x\r\n"), expected.as_bytes());
        };
        check("", "Return-Path: <>\r\nDelivered-To: bob@example.test\r\nReceived: x\r\n");
        check("a@b.test", "Return-Path: <a@b.test>\r\nDelivered-To: bob@example.test\r\nReceived: x\r\n");
    }
}
