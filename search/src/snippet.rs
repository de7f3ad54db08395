//! Snippets: the piece of a text in which what was looked for stands, for people (RFC 8621 §5).
//!
//! What comes out is HTML: text escaped, `<mark>` and `</mark>` the only markup, whatever the mail holds.

use std::ops::Range;

use mail::id::EmailId;
use storage::Account;

use crate::config::TextLimits;
use crate::document::Document;
use crate::error::SearchError;
use crate::filter::{Filter, Phrase, Texts, Wanted};
use crate::search::Search;
use crate::tokenize::{Shape, Word, question, words};

/// Octets that a snippet may have, marks included (RFC 8621 §5: a preview has at most 255 octets).
pub const SNIPPET_BYTES_MAX: usize = 255;
/// Octets of a text that are looked through.
const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Words of a question that are marked.
const SOUGHT_MAX: usize = 64;
/// Characters shown before the first word that is marked. Even if each is escaped there is room for that word.
const BEFORE: usize = 24;
/// Up to here a text is shown from its beginning.
const NEAR: usize = 100;

/// What to mark, made ready for many texts.
#[derive(Clone, Debug, Default)]
pub struct Marker {
    /// Words in succession, as questions have them, and whether the last is the beginning of one.
    phrases: Vec<(Vec<Sought>, bool)>,
}

#[derive(Clone, Debug)]
struct Sought {
    text: String,
    is_prefix: bool,
}

/// A subject and a piece of the text (RFC 8621 §5 SearchSnippet).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snippet {
    /// `None`: nothing of it matches.
    pub subject: Option<String>,
    /// The same.
    pub preview: Option<String>,
}

impl Search {
    /// The snippet of an email for what a filter looks for. `None`: there is no such email. A long text is not looked
    /// through to its end.
    pub async fn snippet(
        &self,
        account: &Account,
        email: EmailId,
        filter: &Filter,
    ) -> Result<Option<Snippet>, SearchError> {
        let Some(record) = account.email(email).await? else { return Ok(None) };
        let sought = filter.sought();
        if sought.is_empty() {
            return Ok(Some(Snippet::default()));
        }
        // No grams are of interest.
        let limits = TextLimits { grams_max: 0, ..self.inner.config.text };
        let texts = Document::of(account, &record, &limits, None).await?.texts;
        let subject = Marker::new(sought.iter().copied(), Texts::Subject).whole(&texts.subject);
        let preview = Marker::new(sought, Texts::Body).piece(texts.body.trim_start());
        Ok(Some(Snippet { subject, preview }))
    }
}

