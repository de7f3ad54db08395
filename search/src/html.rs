//! The text of HTML, as it streams by: no markup, no scripts, entities resolved, blocks apart.

use mail_parser::decoders::html::html_to_text;

/// Longest name of an element or entity that is looked at.
const NAME_BYTES_MAX: usize = 32;

/// Takes HTML in pieces. Keeps no more of it than the name that it is in.
#[derive(Debug, Default)]
pub struct HtmlText {
    state: State,
    /// The name of a tag or entity, as far as it has come.
    name: String,
    /// The element whose content is no text, until its end.
    hidden: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Text,
    /// Behind `<`.
    Open,
    /// In the name of a tag.
    Name,
    /// In a tag behind its name; in a quoted value when there is a quote.
    Tag(Option<char>),
    /// In `<!…` or `<?…`.
    Declaration,
    /// In a comment, behind so many of the characters that end it.
    Comment(u8),
    /// In an entity.
    Entity,
}

impl HtmlText {
    /// Takes a piece and adds its text to `out`.
    pub fn push(&mut self, piece: &str, out: &mut String) {
        for character in piece.chars() {
            self.take(character, out);
        }
    }

    /// There is no more.
    pub fn finish(mut self, out: &mut String) {
        if self.state == State::Entity {
            self.end_entity(out);
        }
    }

    fn take(&mut self, character: char, out: &mut String) {
        match self.state {
            State::Text => match character {
                '<' => self.state = State::Open,
                '&' if self.hidden.is_none() => {
                    self.name.clear();
                    self.state = State::Entity;
                }
                _ => self.text(character, out),
            },
            State::Open => match character {
                '!' | '?' if self.hidden.is_none() => {
                    self.name.clear();
                    self.state = State::Declaration;
                }
                '/' | 'a'..='z' | 'A'..='Z' if self.hidden.is_none() || character == '/' => {
                    self.name.clear();
                    self.name.push(character.to_ascii_lowercase());
                    self.state = State::Name;
                }
                _ => {
                    self.text('<', out);
                    self.state = State::Text;
                    self.take(character, out);
                }
            },
            // Amid a script only its own end is a tag.
            State::Name if self.hidden.is_some_and(|hidden| !self.may_end(hidden, character)) => {
                self.state = State::Text;
                self.take(character, out);
            }
            State::Name => match character {
                '>' => self.end_tag(out),
                _ if character.is_ascii_whitespace() || (character == '/' && self.name.len() > 1) => {
                    self.state = State::Tag(None);
                }
                _ if self.name.len() < NAME_BYTES_MAX => self.name.push(character.to_ascii_lowercase()),
                _ => {}
            },
            State::Tag(None) => match character {
                '>' => self.end_tag(out),
                '"' | '\'' => self.state = State::Tag(Some(character)),
                _ => {}
            },
            State::Tag(Some(quote)) => {
                if character == quote {
                    self.state = State::Tag(None);
                }
            }
            State::Declaration => {
                if character == '>' {
                    self.state = State::Text;
                } else if self.name.len() < 2 {
                    self.name.push(if character == '-' { '-' } else { ' ' });
                    if self.name == "--" {
                        self.state = State::Comment(0);
                    }
                }
            }
            State::Comment(dashes) => {
                self.state = match character {
                    '-' => State::Comment((dashes + 1).min(2)),
                    '>' if dashes == 2 => State::Text,
                    _ => State::Comment(0),
                };
            }
            State::Entity => match character {
                ';' => {
                    self.end_entity(out);
                    self.state = State::Text;
                }
                '#' | '0'..='9' | 'a'..='z' | 'A'..='Z' if self.name.len() < NAME_BYTES_MAX => {
                    self.name.push(character);
                }
                _ => {
                    self.end_entity(out);
                    self.state = State::Text;
                    self.take(character, out);
                }
            },
        }
    }

    /// Whether a name that goes on with this character may be the end of a hidden element.
    fn may_end(&self, hidden: &str, character: char) -> bool {
        let rest = self.name.strip_prefix('/').and_then(|name| hidden.strip_prefix(name));
        rest.is_some_and(|rest| match rest.chars().next() {
            Some(next) => next == character.to_ascii_lowercase(),
            None => character == '>' || character == '/' || character.is_ascii_whitespace(),
        })
    }

