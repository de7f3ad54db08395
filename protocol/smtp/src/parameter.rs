//! Parameters of MAIL and RCPT (RFC 5321 §4.1.2, and the extensions that bring them).

use std::fmt;

use mail::address::Address;
use mail::envelope::{BodyType, Notify, Ret};
use mail::xtext;

use crate::reply::{Reply, bad_argument};
use crate::status::status;
use crate::wish::{self, By, Hold, Wishes};

/// What a MAIL command says beside the reverse-path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MailParameters {
    /// `SIZE=` (RFC 1870): how large the client thinks the message is.
    pub size: Option<u64>,
    /// `BODY=` (RFC 6152, RFC 3030).
    pub body: BodyType,
    /// `SMTPUTF8` (RFC 6531).
    pub smtputf8: bool,
    /// `RET=` (RFC 3461).
    pub ret: Option<Ret>,
    /// `ENVID=` (RFC 3461), decoded.
    pub envid: Option<String>,
    /// `AUTH=` (RFC 4954 §5): who submitted the message first, as the client claims. `Some(None)` is `<>`.
    pub auth: Option<Option<String>>,
    /// `HOLDFOR=` or `HOLDUNTIL=` (RFC 4865), one of them.
    pub hold: Option<Hold>,
    /// `BY=` (RFC 2852).
    pub by: Option<By>,
    /// `MT-PRIORITY=` (RFC 6710).
    pub priority: Option<i8>,
}

/// What a RCPT command says beside the forward-path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RcptParameters {
    /// `NOTIFY=` (RFC 3461).
    pub notify: Notify,
    /// `ORCPT=` (RFC 3461), its address decoded: `rfc822;user@example.test`.
    pub orcpt: Option<String>,
}

/// RFC 3461 §4.4: an envelope id has at most 100 characters.
const ENVID_CHARS_MAX: usize = 100;
/// RFC 3461 §4.2: ORCPT has at most 500 characters.
const ORCPT_CHARS_MAX: usize = 500;

impl MailParameters {
    /// Parameters of extensions that a server with these wishes does not offer are not recognized.
    pub(crate) fn within(&self, wishes: &Wishes) -> Result<(), Reply> {
        match self {
            Self { hold: Some(Hold::For(_)), .. } if wishes.hold_seconds_max.is_none() => {
                Err(unknown("HOLDFOR"))
            }
            Self { hold: Some(Hold::Until(_)), .. } if wishes.hold_seconds_max.is_none() => {
                Err(unknown("HOLDUNTIL"))
            }
            Self { by: Some(_), .. } if wishes.by_seconds_min.is_none() => Err(unknown("BY")),
            Self { priority: Some(_), .. } if !wishes.priority => Err(unknown("MT-PRIORITY")),
            _ => Ok(()),
        }
    }

    /// Parses what follows the path.
    pub fn parse(text: &str) -> Result<Self, Reply> {
        let mut found = Self::default();
        let mut seen = Seen::default();
        for (keyword, value) in pairs(text)? {
            let bad = || bad_argument(format!("Bad value of parameter {keyword}"));
            match (seen.once(&keyword)?, value) {
                ("SIZE", Some(value)) => found.size = Some(number(value).ok_or_else(bad)?),
                ("BODY", Some(value)) => found.body = BodyType::parse(value).ok_or_else(bad)?,
                ("SMTPUTF8", None) => found.smtputf8 = true,
                ("RET", Some(value)) => found.ret = Some(Ret::parse(value).ok_or_else(bad)?),
                ("ENVID", Some(value)) => {
                    let envid = xtext::decode(value).filter(|id| printable(id, ENVID_CHARS_MAX));
                    found.envid = Some(envid.ok_or_else(bad)?);
                }
                ("AUTH", Some("<>")) => found.auth = Some(None),
                ("AUTH", Some(value)) => {
                    let address = xtext::decode(value).filter(|text| Address::parse(text).is_ok());
                    found.auth = Some(Some(address.ok_or_else(bad)?));
                }
                // RFC 4865 §4: not both.
                ("HOLDFOR" | "HOLDUNTIL", _) if found.hold.is_some() => return Err(bad()),
                ("HOLDFOR", Some(value)) => found.hold = Some(Hold::parse_for(value).ok_or_else(bad)?),
                ("HOLDUNTIL", Some(value)) => found.hold = Some(Hold::parse_until(value).ok_or_else(bad)?),
                ("BY", Some(value)) => found.by = Some(By::parse(value).ok_or_else(bad)?),
                ("MT-PRIORITY", Some(value)) => {
                    found.priority = Some(wish::priority(value).ok_or_else(bad)?);
                }
                (
                    "SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID" | "AUTH" | "HOLDFOR" | "HOLDUNTIL" | "BY"
                    | "MT-PRIORITY",
                    _,
                ) => return Err(bad()),
                _ => return Err(unknown(&keyword)),
            }
        }
        Ok(found)
    }
}

