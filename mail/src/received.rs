//! The trace fields that a receiving host puts above a message: Return-Path and Received (RFC 5321 §4.4).

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::address::{Address, ReversePath};
use crate::date::SentDate;

/// What a Received field tells.
#[derive(Clone, Debug)]
pub struct ReceivedLine<'a> {
    /// What the client called itself in HELO, EHLO or LHLO.
    pub helo: &'a str,
    /// The client's address; `None` for a Unix socket.
    pub remote_ip: Option<IpAddr>,
    /// The name found for that address, if one was looked up.
    pub remote_name: Option<&'a str>,
    /// Our name.
    pub by: &'a str,
    /// How it came.
    pub with: Protocol,
    /// The TLS version and cipher, as rustls names them, if it came under TLS.
    pub tls: Option<(&'a str, &'a str)>,
    /// Our id of the transaction.
    pub id: &'a str,
    /// The recipient, when it is the only one: others must not learn of each other (RFC 5321 §7.2).
    pub recipient: Option<&'a Address>,
    /// When.
    pub date: SentDate,
}

/// The protocol word of a Received field, taken apart (RFC 3848, RFC 6531 §4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protocol {
    /// Which greeting was used.
    pub greeting: Greeting,
    /// The client authenticated.
    pub authenticated: bool,
    /// SMTPUTF8 was used in the transaction.
    pub smtputf8: bool,
}

/// The command that began the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Greeting {
    /// HELO.
    Helo,
    /// EHLO.
    #[default]
    Ehlo,
    /// LHLO (RFC 2033).
    Lhlo,
}

impl Protocol {
    /// The word after `with`.
    pub fn keyword(self, tls: bool) -> &'static str {
        match (self.greeting, self.smtputf8, tls, self.authenticated) {
            (Greeting::Helo, ..) => "SMTP",
            (Greeting::Ehlo, false, false, false) => "ESMTP",
            (Greeting::Ehlo, false, false, true) => "ESMTPA",
            (Greeting::Ehlo, false, true, false) => "ESMTPS",
            (Greeting::Ehlo, false, true, true) => "ESMTPSA",
            (Greeting::Ehlo, true, false, false) => "UTF8SMTP",
            (Greeting::Ehlo, true, false, true) => "UTF8SMTPA",
            (Greeting::Ehlo, true, true, false) => "UTF8SMTPS",
            (Greeting::Ehlo, true, true, true) => "UTF8SMTPSA",
            (Greeting::Lhlo, false, false, false) => "LMTP",
            (Greeting::Lhlo, false, false, true) => "LMTPA",
            (Greeting::Lhlo, false, true, false) => "LMTPS",
            (Greeting::Lhlo, false, true, true) => "LMTPSA",
            (Greeting::Lhlo, true, false, false) => "UTF8LMTP",
            (Greeting::Lhlo, true, false, true) => "UTF8LMTPA",
            (Greeting::Lhlo, true, true, false) => "UTF8LMTPS",
            (Greeting::Lhlo, true, true, true) => "UTF8LMTPSA",
        }
    }
}

impl ReceivedLine<'_> {
    /// The field with its name and line end, folded.
    pub fn to_field(&self) -> String {
        let mut out = String::from("Received: from ");
        push_word(&mut out, self.helo);
        match (self.remote_name, self.remote_ip) {
            (name, Some(ip)) => {
                out.push_str(" (");
                if let Some(name) = name {
                    push_word(&mut out, name);
                    out.push(' ');
                }
                match ip {
                    IpAddr::V4(ip) => write!(out, "[{ip}])"),
                    IpAddr::V6(ip) => write!(out, "[IPv6:{ip}])"),
                }
                .expect("writing to a String does not fail");
            }
            (_, None) => out.push_str(" (local)"),
        }
        if let Some((version, cipher)) = self.tls {
            out.push_str("\r\n\t(using ");
            push_word(&mut out, version);
            out.push_str(" with cipher ");
            push_word(&mut out, cipher);
            out.push(')');
        }
        out.push_str("\r\n\tby ");
        push_word(&mut out, self.by);
        out.push_str(" with ");
        out.push_str(self.with.keyword(self.tls.is_some()));
        out.push_str(" id ");
        push_word(&mut out, self.id);
        if let Some(recipient) = self.recipient {
            write!(out, "\r\n\tfor <{recipient}>").expect("writing to a String does not fail");
        }
        write!(out, ";\r\n\t{}\r\n", self.date.rfc5322()).expect("writing to a String does not fail");
        out
    }
}

