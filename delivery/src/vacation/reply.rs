//! The text of a vacation response.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jmap_protocol::object::vacation::Vacation;
use mail::address::Address;
use mail::date::SentDate;
use mail::header::decode::decode_header_text;
use mail::mime::Facts;

/// What is said where nothing was written (RFC 8621 §8: an appropriate default).
const DEFAULT: &str = "I am away at the moment, and will read your message later.\r\n";
/// Octets of a subject.
const SUBJECT_BYTES_MAX: usize = 300;
/// Octets of text in an encoded word, which has 75 with all (RFC 2047 §2).
const WORD: usize = 42;

/// What it is made of.
pub(super) struct Reply<'a> {
    pub(super) from: &'a Address,
    pub(super) to: &'a Address,
    /// Without angle brackets.
    pub(super) message_id: &'a str,
    pub(super) date: SentDate,
    pub(super) answered: &'a Facts,
    pub(super) vacation: &'a Vacation,
    pub(super) boundary: &'a str,
}

impl Reply<'_> {
    pub(super) fn write(&self) -> String {
        let mut out = String::new();
        let _ = write!(out, "From: <{}>\r\nTo: <{}>\r\n", self.from, self.to);
        let _ = write!(out, "Subject: {}\r\n", unstructured(&self.subject()));
        let _ = write!(out, "Date: {}\r\nMessage-ID: <{}>\r\n", self.date.rfc5322(), self.message_id);
        // RFC 3834 §3.1.5, §3.1.6
        if let Some(id) = self.answered.message_id.as_deref().filter(|id| is_id(id)) {
            let _ = write!(out, "In-Reply-To: <{id}>\r\nReferences: <{id}>\r\n");
        }
        // RFC 5230 §4.6: so that no other responder answers this.
        out.push_str("Auto-Submitted: auto-replied (vacation)\r\nMIME-Version: 1.0\r\n");
        match (&self.vacation.text_body, &self.vacation.html_body) {
            (Some(text), Some(html)) => {
                let boundary = self.boundary;
                let _ = write!(out, "Content-Type: multipart/alternative; boundary=\"{boundary}\"\r\n\r\n");
                for (subtype, content) in [("plain", text), ("html", html)] {
                    let _ = write!(out, "--{boundary}\r\n");
                    part(subtype, content, &mut out);
                }
                let _ = write!(out, "--{boundary}--\r\n");
            }
            // RFC 8621 §8: as HTML alone, where nothing else was written.
            (None, Some(html)) => part("html", html, &mut out),
            (Some(text), None) => part("plain", text, &mut out),
            (None, None) => part("plain", DEFAULT, &mut out),
        }
        out
    }

    fn subject(&self) -> String {
        if let Some(subject) = &self.vacation.subject {
            return subject.clone();
        }
        let answered = self.answered.summary.subject.as_ref();
        let answered = answered.map(|subject| decode_header_text(subject.as_bytes())).unwrap_or_default();
        // RFC 5230 §4.4
        match answered.trim() {
            "" => "Auto: away".to_owned(),
            answered => format!("Auto: {answered}"),
        }
    }
}

/// What may stand between angle brackets on one line.
fn is_id(id: &str) -> bool {
    id.len() <= 900 && id.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>'))
}

/// The value of a field that is text, on lines of its own.
fn unstructured(text: &str) -> String {
    let clean: String = text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
    let mut rest = &clean[..clean.floor_char_boundary(SUBJECT_BYTES_MAX.min(clean.len()))];
    if rest.is_ascii() && !rest.contains("=?") && rest.len() <= 66 {
        return rest.trim().to_owned();
    }
    let mut words = Vec::new();
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.floor_char_boundary(WORD.min(rest.len())));
        words.push(format!("=?utf-8?B?{}?=", STANDARD.encode(word)));
        rest = after;
    }
    words.join("\r\n ")
}

fn part(subtype: &str, content: &str, out: &mut String) {
    let _ = write!(
        out,
        "Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    );
    // RFC 2046 §4.1.1: line ends of text are CRLF.
    let lines = content.replace("\r\n", "\n").replace('\n', "\r\n");
    let encoded = STANDARD.encode(lines);
    // RFC 2045 §6.8
    for line in encoded.as_bytes().chunks(76) {
        out.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        out.push_str("\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_it_is() {
        let (from, to) = (Address::parse("alice@x.test").unwrap(), Address::parse("bob@y.test").unwrap());
        let answered = Facts { message_id: Some("1@y.test".to_owned()), ..Facts::default() };
        let mut vacation = Vacation { text_body: Some("Zurück am\n1. Mai".to_owned()), ..Vacation::default() };
        let written = |vacation: &Vacation| {
            let date = SentDate::utc(0);
            let (answered, boundary) = (&answered, "b");
            Reply { from: &from, to: &to, message_id: "2@x.test", date, answered, vacation, boundary }.write()
        };
        assert_eq!(
            written(&vacation),
            "From: <alice@x.test>\r\nTo: <bob@y.test>\r\nSubject: Auto: away\r\n\
             Date: Thu, 01 Jan 1970 00:00:00 +0000\r\nMessage-ID: <2@x.test>\r\nIn-Reply-To: <1@y.test>\r\n\
             References: <1@y.test>\r\nAuto-Submitted: auto-replied (vacation)\r\nMIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n\
             WnVyw7xjayBhbQ0KMS4gTWFp\r\n"
        );
        vacation.html_body = Some("<p>".to_owned());
        vacation.subject = Some("Grüße\r\nBcc: c@x.test".to_owned());
        let text = written(&vacation);
        assert!(text.contains("multipart/alternative") && text.ends_with("PHA+\r\n--b--\r\n"), "{text}");
        assert!(!text.contains("\r\nBcc:") && text.contains("Subject: =?utf-8?B?"), "{text}");
    }
}
