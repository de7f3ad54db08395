//! Flags and keywords of messages (RFC 9051 §2.3.2).

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

/// Longest keyword in octets, the bound JMAP gives to keywords (RFC 8621 §4.1.1).
pub const KEYWORD_BYTES_MAX: usize = 255;

/// A system flag. The discriminant is its bit in stored [`Flags`] and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u16)]
pub enum Flag {
    /// `\Seen`
    Seen = 1,
    /// `\Answered`
    Answered = 2,
    /// `\Flagged`
    Flagged = 4,
    /// `\Deleted`
    Deleted = 8,
    /// `\Draft`
    Draft = 16,
}

/// A set of system flags, as stored with a message.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flags(u16);

/// A keyword: a flag that a client invented. Equal whatever its case; shown as it was first given.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Keyword(String);

/// Flags and keywords together, as clients name them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlagSet {
    /// The system flags.
    pub flags: Flags,
    /// The keywords, each once, in the order given.
    pub keywords: Vec<Keyword>,
}

/// Why a text is not a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// Begins with a backslash, but is none of the five that clients may set. `\Recent` is among these: it is the
    /// server's alone.
    #[error("unknown system flag")]
    UnknownSystemFlag,
    /// Not an IMAP atom.
    #[error("invalid character in keyword")]
    InvalidKeyword,
    /// Longer than [`KEYWORD_BYTES_MAX`].
    #[error("keyword is too long")]
    KeywordTooLong,
}

impl Flag {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 5] = [Self::Answered, Self::Flagged, Self::Deleted, Self::Seen, Self::Draft];

    /// The IMAP name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seen => "\\Seen",
            Self::Answered => "\\Answered",
            Self::Flagged => "\\Flagged",
            Self::Deleted => "\\Deleted",
            Self::Draft => "\\Draft",
        }
    }

    /// From the IMAP name, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flag| text.eq_ignore_ascii_case(flag.as_str()))
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Flags {
    /// No flags.
    pub const EMPTY: Self = Self(0);
    /// All system flags.
    pub const ALL: Self = Self(31);

    /// From stored bits; unknown bits are dropped.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// The bits to store.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether no flag is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this flag is set.
    pub const fn contains(self, flag: Flag) -> bool {
        self.0 & flag as u16 != 0
    }

    /// Sets a flag.
    pub fn insert(&mut self, flag: Flag) {
        self.0 |= flag as u16;
    }

    /// Clears a flag.
    pub fn remove(&mut self, flag: Flag) {
        self.0 &= !(flag as u16);
    }

    /// The flags in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The flags in this and not in the other.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The flags in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The flags set, in the order in which they are shown.
    pub fn iter(self) -> impl Iterator<Item = Flag> {
        Flag::ALL.into_iter().filter(move |flag| self.contains(*flag))
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<Flag> for Flags {
    fn from_iter<I: IntoIterator<Item = Flag>>(flags: I) -> Self {
        let mut set = Self::EMPTY;
        for flag in flags {
            set.insert(flag);
        }
        set
    }
}

impl From<Flag> for Flags {
    fn from(flag: Flag) -> Self {
        Self(flag as u16)
    }
}

impl Keyword {
    /// A keyword from its name, an atom of IMAP; JMAP's rule for keywords (RFC 8621 §4.1.1) is the same.
    pub fn new(name: impl Into<String>) -> Result<Self, FlagError> {
        let name = name.into();
        if name.len() > KEYWORD_BYTES_MAX {
            return Err(FlagError::KeywordTooLong);
        }
        let is_atom_byte = |byte: u8| (b'!'..=b'~').contains(&byte) && !b"(){]%*\"\\".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_atom_byte) {
            return Err(FlagError::InvalidKeyword);
        }
        Ok(Self(name))
    }

    /// The name as first given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Keyword {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Keyword {}

impl Hash for Keyword {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for byte in self.0.bytes() {
            state.write_u8(byte.to_ascii_lowercase());
        }
        state.write_u8(0xff);
    }
}

impl PartialOrd for Keyword {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Keyword {
    fn cmp(&self, other: &Self) -> Ordering {
        let fold = |keyword: &'_ Self| keyword.0.bytes().map(|b| b.to_ascii_lowercase()).collect::<Vec<_>>();
        fold(self).cmp(&fold(other))
    }
}

impl fmt::Display for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Keyword {
    type Error = FlagError;

    fn try_from(name: String) -> Result<Self, FlagError> {
        Self::new(name)
    }
}

impl From<Keyword> for String {
    fn from(keyword: Keyword) -> Self {
        keyword.0
    }
}

impl FlagSet {
    /// No flags and no keywords.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what a client named: `\Seen`, `$Forwarded`…
    pub fn insert_name(&mut self, name: &str) -> Result<(), FlagError> {
        if name.starts_with('\\') {
            self.flags.insert(Flag::parse(name).ok_or(FlagError::UnknownSystemFlag)?);
        } else {
            self.insert_keyword(Keyword::new(name)?);
        }
        Ok(())
    }

    /// Adds a keyword, unless it is there.
    pub fn insert_keyword(&mut self, keyword: Keyword) {
        if !self.keywords.contains(&keyword) {
            self.keywords.push(keyword);
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.flags.is_empty() && self.keywords.is_empty()
    }
}

impl From<Flags> for FlagSet {
    fn from(flags: Flags) -> Self {
        Self { flags, keywords: Vec::new() }
    }
}

impl fmt::Display for FlagSet {
    /// Names separated by spaces, as between the parentheses of `FLAGS (…)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let system = self.flags.iter().map(|flag| -> &str { flag.as_str() });
        let names = system.chain(self.keywords.iter().map(Keyword::as_str));
        for (at, name) in names.enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_by_name_rfc9051_2_3_2() {
        let mut set = FlagSet::new();
        for name in ["\\seen", "$Forwarded", "$FORWARDED", "\\Deleted", "NonJunk"] {
            set.insert_name(name).unwrap();
        }
        assert_eq!(set.to_string(), "\\Deleted \\Seen $Forwarded NonJunk");
        assert_eq!(set.insert_name("\\Recent"), Err(FlagError::UnknownSystemFlag));
        for bad in ["", "a b", "a(b", "a{b", "a]b", "a\\b", "a%b", "a*b", "ä"] {
            assert_eq!(set.insert_name(bad), Err(FlagError::InvalidKeyword), "{bad}");
        }
        assert_eq!(set.insert_name(&"k".repeat(256)), Err(FlagError::KeywordTooLong));
    }

    #[test]
    fn stored_bits_never_change_meaning() {
        let bits: Vec<u16> = Flag::ALL.into_iter().map(|flag| Flags::from(flag).bits()).collect();
        assert_eq!(bits, [2, 4, 8, 1, 16]);
        assert_eq!(Flags::from_bits(0xffff), Flags::ALL);
    }

    #[test]
    fn keywords_are_equal_in_any_case() {
        use std::collections::HashSet;
        let set: HashSet<Keyword> =
            ["Work", "work", "WORK"].into_iter().map(|k| Keyword::new(k).unwrap()).collect();
        assert_eq!(set.len(), 1);
        assert_eq!(Keyword::new("a").unwrap().cmp(&Keyword::new("B").unwrap()), Ordering::Less);
    }
}
