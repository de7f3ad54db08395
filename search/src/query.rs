//! Questions to an index, about one account.

use mail::id::{AccountId, EmailId, ModSeq};
use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::Column;
use tantivy::query::{
    BooleanQuery, BoostQuery, EmptyQuery, FuzzyTermQuery, Occur, PhraseQuery, Query, TermQuery,
};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocId, DocSet, Score, Searcher, SegmentReader, TERMINATED, Term};

use crate::ask::{self, Ask};
use crate::filter::{Texts, Wanted};
use crate::gram::{Needle, PARTIAL};
use crate::schema::{Fields, Mark, column};

/// How far an account is.
pub(crate) fn mark(searcher: &Searcher, fields: &Fields, account: AccountId) -> tantivy::Result<Mark> {
    let term = fields.mark_term(account);
    let mut mark: Option<Mark> = None;
    for segment in searcher.segment_readers() {
        let index = segment.inverted_index(fields.marked)?;
        let Some(mut postings) = index.read_postings(&term, IndexRecordOption::Basic)? else { continue };
        let columns = segment.fast_fields();
        let (email, seq, read) =
            (columns.u64(column::EMAIL)?, columns.u64(column::SEQ)?, columns.u64(column::READ)?);
        let mut document = postings.doc();
        while document != TERMINATED {
            if segment.alive_bitset().is_none_or(|alive| alive.is_alive(document)) {
                let found = Mark {
                    indexed: EmailId(email.first(document).unwrap_or(0)),
                    swept: ModSeq(seq.first(document).unwrap_or(0)),
                    read_day: read.first(document).unwrap_or(0) as u32,
                };
                // There is one. If there were two, the lesser would be the one that promises less.
                mark = Some(mark.filter(|mark| mark.indexed <= found.indexed).unwrap_or(found));
            }
            document = postings.advance();
        }
    }
    Ok(mark.unwrap_or(Mark::NONE))
}

/// All emails of an account that are in the index, ascending.
pub(crate) fn all_emails(
    searcher: &Searcher,
    fields: &Fields,
    account: AccountId,
) -> tantivy::Result<Vec<u64>> {
    searcher.search(&exactly(fields.account_term(account)), &Emails)
}

/// Emails that may hold all of the needles, ascending. `None`: any may.
pub(crate) fn candidates(
    searcher: &Searcher,
    fields: &Fields,
    account: AccountId,
    needles: &[Needle],
    grams_max: usize,
) -> tantivy::Result<Option<Vec<u64>>> {
    let of = |gram: u64| exactly(Term::from_field_u64(fields.grams, gram));
    let mut all: Vec<Box<dyn Query>> = Vec::new();
    for needle in needles {
        let Some(lists) = needle.grams(grams_max.max(1)) else { continue };
        let mut any = vec![of(PARTIAL)];
        any.extend(lists.into_iter().map(|list| all_of(list.into_iter().map(of).collect())));
        all.push(Box::new(BooleanQuery::union(any)));
    }
    if all.is_empty() {
        return Ok(None);
    }
    all.push(exactly(fields.account_term(account)));
    searcher.search(&BooleanQuery::intersection(all), &Emails).map(Some)
}

/// An email that words were found in.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Hit {
    /// Which email.
    pub email: EmailId,
    /// How well it fits; to compare hits of one answer with one another.
    pub score: f32,
}

/// Emails in which what is wanted is found, ascending by number.
pub(crate) fn words(
    searcher: &Searcher,
    fields: &Fields,
    account: AccountId,
    wanted: &Wanted,
) -> tantivy::Result<Vec<Hit>> {
    let account = Box::new(BoostQuery::new(exactly(fields.account_term(account)), 0.0));
    let clauses: Vec<(Occur, Box<dyn Query>)> =
        vec![(Occur::Must, account), (Occur::Must, wanted_query(fields, wanted))];
    searcher.search(&BooleanQuery::new(clauses), &Scored)
}

