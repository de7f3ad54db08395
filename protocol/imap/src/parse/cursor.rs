//! The cursor: the tokens of RFC 9051 §9 over the bytes of one command.

use std::borrow::Cow;

use mail::flag::{FlagError, FlagSet};

use super::{Parsed, Refusal};
use crate::page::Page;
use crate::sequence::{Bound, SequenceSet};

/// A position in a command. Literals stand in the bytes as they came: `{3}`, CRLF, three octets.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

pub(super) fn is_atom_char(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && !matches!(byte, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']')
}

pub(super) fn is_astring_char(byte: u8) -> bool {
    is_atom_char(byte) || byte == b']'
}

pub(super) fn is_list_char(byte: u8) -> bool {
    is_astring_char(byte) || matches!(byte, b'%' | b'*')
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Steps over `byte` if it is next.
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub(crate) fn expect(&mut self, byte: u8) -> Parsed<()> {
        if self.eat(byte) {
            return Ok(());
        }
        let expected = byte as char;
        Err(match self.peek() {
            None | Some(b'\r' | b'\n') => {
                Refusal::bad(format!("Command ends where \"{expected}\" is expected"))
            }
            Some(_) => Refusal::bad(format!("Expected \"{expected}\"")),
        })
    }

    pub(crate) fn space(&mut self) -> Parsed<()> {
        if self.eat(b' ') {
            return Ok(());
        }
        Err(match self.peek() {
            None | Some(b'\r' | b'\n') => Refusal::bad("Missing argument"),
            Some(_) => Refusal::bad("Expected a space"),
        })
    }

    /// The CRLF that ends the command, and nothing behind it.
    pub(crate) fn line_end(&mut self) -> Parsed<()> {
        // A space before the end is let pass: several clients send one.
        self.eat(b' ');
        if self.rest() == b"\r\n" { Ok(()) } else { Err(Refusal::bad("Unexpected argument")) }
    }

    pub(crate) fn take_while(&mut self, accept: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let length = rest.iter().position(|&byte| !accept(byte)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// Steps over `keyword` if it is next, in any case, and not just the start of a longer atom.
    pub(crate) fn eat_keyword(&mut self, keyword: &[u8]) -> bool {
        let rest = self.rest();
        let found = rest.len() >= keyword.len()
            && rest[..keyword.len()].eq_ignore_ascii_case(keyword)
            && !rest.get(keyword.len()).is_some_and(|&byte| is_atom_char(byte));
        if found {
            self.at += keyword.len();
        }
        found
    }

    pub(crate) fn atom(&mut self) -> Parsed<&'a [u8]> {
        let atom = self.take_while(is_atom_char);
        if atom.is_empty() { Err(Refusal::bad("Expected an atom")) } else { Ok(atom) }
    }

    pub(crate) fn astring(&mut self) -> Parsed<Cow<'a, [u8]>> {
        self.string_or(is_astring_char)
    }

    /// `list-mailbox`: as an astring, with wildcards.
    pub(crate) fn list_mailbox(&mut self) -> Parsed<Cow<'a, [u8]>> {
        self.string_or(is_list_char)
    }

    fn string_or(&mut self, accept: impl Fn(u8) -> bool) -> Parsed<Cow<'a, [u8]>> {
        match self.peek() {
            Some(b'"' | b'{') => self.string(),
            _ => {
                let atom = self.take_while(accept);
                if atom.is_empty() { Err(Refusal::bad("Expected a string")) } else { Ok(Cow::Borrowed(atom)) }
            }
        }
    }

    pub(crate) fn nstring(&mut self) -> Parsed<Option<Cow<'a, [u8]>>> {
        if self.eat_keyword(b"NIL") { Ok(None) } else { self.string().map(Some) }
    }

    /// A quoted string or a literal. 8-bit characters are let pass in quotes, as UTF8=ACCEPT has them; whoever uses
    /// the text checks that it is UTF-8.
    pub(crate) fn string(&mut self) -> Parsed<Cow<'a, [u8]>> {
        if self.peek() == Some(b'{') {
            return self.literal().map(Cow::Borrowed);
        }
        self.expect(b'"')?;
        let start = self.at;
        let plain = self.take_while(|byte| !matches!(byte, b'"' | b'\\' | b'\r' | b'\n' | 0));
        if self.eat(b'"') {
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = self.bytes[start..self.at].to_vec();
        loop {
            if self.eat(b'"') {
                return Ok(Cow::Owned(text));
            }
            if self.eat(b'\\') {
                match self.peek() {
                    Some(escaped @ (b'"' | b'\\')) => text.push(escaped),
                    _ => return Err(Refusal::bad("Invalid escape in a quoted string")),
                }
                self.at += 1;
            } else {
                let run = self.take_while(|byte| !matches!(byte, b'"' | b'\\' | b'\r' | b'\n' | 0));
                if run.is_empty() {
                    return Err(Refusal::bad("Quoted string does not end"));
                }
                text.extend_from_slice(run);
            }
        }
    }

    /// A literal that the framing has already collected.
    fn literal(&mut self) -> Parsed<&'a [u8]> {
        self.expect(b'{')?;
        let length = self.number()?;
        self.eat(b'+');
        self.expect(b'}')?;
        // An answer names what is expected, and could not name a line end.
        let Some(rest) = self.rest().strip_prefix(b"\r\n") else {
            return Err(Refusal::bad("Literal not at the end of a line"));
        };
        self.at += 2;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(bytes) = rest.get(..length) else { return Err(Refusal::bad("Literal is cut off")) };
        if bytes.contains(&0) {
            return Err(Refusal::bad("Literal holds a NUL"));
        }
        self.at += length;
        Ok(bytes)
    }

    pub(crate) fn number(&mut self) -> Parsed<u64> {
        let digits = self.take_while(|byte| byte.is_ascii_digit());
        if digits.is_empty() {
            return Err(Refusal::bad("Expected a number"));
        }
        digits
            .iter()
            .try_fold(0_u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
            .filter(|&number| i64::try_from(number).is_ok())
            .ok_or(Refusal::bad("Number is too large"))
    }

    pub(crate) fn number_u32(&mut self) -> Parsed<u32> {
        u32::try_from(self.number()?).map_err(|_| Refusal::bad("Number is too large"))
    }

    pub(crate) fn number_nonzero(&mut self) -> Parsed<u32> {
        match self.number_u32()? {
            0 => Err(Refusal::bad("Zero is not allowed here")),
            number => Ok(number),
        }
    }

    pub(crate) fn sequence_set(&mut self) -> Parsed<SequenceSet> {
        if self.eat(b'$') {
            return Ok(SequenceSet::Saved);
        }
        let mut ranges = Vec::new();
        loop {
            let from = self.bound()?;
            let to = if self.eat(b':') { self.bound()? } else { from };
            ranges.push((from, to));
            if !self.eat(b',') {
                return Ok(SequenceSet::Ranges(ranges));
            }
        }
    }

    /// `partial-range` (RFC 9394 §4): two numbers, both counted from the first result or both from the last.
    pub(crate) fn page(&mut self) -> Parsed<Page> {
        let is_from_end = self.eat(b'-');
        let from = self.number_nonzero()?;
        self.expect(b':')?;
        if self.eat(b'-') != is_from_end {
            return Err(Refusal::bad("A page is counted from one end"));
        }
        let to = self.number_nonzero()?;
        Ok(if is_from_end { Page::last(from, to) } else { Page::first(from, to) })
    }

    fn bound(&mut self) -> Parsed<Bound> {
        if self.eat(b'*') {
            return Ok(Bound::Star);
        }
        let number = self.number_nonzero().map_err(|_| Refusal::bad("Invalid message set"))?;
        Ok(Bound::Number(number))
    }

    /// `(\Seen $Label …)`.
    pub(crate) fn flag_list(&mut self) -> Parsed<FlagSet> {
        self.expect(b'(')?;
        let mut flags = FlagSet::new();
        let mut first = true;
        while !self.eat(b')') {
            if !first {
                self.space()?;
            }
            first = false;
            self.flag(&mut flags)?;
        }
        Ok(flags)
    }

    pub(crate) fn flag(&mut self, flags: &mut FlagSet) -> Parsed<()> {
        let start = self.rest();
        let system = usize::from(self.eat(b'\\'));
        let length = self.atom()?.len();
        let name = String::from_utf8_lossy(&start[..system + length]);
        flags.insert_name(&name).map_err(|error| match error {
            FlagError::KeywordTooLong => Refusal::no("[LIMIT] Keyword is too long"),
            _ => Refusal::bad("Invalid flag"),
        })
    }
}

