//! Finding messages by their text.
//!
//! What is looked for is words (RFC 8621 §4.4.1 leaves the rule to us), and `search` has the rule: a text is cut into words
//! as the index cuts it (`search::tokenize`), without case, accents and width, scripts without spaces into pairs of
//! characters. All words of a value have to be there, in any order and in any of the fields that are looked into; what
//! stands between quotation marks stands in this order; a star behind a word makes it the beginning of one. A value
//! without any word asks for nothing, and everything has that.
//!
//! [`Indexed`] asks the index, [`Scan`] reads the messages. Both take the same texts of a message and the same rule, so
//! that they find the same. In a field that is not indexed by itself (`header`) the words have to stand in one value.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use jmap_protocol::object::filter::{TextField, TextTest};
use mail::id::EmailId;
use search::document::Texts;
use search::{Candidates, Look, Needle, Place, Reach, Search, TextLimits, Texts as Where, Wanted};
use storage::{Account, BodyError, EmailRecord};

use super::message::field::Fields;
use super::message::octets::Octets;

/// Finds messages by their text.
#[async_trait]
pub trait TextSearch: Send + Sync {
    /// For each test, which of the emails hold its text. What arrived a moment ago is among what is found.
    async fn find(&self, query: &TextQuery<'_>) -> Result<Vec<HashSet<EmailId>>, TextError>;

    /// How much of a message is looked at.
    fn limits(&self) -> TextLimits;
}

/// What is to be found.
#[derive(Clone, Copy, Debug)]
pub struct TextQuery<'a> {
    /// Where.
    pub account: &'a Account,
    /// What.
    pub tests: &'a [TextTest],
    /// Among which emails.
    pub among: &'a [EmailId],
    /// How many messages may be read for it.
    pub reads_max: usize,
}

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// More messages would have to be read than may be.
    #[error("too many messages would have to be looked into")]
    TooMany,
    /// A message cannot be read.
    #[error(transparent)]
    Body(#[from] BodyError),
}

/// Reads the messages themselves.
#[derive(Clone, Copy, Debug)]
pub struct Scan {
    /// Octets of a header that are looked at for its fields.
    pub header_bytes_max: u64,
    /// How much of a message is looked at for its words; the same as by an index that it stands in for.
    pub limits: TextLimits,
}

/// Asks the index, and reads what the index does not know yet.
#[derive(Clone, Debug)]
pub struct Indexed {
    search: Search,
    scan: Scan,
}

impl Default for Scan {
    fn default() -> Self {
        Self { header_bytes_max: 1 << 20, limits: TextLimits::default() }
    }
}

impl Indexed {
    /// By this index.
    pub fn new(search: Search) -> Self {
        let scan = Scan { limits: search.text_limits(), ..Scan::default() };
        Self { search, scan }
    }
}

/// Records that are asked for at a time.
const RECORDS_AT_ONCE: usize = 256;

/// A test as search means it.
struct Asked {
    /// `None`: in the texts that are indexed. Else in a field of this name.
    field: Option<String>,
    wanted: Wanted,
    look: Look,
}

/// By email, the numbers of the tests that it has to be read for.
type Open = BTreeMap<EmailId, Vec<usize>>;

#[async_trait]
impl TextSearch for Scan {
    async fn find(&self, query: &TextQuery<'_>) -> Result<Vec<HashSet<EmailId>>, TextError> {
        let asked: Vec<Asked> = query.tests.iter().map(Asked::of).collect();
        let mut found = vec![HashSet::new(); asked.len()];
        let all: Vec<usize> = (0..asked.len()).collect();
        let open = query.among.iter().map(|email| (*email, all.clone())).collect();
        self.read(query, &asked, &open, &mut found).await?;
        Ok(found)
    }

    fn limits(&self) -> TextLimits {
        self.limits
    }
}

#[async_trait]
impl TextSearch for Indexed {
    async fn find(&self, query: &TextQuery<'_>) -> Result<Vec<HashSet<EmailId>>, TextError> {
        let asked: Vec<Asked> = query.tests.iter().map(Asked::of).collect();
        let mut found = vec![HashSet::new(); asked.len()];
        let mut open = Open::new();
        for (at, (asked, found)) in asked.iter().zip(&mut found).enumerate() {
            let known = self.known(query.account, asked).await;
            for email in query.among {
                match known.holds(*email) {
                    Some(true) => {
                        found.insert(*email);
                    }
                    Some(false) => {}
                    None => open.entry(*email).or_default().push(at),
                }
            }
        }
        self.scan.read(query, &asked, &open, &mut found).await?;
        Ok(found)
    }

    fn limits(&self) -> TextLimits {
        self.scan.limits
    }
}

/// What the index says to one test.
enum Known {
    /// It holds of all.
    All,
    /// Words were found there.
    Words(search::Found),
    /// It may hold of these.
    Candidates(Candidates),
}

impl Known {
    /// Whether an email passes the test. `None`: it has to be read.
    fn holds(&self, email: EmailId) -> Option<bool> {
        match self {
            Self::All => Some(true),
            Self::Words(found) => found.holds(email),
            Self::Candidates(candidates) => {
                if candidates.may_hold(email) {
                    None
                } else {
                    Some(false)
                }
            }
        }
    }
}

