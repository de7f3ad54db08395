//! Pages of results (RFC 9394): so many from the first on, or from the last.

use std::ops::Range;

use bytes::{BufMut, BytesMut};

use crate::response::number;

/// A `partial-range` as the client wrote it, which is how the answer repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    from: u32,
    to: u32,
    /// `-1:-100`: counted from the last result.
    is_from_end: bool,
}

impl Page {
    /// A page from the first result on. Neither number is zero; a range is the same in both directions.
    pub(crate) fn first(from: u32, to: u32) -> Self {
        Self { from, to, is_from_end: false }
    }

    /// A page from the last result back.
    pub(crate) fn last(from: u32, to: u32) -> Self {
        Self { from, to, is_from_end: true }
    }

    /// Where the page lies in so many results; empty where it is beyond them.
    pub fn of(self, results: usize) -> Range<usize> {
        let (low, high) = (self.from.min(self.to) as usize, self.from.max(self.to) as usize);
        let (start, end) = if self.is_from_end {
            (results.saturating_sub(high), (results + 1).saturating_sub(low))
        } else {
            ((low - 1).min(results), high.min(results))
        };
        start..end
    }

    /// Writes the range as it was asked for.
    pub(crate) fn write(self, out: &mut BytesMut) {
        let sign = if self.is_from_end { "-" } else { "" };
        out.put_slice(sign.as_bytes());
        number(out, u64::from(self.from));
        out.put_u8(b':');
        out.put_slice(sign.as_bytes());
        number(out, u64::from(self.to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_lie_in_results_rfc9394_3_1() {
        let check = |page: Page, results, expected: Range<usize>| {
            let found = page.of(results);
            assert_eq!(found, expected, "{page:?} of {results}");
        };
        check(Page::first(1, 3), 10, 0..3);
        check(Page::first(3, 1), 10, 0..3);
        check(Page::first(9, 20), 10, 8..10);
        check(Page::first(11, 20), 10, 10..10);
        check(Page::first(1, u32::MAX), 0, 0..0);
        check(Page::last(1, 3), 10, 7..10);
        check(Page::last(3, 1), 10, 7..10);
        check(Page::last(9, 20), 10, 0..2);
        check(Page::last(11, 20), 10, 0..0);
        check(Page::last(1, 1), 1, 0..1);
        check(Page::last(1, u32::MAX), 0, 0..0);
    }
}
