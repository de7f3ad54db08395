//! Reading I-JSON (RFC 7493), which is what JMAP is made of (RFC 8620 §1.5), within bounds.
//!
//! A value costs some forty octets of memory and may take two octets of text, so that values are counted, not only
//! octets. Nesting is bounded, or ten megabytes of `[` would end the process.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

use crate::Object;

/// Below what the parser underneath takes by itself.
const DEPTH_MAX: usize = 120;

/// Why a text was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON at all.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// JSON, but not I-JSON: a name stands twice in an object (RFC 7493 §2.3).
    #[error("the name {0:?} stands twice in an object")]
    Duplicate(String),
    /// Nested too deeply.
    #[error("nested deeper than {0} levels")]
    TooDeep(usize),
    /// Too many values.
    #[error("more than {0} values")]
    TooMany(usize),
}

/// Reads one value and nothing behind it.
pub fn parse(bytes: &[u8], depth_max: usize, values_max: usize) -> Result<Value, JsonError> {
    let depth_max = depth_max.min(DEPTH_MAX);
    let bounds = Bounds { depth_max, left: Cell::new(values_max), fault: Cell::new(None) };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = Strict { bounds: &bounds, depth: 0 }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    read.map_err(|error| match bounds.fault.take() {
        Some(Fault::Deep) => JsonError::TooDeep(depth_max),
        Some(Fault::Many) => JsonError::TooMany(values_max),
        Some(Fault::Duplicate(name)) => JsonError::Duplicate(name),
        None => JsonError::Syntax(error.to_string()),
    })
}

struct Bounds {
    depth_max: usize,
    left: Cell<usize>,
    fault: Cell<Option<Fault>>,
}

enum Fault {
    Deep,
    Many,
    Duplicate(String),
}

impl Bounds {
    fn fault<E: Error>(&self, fault: Fault) -> E {
        self.fault.set(Some(fault));
        E::custom("beyond what is read")
    }
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    bounds: &'a Bounds,
    depth: usize,
}

impl<'a> Strict<'a> {
    fn below<E: Error>(self) -> Result<Strict<'a>, E> {
        if self.depth >= self.bounds.depth_max {
            return Err(self.bounds.fault(Fault::Deep));
        }
        Ok(Strict { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.bounds.left.get().checked_sub(1) {
            Some(left) => self.bounds.left.set(left),
            None => return Err(self.bounds.fault(Fault::Many)),
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let seed = self.below()?;
        let mut list = Vec::new();
        while let Some(element) = elements.next_element_seed(seed)? {
            list.push(element);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let seed = self.below()?;
        let mut object = Object::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(self.bounds.fault(Fault::Duplicate(name)));
            }
            let value = members.next_value_seed(seed)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// About how many octets a value takes in memory and in an answer, whichever is more.
pub fn weight(value: &Value) -> usize {
    const EACH: usize = 40;
    EACH + match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(weight).sum(),
        Value::Object(object) => object.iter().map(|(name, value)| EACH + name.len() + weight(value)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Value, JsonError> {
        parse(text.as_bytes(), 8, 100)
    }

    #[test]
    fn reads_what_is_json() {
        let text = r#" {"a": [1, -2, 3.5, true, null, "ä😀"], "b": {}} "#;
        assert_eq!(read(text).unwrap(), json!({"a": [1, -2, 3.5, true, null, "ä😀"], "b": {}}));
    }

    #[test]
    fn refuses_what_is_not_i_json_rfc7493() {
        for text in ["", "{", "[1,]", "1 2", "nul", r#""\ud800""#, "{\"a\":1,}", "\u{feff}1", "01", "1e999"] {
            assert!(matches!(read(text), Err(JsonError::Syntax(_))), "{text}");
        }
        assert!(matches!(parse(b"\"\xff\"", 8, 8), Err(JsonError::Syntax(_))));
        let twice = r#"{"x": [{"a": 1, "\u0061": 2}]}"#;
        assert_eq!(read(twice), Err(JsonError::Duplicate("a".to_owned())));
    }

    #[test]
    fn bounds_hold() {
        assert!(read(&format!("{}{}", "[".repeat(8), "]".repeat(8))).is_ok());
        assert_eq!(read(&format!("{}{}", "[".repeat(9), "]".repeat(9))), Err(JsonError::TooDeep(8)));
        let deep = vec![b'['; 10 << 20];
        assert_eq!(parse(&deep, 1 << 30, 1 << 30), Err(JsonError::TooDeep(DEPTH_MAX)));
        let deep = r#"{"a":"#.repeat(2 << 20);
        assert_eq!(parse(deep.as_bytes(), 64, 1 << 30), Err(JsonError::TooDeep(64)));
        assert_eq!(read(&format!("[{}1]", "1,".repeat(99))), Err(JsonError::TooMany(100)));
    }

    proptest! {
        /// No text makes it panic, and what it reads is what another reader reads.
        #[test]
        fn agrees_with_serde_json(text in "[\\[\\]{}:,\"a1 .e-]{0,40}") {
            if let Ok(value) = read(&text) {
                prop_assert_eq!(value, serde_json::from_str::<Value>(&text).unwrap());
            }
        }
    }
}
