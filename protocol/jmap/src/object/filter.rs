//! What emails are filtered and sorted by (RFC 8621 §4.4.1, §4.4.2).

use serde_json::Value;

use super::email::keyword;
use crate::Object;
use crate::arguments;
use crate::error::MethodError;
use crate::filter::Comparator;
use crate::id::Id;

/// One member of a FilterCondition. A condition of several members is all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are RFC 8621's words, one by one")]
pub enum Test {
    InMailbox(Id),
    InMailboxOtherThan(Vec<Id>),
    Before(i64),
    After(i64),
    MinSize(u64),
    MaxSize(u64),
    AllInThreadHaveKeyword(String),
    SomeInThreadHaveKeyword(String),
    NoneInThreadHaveKeyword(String),
    HasKeyword(String),
    NotKeyword(String),
    HasAttachment(bool),
    Text(TextTest),
}

/// A member that looks into the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextTest {
    /// Where to look.
    pub field: TextField,
    /// What for.
    pub text: String,
}

/// Where a text is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextField {
    /// From, To, Cc, Bcc, Subject and the body.
    Text,
    /// From.
    From,
    /// To.
    To,
    /// Cc.
    Cc,
    /// Bcc.
    Bcc,
    /// Subject.
    Subject,
    /// The text of the message.
    Body,
    /// This field; an empty text asks whether it is there.
    Header(String),
}

/// Octets of a text that is looked for.
const TEXT_MAX: usize = 1000;

/// Reads a FilterCondition.
pub fn condition(object: &Object) -> Result<Vec<Test>, MethodError> {
    object.iter().map(|(name, value)| test(name, value)).collect()
}

fn test(name: &str, value: &Value) -> Result<Test, MethodError> {
    let wrong = |expected: &str| MethodError::argument(&format!("filter/{name}"), expected);
    let id = || Id::from_value(value).ok_or_else(|| wrong("an id"));
    let date = || arguments::utc_date(value).ok_or_else(|| wrong("a UTC date"));
    let size = || arguments::unsigned(value).ok_or_else(|| wrong("an unsigned integer"));
    let word = || value.as_str().and_then(keyword).ok_or_else(|| wrong("a keyword"));
    let text = |field| {
        let text = value.as_str().ok_or_else(|| wrong("a string"))?;
        if text.len() > TEXT_MAX {
            return Err(MethodError::UnsupportedFilter(format!("{name}: longer than {TEXT_MAX} octets")));
        }
        Ok(Test::Text(TextTest { field, text: text.to_owned() }))
    };
    Ok(match name {
        "inMailbox" => Test::InMailbox(id()?),
        "inMailboxOtherThan" => {
            let ids = arguments::list(value, Id::from_value);
            Test::InMailboxOtherThan(ids.ok_or_else(|| wrong("a list of ids"))?)
        }
        "before" => Test::Before(date()?),
        "after" => Test::After(date()?),
        "minSize" => Test::MinSize(size()?),
        "maxSize" => Test::MaxSize(size()?),
        "allInThreadHaveKeyword" => Test::AllInThreadHaveKeyword(word()?),
        "someInThreadHaveKeyword" => Test::SomeInThreadHaveKeyword(word()?),
        "noneInThreadHaveKeyword" => Test::NoneInThreadHaveKeyword(word()?),
        "hasKeyword" => Test::HasKeyword(word()?),
        "notKeyword" => Test::NotKeyword(word()?),
        "hasAttachment" => Test::HasAttachment(value.as_bool().ok_or_else(|| wrong("a boolean"))?),
        "text" => text(TextField::Text)?,
        "from" => text(TextField::From)?,
        "to" => text(TextField::To)?,
        "cc" => text(TextField::Cc)?,
        "bcc" => text(TextField::Bcc)?,
        "subject" => text(TextField::Subject)?,
        "body" => text(TextField::Body)?,
        "header" => {
            let list = arguments::list(value, |value| value.as_str().map(str::to_owned));
            let (name, text) = match list.as_deref() {
                Some([name]) => (name, ""),
                Some([name, text]) => (name, text.as_str()),
                _ => return Err(wrong("a list of one or two strings")),
            };
            if name.is_empty() || name.len() > TEXT_MAX || text.len() > TEXT_MAX {
                return Err(wrong("the name of a field, and a text"));
            }
            Test::Text(TextTest { field: TextField::Header(name.clone()), text: text.to_owned() })
        }
        _ => return Err(MethodError::UnsupportedFilter(format!("there is no filter by {name:?}"))),
    })
}

