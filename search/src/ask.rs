//! What a question about words means, in one place: the index is asked by it (`query`), and so is a text that lies at
//! hand ([`Look`]), so that the two cannot give different answers.

use std::collections::HashMap;

use crate::document::Texts;
use crate::filter::{Texts as Where, Wanted};
use crate::tokenize::{Shape, question, words};

/// What a field has to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ask {
    /// No field holds it.
    Nothing,
    /// This word.
    Word(String),
    /// A word that begins so.
    Beginning(String),
    /// A word that is spelt nearly so, with so many slips.
    Nearly(String, u8),
    /// These words, at these distances from the first.
    InRow(Vec<(usize, String)>),
    /// All of these, wherever in the field.
    All(Vec<Ask>),
    /// At least one of these.
    Any(Vec<Ask>),
}

/// The questions of each phrase that has words in it. Each may be answered by another field.
pub(crate) fn phrases(wanted: &Wanted) -> impl Iterator<Item = Ask> {
    wanted.phrases.iter().filter_map(|phrase| {
        let words = question(&phrase.text);
        (!words.is_empty()).then(|| of_words(&words, phrase.is_prefix, wanted.is_fuzzy))
    })
}

/// Words that follow one another in a field.
fn of_words(words: &[(usize, String, Shape)], is_prefix: bool, is_fuzzy: bool) -> Ask {
    let alone = |word: &(usize, String, Shape)| of_words(std::slice::from_ref(word), false, false);
    match words {
        [] => Ask::Nothing,
        // A character of a script without spaces begins some pair wherever it stands.
        [(_, text, Shape::Single)] => Ask::Beginning(text.clone()),
        [(_, text, Shape::Run)] if is_prefix => {
            Ask::Any(vec![Ask::Word(text.clone()), Ask::Beginning(text.clone())])
        }
        [(_, text, Shape::Run)] if is_fuzzy => {
            // One slip in a word of four letters, two in one of eight.
            match text.chars().count() {
                0..4 => Ask::Word(text.clone()),
                length => {
                    let slips = if length < 8 { 1 } else { 2 };
                    Ask::Any(vec![Ask::Word(text.clone()), Ask::Nearly(text.clone(), slips)])
                }
            }
        }
        [(_, text, _)] => Ask::Word(text.clone()),
        [before @ .., last] if is_prefix && last.2 != Shape::Pair => {
            // The phrase without its last word, and that word as a beginning; that they stand side by side is not asked.
            Ask::All(vec![of_words(before, false, false), of_words(std::slice::from_ref(last), true, false)])
        }
        _ => {
            let last = words.last().filter(|last| last.2 == Shape::Single);
            let exact = if last.is_some() { &words[..words.len() - 1] } else { words };
            let first = match exact {
                [one] => alone(one),
                // A single character amid other words may begin a pair in the text, so each is asked for by itself.
                _ if exact.iter().any(|word| word.2 == Shape::Single) => {
                    Ask::All(exact.iter().map(alone).collect())
                }
                _ => Ask::InRow(exact.iter().map(|(at, text, _)| (*at, text.clone())).collect()),
            };
            match last {
                Some(last) => Ask::All(vec![first, alone(last)]),
                None => first,
            }
        }
    }
}

/// A question about words, made ready to be asked of many texts that are in no index. Words that are spelt nearly as
/// asked are a matter of the index; here they have to be spelt so.
#[derive(Clone, Debug)]
pub struct Look {
    place: Where,
    asks: Vec<Ask>,
}

impl Look {
    /// For what is wanted.
    pub fn new(wanted: &Wanted) -> Self {
        Self { place: wanted.texts, asks: phrases(wanted).collect() }
    }

    /// Whether an email with these texts is found.
    pub fn finds(&self, texts: &Texts) -> bool {
        self.finds_in(&texts.at(self.place))
    }

    /// Whether fields with these texts hold what is wanted, each phrase in any of them.
    pub fn finds_in(&self, fields: &[&str]) -> bool {
        // What consists of no word is in nothing.
        if self.asks.is_empty() {
            return false;
        }
        let mut found = vec![false; self.asks.len()];
        for field in fields.iter().filter(|field| !field.is_empty()) {
            let mut seen = Seen::default();
            for (ask, _) in self.asks.iter().zip(&found).filter(|(_, found)| !**found) {
                seen.watch(ask);
            }
            words(field, |word| seen.take(word.text, word.position));
            for (ask, found) in self.asks.iter().zip(&mut found) {
                *found = *found || seen.holds(ask);
            }
            if found.iter().all(|found| *found) {
                return true;
            }
        }
        false
    }
}

