//! The splitter: a message goes in, in pieces of any size; its facts come out.
//!
//! It is a machine of three states: in a header, in a body, in the rest of a delimiter line. What it holds between two
//! pieces is the stack of open parts, at most one header line, and the beginning of a line that may be a delimiter.
//! Bodies are searched for line ends followed by two hyphens, and nothing else is looked at.

use memchr::{memchr, memchr_iter, memmem};

use super::facts::Facts;
use super::limits::Limits;
use super::open::{Delimiter, Inside, OpenPart, find_delimiter};
use super::preview::PreviewSource;

/// Finds the facts of a message in one pass.
///
/// It never fails: anything is a message. Memory is bounded by [`Limits`], whatever the message's size. Where the
/// message is cut into pieces makes no difference.
#[derive(Debug)]
pub struct Splitter {
    limits: Limits,
    /// The open parts, the whole message first. Never empty.
    open: Vec<OpenPart>,
    /// How many parts there are so far.
    parts: usize,
    /// Octets of header fields kept so far.
    kept: usize,
    /// Octets passed, line ends among them, and the last one.
    offset: u64,
    lines: u64,
    last: u8,
    state: State,
    /// Where the current line began. Kept up in headers, and in bodies for lines that may be delimiters.
    line_start: LineStart,
    /// The beginning of that line: in a header as much as is kept of a field, in a body what a delimiter can have.
    line: Vec<u8>,
    /// The length of the longest open boundary; `None` when there is none to look for.
    longest_boundary: Option<usize>,
    line_end_with_hyphens: memmem::Finder<'static>,
    preview: PreviewSource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Body {
        /// The current line's beginning is being collected, since it may be a delimiter.
        maybe_delimiter: bool,
    },
    DelimiterRest(Delimiter),
}

/// The beginning of a line.
#[derive(Clone, Copy, Debug, Default)]
struct LineStart {
    offset: u64,
    /// Line ends before it.
    lines: u64,
    /// The length of the line end before it, which belongs to a delimiter on this line (RFC 2046 §5.1.1); 0 when that
    /// line end is part of another header, of the header of this body, or of a delimiter.
    line_end: u64,
}

impl Splitter {
    /// A splitter before the first octet.
    pub fn new(limits: Limits) -> Self {
        Self {
            preview: PreviewSource::new(limits.preview_source_bytes),
            limits,
            open: vec![OpenPart::message()],
            parts: 1,
            kept: 0,
            offset: 0,
            lines: 0,
            last: 0,
            state: State::Header,
            line_start: LineStart::default(),
            line: Vec::new(),
            longest_boundary: None,
            line_end_with_hyphens: memmem::Finder::new(b"\n--"),
        }
    }

