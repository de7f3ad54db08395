//! Trace fields (RFC 5321 §4.4).

use std::net::IpAddr;

use ::mail::envelope::Envelope;
use smtp_protocol::command::HelloKind;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::session::Client;

/// RFC 5322 §3.3, in UTC.
const DATE: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day padding:none] [month repr:short] [year] [hour]:[minute]:[second] +0000"
);

/// The date of this moment.
pub(crate) fn now() -> String {
    OffsetDateTime::now_utc().format(DATE).expect("the years of this machine have four digits")
}

/// The `Received` line of a message that goes into the queue.
pub(crate) fn received(client: &Client, hostname: &str, envelope: &Envelope, id: &str) -> Vec<u8> {
    received_line(client, hostname, envelope, None, id, &now())
}

/// The trace fields of a message that goes into the mailbox of one recipient.
pub(crate) fn delivered(client: &Client, hostname: &str, envelope: &Envelope, recipient: usize) -> Vec<u8> {
    let address = &envelope.recipients[recipient].address;
    let lines = format!("Return-Path: {}\r\nDelivered-To: {address}\r\n", envelope.reverse_path);
    let received = received_line(client, hostname, envelope, Some(recipient), &client.session_id, &now());
    [lines.into_bytes(), received].concat()
}

fn received_line(
    client: &Client,
    hostname: &str,
    envelope: &Envelope,
    recipient: Option<usize>,
    id: &str,
    date: &str,
) -> Vec<u8> {
    let peer = &client.peer;
    let (kind, name) = match &client.hello {
        Some((kind, name)) => (*kind, name.as_str()),
        None => (HelloKind::Helo, "unknown"),
    };
    // What the client calls itself has been seen to be one word; only the character set is left to look at.
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_graphic() || (envelope.smtputf8 && !c.is_ascii()) { c } else { '?' })
        .collect();
    let from = match peer.remote.ip() {
        Some(IpAddr::V4(ip)) => format!("[{ip}]"),
        Some(IpAddr::V6(ip)) => format!("[IPv6:{ip}]"),
        None => "local".to_owned(),
    };
    let protocol = protocol(kind, peer.tls.is_some(), client.principal.is_some(), envelope.smtputf8);
    let tls =
        peer.tls.as_ref().map(|tls| format!("\r\n\t({} {})", tls.version, tls.cipher)).unwrap_or_default();
    // RFC 5321 §7.6: with several recipients, naming one would tell the others about it.
    let only = match (recipient, envelope.recipients.as_slice()) {
        (Some(index), recipients) => Some(&recipients[index].address),
        (None, [only]) => Some(&only.address),
        (None, _) => None,
    };
    let only = only
        .filter(|address| envelope.smtputf8 || !address.needs_smtputf8())
        .map(|address| format!("\r\n\tfor <{address}>"))
        .unwrap_or_default();
    format!(
        "Received: from {name} ({from})\r\n\tby {hostname} with {protocol} id {id}{tls}{only};\r\n\t{date}\r\n"
    )
    .into_bytes()
}

/// The names of RFC 3848 and RFC 6531 §4.3.
fn protocol(kind: HelloKind, tls: bool, auth: bool, utf8: bool) -> String {
    let base = match (kind, utf8) {
        (HelloKind::Helo, _) => return "SMTP".to_owned(),
        (HelloKind::Ehlo, false) => "ESMTP",
        (HelloKind::Ehlo, true) => "UTF8SMTP",
        (HelloKind::Lhlo, false) => "LMTP",
        (HelloKind::Lhlo, true) => "UTF8LMTP",
    };
    let tls = if tls { "S" } else { "" };
    let auth = if auth { "A" } else { "" };
    format!("{base}{tls}{auth}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Role;
    use ::mail::address::{Address, ReversePath};
    use ::mail::envelope::Recipient;
    use net::stream::{End, Peer};

    #[test]
    fn protocol_names() {
        assert_eq!(protocol(HelloKind::Helo, true, false, false), "SMTP");
        assert_eq!(protocol(HelloKind::Ehlo, false, false, false), "ESMTP");
        assert_eq!(protocol(HelloKind::Ehlo, true, true, false), "ESMTPSA");
        assert_eq!(protocol(HelloKind::Ehlo, true, true, true), "UTF8SMTPSA");
        assert_eq!(protocol(HelloKind::Lhlo, false, false, false), "LMTP");
    }

    #[test]
    fn lines() {
        let peer =
            Peer { remote: End::Tcp("192.0.2.1:1234".parse().unwrap()), local: End::Memory, tls: None };
        let client = Client {
            role: Role::Mx,
            session_id: "7".into(),
            peer,
            hello: Some((HelloKind::Ehlo, "a.client.example".into())),
            principal: None,
        };
        let mut envelope = Envelope::new(ReversePath::NULL);
        envelope.recipients.push(Recipient::new(Address::parse("b@x.test").unwrap()));
        let check = |envelope: &Envelope, recipient, expected: &str| {
            let line = received_line(&client, "mx.test", envelope, recipient, "42", "today");
            assert_eq!(String::from_utf8(line).unwrap(), expected);
        };
        let one = "Received: from a.client.example ([192.0.2.1])\r\n\tby mx.test with ESMTP id 42\r\n\tfor <b@x.test>;\r\n\ttoday\r\n";
        check(&envelope, None, one);
        envelope.recipients.push(Recipient::new(Address::parse("c@x.test").unwrap()));
        check(&envelope, Some(0), one);
        check(
            &envelope,
            None,
            "Received: from a.client.example ([192.0.2.1])\r\n\tby mx.test with ESMTP id 42;\r\n\ttoday\r\n",
        );
    }

    #[test]
    fn dates() {
        let moment = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        assert_eq!(moment.format(DATE).unwrap(), "Tue, 14 Nov 2023 22:13:20 +0000");
        assert!(OffsetDateTime::parse(&now(), &time::format_description::well_known::Rfc2822).is_ok());
    }
}
