//! Makes `docs/reference/config.md` and the output of `config print-defaults` from the doc comments of every `Config`
//! and its default value, so that neither can say what is not so. The test fails when a file is not what would be
//! made; with `POSTRIDER_WRITE_REFERENCE=1` it writes them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use toml::{Table, Value};

use super::Config;

/// Which struct in which file describes a table.
const SOURCES: &[(&str, &str, &str)] = &[
    ("", "server/src/config/mod.rs", "Config"),
    ("certificates", "net/src/tls.rs", "PemFiles"),
    ("listeners", "server/src/config/mod.rs", "ListenerConfig"),
    ("log", "server/src/logs.rs", "Config"),
    ("net", "net/src/listener.rs", "Config"),
    ("smtp_in", "smtp-in/src/config.rs", "Config"),
    ("smtp_in.limits", "protocol/smtp/src/server/limits.rs", "Limits"),
    ("queue", "queue/src/config.rs", "Config"),
    ("queue.mime", "mail/src/mime/limits.rs", "Limits"),
    ("queue.retry", "queue/src/config.rs", "Retry"),
    ("queue.retry_domains", "queue/src/config.rs", "RetryRule"),
    ("delivery", "delivery/src/config.rs", "Config"),
    ("smtp_out", "smtp-out/src/config.rs", "Config"),
    ("smtp_out.sources", "smtp-out/src/config.rs", "Source"),
    ("smtp_out.routes", "smtp-out/src/config.rs", "Route"),
    ("smtp_out.sites", "smtp-out/src/config.rs", "SiteConfig"),
    ("smtp_out.limits", "smtp-out/src/config.rs", "SiteLimits"),
    ("smtp_out.timeouts", "smtp-out/src/config.rs", "Timeouts"),
    ("imap", "imap/src/config.rs", "Config"),
    ("jmap", "webmail-api/src/jmap/config.rs", "Config"),
    ("jmap.push", "webmail-api/src/jmap/push/config.rs", "PushConfig"),
    ("oauth", "webmail-api/src/oauth/config.rs", "Config"),
    ("oauth.clients", "webmail-api/src/oauth/config.rs", "ConfiguredClient"),
    ("directory", "directory/src/config.rs", "Config"),
    ("directory.argon2", "directory/src/config.rs", "Argon2Config"),
    ("directory.throttle_account", "directory/src/config.rs", "ThrottleConfig"),
    ("directory.throttle_network", "directory/src/config.rs", "ThrottleConfig"),
    ("storage", "storage/src/config.rs", "Config"),
    ("storage.layout", "storage/src/root.rs", "Layout"),
    ("storage.mime", "mail/src/mime/limits.rs", "Limits"),
    ("search", "search/src/config.rs", "Config"),
    ("search.text", "search/src/config.rs", "TextLimits"),
    ("blob", "storage/blob/src/config.rs", "Config"),
    ("segments", "storage/blob/src/dir.rs", "DirConfig"),
    ("logs", "storage/engine/src/options.rs", "LogOptions"),
    ("engine", "storage/engine-embedded/src/config.rs", "Config"),
    ("engine.commit", "storage/engine-embedded/src/config.rs", "CommitConfig"),
    ("cluster", "cluster/src/config.rs", "Config"),
    ("cluster.nats", "cluster/src/config.rs", "NatsConfig"),
    ("cql", "storage/engine-cql/src/config.rs", "Config"),
    ("s3", "storage/blob-s3/src/config.rs", "Config"),
    ("maintenance", "server/src/maintenance.rs", "Config"),
    ("regions", "server/src/config/regions.rs", "RegionsConfig"),
    ("admin", "webmail-api/src/admin/config.rs", "Config"),
];

/// A struct as its source tells it.
#[derive(Debug, Default)]
struct Described {
    doc: String,
    /// In the order of the source.
    fields: Vec<(String, String)>,
}

/// Tests run in the folder of their package.
fn root() -> &'static Path {
    Path::new("..")
}

/// Reads a struct's doc comments. Rust is read line by line, which is enough for structs as they are written here.
fn described(file: &str, name: &str) -> Described {
    let text = std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut described = Described::default();
    let mut doc = String::new();
    let mut inside = false;
    let mut skipped = false;
    for line in text.lines() {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix("///") {
            if !doc.is_empty() {
                doc.push(' ');
            }
            doc.push_str(comment.trim());
            continue;
        }
        if line.contains("serde(skip)") {
            skipped = true;
        }
        if line.starts_with("#[") {
            continue;
        }
        if inside {
            if line == "}" {
                return described;
            }
            let declaration = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
            if let Some((field, _)) = declaration.split_once(": ")
                && !skipped
            {
                assert!(!doc.is_empty(), "{file}: {name}::{field} has no doc comment");
                described.fields.push((field.to_owned(), std::mem::take(&mut doc)));
            }
        } else if line.trim_start_matches("pub(crate) ").trim_start_matches("pub ")
            == format!("struct {name} {{")
        {
            inside = true;
            described.doc = std::mem::take(&mut doc);
        }
        skipped = false;
        doc.clear();
    }
    panic!("{file} has no struct {name}");
}

/// One table of the configuration.
struct Section {
    path: String,
    /// An array of tables: each entry is one.
    repeated: bool,
    described: Described,
    values: Vec<Table>,
}

/// All tables, in the order of [`SOURCES`].
fn sections() -> Vec<Section> {
    let defaults = Table::try_from(Config::default()).expect("the configuration can be written as TOML");
    let mut tables: BTreeMap<String, (bool, Vec<Table>)> = BTreeMap::new();
    collect("", &defaults, &mut tables);
    let mut sections = Vec::new();
    for (path, file, name) in SOURCES {
        let (repeated, values) = tables.remove(*path).unwrap_or((true, Vec::new()));
        sections.push(Section {
            path: (*path).to_owned(),
            repeated,
            described: described(file, name),
            values,
        });
    }
    let forgotten: Vec<_> = tables.keys().collect();
    assert!(forgotten.is_empty(), "tables without a source: {forgotten:?}");
    sections
}

