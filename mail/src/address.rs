//! Addresses of the envelope: who sends and who receives (RFC 5321 §4.1.2, RFC 6531 §3.3).
//!
//! These are strict: what cannot be an address is refused at the door. Addresses in header fields come from anywhere
//! and must be shown whatever they are; those are [`crate::header::HeaderAddress`].

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use unicode_normalization::UnicodeNormalization;

/// Longest local part taken, in octets. RFC 5321 §4.5.3.1.1 lets a sender rely on 64 only, but bulk senders put
/// longer ones into reverse-paths, and refusing those would bounce wanted mail.
pub const LOCAL_PART_BYTES_MAX: usize = 128;

/// Longest address in octets: a path of 256 (RFC 5321 §4.5.3.1.3) without its angle brackets.
pub const ADDRESS_BYTES_MAX: usize = 254;

/// Longest domain in octets (RFC 5321 §4.5.3.1.2, RFC 1035 §2.3.4 without the root).
pub const DOMAIN_BYTES_MAX: usize = 253;

/// Why a text is not an address, a domain or a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing there.
    #[error("empty address")]
    Empty,
    /// No `@`.
    #[error("address has no domain")]
    MissingDomain,
    /// Nothing before the `@`.
    #[error("address has no local part")]
    MissingLocalPart,
    /// A character that may not stand in a local part, or a misplaced dot or quote.
    #[error("invalid local part")]
    InvalidLocalPart,
    /// Longer than [`LOCAL_PART_BYTES_MAX`].
    #[error("local part is too long")]
    LocalPartTooLong,
    /// Not a domain name.
    #[error("invalid domain")]
    InvalidDomain,
    /// Longer than [`DOMAIN_BYTES_MAX`], or a label longer than 63 octets.
    #[error("domain is too long")]
    DomainTooLong,
    /// Between brackets, but neither IPv4 nor `IPv6:`.
    #[error("invalid address literal")]
    InvalidLiteral,
    /// Longer than [`ADDRESS_BYTES_MAX`].
    #[error("address is too long")]
    TooLong,
    /// A path that does not begin with `<` or does not end with `>`.
    #[error("path is not enclosed in angle brackets")]
    Unbracketed,
    /// Bytes that are not UTF-8 (RFC 6532 allows nothing else).
    #[error("address is not UTF-8")]
    NotUtf8,
}

/// A mailbox address: `local-part@domain` (RFC 5321 calls it Mailbox).
///
/// The local part is kept as it was given, without quoting; only the domain's owner may interpret it. Equality is
/// therefore exact in the local part; look-ups use [`Address::key`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    local: String,
    domain: Domain,
}

/// The right side of an address: a domain name or an address literal (RFC 5321 §4.1.3).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Domain {
    /// A domain name, normalised: lower case ASCII, labels outside ASCII in their `xn--` form.
    Name(DomainName),
    /// An address literal, `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
    Literal(IpAddr),
}

/// A normalised domain name. Can only be made by [`Domain::parse`], so that equality is equality of domains.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DomainName(String);

/// The reverse-path of an envelope (RFC 5321 §3.3): an address, or the null path of notifications.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReversePath(pub Option<Address>);

/// What stands between the angle brackets of MAIL FROM and RCPT TO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// `<>`.
    Null,
    /// `<Postmaster>` without a domain, in any case (RFC 5321 §4.5.1); legal in RCPT TO only.
    Postmaster,
    /// An address. A source route before it was dropped (RFC 5321 appendix C).
    Address(Address),
}

