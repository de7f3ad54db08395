//! Sequence sets (RFC 9051 §9 `sequence-set`): message numbers or UIDs, with `*` still unresolved.

use std::fmt::Write as _;

/// One bound of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A number; never zero.
    Number(u32),
    /// `*`: the largest number in use.
    Star,
}

impl Bound {
    fn resolve(self, star: u32) -> u32 {
        match self {
            Self::Number(number) => number,
            Self::Star => star,
        }
    }
}

/// A set of message numbers or UIDs as the client wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SequenceSet {
    /// Ranges in the order given; a single number is a range of one.
    Ranges(Vec<(Bound, Bound)>),
    /// `$`: the result of the last SEARCH that saved one (RFC 9051 §6.4.4.1).
    Saved,
}

impl SequenceSet {
    /// Every message, `1:*`.
    pub fn all() -> Self {
        Self::Ranges(vec![(Bound::Number(1), Bound::Star)])
    }

    /// The ranges sorted, merged and without `*`, where `star` is the largest number in use (0: nothing is in use and
    /// `*` names nothing). `None` for `$`, which only the session can resolve.
    ///
    /// A range is the same in both directions, so `559:*` always includes the largest number, even when that is
    /// smaller than 559 (RFC 9051 §9, `seq-range`).
    pub fn resolve(&self, star: u32) -> Option<Vec<(u32, u32)>> {
        let Self::Ranges(ranges) = self else { return None };
        let mut resolved: Vec<(u32, u32)> = ranges
            .iter()
            .map(|(from, to)| {
                let (a, b) = (from.resolve(star), to.resolve(star));
                (a.min(b).max(1), a.max(b))
            })
            .filter(|(first, last)| first <= last)
            .collect();
        resolved.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(resolved.len());
        for (first, last) in resolved {
            match merged.last_mut() {
                Some(previous) if first <= previous.1.saturating_add(1) => previous.1 = previous.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Some(merged)
    }

    /// Whether `*` occurs: QRESYNC refuses it in its parameters (RFC 7162 §3.2.5.1).
    pub fn has_star(&self) -> bool {
        match self {
            Self::Ranges(ranges) => {
                ranges.iter().any(|(from, to)| *from == Bound::Star || *to == Bound::Star)
            }
            Self::Saved => false,
        }
    }
}

/// Builds sequence sets for responses from numbers that come in ascending order: `1:3,7`.
#[derive(Debug, Default)]
pub struct SetWriter {
    text: String,
    open: Option<(u32, u32)>,
}

impl SetWriter {
    /// Adds a number larger than all before.
    pub fn push(&mut self, number: u32) {
        match &mut self.open {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => {
                self.close();
                self.open = Some((number, number));
            }
        }
    }

    /// Adds a range that starts above all before.
    pub fn push_range(&mut self, first: u32, last: u32) {
        match &mut self.open {
            Some((_, open_last)) if *open_last + 1 == first => *open_last = last,
            _ => {
                self.close();
                self.open = Some((first, last));
            }
        }
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.open.is_none()
    }

    /// The set as text; empty if nothing was added.
    pub fn finish(mut self) -> String {
        self.close();
        self.text
    }

    fn close(&mut self) {
        if let Some((first, last)) = self.open.take() {
            if !self.text.is_empty() {
                self.text.push(',');
            }
            // Writing to a String cannot fail.
            let _ = if first == last {
                write!(self.text, "{first}")
            } else {
                write!(self.text, "{first}:{last}")
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(Bound, Bound)]) -> SequenceSet {
        SequenceSet::Ranges(ranges.to_vec())
    }

    #[test]
    fn stars_resolve_in_both_directions() {
        use Bound::{Number as N, Star};
        let check = |ranges: &[(Bound, Bound)], star: u32, expected: &[(u32, u32)]| {
            assert_eq!(set(ranges).resolve(star).unwrap(), expected, "{ranges:?} with * = {star}");
        };
        check(&[(N(1), Star)], 5, &[(1, 5)]);
        check(&[(N(559), Star)], 5, &[(5, 559)]);
        check(&[(Star, Star)], 5, &[(5, 5)]);
        check(&[(Star, Star)], 0, &[]);
        check(&[(N(7), N(9)), (N(4), N(4)), (N(5), N(6))], 100, &[(4, 9)]);
        check(&[(N(2), N(2)), (N(8), N(3))], 100, &[(2, 8)]);
        check(&[(N(u32::MAX), N(u32::MAX)), (N(1), N(u32::MAX))], 1, &[(1, u32::MAX)]);
    }

    #[test]
    fn sets_are_written_with_ranges() {
        let mut writer = SetWriter::default();
        for number in [1, 2, 3, 7, 9, 10] {
            writer.push(number);
        }
        writer.push_range(11, 20);
        assert_eq!(writer.finish(), "1:3,7,9:20");
        assert_eq!(SetWriter::default().finish(), "");
    }
}
