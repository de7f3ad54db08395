//! The language of the search box: `from:ann has:attachment -"out of office" (cats OR dogs)`, read into the filter that
//! JMAP uses.
//!
//! ```text
//! query  = or *( or )                     everything must hold
//! or     = term *( "OR" term )
//! term   = [ "-" ] ( "(" query ")" | operator ":" ( value | "(" *value ")" ) | phrase | word )
//! ```
//!
//! A word with a colon in it that is no operator is text (`12:30`, `re:`), since that is what people write.

use std::fmt;

use time::{Date, Month, OffsetDateTime, UtcOffset};

use crate::filter::{Condition, Filter, MailboxRef, Phrase, Texts, Wanted, quoted};

/// Octets of a query.
pub const QUERY_BYTES_MAX: usize = 4 * 1024;
/// How deep parentheses may nest.
const DEPTH_MAX: usize = 32;
/// Terms of a query.
const TERMS_MAX: usize = 256;

/// When and where a query is asked: what `older_than:2d` and `before:2026-01-01` count from.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Seconds since 1970.
    pub now: i64,
    /// Minutes east of UTC where days begin.
    pub zone_minutes: i16,
}

/// What is wrong with a query, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct QueryError {
    /// What.
    pub kind: QueryErrorKind,
    /// The octets of the query that it is about.
    pub from: usize,
    /// Their end.
    pub to: usize,
}

/// What can be wrong with a query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueryErrorKind {
    /// It is longer than [`QUERY_BYTES_MAX`].
    TooLong,
    /// It has too many terms.
    TooManyTerms,
    /// Parentheses nest too deep.
    TooDeep,
    /// A parenthesis is not closed.
    Unclosed,
    /// A parenthesis closes nothing.
    Unopened,
    /// A quote does not end.
    OpenQuote,
    /// OR has nothing on one side.
    EmptyOr,
    /// There is nothing between parentheses.
    EmptyGroup,
    /// An operator has no value.
    NoValue,
    /// A value is no date: `2026-01-31`, `2026/1/31`, `2026-01`, `2026`.
    NotADate,
    /// A value is no span of time: `3d`, `2w`, `6m`, `1y`, `12h`.
    NotASpan,
    /// A value is no size: `500`, `10k`, `2M`, `1G`.
    NotASize,
    /// `has:` knows `attachment`.
    UnknownHas,
    /// `is:` knows `read unread starred flagged answered draft`.
    UnknownIs,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            QueryErrorKind::TooLong => "the query is too long",
            QueryErrorKind::TooManyTerms => "the query has too many terms",
            QueryErrorKind::TooDeep => "parentheses nest too deep",
            QueryErrorKind::Unclosed => "a parenthesis is not closed",
            QueryErrorKind::Unopened => "a parenthesis closes nothing",
            QueryErrorKind::OpenQuote => "a quote does not end",
            QueryErrorKind::EmptyOr => "OR needs something on both sides",
            QueryErrorKind::EmptyGroup => "there is nothing between the parentheses",
            QueryErrorKind::NoValue => "the operator needs a value",
            QueryErrorKind::NotADate => "not a date such as 2026-01-31",
            QueryErrorKind::NotASpan => "not a span of time such as 3d, 2w, 6m or 1y",
            QueryErrorKind::NotASize => "not a size such as 500k or 10M",
            QueryErrorKind::UnknownHas => "has: knows attachment",
            QueryErrorKind::UnknownIs => "is: knows read, unread, starred, flagged, answered and draft",
        };
        write!(f, "{what} (at {}–{})", self.from, self.to)
    }
}

