//! Clients of SMTP and IMAP over the simulated network, line by line.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use turmoil::net::TcpStream;

use crate::node::{IMAP, SMTP, name};

/// How long a client waits for an answer. Above the deadline of a commit, so that it hears of that.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a client waits for a connection, and for a greeting.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// The password of all accounts.
pub(crate) const PASSWORD: &str = "postrider";

/// The connection is no more, or nothing came over it in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lost;

struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    async fn to(node: usize, port: u16) -> Result<Self, Lost> {
        let connect = TcpStream::connect((name(node), port));
        let connected = tokio::time::timeout(CONNECT_PATIENCE, connect).await;
        let stream = connected.map_err(|_| Lost)?.map_err(|_| Lost)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    async fn say(&mut self, text: &str) -> Result<(), Lost> {
        self.stream.write_all(text.as_bytes()).await.map_err(|_| Lost)?;
        self.stream.flush().await.map_err(|_| Lost)
    }

    async fn line(&mut self) -> Result<String, Lost> {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.stream.read_line(&mut line)).await;
        match read {
            Ok(Ok(_)) if line.ends_with("\r\n") => Ok(line[..line.len() - 2].to_owned()),
            _ => Err(Lost),
        }
    }
}

/// What became of a message that was handed in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum HandedIn {
    /// Accepted for these recipients.
    Yes(Vec<String>),
    /// Refused before anything could have been accepted.
    No,
    /// It may have been accepted for these.
    Unknown(Vec<String>),
}

/// Hands a message in. Its name is what notifications about it call it (RFC 3461 §4.4).
pub(crate) async fn hand_in(node: usize, from: &str, to: &[String], message: &str) -> HandedIn {
    let mut recipients = Vec::new();
    let sender = format!("<{from}> ENVID={}", message.replace(' ', "."));
    let Ok(mut smtp) = begin(node, &sender, to, &mut recipients).await else { return HandedIn::No };
    if recipients.is_empty() {
        return HandedIn::No;
    }
    match smtp.end(&text(message)).await {
        Ok(reply) if reply.starts_with('2') => HandedIn::Yes(recipients),
        // A refusal for now does not say that nothing was committed.
        _ => HandedIn::Unknown(recipients),
    }
}

struct Smtp(Connection);

async fn begin(node: usize, sender: &str, to: &[String], accepted: &mut Vec<String>) -> Result<Smtp, Lost> {
    let mut smtp = Smtp(Connection::to(node, SMTP).await?);
    smtp.expect('2').await?;
    smtp.0.say("EHLO client.example.net\r\n").await?;
    smtp.expect('2').await?;
    smtp.0.say(&format!("MAIL FROM:{sender}\r\n")).await?;
    smtp.expect('2').await?;
    for recipient in to {
        smtp.0.say(&format!("RCPT TO:<{recipient}@example.test>\r\n")).await?;
        if smtp.reply().await?.starts_with('2') {
            accepted.push(recipient.clone());
        }
    }
    if !accepted.is_empty() {
        smtp.0.say("DATA\r\n").await?;
        smtp.expect('3').await?;
    }
    Ok(smtp)
}

impl Smtp {
    async fn end(&mut self, text: &str) -> Result<String, Lost> {
        self.0.say(&format!("{text}.\r\n")).await?;
        self.reply().await
    }

    async fn reply(&mut self) -> Result<String, Lost> {
        loop {
            let line = self.0.line().await?;
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line);
            }
        }
    }

    async fn expect(&mut self, kind: char) -> Result<(), Lost> {
        if self.reply().await?.starts_with(kind) { Ok(()) } else { Err(Lost) }
    }
}

/// A logged-in IMAP client.
pub(crate) struct Imap {
    connection: Connection,
    tag: u32,
    pub(crate) selected: Option<String>,
}

/// What a command was answered with.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) untagged: Vec<String>,
    /// Without the tag.
    pub(crate) tagged: String,
}

impl Reply {
    pub(crate) fn is_ok(&self) -> bool {
        self.tagged.starts_with("OK")
    }

    /// What follows a word, up to the next space or bracket, in any line.
    pub(crate) fn number(&self, word: &str) -> Option<u64> {
        let lines = self.untagged.iter().chain([&self.tagged]);
        lines.into_iter().find_map(|line| number_after(line, word))
    }
}

/// The number that follows a word.
pub(crate) fn number_after(line: &str, word: &str) -> Option<u64> {
    let rest = &line[line.find(word)? + word.len()..];
    let rest = rest.trim_start_matches([' ', '(']);
    let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

impl Imap {
    /// Connects to a node and logs in.
    pub(crate) async fn login(node: usize, account: &str) -> Result<Self, Lost> {
        let connection = Connection::to(node, IMAP).await?;
        let mut imap = Self { connection, tag: 0, selected: None };
        imap.connection.line().await?;
        imap.ok(&format!("LOGIN {account}@example.test {PASSWORD}")).await?;
        Ok(imap)
    }

    pub(crate) async fn run(&mut self, command: &str) -> Result<Reply, Lost> {
        self.tag += 1;
        let tag = format!("a{} ", self.tag);
        self.connection.say(&format!("{tag}{command}\r\n")).await?;
        self.answer(&tag).await
    }

    async fn answer(&mut self, tag: &str) -> Result<Reply, Lost> {
        let mut untagged = Vec::new();
        loop {
            let line = self.response().await?;
            match line.strip_prefix(tag) {
                Some(tagged) => return Ok(Reply { untagged, tagged: tagged.to_owned() }),
                None => untagged.push(line),
            }
        }
    }

    /// A response with its literals.
    async fn response(&mut self) -> Result<String, Lost> {
        let mut response = self.connection.line().await?;
        while let Some(length) = literal(&response) {
            let mut bytes = vec![0; length];
            let read = tokio::time::timeout(PATIENCE, self.connection.stream.read_exact(&mut bytes)).await;
            read.map_err(|_| Lost)?.map_err(|_| Lost)?;
            response.push_str(&String::from_utf8_lossy(&bytes));
            response.push_str(&self.connection.line().await?);
        }
        Ok(response)
    }

    /// A command that has to be answered with OK; anything else is as a connection that is no more.
    pub(crate) async fn ok(&mut self, command: &str) -> Result<Reply, Lost> {
        let reply = self.run(command).await?;
        if reply.is_ok() { Ok(reply) } else { Err(Lost) }
    }

    /// Appends a message; the answer of the server.
    pub(crate) async fn append(&mut self, mailbox: &str, text: &str) -> Result<Reply, Lost> {
        self.tag += 1;
        let tag = format!("a{} ", self.tag);
        self.connection.say(&format!("{tag}APPEND {mailbox} {{{}}}\r\n", text.len())).await?;
        let line = self.connection.line().await?;
        if let Some(tagged) = line.strip_prefix(&tag) {
            return Ok(Reply { untagged: Vec::new(), tagged: tagged.to_owned() });
        }
        self.connection.say(&format!("{text}\r\n")).await?;
        self.answer(&tag).await
    }
}

fn literal(line: &str) -> Option<usize> {
    line.strip_suffix('}')?.rsplit_once('{')?.1.parse().ok()
}

/// A message. All of its bytes follow from its name.
pub(crate) fn text(message: &str) -> String {
    format!(
        "From: Ann <ann@example.test>\r\nTo: someone@example.test\r\nSubject: {message}\r\n\
         Message-ID: <{}@example.net>\r\n\r\nThis is {message}.\r\n",
        message.replace(' ', ".")
    )
}
