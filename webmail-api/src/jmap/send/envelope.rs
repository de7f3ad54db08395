//! Envelopes: given by the client, or made from the message's fields (RFC 8621 §7.5).

use std::collections::BTreeSet;
use std::fmt::Write as _;

use jmap_protocol::object::submission::{self, EnvelopeAddress, Parameters};
use jmap_protocol::{SetError, SetErrorKind};
use mail::address::{Address, ReversePath};
use mail::envelope::{ByMode, DeliverBy, Envelope, Recipient};
use mail::xtext;
use serde_json::json;
use smtp_protocol::parameter::{MailParameters, RcptParameters};

use super::SendingRules;
use super::header::{Header, Named};

/// The envelope that the fields of a message make. Its sender is that of the message where the identity allows it, and else
/// the identity's.
pub(crate) fn of_header(header: &Header, identity: &Address) -> Result<submission::Envelope, SetError> {
    let named = if header.sender.is_empty() { &header.from } else { &header.sender };
    let sender = match named.as_slice() {
        [Named::Address(address)] if address.key() == identity.key() => address,
        _ => identity,
    };
    let mut seen = BTreeSet::new();
    let (mut to, mut invalid) = (Vec::new(), Vec::new());
    for recipient in &header.recipients {
        match recipient {
            Named::Address(address) if seen.insert(address.key()) => {
                to.push(EnvelopeAddress { email: address.to_string(), parameters: None });
            }
            Named::Address(_) => {}
            Named::Other(text) => invalid.push(text),
        }
    }
    if !invalid.is_empty() {
        return Err(invalid_recipients(&invalid));
    }
    let mail_from = EnvelopeAddress { email: sender.to_string(), parameters: None };
    Ok(submission::Envelope { mail_from, rcpt_to: to })
}

/// The envelope in the form that the queue takes. `now` in unix seconds.
pub(crate) fn read(
    given: &submission::Envelope,
    rules: &SendingRules,
    now: u64,
) -> Result<Envelope, SetError> {
    let reverse_path = match given.mail_from.email.as_str() {
        "" => ReversePath::NULL,
        text => {
            let wrong = |error| SetError::property("envelope", format!("mailFrom/email: {error}"));
            ReversePath(Some(Address::parse(text).map_err(wrong)?))
        }
    };
    let mut envelope = Envelope::new(reverse_path);
    take_wishes(&given.mail_from, rules, now, &mut envelope)?;
    let mut invalid = Vec::new();
    for recipient in &given.rcpt_to {
        match Address::parse(&recipient.email) {
            Ok(address) => {
                let text = command(recipient.parameters.as_ref())?;
                let parameters =
                    RcptParameters::parse(&text).map_err(|reply| refused(&reply.text.join(" ")))?;
                envelope.recipients.push(Recipient {
                    address,
                    notify: parameters.notify,
                    orcpt: parameters.orcpt,
                });
            }
            Err(_) => invalid.push(recipient.email.as_str()),
        }
    }
    if !invalid.is_empty() {
        return Err(invalid_recipients(&invalid));
    }
    if envelope.recipients.is_empty() {
        return Err(SetError::new(SetErrorKind::NoRecipients, "there is nobody to send it to"));
    }
    Ok(envelope)
}

/// RFC 8621 §7.5 `invalidRecipients`
pub(crate) fn invalid_recipients(invalid: &[impl AsRef<str>]) -> SetError {
    let invalid: Vec<&str> = invalid.iter().map(AsRef::as_ref).collect();
    let error =
        SetError::new(SetErrorKind::InvalidRecipients, "mail cannot be sent to some of the recipients");
    error.with("invalidRecipients", json!(invalid))
}

/// What the sender wishes, as moments: by the same rules as in SMTP.
fn take_wishes(
    from: &EnvelopeAddress,
    rules: &SendingRules,
    now: u64,
    envelope: &mut Envelope,
) -> Result<(), SetError> {
    let text = command(from.parameters.as_ref())?;
    let parameters = MailParameters::parse(&text).map_err(|reply| refused(&reply.text.join(" ")))?;
    // RFC 4954 §5: it says who submitted the message, which is known here.
    if parameters.auth.is_some() {
        return Err(refused("AUTH is not taken"));
    }
    if parameters.priority.is_some() && !rules.priorities {
        return Err(refused("MT-PRIORITY is not offered"));
    }
    if parameters.by.is_some() && rules.deliver_by_seconds_min == 0 {
        return Err(refused("BY is not offered"));
    }
    envelope.ret = parameters.ret;
    envelope.envid = parameters.envid;
    envelope.priority = parameters.priority.unwrap_or(0);
    if let Some(hold) = parameters.hold {
        let until = hold.until(now);
        // RFC 4865 §4: what is longer than announced is refused.
        if until > now.saturating_add(rules.hold_seconds_max) {
            return Err(refused("the message is not held for that long"));
        }
        envelope.hold_until = (until > now).then_some(until);
    }
    if let Some(by) = parameters.by {
        // RFC 2852 §3: what is shorter than announced is refused.
        if by.mode == ByMode::Return && by.seconds.unsigned_abs() < rules.deliver_by_seconds_min {
            return Err(refused("the message is not delivered within so short a time"));
        }
        // The time runs from when the message may be delivered.
        let until = envelope.hold_until.unwrap_or(now).saturating_add_signed(by.seconds);
        envelope.deliver_by = Some(DeliverBy { until, mode: by.mode, trace: by.trace });
    }
    Ok(())
}

