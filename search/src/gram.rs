//! Grams: three characters in succession of folded text. A text that holds a needle holds all its grams, so what lacks
//! one need not be looked at.

use mail::fold::{fold, fold_into};

use crate::text::is_dense;

/// The gram that every document has of which not all was looked at: a candidate whatever is asked.
pub const PARTIAL: u64 = 0;

/// Where in a message a gram was.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Section {
    /// Some field of the message, or of the header of a part.
    Header = 1,
    /// A text part, or a field of a message within.
    Body = 2,
    /// The value of a Subject field.
    Subject = 3,
    /// From.
    From = 4,
    /// To.
    To = 5,
    /// Cc.
    Cc = 6,
    /// Bcc.
    Bcc = 7,
}

impl Section {
    /// The section that has the values of this field alone.
    pub fn of_field(name: &[u8]) -> Option<Self> {
        let named = [
            ("Subject", Self::Subject),
            ("From", Self::From),
            ("To", Self::To),
            ("Cc", Self::Cc),
            ("Bcc", Self::Bcc),
        ];
        named
            .into_iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()))
            .map(|(_, section)| section)
    }
}

/// What a search looks for, as IMAP's text keys mean it (RFC 9051 §6.4.4).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Needle {
    /// Where it has to be.
    pub place: Place,
    /// What it is, as it was asked for.
    pub text: String,
}

/// Where a needle has to be.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// Anywhere: TEXT.
    Anywhere,
    /// In the body: BODY.
    Body,
    /// In a field of this name: HEADER, SUBJECT, FROM…
    Field(String),
}

impl Needle {
    /// The grams that a message which holds the needle has: all of one of the lists. `None`: any message may hold it.
    /// No list has more than `max`.
    pub fn grams(&self, max: usize) -> Option<Vec<Vec<u64>>> {
        let text = fold(&self.text);
        let of = |section: Section, text: &str| {
            let mut codes = Vec::new();
            Window::new(section).push(text, |code| codes.push(code));
            codes.sort_unstable();
            codes.dedup();
            thinned(codes, max)
        };
        let lists = match &self.place {
            Place::Anywhere => vec![of(Section::Header, &text), of(Section::Body, &text)],
            Place::Body => vec![of(Section::Body, &text)],
            Place::Field(name) => match Section::of_field(name.as_bytes()) {
                Some(section) => vec![of(section, &text)],
                None => {
                    // That the field is there at all is asked with its name.
                    let mut codes = of(Section::Header, &fold(name));
                    codes.extend(of(Section::Header, &text));
                    vec![thinned(codes, max)]
                }
            },
        };
        // A list without any holds for every message.
        (!lists.iter().any(Vec::is_empty)).then_some(lists)
    }
}

/// At most `max` of the codes, from all over.
fn thinned(codes: Vec<u64>, max: usize) -> Vec<u64> {
    if codes.len() <= max {
        return codes;
    }
    (0..max).map(|at| codes[at * codes.len() / max]).collect()
}

/// The grams of a text that comes in pieces.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    section: u64,
    before: [Option<char>; 2],
}

impl Window {
    /// A text begins in this section.
    pub fn new(section: Section) -> Self {
        Self { section: (section as u64) << 60, before: [None; 2] }
    }

    /// Takes the next piece, folded.
    pub fn push(&mut self, folded: &str, mut each: impl FnMut(u64)) {
        let twenty = |character: char| u64::from(character) & 0xf_ffff;
        for character in folded.chars() {
            if let Some(second) = self.before[1] {
                let pair = self.section | twenty(second) << 20 | twenty(character);
                if let Some(first) = self.before[0] {
                    each(pair | twenty(first) << 40);
                }
                if is_dense(second) && is_dense(character) {
                    each(pair);
                }
            }
            self.before = [self.before[1], Some(character)];
        }
    }
}

/// Collects the grams of a message, each once.
#[derive(Debug)]
pub struct Grams {
    codes: Vec<u64>,
    /// How many of them are sorted and different.
    settled: usize,
    max: usize,
    is_partial: bool,
    folded: String,
}

/// Codes that are collected before doubles are taken out.
const UNSETTLED_MAX: usize = 16 * 1024;

impl Grams {
    /// No grams yet, and never more than `max`.
    pub fn new(max: usize) -> Self {
        Self { codes: Vec::new(), settled: 0, max, is_partial: false, folded: String::new() }
    }

    /// A whole text.
    pub fn text(&mut self, section: Section, text: &str) {
        self.piece(&mut Window::new(section), text);
    }