    fn text(&mut self, character: char, out: &mut String) {
        if self.hidden.is_some() {
            return;
        }
        if character.is_whitespace() {
            space(out);
        } else {
            out.push(character);
        }
    }

    fn end_tag(&mut self, out: &mut String) {
        self.state = State::Text;
        let (closes, name) = match self.name.strip_prefix('/') {
            Some(name) => (true, name),
            None => (false, &*self.name),
        };
        if let Some(hidden) = self.hidden {
            if closes && name == hidden {
                self.hidden = None;
            }
            return;
        }
        if let Some(hidden) = ["script", "style", "template"].into_iter().find(|hidden| *hidden == name) {
            self.hidden = (!closes).then_some(hidden);
        }
        if !is_inline(name) {
            space(out);
        }
    }

    fn end_entity(&mut self, out: &mut String) {
        let numeric = self.name.strip_prefix('#').map(|digits| {
            let code = match digits.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16).ok(),
                None => digits.parse().ok(),
            };
            code.and_then(char::from_u32).filter(|character| *character != '\0')
        });
        match numeric {
            Some(Some(character)) if character.is_whitespace() => space(out),
            Some(Some(character)) => out.push(character),
            Some(None) => out.push('\u{fffd}'),
            None if self.name.is_empty() => out.push('&'),
            None if matches!(&*self.name, "nbsp" | "ensp" | "emsp" | "thinsp") => space(out),
            // The parser's table has all names that there are.
            None => out.push_str(html_to_text(&format!("&{};", self.name)).trim()),
        }
    }
}

fn space(out: &mut String) {
    if !out.is_empty() && !out.ends_with(' ') {
        out.push(' ');
    }
}

/// Elements that do not part words.
fn is_inline(name: &str) -> bool {
    matches!(
        name,
        "a" | "abbr"
            | "acronym"
            | "b"
            | "bdi"
            | "bdo"
            | "big"
            | "cite"
            | "code"
            | "data"
            | "del"
            | "dfn"
            | "em"
            | "font"
            | "i"
            | "ins"
            | "kbd"
            | "label"
            | "mark"
            | "q"
            | "ruby"
            | "s"
            | "samp"
            | "small"
            | "span"
            | "strike"
            | "strong"
            | "sub"
            | "sup"
            | "time"
            | "tt"
            | "u"
            | "var"
            | "wbr"
            | "o:p"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(html: &str, piece: usize) -> String {
        let mut out = String::new();
        let mut stripper = HtmlText::default();
        let characters: Vec<char> = html.chars().collect();
        for piece in characters.chunks(piece) {
            stripper.push(&piece.iter().collect::<String>(), &mut out);
        }
        stripper.finish(&mut out);
        out.trim().to_owned()
    }

    fn check(html: &str, expected: &str) {
        for piece in [1, 3, 10_000] {
            assert_eq!(text(html, piece), expected, "{html} in pieces of {piece}");
        }
    }

    #[test]
    fn markup_goes_and_text_stays() {
        check("<p>beau<b>ti</b>ful</p><p>world", "beautiful world");
        check("a<br>b<br/>c<td>d", "a b c d");
        check("<a href=\"x>y\" title='<b>'>link</a>", "link");
        check("<style>p { a > b }</style>x<script>if (a </b) '<p>'</script>y", "x y");
        check("<script>a </scrip </scripts> b</SCRIPT >c", "c");
        check("a<!-- no > --- --><!DOCTYPE html>b", "ab");
        check("K&auml;se &amp; &#8364;&#x41; &nbsp; &unknownentity; &", "Käse & €A &unknownentity; &");
        check("1 < 2 <3 & 4", "1 < 2 <3 & 4");
        check("unfinished <p attr", "unfinished");
        check("<h1>日本</h1>語", "日本 語");
    }

    proptest! {
        /// Wherever it is cut the text is the same, and there is never a loop or a panic.
        #[test]
        fn cuts_make_no_difference(html in "[<>&;/!?a-c\"' =#0-9-]{0,60}", piece in 1_usize..9) {
            prop_assert_eq!(text(&html, piece), text(&html, 1000));
        }
    }
}