/// Parameters as they would follow the path in a command, so that they are read as SMTP reads them.
fn command(parameters: Option<&Parameters>) -> Result<String, SetError> {
    let mut text = String::new();
    for (name, value) in parameters.into_iter().flatten() {
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !is_name {
            return Err(refused(&format!("{name:?} is no name of a parameter")));
        }
        let _ = write!(text, " {name}");
        let Some(value) = value else { continue };
        // RFC 8621 §7: xtext has been decoded, which only these have.
        let value = match (name.to_ascii_uppercase().as_str(), value.split_once(';')) {
            ("ENVID" | "AUTH", _) => xtext::encode(value),
            ("ORCPT", Some((kind, address))) => format!("{kind};{}", xtext::encode(address)),
            _ => value.clone(),
        };
        if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refused(&format!("{name} has no such values")));
        }
        let _ = write!(text, "={value}");
    }
    Ok(text)
}

fn refused(why: &str) -> SetError {
    SetError::property("envelope", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(email: &str, parameters: &[(&str, Option<&str>)]) -> EnvelopeAddress {
        let parameters = parameters.iter().map(|(name, it)| ((*name).to_owned(), it.map(str::to_owned)));
        EnvelopeAddress { email: email.to_owned(), parameters: Some(parameters.collect()) }
    }

    fn check(from: EnvelopeAddress, to: EnvelopeAddress) -> Result<Envelope, SetErrorKind> {
        let given = submission::Envelope { mail_from: from, rcpt_to: vec![to] };
        read(&given, &SendingRules::sample(), 5_000).map_err(|error| error.kind)
    }

    #[test]
    fn parameters_are_those_of_smtp() {
        let to = || {
            address("b@x.test", &[("NOTIFY", Some("SUCCESS,DELAY")), ("orcpt", Some("rfc822;a+b@x.test"))])
        };
        let from = |parameters: &[(&str, Option<&str>)]| address("a@x.test", parameters);
        let envelope = check(
            from(&[
                ("HOLDFOR", Some("100")),
                ("RET", Some("HDRS")),
                ("envid", Some("a=b c")),
                ("BY", Some("60;R")),
            ]),
            to(),
        )
        .unwrap();
        assert_eq!(envelope.hold_until, Some(5_100));
        assert_eq!(envelope.deliver_by.map(|by| by.until), Some(5_160));
        assert_eq!(envelope.envid.as_deref(), Some("a=b c"));
        assert_eq!(envelope.recipients[0].orcpt.as_deref(), Some("rfc822;a+b@x.test"));
        assert_eq!(envelope.recipients[0].notify.to_string(), "SUCCESS,DELAY");
        for bad in [
            ("HOLDFOR", Some("1001")),
            ("HOLDUNTIL", Some("1971-01-01T00:00:00Z")),
            ("HOLDFOR", None),
            ("BY", Some("59;R")),
            ("AUTH", Some("a@x.test")),
            ("RET", Some("HDRS ENVID=x")),
            ("RET HOLDFOR", Some("1")),
            ("RET\r\nRCPT", Some("1")),
            ("", None),
            ("REQUIRETLS", None),
            ("X-NONE", Some("1")),
        ] {
            assert_eq!(check(from(&[bad]), to()), Err(SetErrorKind::InvalidProperties), "{bad:?}");
        }
        assert_eq!(check(from(&[("SMTPUTF8", None), ("BODY", Some("8BITMIME"))]), to()).map(drop), Ok(()));
        let bad = address("b@x.test", &[("NOTIFY", Some("NEVER,DELAY"))]);
        assert_eq!(check(from(&[]), bad), Err(SetErrorKind::InvalidProperties));
        assert_eq!(check(from(&[]), address("b", &[])), Err(SetErrorKind::InvalidRecipients));
        assert_eq!(check(address("a", &[]), to()).map(drop), Err(SetErrorKind::InvalidProperties));
        assert!(check(address("", &[]), to()).unwrap().reverse_path.is_null());
    }

    #[test]
    fn what_is_held_for_the_past_is_not_held() {
        let from = address("a@x.test", &[("HOLDUNTIL", Some("1970-01-01T00:00:05Z"))]);
        assert_eq!(check(from, address("b@x.test", &[])).unwrap().hold_until, None);
    }

    /// RFC 8621 §7.5
    #[test]
    fn an_envelope_is_made_of_the_fields() {
        let identity = Address::parse("a@x.test").unwrap();
        let made = |text: &str| {
            let header = Header::parse(text.as_bytes(), 10).unwrap();
            let made = of_header(&header, &identity).unwrap();
            let to: Vec<String> = made.rcpt_to.into_iter().map(|to| to.email).collect();
            (made.mail_from.email, to)
        };
        let to = |to: &[&str]| to.iter().map(|to| (*to).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            made("From: A <A@x.test>\r\nTo: b@x.test, B@X.test\r\nBcc: c@x.test, b@x.test\r\n\r\n"),
            ("A@x.test".to_owned(), to(&["b@x.test", "c@x.test"]))
        );
        assert_eq!(made("From: other@x.test\r\nCc: bob@x.test\r\n\r\n").0, "a@x.test");
        let header = Header::parse(b"From: a@x.test\r\nTo: bob, b@x.test\r\n\r\n", 10).unwrap();
        let error = of_header(&header, &identity).unwrap_err();
        assert_eq!(error.kind, SetErrorKind::InvalidRecipients);
        assert_eq!(error.more["invalidRecipients"], json!(["bob"]));
        assert_eq!(made("From: other@x.test\r\nSender: a@x.test\r\n\r\n").0, "a@x.test");
        assert_eq!(made("From: a@x.test\r\n\r\n").1, Vec::<String>::new());
    }
}