/// Where the words that are watched for stand in a field.
#[derive(Default)]
struct Seen<'a> {
    words: HashMap<&'a str, Vec<usize>>,
    beginnings: HashMap<&'a str, bool>,
}

impl<'a> Seen<'a> {
    fn watch(&mut self, ask: &'a Ask) {
        match ask {
            Ask::Nothing => {}
            Ask::Word(text) | Ask::Nearly(text, _) => {
                self.words.entry(text).or_default();
            }
            Ask::Beginning(text) => {
                self.beginnings.entry(text).or_default();
            }
            Ask::InRow(row) => {
                for (_, text) in row {
                    self.words.entry(text).or_default();
                }
            }
            Ask::All(asks) | Ask::Any(asks) => {
                for ask in asks {
                    self.watch(ask);
                }
            }
        }
    }

    fn take(&mut self, word: &str, position: usize) {
        if let Some(positions) = self.words.get_mut(word) {
            positions.push(position);
        }
        for (beginning, found) in &mut self.beginnings {
            *found = *found || word.starts_with(beginning);
        }
    }

    fn positions(&self, word: &str) -> &[usize] {
        self.words.get(word).map(Vec::as_slice).unwrap_or_default()
    }

    fn holds(&self, ask: &Ask) -> bool {
        match ask {
            Ask::Nothing => false,
            Ask::Word(text) | Ask::Nearly(text, _) => !self.positions(text).is_empty(),
            Ask::Beginning(text) => self.beginnings.get(text.as_str()) == Some(&true),
            Ask::InRow(row) => {
                let Some(((first, text), rest)) = row.split_first() else { return false };
                // Positions never go back, so that they can be looked up.
                self.positions(text).iter().filter_map(|at| at.checked_sub(*first)).any(|start| {
                    rest.iter().all(|(at, text)| self.positions(text).binary_search(&(start + at)).is_ok())
                })
            }
            Ask::All(asks) => asks.iter().all(|ask| self.holds(ask)),
            Ask::Any(asks) => asks.iter().any(|ask| self.holds(ask)),
        }
    }
}

#[cfg(test)]
mod tests {
    use mail::id::{AccountId, EmailId};
    use proptest::prelude::*;

    use super::*;
    use crate::document::Document;
    use crate::schema::Fields;
    use crate::tail;

    fn check(place: Where, value: &str, texts: &Texts, expected: bool) {
        assert_eq!(Look::new(&Wanted::read(place, value)).finds(texts), expected, "{value} in {texts:?}");
    }

    #[test]
    fn words_phrases_and_beginnings() {
        let texts = Texts {
            subject: "Grüße aus Köln".to_owned(),
            from: "=?x?= Ann <ann@example.test>".to_owned(),
            body: "日本語です. The beautiful world, in ｗｉｄｅ letters".to_owned(),
            ..Texts::default()
        };
        for (value, expected) in [
            ("grusse", true),
            ("GRÜSSE ann", true),
            ("gruss", false),
            ("gruss*", true),
            ("\"beautiful world\"", true),
            ("\"world beautiful\"", false),
            ("\"beautiful wor\"", false),
            ("wide", true),
            ("本語", true),
            ("日語", false),
            ("す", true),
            ("\"Köln beautiful\"", false),
            ("", false),
            ("?!", false),
        ] {
            check(Where::Any, value, &texts, expected);
        }
        check(Where::Subject, "ann", &texts, false);
        check(Where::From, "\"ann example\"", &texts, true);
        check(Where::Body, "koln", &texts, false);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// The index and a look at the texts themselves find the same.
        #[test]
        fn an_index_finds_the_same(
            subject in "[ab日本 ]{0,6}",
            from in "[abあ.@ ]{0,6}",
            body in "[abcÄ日本語ทก ,.]{0,24}",
            value in "[abcä日本語ทก \"*'.]{1,9}",
            place in prop::sample::select(vec![Where::Any, Where::Subject, Where::From, Where::Body]),
        ) {
            let texts = Texts { subject, from, body, ..Texts::default() };
            let wanted = Wanted::read(place, &value);
            let looked = Look::new(&wanted).finds(&texts);
            let document = Document { email: EmailId(1), date: 0, grams: Vec::new(), texts };
            let hits = tail::words(&Fields::new(), AccountId::random(), &[document], &wanted).unwrap();
            prop_assert_eq!(looked, !hits.is_empty(), "{:?}", wanted);
        }
    }
}
