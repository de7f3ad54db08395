//! Keys that are to be found fuzzily (RFC 6203): by the words of the search index.

use imap_protocol::search::SearchKey;
use search::{TextLimits, Texts, Wanted};

use super::content::Content;

/// How words are looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByWords {
    /// So many different texts; what is asked for beyond is looked for exactly.
    pub(super) texts_max: usize,
    /// How much of a message has words.
    pub(super) limits: TextLimits,
}

impl ByWords {
    /// The words of a key. `None`: it is to be looked for exactly (RFC 6203 §5), since it is no text, there is no word in
    /// it, the index has no such field, or there are too many.
    pub(super) fn wanted(&self, key: &SearchKey, contents: &[Content]) -> Option<Wanted> {
        let (place, text) = match key {
            SearchKey::Text(text) => (Texts::Any, text),
            SearchKey::Body(text) => (Texts::Body, text),
            SearchKey::Header { name, text } => (field(name)?, text),
            _ => return None,
        };
        let wanted = Wanted { is_fuzzy: true, ..Wanted::read(place, text) };
        if wanted.is_empty() {
            return None;
        }
        let others = contents.iter().filter_map(|content| match content {
            Content::Words(other) => Some(other),
            _ => None,
        });
        let is_asked = others.clone().any(|other| *other == wanted);
        (is_asked || others.count() < self.texts_max).then_some(wanted)
    }
}

/// A field whose words are in the index.
fn field(name: &str) -> Option<Texts> {
    let fields = [
        ("Subject", Texts::Subject),
        ("From", Texts::From),
        ("To", Texts::To),
        ("Cc", Texts::Cc),
        ("Bcc", Texts::Bcc),
    ];
    fields.into_iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, texts)| texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_looked_for_by_words_and_nothing_else() {
        let by_words = ByWords { texts_max: 2, limits: TextLimits::default() };
        let header =
            |name: &str, text: &str| SearchKey::Header { name: name.to_owned(), text: text.to_owned() };
        let place = |key: &SearchKey| by_words.wanted(key, &[]).map(|wanted| wanted.texts);
        assert_eq!(place(&header("SUBJECT", "break")), Some(Texts::Subject));
        assert_eq!(place(&SearchKey::Text("a b".to_owned())), Some(Texts::Any));
        assert_eq!(place(&SearchKey::Body("a".to_owned())), Some(Texts::Body));
        assert_eq!(place(&header("X-Field", "break")), None);
        assert_eq!(place(&header("SUBJECT", "")), None);
        assert_eq!(place(&header("SUBJECT", "--")), None);
        assert_eq!(place(&SearchKey::Larger(5)), None);
        // So many, and those again.
        let words = |text: &str| SearchKey::Text(text.to_owned());
        let asked: Vec<Content> =
            ["one", "two"].map(|text| Content::Words(by_words.wanted(&words(text), &[]).unwrap())).into();
        assert!(by_words.wanted(&words("three"), &asked).is_none());
        assert!(by_words.wanted(&words("two"), &asked).is_some());
    }
}
