//! Text as it is compared: without regard to case, and to the ways in which Unicode can spell the same
//! (i;unicode-casemap, RFC 5051, which RFC 5255 §4.4 makes the default of SEARCH).

use unicode_normalization::char::decompose_compatible;

/// Folds a text.
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    fold_into(text, &mut folded);
    folded
}

/// Folds a text to the end of another. Works character by character, so a text may come in pieces.
pub fn fold_into(text: &str, folded: &mut String) {
    for character in text.chars() {
        if character.is_ascii() {
            folded.push(character.to_ascii_lowercase());
        } else {
            decompose_compatible(character, |part| folded.extend(part.to_lowercase()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_spelling_make_no_difference() {
        let check = |text: &str, needle: &str, expected: bool| {
            assert_eq!(fold(text).contains(&fold(needle)), expected, "{needle} in {text}");
        };
        check("Beautiful World", "eautiful worl", true);
        check("GRÜSSE", "grüsse", true);
        check("gru\u{308}sse", "GRÜSSE", true);
        check("ﬁne", "FINE", true);
        check("ΣΊΣΥΦΟΣ", "σίσυφοσ", true);
        check("日本語", "本", true);
        check("abc", "abd", false);
        check("abc", "", true);
    }
}