impl Filter {
    /// Reads a query. An empty one asks for everything.
    pub fn parse(query: &str, asked: Asked) -> Result<Self, QueryError> {
        if query.len() > QUERY_BYTES_MAX {
            return Err(QueryError { kind: QueryErrorKind::TooLong, from: 0, to: query.len() });
        }
        let mut parser = Parser { query, at: 0, terms: 0, asked };
        let filter = parser.all(0)?;
        match parser.peek() {
            None => Ok(filter.unwrap_or(Self::All(Vec::new()))),
            // Only a parenthesis ends a list before the query does.
            Some(_) => Err(parser.error(QueryErrorKind::Unopened, parser.at, parser.at + 1)),
        }
    }
}

struct Parser<'a> {
    query: &'a str,
    at: usize,
    terms: usize,
    asked: Asked,
}

impl<'a> Parser<'a> {
    /// Terms until the end or a closing parenthesis.
    fn all(&mut self, depth: usize) -> Result<Option<Filter>, QueryError> {
        let mut filters = Vec::new();
        loop {
            self.skip_space();
            if self.peek().is_none_or(|next| next == ')') {
                break;
            }
            if self.is_or() {
                return Err(self.error(QueryErrorKind::EmptyOr, self.at, self.at + 2));
            }
            let mut alternatives = vec![self.term(depth)?];
            while {
                self.skip_space();
                self.is_or()
            } {
                let or = self.at;
                self.at += 2;
                self.skip_space();
                if self.peek().is_none_or(|next| next == ')') || self.is_or() {
                    return Err(self.error(QueryErrorKind::EmptyOr, or, or + 2));
                }
                alternatives.push(self.term(depth)?);
            }
            filters.push(one_or(alternatives, Filter::Any));
        }
        Ok((!filters.is_empty()).then(|| one_or(filters, Filter::All)))
    }

    fn term(&mut self, depth: usize) -> Result<Filter, QueryError> {
        let start = self.at;
        self.terms += 1;
        if self.terms > TERMS_MAX {
            return Err(self.error(QueryErrorKind::TooManyTerms, start, self.query.len()));
        }
        let negated = self.peek() == Some('-')
            && self.rest()[1..].starts_with(|next: char| !next.is_whitespace() && next != ')');
        if negated {
            self.at += 1;
        }
        let filter = if self.peek() == Some('(') {
            self.group(depth)?
        } else if let Some(filter) = self.operator()? {
            filter
        } else {
            words(Texts::Any, self.phrase()?)
        };
        Ok(if negated { Filter::None(vec![filter]) } else { filter })
    }

    fn group(&mut self, depth: usize) -> Result<Filter, QueryError> {
        let open = self.at;
        if depth >= DEPTH_MAX {
            return Err(self.error(QueryErrorKind::TooDeep, open, open + 1));
        }
        self.at += 1;
        let filter = self.all(depth + 1)?;
        if self.peek() != Some(')') {
            return Err(self.error(QueryErrorKind::Unclosed, open, open + 1));
        }
        self.at += 1;
        filter.ok_or_else(|| self.error(QueryErrorKind::EmptyGroup, open, self.at))
    }

