//! Blobs that are made and read within requests (RFC 9404).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::Object;
use crate::arguments;
use crate::error::SetError;
use crate::id::{Id, IdOrReference};

/// What Blob/get can be asked for (RFC 9404 §4.2).
pub const PROPERTIES: [&str; 7] =
    ["id", "data", "data:asText", "data:asBase64", "digest:sha", "digest:sha-256", "size"];

/// What it tells where nothing is asked for by name.
pub const DEFAULT_PROPERTIES: [&str; 2] = ["data", "size"];

/// The digests that the session announces, the better one first.
pub const DIGESTS: [&str; 2] = ["sha-256", "sha"];

/// A blob to make out of pieces (RFC 9404 §4.1 `UploadObject`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// What it consists of, one behind the other.
    pub data: Vec<Source>,
    /// What the client says it is.
    pub media: Option<String>,
}

/// A piece of it (RFC 9404 §4.1 `DataSourceObject`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// These octets.
    Octets(Vec<u8>),
    /// Some of another blob's.
    Blob {
        /// Which.
        id: IdOrReference,
        /// From where on.
        offset: u64,
        /// How many; `None`: to its end.
        length: Option<u64>,
    },
}

impl Upload {
    /// Reads one of `create`.
    pub fn parse(object: &Object, sources_max: usize) -> Result<Self, SetError> {
        if let Some(name) = object.keys().find(|name| !["data", "type"].contains(&name.as_str())) {
            return Err(SetError::property(name.as_str(), "no such property"));
        }
        let media = match object.get("type") {
            None | Some(Value::Null) => None,
            Some(Value::String(media)) => Some(media.clone()),
            Some(_) => return Err(SetError::property("type", "not a string")),
        };
        let data = object.get("data").and_then(Value::as_array);
        let data = data.ok_or_else(|| SetError::property("data", "not a list of data sources"))?;
        if data.len() > sources_max {
            return Err(SetError::property("data", format!("more than {sources_max} data sources")));
        }
        let sources = data.iter().map(|source| {
            source.as_object().and_then(Source::parse).ok_or_else(|| {
                SetError::property("data", "not text, base64 or a range of a blob, one of the three")
            })
        });
        Ok(Self { data: sources.collect::<Result<_, _>>()?, media })
    }

    /// The creation ids that it refers to.
    pub fn references(&self) -> impl Iterator<Item = &Id> {
        self.data.iter().filter_map(|source| match source {
            Source::Blob { id: IdOrReference::Created(key), .. } => Some(key),
            _ => None,
        })
    }
}

impl Source {
    fn parse(object: &Object) -> Option<Self> {
        let known = ["data:asText", "data:asBase64", "blobId", "offset", "length"];
        if object.keys().any(|name| !known.contains(&name.as_str())) {
            return None;
        }
        let given = |name: &str| object.get(name).filter(|value| !value.is_null());
        let number = |name: &str| match given(name) {
            None => Some(None),
            Some(value) => arguments::unsigned(value).map(Some),
        };
        let (offset, length) = (number("offset")?, number("length")?);
        let is_range = offset.is_some() || length.is_some();
        match (given("data:asText"), given("data:asBase64"), given("blobId")) {
            (Some(text), None, None) if !is_range => {
                text.as_str().map(|text| Self::Octets(text.as_bytes().to_vec()))
            }
            (None, Some(text), None) if !is_range => STANDARD.decode(text.as_str()?).ok().map(Self::Octets),
            (None, None, Some(id)) => {
                let id = IdOrReference::from_value(id)?;
                Some(Self::Blob { id, offset: offset.unwrap_or(0), length })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn data_sources_rfc9404_4_1() {
        let read = |value: Value| Upload::parse(value.as_object().unwrap(), 3);
        let upload = read(json!({"type": "text/plain", "data": [
            {"data:asText": "hällo"}, {"data:asBase64": "AAE=", "data:asText": null}, {"blobId": "#k", "length": 3}]}));
        let upload = upload.unwrap();
        assert_eq!(upload.media.as_deref(), Some("text/plain"));
        assert_eq!(upload.data[0], Source::Octets("hällo".as_bytes().to_vec()));
        assert_eq!(upload.data[1], Source::Octets(vec![0, 1]));
        let id = IdOrReference::new("#k").unwrap();
        assert_eq!(upload.data[2], Source::Blob { id, offset: 0, length: Some(3) });
        assert_eq!(upload.references().count(), 1);
        assert_eq!(read(json!({"data": []})).unwrap().data, []);
        for (bad, property) in [
            (json!({}), "data"),
            (json!({"data": null}), "data"),
            (json!({"data": {}}), "data"),
            (json!({"data": ["x"]}), "data"),
            (json!({"data": [{}]}), "data"),
            (json!({"data": [{"data:asText": 1}]}), "data"),
            (json!({"data": [{"data:asBase64": "AAE"}]}), "data"),
            (json!({"data": [{"data:asBase64": "a b="}]}), "data"),
            (json!({"data": [{"data:asText": "x", "blobId": "k"}]}), "data"),
            (json!({"data": [{"data:asText": "x", "offset": 1}]}), "data"),
            (json!({"data": [{"blobId": "a b"}]}), "data"),
            (json!({"data": [{"blobId": "k", "offset": -1}]}), "data"),
            (json!({"data": [{"blobId": "k", "length": "1"}]}), "data"),
            (json!({"data": [{"data:asText": "x", "y": 1}]}), "data"),
            (json!({"data": vec![json!({"data:asText": "x"}); 4]}), "data"),
            (json!({"data": [], "type": 1}), "type"),
            (json!({"data": [], "name": "x"}), "name"),
        ] {
            assert_eq!(read(bad.clone()).unwrap_err().properties, [property], "{bad}");
        }
    }
}