impl Marker {
    /// Marks what these conditions look for in texts of a kind: a condition on From marks nothing in a subject.
    pub fn new<'a>(wanted: impl IntoIterator<Item = &'a Wanted>, of: Texts) -> Self {
        let mut marker = Self::default();
        for wanted in wanted.into_iter().filter(|wanted| wanted.texts == Texts::Any || wanted.texts == of) {
            for phrase in &wanted.phrases {
                marker.add(phrase);
            }
        }
        marker
    }

    fn add(&mut self, phrase: &Phrase) {
        let words = question(&phrase.text);
        let count = words.len();
        if count == 0 || self.phrases.iter().map(|(words, _)| words.len()).sum::<usize>() + count > SOUGHT_MAX
        {
            return;
        }
        let sought = words.into_iter().enumerate().map(|(at, (_, text, shape))| Sought {
            text,
            is_prefix: shape == Shape::Single || (phrase.is_prefix && at + 1 == count && shape == Shape::Run),
        });
        self.phrases.push((sought.collect(), phrase.is_prefix));
    }

    /// The text with what was looked for marked; from its beginning, for subjects. `None`: nothing is.
    pub fn whole(&self, text: &str) -> Option<String> {
        let marks = self.find(text);
        if marks.is_empty() {
            return None;
        }
        let whole = render(text, 0, &marks);
        if whole.contains(MARK) { Some(whole) } else { self.piece(text) }
    }

    /// The piece of the text around the first that was looked for. `None`: there is none.
    pub fn piece(&self, text: &str) -> Option<String> {
        let marks = self.find(text);
        let first = marks.first()?.start;
        if first <= NEAR {
            let whole = render(text, 0, &marks);
            if whole.contains(MARK) {
                return Some(whole);
            }
        }
        let mut start = text[..first].char_indices().rev().nth(BEFORE).map_or(0, |(at, _)| at);
        if start > 0 {
            // Not amid a word, where there is a space to begin at.
            start += text[start..first].find(char::is_whitespace).unwrap_or(0);
            start += text[start..].len() - text[start..].trim_start().len();
        }
        Some(render(text, start.min(first), &marks))
    }

    /// Where what was looked for stands, ascending, apart from one another.
    fn find(&self, text: &str) -> Vec<Range<usize>> {
        let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
        if self.phrases.is_empty() {
            return Vec::new();
        }
        // For each phrase, how many of its words have come, where they began and at which position they stand.
        let mut open: Vec<Option<(usize, usize, usize)>> = vec![None; self.phrases.len()];
        let mut marks: Vec<Range<usize>> = Vec::new();
        words(text, |word| {
            for ((sought, _), open) in self.phrases.iter().zip(&mut open) {
                let fits = |at: usize| sought.get(at).is_some_and(|sought| sought.is(&word));
                let next = match *open {
                    Some((count, begin, position)) if fits(count) && word.position <= position + 1 => {
                        Some((count + 1, begin, word.position))
                    }
                    // The last character of a run stands where its pair does.
                    Some(open) if word.shape == Shape::Last => Some(open),
                    _ if fits(0) => Some((1, word.range.0, word.position)),
                    _ => None,
                };
                *open = next;
                if let Some((count, begin, _)) = next
                    && count == sought.len()
                {
                    let last = sought.last().map_or(0, |last| last.text.chars().count());
                    // Of a pair that begins with the one character that was asked for, that character.
                    let end = match word.shape {
                        Shape::Pair if last == 1 => {
                            let first = text[word.range.0..].chars().next().map_or(0, char::len_utf8);
                            word.range.0 + first
                        }
                        _ => word.range.1,
                    };
                    marks.push(begin..end.max(begin));
                    *open = None;
                }
            }
        });
        marks.sort_by_key(|mark| (mark.start, mark.end));
        let mut apart: Vec<Range<usize>> = Vec::with_capacity(marks.len());
        for mark in marks {
            match apart.last_mut() {
                Some(last) if mark.start <= last.end => last.end = last.end.max(mark.end),
                _ => apart.push(mark),
            }
        }
        apart
    }
}

impl Sought {
    fn is(&self, word: &Word<'_>) -> bool {
        if self.is_prefix { word.text.starts_with(&*self.text) } else { word.text == self.text }
    }
}

const MARK: &str = "<mark>";
const UNMARK: &str = "</mark>";