    /// `name:value`, when the name is that of an operator.
    fn operator(&mut self) -> Result<Option<Filter>, QueryError> {
        let start = self.at;
        let rest = self.rest();
        let Some(colon) = rest.find(|next: char| !(next.is_ascii_alphanumeric() || next == '_')) else {
            return Ok(None);
        };
        if !rest[colon..].starts_with(':') {
            return Ok(None);
        }
        let Some(operator) = Operator::named(&rest[..colon]) else { return Ok(None) };
        self.at += colon + 1;
        if self.peek().is_none_or(|next| next.is_whitespace() || next == ')') {
            return Err(self.error(QueryErrorKind::NoValue, start, self.at));
        }
        if self.peek() != Some('(') {
            return self.value(operator).map(Some);
        }
        // `from:(ann bob)`: each of them.
        let open = self.at;
        self.at += 1;
        let mut filters = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                Some(')') => break,
                None | Some('(') => return Err(self.error(QueryErrorKind::Unclosed, open, open + 1)),
                Some(_) => filters.push(self.value(operator)?),
            }
            self.terms += 1;
            if self.terms > TERMS_MAX {
                return Err(self.error(QueryErrorKind::TooManyTerms, open, self.query.len()));
            }
        }
        self.at += 1;
        if filters.is_empty() {
            return Err(self.error(QueryErrorKind::EmptyGroup, open, self.at));
        }
        Ok(Some(one_or(filters, Filter::All)))
    }

    fn value(&mut self, operator: Operator) -> Result<Filter, QueryError> {
        let start = self.at;
        let phrase = self.phrase()?;
        self.condition(operator, phrase).map_err(|kind| self.error(kind, start, self.at))
    }

    fn condition(&self, operator: Operator, phrase: Phrase) -> Result<Filter, QueryErrorKind> {
        let value = phrase.text.as_str();
        let keyword = |name: &str| Filter::Is(Condition::HasKeyword(name.to_owned()));
        let without = |name: &str| Filter::Is(Condition::NotKeyword(name.to_owned()));
        Ok(match operator {
            Operator::Words(texts) => words(texts, phrase),
            Operator::Has => match value.to_ascii_lowercase().as_str() {
                "attachment" | "attachments" => Filter::Is(Condition::HasAttachment(true)),
                _ => return Err(QueryErrorKind::UnknownHas),
            },
            Operator::In => Filter::Is(Condition::InMailbox(MailboxRef::Named(value.to_owned()))),
            Operator::Is => match value.to_ascii_lowercase().as_str() {
                "read" | "seen" => keyword("$seen"),
                "unread" | "unseen" => without("$seen"),
                "starred" | "flagged" => keyword("$flagged"),
                "answered" | "replied" => keyword("$answered"),
                "draft" => keyword("$draft"),
                _ => return Err(QueryErrorKind::UnknownIs),
            },
            Operator::Before => Filter::Is(Condition::Before(self.day(value)?)),
            Operator::After => Filter::Is(Condition::After(self.day(value)?)),
            Operator::OlderThan => Filter::Is(Condition::Before(self.ago(value)?)),
            Operator::NewerThan => Filter::Is(Condition::After(self.ago(value)?)),
            // JMAP's minSize is inclusive and its maxSize is not.
            Operator::Larger => Filter::Is(Condition::MinSize(size(value)?.saturating_add(1))),
            Operator::Smaller => Filter::Is(Condition::MaxSize(size(value)?)),
            Operator::List => header("List-Id", value),
            Operator::MessageId => header("Message-ID", value),
        })
    }

    /// A phrase between quotes, or what stands until white space or a parenthesis.
    fn phrase(&mut self) -> Result<Phrase, QueryError> {
        let start = self.at;
        if self.peek() == Some('"') {
            let rest = &self.rest()[1..];
            let Some((text, after)) = quoted(rest, '"') else {
                return Err(self.error(QueryErrorKind::OpenQuote, start, self.query.len()));
            };
            self.at = self.query.len() - after.len();
            return Ok(Phrase { text, is_prefix: false });
        }
        let rest = self.rest();
        let end = rest.find(|next: char| next.is_whitespace() || matches!(next, '(' | ')' | '"'));
        let end = end.unwrap_or(rest.len());
        self.at += end;
        Ok(Phrase::word(&rest[..end]))
    }

    /// The moment at which a day, a month or a year begins.
    fn day(&self, value: &str) -> Result<i64, QueryErrorKind> {
        let mut numbers = value.split(['-', '/', '.']);
        let mut number = |default: Option<i32>| match numbers.next() {
            Some(text) if (1..=4).contains(&text.len()) => text.parse().map_err(|_| QueryErrorKind::NotADate),
            Some(_) => Err(QueryErrorKind::NotADate),
            None => default.ok_or(QueryErrorKind::NotADate),
        };
        let (year, month, day) = (number(None)?, number(Some(1))?, number(Some(1))?);
        if numbers.next().is_some() || !(1000..=9999).contains(&year) {
            return Err(QueryErrorKind::NotADate);
        }
        let month = u8::try_from(month).ok().and_then(|month| Month::try_from(month).ok());
        let date = month
            .zip(u8::try_from(day).ok())
            .and_then(|(month, day)| Date::from_calendar_date(year, month, day).ok());
        let date = date.ok_or(QueryErrorKind::NotADate)?;
        let midnight = date.midnight().assume_offset(UtcOffset::UTC).unix_timestamp();
        Ok(midnight - i64::from(self.asked.zone_minutes) * 60)
    }

    /// The moment so long ago. Months and years are those of the calendar.
    fn ago(&self, value: &str) -> Result<i64, QueryErrorKind> {
        let unit = value.chars().next_back().ok_or(QueryErrorKind::NotASpan)?;
        let count = &value[..value.len() - unit.len_utf8()];
        let count: i64 = count.parse().map_err(|_| QueryErrorKind::NotASpan)?;
        if !(0..=100_000).contains(&count) {
            return Err(QueryErrorKind::NotASpan);
        }
        let months = match unit.to_ascii_lowercase() {
            'h' => return Ok(self.asked.now - count * 3600),
            'd' => return Ok(self.asked.now - count * 86_400),
            'w' => return Ok(self.asked.now - count * 7 * 86_400),
            'm' => count,
            'y' => count * 12,
            _ => return Err(QueryErrorKind::NotASpan),
        };
        let now =
            OffsetDateTime::from_unix_timestamp(self.asked.now).map_err(|_| QueryErrorKind::NotASpan)?;
        let total = i64::from(now.year()) * 12 + i64::from(u8::from(now.month())) - 1 - months;
        let (year, month) = (total.div_euclid(12), total.rem_euclid(12) as u8 + 1);
        let month = Month::try_from(month).map_err(|_| QueryErrorKind::NotASpan)?;
        // The 31st of a month that has none is its last day; before the calendar begins is before all mail.
        let date = i32::try_from(year).ok().and_then(|year| {
            (0..4).find_map(|less| Date::from_calendar_date(year, month, now.day().checked_sub(less)?).ok())
        });
        let Some(date) = date else { return Ok(i64::MIN) };
        Ok(now.replace_date(date).unix_timestamp())
    }

    fn is_or(&self) -> bool {
        self.rest().strip_prefix("OR").is_some_and(|rest| {
            rest.chars().next().is_none_or(|next| next.is_whitespace() || matches!(next, '(' | ')' | '"'))
        })
    }

    fn skip_space(&mut self) {
        self.at = self.query.len() - self.rest().trim_start().len();
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn rest(&self) -> &'a str {
        &self.query[self.at..]
    }

    fn error(&self, kind: QueryErrorKind, from: usize, to: usize) -> QueryError {
        QueryError { kind, from, to: to.min(self.query.len()) }
    }
}