fn wanted_query(fields: &Fields, wanted: &Wanted) -> Box<dyn Query> {
    let places: &[(Field, f32)] = match wanted.texts {
        Texts::Any => &[
            (fields.subject, 3.0),
            (fields.from, 2.0),
            (fields.to, 1.5),
            (fields.cc, 1.0),
            (fields.bcc, 1.0),
            (fields.filename, 1.5),
            (fields.body, 1.0),
            (fields.attached, 0.7),
        ],
        Texts::Subject => &[(fields.subject, 1.0)],
        Texts::From => &[(fields.from, 1.0)],
        Texts::To => &[(fields.to, 1.0)],
        Texts::Cc => &[(fields.cc, 1.0)],
        Texts::Bcc => &[(fields.bcc, 1.0)],
        Texts::Body => &[(fields.body, 1.0), (fields.attached, 0.7)],
        Texts::Filename => &[(fields.filename, 1.0)],
    };
    // Each phrase may be found somewhere else.
    let phrases = ask::phrases(wanted).map(|phrase| {
        let places = places.iter().map(|(field, boost)| {
            Box::new(BoostQuery::new(field_query(*field, &phrase), *boost)) as Box<dyn Query>
        });
        any_of(places.collect())
    });
    all_of(phrases.collect())
}

/// What a field has to hold, as Tantivy is asked for it.
fn field_query(field: Field, ask: &Ask) -> Box<dyn Query> {
    let term = |text: &str| Term::from_field_text(field, text);
    let each =
        |asks: &[Ask]| -> Vec<Box<dyn Query>> { asks.iter().map(|ask| field_query(field, ask)).collect() };
    match ask {
        Ask::Nothing => Box::new(EmptyQuery),
        Ask::Word(text) => Box::new(TermQuery::new(term(text), IndexRecordOption::WithFreqs)),
        Ask::Beginning(text) => Box::new(FuzzyTermQuery::new_prefix(term(text), 0, true)),
        Ask::Nearly(text, slips) => Box::new(FuzzyTermQuery::new(term(text), *slips, true)),
        Ask::InRow(row) => {
            Box::new(PhraseQuery::new_with_offset(row.iter().map(|(at, text)| (*at, term(text))).collect()))
        }
        Ask::All(asks) => all_of(each(asks)),
        Ask::Any(asks) => any_of(each(asks)),
    }
}

fn exactly(term: Term) -> Box<dyn Query> {
    Box::new(TermQuery::new(term, IndexRecordOption::Basic))
}

fn all_of(mut queries: Vec<Box<dyn Query>>) -> Box<dyn Query> {
    match queries.len() {
        0 => Box::new(EmptyQuery),
        1 => queries.remove(0),
        _ => Box::new(BooleanQuery::intersection(queries)),
    }
}

fn any_of(mut queries: Vec<Box<dyn Query>>) -> Box<dyn Query> {
    match queries.len() {
        0 => Box::new(EmptyQuery),
        1 => queries.remove(0),
        _ => Box::new(BooleanQuery::union(queries)),
    }
}

/// Collects the numbers of emails.
struct Emails;

struct EmailsOfSegment {
    column: Column<u64>,
    found: Vec<u64>,
}

impl Collector for Emails {
    type Fruit = Vec<u64>;
    type Child = EmailsOfSegment;

    fn for_segment(&self, _: u32, segment: &SegmentReader) -> tantivy::Result<EmailsOfSegment> {
        Ok(EmailsOfSegment { column: segment.fast_fields().u64(column::EMAIL)?, found: Vec::new() })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, fruits: Vec<Vec<u64>>) -> tantivy::Result<Vec<u64>> {
        let mut all = fruits.concat();
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }
}

impl SegmentCollector for EmailsOfSegment {
    type Fruit = Vec<u64>;

    fn collect(&mut self, document: DocId, _: Score) {
        self.found.extend(self.column.first(document));
    }

    fn harvest(self) -> Vec<u64> {
        self.found
    }
}

/// The same with how well they fit.
struct Scored;

struct ScoredOfSegment {
    column: Column<u64>,
    found: Vec<Hit>,
}

impl Collector for Scored {
    type Fruit = Vec<Hit>;
    type Child = ScoredOfSegment;

    fn for_segment(&self, _: u32, segment: &SegmentReader) -> tantivy::Result<ScoredOfSegment> {
        Ok(ScoredOfSegment { column: segment.fast_fields().u64(column::EMAIL)?, found: Vec::new() })
    }

    fn requires_scoring(&self) -> bool {
        true
    }

    fn merge_fruits(&self, fruits: Vec<Vec<Hit>>) -> tantivy::Result<Vec<Hit>> {
        let mut all = fruits.concat();
        all.sort_unstable_by_key(|hit| hit.email);
        Ok(all)
    }
}

impl SegmentCollector for ScoredOfSegment {
    type Fruit = Vec<Hit>;

    fn collect(&mut self, document: DocId, score: Score) {
        let email = self.column.first(document).map(EmailId);
        self.found.extend(email.map(|email| Hit { email, score }));
    }

    fn harvest(self) -> Vec<Hit> {
        self.found
    }
}
