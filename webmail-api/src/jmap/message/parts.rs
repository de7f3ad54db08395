//! The parts of a message as a client sees them, and which of them are the text (RFC 8621 §4.1.4).

use mail::mime::{Kind, Part};

use super::parameter;

/// A part with its number: the position at which it stands in the message, the message itself being number zero.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    pub(crate) number: u32,
    pub(crate) part: &'a Part,
    /// `text/plain`, in lower case.
    pub(crate) media: String,
    pub(crate) children: Vec<Node<'a>>,
}

impl<'a> Node<'a> {
    /// The tree of a message. A message within it is a leaf here.
    pub(crate) fn of(part: &'a Part) -> Self {
        Self::numbered(part, &mut 0)
    }

    fn numbered(part: &'a Part, next: &mut u32) -> Self {
        let number = *next;
        *next += 1;
        let children = match &part.kind {
            Kind::Multipart(parts) => parts.iter().map(|part| Self::numbered(part, next)).collect(),
            Kind::Leaf | Kind::Message(_) => Vec::new(),
        };
        Self { number, part, media: media(part), children }
    }

    pub(crate) fn is_multipart(&self) -> bool {
        matches!(self.part.kind, Kind::Multipart(_))
    }

    pub(crate) fn find(&self, number: u32) -> Option<&Self> {
        if self.number == number {
            return Some(self);
        }
        let child = self.children.iter().rev().find(|child| child.number <= number)?;
        child.find(number)
    }

    /// All leaves, in order.
    pub(crate) fn leaves<'n>(&'n self, list: &mut Vec<&'n Self>) {
        if !self.is_multipart() {
            list.push(self);
        }
        for child in &self.children {
            child.leaves(list);
        }
    }

    fn is_attachment(&self) -> bool {
        self.part.disposition.as_ref().is_some_and(|it| it.kind.eq_ignore_ascii_case("attachment"))
    }
}

