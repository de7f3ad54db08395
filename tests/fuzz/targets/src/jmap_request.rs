//! JMAP requests: what is read is JSON to others too and means the same, and what refers to answers stays within bounds.

use jmap_protocol::json::weight;
use jmap_protocol::object::{blob, filter, header, mailbox, quota};
use jmap_protocol::{
    Arguments, Invocation, Limits, Object, Request, filter::Filter, method, patch, reference,
};
use serde_json::Value;

const LIMITS: Limits = Limits { request_bytes_max: 1 << 20, calls_max: 16, depth_max: 20, values_max: 2_000 };
/// What references may copy.
const ROOM: usize = 100_000;

/// The bytes of a request.
pub fn run(data: &[u8]) {
    let Ok(request) = Request::parse(data, LIMITS, |_| true) else { return };
    let other: Value = serde_json::from_slice(data).unwrap();
    let calls = other["methodCalls"].as_array().unwrap();
    assert_eq!(request.calls.len(), calls.len());
    let mut answers: Vec<Invocation> = Vec::new();
    let mut room = ROOM;
    for (call, other) in request.calls.into_iter().zip(calls) {
        assert_eq!(Value::Object(call.arguments.clone()), other[1]);
        let before = room;
        let Ok(arguments) = reference::resolve(call.arguments.clone(), &answers, &mut room) else { continue };
        let copied =
            weight(&Value::Object(arguments.clone())).saturating_sub(weight(&Value::Object(call.arguments)));
        assert!(copied <= before - room + ROOM / 10, "{copied} {before} {room}");
        look(&arguments);
        answers.push(Invocation { arguments, ..call });
    }
}

/// What any method may do with its arguments.
fn look(arguments: &Object) {
    let mut taken = Arguments::new(arguments.clone());
    let _ = method::Get::take(&mut taken, 100);
    let _ = method::Set::take(&mut taken, 100);
    let _ = method::Window::take(&mut taken).map(|window| {
        let all: Vec<u32> = (0..50).collect();
        if let Ok((start, found, _)) = window.cut(&all, |number, id| id.as_str() == number.to_string(), 10) {
            assert!(found.len() <= 10 && all[start..].starts_with(found));
        }
    });
    let _ = method::take_filter_and_sort(&mut taken, &filter::condition);
    for (name, value) in arguments {
        let _ = Filter::parse(value, &mailbox::condition);
        let _ = Filter::parse(value, &quota::condition);
        if let Value::Object(wanted) = value
            && let Ok(upload) = blob::Upload::parse(wanted, 10)
        {
            assert!(upload.data.len() <= 10);
        }
        if let Ok(property) = header::HeaderProperty::parse(name) {
            assert_eq!(header::HeaderProperty::parse(&property.to_string()), Ok(property));
        }
        if let Value::Object(wanted) = value
            && let Ok(patched) = patch::apply(arguments, wanted)
        {
            assert!(weight(&Value::Object(patched)) <= 2 * weight(&Value::Object(arguments.clone())) + 1000);
        }
    }
}