/// What emails are sorted by.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are RFC 8621's words, one by one")]
pub enum SortKey {
    ReceivedAt,
    Size,
    From,
    To,
    Subject,
    SentAt,
    HasKeyword(String),
    AllInThreadHaveKeyword(String),
    SomeInThreadHaveKeyword(String),
}

/// One rule of a sort of emails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmailSort {
    /// By what.
    pub key: SortKey,
    /// Smallest first.
    pub is_ascending: bool,
}

/// The names that the session announces as `emailQuerySortOptions`.
pub const SORT_OPTIONS: [&str; 9] = [
    "receivedAt",
    "size",
    "from",
    "to",
    "subject",
    "sentAt",
    "hasKeyword",
    "allInThreadHaveKeyword",
    "someInThreadHaveKeyword",
];

/// The collation that texts are compared by, the one that is announced (RFC 8620 §2, RFC 5051).
pub const COLLATION: &str = "i;unicode-casemap";

/// Refuses collations that there are none of.
pub fn check_collation(comparator: &Comparator) -> Result<(), MethodError> {
    match comparator.collation.as_deref() {
        None | Some(COLLATION) => Ok(()),
        Some(other) => Err(MethodError::UnsupportedSort(format!("there is no collation {other:?}"))),
    }
}

/// Reads a sort of emails.
pub fn sort(comparators: &[Comparator]) -> Result<Vec<EmailSort>, MethodError> {
    comparators
        .iter()
        .map(|comparator| {
            check_collation(comparator)?;
            let word = || {
                let word = comparator.keyword.as_deref().and_then(keyword);
                word.ok_or_else(|| MethodError::argument("sort/keyword", "a keyword"))
            };
            let key = match comparator.property.as_str() {
                "receivedAt" => SortKey::ReceivedAt,
                "size" => SortKey::Size,
                "from" => SortKey::From,
                "to" => SortKey::To,
                "subject" => SortKey::Subject,
                "sentAt" => SortKey::SentAt,
                "hasKeyword" => SortKey::HasKeyword(word()?),
                "allInThreadHaveKeyword" => SortKey::AllInThreadHaveKeyword(word()?),
                "someInThreadHaveKeyword" => SortKey::SomeInThreadHaveKeyword(word()?),
                other => return Err(MethodError::UnsupportedSort(format!("there is no sort by {other:?}"))),
            };
            Ok(EmailSort { key, is_ascending: comparator.is_ascending })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn wrong_types_rfc8621_4_4_1() {
        let names = [
            "inMailbox",
            "inMailboxOtherThan",
            "before",
            "after",
            "minSize",
            "maxSize",
            "hasKeyword",
            "allInThreadHaveKeyword",
            "someInThreadHaveKeyword",
            "noneInThreadHaveKeyword",
            "notKeyword",
            "hasAttachment",
            "text",
            "from",
            "to",
            "cc",
            "bcc",
            "subject",
            "body",
            "header",
        ];
        for name in names {
            for value in [json!({}), json!(null), json!(-1.5), json!([[]])] {
                let error = test(name, &value).unwrap_err();
                assert_eq!(error.name(), "invalidArguments", "{name} {value}");
                assert!(error.to_string().contains(name));
            }
        }
        assert_eq!(test("none", &json!(1)).unwrap_err().name(), "unsupportedFilter");
    }
}
