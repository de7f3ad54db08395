//! What the header of a message says about who sends it and who gets it, and the header as it is sent.

use mail::address::{Address, Domain};
use mail::header::HeaderAddress;
use mail::header::address_list::parse_address_list;

/// An address as it stands in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// One that mail can be sent to.
    Address(Address),
    /// Something else in the place of one.
    Other(String),
}

/// The header of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// As it is sent: without Bcc (RFC 8621 §7.5), and without the Return-Path of a message that was received (RFC 5321
    /// §4.4); otherwise to the octet as it is stored.
    pub(crate) sent: Vec<u8>,
    pub(crate) from: Vec<Named>,
    pub(crate) sender: Vec<Named>,
    /// To, Cc and Bcc, in that order.
    pub(crate) recipients: Vec<Named>,
    /// How many From and Sender fields there are; RFC 5322 §3.6 allows for one of each.
    pub(crate) from_fields: usize,
    pub(crate) sender_fields: usize,
}

/// There are more addresses than a message may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Header {
    /// Reads a header with the empty line that ends it. Each list may have so many addresses.
    pub(crate) fn parse(bytes: &[u8], addresses_max: usize) -> Result<Self, TooMany> {
        let mut header = Self { sent: Vec::with_capacity(bytes.len()), ..Self::default() };
        let mut lists = Lists::default();
        let mut field = Field::default();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if matches!(line.first(), Some(b' ' | b'\t')) {
                field.value.extend_from_slice(unended(line));
            } else {
                header.take(&mut lists, &field, addresses_max)?;
                field = Field::begin(line);
            }
            if !field.stays {
                header.sent.extend_from_slice(line);
            }
        }
        header.take(&mut lists, &field, addresses_max)?;
        header.recipients = [lists.to, lists.cc, lists.bcc].concat();
        Ok(header)
    }

    fn take(&mut self, lists: &mut Lists, field: &Field, addresses_max: usize) -> Result<(), TooMany> {
        let list = match field.name.as_slice() {
            b"from" => {
                self.from_fields += 1;
                &mut self.from
            }
            b"sender" => {
                self.sender_fields += 1;
                &mut self.sender
            }
            b"to" => &mut lists.to,
            b"cc" => &mut lists.cc,
            b"bcc" => &mut lists.bcc,
            _ => return Ok(()),
        };
        // Names of groups stand among their members, and so do their ends.
        let most = addresses_max.saturating_mul(2).saturating_add(16);
        let mut found = Vec::new();
        parse_address_list(&field.value, most, &mut found);
        if found.len() >= most {
            return Err(TooMany);
        }
        list.extend(found.iter().filter_map(named));
        if list.len() > addresses_max.saturating_add(1) {
            return Err(TooMany);
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Lists {
    to: Vec<Named>,
    cc: Vec<Named>,
    bcc: Vec<Named>,
}

#[derive(Debug, Default)]
struct Field {
    /// In lower case.
    name: Vec<u8>,
    /// Unfolded (RFC 5322 §2.2.3).
    value: Vec<u8>,
    /// It is not sent.
    stays: bool,
}

impl Field {
    fn begin(line: &[u8]) -> Self {
        let line = unended(line);
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return Self::default() };
        let name = line[..colon].trim_ascii_end().to_ascii_lowercase();
        let stays = matches!(name.as_slice(), b"bcc" | b"resent-bcc" | b"return-path");
        Self { name, value: line[colon + 1..].to_vec(), stays }
    }
}

fn unended(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// `None`: the beginning or the end of a group, and no address.
fn named(found: &HeaderAddress) -> Option<Named> {
    let host = found.host.as_ref()?.as_bytes();
    let mailbox = found.mailbox.as_ref().map(|mailbox| mailbox.as_bytes()).unwrap_or_default();
    // What the parser puts where something is missing, is no part of an address.
    let is_filled = matches!(host, b"MISSING_DOMAIN" | b"SYNTAX_ERROR") || mailbox == b"MISSING_MAILBOX";
    let text = || {
        let mailbox = String::from_utf8_lossy(mailbox);
        if is_filled { mailbox.into_owned() } else { format!("{mailbox}@{}", String::from_utf8_lossy(host)) }
    };
    let address = || {
        let domain = Domain::parse(std::str::from_utf8(host).ok()?).ok()?;
        Address::new(std::str::from_utf8(mailbox).ok()?, domain).ok()
    };
    let address = if is_filled { None } else { address() };
    Some(address.map_or_else(|| Named::Other(text()), Named::Address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[Named]) -> Vec<String> {
        let text = |named: &Named| match named {
            Named::Address(address) => address.to_string(),
            Named::Other(text) => format!("?{text}"),
        };
        list.iter().map(text).collect()
    }

    /// RFC 8621 §7.5
    #[test]
    fn bcc_is_read_and_not_sent() {
        let header = Header::parse(
            b"Return-Path: <c@x.test>\r\nFrom: A <a@x.test>\r\nBCC : b@x.test,\r\n c@x.test\r\nTo: d@x.test, E\r\n <e@x.test>\r\n\
              Cc: friends: f@x.test, g@x.test;\r\nSubject: bcc: x\r\nbcc:\r\n\r\n",
            10,
        )
        .unwrap();
        assert_eq!(texts(&header.from), ["a@x.test"]);
        assert_eq!(
            texts(&header.recipients),
            ["d@x.test", "e@x.test", "f@x.test", "g@x.test", "b@x.test", "c@x.test"]
        );
        assert_eq!(
            String::from_utf8(header.sent).unwrap(),
            "From: A <a@x.test>\r\nTo: d@x.test, E\r\n <e@x.test>\r\n\
             Cc: friends: f@x.test, g@x.test;\r\nSubject: bcc: x\r\n\r\n"
        );
    }

    #[test]
    fn what_is_no_address_is_told_apart() {
        let read = |line: &str| Header::parse(format!("{line}\r\n\r\n").as_bytes(), 10);
        let texts_of = |line: &str| texts(&read(line).unwrap().recipients);
        assert_eq!(texts_of("To: undisclosed-recipients:;"), Vec::<String>::new());
        assert_eq!(texts_of("To: \"a b\"@x.test"), ["\"a b\"@x.test"]);
        assert_eq!(texts_of("To: bob"), ["?bob"]);
        assert_eq!(texts_of("To: bob@-x"), ["?bob@-x"]);
        let header = read("From: a@x.test\r\nFrom: b@x.test\r\nSender: c@x.test").unwrap();
        assert_eq!((header.from_fields, header.from.len(), header.sender_fields), (2, 2, 1));
        let many: Vec<String> = (0..40).map(|n| format!("a{n}@x.test")).collect();
        assert_eq!(read(&format!("To: {}", many.join(", "))), Err(TooMany));
    }
}
