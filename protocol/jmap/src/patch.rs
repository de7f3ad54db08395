//! Updates as patches (RFC 8620 §5.3 `PatchObject`).

use serde_json::Value;

use crate::Object;
use crate::error::{SetError, SetErrorKind};
use crate::pointer::unescape;

/// Applies a patch to a record. `null` takes a property or a member away, which for a property means its default.
///
/// What a patch may not do is refused: point inside of an array, at a member of what is not there, or at a place and
/// at another one below it.
pub fn apply(record: &Object, patch: &Object) -> Result<Object, SetError> {
    let mut paths: Vec<(Vec<String>, &Value)> = Vec::with_capacity(patch.len());
    for (pointer, value) in patch {
        let tokens: Option<Vec<String>> = pointer.split('/').map(unescape).collect();
        paths.push((tokens.ok_or_else(|| invalid(pointer, "not a path"))?, value));
    }
    paths.sort_by(|a, b| a.0.cmp(&b.0));
    // Sorted, whatever has another one as its beginning stands behind it.
    if let Some(pair) = paths.windows(2).find(|pair| pair[1].0.starts_with(&pair[0].0)) {
        return Err(invalid(&pair[1].0.join("/"), "another path of this patch is above it"));
    }
    let mut record = record.clone();
    for (tokens, value) in paths {
        let path = tokens.join("/");
        let (last, parents) = tokens.split_last().ok_or_else(|| invalid(&path, "empty"))?;
        let mut at = &mut record;
        for parent in parents {
            at = match at.get_mut(parent) {
                Some(Value::Object(object)) => object,
                _ => return Err(invalid(&path, "what is above it is not an object of this record")),
            };
        }
        match value {
            Value::Null if parents.is_empty() => drop(at.insert(last.clone(), Value::Null)),
            Value::Null => drop(at.remove(last)),
            value => drop(at.insert(last.clone(), value.clone())),
        }
    }
    Ok(record)
}

/// The names of the properties that a patch touches.
pub fn touched(patch: &Object) -> impl Iterator<Item = String> + '_ {
    patch.keys().filter_map(|pointer| unescape(pointer.split('/').next().unwrap_or_default()))
}

fn invalid(path: &str, why: &str) -> SetError {
    SetError::new(SetErrorKind::InvalidPatch, format!("{path}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn check(patch: Value, expected: Option<Value>) {
        let record = json!({"keywords": {"$seen": true, "a/b": true}, "list": [1, 2], "name": "x"});
        let patched = apply(record.as_object().unwrap(), patch.as_object().unwrap());
        match (patched, expected) {
            (Ok(patched), Some(expected)) => assert_eq!(Value::Object(patched), expected, "{patch}"),
            (Err(error), None) => assert_eq!(error.kind, SetErrorKind::InvalidPatch, "{patch}"),
            (patched, _) => panic!("{patch}: {patched:?}"),
        }
    }

    #[test]
    fn patches_rfc8620_5_3() {
        check(
            json!({"keywords/$flagged": true, "keywords/$seen": null, "name": "y"}),
            Some(json!({"keywords": {"$flagged": true, "a/b": true}, "list": [1, 2], "name": "y"})),
        );
        check(
            json!({"keywords/a~1b": null, "name": null}),
            Some(json!({"keywords": {"$seen": true}, "list": [1, 2], "name": null})),
        );
        check(json!({"keywords": {}, "keywords/$seen": true}), None);
        check(json!({"list/0": 5}), None);
        check(json!({"none/x": 5}), None);
        check(json!({"name/x": 5}), None);
        check(json!({"keywords/~2": true}), None);
    }

    proptest! {
        #[test]
        fn no_patch_panics(patch in proptest::collection::btree_map("[a/~01]{0,6}", any::<Option<bool>>(), 0..5)) {
            let record = json!({"a": {"a": {}, "0": true}, "1": []});
            let patch: Object = patch.into_iter().map(|(path, value)| (path, json!(value))).collect();
            let _ = apply(record.as_object().unwrap(), &patch);
        }
    }
}
