//! SEARCH (RFC 9051 §6.4.4), ESEARCH (RFC 7377), SORT and THREAD (RFC 5256) as parsed.

use crate::mailbox_name::MailboxName;
use crate::page::Page;
use crate::sequence::SequenceSet;

/// A SEARCH or UID SEARCH command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// UID SEARCH: the answer holds UIDs.
    pub uid: bool,
    /// RETURN options (RFC 4731); `None`: the untagged SEARCH response of RFC 3501.
    pub returns: Option<SearchReturn>,
    /// The criteria; several are ANDed.
    pub key: SearchKey,
}

/// An ESEARCH command (RFC 7377): always with UIDs, and answered by extended responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiSearch {
    /// Where; without IN in the selected mailbox.
    pub sources: Vec<Source>,
    /// RETURN options.
    pub returns: SearchReturn,
    /// The criteria.
    pub key: SearchKey,
}

/// Which mailboxes (RFC 7377 §2.2). `selected-delayed` is a word of NOTIFY alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `selected`
    Selected,
    /// `inboxes`: where new mail may come.
    Inboxes,
    /// `personal`: all of the user's own.
    Personal,
    /// `subscribed`
    Subscribed,
    /// `subtree`: these and all below them.
    Subtree(Vec<MailboxName>),
    /// `subtree-one`: these and those one level below.
    SubtreeOne(Vec<MailboxName>),
    /// `mailboxes`: these.
    Mailboxes(Vec<MailboxName>),
}

/// A SORT or UID SORT command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sort {
    /// UID SORT: the answer holds UIDs.
    pub uid: bool,
    /// RETURN options (RFC 5267 §3); `None`: the untagged SORT response.
    pub returns: Option<SearchReturn>,
    /// In which order; what is equal by one is ordered by the next, and in the end by the message's number.
    pub order: Vec<SortCriterion>,
    /// Which messages.
    pub key: SearchKey,
}

/// One step of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortCriterion {
    /// REVERSE: descending.
    pub reverse: bool,
    /// By what.
    pub by: SortKey,
}

/// What messages are ordered by (RFC 5256 §3, RFC 5957).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortKey {
    /// The internal date with its time.
    Arrival,
    /// The local part of the first Cc address.
    Cc,
    /// The Date field as a moment; the internal date where it has none.
    Date,
    /// The name of the first From address as it is shown.
    DisplayFrom,
    /// The same of To.
    DisplayTo,
    /// The local part of the first From address.
    From,
    /// The size.
    Size,
    /// The base subject.
    Subject,
    /// The local part of the first To address.
    To,
    /// How well a message fits what is searched for fuzzily, the best first (RFC 6203 §6).
    Relevancy,
}

/// A THREAD or UID THREAD command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// UID THREAD: the answer holds UIDs.
    pub uid: bool,
    /// How messages find together.
    pub algorithm: ThreadAlgorithm,
    /// Which messages.
    pub key: SearchKey,
}

/// How messages find together (RFC 5256 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadAlgorithm {
    /// By base subject and date.
    OrderedSubject,
    /// By References, and then by base subject.
    References,
    /// By References alone (draft-ietf-morg-inthread).
    Refs,
}

/// What `RETURN (…)` named; an empty list means ALL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SearchReturn {
    /// MIN
    pub min: bool,
    /// MAX
    pub max: bool,
    /// ALL
    pub all: bool,
    /// COUNT
    pub count: bool,
    /// SAVE (RFC 5182)
    pub save: bool,
    /// PARTIAL (RFC 9394); never with ALL.
    pub partial: Option<Page>,
    /// RELEVANCY (RFC 6203 §4)
    pub relevancy: bool,
}

impl SearchReturn {
    /// Whether there is something to say: SAVE alone is answered with nothing (RFC 5182 §2.1).
    pub fn speaks(&self) -> bool {
        self.min || self.max || self.all || self.count || self.relevancy || self.partial.is_some()
    }
}

/// A search key. Text is UTF-8, whatever charset was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchKey {
    /// ALL
    All,
    /// A flag is set: ANSWERED, DELETED, DRAFT, FLAGGED, SEEN.
    Flag(SystemFlag),
    /// UNANSWERED, UNDELETED, UNDRAFT, UNFLAGGED, UNSEEN.
    NotFlag(SystemFlag),
    /// KEYWORD
    Keyword(String),
    /// UNKEYWORD
    NotKeyword(String),
    /// NEW: RECENT and UNSEEN.
    New,
    /// OLD: not RECENT.
    Old,
    /// RECENT
    Recent,
    /// A text in a header field: BCC, CC, FROM, SUBJECT, TO, HEADER. An empty text asks whether the field is there.
    Header {
        /// The field's name.
        name: String,
        /// The text.
        text: String,
    },
    /// BODY
    Body(String),
    /// TEXT
    Text(String),
    /// BEFORE, ON, SINCE: the internal date without its time and zone.
    Internal(DateTest, Date),
    /// SENTBEFORE, SENTON, SENTSINCE: the Date field likewise.
    Sent(DateTest, Date),
    /// OLDER (RFC 5032): the internal date is so many seconds ago, or more.
    Older(u64),
    /// YOUNGER (RFC 5032): at most so many.
    Younger(u64),
    /// LARGER
    Larger(u64),
    /// SMALLER
    Smaller(u64),
    /// Message numbers.
    Sequence(SequenceSet),
    /// UID
    Uid(SequenceSet),
    /// MODSEQ (RFC 7162 §3.1.5): at least this. The metadata item that may be named there changes nothing, since one
    /// number covers a message's flags and annotations.
    ModSeq(u64),
    /// NOT
    Not(Box<SearchKey>),
    /// OR
    Or(Box<SearchKey>, Box<SearchKey>),
    /// All of these.
    And(Vec<SearchKey>),
    /// FUZZY (RFC 6203 §3): this key, in whatever way finds what people mean.
    Fuzzy(Box<SearchKey>),
}

impl SearchKey {
    /// Whether MODSEQ occurs: the answer then carries the highest one found (RFC 7162 §3.1.5).
    pub fn has_mod_seq(&self) -> bool {
        self.any(&|key| matches!(key, Self::ModSeq(_)))
    }

    /// Whether FUZZY occurs: without it there is no relevancy (RFC 6203 §4).
    pub fn has_fuzzy(&self) -> bool {
        self.any(&|key| matches!(key, Self::Fuzzy(_)))
    }

    /// Whether `$` occurs, which is of the selected mailbox.
    pub fn has_saved(&self) -> bool {
        self.any(&|key| matches!(key, Self::Sequence(SequenceSet::Saved) | Self::Uid(SequenceSet::Saved)))
    }

    /// Whether a key or one within it is such a key.
    fn any(&self, is: &dyn Fn(&Self) -> bool) -> bool {
        is(self)
            || match self {
                Self::Not(key) | Self::Fuzzy(key) => key.any(is),
                Self::Or(a, b) => a.any(is) || b.any(is),
                Self::And(keys) => keys.iter().any(|key| key.any(is)),
                _ => false,
            }
    }
}

/// A flag with a search key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemFlag {
    /// `\Answered`
    Answered,
    /// `\Deleted`
    Deleted,
    /// `\Draft`
    Draft,
    /// `\Flagged`
    Flagged,
    /// `\Seen`
    Seen,
}

/// How a date is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DateTest {
    /// Earlier than the day.
    Before,
    /// On the day.
    On,
    /// On the day or later.
    Since,
}

/// A day, without time and zone (RFC 9051 §9 `date`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    /// Days since 1970-01-01.
    pub unix_days: i64,
}
