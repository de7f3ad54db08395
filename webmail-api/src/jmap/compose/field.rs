//! Header fields, from the forms of RFC 8621 §4.1.2 to bytes: folded, and what is not ASCII encoded (RFC 2047).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jmap_protocol::date::parse_date;
use jmap_protocol::object::header::{Form, HeaderProperty};
use jmap_protocol::object::identity::{EmailAddress, addresses};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// Octets after which a line is folded (RFC 5322 §2.1.1 asks for 78).
const LINE: usize = 76;
/// Octets of one encoded word before they are encoded: with its frame that is below the 75 of RFC 2047 §2.
const WORD: usize = 42;
/// Octets of one field.
const FIELD_MAX: usize = 64 << 10;
/// What an extended parameter leaves as it is (RFC 2231 §7, RFC 8187 §3.2.1).
const EXTENDED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Adds the field, or the fields, that a property gives.
pub(super) fn push(
    fields: &mut Vec<(String, String)>,
    property: &HeaderProperty,
    value: &Value,
) -> Result<(), &'static str> {
    let values: Vec<&Value> =
        if property.all { value.as_array().ok_or("not a list")?.iter().collect() } else { vec![value] };
    for value in values {
        let written = in_form(property.form, value)?;
        if written.len() > FIELD_MAX {
            return Err("too long for a header field");
        }
        fields.push((property.field.clone(), written));
    }
    Ok(())
}

/// The value, with a space before it, and without a line end behind it.
fn in_form(form: Form, value: &Value) -> Result<String, &'static str> {
    let text = || value.as_str().ok_or("not a string");
    let list = || {
        let strings = jmap_protocol::arguments::list(value, |value| value.as_str().map(str::to_owned));
        strings.ok_or("not a list of strings")
    };
    match form {
        Form::Raw => raw(text()?),
        Form::Text => Ok(folded(&words(text()?))),
        Form::Addresses => {
            let written = addresses(value).ok_or("not a list of addresses")?;
            Ok(folded(&mailboxes(&written)?))
        }
        Form::GroupedAddresses => {
            let groups = value.as_array().ok_or("not a list of groups")?;
            let mut written = Vec::new();
            for group in groups {
                let members = group.get("addresses").and_then(addresses).ok_or("not a list of groups")?;
                let members = mailboxes(&members)?;
                match group.get("name").filter(|name| !name.is_null()) {
                    None => written.extend(members),
                    Some(name) => {
                        let name = name.as_str().ok_or("not a list of groups")?;
                        written.extend(phrase(name));
                        attach(&mut written, ":");
                        written.extend(members);
                        attach(&mut written, ";");
                    }
                }
                attach(&mut written, ",");
            }
            if let Some(last) = written.last_mut()
                && last.ends_with(',')
            {
                last.pop();
            }
            Ok(folded(&written))
        }
        Form::MessageIds | Form::Urls => {
            let mut written = Vec::new();
            for id in list()? {
                let is_clean = |c: char| c.is_ascii_graphic() && !matches!(c, '<' | '>');
                if id.is_empty() || !id.chars().all(is_clean) {
                    return Err("not an id, or a URL, that a header field can hold");
                }
                if form == Form::Urls {
                    attach(&mut written, ",");
                }
                written.push(format!("<{id}>"));
            }
            Ok(folded(&written))
        }
        Form::Date => {
            let date = parse_date(text()?).ok_or("not a date")?;
            Ok(format!(" {}", date.rfc5322()))
        }
    }
}

fn attach(words: &mut [String], text: &str) {
    if let Some(last) = words.last_mut() {
        last.push_str(text);
    }
}

/// A value as it stands: ASCII, and no line end that is not folding (RFC 5322 §2.2.3).
fn raw(text: &str) -> Result<String, &'static str> {
    let unfolded = text.replace("\r\n ", " ").replace("\r\n\t", "\t");
    let is_clean = |c: char| c == '\t' || c == ' ' || c.is_ascii_graphic();
    if !unfolded.chars().all(is_clean) {
        return Err("not what may stand in a header field as it is");
    }
    // A line of white space alone would end the header for some readers.
    if text.split("\r\n").any(|line| line.len() > 998 || line.trim().is_empty() && !line.is_empty()) {
        return Err("has a line that is too long or empty");
    }
    Ok(if text.starts_with([' ', '\t']) || text.is_empty() { text.to_owned() } else { format!(" {text}") })
}

