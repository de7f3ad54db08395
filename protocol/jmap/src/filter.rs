//! Filters and sort orders of /query (RFC 8620 §5.5), generic over what an object has to be filtered by.

use serde_json::Value;

use crate::Object;
use crate::arguments::Arguments;
use crate::error::MethodError;

/// Levels of operators within operators; people and programs need three.
const DEPTH_MAX: usize = 20;
/// Conditions in one filter.
const CONDITIONS_MAX: usize = 500;
/// Comparators in one sort.
const COMPARATORS_MAX: usize = 20;

/// A filter.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter<C> {
    /// All of these.
    And(Vec<Filter<C>>),
    /// At least one of these.
    Or(Vec<Filter<C>>),
    /// None of these.
    Not(Vec<Filter<C>>),
    /// What the object has.
    Condition(C),
}

impl<C> Filter<C> {
    /// Reads a filter; `condition` reads what is no operator.
    pub fn parse(
        value: &Value,
        condition: &impl Fn(&Object) -> Result<C, MethodError>,
    ) -> Result<Self, MethodError> {
        Self::read(value, condition, DEPTH_MAX, &mut { CONDITIONS_MAX })
    }

    fn read(
        value: &Value,
        condition: &impl Fn(&Object) -> Result<C, MethodError>,
        depth: usize,
        left: &mut usize,
    ) -> Result<Self, MethodError> {
        let object = value.as_object().ok_or_else(|| MethodError::argument("filter", "an object"))?;
        *left = left
            .checked_sub(1)
            .ok_or_else(|| MethodError::UnsupportedFilter("too many conditions".to_owned()))?;
        let Some(operator) = object.get("operator") else { return condition(object).map(Self::Condition) };
        let Some(depth) = depth.checked_sub(1) else {
            return Err(MethodError::UnsupportedFilter("nested too deeply".to_owned()));
        };
        let conditions = object.get("conditions").and_then(Value::as_array);
        let (Some(conditions), 2) = (conditions, object.len()) else {
            return Err(MethodError::argument("filter", "an operator with a list of conditions"));
        };
        let parts: Result<Vec<_>, _> =
            conditions.iter().map(|value| Self::read(value, condition, depth, left)).collect();
        match operator.as_str() {
            Some("AND") => parts.map(Self::And),
            Some("OR") => parts.map(Self::Or),
            Some("NOT") => parts.map(Self::Not),
            _ => Err(MethodError::argument("filter/operator", "AND, OR or NOT")),
        }
    }

    /// Whether what `holds` knows satisfies the filter.
    pub fn matches(&self, holds: &mut impl FnMut(&C) -> bool) -> bool {
        match self {
            Self::And(parts) => parts.iter().all(|part| part.matches(holds)),
            Self::Or(parts) => parts.iter().any(|part| part.matches(holds)),
            Self::Not(parts) => !parts.iter().any(|part| part.matches(holds)),
            Self::Condition(condition) => holds(condition),
        }
    }

    /// All conditions, in order.
    pub fn conditions<'a>(&'a self, list: &mut Vec<&'a C>) {
        match self {
            Self::And(parts) | Self::Or(parts) | Self::Not(parts) => {
                for part in parts {
                    part.conditions(list);
                }
            }
            Self::Condition(condition) => list.push(condition),
        }
    }
}

/// One rule of a sort.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparator {
    /// By which property.
    pub property: String,
    /// Smallest first.
    pub is_ascending: bool,
    /// The collation asked for.
    pub collation: Option<String>,
    /// For sorts by a keyword (RFC 8621 §4.4.2).
    pub keyword: Option<String>,
}

impl Comparator {
    /// Reads a sort.
    pub fn parse_list(value: &Value) -> Result<Vec<Self>, MethodError> {
        let list = value.as_array().ok_or_else(|| MethodError::argument("sort", "a list of objects"))?;
        if list.len() > COMPARATORS_MAX {
            return Err(MethodError::UnsupportedSort("too many comparators".to_owned()));
        }
        list.iter().map(Self::parse).collect()
    }

    fn parse(value: &Value) -> Result<Self, MethodError> {
        let object = value.as_object().ok_or_else(|| MethodError::argument("sort", "a list of objects"))?;
        let mut members = Arguments::new(object.clone());
        let named = |error: MethodError| MethodError::InvalidArguments(format!("sort/{error}"));
        let comparator = Self {
            property: members.string("property").map_err(named)?,
            is_ascending: members.boolean("isAscending", true).map_err(named)?,
            collation: members.string_or_null("collation").map_err(named)?,
            keyword: members.string_or_null("keyword").map_err(named)?,
        };
        // Other members are those of sorts that there are none of here; and jmapc sends some of /query's own arguments.
        Ok(comparator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn condition(object: &Object) -> Result<i64, MethodError> {
        object.get("n").and_then(Value::as_i64).ok_or(MethodError::UnsupportedFilter(String::new()))
    }

    fn check(filter: Value, expected: &[i64]) {
        let filter = Filter::parse(&filter, &condition).unwrap();
        let found: Vec<i64> = (0..6).filter(|n| filter.matches(&mut |wanted| wanted == n)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn operators_rfc8620_5_5() {
        check(json!({"n": 3}), &[3]);
        check(json!({"operator": "OR", "conditions": [{"n": 1}, {"n": 3}]}), &[1, 3]);
        check(json!({"operator": "AND", "conditions": [{"n": 1}, {"n": 3}]}), &[]);
        check(json!({"operator": "NOT", "conditions": [{"n": 1}, {"n": 3}]}), &[0, 2, 4, 5]);
        check(json!({"operator": "AND", "conditions": []}), &[0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn refuses() {
        let read = |value| Filter::parse(&value, &condition).unwrap_err().name();
        assert_eq!(read(json!([])), "invalidArguments");
        assert_eq!(read(json!({"operator": "XOR", "conditions": []})), "invalidArguments");
        assert_eq!(read(json!({"operator": "AND"})), "invalidArguments");
        assert_eq!(read(json!({"x": 1})), "unsupportedFilter");
        let mut deep = json!({"n": 1});
        for _ in 0..21 {
            deep = json!({"operator": "NOT", "conditions": [deep]});
        }
        assert_eq!(read(deep), "unsupportedFilter");
        let many = vec![json!({"n": 1}); 501];
        assert_eq!(read(json!({"operator": "OR", "conditions": many})), "unsupportedFilter");
        let sort = |value| Comparator::parse_list(&value).unwrap_err().to_string();
        assert_eq!(sort(json!([{"property": 1}])), "sort/property: not a string");
        assert_eq!(sort(json!([{"property": "a", "isAscending": "yes"}])), "sort/isAscending: not a boolean");
    }
}