#[derive(Clone, Copy)]
enum Operator {
    Words(Texts),
    Has,
    In,
    Is,
    Before,
    After,
    OlderThan,
    NewerThan,
    Larger,
    Smaller,
    List,
    MessageId,
}

impl Operator {
    fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "from" => Self::Words(Texts::From),
            "to" => Self::Words(Texts::To),
            "cc" => Self::Words(Texts::Cc),
            "bcc" => Self::Words(Texts::Bcc),
            "subject" => Self::Words(Texts::Subject),
            "body" => Self::Words(Texts::Body),
            "filename" => Self::Words(Texts::Filename),
            "has" => Self::Has,
            "in" => Self::In,
            "is" => Self::Is,
            "before" => Self::Before,
            "after" => Self::After,
            "older_than" => Self::OlderThan,
            "newer_than" => Self::NewerThan,
            "larger" => Self::Larger,
            "smaller" => Self::Smaller,
            "list" => Self::List,
            "rfc822msgid" => Self::MessageId,
            _ => return None,
        })
    }
}

fn words(texts: Texts, phrase: Phrase) -> Filter {
    Filter::Is(Condition::Words(Wanted { texts, phrases: vec![phrase], is_fuzzy: false }))
}

fn header(name: &str, value: &str) -> Filter {
    Filter::Is(Condition::Header { name: name.to_owned(), text: Some(value.to_owned()) })
}

