//! Which RFC is obeyed where: citations in the code against docs/rfc/index.tsv.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};

use crate::process;

const STATUSES: &[&str] = &["done", "partial", "planned", "background"];

/// Checks that every RFC cited in the sources is listed, that every listed status is known, and that what is called
/// done is cited; writes the coverage page, or checks that it is current.
pub(crate) fn run(check: bool) -> Result<()> {
    let root = process::root();
    let index = std::fs::read_to_string(root.join("docs/rfc/index.tsv")).context("docs/rfc/index.tsv")?;
    let listing = process::output(&mut process::command("git", ["ls-files", "*.rs", "*.txt", "*.py"]))?;
    let mut cited: BTreeMap<u32, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for name in listing.lines() {
        let text = std::fs::read_to_string(root.join(name)).unwrap_or_default();
        for (number, section) in citations(&text) {
            let files = cited.entry(number).or_default().entry(section).or_default();
            if files.last().is_none_or(|last| last != name) {
                files.push(name.to_owned());
            }
        }
    }
    let mut faults = Vec::new();
    let mut listed = BTreeMap::new();
    for (line, text) in index.lines().enumerate().skip(1) {
        let fields: Vec<&str> = text.split('\t').collect();
        match fields.as_slice() {
            [number, title, status, note] if number.parse::<u32>().is_ok() && STATUSES.contains(status) => {
                listed.insert(number.parse::<u32>()?, (*title, *status, *note));
            }
            _ => faults.push(format!("docs/rfc/index.tsv:{}: not «number, title, status, note»", line + 1)),
        }
    }
    for (number, sections) in &cited {
        if !listed.contains_key(number) {
            let file = sections.values().flatten().next().map_or("", String::as_str);
            faults.push(format!("RFC {number} is cited in {file} and not listed"));
        }
    }
    for (number, (_, status, _)) in &listed {
        if matches!(*status, "done" | "partial") && !cited.contains_key(number) {
            faults.push(format!("RFC {number} is listed as {status} and cited nowhere"));
        }
    }
    if !faults.is_empty() {
        bail!("rfc: {}", faults.join("\nrfc: "));
    }
    let mut page = String::from(
        "# RFC coverage\n\nWritten by `cargo xtask rfc` from the citations in the sources.\n\n| RFC | title | status | cited sections | note |\n|---|---|---|---|---|\n",
    );
    for (number, (title, status, note)) in &listed {
        let sections = cited.get(number).map(|sections| {
            sections.keys().filter(|section| !section.is_empty()).cloned().collect::<Vec<_>>().join(", ")
        });
        writeln!(page, "| {number} | {title} | {status} | {} | {note} |", sections.unwrap_or_default())?;
    }
    let path = root.join("docs/rfc/coverage.md");
    if check {
        if std::fs::read_to_string(&path).unwrap_or_default() != page {
            bail!("docs/rfc/coverage.md is not current: run cargo xtask rfc");
        }
    } else {
        std::fs::write(path, page)?;
    }
    println!("rfc: {} listed, {} cited", listed.len(), cited.len());
    Ok(())
}

/// Every `RFC NNNN §x.y` in a text; the section may be missing.
fn citations(text: &str) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("RFC ") {
        let rest = &text[at + 4..];
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        if !(3..=5).contains(&digits.len()) {
            continue;
        }
        let section = rest[digits.len()..].strip_prefix(" §").map(|section| {
            section.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect::<String>()
        });
        if let Ok(number) = digits.parse() {
            found.push((number, section.unwrap_or_default().trim_end_matches('.').to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_citations() {
        let text = "as RFC 5321 §4.5.3.1.6. says, and RFC 9051 too; not RFC 12";
        assert_eq!(citations(text), vec![(5321, "4.5.3.1.6".to_owned()), (9051, String::new())]);
    }
}
