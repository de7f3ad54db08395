//! The splitter: a message goes in, in pieces of any size; its facts come out.

use super::facts::Facts;
use super::limits::Limits;
use super::part::Part;

/// Finds the facts of a message in one pass.
///
/// It never fails: anything is a message. Memory is bounded by [`Limits`], whatever the message's size.
#[derive(Debug)]
pub struct Splitter {
    limits: Limits,
    size: u64,
    lines: u64,
}

impl Splitter {
    /// A splitter before the first octet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, size: 0, lines: 0 }
    }

    /// The next octets of the message. Where it is cut into pieces makes no difference.
    pub fn push(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
    }

    /// There are no more octets.
    pub fn finish(self) -> Facts {
        let structure = Part { body: 0..self.size, lines: self.lines, ..Part::default() };
        Facts { size: self.size, lines: self.lines, structure, ..Facts::default() }
    }

    /// The limits given.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}
