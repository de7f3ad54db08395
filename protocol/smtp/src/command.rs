//! Command lines (RFC 5321 §4.1.1, RFC 2033 §4.1, RFC 3207, RFC 4954, RFC 3030).

use mail::address::{AddressError, Path};

use crate::parameter::{MailParameters, RcptParameters, number};
use crate::reply::{Reply, bad_argument, bad_syntax};
use crate::status::status;

/// How the client has said hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HelloKind {
    /// SMTP without extensions.
    Helo,
    /// SMTP with extensions.
    Ehlo,
    /// LMTP.
    Lhlo,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// HELO, EHLO, LHLO.
    Hello {
        /// Which of them.
        kind: HelloKind,
        /// What the client calls itself: one word of printable characters, no more is checked.
        domain: String,
    },
    /// STARTTLS.
    StartTls,
    /// AUTH.
    Auth {
        /// The mechanism's name, as it came.
        mechanism: String,
        /// The initial response, still in base64.
        initial: Option<String>,
    },
    /// MAIL FROM.
    Mail {
        /// The reverse-path.
        path: Path,
        /// Its parameters.
        parameters: MailParameters,
        /// Whether the path needs SMTPUTF8 as it was written.
        unicode: bool,
    },
    /// RCPT TO.
    Rcpt {
        /// The forward-path.
        path: Path,
        /// Its parameters.
        parameters: RcptParameters,
        /// Whether the path needs SMTPUTF8 as it was written.
        unicode: bool,
    },
    /// DATA.
    Data,
    /// BDAT.
    Bdat {
        /// The size of the chunk that follows.
        size: u64,
        /// Whether it is the last one.
        last: bool,
    },
    /// RSET.
    Reset,
    /// VRFY.
    Verify,
    /// EXPN.
    Expand,
    /// HELP.
    Help,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
}

/// Why a line is no command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotACommand {
    /// What to say.
    pub reply: Reply,
    /// It was a BDAT whose size is not known: what follows cannot be told from commands, so the connection must end.
    pub desynchronised: bool,
}

impl From<Reply> for NotACommand {
    fn from(reply: Reply) -> Self {
        Self { reply, desynchronised: false }
    }
}

impl Command {
    /// Parses a line without its CRLF.
    pub fn parse(line: &[u8]) -> Result<Self, NotACommand> {
        let Ok(line) = std::str::from_utf8(line) else {
            return Err(Reply::new(500, status(5, 5, 2), "Command is not UTF-8").into());
        };
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(Reply::new(500, status(5, 5, 2), "Control characters in command").into());
        }
        // RFC 5321 §4.1.1: trailing white space is to be tolerated.
        let line = line.trim_end_matches([' ', '\t']);
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        let argument = argument.trim_start_matches(' ');
        let without_argument = |command: Self| {
            if argument.is_empty() { Ok(command) } else { Err(bad_argument("No argument allowed").into()) }
        };
        match verb.to_ascii_uppercase().as_str() {
            "HELO" => hello(HelloKind::Helo, argument),
            "EHLO" => hello(HelloKind::Ehlo, argument),
            "LHLO" => hello(HelloKind::Lhlo, argument),
            "MAIL" => {
                let (path, rest, unicode) = path(argument, "FROM:", Direction::Reverse)?;
                Ok(Self::Mail { path, parameters: MailParameters::parse(rest)?, unicode })
            }
            "RCPT" => {
                let (path, rest, unicode) = path(argument, "TO:", Direction::Forward)?;
                Ok(Self::Rcpt { path, parameters: RcptParameters::parse(rest)?, unicode })
            }
            "DATA" => without_argument(Self::Data),
            "BDAT" => bdat(argument)
                .ok_or(NotACommand { reply: bad_argument("Syntax: BDAT size [LAST]"), desynchronised: true }),
            "RSET" => without_argument(Self::Reset),
            "QUIT" => without_argument(Self::Quit),
            "STARTTLS" => without_argument(Self::StartTls),
            "AUTH" => auth(argument),
            "NOOP" => Ok(Self::Noop),
            "HELP" => Ok(Self::Help),
            "VRFY" if !argument.is_empty() => Ok(Self::Verify),
            "EXPN" if !argument.is_empty() => Ok(Self::Expand),
            "VRFY" | "EXPN" => Err(bad_argument("An argument is needed").into()),
            _ => Err(Reply::new(500, status(5, 5, 2), "Command not recognized").into()),
        }
    }
}

fn hello(kind: HelloKind, argument: &str) -> Result<Command, NotACommand> {
    // Names that are no names are frequent and harmless; what is in `Received` lines has to be one word.
    if argument.is_empty() || argument.len() > 255 || argument.contains([' ', '\t', '(', ')', '<', '>']) {
        return Err(bad_argument("A host name is needed").into());
    }
    Ok(Command::Hello { kind, domain: argument.to_owned() })
}

fn auth(argument: &str) -> Result<Command, NotACommand> {
    let mut words = argument.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(mechanism), initial, None) => {
            Ok(Command::Auth { mechanism: mechanism.to_owned(), initial: initial.map(str::to_owned) })
        }
        _ => Err(bad_argument("Syntax: AUTH mechanism [initial-response]").into()),
    }
}

fn bdat(argument: &str) -> Option<Command> {
    let mut words = argument.split_ascii_whitespace();
    let size = words.next()?;
    let last = match (words.next(), words.next()) {
        (None, _) => false,
        (Some(word), None) if word.eq_ignore_ascii_case("LAST") => true,
        _ => return None,
    };
    Some(Command::Bdat { size: number(size)?, last })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Reverse,
    Forward,
}

