//! The OpenAPI document: paths from the table of endpoints, schemas beside the bodies that they describe.

use axum::Json;
use serde_json::{Map, Value, json};

use super::endpoint::{Answer, Endpoint, table};

pub(crate) async fn show() -> Json<Value> {
    Json(document())
}

/// The whole document.
pub(crate) fn document() -> Value {
    let mut paths = Map::new();
    for endpoint in table() {
        let of_path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        of_path[endpoint.method] = operation(&endpoint);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Postrider admin API",
            "version": "1",
            "description": "Over the Unix socket callers are known by their user id; over TCP they send a token, \
                and only over TLS.",
        },
        "paths": paths,
        "components": {
            "schemas": merged(schemas(), queue_schemas()),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let mut operation = json!({ "summary": endpoint.summary, "responses": {} });
    let mut answer = json!({ "description": endpoint.summary });
    match endpoint.answer {
        Answer::Nothing => {}
        Answer::Text => answer["content"] = json!({ "text/plain": { "schema": { "type": "string" } } }),
        Answer::AnyJson => answer["content"] = json!({ "application/json": {} }),
        Answer::Json(name) => {
            answer["content"] = json!({ "application/json": { "schema": reference(name) } });
        }
        Answer::JsonList(name) => {
            let schema = json!({ "type": "array", "items": reference(name) });
            answer["content"] = json!({ "application/json": { "schema": schema } });
        }
    }
    operation["responses"][endpoint.status.to_string()] = answer;
    operation["responses"]["default"] = json!({
        "description": "It was not done.",
        "content": { "application/problem+json": { "schema": reference("Problem") } },
    });
    if let Some(name) = endpoint.request {
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": reference(name) } } });
    }
    if let Some(scope) = endpoint.scope {
        operation["security"] = json!([{ "token": [scope.name()] }]);
    }
    let in_path = endpoint.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = in_path
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    parameters.extend(in_query(endpoint.path));
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation
}

/// Parameters of the query string.
fn in_query(path: &str) -> Vec<Value> {
    let text = || json!({ "type": "string" });
    let parameter = |name: &str, schema: Value| json!({ "name": name, "in": "query", "schema": schema });
    let mut parameters = Vec::new();
    if path.ends_with("/names") || path.ends_with("/queue/items") {
        parameters.push(parameter("from", text()));
        parameters.push(parameter("limit", json!({ "type": "integer", "minimum": 1 })));
    }
    if path.ends_with("/queue/items") {
        let members = queue_filter();
        let members =
            members.iter().map(|(name, schema)| parameter(name.trim_start_matches('?'), schema.clone()));
        parameters.extend(members);
    }
    let number = || json!({ "type": "integer", "minimum": 0 });
    if path.ends_with("/entries") {
        let members = [("from", number()), ("cursor", text()), ("limit", number())];
        parameters.extend(members.map(|(name, schema)| parameter(name, schema)));
    }
    if path.ends_with("/queue/dialogues") {
        parameters.extend([parameter("after", number()), parameter("host", text())]);
    }
    if path.ends_with("/queue/trace") {
        let mut id = parameter("id", text());
        id["required"] = json!(true);
        parameters.push(id);
    }
    parameters
}

/// What chooses items of the queue.
fn queue_filter() -> Vec<(&'static str, Value)> {
    let text = || json!({ "type": "string" });
    let seconds = || json!({ "type": "integer", "minimum": 0, "description": "Unix seconds." });
    let one_of = |values: &[&str]| json!({ "type": "string", "enum": values });
    vec![
        ("?kind", one_of(&["ingest", "outbound", "quarantine"])),
        ("?queue_id", text()),
        ("?domain", text()),
        ("?site", json!({ "type": "string", "description": "The host that was spoken to last." })),
        ("?sender", json!({ "type": "string", "description": "An address, @domain, or <>." })),
        ("?state", one_of(&["pending", "deferred", "leased", "in-doubt", "held", "telling"])),
        ("?accepted_before", seconds()),
        ("?accepted_since", seconds()),
    ]
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// An object with these members; a name that begins with `?` can be left out.
fn object(description: &str, members: &[(&str, Value)]) -> Value {
    let properties: Map<String, Value> = members
        .iter()
        .map(|(name, schema)| (name.trim_start_matches('?').to_owned(), schema.clone()))
        .collect();
    let required: Vec<&str> =
        members.iter().map(|(name, _)| *name).filter(|name| !name.starts_with('?')).collect();
    json!({
        "type": "object",
        "description": description,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn schemas() -> Value {
    let text = || json!({ "type": "string" });
    let address = || json!({ "type": "string", "examples": ["alice@example.test"] });
    let flag = || json!({ "type": "boolean" });
    let number = || json!({ "type": "integer", "minimum": 0 });
    let seconds = || json!({ "type": "integer", "minimum": 0, "description": "Unix seconds." });
    let or_null = |schema: Value| json!({ "anyOf": [schema, { "type": "null" }] });
    let list = |schema: Value| json!({ "type": "array", "items": schema });
    let one_of = |values: Vec<&str>| json!({ "type": "string", "enum": values });
    let service = || one_of(directory::Service::ALL.iter().map(|service| service.name()).collect());
    let scope = || one_of(super::caller::Scope::ALL.iter().map(|scope| scope.name()).collect());
    let status = || one_of(vec!["active", "login-disabled", "disabled", "closing", "moving"]);
    let kind = |name: &'static str, schema: &str| object("", &[(name, reference(schema))]);
    json!({
        "Problem": object("What went wrong (RFC 9457).", &[
            ("status", number()), ("title", text()), ("detail", text()),
        ]),
        "Quota": object("What an account may hold; null: no limit.", &[
            ("?bytes", or_null(number())), ("?messages", or_null(number())),
        ]),
        "Domain": object("A domain.", &[
            ("name", text()), ("alias_of", or_null(text())), ("catch_all", or_null(address())),
            ("subaddress_delimiters", or_null(text())), ("disabled", flag()), ("quota", reference("Quota")),
            ("description", text()), ("names", number()), ("created", seconds()),
        ]),
        "NewDomain": object("A domain to be made; with `alias_of` another name for one, and nothing else counts.", &[
            ("name", text()), ("?alias_of", or_null(text())), ("?catch_all", or_null(address())),
            ("?subaddress_delimiters", or_null(text())), ("?disabled", flag()), ("?quota", reference("Quota")),
            ("?description", text()),
        ]),
        "DomainPatch": object("What is left out stays, what is null goes.", &[
            ("?catch_all", or_null(address())), ("?subaddress_delimiters", or_null(text())), ("?disabled", flag()),
            ("?quota", reference("Quota")), ("?description", text()),
        ]),
        "Names": object("Names of a domain; `next` is the `from` of the next request.", &[
            ("names", list(reference("Name"))), ("next", or_null(text())),
        ]),
        "Name": { "oneOf": [kind("account", "Account"), kind("alias", "Alias"), kind("list", "List")] },
        "Account": object("An account.", &[
            ("address", address()), ("id", text()), ("display_name", text()), ("status", status()),
            ("quota", reference("Quota")), ("password", reference("Password")),
            ("app_passwords", list(reference("AppPassword"))), ("created", seconds()),
        ]),
        "Password": object("What is known of a password.", &[
            ("set", flag()), ("scram", flag()), ("changed", or_null(seconds())),
        ]),
        "AppPassword": object("An application password.", &[
            ("name", text()), ("services", list(service())), ("created", seconds()),
        ]),
        "NewAccount": object("An account to be made.", &[
            ("address", address()), ("?display_name", text()), ("?password", or_null(text())),
            ("?password_hash", or_null(text())), ("?quota", or_null(reference("Quota"))),
        ]),
        "AccountPatch": object("What is left out stays.", &[
            ("?display_name", text()), ("?status", status()), ("?quota", reference("Quota")),
        ]),
        "NewPassword": object("A password in clear, or a hash, or none.", &[
            ("?password", or_null(text())), ("?password_hash", or_null(text())),
        ]),
        "NewAppPassword": object("Without services: good for all.", &[
            ("name", text()), ("?services", list(service())),
        ]),
        "Grant": object("A program or a browser that acts for an account.", &[
            ("id", text()), ("client", text()), ("name", text()), ("services", list(service())),
            ("created", seconds()), ("used", seconds()), ("expires", seconds()),
        ]),
        "NewGrant": object("Without services: good for all.", &[
            ("client", text()), ("name", text()), ("?services", list(service())),
        ]),
        "GrantTokens": object("Shown once.", &[
            ("id", text()), ("access_token", text()), ("expires_in", seconds()), ("refresh_token", text()),
        ]),
        "Suppression": object("An address that the account's mail is not sent to.", &[
            ("address", address()), ("since", seconds()), ("status", text()), ("reason", text()),
        ]),
        "Secret": object("Shown once.", &[("secret", text())]),
        "Alias": object("An alias.", &[
            ("address", address()), ("targets", list(address())), ("send_as", flag()), ("created", seconds()),
        ]),
        "NewAlias": object("An alias to be made.", &[
            ("address", address()), ("targets", list(address())), ("?send_as", flag()),
        ]),
        "AliasPatch": object("What is left out stays.", &[("?targets", list(address())), ("?send_as", flag())]),
        "List": object("A mailing list; `members` is null in listings.", &[
            ("address", address()), ("owner", address()), ("members_count", number()),
            ("members", or_null(list(address()))), ("created", seconds()),
        ]),
        "NewList": object("A list to be made.", &[
            ("address", address()), ("owner", address()), ("?members", list(address())),
        ]),
        "ListPatch": object("What is left out stays.", &[
            ("?owner", address()), ("?add", list(address())), ("?remove", list(address())),
        ]),
        "Cluster": object("The nodes of a cluster, as one of them sees them.", &[
            ("node", text()), ("connected", flag()), ("stale", flag()), ("isolated", flag()),
            ("feature_level", number()), ("agreed_level", number()), ("nodes", list(reference("ClusterNode"))),
        ]),
        "ClusterNode": object("A node.", &[
            ("name", text()), ("standing", one_of(vec!["live", "leaving", "silent", "superseded"])),
            ("roles", list(text())), ("address", text()), ("release", text()), ("feature_level", number()),
            ("boot", text()), ("shards", or_null(number())),
        ]),
        "Migration": object("How far a move to other back ends is.", &[
            ("to", text()), ("stage", one_of(vec!["opening", "rows", "segments", "logs", "rest", "done"])),
            ("logs_done", number()), ("logs_total", number()), ("segments_done", number()),
            ("segments_total", number()), ("rows", number()), ("bytes", number()),
            ("seconds", json!({ "type": "number" })), ("trouble", or_null(text())), ("running", flag()),
        ]),
        "NewMigration": object("A move; `to` is the path of the other configuration on the server.", &[
            ("to", text()),
        ]),
        "Token": object("A token.", &[
            ("name", text()), ("scopes", list(scope())), ("created", seconds()), ("expires", or_null(seconds())),
        ]),
        "NewToken": object("A token to be made.", &[
            ("name", text()), ("scopes", list(scope())), ("?expires", or_null(seconds())),
        ]),
    })
}

/// Both objects' members in one.
fn merged(mut one: Value, other: Value) -> Value {
    if let (Value::Object(one), Value::Object(other)) = (&mut one, other) {
        one.extend(other);
    }
    one
}

fn queue_schemas() -> Value {
    let text = || json!({ "type": "string" });
    let address = || json!({ "type": "string", "examples": ["alice@example.test"] });
    let flag = || json!({ "type": "boolean" });
    let number = || json!({ "type": "integer", "minimum": 0 });
    let seconds = || json!({ "type": "integer", "minimum": 0, "description": "Unix seconds." });
    let or_null = |schema: Value| json!({ "anyOf": [schema, { "type": "null" }] });
    let list = |schema: Value| json!({ "type": "array", "items": schema });
    let one_of = |values: Vec<&str>| json!({ "type": "string", "enum": values });
    json!({
        "QueueSummary": object("The queue in numbers.", &[
            ("ingest", number()), ("outbound", number()), ("quarantined", number()), ("in_flight", number()),
            ("recipients", number()), ("states", list(reference("QueueCount"))),
            ("ages", list(reference("QueueCount"))), ("domains", list(reference("QueueDomain"))),
        ]),
        "QueueCount": object("How many recipients.", &[("name", text()), ("recipients", number())]),
        "QueueDomain": object("What waits for one domain.", &[
            ("domain", text()), ("recipients", number()), ("deferred", number()), ("oldest", seconds()),
            ("last", or_null(reference("QueueSaid"))),
        ]),
        "QueueItems": object("What waits; `next` is the `from` of the next request.", &[
            ("items", list(reference("QueueItem"))), ("next", or_null(text())),
        ]),
        "QueueItem": object("A message in a shard of the queue, or what is remembered of it.", &[
            ("queue_id", text()), ("message_id", or_null(text())), ("shard", text()), ("number", number()),
            ("sender", text()), ("account", or_null(text())), ("size", number()), ("accepted", seconds()),
            ("priority", json!({ "type": "integer", "minimum": -9, "maximum": 9 })), ("route", or_null(text())),
            ("standing", one_of(vec!["waiting", "quarantined", "finished"])), ("due", or_null(seconds())),
            ("expires", or_null(seconds())), ("attempts", or_null(number())), ("crashes", or_null(number())),
            ("pending", or_null(number())), ("reason", or_null(text())), ("since", or_null(seconds())),
            ("recipients", list(reference("QueueRecipient"))),
        ]),
        "QueueRecipient": object("A recipient, and what became of it so far.", &[
            ("address", or_null(address())), ("account", or_null(text())), ("state", text()),
            ("not_before", or_null(seconds())), ("deferrals", number()), ("doubts", number()),
            ("status", or_null(text())), ("text", or_null(text())), ("notified", or_null(flag())),
            ("last", or_null(reference("QueueSaid"))),
        ]),
        "QueueSaid": object("What another host said, or what was found instead.", &[
            ("at", seconds()), ("attempt", number()), ("host", or_null(text())), ("address", or_null(text())),
            ("tls", or_null(text())), ("tls_verified", flag()), ("reply", text()),
        ]),
        "QueueFilter": object("What is left out does not matter.", &queue_filter()),
        "QueueAct": object("Something to be done; `all` where the filter says nothing. `route` is for reroute.", &[
            ("action", one_of(vec!["retry", "hold", "release", "cancel", "expire", "reroute", "drop"])),
            ("?filter", reference("QueueFilter")), ("?all", flag()), ("?route", or_null(text())),
        ]),
        "QueueActed": object("What was done.", &[
            ("items", number()), ("recipients", number()), ("in_flight", number()),
        ]),
        "QueueShard": object("A log of the queue.", &[
            ("shard", text()), ("seq", number()), ("items", number()), ("cursors", list(reference("QueueCursor"))),
        ]),
        "QueueCursor": object("How far a consumer has read; zero, in a request: it goes.", &[
            ("name", text()), ("next", number()),
        ]),
        "QueueEntries": object("What happened in a shard; `next` is the `from` of the next request, and at `end` is all read.", &[
            ("entries", list(reference("QueueEntry"))), ("next", number()), ("end", number()),
        ]),
        "QueueEntry": object("Something that happened.", &[
            ("seq", number()), ("what", text()), ("item", or_null(number())), ("queue_id", or_null(text())),
            ("details", json!({ "type": "object" })),
        ]),
        "QueueDialogues": object("What was said; `next` is the `after` of the next request.", &[
            ("lines", list(reference("QueueLine"))), ("next", number()),
        ]),
        "QueueLine": object("C: ours, S: theirs.", &[
            ("number", number()), ("at", seconds()), ("connection", number()), ("host", text()), ("text", text()),
        ]),
    })
}
