//! Delivery status notifications: the message that tells a sender what became of theirs (RFC 3461, RFC 3464, RFC 6522,
//! RFC 6533).
//!
//! The text is made in two pieces, and what is returned of the original stands between them: it is streamed by the
//! caller and never held here.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::date::SentDate;

/// A notification to be written.
#[derive(Clone, Debug)]
pub struct Notification<'a> {
    /// The host that reports, our name.
    pub reporting_mta: &'a str,
    /// Who gets it: the reverse-path of the original, which is never null here.
    pub to: &'a Address,
    /// The message-id of the notification, without angle brackets.
    pub message_id: &'a str,
    /// When it is written.
    pub date: SentDate,
    /// When the original came.
    pub arrival: Option<SentDate>,
    /// The host that gave us the original, as it called itself.
    pub received_from: Option<&'a str>,
    /// ENVID of the original (RFC 3461 §4.4).
    pub envid: Option<&'a str>,
    /// The message-id of the original, so that clients thread them.
    pub original_message_id: Option<&'a str>,
    /// What became of each recipient; all of one notification have the same action.
    pub recipients: Vec<RecipientReport<'a>>,
    /// What is returned.
    pub returned: Returned,
    /// Separates the parts; must not occur in the original, so let it hold randomness. Letters and digits.
    pub boundary: &'a str,
}

/// What became of one recipient.
#[derive(Clone, Debug)]
pub struct RecipientReport<'a> {
    /// The address tried.
    pub recipient: &'a Address,
    /// ORCPT as the sender gave it: `rfc822;user@example.test`.
    pub original: Option<&'a str>,
    /// What happened.
    pub action: Action,
    /// The enhanced status code (RFC 3463).
    pub status: Status,
    /// The other host, when there was one.
    pub remote_mta: Option<&'a str>,
    /// Its last words, or ours.
    pub diagnostic: Option<&'a str>,
    /// When it was last tried.
    pub last_attempt: Option<SentDate>,
    /// Until when it will be tried, for delays.
    pub retry_until: Option<SentDate>,
    /// What else people should know, in whole sentences.
    pub note: Option<&'a str>,
}

/// Action (RFC 3464 §2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// It could not be delivered, and will not be.
    Failed,
    /// It has not been delivered yet.
    Delayed,
    /// It is in the mailbox.
    Delivered,
    /// It went to a host that sends no notifications.
    Relayed,
    /// It went to the members of a list.
    Expanded,
}

/// An enhanced status code (RFC 3463): class 2, 4 or 5, subject, detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Status(pub u8, pub u16, pub u16);

/// What of the original is returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Returned {
    /// All of it, or its header only.
    pub whole: bool,
    /// It holds octets above ASCII.
    pub eight_bit: bool,
    /// It came with SMTPUTF8: its header may hold UTF-8.
    pub smtputf8: bool,
}

/// The two pieces of a notification; the original, or its header, goes between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotificationText {
    /// Header, the part for people, the part for machines, and the beginning of the returned part.
    pub before: Vec<u8>,
    /// The final delimiter.
    pub after: Vec<u8>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Action {
    /// The keyword of the Action field.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
            Self::Expanded => "expanded",
        }
    }

    fn subject(self) -> &'static str {
        match self {
            Self::Failed => "Your message could not be delivered",
            Self::Delayed => "Your message is delayed",
            Self::Delivered => "Your message was delivered",
            Self::Relayed => "Your message was passed on",
            Self::Expanded => "Your message was passed on to a list",
        }
    }

    fn explanation(self) -> &'static str {
        match self {
            Self::Failed => "Your message could not be delivered to:",
            Self::Delayed => {
                "Your message has not been delivered yet. You need not send it again:\r\nwe keep trying. It waits for:"
            }
            Self::Delivered => "Your message was delivered to:",
            Self::Relayed => {
                "Your message was passed on to a host that sends no notifications, so that\r\n\
                 you may hear no more of it. It went to:"
            }
            Self::Expanded => "Your message was passed on to the members of:",
        }
    }
}

