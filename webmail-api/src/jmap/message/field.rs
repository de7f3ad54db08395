//! Header fields in the forms of RFC 8621 §4.1.2.

use std::ops::Range;

use jmap_protocol::date;
use jmap_protocol::object::header::{Form, HeaderProperty};
use mail::date::SentDate;
use mail::header::HeaderAddress;
use mail::header::address_list::parse_address_list;
use mail::header::decode::decode_header_text;
use serde_json::{Value, json};
use unicode_normalization::UnicodeNormalization as _;

/// Addresses of one field that are told.
const ADDRESSES_MAX: usize = 1000;

/// The fields of a header, in order: each its name, and all that stands behind the colon up to the line end.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    octets: Vec<u8>,
    fields: Vec<(Range<usize>, Range<usize>)>,
}

impl Fields {
    /// Takes a header apart (RFC 5322 §2.2). Lines that are no field belong to none.
    pub(crate) fn parse(octets: Vec<u8>) -> Self {
        let mut fields: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        let mut continues = false;
        let mut start = 0;
        while start < octets.len() {
            let length = octets[start..].iter().position(|byte| *byte == b'\n');
            let end = length.map_or(octets.len(), |length| start + length + 1);
            let line = trim_line_end(&octets[start..end]);
            if line.is_empty() {
                break;
            }
            if matches!(line[0], b' ' | b'\t') {
                if let (true, Some(last)) = (continues, fields.last_mut()) {
                    last.1.end = start + line.len();
                }
            } else {
                let colon = line.iter().position(|byte| *byte == b':');
                let name = colon.map(|colon| line[..colon].trim_ascii_end());
                let is_name = |name: &&[u8]| !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
                continues = false;
                if let (Some(colon), Some(name)) = (colon, name.filter(is_name)) {
                    fields.push((start..start + name.len(), start + colon + 1..start + line.len()));
                    continues = true;
                }
            }
            start = end;
        }
        Self { octets, fields }
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|(name, value)| (&self.octets[name.clone()], &self.octets[value.clone()]))
    }

    /// `headers` (RFC 8621 §4.1.3): all of them, raw.
    pub(crate) fn all(&self) -> Value {
        let field = |(name, value): (&[u8], &[u8])| json!({"name": text(name), "value": raw(value)});
        self.iter().map(field).collect()
    }

    /// The values of all fields of this name, as text for people.
    pub(crate) fn texts(&self, wanted: &str) -> Vec<String> {
        let found = self.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()));
        found.map(|(_, value)| plain(&unfold(value))).collect()
    }

    /// A property `header:…`.
    pub(crate) fn show(&self, property: &HeaderProperty) -> Value {
        let mut found = self.iter().filter(|(name, _)| name.eq_ignore_ascii_case(property.field.as_bytes()));
        if property.all {
            return found.map(|(_, value)| in_form(value, property.form)).collect();
        }
        found.next_back().map_or(Value::Null, |(_, value)| in_form(value, property.form))
    }
}

fn trim_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).replace('\0', "")
}

fn raw(value: &[u8]) -> String {
    text(value)
}

/// A value in a form; `null` where it cannot be had.
fn in_form(value: &[u8], form: Form) -> Value {
    if form == Form::Raw {
        return json!(raw(value));
    }
    let unfolded = unfold(value);
    match form {
        Form::Raw => Value::Null,
        Form::Text => json!(plain(&unfolded)),
        Form::Addresses => json!(addresses(&list_of(&unfolded))),
        Form::GroupedAddresses => json!(groups(&list_of(&unfolded))),
        Form::MessageIds => message_ids(&unfolded),
        Form::Date => SentDate::parse(&unfolded).map_or(Value::Null, |sent| json!(date::date(sent))),
        Form::Urls => urls(&unfolded),
    }
}

/// RFC 5322 §2.2.3: unfolding takes the line ends only.
fn unfold(value: &[u8]) -> Vec<u8> {
    value.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n' | b'\0')).collect()
}

/// Text for people (RFC 8621 §4.1.2.2).
pub(crate) fn plain(unfolded: &[u8]) -> String {
    let decoded = decode_header_text(unfolded.trim_ascii());
    decoded.chars().filter(|character| *character != '\0').nfc().collect()
}

fn list_of(unfolded: &[u8]) -> Vec<HeaderAddress> {
    let mut list = Vec::new();
    parse_address_list(unfolded, ADDRESSES_MAX, &mut list);
    list
}

/// Addresses without their groups (RFC 8621 §4.1.2.3).
pub(crate) fn addresses(list: &[HeaderAddress]) -> Vec<Value> {
    list.iter().filter(|address| address.host.is_some()).map(address).collect()
}

/// Addresses in their groups; those that are in none are in one without a name (§4.1.2.4).
fn groups(list: &[HeaderAddress]) -> Vec<Value> {
    let mut groups: Vec<(Option<String>, Vec<Value>)> = Vec::new();
    let mut within = false;
    for entry in list {
        if entry.is_group_start() {
            let name = entry.mailbox.as_ref().map(|name| plain(name.as_bytes()));
            groups.push((name, Vec::new()));
            within = true;
        } else if entry.is_group_end() {
            within = false;
        } else {
            if !within && !matches!(groups.last(), Some((None, _))) {
                groups.push((None, Vec::new()));
            }
            if let Some((_, members)) = groups.last_mut() {
                members.push(address(entry));
            }
        }
    }
    let show =
        |(name, addresses): (Option<String>, Vec<Value>)| json!({"name": name, "addresses": addresses});
    groups.into_iter().map(show).collect()
}

