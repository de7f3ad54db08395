//! The lexical layer of structured header fields (RFC 5322 §3.2, RFC 2045 §5.1), forgiving.
//!
//! A step says whether something follows ([`Next::More`]), nothing does ([`Next::End`]), or the input is broken: the
//! parsers above decide what to make of that. Where RFC 5322 leaves the reading of broken fields open, ours is the one
//! that gives IMAP clients what Dovecot gives them, since their users compare.

/// What follows after a step that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// There is another octet.
    More,
    /// The input is used up.
    End,
}

/// The input cannot be read as what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

pub(crate) type Step = Result<Next, Broken>;

/// A position in an unfolded header value.
pub(crate) struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The content of the comment passed last; old mail puts names there.
    pub(crate) comment: Vec<u8>,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, comment: Vec::new() }
    }

    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn rewind(&mut self, position: usize) {
        self.at = position;
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(crate) fn advance(&mut self) {
        self.at += 1;
    }

    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at += 1;
        }
        found
    }

    fn next(&self) -> Next {
        if self.at < self.bytes.len() { Next::More } else { Next::End }
    }

    fn take_while(&mut self, accept: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| !accept(*byte)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// White space and comments. Broken: a comment without its end.
    pub(crate) fn skip_space(&mut self) -> Step {
        loop {
            self.take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
            if self.peek() != Some(b'(') {
                return Ok(self.next());
            }
            self.skip_comment()?;
        }
    }

    fn skip_comment(&mut self) -> Result<(), Broken> {
        self.comment.clear();
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            self.advance();
            match byte {
                b'(' => {
                    depth += 1;
                    if depth == 1 {
                        continue;
                    }
                }
                b')' => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                b'\\' => {
                    let quoted = self.peek().ok_or(Broken)?;
                    self.advance();
                    self.comment.push(quoted);
                    continue;
                }
                _ => {}
            }
            self.comment.push(byte);
        }
        self.comment.clear();
        Err(Broken)
    }

    /// An atom, and the space after it.
    pub(crate) fn atom(&mut self, out: &mut Vec<u8>) -> Step {
        let atom = self.take_while(is_atext);
        if atom.is_empty() {
            return Err(Broken);
        }
        out.extend_from_slice(atom);
        self.skip_space()
    }

    /// Atoms with dots between them. RFC 822 allowed white space around the dots, and it is dropped.
    pub(crate) fn dot_atom(&mut self, out: &mut Vec<u8>) -> Step {
        if !self.peek().is_some_and(is_atext) {
            return Err(Broken);
        }
        loop {
            out.extend_from_slice(self.take_while(is_atext));
            if self.next() == Next::End || self.skip_space()? == Next::End {
                return Ok(Next::End);
            }
            if !self.eat(b'.') {
                return Ok(Next::More);
            }
            out.push(b'.');
            self.skip_space()?;
            if !self.peek().is_some_and(is_atext) {
                return Err(Broken);
            }
        }
    }

    /// A token of MIME (may be empty), and the space after it. Dots belong to it.
    pub(crate) fn token(&mut self, out: &mut Vec<u8>) -> Step {
        out.extend_from_slice(self.take_while(is_token));
        self.skip_space()
    }

    /// A quoted string, unquoted, and the space after it. Broken: no closing quote; what was read stays in `out`.
    pub(crate) fn quoted_string(&mut self, out: &mut Vec<u8>) -> Step {
        self.advance();
        while let Some(byte) = self.peek() {
            self.advance();
            match byte {
                b'"' => return self.skip_space(),
                b'\\' => {
                    out.push(self.peek().ok_or(Broken)?);
                    self.advance();
                }
                b'\r' | b'\n' => {}
                byte => out.push(byte),
            }
        }
        Err(Broken)
    }

    /// Words with one space between them (RFC 5322 `phrase`, with the dots that real names have); may be empty.
    pub(crate) fn phrase(&mut self, out: &mut Vec<u8>) -> Step {
        match self.peek() {
            None => return Ok(Next::End),
            Some(b'.') => return Err(Broken),
            Some(_) => {}
        }
        loop {
            let next = if self.peek() == Some(b'"') {
                self.quoted_string(out)?
            } else {
                out.extend_from_slice(self.take_while(|byte| is_atext(byte) || byte == b'.'));
                self.skip_space()?
            };
            match self.peek() {
                _ if next == Next::End => return Ok(Next::End),
                Some(byte) if is_atext(byte) || matches!(byte, b'"' | b'.') => out.push(b' '),
                _ => return self.skip_space(),
            }
        }
    }

    /// The `@` and the domain after it, with the space that follows.
    pub(crate) fn at_domain(&mut self, out: &mut Vec<u8>) -> Step {
        self.advance();
        if self.skip_space()? == Next::End {
            return Err(Broken);
        }
        if self.peek() != Some(b'[') {
            return self.dot_atom(out);
        }
        while let Some(byte) = self.peek() {
            self.advance();
            out.push(byte);
            match byte {
                b']' => return self.skip_space(),
                b'\\' => {
                    out.push(self.peek().ok_or(Broken)?);
                    self.advance();
                }
                _ => {}
            }
        }
        Err(Broken)
    }
}

/// atext of RFC 5322 §3.2.3, and all octets above ASCII.
pub(crate) fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

/// token of RFC 2045 §5.1, and all octets above ASCII.
fn is_token(byte: u8) -> bool {
    (is_atext(byte) || byte == b'.') && !b"/?=".contains(&byte)
}