impl Address {
    /// Parses `local-part@domain`, without angle brackets.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > ADDRESS_BYTES_MAX * 2 {
            // Quoting may double a local part, nothing may do more; do not look at megabytes.
            return Err(AddressError::TooLong);
        }
        let (local, rest) = take_local_part(text)?;
        let domain = rest.strip_prefix('@').ok_or(if rest.is_empty() {
            AddressError::MissingDomain
        } else {
            AddressError::InvalidLocalPart
        })?;
        Self::new(local, Domain::parse(domain)?)
    }

    /// An address from an unquoted local part and a domain.
    pub fn new(local: impl Into<String>, domain: Domain) -> Result<Self, AddressError> {
        let local = local.into();
        if local.is_empty() {
            return Err(AddressError::MissingLocalPart);
        }
        if local.len() > LOCAL_PART_BYTES_MAX {
            return Err(AddressError::LocalPartTooLong);
        }
        if local.chars().any(|c| c.is_control()) {
            return Err(AddressError::InvalidLocalPart);
        }
        let address = Self { local, domain };
        if address.local.len() + 1 + address.domain.ascii().len() > ADDRESS_BYTES_MAX {
            return Err(AddressError::TooLong);
        }
        Ok(address)
    }

    /// The local part as given, without quoting.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The form under which accounts and aliases are looked up: the local part in NFC and lower case, `@`, the
    /// normalised domain. RFC 5321 §2.4 lets only the final host fold the case; this is that host's choice, since a
    /// user who tells two mailboxes apart by case does not exist.
    pub fn key(&self) -> String {
        let mut key = fold_local_part(&self.local);
        key.push('@');
        key.push_str(&self.domain.ascii());
        key
    }

    /// The folded local part, the left side of [`Address::key`].
    pub fn local_key(&self) -> String {
        fold_local_part(&self.local)
    }

    /// Whether this address can be sent only to hosts with SMTPUTF8 (RFC 6531): its local part is not ASCII. The
    /// domain never needs it, since it is kept in its ASCII form.
    pub fn needs_smtputf8(&self) -> bool {
        !self.local.is_ascii()
    }
}

/// A local part in NFC and lower case.
pub fn fold_local_part(local: &str) -> String {
    if local.is_ascii() {
        local.to_ascii_lowercase()
    } else {
        // Lower case can break the normal form, so it is restored afterwards.
        local.nfc().collect::<String>().to_lowercase().nfc().collect()
    }
}

impl fmt::Display for Address {
    /// The wire form, with the least quoting possible (RFC 5321 §4.1.2).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.local) {
            f.write_str(&self.local)?;
        } else {
            f.write_str("\"")?;
            for c in self.local.chars() {
                if matches!(c, '"' | '\\') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
            f.write_str("\"")?;
        }
        write!(f, "@{}", self.domain)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

impl Domain {
    /// Parses a domain name (ASCII or not) or an address literal in brackets.
    ///
    /// Underscores are taken although RFC 5321 §4.1.2 has none: hosts with such names send mail.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::MissingDomain);
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(AddressError::InvalidLiteral)?;
            return parse_literal(inner).map(Self::Literal);
        }
        if text.len() > 4 * DOMAIN_BYTES_MAX {
            return Err(AddressError::DomainTooLong);
        }
        let ascii: Cow<'_, str> = if text.is_ascii() {
            Cow::Owned(text.to_ascii_lowercase())
        } else {
            idna::uts46::Uts46::new()
                .to_ascii(
                    text.as_bytes(),
                    idna::AsciiDenyList::URL,
                    idna::uts46::Hyphens::Allow,
                    idna::uts46::DnsLength::Ignore,
                )
                .map_err(|_| AddressError::InvalidDomain)?
        };
        if ascii.len() > DOMAIN_BYTES_MAX {
            return Err(AddressError::DomainTooLong);
        }
        for label in ascii.split('.') {
            if label.len() > 63 {
                return Err(AddressError::DomainTooLong);
            }
            let inner_ok = label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
            if label.is_empty() || !inner_ok || label.starts_with('-') || label.ends_with('-') {
                return Err(AddressError::InvalidDomain);
            }
        }
        Ok(Self::Name(DomainName(ascii.into_owned())))
    }

    /// The ASCII form, as it goes into the DNS and onto the wire.
    pub fn ascii(&self) -> Cow<'_, str> {
        match self {
            Self::Name(name) => Cow::Borrowed(&name.0),
            Self::Literal(IpAddr::V4(ip)) => Cow::Owned(format!("[{ip}]")),
            Self::Literal(IpAddr::V6(ip)) => Cow::Owned(format!("[IPv6:{ip}]")),
        }
    }

    /// The form for people, with `xn--` labels decoded where they are valid.
    pub fn unicode(&self) -> Cow<'_, str> {
        match self {
            Self::Name(name) if name.0.contains("xn--") => {
                let (text, errors) = idna::domain_to_unicode(&name.0);
                if errors.is_ok() { Cow::Owned(text) } else { Cow::Borrowed(&name.0) }
            }
            _ => self.ascii(),
        }
    }

    /// The name, unless this is an address literal.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(&name.0),
            Self::Literal(_) => None,
        }
    }
}

