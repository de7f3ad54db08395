//! A small client machine, for tests and tools: it frames responses and says which are whose. It collects literals
//! whole, so it is no base for a mail reader.

use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use machine::{Machine, Step};

use crate::parse::literal_at_end;

/// A response with its literals, as it came, CRLF included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Begins with `*`; the greeting is the first.
    Untagged(Bytes),
    /// Begins with `+`.
    Continue(Bytes),
    /// Begins with a tag.
    Tagged(Bytes),
}

impl Event {
    /// The response's bytes.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Untagged(bytes) | Self::Continue(bytes) | Self::Tagged(bytes) => bytes,
        }
    }
}

/// The machine.
#[derive(Debug, Default)]
pub struct Client {
    buffer: BytesMut,
    line_start: usize,
    out: BytesMut,
    ended: bool,
    start_tls: bool,
}

impl Client {
    /// A client that expects the greeting.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.out.put_slice(bytes);
    }

    /// Begins the TLS handshake, after the OK to STARTTLS. Nothing may be waiting to be sent.
    pub fn start_tls(&mut self) {
        self.start_tls = true;
    }
}

impl Machine for Client {
    type Event = Event;

    fn input(&mut self, bytes: &[u8], _now: Instant) {
        self.buffer.put_slice(bytes);
    }

    fn end_of_input(&mut self, _now: Instant) {
        self.ended = true;
    }

    fn next(&mut self, _now: Instant) -> Step<Event> {
        // What was sent after `start_tls` goes encrypted.
        if std::mem::take(&mut self.start_tls) {
            return Step::StartTls;
        }
        if !self.out.is_empty() {
            return Step::Write(std::mem::take(&mut self.out).freeze());
        }
        while self.line_start < self.buffer.len() {
            let Some(end) = memchr::memchr(b'\n', &self.buffer[self.line_start..]) else { break };
            let line_end = self.line_start + end + 1;
            if let Some(mark) = literal_at_end(&self.buffer[self.line_start..line_end]) {
                let Some(size) = usize::try_from(mark.size).ok().and_then(|size| line_end.checked_add(size))
                else {
                    return Step::Close;
                };
                self.line_start = size;
                continue;
            }
            self.line_start = 0;
            let response = self.buffer.split_to(line_end).freeze();
            return Step::Event(match response.first() {
                Some(b'*') => Event::Untagged(response),
                Some(b'+') => Event::Continue(response),
                _ => Event::Tagged(response),
            });
        }
        if self.ended { Step::Close } else { Step::Wait { until: None } }
    }

    fn tls_started(&mut self, _now: Instant) {
        self.buffer.clear();
        self.line_start = 0;
    }
}