impl RcptParameters {
    /// Parses what follows the path.
    pub fn parse(text: &str) -> Result<Self, Reply> {
        let mut found = Self::default();
        let mut seen = Seen::default();
        for (keyword, value) in pairs(text)? {
            let bad = || bad_argument(format!("Bad value of parameter {keyword}"));
            match (seen.once(&keyword)?, value) {
                ("NOTIFY", Some(value)) => found.notify = Notify::parse(value).ok_or_else(bad)?,
                ("ORCPT", Some(value)) => found.orcpt = Some(orcpt(value).ok_or_else(bad)?),
                ("NOTIFY" | "ORCPT", None) => return Err(bad()),
                _ => return Err(unknown(&keyword)),
            }
        }
        Ok(found)
    }
}

impl fmt::Display for MailParameters {
    /// As it follows the path, each parameter with a space before it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(size) = self.size {
            write!(f, " SIZE={size}")?;
        }
        if self.body != BodyType::SevenBit {
            write!(f, " BODY={}", self.body.as_str())?;
        }
        if self.smtputf8 {
            f.write_str(" SMTPUTF8")?;
        }
        if let Some(ret) = self.ret {
            write!(f, " RET={}", ret.as_str())?;
        }
        if let Some(envid) = &self.envid {
            write!(f, " ENVID={}", xtext::encode(envid))?;
        }
        match &self.auth {
            Some(Some(address)) => write!(f, " AUTH={}", xtext::encode(address))?,
            Some(None) => f.write_str(" AUTH=<>")?,
            None => {}
        }
        if let Some(hold) = self.hold {
            write!(f, " {hold}")?;
        }
        if let Some(by) = self.by {
            write!(f, " {by}")?;
        }
        if let Some(priority) = self.priority {
            write!(f, " MT-PRIORITY={priority}")?;
        }
        Ok(())
    }
}

impl fmt::Display for RcptParameters {
    /// As it follows the path, each parameter with a space before it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.notify != Notify::UNSPECIFIED {
            write!(f, " NOTIFY={}", self.notify)?;
        }
        if let Some((kind, address)) = self.orcpt.as_deref().and_then(|orcpt| orcpt.split_once(';')) {
            write!(f, " ORCPT={kind};{}", xtext::encode(address))?;
        }
        Ok(())
    }
}

/// Keywords, upper case, with their values.
fn pairs(text: &str) -> Result<Vec<(String, Option<&str>)>, Reply> {
    text.split_ascii_whitespace()
        .map(|parameter| {
            let (keyword, value) = match parameter.split_once('=') {
                Some((keyword, value)) => (keyword, Some(value)),
                None => (parameter, None),
            };
            let named = keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
                && keyword.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if !named || value == Some("") {
                return Err(bad_argument("Malformed parameter"));
            }
            Ok((keyword.to_ascii_uppercase(), value))
        })
        .collect()
}

#[derive(Default)]
struct Seen(Vec<String>);

impl Seen {
    fn once<'a>(&mut self, keyword: &'a str) -> Result<&'a str, Reply> {
        if self.0.iter().any(|seen| seen == keyword) {
            return Err(bad_argument(format!("Parameter {keyword} given twice")));
        }
        self.0.push(keyword.to_owned());
        Ok(keyword)
    }
}

fn unknown(keyword: &str) -> Reply {
    Reply::new(555, status(5, 5, 4), format!("Parameter {keyword} not recognized"))
}

