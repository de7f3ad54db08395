//! What users' own mail gets that other mail does not: a check that they write under their own name, and the fields
//! that their programs forgot (RFC 6409 §6 and §8).

use ::mail::address::ReversePath;
use ::mail::envelope::{ByMode, DeliverBy, Envelope};
use ::mail::mime::Facts;
use smtp_protocol::parameter::MailParameters;
use smtp_protocol::reply::{Reply, bad_argument};
use smtp_protocol::wish::Wishes;
use tracing::{info, warn};
use uuid::Uuid;

use crate::config::Config;
use crate::policy;
use crate::service::Inner;
use crate::session::Client;
use crate::trace;

/// Whether the user may send as this. The null reverse-path belongs to everybody: read receipts have it.
pub(crate) async fn check_sender(
    service: &Inner,
    client: &Client,
    reverse_path: &ReversePath,
) -> Result<(), Reply> {
    let (Some(principal), Some(address)) = (&client.principal, reverse_path.address()) else {
        return Ok(());
    };
    if !service.config.sender_login_check {
        return Ok(());
    }
    match service.directory.may_send_as(principal, address).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            info!(account_id = %principal.account, sender = %address, "sender is not the user's");
            Err(policy::not_your_address())
        }
        Err(error) => {
            warn!(%error, "sender not decided");
            Err(policy::later())
        }
    }
}

/// What users may wish of when their mail is delivered.
pub(crate) fn wishes(config: &Config) -> Wishes {
    let offered = |seconds: u64| (seconds > 0).then_some(seconds);
    Wishes {
        hold_seconds_max: offered(config.hold_seconds_max),
        by_seconds_min: offered(config.deliver_by_seconds_min),
        priority: config.priorities,
    }
}

/// Takes the wishes over into the envelope, as moments. `now` in unix seconds.
pub(crate) fn take_wishes(
    config: &Config,
    parameters: &MailParameters,
    now: u64,
    envelope: &mut Envelope,
) -> Result<(), Reply> {
    if let Some(hold) = parameters.hold {
        let until = hold.until(now);
        // RFC 4865 §4: what is longer than announced is refused.
        if until > now.saturating_add(config.hold_seconds_max) {
            return Err(bad_argument("Not held for that long"));
        }
        envelope.hold_until = (until > now).then_some(until);
    }
    if let Some(by) = parameters.by {
        // RFC 2852 §3: what is shorter than announced is refused.
        if by.mode == ByMode::Return && by.seconds.unsigned_abs() < config.deliver_by_seconds_min {
            return Err(bad_argument("Not delivered within so short a time"));
        }
        // The time runs from when the message may be delivered.
        let from = envelope.hold_until.unwrap_or(now);
        let until = from.saturating_add_signed(by.seconds);
        envelope.deliver_by = Some(DeliverBy { until, mode: by.mode, trace: by.trace });
    }
    envelope.priority = parameters.priority.unwrap_or(0);
    Ok(())
}

/// Adds `Date` and `Message-ID` where they are missing. They stand in front with the trace fields, so that not a byte
/// of what the user sent is changed.
pub(crate) fn complete(prefix: &mut Vec<u8>, facts: &Facts, hostname: &str) {
    if facts.summary.date.is_none() {
        prefix.extend_from_slice(format!("Date: {}\r\n", trace::now().rfc5322()).as_bytes());
    }
    if facts.summary.message_id.is_none() {
        let id = Uuid::new_v4().as_simple().to_string();
        prefix.extend_from_slice(format!("Message-ID: <{id}@{hostname}>\r\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_become_moments() {
        let config = Config { hold_seconds_max: 1_000, deliver_by_seconds_min: 60, ..Config::default() };
        let check = |text: &str, expected: Result<(Option<u64>, Option<u64>, i8), u16>| {
            let mut envelope = Envelope::new(ReversePath::NULL);
            let parameters = MailParameters::parse(text).expect("parameters");
            let taken = take_wishes(&config, &parameters, 5_000, &mut envelope);
            let got = taken
                .map(|()| (envelope.hold_until, envelope.deliver_by.map(|by| by.until), envelope.priority));
            assert_eq!(got.map_err(|reply| reply.code), expected, "{text}");
        };
        check("", Ok((None, None, 0)));
        check("HOLDFOR=1000 MT-PRIORITY=4", Ok((Some(6_000), None, 4)));
        check("HOLDFOR=1001", Err(501));
        check("HOLDUNTIL=1970-01-01T01:30:00Z", Ok((Some(5_400), None, 0)));
        check("HOLDUNTIL=1970-01-01T00:00:05Z", Ok((None, None, 0)));
        check("HOLDUNTIL=1971-01-01T00:00:00Z", Err(501));
        check("BY=60;R", Ok((None, Some(5_060), 0)));
        check("BY=59;R", Err(501));
        check("BY=-10;N", Ok((None, Some(4_990), 0)));
        check("HOLDFOR=100 BY=60;R", Ok((Some(5_100), Some(5_160), 0)));
    }
}