/// Text in pieces that may stand on lines of their own.
fn words(text: &str) -> Vec<String> {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // What looks like an encoded word would be taken for one.
    let is_plain =
        clean.is_ascii() && !clean.contains("=?") && clean.split(' ').all(|word| word.len() <= LINE);
    if is_plain {
        return clean.split(' ').map(str::to_owned).collect();
    }
    encoded(&clean)
}

/// Encoded words (RFC 2047 §2), none of which divides a character.
fn encoded(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.floor_char_boundary(WORD.min(rest.len()));
        let (word, after) = rest.split_at(end);
        words.push(format!("=?utf-8?B?{}?=", STANDARD.encode(word)));
        rest = after;
    }
    words
}

/// A display name (RFC 5322 §3.2.5).
fn phrase(name: &str) -> Vec<String> {
    let name: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let is_atom = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    let is_atoms = !name.contains("=?")
        && name.split(' ').all(|word| !word.is_empty() && word.len() < LINE && word.chars().all(is_atom));
    if is_atoms {
        return name.split(' ').map(str::to_owned).collect();
    }
    if name.is_ascii() && !name.contains("=?") && name.len() < LINE {
        return vec![format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))];
    }
    encoded(&name)
}

fn mailboxes(list: &[EmailAddress]) -> Result<Vec<String>, &'static str> {
    let mut words: Vec<String> = Vec::new();
    for EmailAddress { name, email } in list {
        // A draft may have an address that is none yet, but never one that is more than one.
        let is_clean = |c: char| !c.is_control() && !c.is_whitespace() && !"<>,;:()[]\\\"".contains(c);
        let (quoted, domain) = match email.rsplit_once('@') {
            Some((local, domain)) if local.starts_with('"') && local.ends_with('"') && local.len() >= 2 => {
                (&local[1..local.len() - 1], domain)
            }
            _ => ("", email.as_str()),
        };
        let is_quoted = quoted.chars().all(|c| !c.is_control() && !matches!(c, '"' | '\\'));
        if email.is_empty() || email.len() > 320 || !domain.chars().all(is_clean) || !is_quoted {
            return Err("has an address that cannot be written");
        }
        attach(&mut words, ",");
        match name.as_deref().map(str::trim).filter(|name| !name.is_empty()) {
            Some(name) => {
                words.extend(phrase(name));
                words.push(format!("<{email}>"));
            }
            None => words.push(email.clone()),
        }
    }
    Ok(words)
}

/// Pieces on lines, with a space before each.
fn folded(words: &[String]) -> String {
    let mut out = String::new();
    // The name of the field stands before it, and is short.
    let mut length = 20;
    for word in words {
        if length + 1 + word.len() > LINE && length > 20 && !word.is_empty() {
            out.push_str("\r\n");
            length = 0;
        }
        out.push(' ');
        out.push_str(word);
        length += 1 + word.len();
    }
    out
}