impl fmt::Display for Domain {
    /// The ASCII form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.ascii())
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({self})")
    }
}

impl FromStr for Domain {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

impl DomainName {
    /// The name in ASCII lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ReversePath {
    /// The null reverse-path, `<>`: never answer this message (RFC 5321 §6.1).
    pub const NULL: Self = Self(None);

    /// Whether this is the null path.
    pub fn is_null(&self) -> bool {
        self.0.is_none()
    }

    /// The address, unless null.
    pub fn address(&self) -> Option<&Address> {
        self.0.as_ref()
    }
}

impl fmt::Display for ReversePath {
    /// With angle brackets, as in Return-Path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("<>"),
            Some(address) => write!(f, "<{address}>"),
        }
    }
}

impl From<Address> for ReversePath {
    fn from(address: Address) -> Self {
        Self(Some(address))
    }
}

impl Path {
    /// Takes a path in angle brackets from the beginning of `input`; gives it with what follows the `>`.
    ///
    /// A quoted local part may contain `>` and spaces, therefore the end cannot be found without parsing.
    pub fn take(input: &[u8]) -> Result<(Self, &[u8]), AddressError> {
        // A path is at most 256 octets; a source route before it may add to that, within reason.
        let window = &input[..input.len().min(2048)];
        let text = match std::str::from_utf8(window) {
            Ok(text) => text,
            // Cut within a character by the window, or broken further on: what stands before may still be a path.
            Err(error) => std::str::from_utf8(&window[..error.valid_up_to()]).unwrap_or_default(),
        };
        if text.is_empty() && !input.is_empty() {
            return Err(AddressError::NotUtf8);
        }
        let inner = text.strip_prefix('<').ok_or(AddressError::Unbracketed)?;
        if let Some(rest) = inner.strip_prefix('>') {
            return Ok((Self::Null, &input[text.len() - rest.len()..]));
        }
        let inner = skip_source_route(inner)?;
        let (local, rest) = take_local_part(inner)?;
        if let Some(after) = rest.strip_prefix('>') {
            if local.eq_ignore_ascii_case("postmaster") {
                return Ok((Self::Postmaster, &input[text.len() - after.len()..]));
            }
            return Err(AddressError::MissingDomain);
        }
        let rest = rest.strip_prefix('@').ok_or(if rest.is_empty() {
            AddressError::Unbracketed
        } else {
            AddressError::InvalidLocalPart
        })?;
        let end = rest.find('>').ok_or(AddressError::Unbracketed)?;
        let address = Address::new(local, Domain::parse(&rest[..end])?)?;
        let after = &rest[end + 1..];
        Ok((Self::Address(address), &input[text.len() - after.len()..]))
    }
}

/// `@one,@two:` before an address: receivers must accept it and should ignore it (RFC 5321 §4.1.1.3, appendix C).
fn skip_source_route(text: &str) -> Result<&str, AddressError> {
    let mut rest = text;
    if !rest.starts_with('@') {
        return Ok(rest);
    }
    loop {
        rest = rest.strip_prefix('@').ok_or(AddressError::InvalidDomain)?;
        let end = rest.find([',', ':', '>']).ok_or(AddressError::Unbracketed)?;
        Domain::parse(&rest[..end])?;
        let separator = rest.as_bytes()[end];
        rest = &rest[end + 1..];
        match separator {
            b',' => {}
            b':' => return Ok(rest),
            _ => return Err(AddressError::MissingLocalPart),
        }
    }
}

