//! What the operator gets to see.

use serde_json::Value;

/// Prints an answer: as it is, or as lines for people.
#[expect(clippy::print_stdout, reason = "answering on standard output is what the commands are for")]
pub(crate) fn answer(answer: Option<&Value>, json: bool) {
    match answer {
        None => {}
        Some(answer) if json => println!("{answer:#}"),
        Some(Value::Array(entries)) => {
            for entry in entries {
                println!("{}", headline(entry));
            }
        }
        Some(Value::Object(members)) => {
            for (name, value) in members {
                println!("{:<22} {}", name.replace('_', " "), plain(value));
            }
        }
        Some(other) => println!("{}", plain(other)),
    }
}

/// Prints the nodes of a cluster, one a line.
pub(crate) fn cluster(answer: &Value) {
    let flag = |name: &str| answer[name] == Value::Bool(true);
    for (name, text) in [
        ("isolated", "this node cannot write its heartbeat: the others may hold it for dead"),
        ("stale", "the nodes could not be looked at the last time: what follows is old"),
    ] {
        if flag(name) {
            line(text);
        }
    }
    let hints = if flag("connected") { "go over NATS" } else { "have no way: nodes find out by looking" };
    line(&format!(
        "seen by {}; hints {hints}; feature level {}, all nodes can read {}",
        plain(&answer["node"]),
        answer["agreed_level"],
        answer["feature_level"]
    ));
    for node in answer["nodes"].as_array().into_iter().flatten() {
        let shards = node["shards"].as_u64().map(|shards| format!(", {shards} shards")).unwrap_or_default();
        line(&format!(
            "{:<20} {:<10} {} ({}), release {} (level {}){shards}",
            plain(&node["name"]),
            plain(&node["standing"]),
            plain(&node["address"]),
            plain(&node["roles"]),
            plain(&node["release"]),
            node["feature_level"],
        ));
    }
}

/// Prints one line.
#[expect(clippy::print_stdout, reason = "answering on standard output is what the commands are for")]
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// An entry of a listing in one line: its name, and what else is short.
fn headline(entry: &Value) -> String {
    let Some(members) = entry.as_object() else { return plain(entry) };
    let name = members.get("address").or_else(|| members.get("name")).map(plain).unwrap_or_default();
    let notes = members.iter().filter_map(|(key, value)| match (key.as_str(), value) {
        ("address" | "name" | "id" | "created" | "password" | "app_passwords" | "quota", _) => None,
        (_, Value::Null | Value::Object(_)) => None,
        ("disabled" | "send_as", Value::Bool(false)) => None,
        (_, Value::String(text)) if text.is_empty() || text == "active" => None,
        (key, value) => Some(format!("{}={}", key, plain(value))),
    });
    let notes: Vec<String> = notes.collect();
    if notes.is_empty() { name } else { format!("{name}  ({})", notes.join(", ")) }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(entries) => entries.iter().map(plain).collect::<Vec<_>>().join(" "),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| format!("{name}={}", plain(value)));
            members.collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}
