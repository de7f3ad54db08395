//! mail-parser as a second opinion: on real mail it finds the same parts at the same octets, the same dates, subjects
//! and message-ids, but for a small share of broken messages that can be read in more than one way.
//!
//! Runs over the corpus that `cargo xtask corpus` fetches into the cache folder; without it, over the few messages that
//! are kept here.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::path::PathBuf;

use mail::header::decode::decode_header_text;
use mail::mime::{Facts, Kind, Limits, Part, Splitter};
use mail_parser::{Message, MessageParser, PartType};

fn facts(message: &[u8]) -> Facts {
    let mut splitter = Splitter::new(Limits::default());
    for chunk in message.chunks(1000) {
        splitter.push(chunk);
    }
    splitter.finish()
}

fn messages() -> Vec<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
        .unwrap_or_default()
        .join("postrider/corpus-1");
    let edges = PathBuf::from("../tests/conformance/edges");
    let folders = [cache.join("spam-assassin"), cache.join("cpython"), edges];
    let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Whether both see the same tree with the same leaf bodies.
fn same_parts(ours: &Part, message: &Message<'_>, id: u32) -> bool {
    let theirs = &message.parts[id as usize];
    match (&ours.kind, &theirs.body) {
        (Kind::Multipart(parts), PartType::Multipart(ids)) => {
            parts.len() == ids.len() && parts.iter().zip(ids).all(|(part, id)| same_parts(part, message, *id))
        }
        // What is inside has offsets of its own there.
        (Kind::Message(_), PartType::Message(_)) => true,
        (
            Kind::Leaf,
            PartType::Text(_) | PartType::Html(_) | PartType::Binary(_) | PartType::InlineBinary(_),
        ) => {
            u64::from(theirs.raw_body_offset()) == ours.body.start
                && u64::from(theirs.raw_end_offset()) == ours.body.end
        }
        _ => false,
    }
}

#[derive(Default)]
struct Agreement {
    what: &'static str,
    of: usize,
    differing: Vec<String>,
}

impl Agreement {
    fn check(&mut self, name: &str, agrees: bool) {
        self.of += 1;
        if !agrees {
            self.differing.push(name.to_owned());
        }
    }

    fn at_least(&self, per_mille: usize) {
        let agreeing = self.of - self.differing.len();
        println!(
            "{}: {agreeing} of {}; differing: {:?}",
            self.what,
            self.of,
            &self.differing[..self.differing.len().min(12)]
        );
        assert!(agreeing * 1000 >= self.of * per_mille, "{}: {agreeing} of {}", self.what, self.of);
    }
}

#[test]
fn agrees_with_mail_parser() {
    let files = messages();
    let real = files.len() > 1000;
    let [mut parts, mut dates, mut subjects, mut ids, mut froms] =
        ["parts", "dates", "subjects", "message-ids", "from"]
            .map(|what| Agreement { what, ..Agreement::default() });
    let mut sizes = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = std::fs::read(&file).unwrap();
        let ours = facts(&bytes);
        sizes.push(postcard::to_stdvec(&ours).unwrap().len());
        let Some(theirs) = MessageParser::new().parse(&bytes) else { continue };
        parts.check(&name, same_parts(&ours.structure, &theirs, 0));
        if let Some(date) = theirs.date().filter(|date| date.is_valid()) {
            dates.check(&name, ours.sent_date.map(|date| date.unix_seconds) == Some(date.to_timestamp()));
        }
        if let (Some(theirs), Some(raw)) = (theirs.subject(), &ours.summary.subject) {
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            subjects.check(&name, words(&decode_header_text(raw.as_bytes())) == words(theirs));
        }
        if let Some(id) = theirs.message_id() {
            ids.check(&name, ours.message_id.as_deref() == Some(id));
        }
        if let Some(address) = theirs.from().and_then(|from| from.first()).and_then(|from| from.address()) {
            let first = ours.summary.from.first();
            let text = |field: &Option<mail::header::RawText>| {
                field
                    .as_ref()
                    .map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned())
                    .unwrap_or_default()
            };
            let ours = first.map(|a| format!("{}@{}", text(&a.mailbox), text(&a.host))).unwrap_or_default();
            froms.check(&name, ours == address);
        }
    }
    sizes.sort_unstable();
    println!(
        "records: median {}, p99 {}, largest {}",
        sizes[sizes.len() / 2],
        sizes[sizes.len() * 99 / 100],
        sizes[sizes.len() - 1]
    );
    // The few kept here were made to be read in more than one way.
    for (agreement, per_mille) in [(&parts, 980), (&dates, 990), (&subjects, 990), (&ids, 990), (&froms, 990)]
    {
        agreement.at_least(if real { per_mille } else { 400 });
    }
    assert!(!real || sizes[sizes.len() / 2] < 1536);
}