impl Notification<'_> {
    /// Writes it.
    pub fn write(&self) -> NotificationText {
        let action = self.recipients.first().map_or(Action::Failed, |report| report.action);
        let utf8 = self.to.needs_smtputf8() || self.recipients.iter().any(RecipientReport::needs_utf8);
        let mut out = String::new();
        self.header(action, utf8, &mut out);
        self.for_people(action, utf8, &mut out);
        self.for_machines(utf8, &mut out);
        self.begin_returned(&mut out);
        NotificationText {
            before: out.into_bytes(),
            after: format!("\r\n--{}--\r\n", self.boundary).into_bytes(),
        }
    }

    fn header(&self, action: Action, utf8: bool, out: &mut String) {
        let host = one_line(self.reporting_mta);
        field(out, "From", format_args!("Mail Delivery System <MAILER-DAEMON@{host}>"));
        field(out, "To", format_args!("<{}>", self.to));
        field(out, "Subject", format_args!("{}", action.subject()));
        field(out, "Date", format_args!("{}", self.date.rfc5322()));
        field(out, "Message-ID", format_args!("<{}>", one_line(self.message_id)));
        if let Some(id) = self.original_message_id {
            field(out, "In-Reply-To", format_args!("<{}>", one_line(id)));
            field(out, "References", format_args!("<{}>", one_line(id)));
        }
        // RFC 3834 §5: nobody's autoresponder shall answer this.
        field(out, "Auto-Submitted", format_args!("auto-replied"));
        field(out, "MIME-Version", format_args!("1.0"));
        let boundary = self.boundary;
        field(
            out,
            "Content-Type",
            format_args!("multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\""),
        );
        let eight_bit = utf8 || self.returned.eight_bit || self.returned.smtputf8;
        let encoding = if eight_bit { "8bit" } else { "7bit" };
        field(out, "Content-Transfer-Encoding", format_args!("{encoding}"));
        out.push_str("\r\nThis is a delivery status notification in MIME format.\r\n");
    }

    /// The part that people read.
    fn for_people(&self, action: Action, utf8: bool, out: &mut String) {
        let mut text = format!("This is the mail system at {}.\r\n\r\n", one_line(self.reporting_mta));
        text.push_str(action.explanation());
        text.push_str("\r\n");
        for report in &self.recipients {
            push(&mut text, format_args!("\r\n  <{}>\r\n", report.recipient));
            if let Some(diagnostic) = report.diagnostic {
                let host = report.remote_mta.filter(|_| is_reply(diagnostic));
                let said = host.map(|host| format!("{} said: ", one_line(host))).unwrap_or_default();
                wrap(&format!("{said}{}", one_line(diagnostic)), "    ", &mut text);
            }
            if let Some(note) = report.note {
                wrap(&one_line(note), "    ", &mut text);
            }
            if let Some(until) = report.retry_until {
                push(&mut text, format_args!("    It will be tried until {}.\r\n", until.rfc5322()));
            }
        }
        let returned = match (action, self.returned.whole) {
            (Action::Failed, true) => "\r\nThe message is attached below the technical details.\r\n",
            _ => "\r\nThe header of the message is attached below the technical details.\r\n",
        };
        text.push_str(returned);
        // What another host said in other letters must not keep the notification from a host that takes none.
        if !utf8 && !self.returned.eight_bit && !self.returned.smtputf8 {
            text = in_ascii(&text);
        }
        let boundary = self.boundary;
        push(out, format_args!("\r\n--{boundary}\r\n"));
        field(out, "Content-Description", format_args!("Notification"));
        field(out, "Content-Type", format_args!("text/plain; charset=utf-8"));
        field(
            out,
            "Content-Transfer-Encoding",
            format_args!("{}", if text.is_ascii() { "7bit" } else { "8bit" }),
        );
        out.push_str("\r\n");
        out.push_str(&text);
    }

    /// The part that machines read (RFC 3464 §2.1).
    fn for_machines(&self, utf8: bool, out: &mut String) {
        push(out, format_args!("\r\n--{}\r\n", self.boundary));
        field(out, "Content-Description", format_args!("Delivery report"));
        let kind = if utf8 { "message/global-delivery-status" } else { "message/delivery-status" };
        field(out, "Content-Type", format_args!("{kind}"));
        if utf8 {
            field(out, "Content-Transfer-Encoding", format_args!("8bit"));
        }
        out.push_str("\r\n");
        if let Some(envid) = self.envid {
            field(out, "Original-Envelope-Id", format_args!("{}", one_line(envid)));
        }
        field(out, "Reporting-MTA", format_args!("dns; {}", one_line(self.reporting_mta)));
        if let Some(host) = self.received_from {
            field(out, "Received-From-MTA", format_args!("dns; {}", one_line(host)));
        }
        if let Some(arrival) = self.arrival {
            field(out, "Arrival-Date", format_args!("{}", arrival.rfc5322()));
        }
        for report in &self.recipients {
            out.push_str("\r\n");
            report.write(utf8, out);
        }
    }

    /// The header of the last part (RFC 6522 §3, RFC 6533 §6).
    fn begin_returned(&self, out: &mut String) {
        push(out, format_args!("\r\n--{}\r\n", self.boundary));
        let Returned { whole, eight_bit, smtputf8 } = self.returned;
        let (kind, description) = match (whole, smtputf8) {
            (true, false) => ("message/rfc822", "Undelivered message"),
            (true, true) => ("message/global", "Undelivered message"),
            (false, false) => ("text/rfc822-headers", "Header of the message"),
            (false, true) => ("message/global-headers", "Header of the message"),
        };
        field(out, "Content-Description", format_args!("{description}"));
        field(out, "Content-Type", format_args!("{kind}"));
        if eight_bit || smtputf8 {
            field(out, "Content-Transfer-Encoding", format_args!("8bit"));
        }
        out.push_str("\r\n");
    }
}

