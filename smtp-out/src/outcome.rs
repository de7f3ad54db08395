//! What an answer means. Pure: no socket, no clock, so that every host's habits can stand in a table of tests.
//!
//! The code decides, the enhanced status code refines it (RFC 3463), and the text is read for two things only that no
//! code says: how long a greylisting host wants us to wait, and that it is our address, and not this message, which a
//! host does not want at the moment.

use smtp_protocol::reply::Reply;
use smtp_protocol::status::{Status, status};

/// Where in the dialogue an answer came.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Stage {
    /// Nothing was asked: the greeting.
    Greeting,
    /// EHLO or HELO.
    Hello,
    /// STARTTLS.
    StartTls,
    /// AUTH.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT; the number of recipients of this transaction that were accepted before.
    Rcpt {
        /// Accepted so far.
        accepted: usize,
    },
    /// DATA.
    Data,
    /// The message.
    Message,
}

/// What an answer means for whom it is about: the session before MAIL, the message at MAIL, DATA and at the end, one
/// recipient at RCPT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Go on; at the end: delivered.
    Accepted,
    /// EHLO is not known here: HELO may be.
    TryHelo,
    /// This host will not, another one may. Nothing is said about message or recipient.
    NextHost,
    /// The host takes no more recipients in this transaction.
    TooManyRecipients,
    /// Not now.
    Defer(Hint),
    /// Never.
    Fail,
}

/// What more is known about a deferral.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hint {
    /// Nothing.
    None,
    /// The host wants to see us come again (RFC 6647), after so many seconds where it says.
    Greylisted {
        /// Seconds.
        after: Option<u32>,
    },
    /// The host does not want mail from us at the moment, whoever it is for: the site is to be left alone.
    SiteSuspended,
}

/// Judges an answer.
pub(crate) fn judge(stage: Stage, reply: &Reply) -> Verdict {
    match (stage, reply.code) {
        (Stage::Data, 354) => Verdict::Accepted,
        // 2yz to DATA is no leave to send, 3yz elsewhere asks for what we do not have: the host is confused.
        (Stage::Data, 200..=399) => Verdict::Defer(Hint::None),
        (_, 200..=299) => Verdict::Accepted,
        (_, 300..=399) if !is_before_mail(stage) => Verdict::Defer(Hint::None),
        // RFC 5321 §4.1.1.1: a host that knows no EHLO says 500 or 502. 501, 504 and 550 are seen too.
        (Stage::Hello, 500 | 501 | 502 | 504 | 550) => Verdict::TryHelo,
        // RFC 5321 §3.1: 554 instead of a greeting is said by hosts that take no mail. Others of the domain may.
        (stage, _) if is_before_mail(stage) => Verdict::NextHost,
        // RFC 5321 §3.8: the host is going away; whoever has no answer yet tries elsewhere.
        (_, 421) if is_about_us(reply) => Verdict::Defer(Hint::SiteSuspended),
        (_, 421) => Verdict::NextHost,
        (Stage::Rcpt { accepted }, 452 | 552) if is_too_many(accepted, reply) => {
            if accepted > 0 {
                Verdict::TooManyRecipients
            } else {
                Verdict::Defer(Hint::None)
            }
        }
        (_, 400..=499) => Verdict::Defer(hint(reply)),
        _ => Verdict::Fail,
    }
}

/// The status to report for an answer: its own, where it has one that fits, else what is known from code and stage.
pub(crate) fn status_of(stage: Stage, reply: &Reply) -> Status {
    let class = match (stage, reply.code / 100) {
        (Stage::Data, 2) => 4,
        (_, 2) => 2,
        (_, 5) => 5,
        _ => 4,
    };
    if let Some(own) = reply.status
        && own.class == class
    {
        return own;
    }
    match (stage, reply.code) {
        // RFC 5321 §4.2.3 and RFC 5248: what the bare codes mean. 550 and 553 at RCPT say so many things that only the
        // unspecific code is honest; they must not feed a list of addresses that do not exist.
        (_, 552 | 452) => status(class, 2, 0),
        (_, 500..=504) => status(class, 5, 0),
        (_, 421) => status(class, 3, 2),
        (Stage::Data, 200..=299) | (_, 300..=399) => status(class, 5, 0),
        _ => status(class, 0, 0),
    }
}

fn is_before_mail(stage: Stage) -> bool {
    matches!(stage, Stage::Greeting | Stage::Hello | Stage::StartTls | Stage::Auth)
}

/// RFC 5321 §4.5.3.1.10: 452 to RCPT, and 552 from older hosts, says that there are too many recipients. A full mailbox
/// (x.2.2), a message too large (x.3.4) and a full disk (4.3.1) say it with the same codes and mean something else.
fn is_too_many(accepted: usize, reply: &Reply) -> bool {
    match reply.status {
        Some(status) => (status.subject, status.detail) == (5, 3) || (accepted > 0 && status.subject == 5),
        None => true,
    }
}