/// RFC 1870 §6: up to 20 digits. What overflows is larger than any message that we take.
pub(crate) fn number(digits: &str) -> Option<u64> {
    let valid = (1..=20).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    valid.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// `addr-type ";" xtext` (RFC 3461 §4.2; RFC 6533 §4 adds the type `utf-8`).
fn orcpt(value: &str) -> Option<String> {
    let (kind, address) = value.split_once(';')?;
    let atom = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let address = xtext::decode(address).filter(|text| printable(text, ORCPT_CHARS_MAX))?;
    (atom && value.len() <= ORCPT_CHARS_MAX).then(|| format!("{kind};{address}"))
}

/// These texts come back in notifications, so they must not bring lines of their own.
fn printable(text: &str, chars_max: usize) -> bool {
    !text.is_empty() && text.chars().count() <= chars_max && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail() {
        let good = |text: &str, expected: MailParameters| {
            assert_eq!(MailParameters::parse(&expected.to_string()).as_ref(), Ok(&expected), "{text}");
            assert_eq!(MailParameters::parse(text), Ok(expected), "{text}");
        };
        good("", MailParameters::default());
        good(
            " SIZE=1000  body=8bitmime SMTPUTF8 RET=HDRS ENVID=QQ+2B314159 AUTH=e+3Dmc2@example.com",
            MailParameters {
                size: Some(1000),
                body: BodyType::EightBitMime,
                smtputf8: true,
                ret: Some(Ret::Headers),
                envid: Some("QQ+314159".into()),
                auth: Some(Some("e=mc2@example.com".into())),
                ..MailParameters::default()
            },
        );
        good(
            "HOLDUNTIL=2026-12-01T12:00:00Z BY=600;RT MT-PRIORITY=-3",
            MailParameters {
                hold: Some(Hold::Until(1_796_126_400)),
                by: Some(By { seconds: 600, mode: mail::envelope::ByMode::Return, trace: true }),
                priority: Some(-3),
                ..MailParameters::default()
            },
        );
        good("AUTH=<>", MailParameters { auth: Some(None), ..MailParameters::default() });
        good(
            "SIZE=99999999999999999999",
            MailParameters { size: Some(u64::MAX), ..MailParameters::default() },
        );
        let bad = |text: &str, code: u16| {
            assert_eq!(MailParameters::parse(text).map_err(|reply| reply.code), Err(code), "{text}");
        };
        for text in [
            "SIZE",
            "SIZE=",
            "SIZE=x",
            "SIZE=-1",
            "SIZE=999999999999999999999",
            "SIZE=1 SIZE=1",
            "BODY=9BIT",
            "SMTPUTF8=1",
            "RET=SOME",
            "ENVID=+",
            "ENVID=a+0D+0Ab",
            "AUTH=nobody",
            "=1",
            "-A=1",
            "A?=1",
            "HOLDFOR",
            "HOLDFOR=x",
            "HOLDFOR=1 HOLDUNTIL=2026-12-01T12:00:00Z",
            "HOLDUNTIL=tomorrow",
            "BY=1",
            "BY=0;R",
            "MT-PRIORITY=10",
        ] {
            bad(text, 501);
        }
        for text in ["X-UNKNOWN", "NOTIFY=NEVER", "REQUIRETLS"] {
            bad(text, 555);
        }
        bad(&format!("ENVID={}", "a".repeat(101)), 501);
    }

    #[test]
    fn what_is_not_offered_is_not_recognized() {
        let all = Wishes { hold_seconds_max: Some(60), by_seconds_min: Some(0), priority: true };
        for text in ["HOLDFOR=1", "HOLDUNTIL=2026-12-01T12:00:00Z", "BY=1;N", "MT-PRIORITY=1"] {
            let parameters = MailParameters::parse(text).unwrap();
            assert_eq!(parameters.within(&all), Ok(()), "{text}");
            let refused = parameters.within(&Wishes::default()).map_err(|reply| reply.code);
            assert_eq!(refused, Err(555), "{text}");
        }
        assert_eq!(MailParameters::default().within(&Wishes::default()), Ok(()));
    }

    #[test]
    fn rcpt() {
        let check = |text: &str, expected: Result<(&str, Option<&str>), u16>| {
            let parsed = RcptParameters::parse(text)
                .and_then(|parameters| RcptParameters::parse(&parameters.to_string()))
                .map(|parameters| (parameters.notify.to_string(), parameters.orcpt))
                .map_err(|reply| reply.code);
            let expected = expected.map(|(notify, orcpt)| (notify.to_owned(), orcpt.map(str::to_owned)));
            assert_eq!(parsed, expected, "{text}");
        };
        check("", Ok(("", None)));
        check(
            "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@x.test",
            Ok(("SUCCESS,DELAY", Some("rfc822;a+b@x.test"))),
        );
        check("ORCPT=utf-8;jürgen@x.test", Ok(("", Some("utf-8;jürgen@x.test"))));
        for text in [
            "NOTIFY",
            "NOTIFY=",
            "NOTIFY=NEVER,DELAY",
            "ORCPT",
            "ORCPT=rfc822",
            "ORCPT=;a",
            "ORCPT=rfc822;",
            "ORCPT=rfc822;a+0Ab",
            "NOTIFY=NEVER NOTIFY=NEVER",
        ] {
            check(text, Err(501));
        }
        check("SIZE=1", Err(555));
        check(&format!("ORCPT=rfc822;{}", "a".repeat(500)), Err(501));
    }
}