fn size(value: &str) -> Result<u64, QueryErrorKind> {
    let value = value.strip_suffix(['b', 'B']).unwrap_or(value);
    let (digits, unit) = match value.chars().next_back() {
        Some('k' | 'K') => (&value[..value.len() - 1], 1 << 10),
        Some('m' | 'M') => (&value[..value.len() - 1], 1 << 20),
        Some('g' | 'G') => (&value[..value.len() - 1], 1 << 30),
        _ => (value, 1_u64),
    };
    let number: u64 = digits.parse().map_err(|_| QueryErrorKind::NotASize)?;
    number.checked_mul(unit).ok_or(QueryErrorKind::NotASize)
}

fn one_or(mut filters: Vec<Filter>, many: impl FnOnce(Vec<Filter>) -> Filter) -> Filter {
    if filters.len() == 1 { filters.remove(0) } else { many(filters) }
}

#[cfg(test)]
mod tests {
    use mail::id::EmailId;
    use proptest::prelude::*;

    use super::*;

    /// 2026-03-31T12:00:00Z, an hour east.
    const ASKED: Asked = Asked { now: 1_774_958_400, zone_minutes: 60 };

    fn shown(filter: &Filter) -> String {
        let list = |filters: &[Filter]| filters.iter().map(shown).collect::<Vec<_>>().join(" ");
        match filter {
            Filter::All(filters) => format!("all({})", list(filters)),
            Filter::Any(filters) => format!("any({})", list(filters)),
            Filter::None(filters) => format!("not({})", list(filters)),
            Filter::Is(Condition::Words(wanted)) => {
                let phrase = &wanted.phrases[0];
                let star = if phrase.is_prefix { "*" } else { "" };
                let place = format!("{:?}", wanted.texts).to_lowercase();
                format!("{place}={}{star}", phrase.text)
            }
            Filter::Is(condition) => format!("{condition:?}"),
        }
    }

    fn check(query: &str, expected: &str) {
        let filter = Filter::parse(query, ASKED).unwrap_or_else(|error| panic!("{query}: {error}"));
        assert_eq!(shown(&filter), expected, "{query}");
    }

    fn refused(query: &str, kind: QueryErrorKind, at: (usize, usize)) {
        let error = Filter::parse(query, ASKED).expect_err(query);
        assert_eq!((error.kind, (error.from, error.to)), (kind, at), "{query}");
    }

    #[test]
    fn words_and_operators() {
        check("", "all()");
        check("cats", "any=cats");
        check("cats dogs", "all(any=cats any=dogs)");
        check("cats OR dogs birds", "all(any(any=cats any=dogs) any=birds)");
        check("cats or dogs", "all(any=cats any=or any=dogs)");
        check(
            "from:ann -subject:\"out of office\" repo*",
            "all(from=ann not(subject=out of office) any=repo*)",
        );
        check("(a OR b) -(c d)", "all(any(any=a any=b) not(all(any=c any=d)))");
        check("((x))", "any=x");
        check("FROM:Ann to:b cc:c bcc:d filename:e.pdf", "all(from=Ann to=b cc=c bcc=d filename=e.pdf)");
        check(
            "12:30 re: http://x.test - a-b --x",
            "all(any=12:30 any=re: any=http://x.test any=- any=a-b not(any=-x))",
        );
        check("\"a \\\" b\"", "any=a \" b");
        check("日本 OR 東京", "any(any=日本 any=東京)");
        check("from:(ann \"b c\") x", "all(all(from=ann from=b c) any=x)");
        check("a(b)c", "all(any=a any=b any=c)");
        check("ORANGE", "any=ORANGE");
    }