fn hint(reply: &Reply) -> Hint {
    if is_about_us(reply) {
        return Hint::SiteSuspended;
    }
    let text = lower(reply);
    // Postscreen's deep tests end with this; a host that comes again has passed them.
    let postscreen = reply.code == 450
        && reply.status == Some(status(4, 3, 2))
        && text.contains("service currently unavailable");
    let words = ["greylist", "graylist", "grey-list", "gray-list", "greyed", "postgrey"];
    // RFC 6647 §5.1 has 4.7.1 for greylisting, and hosts with their own words ask to come again.
    let polite = (reply.status.is_none_or(|status| status.subject == 7) || reply.code == 451)
        && ["try again in", "retry in", "come back in", "come back later", "retry after"]
            .iter()
            .any(|words| text.contains(words));
    if postscreen || polite || words.iter().any(|word| text.contains(word)) {
        return Hint::Greylisted { after: seconds(&text) };
    }
    Hint::None
}

/// Whether it is our address, our rate or our reputation that a host has turned away, temporarily.
fn is_about_us(reply: &Reply) -> bool {
    if reply.code / 100 != 4 {
        return false;
    }
    if let Some(status) = reply.status
        && status.class == 4
        && status.subject == 7
        // Gmail: 4.7.28 unusual rate from this address. Outlook: 4.7.500–699 and 4.7.850 access denied or throttled.
        // 4.7.0 and 4.7.1 are everybody's, and need their text.
        && (status.detail == 28 || (500..=699).contains(&status.detail) || status.detail == 850)
    {
        return true;
    }
    let text = lower(reply);
    [
        "rate limited",
        "rate limit exceeded",
        "rate-limited",
        "temporarily rate",
        "unusual rate",
        "too many connections",
        "too many concurrent",
        "connection limit",
        "connection rate",
        "[tss0",
        "[ts0",
        "ip reputation",
        "throttled",
        "too much mail from your ip",
        "unsolicited mail originating from your ip",
    ]
    .iter()
    .any(|words| text.contains(words))
}

fn lower(reply: &Reply) -> String {
    let mut text = String::new();
    for line in &reply.text {
        text.push_str(line);
        text.push(' ');
    }
    text.make_ascii_lowercase();
    text
}