    /// A piece of a text, not folded yet.
    pub fn piece(&mut self, window: &mut Window, text: &str) {
        if self.codes.len() > self.max + UNSETTLED_MAX {
            return;
        }
        let mut folded = std::mem::take(&mut self.folded);
        folded.clear();
        fold_into(text, &mut folded);
        window.push(&folded, |code| self.codes.push(code));
        self.folded = folded;
        if self.codes.len() - self.settled > UNSETTLED_MAX.max(self.settled) {
            self.settle();
        }
    }

    /// Not all is looked at.
    pub fn set_partial(&mut self) {
        self.is_partial = true;
    }

    /// Whether not all is looked at.
    pub fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// The grams, ascending.
    pub fn finish(mut self) -> Vec<u64> {
        self.settle();
        if self.is_partial {
            self.codes.insert(0, PARTIAL);
        }
        self.codes
    }

    fn settle(&mut self) {
        self.codes.sort_unstable();
        self.codes.dedup();
        if self.codes.len() > self.max {
            self.is_partial = true;
            self.codes.truncate(self.max);
        }
        self.settled = self.codes.len();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn may_hold(grams: &[u64], needle: &Needle) -> bool {
        let Some(lists) = needle.grams(16) else { return true };
        grams.first() == Some(&PARTIAL)
            || lists.iter().any(|list| list.iter().all(|code| grams.binary_search(code).is_ok()))
    }

    fn of(section: Section, text: &str, max: usize) -> Vec<u64> {
        let mut grams = Grams::new(max);
        let mut window = Window::new(section);
        let middle = text.floor_char_boundary(text.len() / 2);
        grams.piece(&mut window, &text[..middle]);
        grams.piece(&mut window, &text[middle..]);
        grams.finish()
    }

    #[test]
    fn what_lacks_a_gram_is_no_candidate() {
        let check = |text: &str, needle: &str, expected: bool| {
            let grams = of(Section::Body, text, 1000);
            for place in [Place::Anywhere, Place::Body] {
                let needle = Needle { place, text: needle.to_owned() };
                assert_eq!(may_hold(&grams, &needle), expected, "{needle:?} in {text}");
            }
        };
        check("a beautiful world", "EAUTIFUL WORL", true);
        check("a beautiful world", "beautyful", false);
        check("GRÜSSE", "grüss", true);
        check("日本語", "本語", true);
        check("日本語", "日語", false);
        check("日本語", "日", true);
        check("한국어", "국어", true);
        check("anything", "xy", true);
    }

    #[test]
    fn fields_have_sections_of_their_own() {
        let mut grams = Grams::new(1000);
        for section in [Section::Header, Section::Subject] {
            grams.text(section, "the report");
        }
        grams.text(Section::Header, "X-Mailer");
        grams.text(Section::Header, "pine apple");
        let grams = grams.finish();
        let check = |name: &str, text: &str, expected: bool| {
            let needle = Needle { place: Place::Field(name.to_owned()), text: text.to_owned() };
            assert_eq!(may_hold(&grams, &needle), expected, "{needle:?}");
        };
        check("SUBJECT", "report", true);
        check("From", "report", false);
        check("Subject", "pine", false);
        check("x-mailer", "pine", true);
        check("x-mailer", "", true);
        check("x-other", "", false);
        check("Subject", "", true);
    }

    #[test]
    fn too_many_grams_make_a_candidate() {
        let text: String = (0..20_000_u32).filter_map(|n| char::from_u32(0x4e00 + n * 7 % 20_000)).collect();
        let grams = of(Section::Body, &text, 100);
        assert!(grams.len() == 101 && grams[0] == PARTIAL);
    }

    proptest! {
        /// What IMAP's rule finds is a candidate, wherever the text was cut and in whatever case it is asked for.
        #[test]
        fn needles_of_a_text_are_candidates(
            text in "[\\PCaAßéé日本語한국ไทยﬁ\u{308}İς ]{0,60}",
            from in 0_usize..60,
            length in 1_usize..30,
            upper in any::<bool>(),
            max in 1_usize..200,
        ) {
            let characters: Vec<char> = text.chars().collect();
            let piece: String = characters.iter().skip(from).take(length).collect();
            let piece = if upper { piece.to_uppercase() } else { piece };
            if fold(&text).contains(&fold(&piece)) {
                let needle = Needle { place: Place::Body, text: piece };
                prop_assert!(may_hold(&of(Section::Body, &text, max), &needle));
            }
        }

        /// The same with needles that are not of the text but may be in it.
        #[test]
        fn candidates_are_a_superset(text in "[abAé日本한 ]{0,30}", needle in "[abAé日本한 ]{1,4}") {
            if fold(&text).contains(&fold(&needle)) {
                let needle = Needle { place: Place::Anywhere, text: needle };
                for section in [Section::Header, Section::Body] {
                    prop_assert!(may_hold(&of(section, &text, 1000), &needle));
                }
            }
        }
    }
}