/// A literal announced at the end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LiteralMark {
    /// The number of octets announced.
    pub(crate) size: u64,
    /// `{n+}`: the client does not wait for the continuation (RFC 7888).
    pub(crate) non_synchronizing: bool,
    /// `~{n}`: may hold NUL (RFC 3516).
    pub(crate) binary: bool,
    /// Where the mark starts in the line.
    pub(crate) start: usize,
}

/// Digits that a number of 64 bits has at most.
const DIGITS_MAX: usize = 20;

/// Finds `{n}` before the CRLF that ends `line`. A number too large for 64 bits counts as the largest.
pub(crate) fn literal_at_end(line: &[u8]) -> Option<LiteralMark> {
    let text = line.strip_suffix(b"}\r\n")?;
    let (text, non_synchronizing) = match text.strip_suffix(b"+") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let digits = text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (head, number) = text.split_at(text.len() - digits);
    // More digits than 64 bits need are no literal: a refused line is judged by its last octets alone, and both views
    // must agree, or octets of the literal would be taken for commands.
    if digits == 0 || digits > DIGITS_MAX || !head.ends_with(b"{") {
        return None;
    }
    let size = number
        .iter()
        .try_fold(0_u64, |size, digit| size.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .unwrap_or(u64::MAX);
    let binary = head.ends_with(b"~{");
    Some(LiteralMark { size, non_synchronizing, binary, start: head.len() - 1 - usize::from(binary) })
}
