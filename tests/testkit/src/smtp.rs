//! A small blocking SMTP and LMTP client.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// One connection.
#[derive(Debug)]
pub struct Smtp {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

/// A whole reply: its code and its lines without the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// Text of each line.
    pub lines: Vec<String>,
}

impl Smtp {
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
        let reader = BufReader::new(stream.try_clone()?);
        let mut client = Self { stream, reader };
        client.expect(220)?;
        Ok(client)
    }

    /// Connects and says EHLO.
    pub fn hello(address: SocketAddr) -> Result<Self> {
        let mut client = Self::connect(address)?;
        client.command("EHLO client.example.net", 250)?;
        Ok(client)
    }

    /// Connects and says LHLO.
    pub fn hello_lmtp(address: SocketAddr) -> Result<Self> {
        let mut client = Self::connect(address)?;
        client.command("LHLO client.example.net", 250)?;
        Ok(client)
    }

    /// Sends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)?;
        Ok(())
    }

    /// Reads one reply.
    pub fn reply(&mut self) -> Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                bail!("the connection was closed");
            }
            let line = line.trim_end_matches(['\r', '\n']);
            let code: u16 = line.get(..3).and_then(|code| code.parse().ok()).context(line.to_owned())?;
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { code, lines });
            }
        }
    }

    /// Reads one reply and requires its code.
    pub fn expect(&mut self, code: u16) -> Result<Reply> {
        let reply = self.reply()?;
        if reply.code != code {
            bail!("expected {code}, got {} {}", reply.code, reply.lines.join(" / "));
        }
        Ok(reply)
    }

    /// Sends a line and requires the code of its reply.
    pub fn command(&mut self, line: &str, code: u16) -> Result<Reply> {
        self.raw(format!("{line}\r\n").as_bytes())?;
        self.expect(code).with_context(|| line.to_owned())
    }

    /// Sends a message with pipelined envelope and DATA; returns the reply to the final dot.
    pub fn send(&mut self, from: &str, to: &[&str], message: &[u8]) -> Result<Reply> {
        self.begin(from, to)?;
        self.body(message)
    }

    /// Sends a message behind [`Self::begin`]; returns the reply to the final dot.
    pub fn body(&mut self, message: &[u8]) -> Result<Reply> {
        let mut body = stuff(message);
        if !body.ends_with(b"\r\n") {
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b".\r\n");
        self.raw(&body)?;
        self.reply()
    }

    /// Sends the envelope and DATA, up to the 354.
    pub fn begin(&mut self, from: &str, to: &[&str]) -> Result<()> {
        let mut commands = format!("MAIL FROM:<{from}>\r\n");
        for recipient in to {
            let _ = write!(commands, "RCPT TO:<{recipient}>\r\n");
        }
        commands.push_str("DATA\r\n");
        self.raw(commands.as_bytes())?;
        self.expect(250)?;
        for _ in to {
            self.expect(250)?;
        }
        self.expect(354)?;
        Ok(())
    }

    /// Sends a message whole by BDAT with BODY=BINARYMIME, which lets long lines and every byte pass (RFC 3030).
    pub fn send_binary(&mut self, from: &str, to: &[&str], message: &[u8]) -> Result<Reply> {
        self.command(&format!("MAIL FROM:<{from}> BODY=BINARYMIME"), 250)?;
        for recipient in to {
            self.command(&format!("RCPT TO:<{recipient}>"), 250)?;
        }
        self.raw(format!("BDAT {} LAST\r\n", message.len()).as_bytes())?;
        self.raw(message)?;
        self.reply()
    }

    /// The socket, for what the methods do not cover.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// Doubles the dot at the start of lines (RFC 5321 §4.5.2).
pub fn stuff(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 64);
    let mut line_start = true;
    for byte in message {
        if line_start && *byte == b'.' {
            out.push(b'.');
        }
        out.push(*byte);
        line_start = *byte == b'\n';
    }
    out
}
