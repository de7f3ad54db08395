//! Arguments that refer to earlier answers (RFC 8620 §3.7).

use serde_json::Value;

use crate::Object;
use crate::error::MethodError;
use crate::json;
use crate::pointer;
use crate::request::Invocation;

/// Replaces each `#name` by what it refers to among the answers so far. `room` is what may still be copied in this
/// request, in octets: each reference doubles what it points at, and sixteen calls that each refer twice to the one
/// before would make sixty thousand of one.
pub fn resolve(
    mut arguments: Object,
    answers: &[Invocation],
    room: &mut usize,
) -> Result<Object, MethodError> {
    let names: Vec<String> = arguments.keys().filter(|name| name.starts_with('#')).cloned().collect();
    for name in names {
        let plain = &name[1..];
        if arguments.contains_key(plain) {
            return Err(MethodError::InvalidArguments(format!(
                "{plain}: given both directly and by reference"
            )));
        }
        let reference = arguments.remove(&name).unwrap_or_default();
        let value = follow(&name, &reference, answers, *room)?;
        *room = room.checked_sub(json::weight(&value)).ok_or_else(too_much)?;
        arguments.insert(plain.to_owned(), value);
    }
    Ok(arguments)
}

fn follow(name: &str, reference: &Value, answers: &[Invocation], room: usize) -> Result<Value, MethodError> {
    let member = |member: &str| reference.get(member).and_then(Value::as_str);
    let (Some(result_of), Some(method), Some(path)) = (member("resultOf"), member("name"), member("path"))
    else {
        return Err(MethodError::InvalidArguments(format!("{name}: not a reference to a result")));
    };
    let invalid = |why: &str| MethodError::InvalidResultReference(format!("{name}: {why}"));
    let answer = answers.iter().find(|answer| answer.call_id == result_of);
    let answer = answer.ok_or_else(|| invalid("no earlier call has this id"))?;
    if answer.name != method {
        return Err(invalid("the first answer to that call has another name"));
    }
    let tokens = pointer::tokens(path).ok_or_else(|| invalid("path is not a JSON pointer"))?;
    let nothing = || invalid("path points at nothing");
    match tokens.split_first() {
        None => Ok(Value::Object(answer.arguments.clone())),
        Some((first, rest)) => {
            let value = answer.arguments.get(first).ok_or_else(nothing)?;
            pointer::evaluate(value, rest, room / 40).ok_or_else(nothing)
        }
    }
}

fn too_much() -> MethodError {
    MethodError::RequestTooLarge("references copy more than is held for one request".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answers() -> Vec<Invocation> {
        let answer = |name: &str, arguments: Value, id: &str| Invocation {
            name: name.to_owned(),
            arguments: arguments.as_object().cloned().unwrap(),
            call_id: id.to_owned(),
        };
        vec![
            answer(
                "Foo/changes",
                json!({"created": ["f1", "f4"], "list": [{"ids": ["a", "b"]}, {"ids": ["c"]}]}),
                "t0",
            ),
            answer("error", json!({"type": "x"}), "t1"),
        ]
    }

    fn check(arguments: Value, expected: Result<Value, &str>) {
        let mut room = 10_000;
        let found = resolve(arguments.as_object().cloned().unwrap(), &answers(), &mut room);
        let found = found.map(Value::Object).map_err(|error| error.name());
        assert_eq!(found, expected, "{arguments}");
    }

    /// RFC 8620 §3.7
    #[test]
    fn references() {
        let to = |result_of: &str, name: &str, path: &str| json!({"resultOf": result_of, "name": name, "path": path});
        check(
            json!({"#ids": to("t0", "Foo/changes", "/created"), "x": 1}),
            Ok(json!({"ids": ["f1", "f4"], "x": 1})),
        );
        check(json!({"#ids": to("t0", "Foo/changes", "/list/*/ids")}), Ok(json!({"ids": ["a", "b", "c"]})));
        check(json!({"#ids": to("t0", "Foo/get", "/created")}), Err("invalidResultReference"));
        check(json!({"#ids": to("t1", "Foo/changes", "/created")}), Err("invalidResultReference"));
        check(json!({"#ids": to("t2", "Foo/changes", "/created")}), Err("invalidResultReference"));
        check(json!({"#ids": to("t0", "Foo/changes", "created")}), Err("invalidResultReference"));
        check(json!({"#ids": to("t0", "Foo/changes", "/none")}), Err("invalidResultReference"));
        check(json!({"#ids": to("t0", "Foo/changes", "/created"), "ids": []}), Err("invalidArguments"));
        check(json!({"#ids": "t0"}), Err("invalidArguments"));
        check(json!({"#ids": {"resultOf": 1, "name": "Foo/changes", "path": ""}}), Err("invalidArguments"));
    }

    #[test]
    fn what_references_copy_is_bounded() {
        let mut room = 100_000;
        let mut answers = vec![Invocation {
            name: "Core/echo".to_owned(),
            arguments: json!({"x": "y".repeat(1000)}).as_object().cloned().unwrap(),
            call_id: "0".to_owned(),
        }];
        for turn in 0..100 {
            let reference = json!({"resultOf": turn.to_string(), "name": "Core/echo", "path": ""});
            let arguments = json!({"#a": reference, "#b": reference}).as_object().cloned().unwrap();
            match resolve(arguments, &answers, &mut room) {
                Ok(arguments) => answers.push(Invocation {
                    name: "Core/echo".to_owned(),
                    arguments,
                    call_id: (turn + 1).to_string(),
                }),
                Err(error) => {
                    assert_eq!(error.name(), "requestTooLarge");
                    assert!(turn < 8);
                    return;
                }
            }
        }
        panic!("nothing was refused");
    }
}