/// What stands for what is missing is IMAP's alone (`MISSING_DOMAIN`): here a part that is missing is left out.
fn address(entry: &HeaderAddress) -> Value {
    let part = |part: &Option<mail::header::RawText>| {
        let octets = part.as_ref().map(|part| part.as_bytes()).unwrap_or_default();
        String::from_utf8_lossy(octets).into_owned()
    };
    let name = entry.name.as_ref().map(|name| plain(name.as_bytes())).filter(|name| !name.is_empty());
    let (local, domain) = (part(&entry.mailbox), part(&entry.host));
    let stands_in = |text: &str| matches!(text, "MISSING_MAILBOX" | "MISSING_DOMAIN" | "SYNTAX_ERROR");
    let email = match (stands_in(&local), stands_in(&domain)) {
        (false, false) => format!("{}@{domain}", quoted(&local)),
        (false, true) => local,
        (true, false) => domain,
        (true, true) => String::new(),
    };
    // RFC 8621 §4.1.2.3: who has neither an address nor a route is shown by the name alone.
    json!({"name": name, "email": email})
}

/// A local part as it is written in an address (RFC 5322 §3.4.1).
fn quoted(local: &str) -> String {
    let is_atom = |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    let is_dot_atom = local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom));
    if is_dot_atom {
        return local.to_owned();
    }
    format!("\"{}\"", local.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Message-ids without their angle brackets (§4.1.2.5); `null` where there is none.
pub(crate) fn message_ids(unfolded: &[u8]) -> Value {
    let text = without_comments(unfolded);
    let mut ids = Vec::new();
    let mut rest = text.as_str();
    while let Some((_, after)) = rest.split_once('<') {
        let Some((id, after)) = after.split_once('>') else { break };
        let id: String = id.chars().filter(|c| !c.is_whitespace()).collect();
        if !id.is_empty() {
            ids.push(id);
        }
        rest = after;
    }
    if ids.is_empty() { Value::Null } else { json!(ids) }
}

/// URLs of RFC 2369 (§4.1.2.7); `null` where there is none.
fn urls(unfolded: &[u8]) -> Value {
    message_ids(unfolded)
}

fn without_comments(value: &[u8]) -> String {
    let mut out = String::new();
    let mut depth = 0_u32;
    let mut bracket = false;
    for character in String::from_utf8_lossy(value).chars() {
        match character {
            '<' if depth == 0 => bracket = true,
            '>' if depth == 0 => bracket = false,
            '(' if !bracket => {
                depth += 1;
                continue;
            }
            ')' if depth > 0 => {
                depth -= 1;
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        let header = "From: \"James Smythe\" <james@example.com>, Friends:\r\n jane@example.com, =?UTF-8?Q?John_Sm=C3=AEth?=\r\n  <john@example.com>;\r\n\
            Subject: =?utf-8?Q?a?= =?utf-8?Q?b?=\r\n\tfolded  text\r\n\
            broken line\r\n continued\r\n\
            X-Two: one\r\nX-Two:  two \r\n\
            Message-ID: (c <x@y>) <a@b> \r\n\
            References: <1@x>\r\n\t<2@x>\r\n\
            Date: Thu, 30 Oct 2014 14:12:00 +0800\r\n\
            List-Post: <mailto:x@y>, (comment) <https://e.org/a(b)>\r\n\
            To: undisclosed\r\n\r\nBody: no\r\n";
        Fields::parse(header.as_bytes().to_vec())
    }

    fn check(name: &str, expected: Value) {
        assert_eq!(fields().show(&HeaderProperty::parse(name).unwrap()), expected, "{name}");
    }

    #[test]
    fn forms_rfc8621_4_1_2() {
        check("header:X-Two", json!("  two "));
        check("header:x-two:all", json!([" one", "  two "]));
        check("header:X-Two:asText:all", json!(["one", "two"]));
        check("header:X-None", Value::Null);
        check("header:X-None:all", json!([]));
        check("header:Subject", json!(" =?utf-8?Q?a?= =?utf-8?Q?b?=\r\n\tfolded  text"));
        check("header:Subject:asText", json!("ab folded  text"));
        check("header:Message-ID:asMessageIds", json!(["a@b"]));
        check("header:References:asMessageIds", json!(["1@x", "2@x"]));
        check("header:Date:asDate", json!("2014-10-30T14:12:00+08:00"));
        check("header:X-Two:asDate", Value::Null);
        check("header:X-Two:asMessageIds", Value::Null);
        check("header:List-Post:asURLs", json!(["mailto:x@y", "https://e.org/a(b)"]));
        check("header:To:asAddresses", json!([{"name": null, "email": "undisclosed"}]));
    }

    /// RFC 8621 §4.1.2.3 and §4.1.2.4
    #[test]
    fn the_examples_of_the_rfc() {
        let james = json!({"name": "James Smythe", "email": "james@example.com"});
        let jane = json!({"name": null, "email": "jane@example.com"});
        let john = json!({"name": "John Smîth", "email": "john@example.com"});
        check("header:From:asAddresses", json!([james, jane, john]));
        check(
            "header:From:asGroupedAddresses",
            json!([{"name": null, "addresses": [james]}, {"name": "Friends", "addresses": [jane, john]}]),
        );
    }

    #[test]
    fn all_fields_in_order() {
        let all = fields().all();
        let names: Vec<&str> = all.as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
        assert_eq!(
            names,
            ["From", "Subject", "X-Two", "X-Two", "Message-ID", "References", "Date", "List-Post", "To"]
        );
    }

    #[test]
    fn local_parts_are_quoted() {
        assert_eq!(quoted("a.b"), "a.b");
        assert_eq!(quoted("a b"), "\"a b\"");
        assert_eq!(quoted("a\"b"), "\"a\\\"b\"");
        assert_eq!(quoted(".a"), "\".a\"");
    }
}