/// Takes a local part (dot-string or quoted-string) and unquotes it; gives it with what follows.
fn take_local_part(text: &str) -> Result<(String, &str), AddressError> {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut local = String::new();
        let mut chars = quoted.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => return Ok((local, &quoted[at + 1..])),
                '\\' => match chars.next() {
                    Some((_, c @ ' '..='~')) => local.push(c),
                    _ => return Err(AddressError::InvalidLocalPart),
                },
                c if c.is_control() => return Err(AddressError::InvalidLocalPart),
                c => local.push(c),
            }
            if local.len() > LOCAL_PART_BYTES_MAX {
                return Err(AddressError::LocalPartTooLong);
            }
        }
        return Err(AddressError::InvalidLocalPart);
    }
    let end = text.find(|c: char| !(is_atext(c) || c == '.')).unwrap_or(text.len());
    let (local, rest) = text.split_at(end);
    if local.is_empty() {
        return Err(if rest.starts_with('@') {
            AddressError::MissingLocalPart
        } else {
            AddressError::InvalidLocalPart
        });
    }
    if local.len() > LOCAL_PART_BYTES_MAX {
        return Err(AddressError::LocalPartTooLong);
    }
    // Dots at the ends or doubled are against RFC 5321 §4.1.2, but some phone carriers' customers have such addresses
    // and can be answered only if they are taken; they are quoted when written.
    Ok((local.to_owned(), rest))
}

fn parse_literal(inner: &str) -> Result<IpAddr, AddressError> {
    let tag = inner.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPv6:"));
    if let Some(tag) = tag {
        inner[tag.len()..].parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| AddressError::InvalidLiteral)
    } else {
        inner.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| AddressError::InvalidLiteral)
    }
}

fn is_atext(c: char) -> bool {
    match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' => true,
        '!' | '#' | '$' | '%' | '&' | '\'' | '*' | '+' | '-' | '/' | '=' | '?' | '^' | '_' | '`' | '{'
        | '|' | '}' | '~' => true,
        c => !c.is_ascii() && !c.is_control(),
    }
}

fn is_dot_string(local: &str) -> bool {
    local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

// Text for people (JSON, TOML), parts for stored values: a stored address must be readable for ever, also when the
// rules of parsing have changed.

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            (&self.local, &self.domain).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = Cow::<'de, str>::deserialize(deserializer)?;
            Self::parse(&text).map_err(D::Error::custom)
        } else {
            let (local, domain) = Deserialize::deserialize(deserializer)?;
            Ok(Self { local, domain })
        }
    }
}

#[derive(Serialize, Deserialize)]
enum StoredDomain<'a> {
    Name(Cow<'a, str>),
    V4([u8; 4]),
    V6([u8; 16]),
}

