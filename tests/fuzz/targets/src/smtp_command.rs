//! SMTP commands, their parameters, and replies: what is written is read back as it was.

use bytes::BytesMut;
use mail::address::Path;
use smtp_protocol::command::Command;
use smtp_protocol::extension::Extensions;
use smtp_protocol::reply::{Reply, ReplyReader};
use smtp_protocol::status::Status;

/// A command line without its CRLF; and once more a line of a reply.
pub fn run(data: &[u8]) {
    if let Ok(command) = Command::parse(data) {
        again(&command);
    }
    let text = String::from_utf8_lossy(data);
    reply(&text);
    let announced = Extensions::parse(text.split('\n'));
    let lines = announced.lines();
    assert_eq!(Extensions::parse(lines.iter().map(String::as_str)), announced);
}

fn again(command: &Command) {
    let (path, line) = match command {
        Command::Mail { path, parameters, .. } => (path, format!("MAIL FROM:{}{parameters}", shown(path))),
        Command::Rcpt { path, parameters, .. } => (path, format!("RCPT TO:{}{parameters}", shown(path))),
        Command::Hello { domain, .. } => {
            assert!(!domain.is_empty() && domain.len() <= 255);
            assert!(!domain.chars().any(|c| c.is_control() || c == ' '), "{domain:?}");
            return;
        }
        _ => return,
    };
    // Values that were sent without the encoding they need grow by it, and may be too long for their limits then.
    if line.len() > 400 {
        return;
    }
    match (command, Command::parse(line.as_bytes())) {
        (Command::Mail { parameters, .. }, Ok(Command::Mail { path: same, parameters: equal, .. })) => {
            assert_eq!((path, parameters), (&same, &equal));
        }
        (Command::Rcpt { parameters, .. }, Ok(Command::Rcpt { path: same, parameters: equal, .. })) => {
            assert_eq!((path, parameters), (&same, &equal));
        }
        (_, other) => panic!("{line:?} is read as {other:?}"),
    }
}

fn shown(path: &Path) -> String {
    match path {
        Path::Null => "<>".into(),
        Path::Postmaster => "<Postmaster>".into(),
        Path::Address(address) => format!("<{address}>"),
    }
}

fn reply(text: &str) {
    let (code, rest) = text.split_at_checked(3).unwrap_or(("250", text));
    let code = code.parse().ok().filter(|code| (200..=599).contains(code)).unwrap_or(550);
    let status: Option<Status> = rest.split(' ').next().and_then(|word| word.parse().ok());
    let lines: Vec<_> = rest.split('\n').take(200).map(|line| line.to_owned().into()).collect();
    let reply =
        Reply { code, status: status.filter(|status| u16::from(status.class) == code / 100), text: lines };
    let mut out = BytesMut::new();
    reply.write(&mut out);
    let mut reader = ReplyReader::default();
    let mut read = None;
    for line in out.split_inclusive(|byte| *byte == b'\n') {
        assert!(read.is_none(), "one reply became two");
        assert!(line.len() <= 512 && line.ends_with(b"\r\n"));
        read = reader.line(&line[..line.len() - 2]).expect("a reply is a reply");
    }
    let read = read.expect("a reply is complete");
    assert_eq!((read.code, read.text.len()), (reply.code, reply.text.len()));
    if reply.status.is_some() {
        assert_eq!(read.status, reply.status);
    }
}
