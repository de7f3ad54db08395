//! The fields of a header as it streams by, unfolded and bounded.

/// Octets of a field that are looked at as one. What is longer comes in several pieces under the same name.
pub const FIELD_BYTES_MAX: usize = 64 * 1024;

/// Takes a header in pieces and gives its fields.
#[derive(Debug, Default)]
pub struct Fields {
    line: Vec<u8>,
    /// The name of a field whose beginning was given already.
    name: Vec<u8>,
}

impl Fields {
    /// Takes some octets; calls `field` with the name and the unfolded raw value of each field that is complete.
    pub fn push(&mut self, bytes: &[u8], field: &mut impl FnMut(&[u8], &[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            // A line that does not begin with a space ends the field before it.
            if self.line.ends_with(b"\n") && !matches!(piece.first(), Some(b' ' | b'\t')) {
                self.give(field);
                self.name.clear();
            }
            self.line.extend_from_slice(piece);
            if self.line.len() >= FIELD_BYTES_MAX {
                self.give(field);
            }
        }
    }

    /// There is no more.
    pub fn finish(mut self, field: &mut impl FnMut(&[u8], &[u8])) {
        self.give(field);
    }

    fn give(&mut self, field: &mut impl FnMut(&[u8], &[u8])) {
        let mut line = std::mem::take(&mut self.line);
        // Unfolding (RFC 5322 §2.2.3) takes the line ends and leaves the space behind them.
        line.retain(|byte| !matches!(byte, b'\r' | b'\n'));
        if self.name.is_empty() {
            let Some(colon) = memchr::memchr(b':', &line) else { return };
            self.name = line[..colon].trim_ascii_end().to_vec();
            line.drain(..=colon);
        }
        field(&self.name, line.trim_ascii());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_unfolded() {
        let header = b"From: a\r\nSubject : one\r\n two\r\n\tthree\r\nbroken line\r\nX:\r\n\r\n";
        for piece in [header.len(), 1, 5] {
            let mut seen = Vec::new();
            let mut field = |name: &[u8], value: &[u8]| {
                seen.push(format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
            };
            let mut fields = Fields::default();
            for bytes in header.chunks(piece) {
                fields.push(bytes, &mut field);
            }
            fields.finish(&mut field);
            assert_eq!(seen, ["From=a", "Subject=one two\tthree", "X="], "in pieces of {piece}");
        }
    }

    #[test]
    fn long_fields_come_in_pieces() {
        let mut count = 0;
        let mut longest = 0;
        let mut field = |name: &[u8], value: &[u8]| {
            assert_eq!(name, b"X");
            count += 1;
            longest = longest.max(value.len());
        };
        let mut fields = Fields::default();
        fields.push(b"X: ", &mut field);
        for _ in 0..1000 {
            fields.push(&[b'y'; 1000], &mut field);
        }
        fields.finish(&mut field);
        assert!(count > 10 && longest < 70_000);
    }
}
