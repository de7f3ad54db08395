//! Quotas (RFC 9425).

use serde_json::Value;

use super::filter::check_collation;
use crate::Object;
use crate::error::MethodError;
use crate::filter::Comparator;

/// The properties of a quota (RFC 9425 §4.1).
pub const PROPERTIES: [&str; 10] = [
    "id",
    "resourceType",
    "used",
    "hardLimit",
    "scope",
    "name",
    "types",
    "warnLimit",
    "softLimit",
    "description",
];

/// What Quota/changes says has changed where nothing else has (RFC 9425 §4.3).
pub const USE: [&str; 1] = ["used"];

/// One member of a FilterCondition of Quota/query (RFC 9425 §4.4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are RFC 9425's words, one by one")]
pub enum Test {
    Name(String),
    Scope(String),
    ResourceType(String),
    Type(String),
}

/// Reads a FilterCondition.
pub fn condition(object: &Object) -> Result<Vec<Test>, MethodError> {
    let read = |(name, value): (&String, &Value)| {
        let text = || {
            let wrong = || MethodError::argument(&format!("filter/{name}"), "a string");
            value.as_str().map(str::to_owned).ok_or_else(wrong)
        };
        Ok(match name.as_str() {
            "name" => Test::Name(text()?),
            "scope" => Test::Scope(text()?),
            "resourceType" => Test::ResourceType(text()?),
            "type" => Test::Type(text()?),
            _ => return Err(MethodError::UnsupportedFilter(format!("there is no filter by {name:?}"))),
        })
    };
    object.iter().map(read).collect()
}

/// What quotas are sorted by (RFC 9425 §4.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are RFC 9425's words, one by one")]
pub enum SortKey {
    Name,
    Used,
}

/// Reads a sort of quotas: by what, and whether the smallest comes first.
pub fn sort(comparators: &[Comparator]) -> Result<Vec<(SortKey, bool)>, MethodError> {
    let read = |comparator: &Comparator| {
        check_collation(comparator)?;
        let key = match comparator.property.as_str() {
            "name" => SortKey::Name,
            "used" => SortKey::Used,
            other => return Err(MethodError::UnsupportedSort(format!("there is no sort by {other:?}"))),
        };
        Ok((key, comparator.is_ascending))
    };
    comparators.iter().map(read).collect()
}
