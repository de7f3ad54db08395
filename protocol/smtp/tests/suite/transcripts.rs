//! Runs `tests/transcripts/*.txt` against the server's machine in memory, each with the input cut in several ways.
//!
//! The lines of a transcript: `server: KIND` (see `policy`); `C: text` is a line from the client and `C> text` bytes
//! with no line end added, both with `\r \n \0 \\ \xNN`; `S: text` a line to the client, `…` at its end standing for
//! anything; `T:` the TLS handshake; `W: 300` time passes; `X:` the server has closed; `Z:` the client has closed its
//! side; `E: text` the service heard this next, other events may lie between. Lines from the client go in one write
//! until the next line of another kind, and then nothing but the `S:` lines that follow may come back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use crate::policy::{Session, settings};

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            bytes.extend(c.to_string().bytes());
            continue;
        }
        match chars.next().expect("something after a backslash") {
            'r' => bytes.push(b'\r'),
            'n' => bytes.push(b'\n'),
            '0' => bytes.push(0),
            '\\' => bytes.push(b'\\'),
            'x' => {
                let digits: String = chars.by_ref().take(2).collect();
                bytes.push(u8::from_str_radix(&digits, 16).expect("two hex digits"));
            }
            c => panic!("unknown escape {c}"),
        }
    }
    bytes
}

fn run(name: &str, transcript: &str, cut: usize) {
    let mut session = None;
    let mut input = Vec::new();
    let mut events = 0;
    for (number, line) in transcript.lines().enumerate() {
        let place = format!("{name}:{} with input cut by {cut}", number + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (kind, rest) = line.split_at(2);
        let text = rest.strip_prefix(' ').unwrap_or(rest);
        if let Some(kind) = line.strip_prefix("server: ") {
            session = Some(Session::new(settings(kind)));
            continue;
        }
        let session: &mut Session = session.as_mut().expect("`server:` comes first");
        match kind {
            "C:" => {
                input.extend(unescape(text));
                input.extend(b"\r\n");
                continue;
            }
            "C>" => {
                input.extend(unescape(text));
                continue;
            }
            _ => {
                if !input.is_empty() {
                    let left = String::from_utf8_lossy(&session.output).into_owned();
                    assert_eq!(left, "", "{place}: said too much before");
                }
                for piece in std::mem::take(&mut input).chunks(cut) {
                    session.send(piece);
                }
            }
        }
        match kind {
            "S:" => {
                let end = session.output.windows(2).position(|window| window == b"\r\n");
                let end = end.unwrap_or_else(|| panic!("{place}: nothing said"));
                let said: Vec<u8> = session.output.drain(..end + 2).collect();
                let said = std::str::from_utf8(&said[..end]).unwrap();
                match text.strip_suffix('…') {
                    Some(prefix) => assert!(said.starts_with(prefix), "{place}: {said}"),
                    None => assert_eq!(said, text, "{place}"),
                }
            }
            "T:" => session.start_tls(),
            "W:" => session.pass(text.parse().unwrap()),
            "X:" => {
                assert_eq!(String::from_utf8_lossy(&session.output), "", "{place}");
                assert!(session.closed, "{place}: still open");
            }
            "Z:" => session.end_of_input(),
            "E:" => {
                let found = session.events[events..].iter().position(|event| event == text);
                let found =
                    found.unwrap_or_else(|| panic!("{place}: heard {:#?}", &session.events[events..]));
                events += found + 1;
            }
            kind => panic!("{place}: what is {kind}?"),
        }
    }
    let session = session.expect("a transcript has a server");
    assert_eq!(String::from_utf8_lossy(&session.output), "", "{name}: said too much at the end");
}

#[test]
fn transcripts() {
    let folder = std::path::Path::new("tests/transcripts");
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let transcript = std::fs::read_to_string(&path).unwrap();
        for cut in [usize::MAX, 1, 2, 3, 7] {
            run(&name, &transcript, cut);
        }
        count += 1;
    }
    assert!(count >= 10);
}
