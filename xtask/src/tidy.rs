//! Names that attract everything are refused; long files and functions are reported.

use std::path::Path;

use anyhow::{Result, bail};

use crate::process;

const REFUSED: &[&str] =
    &["util", "utils", "common", "helper", "helpers", "manager", "misc", "shared", "stuff", "lib2"];
const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 100;
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Looks at every file that git tracks.
pub(crate) fn run() -> Result<()> {
    let root = process::root();
    let listing = process::output(&mut process::command("git", ["ls-files"]))?;
    let mut refused = Vec::new();
    let mut reported = Vec::new();
    for name in listing.lines() {
        if let Some(word) = dumping_ground(name) {
            refused.push(format!("{name}: «{word}» says nothing of what is inside"));
        }
        let path = root.join(name);
        if path.metadata().is_ok_and(|metadata| metadata.len() > FILE_BYTES_MAX) {
            refused.push(format!("{name}: larger than {FILE_BYTES_MAX} bytes"));
        }
        if Path::new(name).extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let lines = text.lines().count();
            if lines > FILE_LINES_MAX {
                reported.push(format!("{name}: {lines} lines; what is its second idea?"));
            }
            for (line, length) in long_functions(&text) {
                reported.push(format!("{name}:{line}: a function of {length} lines"));
            }
        }
    }
    for line in &reported {
        println!("tidy: {line}");
    }
    if !refused.is_empty() {
        bail!("tidy: {}", refused.join("\ntidy: "));
    }
    println!("tidy: no dumping-ground name; {} long files or functions reported", reported.len());
    Ok(())
}

fn dumping_ground(name: &str) -> Option<&str> {
    Path::new(name)
        .components()
        .filter_map(|part| Path::new(part.as_os_str()).file_stem()?.to_str())
        .find_map(|stem| REFUSED.iter().copied().find(|word| *word == stem))
}

/// First line and length of each function that is too long, judged by rustfmt's indentation.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let trimmed = line.trim_start();
        if let Some((start, end)) = &open {
            if line == end {
                let length = index + 1 - start;
                if length > FUNCTION_LINES_MAX {
                    found.push((start + 1, length));
                }
                open = None;
            }
        } else if ["fn ", "pub fn ", "pub(crate) fn ", "async fn ", "pub async fn ", "pub(crate) async fn "]
            .iter()
            .any(|start| trimmed.starts_with(start))
            && !trimmed.ends_with(';')
            && !trimmed.ends_with('}')
        {
            open = Some((index, format!("{indent}}}")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_it_looks_for() {
        assert_eq!(dumping_ground("imap/src/utils.rs"), Some("utils"));
        assert_eq!(dumping_ground("common/src/lib.rs"), Some("common"));
        assert_eq!(dumping_ground("imap/src/command/fetch.rs"), None);
        let long = format!("fn long() {{\n{}}}\n", "    work();\n".repeat(120));
        assert_eq!(long_functions(&long), vec![(1, 122)]);
        assert!(long_functions("fn short() {\n    work();\n}\n").is_empty());
    }
}