fn path<'a>(
    argument: &'a str,
    keyword: &str,
    direction: Direction,
) -> Result<(Path, &'a str, bool), NotACommand> {
    let syntax = || bad_syntax(format!("Syntax: {keyword}<address>"));
    let (head, rest) = argument.split_at_checked(keyword.len()).ok_or_else(syntax)?;
    if !head.eq_ignore_ascii_case(keyword) {
        return Err(syntax().into());
    }
    // RFC 5321 §3.3 forbids white space after the colon, but so many devices send it that everybody takes it.
    let rest = rest.trim_start_matches(' ');
    let (path, after) = Path::take(rest.as_bytes()).map_err(|error| refuse_path(direction, error))?;
    let after = &rest[rest.len() - after.len()..];
    if !after.is_empty() && !after.starts_with(' ') {
        return Err(syntax().into());
    }
    let written = &rest[..rest.len() - after.len()];
    match (&path, direction) {
        // RFC 5321 §4.1.1.3: a forward-path may be `<Postmaster>` but never null; a reverse-path the other way round.
        (Path::Postmaster, Direction::Reverse) => {
            Err(refuse_path(direction, AddressError::MissingDomain).into())
        }
        (Path::Null, Direction::Forward) => Err(refuse_path(direction, AddressError::Empty).into()),
        _ => Ok((path, after, !written.is_ascii())),
    }
}

fn refuse_path(direction: Direction, error: AddressError) -> Reply {
    // RFC 3463 §3.2: 1.3 is a bad destination address, 1.7 a bad sender address.
    let detail = if direction == Direction::Forward { 3 } else { 7 };
    Reply::new(501, status(5, 1, detail), format!("Bad address: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let check = |line: &str, expected: Command| {
            assert_eq!(Command::parse(line.as_bytes()), Ok(expected), "{line}");
        };
        let hello = |kind, domain: &str| Command::Hello { kind, domain: domain.to_owned() };
        check("EHLO client.example", hello(HelloKind::Ehlo, "client.example"));
        check("helo [127.0.0.1]  ", hello(HelloKind::Helo, "[127.0.0.1]"));
        check("LHLO x_y", hello(HelloKind::Lhlo, "x_y"));
        check("noop whatever", Command::Noop);
        check("HELP", Command::Help);
        check("QUIT ", Command::Quit);
        check("BDAT 0 last", Command::Bdat { size: 0, last: true });
        check("BDAT 18446744073709551616", Command::Bdat { size: u64::MAX, last: false });
        check("AUTH plain =", Command::Auth { mechanism: "plain".into(), initial: Some("=".into()) });
        check("VRFY x", Command::Verify);
        let address = |text: &str| Path::Address(mail::address::Address::parse(text).unwrap());
        let mail = |path, unicode| Command::Mail { path, parameters: MailParameters::default(), unicode };
        let rcpt = |path| Command::Rcpt { path, parameters: RcptParameters::default(), unicode: false };
        check("MAIL FROM:<>", mail(Path::Null, false));
        check("mail from: <a@x.test>", mail(address("a@x.test"), false));
        check("MAIL FROM:<ü@x.test>", mail(address("ü@x.test"), true));
        check("MAIL FROM:<a@ü.test>", mail(address("a@ü.test"), true));
        check("RCPT TO:<PostMaster>", rcpt(Path::Postmaster));
        check("RCPT TO:<\"a b>\"@x.test>", rcpt(address("\"a b>\"@x.test")));
        check("RCPT TO:<@r1.test,@r2.test:a@x.test>", rcpt(address("a@x.test")));
    }

    #[test]
    fn refused() {
        let check = |line: &[u8], code: u16, enhanced: Option<&str>| {
            let refused = Command::parse(line).unwrap_err();
            let text = String::from_utf8_lossy(line).into_owned();
            assert_eq!(refused.reply.code, code, "{text}");
            assert_eq!(refused.desynchronised, line.starts_with(b"BDAT"), "{text}");
            if let Some(enhanced) = enhanced {
                assert_eq!(refused.reply.status.unwrap().to_string(), enhanced, "{text}");
            }
        };
        for line in [&b""[..], b"FOO", b"MAI", b"N\xffOP", b"NOOP \x01", b" NOOP", b"EHLOx y"] {
            check(line, 500, Some("5.5.2"));
        }
        for line in [
            &b"EHLO"[..],
            b"HELO a b",
            b"EHLO a(b)",
            b"DATA now",
            b"QUIT 1",
            b"AUTH",
            b"AUTH PLAIN a b",
            b"VRFY",
            b"BDAT",
            b"BDAT x",
            b"BDAT 1 FIRST",
            b"BDAT 1 LAST x",
            b"BDAT -1",
            b"BDAT 999999999999999999999",
            b"MAIL",
            b"MAIL FROM",
            b"MAIL TO:<a@x.test>",
            b"MAIL FROM:a@x.test",
            b"MAIL FROM:<a@x.test>SIZE=1",
            b"MAIL FROM:<a@x.test",
            b"MAIL FROM:<a@x.test> SIZE=x",
        ] {
            check(line, 501, None);
        }
        check(b"MAIL FROM:<postmaster>", 501, Some("5.1.7"));
        check(b"MAIL FROM:<a b@x.test>", 501, Some("5.1.7"));
        check(b"RCPT TO:<>", 501, Some("5.1.3"));
        check(b"RCPT TO:<nobody>", 501, Some("5.1.3"));
        check(b"RCPT TO:<a@x.test> FOO=1", 555, Some("5.5.4"));
    }
}