impl Indexed {
    async fn known(&self, account: &Account, asked: &Asked) -> Known {
        if let Some(name) = &asked.field {
            // The index knows where such a field may be; its words are folded otherwise than these.
            let needle = Needle { place: Place::Field(name.clone()), text: String::new() };
            return Known::Candidates(self.search.candidates(account.id(), &[needle]).await);
        }
        if asked.wanted.is_empty() {
            return Known::All;
        }
        Known::Words(self.search.find_indexed(account, &asked.wanted).await)
    }
}

/// Where search looks for the words of a text. `None`: in a field that is not indexed by itself.
fn place(field: &TextField) -> Option<Where> {
    Some(match field {
        TextField::Text => Where::Any,
        TextField::From => Where::From,
        TextField::To => Where::To,
        TextField::Cc => Where::Cc,
        TextField::Bcc => Where::Bcc,
        TextField::Subject => Where::Subject,
        TextField::Body => Where::Body,
        TextField::Header(_) => return None,
    })
}

/// What a test looks for in the texts of an email.
pub(super) fn wanted(test: &TextTest) -> Option<Wanted> {
    place(&test.field).map(|place| Wanted::read(place, &test.text))
}

impl Asked {
    fn of(test: &TextTest) -> Self {
        let wanted = Wanted::read(place(&test.field).unwrap_or(Where::Any), &test.text);
        let field = match &test.field {
            TextField::Header(name) => Some(name.clone()),
            _ => None,
        };
        let look = Look::new(&wanted);
        Self { field, wanted, look }
    }

    /// How much of a message has to be read.
    fn reach(&self) -> Reach {
        match self.wanted.texts {
            Where::Subject | Where::From | Where::To | Where::Cc | Where::Bcc => Reach::Header,
            Where::Any | Where::Body | Where::Filename => Reach::Whole,
        }
    }
}

impl Scan {
    /// Reads what is open, and adds it where it was found.
    async fn read(
        &self,
        query: &TextQuery<'_>,
        asked: &[Asked],
        open: &Open,
        found: &mut [HashSet<EmailId>],
    ) -> Result<(), TextError> {
        if open.len() > query.reads_max {
            return Err(TextError::TooMany);
        }
        let emails: Vec<EmailId> = open.keys().copied().collect();
        for emails in emails.chunks(RECORDS_AT_ONCE) {
            let records = query.account.emails(emails).await.map_err(BodyError::from)?;
            for record in records.into_iter().flatten() {
                let numbers = open.get(&record.id).map(Vec::as_slice).unwrap_or_default();
                let tests: Vec<&Asked> = numbers.iter().map(|number| &asked[*number]).collect();
                let held = self.look(query.account, &record, &tests).await?;
                for (number, _) in numbers.iter().zip(held).filter(|(_, held)| *held) {
                    found[*number].insert(record.id);
                }
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Which tests an email passes.
    async fn look(
        &self,
        account: &Account,
        record: &Arc<EmailRecord>,
        tests: &[&Asked],
    ) -> Result<Vec<bool>, BodyError> {
        let mut held = Vec::with_capacity(tests.len());
        let (mut fields, mut header, mut whole) = (None, None, None);
        for test in tests {
            if let Some(name) = &test.field {
                if fields.is_none() {
                    fields = Some(self.fields(account, record).await?);
                }
                let values = fields.as_ref().map(|fields: &Fields| fields.texts(name)).unwrap_or_default();
                let holds = |value: &String| test.wanted.is_empty() || test.look.finds_in(&[value.as_str()]);
                held.push(values.iter().any(holds));
                continue;
            }
            if test.wanted.is_empty() {
                held.push(true);
                continue;
            }
            // What the header holds already needs no look at the body.
            if whole.is_none() && header.is_none() && test.wanted.texts != Where::Body {
                header = Some(Texts::of(account, record, &self.limits, Reach::Header).await?);
            }
            if header.as_ref().or(whole.as_ref()).is_some_and(|texts| test.look.finds(texts)) {
                held.push(true);
                continue;
            }
            if test.reach() == Reach::Whole && whole.is_none() {
                whole = Some(Texts::of(account, record, &self.limits, Reach::Whole).await?);
            }
            held.push(whole.as_ref().is_some_and(|texts| test.look.finds(texts)));
        }
        Ok(held)
    }

    async fn fields(&self, account: &Account, record: &EmailRecord) -> Result<Fields, BodyError> {
        let octets = Octets::of(account.body(record).await?);
        Ok(Fields::parse(octets.within(0..record.header_len).read(self.header_bytes_max).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_become_questions_rfc8621_4_4_1() {
        let asked = |field: TextField, text: &str| Asked::of(&TextTest { field, text: text.to_owned() });
        let text = asked(TextField::Text, r#"Käse "ein Brot""#);
        assert_eq!((text.wanted.texts, text.wanted.phrases.len()), (Where::Any, 2));
        assert!(text.field.is_none() && text.reach() == Reach::Whole);
        assert!(asked(TextField::From, "x").reach() == Reach::Header);
        assert!(asked(TextField::Body, " \"\" ").wanted.is_empty());
        let header = asked(TextField::Header("X-Mark".to_owned()), "two");
        assert_eq!(header.field.as_deref(), Some("X-Mark"));
        assert!(header.look.finds_in(&["one, TWO"]) && !header.look.finds_in(&["one"]));
    }
}