fn collect(path: &str, table: &Table, tables: &mut BTreeMap<String, (bool, Vec<Table>)>) {
    let mut plain = Table::new();
    for (key, value) in table {
        let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            Value::Table(table) => collect(&inner, table, tables),
            Value::Array(entries) if entries.iter().any(Value::is_table) => {
                let entries = entries.iter().filter_map(|entry| entry.as_table().cloned()).collect();
                tables.insert(inner, (true, entries));
            }
            value => {
                plain.insert(key.clone(), value.clone());
            }
        }
    }
    tables.insert(path.to_owned(), (false, vec![plain]));
}

/// Fields that are tables themselves have their own section.
fn is_section(sections: &[Section], path: &str, field: &str) -> bool {
    let inner = if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
    sections.iter().any(|section| section.path == inner)
}

fn defaults_toml(sections: &[Section]) -> String {
    let mut out =
        String::from("# Every setting of Postrider with its default. A file needs only what differs.\n");
    for section in sections {
        let fields: Vec<_> = section
            .described
            .fields
            .iter()
            .filter(|(field, _)| !is_section(sections, &section.path, field))
            .collect();
        out.push('\n');
        if !section.path.is_empty() {
            comment(&mut out, &section.described.doc);
        }
        if section.repeated {
            if section.values.is_empty() {
                let _ = writeln!(out, "# [[{}]]", section.path);
                for (field, doc) in &fields {
                    comment(&mut out, doc);
                    let _ = writeln!(out, "# {field} = …");
                }
            }
            for (nth, values) in section.values.iter().enumerate() {
                let _ = writeln!(out, "[[{}]]", section.path);
                for (field, doc) in &fields {
                    if nth == 0 {
                        comment(&mut out, doc);
                    }
                    let _ = writeln!(out, "{field} = {}", inline(&values[field]));
                }
            }
            continue;
        }
        if !section.path.is_empty() {
            let _ = writeln!(out, "[{}]", section.path);
        }
        for (field, doc) in fields {
            comment(&mut out, doc);
            match section.values[0].get(field) {
                Some(value) => {
                    let _ = writeln!(out, "{field} = {}", inline(value));
                }
                None if section.path.is_empty() && field == "certificates" => {}
                None => {
                    let _ = writeln!(out, "# {field} = …");
                }
            }
        }
    }
    out
}

fn comment(out: &mut String, doc: &str) {
    let mut line = String::from("#");
    for word in doc.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > 100 {
            let _ = writeln!(out, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}

/// A value on one line.
fn inline(value: &Value) -> String {
    match value {
        Value::Table(table) => {
            let members: Vec<String> =
                table.iter().map(|(key, value)| format!("{key} = {}", inline(value))).collect();
            format!("{{ {} }}", members.join(", "))
        }
        Value::Array(entries) => {
            let entries: Vec<String> = entries.iter().map(inline).collect();
            format!("[{}]", entries.join(", "))
        }
        other => other.to_string(),
    }
}

fn reference_md(sections: &[Section]) -> String {
    let mut out = String::from(
        "# Configuration\n\n\
        `postrider serve --config FILE` reads TOML. Every setting has a default; unknown keys are refused. This page is \
        made from the code: `postrider config print-defaults` prints the same as a file, and \
        `postrider config check FILE` says what is wrong with one.\n",
    );
    for section in sections {
        let heading = match (section.path.as_str(), section.repeated) {
            ("", _) => "Top level".to_owned(),
            (path, true) => format!("`[[{path}]]`"),
            (path, false) => format!("`[{path}]`"),
        };
        let _ = writeln!(out, "\n## {heading}\n\n{}\n", section.described.doc);
        for (field, doc) in &section.described.fields {
            if is_section(sections, &section.path, field) {
                continue;
            }
            let default =
                match (section.repeated, section.values.first().and_then(|values| values.get(field))) {
                    (false, Some(value)) => format!("default `{}`", inline(value)),
                    (false, None) => "not set by default".to_owned(),
                    (true, _) => "needed".to_owned(),
                };
            let _ = writeln!(out, "- **`{field}`** ({default}): {doc}");
        }
        if section.repeated && !section.values.is_empty() {
            let _ = writeln!(out, "\nDefault:\n\n```toml");
            for values in &section.values {
                let _ = writeln!(out, "[[{}]]", section.path);
                for (field, value) in values {
                    let _ = writeln!(out, "{field} = {}", inline(value));
                }
            }
            let _ = writeln!(out, "```");
        }
    }
    out
}

fn keep_current(path: &str, expected: &str) {
    let file = root().join(path);
    if std::env::var_os("POSTRIDER_WRITE_REFERENCE").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, expected).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == expected,
        "{path} is not current: run POSTRIDER_WRITE_REFERENCE=1 cargo test -p server reference"
    );
}

#[test]
fn the_reference_is_current() {
    keep_current("docs/reference/config.md", &reference_md(&sections()));
}

#[test]
fn the_printed_defaults_are_current_and_are_the_defaults() {
    let text = defaults_toml(&sections());
    keep_current("server/src/config/defaults.toml", &text);
    assert_eq!(super::load::parse(&text).unwrap(), Config::default());
}

#[test]
fn every_field_is_described() {
    for section in sections() {
        for values in &section.values {
            for key in values.keys() {
                assert!(
                    section.described.fields.iter().any(|(field, _)| field == key),
                    "{}.{key}",
                    section.path
                );
            }
        }
    }
}
