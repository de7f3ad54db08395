//! Reading delivery status notifications that others have written (RFC 3464): whom they are about, and which message.
//!
//! They come from anywhere and may say anything, so nothing is believed here: what is read is a claim, to be held
//! against what is known of the message.

use std::ops::Range;

use crate::address::Address;
use crate::dsn::{Action, Status};
use crate::id::QueueId;
use crate::mime::{Kind, Part};

/// Octets of a report, and of what it returns, that are looked at. A report about a hundred recipients has some 30 KiB.
pub const REPORT_BYTES_MAX: u64 = 64 << 10;
/// Recipients of a report, and ids in what it returns, that are looked at.
const ENTRIES_MAX: usize = 100;

/// Where the parts of a report lie in its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportParts {
    /// The fields that machines read.
    pub status: Range<u64>,
    /// The message that it is about, or its header.
    pub returned: Range<u64>,
}

/// What a report says about one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedRecipient {
    /// The address that was tried.
    pub recipient: Address,
    /// The address that the sender had given, where it is said.
    pub original: Option<Address>,
    /// What happened.
    pub action: Action,
    /// Why.
    pub status: Status,
    /// What was said.
    pub diagnostic: String,
}

/// Finds the parts of a report. `None`: the message is none, or does not return anything of the one that it is about.
pub fn parts(structure: &Part) -> Option<ReportParts> {
    let is = |part: &Part, kind: &str, subtypes: &[&str]| {
        part.media.as_ref().is_some_and(|media| {
            media.kind.eq_ignore_ascii_case(kind)
                && subtypes.iter().any(|subtype| media.subtype.eq_ignore_ascii_case(subtype))
        })
    };
    let Kind::Multipart(parts) = &structure.kind else { return None };
    let [_, status, returned, ..] = &parts[..] else { return None };
    let known = is(structure, "multipart", &["report"])
        && is(status, "message", &["delivery-status", "global-delivery-status"])
        && (is(returned, "text", &["rfc822-headers"])
            || is(returned, "message", &["rfc822", "global", "global-headers"]));
    let bounded = |range: &Range<u64>| range.start..range.end.min(range.start + REPORT_BYTES_MAX);
    known.then(|| ReportParts { status: bounded(&status.body), returned: bounded(&returned.body) })
}

/// Reads the part for machines. What is malformed is passed over.
pub fn recipients(status: &[u8]) -> Vec<ReportedRecipient> {
    let text = String::from_utf8_lossy(status);
    let mut found = Vec::new();
    let mut group: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            found.extend(recipient(&std::mem::take(&mut group)));
            if found.len() >= ENTRIES_MAX {
                break;
            }
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = group.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            group.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    found
}

fn recipient(group: &[(String, String)]) -> Option<ReportedRecipient> {
    let field = |wanted: &str| group.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    // `rfc822; bob@example.org`: the type is followed by the value (RFC 3464 §2.1.2).
    let typed = |name: &str| field(name)?.split_once(';').map(|(_, value)| value.trim());
    let address =
        |name: &str| Address::parse(typed(name)?.trim_start_matches('<').trim_end_matches('>')).ok();
    let action = match field("action")?.to_ascii_lowercase().as_str() {
        "failed" => Action::Failed,
        "delayed" => Action::Delayed,
        "delivered" => Action::Delivered,
        "relayed" => Action::Relayed,
        "expanded" => Action::Expanded,
        _ => return None,
    };
    let status = field("status")?.split_whitespace().next()?;
    let mut numbers = status.split('.').map(|number| number.parse::<u16>().ok());
    let (class, subject, detail) = (numbers.next()??, numbers.next()??, numbers.next()??);
    Some(ReportedRecipient {
        recipient: address("final-recipient")?,
        original: address("original-recipient"),
        action,
        status: Status(u8::try_from(class).ok()?, subject, detail),
        diagnostic: typed("diagnostic-code").unwrap_or_default().to_owned(),
    })
}

