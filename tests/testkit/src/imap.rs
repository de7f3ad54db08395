//! A small blocking IMAP client that gives back raw responses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// One connection.
#[derive(Debug)]
pub struct Imap {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    tag: u32,
}

/// What a command brought: each untagged response with its literals in place, and the tagged line.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Untagged responses, without the line end.
    pub untagged: Vec<Vec<u8>>,
    /// The tagged response without its tag, such as `OK [READ-WRITE] done`.
    pub tagged: String,
}

impl Answer {
    /// Whether the command succeeded.
    pub fn ok(&self) -> bool {
        self.tagged.starts_with("OK")
    }

    /// Untagged responses as text.
    pub fn text(&self) -> Vec<String> {
        self.untagged.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }
}

impl Imap {
    /// Connects and reads the greeting.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        Self::connect_within(address, Duration::from_secs(60))
    }

    /// The same, for who waits for nothing longer than this.
    pub fn connect_within(address: SocketAddr, patience: Duration) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let reader = BufReader::with_capacity(64 * 1024, stream.try_clone()?);
        let mut client = Self { stream, reader, tag: 0 };
        let greeting = client.response()?;
        if !greeting.starts_with(b"* OK") {
            bail!("greeting: {}", String::from_utf8_lossy(&greeting));
        }
        Ok(client)
    }

    /// Connects and logs in.
    pub fn login(address: SocketAddr, user: &str, password: &str) -> Result<Self> {
        let mut client = Self::connect(address)?;
        client.ok(&format!("LOGIN {user} {password}"))?;
        Ok(client)
    }

    /// Connects and logs in, and waits for nothing longer than this.
    pub fn login_within(address: SocketAddr, user: &str, password: &str, patience: Duration) -> Result<Self> {
        let mut client = Self::connect_within(address, patience)?;
        client.ok(&format!("LOGIN {user} {password}"))?;
        Ok(client)
    }

    /// One response, with literals in place.
    pub fn response(&mut self) -> Result<Vec<u8>> {
        let mut whole = Vec::new();
        loop {
            let start = whole.len();
            if self.reader.read_until(b'\n', &mut whole)? == 0 {
                bail!("the connection was closed");
            }
            if !whole.ends_with(b"\r\n") {
                bail!("a line does not end in CRLF: {}", String::from_utf8_lossy(&whole[start..]));
            }
            match literal(&whole[start..whole.len() - 2]) {
                Some(size) => {
                    let from = whole.len();
                    whole.resize(from + size, 0);
                    self.reader.read_exact(&mut whole[from..])?;
                }
                None => {
                    whole.truncate(whole.len() - 2);
                    return Ok(whole);
                }
            }
        }
    }

    /// Sends a command and returns its tag.
    pub fn send(&mut self, command: &str) -> Result<String> {
        self.tag += 1;
        let tag = format!("t{}", self.tag);
        self.stream.write_all(format!("{tag} {command}\r\n").as_bytes())?;
        Ok(tag)
    }

    /// Sends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)?;
        Ok(())
    }

    /// Reads up to the tagged response.
    pub fn finish(&mut self, tag: &str) -> Result<Answer> {
        let mut answer = Answer::default();
        loop {
            let line = self.response()?;
            if let Some(rest) = line.strip_prefix(tag.as_bytes()).and_then(|rest| rest.strip_prefix(b" ")) {
                answer.tagged = String::from_utf8_lossy(rest).into_owned();
                return Ok(answer);
            }
            answer.untagged.push(line);
        }
    }

    /// Sends a command and reads its answer.
    pub fn command(&mut self, command: &str) -> Result<Answer> {
        let tag = self.send(command)?;
        self.finish(&tag)
    }

    /// The same, and requires OK.
    pub fn ok(&mut self, command: &str) -> Result<Answer> {
        let answer = self.command(command)?;
        if !answer.ok() {
            bail!("{command}: {}", answer.tagged);
        }
        Ok(answer)
    }

    /// Appends a message with a non-synchronising literal; the server must have LITERAL+.
    pub fn append(&mut self, mailbox: &str, flags: &str, message: &[u8]) -> Result<Answer> {
        let tag = self.append_send(mailbox, flags, message)?;
        self.finish(&tag)
    }

    /// The same without reading the answer.
    pub fn append_send(&mut self, mailbox: &str, flags: &str, message: &[u8]) -> Result<String> {
        self.tag += 1;
        let tag = format!("t{}", self.tag);
        let mut bytes = format!("{tag} APPEND {mailbox} ({flags}) {{{}+}}\r\n", message.len()).into_bytes();
        bytes.extend_from_slice(message);
        bytes.extend_from_slice(b"\r\n");
        self.stream.write_all(&bytes)?;
        Ok(tag)
    }

    /// The socket, for what the methods do not cover.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// The size announced by `{123}` or `~{123}` at the end of a line.
fn literal(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"}")?;
    let open = line.iter().rposition(|byte| *byte == b'{')?;
    std::str::from_utf8(&line[open + 1..]).ok()?.parse().ok()
}

/// The number after `name ` in a response such as `* 1 FETCH (UID 7 MODSEQ (9))`.
pub fn number_after(response: &str, name: &str) -> Option<u64> {
    let at = response.find(&format!("{name} "))? + name.len() + 1;
    let digits: String =
        response[at..].trim_start_matches('(').chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The `[APPENDUID validity uid]` or similar code of a tagged line.
pub fn code<'a>(tagged: &'a str, name: &str) -> Result<&'a str> {
    let start = tagged.find(&format!("[{name} ")).with_context(|| format!("no {name} in «{tagged}»"))?;
    let rest = &tagged[start + name.len() + 2..];
    Ok(&rest[..rest.find(']').unwrap_or(rest.len())])
}