/// The text from `start` on as HTML, as far as there is room.
fn render(text: &str, start: usize, marks: &[Range<usize>]) -> String {
    let mut out = String::new();
    let mut marks = marks.iter().skip_while(|mark| mark.end <= start).peekable();
    let mut is_marked = false;
    let mut is_space = true;
    for (at, character) in text[start..].char_indices() {
        let at = start + at;
        if is_marked && marks.peek().is_some_and(|mark| at >= mark.end) {
            out.push_str(UNMARK);
            is_marked = false;
            marks.next();
        }
        let begins = !is_marked && marks.peek().is_some_and(|mark| at >= mark.start);
        let mut buffer = [0; 4];
        let shown: &str = match character {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '"' => "&quot;",
            '\'' => "&#39;",
            _ if character.is_whitespace() => {
                if is_space && !begins && !is_marked {
                    continue;
                }
                " "
            }
            // What turns the direction of a line would turn more than the snippet.
            _ if character.is_control()
                || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                continue;
            }
            _ => character.encode_utf8(&mut buffer),
        };
        let added = shown.len() + if begins { MARK.len() + UNMARK.len() } else { 0 };
        let closing = if is_marked { UNMARK.len() } else { 0 };
        if out.len() + added + closing > SNIPPET_BYTES_MAX {
            break;
        }
        if begins {
            out.push_str(MARK);
            is_marked = true;
        }
        is_space = shown == " ";
        out.push_str(shown);
    }
    if is_marked {
        out.push_str(UNMARK);
    }
    out.truncate(out.trim_end_matches(' ').len());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marker(value: &str) -> Marker {
        Marker::new([&Wanted::read(Texts::Any, value)], Texts::Body)
    }

    fn check(value: &str, text: &str, expected: Option<&str>) {
        assert_eq!(marker(value).whole(text).as_deref(), expected, "{value} in {text}");
    }

    #[test]
    fn what_was_looked_for_is_marked_rfc8621_5() {
        check("foo", "a Foo, b", Some("a <mark>Foo</mark>, b"));
        check("foo bar", "bar food foo", Some("<mark>bar</mark> food <mark>foo</mark>"));
        check("foo*", "food", Some("<mark>food</mark>"));
        check("\"foo bar\"", "foo x foo bar bar", Some("foo x <mark>foo bar</mark> bar"));
        check("grusse", "Viele Grüße!", Some("Viele <mark>Grüße</mark>!"));
        check("本語", "日本語です", Some("日<mark>本語</mark>です"));
        check("本", "日本語", Some("日<mark>本</mark>語"));
        check("日本語", "日本と日本語", Some("日本と<mark>日本語</mark>"));
        check("foo", "bar", None);
        check("", "bar", None);
        check("foo", "foofoo foo-foo", Some("foofoo <mark>foo</mark>-<mark>foo</mark>"));
    }

    #[test]
    fn markup_of_the_mail_is_text() {
        check(
            "x",
            "<script>x</script> & \"'",
            Some("&lt;script&gt;<mark>x</mark>&lt;/script&gt; &amp; &quot;&#39;"),
        );
        check("mark", "</mark><b>", Some("&lt;/<mark>mark</mark>&gt;&lt;b&gt;"));
        check("a", "\u{202e}a\0\r\n\r\n  b", Some("<mark>a</mark> b"));
    }

    #[test]
    fn pieces_begin_near_what_was_looked_for() {
        let text = format!("{}needle in the hay", "hay ".repeat(200));
        let piece = marker("needle").piece(&text).expect("it is there");
        assert!(piece.starts_with("hay ") && piece.contains("<mark>needle</mark> in the hay"), "{piece}");
        assert!(piece.len() < 120, "{piece}");
    }

    #[test]
    fn only_what_was_asked_of_this_text() {
        let wanted = [Wanted::read(Texts::From, "ann"), Wanted::read(Texts::Subject, "cat")];
        let shown = Marker::new(&wanted, Texts::Subject).whole("ann cat");
        assert_eq!(shown.as_deref(), Some("ann <mark>cat</mark>"));
    }

    proptest! {
        /// Bounded, balanced and without any markup but marks, whatever the text.
        #[test]
        fn safe_and_bounded(value in "[a-c日本 \"*]{1,8}", text in "[a-c<>&\"'日本 /m]{0,400}|\\PC{0,300}") {
            for shown in [marker(&value).whole(&text), marker(&value).piece(&text)].into_iter().flatten() {
                prop_assert!(shown.len() <= SNIPPET_BYTES_MAX);
                let bare = shown.replace(MARK, "\u{1}").replace(UNMARK, "\u{2}");
                prop_assert!(!bare.contains(['<', '>', '"', '\'']));
                let marks: String = bare.chars().filter(|c| matches!(c, '\u{1}' | '\u{2}')).collect();
                prop_assert!(!marks.is_empty() && marks.replace("\u{1}\u{2}", "").is_empty(), "{}", shown);
            }
        }
    }
}
