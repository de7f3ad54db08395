//! Messages of which the store is told before it is their turn: where bodies are far away, the next ones come while one
//! is being sent, and a client that reads a mailbox does not pay a round trip for each message.
//!
//! Nothing is held here but addresses. What a back end fetches goes into its cache on disk; one that is near does nothing.

use std::ops::Range;

use blob::BlobAddress;
use imap_protocol::fetch::{FetchItem, SectionText};
use storage::{Account, EmailRecord};

use super::body::asked;
use super::is_body;
use crate::config::Config;

/// The messages of a batch, in the order in which they will be sent, and how far of them the store knows.
pub(super) struct Ahead {
    blobs: Vec<(BlobAddress, u64)>,
    window: Window,
}

impl Ahead {
    pub(super) fn new<'a>(
        config: &Config,
        items: &[FetchItem],
        records: impl Iterator<Item = &'a EmailRecord>,
    ) -> Self {
        let blobs: Vec<_> = match config.fetch_ahead_messages_max {
            0 => Vec::new(),
            _ => records.map(|record| (record.address, reach(record, items))).collect(),
        };
        let window = Window {
            octets: blobs.iter().map(|(address, plain)| address.length.min(*plain)).collect(),
            sent: 0,
            told: 0,
            messages_max: config.fetch_ahead_messages_max,
            octets_max: config.fetch_ahead_bytes_max,
        };
        Self { blobs, window }
    }

    /// Tells the store of what has come within the bounds. Where a FETCH ends, so does this: nothing more is begun.
    pub(super) fn tell(&mut self, account: &Account) {
        let untold = self.window.untold();
        if !untold.is_empty() {
            self.window.told = untold.start + account.prefetch(&self.blobs[untold]);
        }
    }

    /// It is the turn of a message, so that one more may be read ahead.
    pub(super) fn goes(&mut self) {
        self.window.sent += 1;
    }
}

/// Which messages may be read ahead.
struct Window {
    /// Of each message.
    octets: Vec<u64>,
    /// Messages whose turn it was.
    sent: usize,
    /// Messages of which the store has been told.
    told: usize,
    messages_max: usize,
    octets_max: u64,
}

impl Window {
    /// What is within the bounds and was not told. The next message always is within them, however long.
    fn untold(&self) -> Range<usize> {
        let next = self.octets.get(self.sent..).unwrap_or_default().iter().take(self.messages_max);
        let sums = next.scan(0u64, |sum, octets| {
            *sum = sum.saturating_add(*octets);
            Some(*sum)
        });
        let within =
            sums.enumerate().take_while(|(number, sum)| *number == 0 || *sum <= self.octets_max).count();
        let end = self.sent + within;
        self.told.clamp(self.sent, end)..end
    }
}

/// How many octets of a message will be read, from its beginning, as far as that is known before it is opened: of parts
/// nobody knows yet where they lie.
fn reach(record: &EmailRecord, items: &[FetchItem]) -> u64 {
    let reach = items.iter().filter(|item| is_body(item)).map(|item| {
        let (section, partial) = asked(item);
        match section.text {
            _ if !section.part.is_empty() => 0,
            SectionText::Whole => {
                let end = partial.map(|partial| partial.offset.saturating_add(partial.length));
                end.map_or(record.size, |end| end.min(record.size))
            }
            SectionText::Text | SectionText::Mime => record.size,
            SectionText::Header | SectionText::HeaderFields(_) | SectionText::HeaderFieldsNot(_) => {
                record.header_len
            }
        }
    });
    reach.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(octets: &[u64], messages_max: usize, octets_max: u64) -> Window {
        Window { octets: octets.to_vec(), sent: 0, told: 0, messages_max, octets_max }
    }

    #[test]
    fn as_much_is_told_as_the_bounds_allow_and_once() {
        let mut window = window(&[10, 10, 10, 500, 10, 10], 3, 25);
        let mut told = Vec::new();
        for _ in 0..6 {
            let untold = window.untold();
            told.push(untold.clone());
            window.told = untold.end;
            window.sent += 1;
        }
        assert_eq!(told, [0..2, 2..3, 3..3, 3..4, 4..6, 6..6]);
        assert!(window.untold().is_empty());
    }

    #[test]
    fn what_there_was_no_room_for_is_told_again() {
        let mut window = window(&[10; 6], 4, 1000);
        assert_eq!(window.untold(), 0..4);
        window.told = 1;
        assert_eq!(window.untold(), 1..4);
        // Those that were sent meanwhile are not.
        window.sent = 3;
        assert_eq!(window.untold(), 3..6);
    }

    #[test]
    fn nothing_is_told_where_nothing_is_to_be_read_ahead() {
        assert!(window(&[10; 6], 0, 1000).untold().is_empty());
        assert!(window(&[], 8, 1000).untold().is_empty());
        assert_eq!(window(&[10; 6], 8, 0).untold(), 0..1);
    }
}
