//! Text as words are compared: compatibility forms, case and diacritics folded, cluster by cluster, so that what was
//! folded can be led back to where it stood.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Calls `each` with every character of the folded text and the octets of the cluster in `text` that it came from.
///
/// A cluster is a character with the marks that follow it (and the Jamo that complete a Hangul syllable). Folding it is
/// NFKC, then case as Unicode's full folding has it, then without diacritics where these are an accident of spelling:
/// Latin, Greek, Cyrillic, Hebrew, Arabic. The marks of Indic scripts and of Thai are vowels and stay.
pub fn fold_words(text: &str, mut each: impl FnMut(char, std::ops::Range<usize>)) {
    let mut buffer = String::new();
    let mut characters = text.char_indices().peekable();
    while let Some((start, first)) = characters.next() {
        let mut end = start + first.len_utf8();
        let mut alone = true;
        while let Some((_, next)) = characters.peek().filter(|(_, next)| extends(*next)) {
            alone = false;
            end += next.len_utf8();
            characters.next();
        }
        if alone && first.is_ascii() {
            each(first.to_ascii_lowercase(), start..end);
            continue;
        }
        buffer.clear();
        for part in text[start..end].nfkd().filter(|part| !is_dropped(*part)) {
            for character in part.to_uppercase().flat_map(char::to_lowercase) {
                match unaccented(character) {
                    Some(letters) => buffer.push_str(letters),
                    None => buffer.push(character),
                }
            }
        }
        for character in buffer.nfc() {
            each(character, start..end);
        }
    }
}

/// The whole of a text as words are compared; what is sorted or looked up by it takes spellings for the same that search
/// takes for the same.
pub fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    fold_words(text, |character, _| out.push(character));
    out
}

/// Whether a character belongs to the one before it.
fn extends(character: char) -> bool {
    !character.is_ascii()
        && (is_combining_mark(character)
            // Vowels and finals of decomposed Hangul.
            || matches!(character, '\u{1160}'..='\u{11ff}' | '\u{d7b0}'..='\u{d7ff}')
            // Halfwidth voice marks, joiners, what breaks a line within a word.
            || matches!(character, '\u{ff9e}' | '\u{ff9f}' | '\u{200b}'..='\u{200d}' | '\u{ad}' | '\u{feff}'))
}

/// What makes no difference between words.
fn is_dropped(character: char) -> bool {
    matches!(
        character,
        '\u{300}'..='\u{36f}'
            | '\u{483}'..='\u{489}'
            | '\u{591}'..='\u{5bd}' | '\u{5bf}' | '\u{5c1}' | '\u{5c2}' | '\u{5c4}' | '\u{5c5}' | '\u{5c7}'
            | '\u{610}'..='\u{61a}' | '\u{640}' | '\u{64b}'..='\u{65f}' | '\u{670}' | '\u{6d6}'..='\u{6ed}'
            | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{ad}' | '\u{feff}'
    )
}

/// Letters that Unicode does not take apart, though people do when they have no such key.
fn unaccented(character: char) -> Option<&'static str> {
    Some(match character {
        'ø' => "o",
        'đ' | 'ð' => "d",
        'ł' => "l",
        'ħ' => "h",
        'ŧ' => "t",
        'æ' => "ae",
        'œ' => "oe",
        'þ' => "th",
        _ => return None,
    })
}

/// Whether a character is of a script that is written without spaces, or nearly: its words are found by pairs.
pub fn is_dense(character: char) -> bool {
    matches!(
        character,
        '\u{e01}'..='\u{e4e}' | '\u{e81}'..='\u{ece}' | '\u{edc}'..='\u{edf}'
            | '\u{1000}'..='\u{103f}' | '\u{1050}'..='\u{108f}'
            | '\u{1100}'..='\u{11ff}'
            | '\u{1780}'..='\u{17d3}'
            | '\u{2e80}'..='\u{2fdf}'
            | '\u{3005}'..='\u{3007}' | '\u{3021}'..='\u{3029}'
            | '\u{3041}'..='\u{309f}' | '\u{30a1}'..='\u{30fa}' | '\u{30fc}'..='\u{30ff}'
            | '\u{3105}'..='\u{318e}' | '\u{31a0}'..='\u{31bf}' | '\u{31f0}'..='\u{31ff}'
            | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
            | '\u{a960}'..='\u{a97c}' | '\u{ac00}'..='\u{d7fb}'
            | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ff9f}'
            | '\u{1aff0}'..='\u{1b16f}' | '\u{20000}'..='\u{3fffd}'
    )
}

/// Whether a character is part of words that stand between spaces.
pub fn is_word(character: char) -> bool {
    character.is_alphanumeric() || (!character.is_ascii() && is_combining_mark(character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_makes_no_difference() {
        let check = |a: &str, b: &str| assert_eq!(folded(a), folded(b), "{a} {b}");
        check("Grüße", "grusse");
        check("gru\u{308}\u{df}e", "GRÜSSE");
        check("Ωμέγας", "ωμεγασ");
        check("ﬁne", "FINE");
        check("ＡＢＣ１", "abc1");
        check("Øresund Łódź Æther", "oresund lodz aether");
        check("ё", "Е");
        check("ｶﾞ", "ガ");
        check("か\u{3099}", "が");
        check("\u{1112}\u{1161}\u{11ab}", "한");
        check("soft\u{ad}ware", "software");
        check("İstanbul", "istanbul");
        check("مُحَمَّد", "محمد");
        assert_ne!(folded("कि"), folded("की"));
        assert_ne!(folded("ที่"), folded("ทา"));
    }

    #[test]
    fn characters_lead_back() {
        let text = "xGru\u{308}ße";
        let mut seen = Vec::new();
        fold_words(text, |character, range| seen.push((character, &text[range])));
        let expected =
            [('x', "x"), ('g', "G"), ('r', "r"), ('u', "u\u{308}"), ('s', "ß"), ('s', "ß"), ('e', "e")];
        assert_eq!(seen, expected);
    }
}