    /// The next octets of the message.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let used = match self.state {
                State::Header => self.header(rest),
                State::Body { maybe_delimiter: false } => self.body(rest),
                State::Body { maybe_delimiter: true } => self.line_beginning(rest),
                State::DelimiterRest(delimiter) => self.delimiter_rest(rest, delimiter),
            };
            rest = &rest[used..];
        }
    }

    /// There are no more octets.
    pub fn finish(mut self) -> Facts {
        let line = std::mem::take(&mut self.line);
        match self.state {
            State::Header => {
                if self.offset > self.line_start.offset {
                    let kept = line.len().min(self.limits.field_bytes_max);
                    self.header_line(&line[..kept], 0);
                }
                while self.state == State::Header {
                    self.end_header(self.offset, self.lines, 0);
                }
            }
            State::Body { maybe_delimiter: true } => match find_delimiter(&self.open, &line) {
                Some(delimiter) => self.end_parts(delimiter, self.line_start),
                None => self.preview.take(&line),
            },
            State::Body { .. } | State::DelimiterRest(_) => {}
        }
        self.close_above(0, self.offset, self.lines);
        let root = self.open.pop().unwrap_or_default();
        Facts::of_message(root, self.offset, self.lines, self.preview, &self.limits)
    }

    /// Octets are behind us.
    fn pass(&mut self, bytes: &[u8]) {
        self.offset += bytes.len() as u64;
        self.lines += memchr_iter(b'\n', bytes).count() as u64;
        if let Some(last) = bytes.last() {
            self.last = *last;
        }
    }

    /// A line begins here; `line_end` as in [`LineStart`].
    fn begin_line(&mut self, line_end: u64) {
        self.line_start = LineStart { offset: self.offset, lines: self.lines, line_end };
        self.line.clear();
    }

    // In a header: whole lines are collected, and looked at when they have ended.

    fn header(&mut self, bytes: &[u8]) -> usize {
        let found = memchr(b'\n', bytes);
        let text = &bytes[..found.unwrap_or(bytes.len())];
        let used = found.map_or(bytes.len(), |at| at + 1);
        let has_return = text.last().copied().unwrap_or(self.last) == b'\r';
        self.pass(&bytes[..used]);
        let bytes_max = self.limits.field_bytes_max;
        if !self.line.is_empty() || found.is_none() {
            // One more than is kept, for the carriage return.
            let room = (bytes_max + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&text[..text.len().min(room)]);
        }
        if found.is_none() {
            return used;
        }
        let line_end = if has_return { 2 } else { 1 };
        let length = (self.offset - self.line_start.offset - line_end).min(bytes_max as u64) as usize;
        if self.line.is_empty() {
            self.header_line(&text[..length], line_end);
        } else {
            let line = std::mem::take(&mut self.line);
            self.header_line(&line[..length], line_end);
            self.line = line;
            self.line.clear();
        }
        used
    }

    /// A header line without its line end, which has the length `line_end`. We stand behind it.
    fn header_line(&mut self, line: &[u8], line_end: u64) {
        if line.is_empty() {
            self.end_header(self.offset, self.lines, line_end);
            return;
        }
        if self.longest_boundary.is_some()
            && let Some(delimiter) = find_delimiter(&self.open, line)
        {
            // The header was cut off. The line end before the delimiter belongs to that.
            let start = self.line_start;
            while self.state == State::Header {
                self.end_header(start.offset - start.line_end, start.lines - start.line_end.min(1), 0);
            }
            self.end_parts(delimiter, start);
            return self.after_delimiter(delimiter);
        }
        if let Some(part) = self.open.last_mut() {
            part.header_line(line, &self.limits, &mut self.kept);
        }
        self.begin_line(line_end);
    }

    /// The header of the innermost part ends at `offset`, and its body begins there. The header's empty line, if it has
    /// one, has the length `empty_line`.
    fn end_header(&mut self, offset: u64, lines: u64, empty_line: u64) {
        let in_digest = self.open.len().checked_sub(2).is_some_and(|parent| self.open[parent].is_digest());
        let may_open = self.open.len() < self.limits.depth_max && self.parts < self.limits.parts_max;
        let Some(part) = self.open.last_mut() else { return };
        part.end_header(&self.limits, &mut self.kept);
        part.part.header.end = offset;
        part.part.body = offset..offset;
        part.lines_before = lines;
        part.empty_line = empty_line;
        let is_message = part.part.media.as_ref().map_or(in_digest, |media| media.is_message());
        let is_multipart =
            part.part.media.as_ref().is_some_and(|media| media.kind.eq_ignore_ascii_case("multipart"));
        self.state = State::Body { maybe_delimiter: false };
        if is_message && may_open {
            part.inside = Inside::Message(None);
            self.open_part(OpenPart::message(), offset);
        } else if is_multipart
            && may_open
            && part.part.media.as_ref().is_some_and(|media| !media.subtype.is_empty())
        {
            part.inside = Inside::Multipart(Vec::new());
            part.boundary = part.part.parameter("boundary").map(|boundary| {
                let boundary = boundary.as_bytes();
                boundary[..boundary.len().min(self.limits.boundary_bytes_max)].into()
            });
        } else {
            self.preview.begin(&part.part);
        }
        self.find_longest_boundary();
        self.begin_line(0);
        if self.state != State::Header {
            self.state = State::Body { maybe_delimiter: self.longest_boundary.is_some() };
        }
    }

    fn open_part(&mut self, mut part: OpenPart, offset: u64) {
        part.part.header = offset..offset;
        self.open.push(part);
        self.parts += 1;
        self.state = State::Header;
        self.begin_line(0);
    }

    // In a body: the next line that may be a delimiter is searched for, and its beginning collected.

    fn body(&mut self, bytes: &[u8]) -> usize {
        let mut used = bytes.len();
        let mut line_begins = false;
        if self.longest_boundary.is_some() {
            if let Some(at) = self.line_end_with_hyphens.find(bytes) {
                (used, line_begins) = (at + 1, true);
            } else if bytes.ends_with(b"\n") {
                line_begins = true;
            } else if bytes.ends_with(b"\n-") {
                (used, line_begins) = (bytes.len() - 1, true);
            }
        }
        let text = &bytes[..used];
        let before_last = if used > 1 { text[used - 2] } else { self.last };
        self.preview.take(text);
        self.pass(text);
        if line_begins {
            self.begin_line(if before_last == b'\r' { 2 } else { 1 });
            self.state = State::Body { maybe_delimiter: true };
        }
        used
    }

    fn line_beginning(&mut self, bytes: &[u8]) -> usize {
        if self.line.len() < 2 {
            if bytes[0] == b'-' {
                self.line.push(b'-');
                self.pass(b"-");
                return 1;
            }
            self.not_a_delimiter();
            return 0;
        }
        // Two hyphens, the boundary, and two hyphens that close it: what follows does not matter.
        let enough = self.longest_boundary.unwrap_or_default() + 4;
        let window = &bytes[..bytes.len().min(enough.saturating_sub(self.line.len()))];
        let line_end = memchr(b'\n', window);
        let used = line_end.map_or(window.len(), |at| at + 1);
        self.line.extend_from_slice(&window[..used]);
        self.pass(&window[..used]);
        if line_end.is_none() && self.line.len() < enough {
            return used;
        }
        match find_delimiter(&self.open, &self.line) {
            Some(delimiter) => {
                self.end_parts(delimiter, self.line_start);
                if line_end.is_some() {
                    self.after_delimiter(delimiter);
                } else {
                    self.state = State::DelimiterRest(delimiter);
                }
            }
            None => self.not_a_delimiter(),
        }
        used
    }

    /// The collected beginning of the line belongs to the body.
    fn not_a_delimiter(&mut self) {
        self.preview.take(&self.line);
        if let Some(text) = self.line.strip_suffix(b"\n") {
            let line_end = if text.last() == Some(&b'\r') { 2 } else { 1 };
            self.begin_line(line_end);
        } else {
            self.line.clear();
            self.state = State::Body { maybe_delimiter: false };
        }
    }

    fn delimiter_rest(&mut self, bytes: &[u8], delimiter: Delimiter) -> usize {
        let line_end = memchr(b'\n', bytes);
        let used = line_end.map_or(bytes.len(), |at| at + 1);
        self.pass(&bytes[..used]);
        if line_end.is_some() {
            self.after_delimiter(delimiter);
        }
        used
    }

    /// The line that begins at `start` is a delimiter: the parts inside its multipart end before it.
    fn end_parts(&mut self, delimiter: Delimiter, mut start: LineStart) {
        if delimiter.owner + 1 < self.open.len()
            && let Some(innermost) = self.open.last_mut()
        {
            // A header whose empty line is followed by a delimiter has no body, and no empty line either: that line
            // end belongs to the delimiter.
            start.line_end += innermost.give_back_empty_line(start.offset);
        }
        self.close_above(delimiter.owner, start.offset - start.line_end, start.lines - start.line_end.min(1));
        if delimiter.closing {
            self.open[delimiter.owner].boundary = None;
        }
        self.find_longest_boundary();
    }

    /// We stand behind the delimiter line.
    fn after_delimiter(&mut self, delimiter: Delimiter) {
        if delimiter.closing || self.parts >= self.limits.parts_max {
            self.begin_line(0);
            self.state = State::Body { maybe_delimiter: self.longest_boundary.is_some() };
        } else {
            self.open_part(OpenPart::body_part(), self.offset);
        }
    }

    /// Closes the open parts above an index in the stack; their bodies end at `end`.
    fn close_above(&mut self, index: usize, end: u64, lines: u64) {
        while self.open.len() > index + 1 {
            let Some(part) = self.open.pop() else { return };
            if matches!(part.inside, Inside::Leaf) {
                self.preview.end();
            }
            let (part, summary) = part.close(end, lines);
            if let Some(parent) = self.open.last_mut() {
                parent.adopt(part, summary);
            }
        }
    }

    fn find_longest_boundary(&mut self) {
        self.longest_boundary = self.open.iter().filter_map(|part| Some(part.boundary.as_ref()?.len())).max();
    }
}