impl RecipientReport<'_> {
    fn needs_utf8(&self) -> bool {
        self.recipient.needs_smtputf8() || self.original.is_some_and(|original| !original.is_ascii())
    }

    /// The fields of one recipient (RFC 3464 §2.3).
    fn write(&self, utf8: bool, out: &mut String) {
        if let Some(original) = self.original {
            field(out, "Original-Recipient", format_args!("{}", one_line(original)));
        }
        let kind = if utf8 && self.recipient.needs_smtputf8() { "utf-8" } else { "rfc822" };
        field(out, "Final-Recipient", format_args!("{kind}; {}", self.recipient));
        field(out, "Action", format_args!("{}", self.action.keyword()));
        field(out, "Status", format_args!("{}", self.status));
        if let Some(host) = self.remote_mta {
            field(out, "Remote-MTA", format_args!("dns; {}", one_line(host)));
        }
        if let Some(diagnostic) = self.diagnostic {
            // RFC 3464 §2.3.6: what a host said, and not what we say of it.
            let kind = if self.remote_mta.is_some() && is_reply(diagnostic) { "smtp" } else { "x-postrider" };
            let words = one_line(diagnostic);
            let words = if utf8 { words } else { in_ascii(&words) };
            let mut folded = String::new();
            wrap(&format!("{kind}; {words}"), "\t", &mut folded);
            field(out, "Diagnostic-Code", format_args!("{}", folded.trim()));
        }
        if let Some(date) = self.last_attempt {
            field(out, "Last-Attempt-Date", format_args!("{}", date.rfc5322()));
        }
        if let Some(date) = self.retry_until {
            field(out, "Will-Retry-Until", format_args!("{}", date.rfc5322()));
        }
    }
}

fn field(out: &mut String, name: &str, value: fmt::Arguments<'_>) {
    push(out, format_args!("{name}: {value}\r\n"));
}

fn push(out: &mut String, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String does not fail");
}

/// Whether a diagnostic is a host's reply: it begins with a code (RFC 5321 §4.2).
fn is_reply(diagnostic: &str) -> bool {
    let (code, rest) = diagnostic.split_at_checked(3).unwrap_or_default();
    code.bytes().all(|byte| byte.is_ascii_digit())
        && matches!(rest.bytes().next(), None | Some(b' ' | b'-'))
        && !code.is_empty()
}

fn in_ascii(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
}

/// Text from outside without anything that could end a line, and not endless.
fn one_line(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|w| !w.is_empty()).collect();
    words.join(" ").chars().take(4000).collect()
}

