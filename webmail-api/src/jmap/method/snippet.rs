//! SearchSnippet/get (RFC 8621 §5): why an email was found, as HTML with marks.

use jmap_protocol::arguments;
use jmap_protocol::filter::Filter;
use jmap_protocol::method::object;
use jmap_protocol::object::filter::{Test, TextField, condition};
use jmap_protocol::{Arguments, Id, MethodError, Object};
use serde_json::{Value, json};
use storage::StorageError;

use super::spend_on;
use crate::jmap::context::{Context, body_trouble, trouble};
use crate::jmap::ids;
use crate::jmap::message::field;
use crate::jmap::text::{Scan, fold_character, terms};

/// Octets of a preview (RFC 8621 §5).
const PREVIEW_BYTES_MAX: usize = 255;
/// Characters of it, before marks and escapes.
const PREVIEW_CHARACTERS: usize = 120;

pub(crate) async fn get(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let filter = arguments.take("filter").map(|it| Filter::parse(&it, &condition)).transpose()?;
    let wanted =
        arguments.required("emailIds", "a list of ids", |value| arguments::list(value, Id::from_value))?;
    std::mem::take(arguments).finish()?;
    if wanted.len() > context.config().objects_in_get_max {
        return Err(MethodError::RequestTooLarge("too many ids".to_owned()));
    }
    let (in_subject, in_body) = needles(filter.as_ref());
    let view = context.view().await?;
    let (mut list, mut not_found) = (Vec::new(), Vec::new());
    for id in wanted {
        let email = ids::parse_email(&id).filter(|email| view.email(*email).is_some());
        let record = match email {
            Some(email) => context.account().email(email).await.map_err(|error| trouble(&error))?,
            None => None,
        };
        let Some(record) = record else {
            not_found.push(id);
            continue;
        };
        let summary = record.summary().map_err(|error| trouble(&StorageError::from(error)))?;
        let subject = summary.subject.map(|text| field::plain(text.as_bytes())).unwrap_or_default();
        let preview = if in_body.is_empty() {
            None
        } else {
            let text = Scan::default().text_of(context.account(), &record).await;
            excerpt(&text.map_err(|error| body_trouble(&error))?, &in_body)
        };
        let snippet = json!({"emailId": id, "subject": mark(&subject, &in_subject), "preview": preview});
        spend_on(context, &snippet)?;
        list.push(snippet);
    }
    let not_found = if not_found.is_empty() { Value::Null } else { json!(not_found) };
    Ok(object(json!({"accountId": account, "list": list, "notFound": not_found})))
}

/// What to mark in the subject and in the text. What stands under a NOT is not what an email was found by.
fn needles(filter: Option<&Filter<Vec<Test>>>) -> (Vec<String>, Vec<String>) {
    let (mut subject, mut body) = (Vec::new(), Vec::new());
    let mut open: Vec<&Filter<Vec<Test>>> = filter.into_iter().collect();
    while let Some(filter) = open.pop() {
        match filter {
            Filter::And(parts) | Filter::Or(parts) => open.extend(parts),
            Filter::Not(_) => {}
            Filter::Condition(tests) => {
                for test in tests {
                    let Test::Text(test) = test else { continue };
                    if matches!(test.field, TextField::Text | TextField::Subject) {
                        subject.extend(terms(&test.text));
                    }
                    if matches!(test.field, TextField::Text | TextField::Body) {
                        body.extend(terms(&test.text));
                    }
                }
            }
        }
    }
    (subject, body)
}

/// Where the needles are found in a text: ranges of characters, ascending, none over another.
fn hits(characters: &[char], needles: &[String]) -> Vec<(usize, usize)> {
    let mut folded = Vec::new();
    for (at, character) in characters.iter().enumerate() {
        folded.extend(fold_character(*character).map(|character| (character, at)));
    }
    let needles: Vec<Vec<char>> = needles.iter().map(|needle| needle.chars().collect()).collect();
    let mut hits: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    while at < folded.len() {
        let longest = needles
            .iter()
            .filter(|needle| {
                let window = folded[at..].iter().map(|(character, _)| character);
                !needle.is_empty()
                    && needle.len() <= folded.len() - at
                    && window.zip(*needle).all(|(a, b)| a == b)
            })
            .map(Vec::len)
            .max();
        match longest {
            Some(length) => {
                let (start, end) = (folded[at].1, folded[at + length - 1].1 + 1);
                match hits.last_mut() {
                    Some(last) if last.1 >= start => last.1 = end,
                    _ => hits.push((start, end)),
                }
                at += length;
            }
            None => at += 1,
        }
    }
    hits
}

/// A text as HTML with what was found marked. `null`: nothing was.
fn mark(text: &str, needles: &[String]) -> Option<String> {
    let characters: Vec<char> = text.chars().collect();
    let hits = hits(&characters, needles);
    (!hits.is_empty()).then(|| marked(&characters, &hits))
}

fn marked(characters: &[char], hits: &[(usize, usize)]) -> String {
    let mut out = String::new();
    let mut hits = hits.iter().copied().peekable();
    for (at, character) in characters.iter().enumerate() {
        if hits.peek().is_some_and(|(start, _)| *start == at) {
            out.push_str("<mark>");
        }
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(*other),
        }
        if hits.peek().is_some_and(|(_, end)| *end == at + 1) {
            out.push_str("</mark>");
            hits.next();
        }
    }
    out
}

/// The neighbourhood of what was found first.
fn excerpt(text: &str, needles: &[String]) -> Option<String> {
    let characters: Vec<char> = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().collect();
    let first = *hits(&characters, needles).first()?;
    let start = first.0.saturating_sub(PREVIEW_CHARACTERS / 3);
    // From the beginning of a word, where one is near.
    let start = match characters[start..first.0].iter().position(|character| *character == ' ') {
        Some(space) if start > 0 => start + space + 1,
        _ => start,
    };
    let mut end = characters.len().min(start + PREVIEW_CHARACTERS).max(first.1);
    loop {
        let window = &characters[start..end];
        let shown = marked(window, &hits(window, needles));
        if shown.len() <= PREVIEW_BYTES_MAX || end <= start + 1 {
            return Some(shown).filter(|shown| shown.len() <= PREVIEW_BYTES_MAX);
        }
        end -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needles_of(text: &str) -> Vec<String> {
        terms(text)
    }

    #[test]
    fn marks_and_escapes_rfc8621_5() {
        let check = |text: &str, needles: &str, expected: Option<&str>| {
            assert_eq!(mark(text, &needles_of(needles)).as_deref(), expected, "{text}");
        };
        check("The quick fox", "QUICK", Some("The <mark>quick</mark> fox"));
        check("Käse & Brot", "kase", Some("<mark>Käse</mark> &amp; Brot"));
        check(
            "<script>x</script>",
            "script",
            Some("&lt;<mark>script</mark>&gt;x&lt;/<mark>script</mark>&gt;"),
        );
        check("</mark><img>", "img", Some("&lt;/mark&gt;&lt;<mark>img</mark>&gt;"));
        check("nothing", "fox", None);
        check("aaaa", "aa", Some("<mark>aaaa</mark>"));
        check("日本語です", "本語", Some("日<mark>本語</mark>です"));
    }

    #[test]
    fn excerpts_are_short() {
        let text = format!("{} needle {}", "word ".repeat(200), "<&\"'> ".repeat(200));
        let shown = excerpt(&text, &needles_of("needle")).unwrap();
        assert!(shown.len() <= PREVIEW_BYTES_MAX && shown.contains("<mark>needle</mark>"), "{shown}");
        assert!(excerpt("nothing here", &needles_of("needle")).is_none());
    }
}
