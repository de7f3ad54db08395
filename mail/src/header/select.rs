//! Fields of a header by name: `BODY[HEADER.FIELDS (…)]` and `BODY[HEADER.FIELDS.NOT (…)]` (RFC 9051 §6.4.5.1).

use super::lines::split_field;

/// Selects fields of a header while its octets pass; the fields come out as they stood, folding and all.
#[derive(Debug)]
pub struct FieldSelector {
    names: Vec<Vec<u8>>,
    keep: Keep,
    /// The beginning of a line whose field is not known yet.
    line: Vec<u8>,
    state: State,
}

/// Which fields come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Those named.
    Named,
    /// All others.
    Others,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the beginning of a line, or in its name.
    Name,
    /// Behind the name.
    Value,
    /// At the beginning of a line that may go on with the field before.
    Fold,
    /// Behind the empty line.
    Done,
}

/// Longest name looked at; what is longer is no name.
const NAME_BYTES_MAX: usize = 1000;

impl FieldSelector {
    /// A selector before the first octet of a header. Names match in any case.
    pub fn new<N: AsRef<[u8]>>(names: impl IntoIterator<Item = N>, keep: Keep) -> Self {
        let names = names.into_iter().map(|name| name.as_ref().to_vec()).collect();
        Self { names, keep, line: Vec::new(), state: State::Name }
    }

    /// The next octets of the header; what is selected is appended to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        let mut taken = self.taken();
        while let Some(first) = rest.first() {
            match self.state {
                State::Done => return,
                State::Fold if matches!(first, b' ' | b'\t') => self.state = State::Value,
                State::Fold => {
                    self.line.clear();
                    self.state = State::Name;
                }
                State::Name => {
                    let end = rest.iter().position(|byte| matches!(byte, b':' | b'\n'));
                    let used = end.map_or(rest.len(), |at| at + 1);
                    let room = NAME_BYTES_MAX.saturating_sub(self.line.len());
                    self.line.extend_from_slice(&rest[..used.min(room)]);
                    let complete = end.is_some() || used >= room;
                    rest = &rest[used.min(room.max(1))..];
                    if complete {
                        self.name_complete();
                        taken = self.taken();
                        if taken {
                            out.extend_from_slice(&self.line);
                        }
                    }
                }
                State::Value => {
                    let used = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
                    if taken {
                        out.extend_from_slice(&rest[..used]);
                    }
                    if rest[used - 1] == b'\n' {
                        self.state = State::Fold;
                    }
                    rest = &rest[used..];
                }
            }
        }
    }

    /// There are no more octets. The empty line is appended, whether or not anything was selected; but not to a header
    /// that broke off within a line and so has none to include.
    pub fn finish(self, out: &mut Vec<u8>) {
        // After a broken off field this is its line end, else the empty line.
        out.extend_from_slice(b"\r\n");
    }

    fn name_complete(&mut self) {
        self.state = match &self.line[..] {
            b"\r\n" | b"\n" => {
                self.line.clear();
                State::Done
            }
            line if line.ends_with(b"\n") => State::Fold,
            _ => State::Value,
        };
    }

    /// Whether the current field is selected. A line without a colon has no name and is never selected.
    fn taken(&self) -> bool {
        let (name, _) = split_field(&self.line);
        let named = self.names.iter().any(|known| name.eq_ignore_ascii_case(known));
        !name.is_empty() && named == (self.keep == Keep::Named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, names: &[&str], keep: Keep, expected: &str) {
        for cut in 0..=header.len() {
            let mut selector = FieldSelector::new(names, keep);
            let mut out = Vec::new();
            selector.push(&header.as_bytes()[..cut], &mut out);
            selector.push(&header.as_bytes()[cut..], &mut out);
            selector.finish(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{header:?} cut at {cut}");
        }
    }

    #[test]
    fn fields_rfc9051_6_4_5_1() {
        let header = "From: a\r\nTo: b\r\n c\r\nfrom : d\r\nbroken\r\n line\r\nSubject: s\r\n\r\nTo: body";
        check(header, &["FROM", "Subject"], Keep::Named, "From: a\r\nfrom : d\r\nSubject: s\r\n\r\n");
        check(header, &["FROM", "Subject"], Keep::Others, "To: b\r\n c\r\n\r\n");
        check(header, &["X"], Keep::Named, "\r\n");
        check("", &["X"], Keep::Named, "\r\n");
        check("To: b\r\n", &["To"], Keep::Named, "To: b\r\n\r\n");
        check("To: b", &["To"], Keep::Named, "To: b\r\n");
        check("To", &["To"], Keep::Named, "\r\n");
        check("\r\n", &["To"], Keep::Named, "\r\n");
    }

    #[test]
    fn endless_names_are_no_names() {
        let line = format!("{}: x\r\nTo: b\r\n\r\n", "n".repeat(3000));
        check(&line, &["To"], Keep::Named, "To: b\r\n\r\n");
    }
}
