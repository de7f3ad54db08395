//! Where commands end: lines, literals, and getting past what was refused.

use bytes::{Bytes, BytesMut};

use crate::parse::{LiteralMark, literal_at_end};

/// Octets of a refused line that are skipped before the connection is given up.
const SKIP_LINE_MAX: usize = 1024 * 1024;
/// Octets kept of a line being skipped, to see whether it ends in a literal that the client does not wait with.
const SKIP_TAIL: usize = 32;

/// What the bytes at hand amount to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Nothing yet.
    NeedInput,
    /// Something refused earlier was passed over; look again.
    Skipping,
    /// The command goes on with a literal that somebody has to decide about.
    Literal(LiteralMark),
    /// The command is complete: [`Framing::take`].
    Line,
    /// There is more than is allowed.
    TooLong(Oversize),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Oversize {
    /// The command; its beginning is at hand, and its rest can be skipped.
    Line,
    /// The line being skipped.
    Skipped,
}

/// The input that is not yet given out.
#[derive(Debug, Default)]
pub(super) struct Framing {
    buffer: BytesMut,
    /// Where the line begins that is being looked at: 0, or behind the command's last literal.
    line_start: usize,
    /// How far the line has been searched for its end.
    searched: usize,
    /// Octets to be thrown away before anything else is looked at.
    discard: u64,
    /// The rest of the line is to be thrown away; counts its octets.
    skip: Option<usize>,
    /// Where the line ends that [`Frame::Line`] or [`Frame::Literal`] was said of.
    line_end: usize,
}

impl Framing {
    pub(super) fn input(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether a command has begun and not ended.
    pub(super) fn is_mid_command(&self) -> bool {
        !self.buffer.is_empty() || self.discard > 0 || self.skip.is_some()
    }

    /// What was not given out.
    pub(super) fn into_input(self) -> Bytes {
        self.buffer.freeze()
    }

    /// Gives back the memory of a buffer that holds nothing.
    pub(super) fn shrink(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > 0 {
            self.buffer = BytesMut::new();
        }
    }

    pub(super) fn next(&mut self, limit: usize) -> Frame {
        if self.discard > 0 {
            let count = self.discard.min(self.buffer.len() as u64);
            let _ = self.buffer.split_to(count as usize);
            self.discard -= count;
            if self.discard > 0 {
                return Frame::NeedInput;
            }
        }
        if self.skip.is_some() {
            return self.skip_on();
        }
        // A literal that is being collected may not be there yet.
        if self.line_start > self.buffer.len() {
            return Frame::NeedInput;
        }
        let from = self.searched.max(self.line_start);
        match memchr::memchr(b'\n', &self.buffer[from..]) {
            Some(position) if from + position < limit => {
                self.line_end = from + position + 1;
                match literal_at_end(&self.buffer[self.line_start..self.line_end]) {
                    Some(mark) => Frame::Literal(mark),
                    None => Frame::Line,
                }
            }
            None if self.buffer.len() <= limit => {
                self.searched = self.buffer.len();
                Frame::NeedInput
            }
            _ => Frame::TooLong(Oversize::Line),
        }
    }

    /// The command so far, up to the end of the line, or all there is of a line that does not end.
    pub(super) fn command(&self) -> &[u8] {
        let end = if self.line_end > 0 { self.line_end } else { self.buffer.len() };
        &self.buffer[..end]
    }

    /// The length of the command's last line.
    pub(super) fn line_len(&self) -> usize {
        self.line_end - self.line_start
    }

    /// Takes the complete command.
    pub(super) fn take(&mut self) -> Bytes {
        let command = self.buffer.split_to(self.line_end).freeze();
        self.reset();
        command
    }

    /// Takes up to `limit` octets that are at hand.
    pub(super) fn take_chunk(&mut self, limit: u64) -> Option<Bytes> {
        let count = limit.min(self.buffer.len() as u64) as usize;
        (count > 0).then(|| self.buffer.split_to(count).freeze())
    }

    /// The next `size` octets belong to the command.
    pub(super) fn collect(&mut self, size: usize) {
        self.line_start = self.line_end + size;
        self.searched = self.line_start;
        self.line_end = 0;
    }

    /// Throws away the command up to the end of its line.
    pub(super) fn drop_command(&mut self) {
        let _ = self.buffer.split_to(self.line_end);
        self.reset();
    }

    /// Throws away the next `size` octets and the line behind them.
    pub(super) fn discard(&mut self, size: u64) {
        self.discard = size;
        self.skip = Some(0);
    }

    /// Throws away the line, wherever it ends.
    pub(super) fn skip_line(&mut self) {
        let _ = self.buffer.split_to(self.line_start.min(self.buffer.len()));
        self.reset();
        self.skip = Some(0);
    }

    fn reset(&mut self) {
        self.line_start = 0;
        self.searched = 0;
        self.line_end = 0;
    }

    fn skip_on(&mut self) -> Frame {
        let skipped = self.skip.unwrap_or_default();
        match memchr::memchr(b'\n', &self.buffer) {
            Some(position) => {
                let line = self.buffer.split_to(position + 1);
                self.skip = None;
                if let Some(mark) = literal_at_end(&line)
                    && mark.non_synchronizing
                {
                    // The refused command goes on; the client has not waited.
                    self.discard = mark.size;
                    self.skip = Some(skipped.saturating_add(line.len()));
                    if mark.size > SKIP_LINE_MAX as u64 {
                        return Frame::TooLong(Oversize::Skipped);
                    }
                }
                if skipped + line.len() > SKIP_LINE_MAX {
                    return Frame::TooLong(Oversize::Skipped);
                }
                Frame::Skipping
            }
            None => {
                let surplus = self.buffer.len().saturating_sub(SKIP_TAIL);
                let _ = self.buffer.split_to(surplus);
                self.skip = Some(skipped + surplus);
                if skipped + surplus > SKIP_LINE_MAX {
                    return Frame::TooLong(Oversize::Skipped);
                }
                Frame::NeedInput
            }
        }
    }
}

#[cfg(test)]
impl Framing {
    pub(super) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }
}
