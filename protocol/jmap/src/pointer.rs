//! JSON Pointer (RFC 6901), with the `*` that RFC 8620 §3.7 adds for arrays.

use serde_json::Value;

/// The tokens of a pointer, unescaped. `None`: not a pointer.
pub fn tokens(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    pointer.strip_prefix('/')?.split('/').map(unescape).collect()
}

/// One token: `~1` is a slash, `~0` a tilde, and nothing else may follow a tilde.
pub fn unescape(token: &str) -> Option<String> {
    let mut text = String::with_capacity(token.len());
    let mut characters = token.chars();
    while let Some(character) = characters.next() {
        match (character, character == '~') {
            (_, false) => text.push(character),
            _ => text.push(match characters.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            }),
        }
    }
    Some(text)
}

/// What the tokens point at. `*` applies the rest to each element of an array and joins what arrays that gives
/// (RFC 8620 §3.7); `room` bounds how many elements are gathered.
pub fn evaluate(value: &Value, tokens: &[String], room: usize) -> Option<Value> {
    let Some((token, rest)) = tokens.split_first() else { return Some(value.clone()) };
    match value {
        Value::Object(object) => evaluate(object.get(token)?, rest, room),
        Value::Array(list) if token == "*" => {
            let mut gathered = Vec::new();
            for element in list {
                match evaluate(element, rest, room)? {
                    Value::Array(inner) => gathered.extend(inner),
                    single => gathered.push(single),
                }
                if gathered.len() > room {
                    return None;
                }
            }
            Some(Value::Array(gathered))
        }
        Value::Array(list) => {
            // RFC 6901 §4: no leading zeros.
            let canonical = token == "0" || !token.starts_with('0');
            let digits = token.bytes().all(|byte| byte.is_ascii_digit());
            let at = token.parse::<usize>().ok().filter(|_| canonical && digits)?;
            evaluate(list.get(at)?, rest, room)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(pointer: &str, expected: Option<Value>) {
        let document = json!({
            "foo": ["bar", "baz"], "": 0, "a/b": 1, "m~n": 8, "list": [{"id": "a", "of": [1, 2]}, {"id": "b", "of": [3]}],
        });
        let found = tokens(pointer).and_then(|tokens| evaluate(&document, &tokens, 100));
        assert_eq!(found, expected, "{pointer}");
    }

    #[test]
    fn pointers_rfc6901_5_and_rfc8620_3_7() {
        check("/foo", Some(json!(["bar", "baz"])));
        check("/foo/0", Some(json!("bar")));
        check("/foo/01", None);
        check("/foo/+1", None);
        check("/foo/2", None);
        check("/foo/-", None);
        check("/", Some(json!(0)));
        check("/a~1b", Some(json!(1)));
        check("/m~0n", Some(json!(8)));
        check("/m~n", None);
        check("foo", None);
        check("/list/*/id", Some(json!(["a", "b"])));
        check("/list/*/of", Some(json!([1, 2, 3])));
        check("/list/*/none", None);
        check("/foo/*", Some(json!(["bar", "baz"])));
        check("/a~1b/*", None);
    }
}
