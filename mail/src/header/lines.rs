//! Header lines into header fields, one physical line at a time.

/// A header field: its name, and its value without folding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Field {
    /// The name as written; empty for a line without a colon.
    pub(crate) name: Vec<u8>,
    /// The value: line ends removed, the white space after the colon skipped.
    pub(crate) value: Vec<u8>,
}

/// Longest field name; a line whose first colon comes later has none (RFC 5322 §2.1.1 bounds the whole line at 998).
const NAME_BYTES_MAX: usize = 1000;

/// Joins the lines of a header into fields (RFC 5322 §2.2.3) while they come.
#[derive(Debug, Default)]
pub(crate) struct FieldJoiner {
    current: Option<Field>,
    wanted: bool,
}

impl FieldJoiner {
    /// The next line, without its line end; empty lines do not come here. Gives the field that ended before it.
    ///
    /// Fields whose name is not `wanted` are passed over without keeping them; of the others `bytes_max` octets are.
    pub(crate) fn line(
        &mut self,
        line: &[u8],
        bytes_max: usize,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Option<Field> {
        if matches!(line.first(), Some(b' ' | b'\t'))
            && let Some(field) = &mut self.current
        {
            if self.wanted {
                let room = bytes_max.saturating_sub(field.value.len());
                field.value.extend_from_slice(&line[..line.len().min(room)]);
            }
            return None;
        }
        let (name, value) = split_field(line);
        let ended = self.take();
        self.wanted = wanted(name);
        let mut field = Field::default();
        if self.wanted {
            field.name = name.to_vec();
            field.value = value[..value.len().min(bytes_max)].to_vec();
        }
        self.current = Some(field);
        ended
    }

    /// The header has ended; gives its last field.
    pub(crate) fn take(&mut self) -> Option<Field> {
        let field = self.current.take();
        if self.wanted { field } else { None }
    }
}

/// Name and value of the first line of a field. White space before the colon is dropped (RFC 5322 §4.5 had it); white
/// space after it too, but for all but one of it when nothing else follows.
pub(crate) fn split_field(line: &[u8]) -> (&[u8], &[u8]) {
    let Some(colon) = memchr::memchr(b':', &line[..line.len().min(2 * NAME_BYTES_MAX)]) else {
        return (b"", line);
    };
    let name = line[..colon].trim_ascii_end();
    if name.len() > NAME_BYTES_MAX {
        return (b"", line);
    }
    let value = &line[colon + 1..];
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start =
        value.iter().position(|byte| !blank(byte)).unwrap_or(usize::from(value.first().is_some_and(blank)));
    (name, &value[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(header: &str) -> Vec<(String, String)> {
        let mut joiner = FieldJoiner::default();
        let mut fields = Vec::new();
        for line in header.split('\n') {
            fields.extend(joiner.line(line.as_bytes(), 20, |name| name != b"X"));
        }
        fields.extend(joiner.take());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        fields.into_iter().map(|field| (text(field.name), text(field.value))).collect()
    }

    #[test]
    fn folding_rfc5322_2_2_3() {
        let check = |header: &str, expected: &[(&str, &str)]| {
            let expected: Vec<(String, String)> =
                expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            assert_eq!(fields(header), expected, "{header}");
        };
        check("A: b", &[("A", "b")]);
        check("A:b\n c\n\td\nE:  f", &[("A", "b c\td"), ("E", "f")]);
        check("A : b", &[("A", "b")]);
        check("A:   ", &[("A", "  ")]);
        check("A:\n b", &[("A", " b")]);
        check("X: gone\n gone\nB: c", &[("B", "c")]);
        check("no colon\n more\nB: c", &[("", "no colon more"), ("B", "c")]);
        check(" leading: a\n b\nB: c", &[(" leading", "a b"), ("B", "c")]);
        check("A: 12345678901234567890123\n456", &[("A", "12345678901234567890"), ("", "456")]);
        check("A: 1\n 345678901234567890123\n 4", &[("A", "1 345678901234567890")]);
    }
}
