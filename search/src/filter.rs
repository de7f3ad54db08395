//! Filters: which emails are wanted (RFC 8621 §4.4.1), as the language of the search box asks for them.
//!
//! JMAP's own filters are read by `jmap-protocol`, which knows the types of a request; what they look for in texts becomes
//! the same [`Wanted`].

use mail::id::EmailId;

use crate::tokenize::question;

/// A filter of JMAP's Email/query: operators over conditions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Filter {
    /// All of them (AND). Of none: every email.
    All(Vec<Filter>),
    /// At least one (OR). Of none: no email.
    Any(Vec<Filter>),
    /// None of them (NOT).
    None(Vec<Filter>),
    /// A condition.
    Is(Condition),
}

/// One property of a FilterCondition. Several in one object are [`Filter::All`] of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    /// `inMailbox`: the mailbox of this id. The operator `in:` gives a name or role instead.
    InMailbox(MailboxRef),
    /// `inMailboxOtherThan`.
    InMailboxOtherThan(Vec<MailboxRef>),
    /// `before`, exclusive, in seconds since 1970.
    Before(i64),
    /// `after`, inclusive.
    After(i64),
    /// `minSize`, inclusive.
    MinSize(u64),
    /// `maxSize`, exclusive.
    MaxSize(u64),
    /// `allInThreadHaveKeyword`.
    AllInThreadHaveKeyword(String),
    /// `someInThreadHaveKeyword`.
    SomeInThreadHaveKeyword(String),
    /// `noneInThreadHaveKeyword`.
    NoneInThreadHaveKeyword(String),
    /// `hasKeyword`.
    HasKeyword(String),
    /// `notKeyword`.
    NotKeyword(String),
    /// `hasAttachment`.
    HasAttachment(bool),
    /// Words somewhere: `text`, `from`, `to`, `cc`, `bcc`, `subject`, `body`, and the name of an attachment.
    Words(Wanted),
    /// `header`: a field of this name, which holds this text when there is one. Case does not matter, words do not either.
    Header {
        /// The name of the field.
        name: String,
        /// What it holds.
        text: Option<String>,
    },
}

/// A mailbox as it was named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MailboxRef {
    /// By JMAP id.
    Id(String),
    /// By name or role, as people write it: whoever knows the account's mailboxes resolves it.
    Named(String),
}

/// Words that are looked for in one place. All of them have to be there, each wherever it likes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Where.
    pub texts: Texts,
    /// What.
    pub phrases: Vec<Phrase>,
    /// Whether words that are spelt nearly so count too.
    pub is_fuzzy: bool,
}

/// Where words are looked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Texts {
    /// Everywhere: From, To, Cc, Bcc, Subject, file names, text and attachments.
    Any,
    /// Subject.
    Subject,
    /// From.
    From,
    /// To.
    To,
    /// Cc.
    Cc,
    /// Bcc.
    Bcc,
    /// The text, and that of attachments.
    Body,
    /// Names of attachments.
    Filename,
}

/// Words in succession; most often one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Phrase {
    /// As it was written.
    pub text: String,
    /// Whether the last word is the beginning of one.
    pub is_prefix: bool,
}

impl Wanted {
    /// Reads the value of a text condition: quoted phrases and words between spaces (RFC 8621 §4.4.1); a star behind a
    /// word makes it a beginning.
    pub fn read(texts: Texts, value: &str) -> Self {
        let mut phrases = Vec::new();
        let mut rest = value;
        while let Some(first) = rest.chars().next() {
            if first.is_whitespace() {
                rest = &rest[first.len_utf8()..];
            } else if let Some(quote @ ('"' | '\'')) = Some(first)
                && let Some((phrase, after)) = quoted(&rest[1..], quote)
            {
                phrases.push(Phrase { text: phrase, is_prefix: false });
                rest = after;
            } else {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                phrases.push(Phrase::word(&rest[..end]));
                rest = &rest[end..];
            }
        }
        Self { texts, phrases, is_fuzzy: false }
    }

    /// Whether there is no word to look for.
    pub fn is_empty(&self) -> bool {
        self.phrases.iter().all(|phrase| question(&phrase.text).is_empty())
    }
}

impl Phrase {
    /// A word, perhaps with a star behind it.
    pub fn word(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(beginning) => Self { text: beginning.to_owned(), is_prefix: true },
            None => Self { text: text.to_owned(), is_prefix: false },
        }
    }
}

/// What stands before the quote that ends it, and what comes behind; a backslash takes the meaning from what follows.
pub(crate) fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut phrase = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => phrase.extend(characters.next().map(|(_, escaped)| escaped)),
            _ if character == quote => return Some((phrase, &text[at + quote.len_utf8()..])),
            _ => phrase.push(character),
        }
    }
    None
}

impl Filter {
    /// Every question about words in the filter.
    pub fn words(&self) -> Vec<&Wanted> {
        let mut found = Vec::new();
        let mut open = vec![self];
        while let Some(filter) = open.pop() {
            match filter {
                Self::All(filters) | Self::Any(filters) | Self::None(filters) => {
                    open.extend(filters.iter().rev());
                }
                Self::Is(Condition::Words(wanted)) => found.push(wanted),
                Self::Is(_) => {}
            }
        }
        found
    }

    /// The questions about words that a match answers with yes: what stands below NOT is not to be seen in it.
    pub fn sought(&self) -> Vec<&Wanted> {
        let mut found = Vec::new();
        let mut open = vec![self];
        while let Some(filter) = open.pop() {
            match filter {
                Self::All(filters) | Self::Any(filters) => open.extend(filters.iter().rev()),
                Self::Is(Condition::Words(wanted)) => found.push(wanted),
                Self::None(_) | Self::Is(_) => {}
            }
        }
        found
    }

    /// Whether an email matches, when `is` says so of each condition.
    pub fn matches(&self, email: EmailId, is: &mut impl FnMut(EmailId, &Condition) -> bool) -> bool {
        match self {
            Self::All(filters) => filters.iter().all(|filter| filter.matches(email, is)),
            Self::Any(filters) => filters.iter().any(|filter| filter.matches(email, is)),
            Self::None(filters) => !filters.iter().any(|filter| filter.matches(email, is)),
            Self::Is(condition) => is(email, condition),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_text_conditions_rfc8621_4_4_1() {
        let check = |value: &str, expected: &[(&str, bool)]| {
            let read = Wanted::read(Texts::Any, value);
            let shown: Vec<_> = read.phrases.iter().map(|phrase| (&*phrase.text, phrase.is_prefix)).collect();
            assert_eq!(shown, expected, "{value}");
        };
        check("one two", &[("one", false), ("two", false)]);
        check("\"one two\" thr*", &[("one two", false), ("thr", true)]);
        check("'one \\' two'", &[("one ' two", false)]);
        check("\"open", &[("\"open", false)]);
        check("  ", &[]);
        assert!(Wanted::read(Texts::Any, "-- !").is_empty());
    }

    #[test]
    fn operators_rfc8621_4_4() {
        let is = |size: u64| Filter::Is(Condition::MinSize(size));
        let check = |filter: Filter, expected: bool| {
            let mut holds = |_, condition: &Condition| *condition == Condition::MinSize(1);
            assert_eq!(filter.matches(EmailId(1), &mut holds), expected, "{filter:?}");
        };
        check(Filter::All(vec![is(1), is(2)]), false);
        check(Filter::Any(vec![is(1), is(2)]), true);
        check(Filter::None(vec![is(1), is(2)]), false);
        check(Filter::None(vec![is(2), is(2)]), true);
        check(Filter::All(vec![]), true);
        check(Filter::Any(vec![]), false);
    }
}