/// Ids of queues like ours in the Received fields of a returned header: ours is among them, if the message was ours.
pub fn queue_ids(returned: &[u8]) -> Vec<QueueId> {
    let text = String::from_utf8_lossy(returned);
    let mut ids = Vec::new();
    let mut in_received = false;
    for line in text.lines() {
        if line.is_empty() || ids.len() >= ENTRIES_MAX {
            break;
        }
        if !line.starts_with([' ', '\t']) {
            in_received =
                line.split_once(':').is_some_and(|(name, _)| name.trim().eq_ignore_ascii_case("received"));
        }
        if in_received {
            let words: Vec<&str> = line.split_whitespace().collect();
            let named = words.windows(2).filter(|pair| pair[0].eq_ignore_ascii_case("id"));
            ids.extend(named.filter_map(|pair| pair[1].trim_end_matches(';').parse::<QueueId>().ok()));
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mime::{Limits, Splitter};

    const REPORT: &str = "From: <>\r\nSubject: no\r\nContent-Type: Multipart/Report; report-type=delivery-status; boundary=\"b\"\r\n\r\n\
        --b\r\n\r\nfor people\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.where.test\r\n\r\n\
        Original-Recipient: rfc822;Bob@where.test\r\nFinal-Recipient: RFC822; <bob@inside.where.test>\r\nAction: failed\r\n\
        Status: 5.1.1 (no such user)\r\nDiagnostic-Code: smtp; 550 5.1.1\r\n no such user\r\n\r\n\
        Final-Recipient: rfc822; carol@where.test\r\nAction: delayed\r\nStatus: 4.2.2\r\n\r\nAction: failed\r\nStatus: 5.1.1\r\n\
        --b\r\nContent-Type: text/rfc822-headers\r\n\r\nReceived: from a by b with ESMTPS id 4cFg\r\n\tfor <x@y>;\r\n\tnow\r\n\
        Received: from us\r\n\tby us.test with ESMTPSA id 01a21aa8b7597214878e70628cf415b7;\r\n\tnow\r\nSubject: id 01a21aa8b7597214878e70628cf415b8\r\n\r\n--b--\r\n";

    fn cut(range: &Range<u64>) -> &'static [u8] {
        &REPORT.as_bytes()[range.start as usize..range.end as usize]
    }

    #[test]
    fn a_report_is_read() {
        let mut splitter = Splitter::new(Limits::default());
        splitter.push(REPORT.as_bytes());
        let parts = parts(&splitter.finish().structure).unwrap();
        let address = |text: &str| Address::parse(text).unwrap();
        let found = recipients(cut(&parts.status));
        let expected = [
            ReportedRecipient {
                recipient: address("bob@inside.where.test"),
                original: Some(address("Bob@where.test")),
                action: Action::Failed,
                status: Status(5, 1, 1),
                diagnostic: "550 5.1.1 no such user".to_owned(),
            },
            ReportedRecipient {
                recipient: address("carol@where.test"),
                original: None,
                action: Action::Delayed,
                status: Status(4, 2, 2),
                diagnostic: String::new(),
            },
        ];
        assert_eq!(found, expected);
        let ids: Vec<String> = queue_ids(cut(&parts.returned)).iter().map(QueueId::to_string).collect();
        assert_eq!(ids, ["01a21aa8b7597214878e70628cf415b7"]);
    }

    #[test]
    fn other_messages_are_none() {
        let structure = |text: &str| {
            let mut splitter = Splitter::new(Limits::default());
            splitter.push(text.as_bytes());
            splitter.finish().structure
        };
        assert_eq!(parts(&structure("Subject: no\r\n\r\nhello\r\n")), None);
        assert_eq!(parts(&structure(&REPORT.replace("Multipart/Report", "multipart/mixed"))), None);
        assert_eq!(parts(&structure(&REPORT.replace("message/delivery-status", "text/plain"))), None);
    }

    #[test]
    fn garbage_is_passed_over() {
        for garbage in
            ["", "\n\n\n", ":\n:\n", "Action\nStatus: x", "Status: 5.1\nAction: failed\nFinal-Recipient: x"]
        {
            assert_eq!(recipients(garbage.as_bytes()), []);
        }
        assert_eq!(recipients(&[0xff; 300]), []);
        let many = "Final-Recipient: rfc822; a@b\nAction: failed\nStatus: 5.1.1\n\n".repeat(1_000);
        assert_eq!(recipients(many.as_bytes()).len(), ENTRIES_MAX);
    }
}