impl Serialize for Domain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        match self {
            Self::Name(name) => StoredDomain::Name(Cow::Borrowed(&name.0)),
            Self::Literal(IpAddr::V4(ip)) => StoredDomain::V4(ip.octets()),
            Self::Literal(IpAddr::V6(ip)) => StoredDomain::V6(ip.octets()),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = Cow::<'de, str>::deserialize(deserializer)?;
            return Self::parse(&text).map_err(D::Error::custom);
        }
        Ok(match StoredDomain::deserialize(deserializer)? {
            StoredDomain::Name(name) => Self::Name(DomainName(name.into_owned())),
            StoredDomain::V4(octets) => Self::Literal(IpAddr::V4(octets.into())),
            StoredDomain::V6(octets) => Self::Literal(IpAddr::V6(octets.into())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: Result<&str, AddressError>) {
        let got = Address::parse(input).map(|address| address.to_string());
        assert_eq!(got, expected.map(str::to_owned), "{input}");
    }

    #[test]
    fn addresses_rfc5321_4_1_2() {
        check("alice@example.test", Ok("alice@example.test"));
        check("Alice.B+x=y@EXAMPLE.Test", Ok("Alice.B+x=y@example.test"));
        check("\"john doe\"@example.test", Ok("\"john doe\"@example.test"));
        check("\"plain\"@example.test", Ok("plain@example.test"));
        check("\"a\\\"b\\\\\"@example.test", Ok("\"a\\\"b\\\\\"@example.test"));
        check("\"a@b>\"@example.test", Ok("\"a@b>\"@example.test"));
        check("a..b@example.test", Ok("\"a..b\"@example.test"));
        check("x@[192.0.2.7]", Ok("x@[192.0.2.7]"));
        check("x@[ipv6:2001:db8::7]", Ok("x@[IPv6:2001:db8::7]"));
        check("jörg@bücher.test", Ok("jörg@xn--bcher-kva.test"));
        check("a@under_score.test", Ok("a@under_score.test"));
        check("", Err(AddressError::Empty));
        check("alice", Err(AddressError::MissingDomain));
        check("alice@", Err(AddressError::MissingDomain));
        check("@example.test", Err(AddressError::MissingLocalPart));
        check("a b@example.test", Err(AddressError::InvalidLocalPart));
        check("\"a@example.test", Err(AddressError::InvalidLocalPart));
        check("a@-x.test", Err(AddressError::InvalidDomain));
        check("a@x..test", Err(AddressError::InvalidDomain));
        check("a@x.test.", Err(AddressError::InvalidDomain));
        check("a@x@y.test", Err(AddressError::InvalidDomain));
        check("a@[1.2.3]", Err(AddressError::InvalidLiteral));
        check("a@[x:1]", Err(AddressError::InvalidLiteral));
        check("a\r\n@x.test", Err(AddressError::InvalidLocalPart));
        check(&format!("{}@x.test", "a".repeat(129)), Err(AddressError::LocalPartTooLong));
        check(&format!("a@{}.test", "a".repeat(64)), Err(AddressError::DomainTooLong));
        check(&format!("a@{}test", "abcdefg.".repeat(40)), Err(AddressError::DomainTooLong));
    }

    #[test]
    fn keys_fold_case_and_normal_form() {
        let key = |text: &str| Address::parse(text).unwrap().key();
        assert_eq!(key("Alice@Example.Test"), "alice@example.test");
        assert_eq!(key("Jo\u{308}RG@bücher.test"), key("jörg@xn--bcher-kva.test"));
        assert_eq!(Domain::parse("xn--bcher-kva.test").unwrap().unicode(), "bücher.test");
        assert_eq!(Domain::parse("xn--a.test").unwrap().unicode(), "xn--a.test");
    }

    #[test]
    fn paths_rfc5321_4_1_1() {
        let check = |input: &str, expected: Result<(&str, &str), AddressError>| {
            let got = Path::take(input.as_bytes()).map(|(path, rest)| {
                let path = match path {
                    Path::Null => "null".to_owned(),
                    Path::Postmaster => "postmaster".to_owned(),
                    Path::Address(address) => address.to_string(),
                };
                (path, String::from_utf8(rest.to_vec()).unwrap())
            });
            assert_eq!(got, expected.map(|(a, b)| (a.to_owned(), b.to_owned())), "{input}");
        };
        check("<>", Ok(("null", "")));
        check("<> SIZE=1", Ok(("null", " SIZE=1")));
        check("<a@x.test> BODY=8BITMIME", Ok(("a@x.test", " BODY=8BITMIME")));
        check("<\"a> b\"@x.test>", Ok(("\"a> b\"@x.test", "")));
        check("<@r.test,@s.test:a@x.test>", Ok(("a@x.test", "")));
        check("<Postmaster>", Ok(("postmaster", "")));
        check("<someone>", Err(AddressError::MissingDomain));
        check("a@x.test", Err(AddressError::Unbracketed));
        check("<a@x.test", Err(AddressError::Unbracketed));
        check("<@r.test>", Err(AddressError::MissingLocalPart));
        assert_eq!(Path::take(b"\xff"), Err(AddressError::NotUtf8));
        assert_eq!(Path::take(b"<\xff@x.test>"), Err(AddressError::InvalidLocalPart));
    }

    #[test]
    fn stored_and_shown_forms_round_trip() {
        for text in ["alice@example.test", "\"j d\"@[192.0.2.1]", "jörg@[IPv6:2001:db8::1]"] {
            let address = Address::parse(text).unwrap();
            let stored = postcard::to_stdvec(&address).unwrap();
            assert_eq!(postcard::from_bytes::<Address>(&stored).unwrap(), address);
            let shown = serde_json::to_string(&address).unwrap();
            assert_eq!(serde_json::from_str::<Address>(&shown).unwrap(), address);
        }
        assert!(serde_json::from_str::<Address>("\"nobody\"").is_err());
    }
}