/// The time that a text names: `in 300 seconds`, `for 5 minutes`, `in 00:05:00`, `60 sec`. At most two hours are
/// believed; a host that wants more gets what the schedule has.
fn seconds(text: &str) -> Option<u32> {
    const BELIEVED_MAX: u32 = 2 * 3_600;
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != ':').peekable();
    while let Some(word) = words.next() {
        let parts: Vec<Option<u32>> = word.split(':').map(|part| part.parse().ok()).collect();
        let found = match parts.as_slice() {
            [Some(hours), Some(minutes), Some(seconds)] => {
                hours.checked_mul(3_600)?.checked_add(minutes.checked_mul(60)?)?.checked_add(*seconds)
            }
            // Not a port at the end of an address.
            [Some(minutes), Some(seconds)] if *seconds < 60 && word.len() == 5 => {
                minutes.checked_mul(60)?.checked_add(*seconds)
            }
            [Some(number)] => match words.peek().copied().unwrap_or_default() {
                "s" | "sec" | "secs" | "second" | "seconds" => Some(*number),
                "m" | "min" | "mins" | "minute" | "minutes" => number.checked_mul(60),
                "h" | "hour" | "hours" => number.checked_mul(3_600),
                _ => None,
            },
            _ => {
                let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
                match (digits.parse::<u32>(), &word[digits.len()..]) {
                    (Ok(number), "s" | "sec" | "secs") => Some(number),
                    (Ok(number), "m" | "min" | "mins") => number.checked_mul(60),
                    _ => None,
                }
            }
        };
        if let Some(found) = found.filter(|found| (1..=BELIEVED_MAX).contains(found)) {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use smtp_protocol::reply::ReplyReader;

    fn reply(text: &str) -> Reply {
        let mut reader = ReplyReader::default();
        let mut read = None;
        for line in text.lines() {
            read = reader.line(line.as_bytes()).unwrap();
        }
        read.unwrap()
    }

    const RCPT: Stage = Stage::Rcpt { accepted: 0 };
    const SECOND: Stage = Stage::Rcpt { accepted: 1 };
    const NONE: Verdict = Verdict::Defer(Hint::None);
    const SUSPEND: Verdict = Verdict::Defer(Hint::SiteSuspended);

    const fn grey(after: Option<u32>) -> Verdict {
        Verdict::Defer(Hint::Greylisted { after })
    }

    /// What hosts really say, in the words in which they say it.
    #[test]
    fn real_replies() {
        let check = |stage: Stage, text: &str, expected: Verdict, code: &str| {
            let reply = reply(text);
            assert_eq!(judge(stage, &reply), expected, "{stage:?}: {text}");
            assert_eq!(status_of(stage, &reply).to_string(), code, "{stage:?}: {text}");
        };
        // Before the message.
        check(Stage::Greeting, "220 mx.google.com ESMTP a1-20020 - gsmtp", Verdict::Accepted, "2.0.0");
        check(
            Stage::Greeting,
            "421 4.7.0 mail.example Error: too many connections from 192.0.2.1",
            Verdict::NextHost,
            "4.7.0",
        );
        check(
            Stage::Greeting,
            "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
            Verdict::NextHost,
            "5.7.1",
        );
        check(Stage::Greeting, "554 No SMTP service here", Verdict::NextHost, "5.0.0");
        check(Stage::Greeting, "521 mail.example does not accept mail", Verdict::NextHost, "5.0.0");
        check(Stage::Hello, "502 5.5.2 Error: command not recognized", Verdict::TryHelo, "5.5.2");
        check(Stage::Hello, "500 what?", Verdict::TryHelo, "5.5.0");
        check(
            Stage::Hello,
            "450 4.7.1 <me>: Helo command rejected: Host not found",
            Verdict::NextHost,
            "4.7.1",
        );
        check(
            Stage::StartTls,
            "454 4.7.0 TLS not available due to local problem",
            Verdict::NextHost,
            "4.7.0",
        );
        check(Stage::Auth, "535 5.7.8 Error: authentication failed", Verdict::NextHost, "5.7.8");
        // MAIL.
        check(Stage::Mail, "250 2.1.0 OK a1-20020", Verdict::Accepted, "2.1.0");
        check(Stage::Mail, "552 5.3.4 Message size exceeds fixed limit", Verdict::Fail, "5.3.4");
        check(
            Stage::Mail,
            "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation. For e-mail delivery information, see https://postmaster.live.com (S775)",
            SUSPEND,
            "4.7.650",
        );
        check(
            Stage::Mail,
            "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719)",
            SUSPEND,
            "4.7.500",
        );
        check(
            Stage::Mail,
            "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1; see https://postmaster.yahooinc.com/error-codes",
            SUSPEND,
            "4.7.0",
        );
        check(Stage::Mail, "450 4.1.8 <a@b.test>: Sender address rejected: Domain not found", NONE, "4.1.8");
        check(Stage::Mail, "550 5.7.1 Client host [192.0.2.1] blocked", Verdict::Fail, "5.7.1");
        check(Stage::Mail, "354 go", NONE, "4.5.0");
        // RCPT.
        check(RCPT, "250 2.1.5 Ok", Verdict::Accepted, "2.1.5");
        check(RCPT, "251 User not local; will forward", Verdict::Accepted, "2.0.0");
        check(
            RCPT,
            "550-5.1.1 The email account that you tried to reach does not exist. Please try\n550-5.1.1 double-checking the recipient's email address for typos or\n550 5.1.1 unnecessary spaces. https://support.google.com/mail/?p=NoSuchUser - gsmtp",
            Verdict::Fail,
            "5.1.1",
        );
        check(
            RCPT,
            "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
            Verdict::Fail,
            "5.1.10",
        );
        check(
            RCPT,
            "550 5.4.1 Recipient address rejected: Access denied. [AM0EUR.prod.protection.outlook.com]",
            Verdict::Fail,
            "5.4.1",
        );
        check(RCPT, "550 No such user", Verdict::Fail, "5.0.0");
        check(
            RCPT,
            "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",
            Verdict::Fail,
            "5.0.0",
        );
        check(
            RCPT,
            "452-4.2.2 The recipient's inbox is out of storage space. Please direct the\n452 4.2.2 recipient to https://support.google.com/mail/?p=OverQuotaTemp - gsmtp",
            NONE,
            "4.2.2",
        );
        check(SECOND, "452 4.2.2 Mailbox full", NONE, "4.2.2");
        check(SECOND, "452 4.3.1 Insufficient system storage", NONE, "4.3.1");
        check(RCPT, "552 5.2.2 Mailbox full", Verdict::Fail, "5.2.2");
        check(SECOND, "552 5.2.2 Mailbox full", Verdict::Fail, "5.2.2");
        check(SECOND, "552 5.3.4 Message too big", Verdict::Fail, "5.3.4");
        check(SECOND, "452 4.5.3 Too many recipients", Verdict::TooManyRecipients, "4.5.3");
        check(SECOND, "452 4.5.3 Error: too many recipients", Verdict::TooManyRecipients, "4.5.3");
        check(SECOND, "452 Too many recipients received this hour", Verdict::TooManyRecipients, "4.2.0");
        check(SECOND, "552 Too many recipients", Verdict::TooManyRecipients, "5.2.0");
        check(RCPT, "552 Too many recipients", NONE, "5.2.0");
        check(RCPT, "452 4.5.3 Too many recipients", NONE, "4.5.3");
        // Greylisting.
        check(
            RCPT,
            "450 4.2.0 <u@x.test>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/x.test.html",
            grey(None),
            "4.2.0",
        );
        check(
            RCPT,
            "450 4.7.1 <u@x.test>: Recipient address rejected: Greylisted for 5 minutes",
            grey(Some(300)),
            "4.7.1",
        );
        check(
            RCPT,
            "451 4.7.1 Greylisting in action, please come back in 00:04:30",
            grey(Some(270)),
            "4.7.1",
        );
        check(RCPT, "451 Temporarily greylisted, try again in 300 seconds.", grey(Some(300)), "4.0.0");
        check(RCPT, "451 4.7.1 Please try again in 60s", grey(Some(60)), "4.7.1");
        check(RCPT, "450 4.3.2 Service currently unavailable", grey(None), "4.3.2");
        check(RCPT, "451 4.7.1 graylisted, retry in 999999 hours", grey(None), "4.7.1");
        check(
            RCPT,
            "451 4.4.4 Mail received as unauthenticated, incoming to a recipient domain configured in a hosted tenant which has no mail-enabled subscriptions.",
            NONE,
            "4.4.4",
        );
        check(
            RCPT,
            "450 4.1.1 <u@x.test>: Recipient address rejected: unverified address: Address verification in progress",
            NONE,
            "4.1.1",
        );
        check(
            RCPT,
            "421-4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from\n421 4.7.28 your IP address. https://support.google.com/mail/?p=UnsolicitedRateLimitError - gsmtp",
            SUSPEND,
            "4.7.28",
        );
        check(RCPT, "421 4.3.0 Temporary System Problem. Try again later (10)", Verdict::NextHost, "4.3.0");
        check(
            RCPT,
            "450-4.2.1 The user you are trying to contact is receiving mail at a rate that\n450 4.2.1 prevents additional messages from being delivered. https://support.google.com/mail/?p=ReceivingRate - gsmtp",
            NONE,
            "4.2.1",
        );
        // DATA and the message.
        check(Stage::Data, "354 Start mail input; end with <CRLF>.<CRLF>", Verdict::Accepted, "4.5.0");
        check(Stage::Data, "250 ok", NONE, "4.5.0");
        check(Stage::Data, "554 5.5.1 Error: no valid recipients", Verdict::Fail, "5.5.1");
        check(Stage::Message, "250 2.0.0 OK  1700000000 a1-20020 - gsmtp", Verdict::Accepted, "2.0.0");
        check(
            Stage::Message,
            "250 2.6.0 <id@x.test> [InternalId=1, Hostname=AM0.prod.outlook.com] Queued mail for delivery",
            Verdict::Accepted,
            "2.6.0",
        );
        check(
            Stage::Message,
            "550-5.7.26 Your email has been blocked because the sender is unauthenticated.\n550 5.7.26 Gmail requires all senders to authenticate with either SPF or DKIM.",
            Verdict::Fail,
            "5.7.26",
        );
        check(
            Stage::Message,
            "421-4.7.0 This message is suspicious due to the nature of the content and/or the\n421 4.7.0 links within. Try again later. - gsmtp",
            Verdict::NextHost,
            "4.7.0",
        );
        check(Stage::Message, "554 5.7.1 Spam message rejected", Verdict::Fail, "5.7.1");
        check(Stage::Message, "451 4.3.0 Error: queue file write error", NONE, "4.3.0");
        check(Stage::Message, "552 5.2.3 Message exceeds maximum size", Verdict::Fail, "5.2.3");
        check(Stage::Message, "354 once more", NONE, "4.5.0");
    }

    #[test]
    fn times_in_texts() {
        for (text, expected) in [
            ("try again in 300 seconds", Some(300)),
            ("for 5 minutes", Some(300)),
            ("in 1 hour", Some(3_600)),
            ("come back in 00:05:00", Some(300)),
            ("in 04:30 please", Some(270)),
            ("wait 90s", Some(90)),
            ("in 0 seconds", None),
            ("in 4294967295 hours", None),
            ("in 99999999999999999999 seconds", None),
            ("see http://192.0.2.1:80/x", None),
            ("nothing here", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
