//! The fields of the index, and how a document becomes one of Tantivy's.

use mail::id::{AccountId, EmailId, ModSeq};
use tantivy::schema::{
    BytesOptions, Field, IndexRecordOption, NumericOptions, Schema, TantivyDocument, TextFieldIndexing,
    TextOptions,
};
use tantivy::tokenizer::{TextAnalyzer, Token, TokenStream, Tokenizer, TokenizerManager};
use tantivy::{Index, Term};

use crate::document::Document;
use crate::tokenize::words;

/// Number of this arrangement of fields, and of the rules by which texts become terms. Another one in a stored index
/// means a new generation.
pub(crate) const FORMAT: u32 = 1;

const TOKENIZER: &str = "words";

/// The fields.
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    schema: Schema,
    pub(crate) account: Field,
    pub(crate) marked: Field,
    pub(crate) email: Field,
    pub(crate) seq: Field,
    pub(crate) read: Field,
    pub(crate) date: Field,
    pub(crate) grams: Field,
    pub(crate) subject: Field,
    pub(crate) from: Field,
    pub(crate) to: Field,
    pub(crate) cc: Field,
    pub(crate) bcc: Field,
    pub(crate) filename: Field,
    pub(crate) body: Field,
    pub(crate) attached: Field,
}

/// Names of columns.
pub(crate) mod column {
    pub(crate) const EMAIL: &str = "email";
    pub(crate) const SEQ: &str = "seq";
    pub(crate) const READ: &str = "read";
}

/// How far an account is in the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// All emails up to this one are in the index, or gone.
    pub indexed: EmailId,
    /// Emails destroyed up to this operation are not in it any more.
    pub swept: ModSeq,
    /// The day, counted from 1970, on which the account was last read by its owner.
    pub read_day: u32,
}

impl Mark {
    /// Nothing is in the index.
    pub const NONE: Self = Self { indexed: EmailId(0), swept: ModSeq(0), read_day: 0 };
}

impl Fields {
    pub(crate) fn new() -> Self {
        let mut builder = Schema::builder();
        let key = || BytesOptions::default().set_indexed();
        let column = || NumericOptions::default().set_fast();
        let text = || {
            let indexing = TextFieldIndexing::default()
                .set_tokenizer(TOKENIZER)
                .set_index_option(IndexRecordOption::WithFreqsAndPositions);
            TextOptions::default().set_indexing_options(indexing)
        };
        let account = builder.add_bytes_field("account", key());
        let marked = builder.add_bytes_field("marked", key());
        let email = builder.add_u64_field(column::EMAIL, column().set_indexed());
        let seq = builder.add_u64_field(column::SEQ, column());
        let read = builder.add_u64_field(column::READ, column());
        let date = builder.add_i64_field("date", column());
        let grams = builder.add_u64_field("grams", NumericOptions::default().set_indexed());
        let [subject, from, to, cc, bcc, filename, body, attached] =
            ["subject", "from", "to", "cc", "bcc", "filename", "body", "attached"]
                .map(|name| builder.add_text_field(name, text()));
        let schema = builder.build();
        Self {
            schema,
            account,
            marked,
            email,
            seq,
            read,
            date,
            grams,
            subject,
            from,
            to,
            cc,
            bcc,
            filename,
            body,
            attached,
        }
    }

    pub(crate) fn schema(&self) -> Schema {
        self.schema.clone()
    }

    /// How words are cut.
    pub(crate) fn tokenizers() -> TokenizerManager {
        let tokenizers = TokenizerManager::default();
        tokenizers.register(TOKENIZER, TextAnalyzer::from(Words));
        tokenizers
    }

    /// Tells an index that.
    pub(crate) fn register(index: &mut Index) {
        index.set_tokenizers(Self::tokenizers());
    }

    pub(crate) fn account_term(&self, account: AccountId) -> Term {
        Term::from_field_bytes(self.account, account.0.as_bytes())
    }

    pub(crate) fn mark_term(&self, account: AccountId) -> Term {
        Term::from_field_bytes(self.marked, account.0.as_bytes())
    }

    pub(crate) fn document(&self, account: AccountId, document: &Document) -> TantivyDocument {
        let mut out = TantivyDocument::default();
        out.add_bytes(self.account, account.0.as_bytes());
        out.add_u64(self.email, document.email.0);
        out.add_i64(self.date, document.date);
        for gram in &document.grams {
            out.add_u64(self.grams, *gram);
        }
        let texts = &document.texts;
        let of = [
            (self.subject, &texts.subject),
            (self.from, &texts.from),
            (self.to, &texts.to),
            (self.cc, &texts.cc),
            (self.bcc, &texts.bcc),
            (self.filename, &texts.filename),
            (self.body, &texts.body),
            (self.attached, &texts.attached),
        ];
        for (field, text) in of {
            if !text.is_empty() {
                out.add_text(field, text);
            }
        }
        out
    }

    pub(crate) fn mark(&self, account: AccountId, mark: Mark) -> TantivyDocument {
        let mut out = TantivyDocument::default();
        out.add_bytes(self.marked, account.0.as_bytes());
        out.add_u64(self.email, mark.indexed.0);
        out.add_u64(self.seq, mark.swept.0);
        out.add_u64(self.read, u64::from(mark.read_day));
        out
    }
}

/// The tokenizer that Tantivy calls: [`words`], gathered, since its callbacks cannot be paused.
#[derive(Clone)]
struct Words;

struct WordStream {
    /// All words, one after the other.
    text: String,
    /// Of each word: where it ends in `text`, and its position.
    ends: Vec<(u32, u32)>,
    next: usize,
    token: Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream {
        let mut stream = WordStream {
            text: String::with_capacity(text.len()),
            ends: Vec::new(),
            next: 0,
            token: Token::default(),
        };
        words(text, |word| {
            stream.text.push_str(word.text);
            stream.ends.push((stream.text.len() as u32, word.position as u32));
        });
        stream
    }
}

impl TokenStream for WordStream {
    fn advance(&mut self) -> bool {
        let Some((end, position)) = self.ends.get(self.next).copied() else { return false };
        let start = self.next.checked_sub(1).map_or(0, |before| self.ends[before].0 as usize);
        self.token.text.clear();
        self.token.text.push_str(&self.text[start..end as usize]);
        self.token.position = position as usize;
        self.token.position_length = 1;
        self.next += 1;
        true
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}
