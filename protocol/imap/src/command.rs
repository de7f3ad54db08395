//! Commands as the service sees them: parsed, decoded, and legal in the state that the connection is in.

use std::fmt;

use mail::flag::FlagSet;
use sasl::Password;

use crate::fetch::FetchItem;
use crate::mailbox_name::MailboxName;
use crate::page::Page;
use crate::search::{MultiSearch, Search, Sort, Thread};
use crate::sequence::SequenceSet;

/// A command's tag (RFC 9051 §2.2.1).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Tag(pub(crate) Box<str>);

impl Tag {
    /// The tag's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({})", self.0)
    }
}

/// What a client asks for. STARTTLS, LOGOUT, AUTHENTICATE, APPEND and IDLE have events of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// CAPABILITY (RFC 9051 §6.1.1).
    Capability,
    /// NOOP (§6.1.2).
    Noop,
    /// ID (RFC 2971): what the client says about itself; empty for NIL.
    Id(Vec<(String, Option<String>)>),
    /// LOGIN (RFC 9051 §6.2.3).
    Login {
        /// The user name.
        user: String,
        /// The password.
        password: Password,
    },
    /// ENABLE (§6.3.1), in upper case.
    Enable(Vec<String>),
    /// SELECT and EXAMINE (§6.3.2, §6.3.3).
    Select(Select),
    /// CREATE (§6.3.4), with the special uses of RFC 6154 §3.
    Create {
        /// The new mailbox.
        mailbox: MailboxName,
        /// Whether the name ended in the hierarchy separator: a parent of mailboxes to come.
        parent_only: bool,
        /// The attributes asked for; more than one is possible by the grammar.
        uses: Vec<SpecialUse>,
    },
    /// DELETE (RFC 9051 §6.3.5).
    Delete(MailboxName),
    /// RENAME (§6.3.6).
    Rename {
        /// The present name.
        from: MailboxName,
        /// The new name.
        to: MailboxName,
    },
    /// SUBSCRIBE (§6.3.7).
    Subscribe(MailboxName),
    /// UNSUBSCRIBE (§6.3.8).
    Unsubscribe(MailboxName),
    /// LIST (§6.3.9).
    List(List),
    /// LSUB (RFC 3501 §6.3.9).
    Lsub {
        /// The reference name.
        reference: String,
        /// The pattern.
        pattern: String,
    },
    /// NAMESPACE (RFC 9051 §6.3.10).
    Namespace,
    /// STATUS (§6.3.11).
    Status {
        /// The mailbox asked about.
        mailbox: MailboxName,
        /// What is asked.
        items: Vec<StatusItem>,
    },
    /// CHECK (RFC 3501 §6.4.1).
    Check,
    /// CLOSE (RFC 9051 §6.4.1).
    Close,
    /// UNSELECT (§6.4.2).
    Unselect,
    /// EXPUNGE (§6.4.3).
    Expunge,
    /// UID EXPUNGE (§6.4.9).
    UidExpunge(SequenceSet),
    /// SEARCH and UID SEARCH (§6.4.4).
    Search(Box<Search>),
    /// ESEARCH (RFC 7377).
    MultiSearch(Box<MultiSearch>),
    /// SORT, UID SORT
    Sort(Box<Sort>),
    /// THREAD, UID THREAD
    Thread(Box<Thread>),
    /// FETCH and UID FETCH (§6.4.5).
    Fetch(Fetch),
    /// STORE and UID STORE (§6.4.6).
    Store(Store),
    /// COPY and UID COPY (§6.4.7).
    Copy(Copy),
    /// MOVE and UID MOVE (§6.4.8).
    Move(Copy),
}

/// What SELECT or EXAMINE opens, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Select {
    /// The mailbox.
    pub mailbox: MailboxName,
    /// EXAMINE: nothing is to be changed.
    pub read_only: bool,
    /// CONDSTORE was named (RFC 7162 §3.1.8).
    pub condstore: bool,
    /// What the client knows, for quick resynchronisation (RFC 7162 §3.2.5).
    pub qresync: Option<Qresync>,
}

/// The parameters of `SELECT … (QRESYNC (…))`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qresync {
    /// The last known UIDVALIDITY.
    pub uid_validity: u32,
    /// The last known modification sequence.
    pub mod_seq: u64,
    /// The UIDs that the client knows; absent: all.
    pub known_uids: Option<SequenceSet>,
    /// Message numbers and the UIDs that the client had there, as a help to the server.
    pub match_data: Option<(SequenceSet, SequenceSet)>,
}

/// A special use of a mailbox (RFC 6154).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialUse {
    /// `\All`
    All,
    /// `\Archive`
    Archive,
    /// `\Drafts`
    Drafts,
    /// `\Flagged`
    Flagged,
    /// `\Junk`
    Junk,
    /// `\Sent`
    Sent,
    /// `\Trash`
    Trash,
    /// `\Important` (RFC 8457)
    Important,
}

