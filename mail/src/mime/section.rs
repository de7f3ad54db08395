//! Sections of a message by number: `BODY[1.2.MIME]` is a byte range (RFC 9051 §6.4.5.1).

use std::ops::Range;

use super::part::{Kind, Part};

/// Which octets of a message a client asks for. Selections of header fields are taken from [`SectionText::Header`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Section {
    /// Part numbers, counting from 1; empty for the message itself.
    pub numbers: Vec<u32>,
    /// Which octets of that part.
    pub text: SectionText,
}

/// The last word of a section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SectionText {
    /// The whole: all of the message, or the body of a part.
    #[default]
    Whole,
    /// The header of the message, or of the message in a `message/rfc822` part.
    Header,
    /// The body of such a message.
    Text,
    /// The header of a part.
    Mime,
}

impl Section {
    /// Reads `1.2.MIME`, `HEADER`, `` and the like.
    pub fn parse(text: &str) -> Option<Self> {
        let mut section = Self::default();
        let mut words = text.split('.').filter(|_| !text.is_empty());
        for word in words.by_ref() {
            if word.bytes().all(|byte| byte.is_ascii_digit()) {
                section.numbers.push(word.parse().ok().filter(|number| *number > 0)?);
                continue;
            }
            section.text = match word.to_ascii_uppercase().as_str() {
                "HEADER" => SectionText::Header,
                "TEXT" => SectionText::Text,
                "MIME" if !section.numbers.is_empty() => SectionText::Mime,
                _ => return None,
            };
            break;
        }
        words.next().is_none().then_some(section)
    }
}

impl Part {
    /// The octets of a section, when this is the structure of the whole message; `None` when there is no such part.
    pub fn section(&self, section: &Section) -> Option<Range<u64>> {
        let Some((first, numbers)) = section.numbers.split_first() else {
            return match section.text {
                SectionText::Whole => Some(self.header.start..self.body.end),
                SectionText::Header => Some(self.header.clone()),
                SectionText::Text => Some(self.body.clone()),
                SectionText::Mime => None,
            };
        };
        if self.is_stand_in(&section.numbers) {
            return self.stand_in(section.text);
        }
        let mut part = self.numbered(*first)?;
        for (at, number) in numbers.iter().enumerate() {
            let inside = match &part.kind {
                Kind::Leaf => return None,
                Kind::Multipart(_) => part,
                Kind::Message(message) => &message.part,
            };
            if inside.is_stand_in(&numbers[at..]) {
                return inside.stand_in(section.text);
            }
            part = inside.numbered(*number)?;
        }
        match (section.text, &part.kind) {
            (SectionText::Whole, _) => Some(part.body.clone()),
            (SectionText::Mime, _) => Some(part.header.clone()),
            (SectionText::Header, Kind::Message(message)) => Some(message.part.header.clone()),
            (SectionText::Text, Kind::Message(message)) => Some(message.part.body.clone()),
            (SectionText::Header | SectionText::Text, _) => None,
        }
    }

    /// Whether these numbers name the empty part that BODYSTRUCTURE tells of in a multipart without any, since
    /// its grammar wants one (RFC 9051 §9, `body-type-mpart`).
    fn is_stand_in(&self, numbers: &[u32]) -> bool {
        numbers == [1] && matches!(&self.kind, Kind::Multipart(parts) if parts.is_empty())
    }

    /// That part has no octets.
    fn stand_in(&self, text: SectionText) -> Option<Range<u64>> {
        matches!(text, SectionText::Whole | SectionText::Mime).then_some(self.body.start..self.body.start)
    }

    /// [`Part::section`] by its text: `1.2.MIME`.
    pub fn find(&self, section: &str) -> Option<Range<u64>> {
        self.section(&Section::parse(section)?)
    }

