//! Arguments of a call, one by one and with their types: what is of another type is refused by name (RFC 8620 §3.6.2
//! `invalidArguments`), and so is what the method does not have.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Object;
use crate::date;
use crate::error::MethodError;
use crate::id::{Id, IdOrReference};

/// The largest integer that JSON numbers hold everywhere (RFC 8620 §1.3).
pub const INT_MAX: i64 = (1 << 53) - 1;

/// The arguments that have not been asked for yet.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    left: Object,
}

impl Arguments {
    /// All of a call.
    pub fn new(arguments: Object) -> Self {
        Self { left: arguments }
    }

    /// Takes an argument; `null` is the same as nothing.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.left.remove(name).filter(|value| !value.is_null())
    }

    /// Takes an argument that `read` understands, or `null`.
    pub fn nullable<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, MethodError> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => read(&value).map(Some).ok_or_else(|| MethodError::argument(name, expected)),
        }
    }

    /// Takes an argument that must be there.
    pub fn required<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, MethodError> {
        let value = self.left.remove(name);
        let value = value.ok_or_else(|| MethodError::InvalidArguments(format!("{name}: missing")))?;
        read(&value).ok_or_else(|| MethodError::argument(name, expected))
    }

    /// Takes an argument that has a default, and for which `null` is the wrong type.
    pub fn defaulted<T>(
        &mut self,
        name: &str,
        expected: &str,
        default: T,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, MethodError> {
        match self.left.remove(name) {
            None => Ok(default),
            Some(value) => read(&value).ok_or_else(|| MethodError::argument(name, expected)),
        }
    }

    /// `Boolean`
    pub fn boolean(&mut self, name: &str, default: bool) -> Result<bool, MethodError> {
        self.defaulted(name, "a boolean", default, Value::as_bool)
    }

    /// `Id`
    pub fn id(&mut self, name: &str) -> Result<Id, MethodError> {
        self.required(name, "an id", Id::from_value)
    }

    /// `Id|null`
    pub fn id_or_null(&mut self, name: &str) -> Result<Option<Id>, MethodError> {
        self.nullable(name, "an id", Id::from_value)
    }

    /// `Id[]|null`
    pub fn ids(&mut self, name: &str) -> Result<Option<Vec<Id>>, MethodError> {
        self.nullable(name, "a list of ids", |value| list(value, Id::from_value))
    }

    /// `String`
    pub fn string(&mut self, name: &str) -> Result<String, MethodError> {
        self.required(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// `String|null`
    pub fn string_or_null(&mut self, name: &str) -> Result<Option<String>, MethodError> {
        self.nullable(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// `String[]|null`
    pub fn strings(&mut self, name: &str) -> Result<Option<Vec<String>>, MethodError> {
        self.nullable(name, "a list of strings", |value| {
            list(value, |value| value.as_str().map(str::to_owned))
        })
    }

    /// `UnsignedInt|null`
    pub fn unsigned(&mut self, name: &str) -> Result<Option<u64>, MethodError> {
        self.nullable(name, "an unsigned integer", unsigned)
    }

    /// `Int`, zero where it is not given.
    pub fn int(&mut self, name: &str) -> Result<i64, MethodError> {
        self.defaulted(name, "an integer", 0, int)
    }

    /// `Id[Object]|null`, with creation ids or ids as keys.
    pub fn objects(&mut self, name: &str) -> Result<BTreeMap<Id, Object>, MethodError> {
        let read = |value: &Value| {
            let object = value.as_object()?;
            object.iter().map(|(key, value)| Some((Id::new(key)?, value.as_object()?.clone()))).collect()
        };
        Ok(self.nullable(name, "an object of objects by id", read)?.unwrap_or_default())
    }

    /// The same, with keys that may be references to what is created.
    pub fn objects_or_references(
        &mut self,
        name: &str,
    ) -> Result<BTreeMap<IdOrReference, Object>, MethodError> {
        let read = |value: &Value| {
            let object = value.as_object()?;
            let entry = |(key, value): (&String, &Value)| {
                Some((IdOrReference::new(key)?, value.as_object()?.clone()))
            };
            object.iter().map(entry).collect()
        };
        Ok(self.nullable(name, "an object of objects by id", read)?.unwrap_or_default())
    }

    /// What was not asked for is no argument of this method.
    pub fn finish(self) -> Result<(), MethodError> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => Err(MethodError::InvalidArguments(format!("{name}: no such argument"))),
        }
    }
}

/// A list each of whose elements `read` understands.
pub fn list<T>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    value.as_array()?.iter().map(read).collect()
}

/// `UnsignedInt`
pub fn unsigned(value: &Value) -> Option<u64> {
    int(value).and_then(|number| u64::try_from(number).ok())
}

/// `Int`. A number with a fraction of zero is one too: JSON does not tell the two apart.
pub fn int(value: &Value) -> Option<i64> {
    let whole =
        |number: f64| (number.fract() == 0.0 && number.abs() <= INT_MAX as f64).then_some(number as i64);
    let number = value.as_i64().or_else(|| value.as_f64().and_then(whole))?;
    (-INT_MAX..=INT_MAX).contains(&number).then_some(number)
}

/// `UTCDate`, in seconds since 1970.
pub fn utc_date(value: &Value) -> Option<i64> {
    value.as_str().and_then(date::parse_utc)
}

/// `String[Boolean]` or `Id[Boolean]` where each value has to be `true`.
pub fn set<T: Ord>(value: &Value, read: impl Fn(&str) -> Option<T>) -> Option<std::collections::BTreeSet<T>> {
    let object = value.as_object()?;
    object.iter().map(|(key, value)| if *value == Value::Bool(true) { read(key) } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_rfc8620_1_3() {
        assert_eq!(int(&json!(-5)), Some(-5));
        assert_eq!(int(&json!(5.0)), Some(5));
        assert_eq!(int(&json!(5.5)), None);
        assert_eq!(int(&json!(INT_MAX)), Some(INT_MAX));
        assert_eq!(int(&json!(INT_MAX + 1)), None);
        assert_eq!(int(&json!(u64::MAX)), None);
        assert_eq!(int(&json!("5")), None);
        assert_eq!(unsigned(&json!(-1)), None);
    }

    #[test]
    fn wrong_types_are_named() {
        let arguments = json!({"a": 1, "b": "x y", "c": null, "d": {}}).as_object().cloned().unwrap();
        let mut arguments = Arguments::new(arguments);
        assert_eq!(arguments.string("a").unwrap_err().to_string(), "a: not a string");
        assert_eq!(arguments.id("b").unwrap_err().to_string(), "b: not an id");
        assert_eq!(arguments.boolean("c", true).unwrap_err().to_string(), "c: not a boolean");
        assert_eq!(arguments.ids("none").unwrap(), None);
        assert_eq!(arguments.id("none").unwrap_err().to_string(), "none: missing");
        assert_eq!(arguments.finish().unwrap_err().to_string(), "d: no such argument");
    }
}