/// The media type, in lower case, without parameters; `text/plain` where none can be read (RFC 2045 §5.2).
fn media(part: &Part) -> String {
    let shown = part.shown_type();
    let token = |bytes: &[u8]| {
        let allowed = |byte: &u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(byte);
        !bytes.is_empty() && bytes.iter().all(allowed)
    };
    if matches!(part.kind, Kind::Multipart(_)) && !(token(shown.kind) && token(shown.subtype)) {
        return "multipart/mixed".to_owned();
    }
    if !(token(shown.kind) && token(shown.subtype)) {
        return "text/plain".to_owned();
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_ascii_lowercase();
    format!("{}/{}", text(shown.kind), text(shown.subtype))
}

/// Which parts are shown as text, as HTML, and which are attachments.
#[derive(Debug, Default)]
pub(crate) struct Bodies<'n, 'a> {
    pub(crate) text: Vec<&'n Node<'a>>,
    pub(crate) html: Vec<&'n Node<'a>>,
    pub(crate) attachments: Vec<&'n Node<'a>>,
}

impl<'n, 'a> Bodies<'n, 'a> {
    /// As RFC 8621 §4.1.4 has it, step by step.
    pub(crate) fn of(root: &'n Node<'a>) -> Self {
        let mut bodies = Self::default();
        let Self { text, html, attachments } = &mut bodies;
        sort(std::slice::from_ref(root), "mixed", false, Some(html), Some(text), attachments);
        bodies
    }
}

fn sort<'n, 'a>(
    parts: &'n [Node<'a>],
    multipart: &str,
    in_alternative: bool,
    mut html: Option<&mut Vec<&'n Node<'a>>>,
    mut text: Option<&mut Vec<&'n Node<'a>>>,
    attachments: &mut Vec<&'n Node<'a>>,
) {
    let text_before = text.as_ref().map(|list| list.len());
    let html_before = html.as_ref().map(|list| list.len());
    for (at, part) in parts.iter().enumerate() {
        let is_media = ["image/", "audio/", "video/"].iter().any(|kind| part.media.starts_with(kind));
        let is_text = matches!(part.media.as_str(), "text/plain" | "text/html");
        // What stands first, or is no file, is shown in its place.
        let is_shown = !part.is_attachment()
            && (is_text || is_media)
            && (at == 0 || multipart != "related" && (is_media || parameter::file_name(part.part).is_none()));
        if part.is_multipart() {
            let sub = part.media.split_once('/').map_or("mixed", |(_, sub)| sub);
            let in_alternative = in_alternative || sub == "alternative";
            let (html, text) = (html.as_deref_mut(), text.as_deref_mut());
            sort(&part.children, sub, in_alternative, html, text, attachments);
        } else if is_shown {
            if multipart == "alternative" {
                match (part.media.as_str(), &mut text, &mut html) {
                    ("text/plain", Some(text), _) => text.push(part),
                    ("text/html", _, Some(html)) => html.push(part),
                    ("text/plain" | "text/html", ..) => {}
                    _ => attachments.push(part),
                }
                continue;
            }
            if in_alternative {
                match part.media.as_str() {
                    "text/plain" => html = None,
                    "text/html" => text = None,
                    _ => {}
                }
            }
            let is_everywhere = text.is_some() && html.is_some();
            if let Some(text) = &mut text {
                text.push(part);
            }
            if let Some(html) = &mut html {
                html.push(part);
            }
            if !is_everywhere && is_media {
                attachments.push(part);
            }
        } else {
            attachments.push(part);
        }
    }
    // An alternative that has only one of the two stands in for the other.
    if multipart == "alternative"
        && let (Some(text), Some(html), Some(text_before), Some(html_before)) =
            (text, html, text_before, html_before)
    {
        if text.len() == text_before && html.len() != html_before {
            text.extend_from_slice(&html[html_before..]);
        } else if html.len() == html_before && text.len() != text_before {
            html.extend_from_slice(&text[text_before..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::mime::{Limits, Splitter};
    use std::fmt::Write as _;

    fn check(message: &str, text: &[u32], html: &[u32], attachments: &[u32]) {
        let mut splitter = Splitter::new(Limits::default());
        splitter.push(message.replace('\n', "\r\n").as_bytes());
        let facts = splitter.finish();
        let tree = Node::of(&facts.structure);
        let bodies = Bodies::of(&tree);
        let numbers = |list: &[&Node<'_>]| list.iter().map(|node| node.number).collect::<Vec<_>>();
        assert_eq!(numbers(&bodies.text), text, "text\n{message}");
        assert_eq!(numbers(&bodies.html), html, "html\n{message}");
        assert_eq!(numbers(&bodies.attachments), attachments, "attachments\n{message}");
        let mut leaves = Vec::new();
        tree.leaves(&mut leaves);
        for leaf in leaves {
            assert!(std::ptr::eq(tree.find(leaf.number).unwrap().part, leaf.part));
        }
        assert!(tree.find(1000).is_none());
    }

    /// A multipart of these types, each `type`, or with a bracket around more.
    fn message(structure: &str) -> String {
        fn write(words: &mut std::iter::Peekable<std::str::SplitWhitespace<'_>>, depth: usize) -> String {
            let word = words.next().unwrap();
            let Some(kind) = word.strip_prefix('(') else {
                let (kind, rest) = word.split_once(';').unwrap_or((word, ""));
                let disposition =
                    if rest.is_empty() { String::new() } else { format!("Content-Disposition: {rest}\n") };
                return format!("Content-Type: {kind}\n{disposition}\nbody\n");
            };
            let mut out = format!("Content-Type: multipart/{kind}; boundary=b{depth}x\n\n");
            while words.peek() != Some(&")") {
                let _ = write!(out, "--b{depth}x\n{}", write(words, depth + 1));
            }
            words.next();
            let _ = writeln!(out, "--b{depth}x--");
            out
        }
        format!("Subject: x\n{}", write(&mut structure.split_whitespace().peekable(), 0))
    }

    /// The example of RFC 8621 §4.1.4 is the third.
    #[test]
    fn bodies_rfc8621_4_1_4() {
        check("Subject: x\n\nbody\n", &[0], &[0], &[]);
        check(&message("(alternative text/plain text/html )"), &[1], &[2], &[]);
        check(
            &message(
                "(mixed text/plain (mixed (alternative (mixed text/plain image/jpeg;inline text/plain ) \
                 (related text/html image/jpeg ) ) image/jpeg;attachment application/x-excel message/rfc822 ) text/plain )",
            ),
            &[1, 5, 6, 7, 14],
            &[1, 9, 14],
            &[6, 10, 11, 12, 13],
        );
        check(&message("(alternative text/html )"), &[1], &[1], &[]);
        check(&message("(mixed text/plain application/pdf;attachment )"), &[1], &[1], &[2]);
        check(&message("(related text/html image/png;inline )"), &[1], &[1], &[2]);
        check(&message("(mixed text/plain text/plain;inline;filename=a.txt )"), &[1], &[1], &[2]);
        check(&message("application/pdf"), &[], &[], &[0]);
    }
}