/// A parameter of Content-Type or Content-Disposition, with what divides it from what is before.
pub(super) fn parameter(name: &str, value: &str) -> String {
    let value: String = value.chars().filter(|c| !c.is_control()).collect();
    let value = &value[..value.floor_char_boundary(200.min(value.len()))];
    if value.is_ascii() && value.len() < LINE - 20 {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        return format!(";\r\n {name}=\"{value}\"");
    }
    // RFC 2231 §3: pieces, none of which divides an escape.
    let encoded = utf8_percent_encode(value, EXTENDED).to_string();
    let mut out = String::new();
    let mut rest = encoded.as_str();
    let mut number = 0;
    while !rest.is_empty() {
        let mut end = rest.len().min(50);
        while end < rest.len() && (rest[end - 1..].starts_with('%') || rest[end - 2..].starts_with('%')) {
            end -= 1;
        }
        let charset = if number == 0 { "utf-8''" } else { "" };
        let _ = write!(out, ";\r\n {name}*{number}*={charset}{}", &rest[..end]);
        rest = &rest[end..];
        number += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::header::decode::decode_header_text;
    use proptest::prelude::*;
    use serde_json::json;

    fn check(name: &str, value: Value, expected: Result<&str, ()>) {
        let property = HeaderProperty::parse(name).unwrap();
        let mut fields = Vec::new();
        let pushed = push(&mut fields, &property, &value).map(|()| fields[0].1.clone());
        assert_eq!(pushed.as_deref().map_err(|_| ()), expected, "{name} {value}");
    }

    #[test]
    fn fields_in_every_form() {
        check("header:Subject:asText", json!("Hello there"), Ok(" Hello there"));
        check("header:Subject:asText", json!("Käse"), Ok(" =?utf-8?B?S8Okc2U=?="));
        check("header:Subject:asText", json!("a\r\nBcc: x"), Ok(" a  Bcc: x"));
        check(
            "header:Subject:asText",
            json!("=?utf-8?B?eA==?="),
            Ok(" =?utf-8?B?PT91dGYtOD9CP2VBPT0/PQ==?="),
        );
        check("header:X", json!(" a\r\n b"), Ok(" a\r\n b"));
        check("header:X", json!("a\r\nBcc: x"), Err(()));
        check("header:X", json!("a\nb"), Err(()));
        check("header:X", json!("ä"), Err(()));
        check("header:X", json!(1), Err(()));
        let list = json!([{"name": "Joe Bloggs", "email": "j@x"}, {"email": "k@x"}, {"name": "Q. \"R\"", "email": "q@x"}]);
        check("header:To:asAddresses", list, Ok(" Joe Bloggs <j@x>, k@x, \"Q. \\\"R\\\"\" <q@x>"));
        check(
            "header:To:asAddresses",
            json!([{"name": "Jörg", "email": "j@x"}]),
            Ok(" =?utf-8?B?SsO2cmc=?= <j@x>"),
        );
        check("header:To:asAddresses", json!([{"email": "a@b>, <c@d"}]), Err(()));
        check("header:To:asAddresses", json!([{"email": "a@b\r\nX: y"}]), Err(()));
        check("header:To:asAddresses", json!([{"name": 1, "email": "a@b"}]), Err(()));
        let groups = json!([{"name": null, "addresses": [{"email": "a@b"}]}, {"name": "G", "addresses": [{"email": "c@d"}]}]);
        check("header:To:asGroupedAddresses", groups, Ok(" a@b, G: c@d;"));
        check("header:Message-ID:asMessageIds", json!(["a@b"]), Ok(" <a@b>"));
        check("header:Message-ID:asMessageIds", json!(["a>b"]), Err(()));
        check(
            "header:Date:asDate",
            json!("2014-10-30T14:12:00+08:00"),
            Ok(" Thu, 30 Oct 2014 14:12:00 +0800"),
        );
        check(
            "header:List-Post:asURLs",
            json!(["mailto:a@b", "https://x"]),
            Ok(" <mailto:a@b>, <https://x>"),
        );
    }

    #[test]
    fn parameters() {
        assert_eq!(parameter("name", "a\"b.txt"), ";\r\n name=\"a\\\"b.txt\"");
        assert_eq!(parameter("name", "ä\r\n.txt"), ";\r\n name*0*=utf-8''%C3%A4.txt");
        let long = parameter("name", &"ä".repeat(100));
        assert!(
            long.lines().all(|line| line.len() < 78) && !long.contains("%\r") && long.contains("name*1*=")
        );
    }

    proptest! {
        /// Whatever a text is, it comes back, and nothing of it gets out of its field.
        #[test]
        fn text_comes_back(text in "\\PC{0,100}") {
            let written = folded(&words(&text));
            for line in written.split("\r\n").skip(1) {
                prop_assert!(line.starts_with(' ') && !line.trim().is_empty());
            }
            prop_assert!(!written.replace("\r\n", "").contains(['\r', '\n']));
            prop_assert!(written.is_ascii());
            if !text.is_ascii() {
                prop_assert_eq!(decode_header_text(&written.as_bytes()[1..]), text);
            }
        }
    }
}