    #[test]
    fn what_is_no_text() {
        check("has:attachment", "HasAttachment(true)");
        check("in:Archive", "InMailbox(Named(\"Archive\"))");
        check("in:\"Sent Items\"", "InMailbox(Named(\"Sent Items\"))");
        check("is:unread", "NotKeyword(\"$seen\")");
        check("is:Starred", "HasKeyword(\"$flagged\")");
        check("larger:10k", "MinSize(10241)");
        check("smaller:2MB", "MaxSize(2097152)");
        check("list:dev.example.test", "Header { name: \"List-Id\", text: Some(\"dev.example.test\") }");
        check("rfc822msgid:<a@b>", "Header { name: \"Message-ID\", text: Some(\"<a@b>\") }");
    }

    #[test]
    fn times_are_of_the_place_where_it_is_asked() {
        // Midnight an hour east is 23:00 UTC of the day before.
        check("after:1970-01-02", "After(82800)");
        check("before:1970/1/2", "Before(82800)");
        check("before:1971", "Before(31532400)");
        check("before:1970-02", "Before(2674800)");
        check("newer_than:2d", "After(1774785600)");
        check("older_than:1h", "Before(1774954800)");
        // A month before the 31st of March is the 28th of February.
        check("older_than:1m", "Before(1772280000)");
        check("older_than:1y", "Before(1743422400)");
        check("older_than:99999y", "Before(-9223372036854775808)");
    }

    #[test]
    fn errors_say_where() {
        refused("a (b", QueryErrorKind::Unclosed, (2, 3));
        refused("a) b", QueryErrorKind::Unopened, (1, 2));
        refused("OR a", QueryErrorKind::EmptyOr, (0, 2));
        refused("a OR", QueryErrorKind::EmptyOr, (2, 4));
        refused("a OR OR b", QueryErrorKind::EmptyOr, (2, 4));
        refused("x ()", QueryErrorKind::EmptyGroup, (2, 4));
        refused("from:", QueryErrorKind::NoValue, (0, 5));
        refused("from:(a", QueryErrorKind::Unclosed, (5, 6));
        refused("from:()", QueryErrorKind::EmptyGroup, (5, 7));
        refused("(a -", QueryErrorKind::Unclosed, (0, 1));
        refused("from: ann", QueryErrorKind::NoValue, (0, 5));
        refused("x \"open", QueryErrorKind::OpenQuote, (2, 7));
        refused("before:soon", QueryErrorKind::NotADate, (7, 11));
        refused("before:2026-02-30", QueryErrorKind::NotADate, (7, 17));
        refused("newer_than:5x", QueryErrorKind::NotASpan, (11, 13));
        refused("larger:big", QueryErrorKind::NotASize, (7, 10));
        refused("has:cheese", QueryErrorKind::UnknownHas, (4, 10));
        refused("is:odd", QueryErrorKind::UnknownIs, (3, 6));
        refused(&"(".repeat(40), QueryErrorKind::TooDeep, (32, 33));
        refused(&"a ".repeat(300), QueryErrorKind::TooManyTerms, (512, 600));
        refused(&"a".repeat(5000), QueryErrorKind::TooLong, (0, 5000));
    }

    proptest! {
        /// Whatever is typed is read or refused, with a place that is in it.
        #[test]
        fn never_a_panic(query in "[ ()\"a-cO R:*-]{0,40}|\\PC{0,30}|(from|before|older_than|larger|is):\\PC{0,8}") {
            match Filter::parse(&query, ASKED) {
                Ok(filter) => {
                    filter.matches(EmailId(1), &mut |_, _| true);
                }
                Err(error) => prop_assert!(error.from <= error.to && error.to <= query.len()),
            }
        }
    }
}