impl SpecialUse {
    /// The attribute's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "\\All",
            Self::Archive => "\\Archive",
            Self::Drafts => "\\Drafts",
            Self::Flagged => "\\Flagged",
            Self::Junk => "\\Junk",
            Self::Sent => "\\Sent",
            Self::Trash => "\\Trash",
            Self::Important => "\\Important",
        }
    }

    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        [
            Self::All,
            Self::Archive,
            Self::Drafts,
            Self::Flagged,
            Self::Junk,
            Self::Sent,
            Self::Trash,
            Self::Important,
        ]
        .into_iter()
        .find(|special_use| special_use.as_str().as_bytes().eq_ignore_ascii_case(name))
    }
}

/// LIST with the options of RFC 5258, 5819 and 6154.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct List {
    /// The reference name.
    pub reference: String,
    /// The patterns, decoded; one or, in parentheses, several.
    pub patterns: Vec<String>,
    /// Whether the extended syntax was used: then `\HasChildren` and the rest are as RFC 5258 wants.
    pub extended: bool,
    /// Selection options.
    pub select: ListSelect,
    /// Return options.
    pub returns: ListReturn,
}

/// LIST selection options (RFC 5258 §3.1, RFC 6154 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ListSelect {
    /// SUBSCRIBED
    pub subscribed: bool,
    /// REMOTE: changes nothing here.
    pub remote: bool,
    /// RECURSIVEMATCH
    pub recursive_match: bool,
    /// SPECIAL-USE
    pub special_use: bool,
}

/// LIST return options (RFC 5258 §3.2, RFC 5819, RFC 6154 §2).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ListReturn {
    /// SUBSCRIBED
    pub subscribed: bool,
    /// CHILDREN
    pub children: bool,
    /// SPECIAL-USE
    pub special_use: bool,
    /// STATUS, with its items.
    pub status: Option<Vec<StatusItem>>,
}

/// What STATUS can be asked for (RFC 9051 §6.3.11, RFC 7162 §3.1.7, RFC 7889 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusItem {
    /// MESSAGES
    Messages,
    /// RECENT (RFC 3501)
    Recent,
    /// UIDNEXT
    UidNext,
    /// UIDVALIDITY
    UidValidity,
    /// UNSEEN
    Unseen,
    /// DELETED
    Deleted,
    /// SIZE
    Size,
    /// HIGHESTMODSEQ
    HighestModSeq,
    /// APPENDLIMIT
    AppendLimit,
}

impl StatusItem {
    /// The item's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "MESSAGES",
            Self::Recent => "RECENT",
            Self::UidNext => "UIDNEXT",
            Self::UidValidity => "UIDVALIDITY",
            Self::Unseen => "UNSEEN",
            Self::Deleted => "DELETED",
            Self::Size => "SIZE",
            Self::HighestModSeq => "HIGHESTMODSEQ",
            Self::AppendLimit => "APPENDLIMIT",
        }
    }

    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        [
            Self::Messages,
            Self::Recent,
            Self::UidNext,
            Self::UidValidity,
            Self::Unseen,
            Self::Deleted,
            Self::Size,
            Self::HighestModSeq,
            Self::AppendLimit,
        ]
        .into_iter()
        .find(|item| item.as_str().as_bytes().eq_ignore_ascii_case(name))
    }
}

/// FETCH and UID FETCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Whether `set` holds UIDs.
    pub uid: bool,
    /// The messages.
    pub set: SequenceSet,
    /// What is asked for; macros are expanded.
    pub items: Vec<FetchItem>,
    /// CHANGEDSINCE (RFC 7162 §3.1.4).
    pub changed_since: Option<u64>,
    /// VANISHED (RFC 7162 §3.2.6): only with UID FETCH and CHANGEDSINCE.
    pub vanished: bool,
    /// PARTIAL (RFC 9394 §3.3): of the messages that would be told of, only these; only with UID FETCH.
    pub partial: Option<Page>,
}

/// What STORE does with the flags named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreAction {
    /// `FLAGS`
    Replace,
    /// `+FLAGS`
    Add,
    /// `-FLAGS`
    Remove,
}

/// STORE and UID STORE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Whether `set` holds UIDs.
    pub uid: bool,
    /// The messages.
    pub set: SequenceSet,
    /// UNCHANGEDSINCE (RFC 7162 §3.1.3).
    pub unchanged_since: Option<u64>,
    /// What is done.
    pub action: StoreAction,
    /// `.SILENT`: the client does not want to hear the new value.
    pub silent: bool,
    /// The flags.
    pub flags: FlagSet,
}

/// COPY, MOVE and their UID forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Whether `set` holds UIDs.
    pub uid: bool,
    /// The messages.
    pub set: SequenceSet,
    /// The target.
    pub mailbox: MailboxName,
}

/// The start of an APPEND (RFC 9051 §6.3.12): the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// Where the messages go.
    pub mailbox: MailboxName,
    /// The first message.
    pub message: AppendMessage,
}

/// What is said about a message before its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendMessage {
    /// Flags to be set.
    pub flags: FlagSet,
    /// The internal date; absent: the time of the append.
    pub internal_date: Option<DateTime>,
    /// The size announced, in octets.
    pub size: u64,
}

/// A point in time with the offset it was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime {
    /// Seconds since 1970-01-01 00:00 UTC.
    pub unix_seconds: i64,
    /// The offset east of UTC.
    pub zone_minutes: i16,
}