/// The Return-Path field that the final host adds (RFC 5321 §4.4), with its line end.
pub fn return_path_field(path: &ReversePath) -> String {
    format!("Return-Path: {path}\r\n")
}

/// A word that came from outside. What could end the line, open a comment or be taken for syntax becomes `?`.
fn push_word(out: &mut String, word: &str) {
    let word = word.trim();
    if word.is_empty() {
        out.push_str("unknown");
    }
    // A name is at most 255 octets (RFC 5321 §4.5.3.1.2); a line must not pass 998.
    for c in word.chars().take(255) {
        let harmless = !c.is_control()
            && !c.is_whitespace()
            && !matches!(c, '(' | ')' | '<' | '>' | ';' | '\\' | '"' | ',');
        out.push(if harmless { c } else { '?' });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(recipient: Option<&Address>) -> ReceivedLine<'_> {
        ReceivedLine {
            helo: "client.example.test",
            remote_ip: Some([192, 0, 2, 1].into()),
            remote_name: None,
            by: "mx.example.test",
            with: Protocol::default(),
            tls: None,
            id: "0123456789",
            recipient,
            date: SentDate { unix_seconds: 0, offset_minutes: 60 },
        }
    }

    #[test]
    fn fields_rfc5321_4_4() {
        assert_eq!(
            line(None).to_field(),
            "Received: from client.example.test ([192.0.2.1])\r\n\tby mx.example.test with ESMTP id 0123456789;\r\n\t\
             Thu, 1 Jan 1970 01:00:00 +0100\r\n"
        );
        let recipient = Address::parse("a@x.test").unwrap();
        let secure = ReceivedLine {
            remote_ip: Some("2001:db8::1".parse().unwrap()),
            remote_name: Some("host.test"),
            with: Protocol { authenticated: true, ..Protocol::default() },
            tls: Some(("TLSv1_3", "TLS13_AES_128_GCM_SHA256")),
            ..line(Some(&recipient))
        };
        assert_eq!(
            secure.to_field(),
            "Received: from client.example.test (host.test [IPv6:2001:db8::1])\r\n\t\
             (using TLSv1_3 with cipher TLS13_AES_128_GCM_SHA256)\r\n\tby mx.example.test with ESMTPSA id 0123456789\r\n\t\
             for <a@x.test>;\r\n\tThu, 1 Jan 1970 01:00:00 +0100\r\n"
        );
    }

    #[test]
    fn hostile_names_stay_one_word() {
        let field = ReceivedLine { helo: "a\r\nX-Evil: (b); <c> d", ..line(None) }.to_field();
        assert!(field.starts_with("Received: from a??X-Evil:??b????c??d ([192.0.2.1])\r\n\t"), "{field}");
        let field = ReceivedLine { helo: &"x".repeat(5000), remote_ip: None, ..line(None) }.to_field();
        assert!(field.starts_with("Received: from xxx") && field.lines().all(|line| line.len() < 998));
        assert!(ReceivedLine { helo: " ", ..line(None) }.to_field().starts_with("Received: from unknown ("));
    }

    #[test]
    fn keywords_rfc3848_rfc6531() {
        let check = |greeting, authenticated, smtputf8, tls, expected| {
            assert_eq!(Protocol { greeting, authenticated, smtputf8 }.keyword(tls), expected);
        };
        check(Greeting::Helo, false, false, true, "SMTP");
        check(Greeting::Ehlo, false, false, true, "ESMTPS");
        check(Greeting::Ehlo, true, true, true, "UTF8SMTPSA");
        check(Greeting::Lhlo, false, false, false, "LMTP");
        check(Greeting::Lhlo, true, false, true, "LMTPSA");
    }

    #[test]
    fn return_paths() {
        assert_eq!(return_path_field(&ReversePath::NULL), "Return-Path: <>\r\n");
        let path = ReversePath::from(Address::parse("\"a b\"@x.test").unwrap());
        assert_eq!(return_path_field(&path), "Return-Path: <\"a b\"@x.test>\r\n");
    }
}
