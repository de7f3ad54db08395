//! Trace fields (RFC 5321 §4.4).

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use ::mail::date::SentDate;
use ::mail::envelope::Envelope;
use ::mail::received::{Greeting, Protocol, ReceivedLine, return_path_field};
use smtp_protocol::command::HelloKind;

use crate::session::Client;

/// This moment.
pub(crate) fn now() -> SentDate {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    SentDate::utc(since.cast_signed())
}

/// The `Received` line of a message that goes into the queue.
pub(crate) fn received(client: &Client, hostname: &str, envelope: &Envelope, id: &str) -> Vec<u8> {
    received_line(client, hostname, envelope, None, id, now()).into_bytes()
}

/// The trace fields of a message that goes into the mailbox of one recipient.
pub(crate) fn delivered(client: &Client, hostname: &str, envelope: &Envelope, recipient: usize) -> Vec<u8> {
    let return_path = return_path_field(&envelope.reverse_path);
    let address = &envelope.recipients[recipient].address;
    let received = received_line(client, hostname, envelope, Some(recipient), &client.session_id, now());
    format!("{return_path}Delivered-To: {address}\r\n{received}").into_bytes()
}

fn received_line(
    client: &Client,
    hostname: &str,
    envelope: &Envelope,
    recipient: Option<usize>,
    id: &str,
    date: SentDate,
) -> String {
    let (greeting, name) = match &client.hello {
        Some((HelloKind::Ehlo, name)) => (Greeting::Ehlo, name.as_str()),
        Some((HelloKind::Lhlo, name)) => (Greeting::Lhlo, name.as_str()),
        Some((HelloKind::Helo, name)) => (Greeting::Helo, name.as_str()),
        None => (Greeting::Helo, "unknown"),
    };
    // Only a message that is declared to need SMTPUTF8 may have a header that is not ASCII (RFC 6531 §3.6).
    let helo = if envelope.smtputf8 || name.is_ascii() {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(name.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect())
    };
    // RFC 5321 §7.2: with several recipients, naming one would tell the others about it.
    let only = match (recipient, envelope.recipients.as_slice()) {
        (Some(index), recipients) => Some(&recipients[index].address),
        (None, [only]) => Some(&only.address),
        (None, _) => None,
    };
    let tls = client.peer.tls.as_ref();
    ReceivedLine {
        helo: &helo,
        remote_ip: client.peer.remote.ip(),
        remote_name: None,
        by: hostname,
        with: Protocol { greeting, authenticated: client.principal.is_some(), smtputf8: envelope.smtputf8 },
        tls: tls.map(|tls| (tls.version, tls.cipher.as_str())),
        id,
        recipient: only.filter(|address| envelope.smtputf8 || !address.needs_smtputf8()),
        date,
    }
    .to_field()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Role;
    use ::mail::address::{Address, ReversePath};
    use ::mail::envelope::Recipient;
    use net::stream::{End, Peer};

    #[test]
    fn lines() {
        let peer =
            Peer { remote: End::Tcp("192.0.2.1:1234".parse().unwrap()), local: End::Memory, tls: None };
        let client = Client {
            role: Role::Mx,
            session_id: "7".into(),
            peer,
            hello: Some((HelloKind::Ehlo, "jürgen.example".into())),
            principal: None,
        };
        let mut envelope = Envelope::new(ReversePath::NULL);
        let check = |envelope: &Envelope, recipient, name: &str, with: &str, only: &str| {
            let line = received_line(&client, "mx.test", envelope, recipient, "42", SentDate::utc(0));
            let expected = format!(
                "Received: from {name} ([192.0.2.1])\r\n\tby mx.test with {with} id 42{only};\r\n\t\
                 Thu, 1 Jan 1970 00:00:00 +0000\r\n"
            );
            assert_eq!(line, expected);
        };
        envelope.recipients.push(Recipient::new(Address::parse("b@x.test").unwrap()));
        check(&envelope, None, "j?rgen.example", "ESMTP", "\r\n\tfor <b@x.test>");
        envelope.recipients.push(Recipient::new(Address::parse("ö@x.test").unwrap()));
        check(&envelope, Some(0), "j?rgen.example", "ESMTP", "\r\n\tfor <b@x.test>");
        check(&envelope, Some(1), "j?rgen.example", "ESMTP", "");
        check(&envelope, None, "j?rgen.example", "ESMTP", "");
        envelope.smtputf8 = true;
        check(&envelope, Some(1), "jürgen.example", "UTF8SMTP", "\r\n\tfor <ö@x.test>");
    }
}