/// Breaks a text into indented lines of about 72 characters, and words longer than a line may be (RFC 5322 §2.1.1).
fn wrap(text: &str, indent: &str, out: &mut String) {
    const WORD_CHARACTERS_MAX: usize = 200;
    let mut width = 0;
    for word in text.split(' ') {
        let characters: Vec<char> = word.chars().collect();
        for piece in characters.chunks(WORD_CHARACTERS_MAX) {
            if width > 0 && width + 1 + piece.len() > 72 {
                out.push_str("\r\n");
                width = 0;
            }
            if width == 0 {
                out.push_str(indent);
            } else {
                out.push(' ');
                width += 1;
            }
            out.extend(piece);
            width += piece.len();
        }
    }
    out.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mime::{Facts, Kind, Limits, Splitter};

    fn report(recipient: &Address, action: Action) -> RecipientReport<'_> {
        RecipientReport {
            recipient,
            original: None,
            action,
            status: Status(5, 1, 1),
            remote_mta: None,
            diagnostic: None,
            last_attempt: None,
            retry_until: None,
            note: None,
        }
    }

    fn notification<'a>(to: &'a Address, recipients: Vec<RecipientReport<'a>>) -> Notification<'a> {
        Notification {
            reporting_mta: "mx.example.test",
            to,
            message_id: "n1@mx.example.test",
            date: SentDate::utc(86_400),
            arrival: Some(SentDate::utc(0)),
            received_from: Some("client.test"),
            envid: Some("E-1"),
            original_message_id: Some("o1@client.test"),
            recipients,
            returned: Returned::default(),
            boundary: "boundary42",
        }
    }

    fn facts(notification: &Notification<'_>, original: &[u8]) -> (Facts, String) {
        let text = notification.write();
        let whole = [&text.before[..], original, &text.after].concat();
        let mut splitter = Splitter::new(Limits::default());
        splitter.push(&whole);
        (splitter.finish(), String::from_utf8(whole).unwrap())
    }

    #[test]
    fn failure_rfc3464() {
        let (to, lost) = (Address::parse("a@client.test").unwrap(), Address::parse("b@x.test").unwrap());
        let failed = RecipientReport {
            original: Some("rfc822;b@alias.test"),
            remote_mta: Some("mx.x.test"),
            diagnostic: Some("550 5.1.1 no\r\nsuch user"),
            last_attempt: Some(SentDate::utc(3600)),
            ..report(&lost, Action::Failed)
        };
        let (_, text) = facts(&notification(&to, vec![failed]), b"Subject: lost\r\n");
        assert_eq!(
            text,
            "From: Mail Delivery System <MAILER-DAEMON@mx.example.test>\r\n\
             To: <a@client.test>\r\n\
             Subject: Your message could not be delivered\r\n\
             Date: Fri, 2 Jan 1970 00:00:00 +0000\r\n\
             Message-ID: <n1@mx.example.test>\r\n\
             In-Reply-To: <o1@client.test>\r\n\
             References: <o1@client.test>\r\n\
             Auto-Submitted: auto-replied\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status;\r\n\
             \tboundary=\"boundary42\"\r\n\
             Content-Transfer-Encoding: 7bit\r\n\
             \r\n\
             This is a delivery status notification in MIME format.\r\n\
             \r\n\
             --boundary42\r\n\
             Content-Description: Notification\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Transfer-Encoding: 7bit\r\n\
             \r\n\
             This is the mail system at mx.example.test.\r\n\
             \r\n\
             Your message could not be delivered to:\r\n\
             \r\n  <b@x.test>\r\n    mx.x.test said: 550 5.1.1 no such user\r\n\
             \r\n\
             The header of the message is attached below the technical details.\r\n\
             \r\n\
             --boundary42\r\n\
             Content-Description: Delivery report\r\n\
             Content-Type: message/delivery-status\r\n\
             \r\n\
             Original-Envelope-Id: E-1\r\n\
             Reporting-MTA: dns; mx.example.test\r\n\
             Received-From-MTA: dns; client.test\r\n\
             Arrival-Date: Thu, 1 Jan 1970 00:00:00 +0000\r\n\
             \r\n\
             Original-Recipient: rfc822;b@alias.test\r\n\
             Final-Recipient: rfc822; b@x.test\r\n\
             Action: failed\r\n\
             Status: 5.1.1\r\n\
             Remote-MTA: dns; mx.x.test\r\n\
             Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n\
             Last-Attempt-Date: Thu, 1 Jan 1970 01:00:00 +0000\r\n\
             \r\n\
             --boundary42\r\n\
             Content-Description: Header of the message\r\n\
             Content-Type: text/rfc822-headers\r\n\
             \r\n\
             Subject: lost\r\n\
             \r\n\
             --boundary42--\r\n"
        );
    }

    /// What is declared as 7bit is, whatever a host said; and what no host said is not put into its mouth (RFC 3464 §2.3.6).
    #[test]
    fn words_of_others() {
        let (to, lost) = (Address::parse("a@client.test").unwrap(), Address::parse("b@x.test").unwrap());
        let check = |diagnostic, expected: &[&str]| {
            let (remote_mta, diagnostic) = (Some("mx.x.test"), Some(diagnostic));
            let failed = RecipientReport { remote_mta, diagnostic, ..report(&lost, Action::Failed) };
            let (_, text) = facts(&notification(&to, vec![failed]), b"Subject: lost\r\n");
            assert!(text.is_ascii() && text.contains("\r\nContent-Transfer-Encoding: 7bit\r\n"), "{text}");
            for words in expected {
                assert!(text.contains(words), "{words}: {text}");
            }
        };
        check(
            "550 Postfach gelöscht",
            &["mx.x.test said: 550 Postfach gel?scht", "Diagnostic-Code: smtp; 550 P"],
        );
        check("550-5.1.1 no", &["mx.x.test said: 550-5.1.1 no", "Diagnostic-Code: smtp; 550-5.1.1 no"]);
        check(
            "4.4.1 no answer",
            &["\r\n    4.4.1 no answer", "Diagnostic-Code: x-postrider; 4.4.1 no answer"],
        );
    }

    #[test]
    fn every_action_makes_a_report_of_three_parts() {
        let (to, other) = (Address::parse("a@client.test").unwrap(), Address::parse("b@x.test").unwrap());
        for action in [Action::Failed, Action::Delayed, Action::Delivered, Action::Relayed, Action::Expanded]
        {
            let one = RecipientReport { retry_until: Some(SentDate::utc(0)), ..report(&other, action) };
            let mut notification = notification(&to, vec![one.clone(), one]);
            notification.returned.whole = true;
            let (facts, text) = facts(&notification, b"Subject: s\r\n\r\nbody\r\n");
            let Kind::Multipart(parts) = &facts.structure.kind else { panic!("{text}") };
            assert_eq!(parts.len(), 3);
            assert!(matches!(parts[2].kind, Kind::Message(_)));
            assert_eq!(text.matches(&format!("Action: {}\r\n", action.keyword())).count(), 2);
            assert!(facts.structure.media.as_ref().is_some_and(|media| media.is("multipart", "report")));
        }
    }

    #[test]
    fn international_addresses_rfc6533() {
        let (to, other) =
            (Address::parse("a@client.test").unwrap(), Address::parse("jörg@bücher.test").unwrap());
        let failed = RecipientReport { diagnostic: Some("nö"), ..report(&other, Action::Failed) };
        let mut notification = notification(&to, vec![failed]);
        notification.returned = Returned { whole: true, eight_bit: true, smtputf8: true };
        let (_, text) = facts(&notification, "Subject: ü\r\n\r\n".as_bytes());
        for expected in [
            "Content-Type: message/global-delivery-status\r\n",
            "Content-Type: message/global\r\nContent-Transfer-Encoding: 8bit\r\n",
            "Final-Recipient: utf-8; jörg@xn--bcher-kva.test\r\n",
            "Diagnostic-Code: x-postrider; nö\r\n",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }

    #[test]
    fn words_from_outside_cannot_break_out() {
        let (to, other) = (Address::parse("a@client.test").unwrap(), Address::parse("b@x.test").unwrap());
        let long = "x".repeat(5000);
        let failed = RecipientReport {
            original: Some("rfc822;x\r\nAction: delivered"),
            diagnostic: Some(&long),
            ..report(&other, Action::Failed)
        };
        let (_, text) = facts(&notification(&to, vec![failed]), b"");
        assert!(!text.contains("\r\nAction: delivered"));
        assert!(text.lines().all(|line| line.len() <= 998));
    }
}
