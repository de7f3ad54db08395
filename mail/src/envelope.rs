//! The envelope: what SMTP says about a message beside the message (RFC 5321 §2.3.1), with the parameters of its
//! extensions.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::address::{Address, ReversePath};

/// Who sends, who receives, and what the sender asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Where notifications go.
    pub reverse_path: ReversePath,
    /// The accepted recipients, in the order of their RCPT commands.
    pub recipients: Vec<Recipient>,
    /// What the body may contain.
    pub body: BodyType,
    /// The message needs SMTPUTF8 hosts (RFC 6531).
    pub smtputf8: bool,
    /// What a failure notification should return, `RET=` (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// The sender's name for this transaction, `ENVID=` (RFC 3461 §4.4), decoded from xtext.
    pub envid: Option<String>,
    /// The message must travel under TLS only (RFC 8689).
    pub require_tls: bool,
    /// `MT-PRIORITY=`, -9 to 9 (RFC 6710).
    pub priority: i8,
    /// `BY=` (RFC 2852), as a moment.
    pub deliver_by: Option<DeliverBy>,
    /// Not to be delivered before (unix seconds): `HOLDFOR=` or `HOLDUNTIL=` (RFC 4865).
    pub hold_until: Option<u64>,
}

/// By when the sender wants a message delivered, and what is to happen else (RFC 2852 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeliverBy {
    /// The moment (unix seconds).
    pub until: u64,
    /// What happens when it has passed.
    pub mode: ByMode,
    /// The sender wants to hear of each host that it is passed on to.
    pub trace: bool,
}

/// What happens to a message that is late (RFC 2852 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ByMode {
    /// `R`: it is returned.
    Return,
    /// `N`: its sender is told, and it is tried on.
    Notify,
}

/// One recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// The forward-path.
    pub address: Address,
    /// When the sender wants to hear about it, `NOTIFY=`.
    pub notify: Notify,
    /// The original recipient, `ORCPT=` (RFC 3461 §4.2), decoded from xtext: `rfc822;user@example.test`.
    pub orcpt: Option<String>,
}

/// `BODY=` (RFC 6152, RFC 3030).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BodyType {
    /// Lines of US-ASCII.
    #[default]
    SevenBit,
    /// Lines of any octets.
    EightBitMime,
    /// Any octets; may come by BDAT only.
    BinaryMime,
}

/// `RET=` (RFC 3461 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header only.
    Headers,
}

/// `NOTIFY=` (RFC 3461 §4.1): a set of events, `NEVER`, or nothing said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Notify(u8);

impl Envelope {
    /// An envelope with no recipients and no parameters yet.
    pub fn new(reverse_path: ReversePath) -> Self {
        Self {
            reverse_path,
            recipients: Vec::new(),
            body: BodyType::default(),
            smtputf8: false,
            ret: None,
            envid: None,
            require_tls: false,
            priority: 0,
            deliver_by: None,
            hold_until: None,
        }
    }
}

impl Recipient {
    /// A recipient without parameters.
    pub fn new(address: Address) -> Self {
        Self { address, notify: Notify::UNSPECIFIED, orcpt: None }
    }
}

impl BodyType {
    /// The keyword after `BODY=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SevenBit => "7BIT",
            Self::EightBitMime => "8BITMIME",
            Self::BinaryMime => "BINARYMIME",
        }
    }

    /// From the keyword after `BODY=`, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::SevenBit, Self::EightBitMime, Self::BinaryMime]
            .into_iter()
            .find(|body| text.eq_ignore_ascii_case(body.as_str()))
    }
}

impl Ret {
    /// The keyword after `RET=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        }
    }

    /// From the keyword after `RET=`, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Full, Self::Headers].into_iter().find(|ret| text.eq_ignore_ascii_case(ret.as_str()))
    }
}

impl Notify {
    /// No NOTIFY parameter: failures are told, delays may be (RFC 3461 §4.1).
    pub const UNSPECIFIED: Self = Self(0);
    /// `NEVER`.
    pub const NEVER: Self = Self(1);
    /// `SUCCESS`.
    pub const SUCCESS: Self = Self(2);
    /// `FAILURE`.
    pub const FAILURE: Self = Self(4);
    /// `DELAY`.
    pub const DELAY: Self = Self(8);

    const WORDS: [(Self, &'static str); 4] = [
        (Self::NEVER, "NEVER"),
        (Self::SUCCESS, "SUCCESS"),
        (Self::FAILURE, "FAILURE"),
        (Self::DELAY, "DELAY"),
    ];

    /// Both sets of events.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// From the value of `NOTIFY=`; `None` when it is empty, unknown, repeated, or combines NEVER with anything.
    pub fn parse(text: &str) -> Option<Self> {
        let mut set = Self::UNSPECIFIED;
        for word in text.split(',') {
            let (event, _) = Self::WORDS.into_iter().find(|(_, name)| word.eq_ignore_ascii_case(name))?;
            if set.has(event) {
                return None;
            }
            set = set.and(event);
        }
        (!set.has(Self::NEVER) || set == Self::NEVER).then_some(set)
    }

    /// Whether a failure is to be told.
    pub fn on_failure(self) -> bool {
        self == Self::UNSPECIFIED || self.has(Self::FAILURE)
    }

    /// Whether a delay is to be told. Unless the sender said otherwise we do, as RFC 3461 §4.1 allows.
    pub fn on_delay(self) -> bool {
        self == Self::UNSPECIFIED || self.has(Self::DELAY)
    }

    /// Whether a success is to be told.
    pub fn on_success(self) -> bool {
        self.has(Self::SUCCESS)
    }

    fn has(self, event: Self) -> bool {
        self.0 & event.0 != 0
    }
}

impl fmt::Display for Notify {
    /// The value of `NOTIFY=`; empty when nothing was said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (event, name) in Self::WORDS {
            if self.has(event) {
                write!(f, "{separator}{name}")?;
                separator = ",";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_rfc3461_4_1() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(Notify::parse(text).map(|set| set.to_string()).as_deref(), expected, "{text}");
        };
        check("NEVER", Some("NEVER"));
        check("failure,Delay", Some("FAILURE,DELAY"));
        check("SUCCESS,FAILURE,DELAY", Some("SUCCESS,FAILURE,DELAY"));
        check("NEVER,DELAY", None);
        check("DELAY,DELAY", None);
        check("", None);
        check("SOMETIMES", None);
        assert!(
            Notify::UNSPECIFIED.on_failure()
                && Notify::UNSPECIFIED.on_delay()
                && !Notify::UNSPECIFIED.on_success()
        );
        assert!(!Notify::NEVER.on_failure() && !Notify::NEVER.on_delay());
        assert!(!Notify::SUCCESS.on_failure());
    }

    #[test]
    fn envelopes_round_trip() {
        let mut envelope = Envelope::new(ReversePath::NULL);
        envelope.recipients.push(Recipient {
            notify: Notify::FAILURE,
            orcpt: Some("rfc822;b@x.test".into()),
            ..Recipient::new(Address::parse("a@x.test").unwrap())
        });
        let stored = postcard::to_stdvec(&envelope).unwrap();
        assert_eq!(postcard::from_bytes::<Envelope>(&stored).unwrap(), envelope);
    }
}
