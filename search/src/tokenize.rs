//! Words: what a text is cut into when it is indexed, and a question when it is asked.
//!
//! A word is a run of letters, digits and marks. (Unicode's own segmentation would keep `example.test` and `foo_bar` as
//! one word each; people search for what is in them.) Scripts without spaces give overlapping pairs of characters, and
//! the last character of a run alone, so that every character begins some token.

use std::ops::Range;

use crate::text::{fold_words, is_dense, is_word};

/// Characters of a word that count. What is longer is mostly no word at all.
pub const WORD_CHARACTERS_MAX: usize = 64;

/// A word as it is indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    /// Folded.
    pub text: &'a str,
    /// Its place among the words.
    pub position: usize,
    /// Where it stood, in octets of the text before folding.
    pub range: (usize, usize),
    /// What it is.
    pub shape: Shape,
}

/// Shapes of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A run of letters and digits.
    Run,
    /// Two characters of a script without spaces.
    Pair,
    /// The only character of a run of such a script.
    Single,
    /// The last character of a longer run. It shares the position of the pair that it ends, and questions leave it out.
    Last,
}

/// Calls `each` with the words of a text.
pub fn words(text: &str, mut each: impl FnMut(Word<'_>)) {
    let mut cutter =
        Cutter { each: &mut each, position: 0, word: String::new(), length: 0, range: 0..0, dense: None };
    fold_words(text, |character, range| cutter.push(character, range));
    cutter.end_run();
    cutter.end_word();
}

/// The words that a question consists of, in order, with the distance of each from the first.
pub fn question(text: &str) -> Vec<(usize, String, Shape)> {
    let mut found = Vec::new();
    words(text, |word| {
        if word.shape != Shape::Last {
            found.push((word.position, word.text.to_owned(), word.shape));
        }
    });
    if let Some(first) = found.first().map(|word| word.0) {
        for word in &mut found {
            word.0 -= first;
        }
    }
    found
}

struct Cutter<'f, F: FnMut(Word<'_>)> {
    each: &'f mut F,
    position: usize,
    word: String,
    /// Characters of the word.
    length: usize,
    range: Range<usize>,
    /// The character before, in a run of a script without spaces, and whether a pair has ended with it.
    dense: Option<(char, Range<usize>, bool)>,
}

impl<F: FnMut(Word<'_>)> Cutter<'_, F> {
    fn push(&mut self, character: char, range: Range<usize>) {
        if is_dense(character) {
            self.end_word();
            let is_pair = self.dense.is_some();
            if let Some((before, from, _)) = self.dense.take() {
                let pair: String = [before, character].into_iter().collect();
                self.give(&pair, (from.start, range.end), Shape::Pair);
                self.position += 1;
            }
            self.dense = Some((character, range, is_pair));
            return;
        }
        self.end_run();
        if !is_word(character) {
            self.end_word();
            return;
        }
        if self.length == 0 {
            self.range = range.clone();
        }
        if self.length < WORD_CHARACTERS_MAX {
            self.word.push(character);
            self.range.end = range.end;
        }
        self.length += 1;
    }

    fn end_word(&mut self) {
        if self.length > 0 {
            let word = std::mem::take(&mut self.word);
            self.give(&word, (self.range.start, self.range.end), Shape::Run);
            self.position += 1;
            self.word = word;
            self.word.clear();
            self.length = 0;
        }
    }

    fn end_run(&mut self) {
        let Some((character, range, is_pair)) = self.dense.take() else { return };
        let mut buffer = [0; 4];
        let text = &*character.encode_utf8(&mut buffer);
        if is_pair {
            self.position -= 1;
            self.give(text, (range.start, range.end), Shape::Last);
        } else {
            self.give(text, (range.start, range.end), Shape::Single);
        }
        self.position += 1;
    }

    fn give(&mut self, text: &str, range: (usize, usize), shape: Shape) {
        (self.each)(Word { text, position: self.position, range, shape });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &str) {
        let mut seen = Vec::new();
        words(text, |word| seen.push(format!("{}@{}", word.text, word.position)));
        assert_eq!(seen.join(" "), expected, "{text}");
    }

    #[test]
    fn words_and_pairs() {
        check("", "");
        check("Hello, World!", "hello@0 world@1");
        check("ann@example.test", "ann@0 example@1 test@2");
        check("don't 3.14 foo_bar", "don@0 t@1 3@2 14@3 foo@4 bar@5");
        check("日本語", "日本@0 本語@1 語@1");
        check("日", "日@0");
        check("日本 report", "日本@0 本@0 report@1");
        check("2024年度版ok", "2024@0 年度@1 度版@2 版@2 ok@3");
        check("한국어", "한국@0 국어@1 어@1");
        check("a, 日, b", "a@0 日@1 b@2");
        check("हिन्दी", "हिन्दी@0");
        check("Grüße", "grusse@0");
        check("㈱日立", "株@0 日立@1 立@1");
    }

    #[test]
    fn questions_have_distances() {
        let shown: Vec<_> =
            question("  日本語 x ").into_iter().map(|(at, text, _)| format!("{text}@{at}")).collect();
        assert_eq!(shown, ["日本@0", "本語@1", "x@2"]);
        assert_eq!(question("?!"), []);
        assert_eq!(question("本")[0].2, Shape::Single);
    }

    #[test]
    fn long_words_are_cut() {
        let long = "x".repeat(1000);
        check(&format!("{long} y"), &format!("{}@0 y@1", "x".repeat(WORD_CHARACTERS_MAX)));
    }

    proptest! {
        /// Words stand where they say, and positions never go back.
        #[test]
        fn ranges_are_of_the_text(text in "\\PC{0,40}") {
            let mut last = 0;
            words(&text, |word| {
                assert!(text.get(word.range.0..word.range.1).is_some_and(|piece| !piece.is_empty()));
                assert!(word.position >= last && !word.text.is_empty());
                last = word.position;
            });
        }
    }
}