    /// The part of this number in a message; a message without parts is its own part 1.
    fn numbered(&self, number: u32) -> Option<&Self> {
        match &self.kind {
            Kind::Multipart(parts) => parts.get(number as usize - 1),
            _ => (number == 1).then_some(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mime::{Limits, Splitter};

    #[test]
    fn texts_rfc9051_6_4_5_1() {
        let check = |text: &str, expected: Option<(&[u32], SectionText)>| {
            let expected = expected.map(|(numbers, text)| Section { numbers: numbers.to_vec(), text });
            assert_eq!(Section::parse(text), expected, "{text}");
        };
        check("", Some((&[], SectionText::Whole)));
        check("1", Some((&[1], SectionText::Whole)));
        check("header", Some((&[], SectionText::Header)));
        check("4.2.2.MIME", Some((&[4, 2, 2], SectionText::Mime)));
        check("4.1.TEXT", Some((&[4, 1], SectionText::Text)));
        for bad in ["MIME", "0", "1.", ".1", "1..2", "TEXT.1", "x", "99999999999"] {
            check(bad, None);
        }
    }

    /// The example of RFC 9051 §6.4.5.1, shortened.
    #[test]
    fn ranges_of_nested_parts() {
        let text = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n\
            --a\r\n\r\none\r\n\
            --a\r\nContent-Type: application/x\r\n\r\ntwo\r\n\
            --a\r\nContent-Type: message/rfc822\r\n\r\n\
            Subject: 3\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
            --b\r\n\r\nthree-one\r\n--b\r\nContent-Type: text/x\r\n\r\nthree-two\r\n--b--\r\n\r\n\
            --a\r\nContent-Type: message/rfc822\r\n\r\nSubject: 4\r\n\r\nfour\r\n\
            --a--\r\n";
        let mut splitter = Splitter::new(Limits::default());
        splitter.push(text.as_bytes());
        let structure = splitter.finish().structure;
        let check = |section: &str, expected: Option<&str>| {
            let got = structure.find(section).map(|range| &text[range.start as usize..range.end as usize]);
            assert_eq!(got, expected, "{section}");
        };
        check("", Some(text));
        check("1", Some("one"));
        check("1.MIME", Some("\r\n"));
        check("1.HEADER", None);
        check("2", Some("two"));
        check("2.MIME", Some("Content-Type: application/x\r\n\r\n"));
        check(
            "3.HEADER",
            Some("Subject: 3\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"),
        );
        check(
            "3.TEXT",
            Some("--b\r\n\r\nthree-one\r\n--b\r\nContent-Type: text/x\r\n\r\nthree-two\r\n--b--\r\n"),
        );
        check("3.1", Some("three-one"));
        check("3.2", Some("three-two"));
        check("3.2.MIME", Some("Content-Type: text/x\r\n\r\n"));
        check("3.3", None);
        check("4", Some("Subject: 4\r\n\r\nfour"));
        check("4.1", Some("four"));
        check("4.1.MIME", Some("Subject: 4\r\n\r\n"));
        check("4.2", None);
        check("1.1", None);
        check("5", None);
    }

    /// BODYSTRUCTURE tells of one empty part, so that is what its sections are.
    #[test]
    fn a_multipart_without_parts_rfc9051_9() {
        let empty = "Content-Type: multipart/mixed; boundary=a\r\n\r\nno delimiter\r\n";
        let nested = format!(
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b\r\n{empty}\r\n--b--\r\n"
        );
        for (text, at) in [(empty, ""), (&nested, "2.")] {
            let mut splitter = Splitter::new(Limits::default());
            splitter.push(text.as_bytes());
            let structure = splitter.finish().structure;
            for (section, length) in
                [("1", Some(0)), ("1.MIME", Some(0)), ("1.TEXT", None), ("1.1", None), ("2", None)]
            {
                let found = structure.find(&format!("{at}{section}")).map(|range| range.end - range.start);
                assert_eq!(found, length, "{at}{section}");
            }
        }
    }
}
