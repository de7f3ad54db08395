//! Flags and keywords as they are stored with a message: bits.

use std::fmt;

use mail::flag::{Flag, Flags};
use serde::{Deserialize, Serialize};

/// How many keywords an account can have. Each is a bit beside every message; what the account calls bit *n* stands in
/// its root.
pub const KEYWORDS_MAX: usize = 120;

const FLAG_BITS: u128 = 0x1f;
const SHARED: u128 = 1 << 7;
const KEYWORD_SHIFT: u32 = 8;

/// The flags and keywords of one message.
///
/// Bits 0 to 4 are the system flags, bit 7 is our own (*shared*), bits 8 to 127 are the keywords 0 to 119.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Marks(u128);

impl Marks {
    /// Nothing set.
    pub const EMPTY: Self = Self(0);
    /// Everything that a client can set.
    pub const ALL: Self = Self(!0 << KEYWORD_SHIFT | FLAG_BITS);
    /// The email may be in another mailbox too, since a COPY once put it there. Set on all its copies and never taken
    /// away; clients do not see it.
    pub(crate) const SHARED: Self = Self(SHARED);

    /// These system flags.
    pub const fn from_flags(flags: Flags) -> Self {
        Self(flags.bits() as u128)
    }

    /// The keyword with this number; nothing beyond [`KEYWORDS_MAX`].
    pub const fn from_keyword(number: usize) -> Self {
        if number < KEYWORDS_MAX { Self(1 << (number as u32 + KEYWORD_SHIFT)) } else { Self(0) }
    }

    /// The system flags.
    pub const fn flags(self) -> Flags {
        Flags::from_bits((self.0 & FLAG_BITS) as u16)
    }

    /// Whether this system flag is set.
    pub const fn has(self, flag: Flag) -> bool {
        self.0 & flag as u128 != 0
    }

    /// Whether any keyword is set.
    pub const fn has_keywords(self) -> bool {
        self.0 >> KEYWORD_SHIFT != 0
    }

    /// Whether the keyword with this number is set.
    pub const fn has_keyword(self, number: usize) -> bool {
        number < KEYWORDS_MAX && self.0 >> (number as u32 + KEYWORD_SHIFT) & 1 != 0
    }

    /// Numbers of the keywords that are set, ascending.
    pub fn keywords(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0 >> KEYWORD_SHIFT;
        std::iter::from_fn(move || {
            let number = rest.trailing_zeros() as usize;
            (rest != 0).then(|| {
                rest &= rest - 1;
                number
            })
        })
    }

    /// What is set in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is set in this and not in the other.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What is set in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether nothing is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What clients see of it.
    #[must_use]
    pub const fn visible(self) -> Self {
        Self(self.0 & Self::ALL.0)
    }

    pub(crate) const fn bits(self) -> u128 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u128) -> Self {
        Self(bits & (Self::ALL.0 | SHARED))
    }
}

impl fmt::Debug for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut set = f.debug_set();
        set.entries(self.flags().iter()).entries(self.keywords());
        if self.0 & SHARED != 0 {
            set.entry(&"shared");
        }
        set.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_never_change_meaning() {
        assert_eq!(Marks::from_flags(Flags::ALL).bits(), 0x1f);
        assert_eq!(Marks::SHARED.bits(), 0x80);
        assert_eq!(Marks::from_keyword(0).bits(), 0x100);
        assert_eq!(Marks::from_keyword(KEYWORDS_MAX - 1).bits(), 1 << 127);
        assert!(Marks::from_keyword(KEYWORDS_MAX).is_empty());
    }

    #[test]
    fn keywords_by_number() {
        let marks =
            [0, 3, 63, 119].into_iter().fold(Marks::from_flags(Flag::Seen.into()), |marks, number| {
                marks.union(Marks::from_keyword(number))
            });
        assert_eq!(marks.keywords().collect::<Vec<_>>(), [0, 3, 63, 119]);
        assert!(
            marks.has_keyword(63)
                && !marks.has_keyword(62)
                && marks.has(Flag::Seen)
                && !marks.has(Flag::Draft)
        );
        assert_eq!(marks.union(Marks::SHARED).visible(), marks);
    }
}
