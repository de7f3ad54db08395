//! A mail exchanger on loopback that does what a test tells it: by default it takes everything in good order.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use net::stream::Stream;
use net::tls::{Certificate, TlsServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What the exchanger does instead of what is usual.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Says this; line ends are added.
    Say(&'static str),
    /// Says these bytes as they are.
    Bytes(Vec<u8>),
    /// Says this and closes the connection.
    Bye(&'static str),
    /// Closes the connection without a word.
    Close,
    /// Says nothing more, and keeps the connection.
    Silence,
    /// After 220 to STARTTLS: bytes that are no handshake.
    NoHandshake,
    /// After a good handshake: closes the connection.
    CloseAfterHandshake,
}

/// What is asked of a script: the connection's number, and `GREETING`, a command line, or `.` for the end of a message.
pub(crate) type Script = Arc<dyn Fn(usize, &str) -> Option<Act> + Send + Sync>;

/// A message that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) connection: usize,
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    pub(crate) body: String,
    pub(crate) tls: bool,
}

/// What has happened so far.
#[derive(Default, Debug)]
pub(crate) struct Seen {
    pub(crate) taken: Vec<Taken>,
    /// Connection number and command line.
    pub(crate) lines: Vec<(usize, String)>,
    pub(crate) connections: usize,
    pub(crate) open: usize,
    pub(crate) open_max: usize,
    /// Where connections came from.
    pub(crate) remotes: Vec<IpAddr>,
}

pub(crate) struct Peer {
    pub(crate) seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

/// What it announces and how it answers.
#[derive(Clone)]
pub(crate) struct Manners {
    pub(crate) extensions: Vec<&'static str>,
    pub(crate) tls: bool,
    pub(crate) script: Script,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            extensions: vec!["PIPELINING", "8BITMIME", "SIZE 1000000", "ENHANCEDSTATUSCODES", "DSN"],
            tls: false,
            script: Arc::new(|_, _| None),
        }
    }
}

impl Manners {
    pub(crate) fn script(script: impl Fn(usize, &str) -> Option<Act> + Send + Sync + 'static) -> Self {
        Self { script: Arc::new(script), ..Self::default() }
    }
}

impl Peer {
    /// Listens at an address of loopback and a port; 0 takes any.
    pub(crate) async fn start(ip: Ipv4Addr, port: u16, manners: Manners) -> Self {
        Self::start_at((IpAddr::V4(ip), port).into(), manners).await
    }

    pub(crate) async fn start_at(address: SocketAddr, manners: Manners) -> Self {
        assert!(address.ip().is_loopback());
        let listener = TcpListener::bind(address).await.unwrap();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let state = seen.clone();
        let tls = manners.tls.then(|| {
            let made = Certificate::self_signed(&["mx.test".to_owned()]).unwrap();
            TlsServer::new(&[made.certificate().unwrap()]).unwrap()
        });
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, remote)) = listener.accept().await else { return };
                let number = {
                    let mut seen = state.lock().unwrap();
                    seen.connections += 1;
                    seen.open += 1;
                    seen.remotes.push(remote.ip());
                    seen.open_max = seen.open_max.max(seen.open);
                    seen.connections
                };
                let (manners, state, tls) = (manners.clone(), state.clone(), tls.clone());
                tokio::spawn(async move {
                    let stream = Stream::from_tcp(stream).unwrap();
                    let mut session = Session {
                        number,
                        stream,
                        manners,
                        state: state.clone(),
                        tls,
                        input: Vec::new(),
                        counted: true,
                    };
                    let _ = session.run().await;
                    if session.counted {
                        state.lock().unwrap().open -= 1;
                    }
                });
            }
        });
        Self { seen, task }
    }

    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.seen.lock().unwrap().taken.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    /// The lines that begin so.
    pub(crate) fn lines(&self, start: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.lines.iter().map(|(_, line)| line.clone()).filter(|line| line.starts_with(start)).collect()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Session {
    number: usize,
    stream: Stream,
    manners: Manners,
    state: Arc<Mutex<Seen>>,
    tls: Option<TlsServer>,
    input: Vec<u8>,
    /// It counts as open.
    counted: bool,
}

/// The session is over.
struct Over;

impl From<std::io::Error> for Over {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

impl Session {
    async fn run(&mut self) -> Result<(), Over> {
        self.answer("GREETING", "220 peer.test ESMTP").await?;
        let (mut from, mut to) = (String::new(), Vec::new());
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            self.state.lock().unwrap().lines.push((self.number, line.clone()));
            let upper = line.to_ascii_uppercase();
            let verb = upper.split(' ').next().unwrap_or_default();
            match verb {
                "EHLO" => {
                    let mut lines = vec!["peer.test".to_owned()];
                    lines.extend(self.manners.extensions.iter().map(|&word| word.to_owned()));
                    if self.tls.is_some() && !self.stream.is_encrypted() {
                        lines.push("STARTTLS".to_owned());
                    }
                    let last = lines.len() - 1;
                    let text: Vec<String> = lines
                        .iter()
                        .enumerate()
                        .map(|(at, line)| format!("250{}{line}", if at == last { ' ' } else { '-' }))
                        .collect();
                    self.answer(&line, &text.join("\r\n")).await?;
                }
                "STARTTLS" => {
                    let act = (self.manners.script)(self.number, &line);
                    match act {
                        Some(Act::NoHandshake) => {
                            self.write(b"220 go\r\n").await?;
                            let mut hello = [0; 64];
                            let _ = self.stream.read(&mut hello).await?;
                            self.write(b"this is no handshake at all\r\n").await?;
                            return Err(Over);
                        }
                        Some(Act::CloseAfterHandshake) | None => {
                            self.write(b"220 go\r\n").await?;
                            let tls = self.tls.clone().unwrap();
                            self.stream.accept_tls(&tls).await?;
                            if act.is_some() {
                                return Err(Over);
                            }
                        }
                        Some(act) => self.act(act).await?,
                    }
                }
                "MAIL" => {
                    from = path(&line);
                    to.clear();
                    self.answer(&line, "250 2.1.0 ok").await?;
                }
                "RCPT" => {
                    if self.answer(&line, "250 2.1.5 ok").await? {
                        to.push(path(&line));
                    }
                }
                "DATA" => {
                    if self.answer(&line, "354 go").await? {
                        body = self.data().await?;
                        self.end(&from, &to, &body).await?;
                        to.clear();
                    }
                }
                "BDAT" => {
                    let size: usize = upper.split(' ').nth(1).unwrap().parse().unwrap();
                    while self.input.len() < size {
                        self.read().await?;
                    }
                    body.extend(self.input.drain(..size));
                    if upper.ends_with("LAST") {
                        let whole = std::mem::take(&mut body);
                        self.end(&from, &to, &whole).await?;
                        to.clear();
                    } else {
                        self.write(b"250 ok\r\n").await?;
                    }
                }
                "AUTH" => {
                    self.answer(&line, "235 2.7.0 ok").await?;
                }
                "QUIT" => {
                    // Before the answer, behind which the other side may open another connection.
                    self.counted = false;
                    self.state.lock().unwrap().open -= 1;
                    self.answer(&line, "221 bye").await?;
                    return Err(Over);
                }
                _ => {
                    self.answer(&line, "250 2.0.0 ok").await?;
                }
            }
        }
    }

    async fn end(&mut self, from: &str, to: &[String], body: &[u8]) -> Result<(), Over> {
        let taken = Taken {
            connection: self.number,
            from: from.to_owned(),
            to: to.to_vec(),
            body: String::from_utf8_lossy(body).into_owned(),
            tls: self.stream.is_encrypted(),
        };
        let act = (self.manners.script)(self.number, ".");
        // What is answered with success, and what is not answered at all, has been taken.
        let last = match &act {
            Some(Act::Close | Act::Silence) => true,
            Some(Act::Bye(text)) => text.starts_with('2'),
            _ => false,
        };
        if last {
            self.state.lock().unwrap().taken.push(taken);
            return self.act(act.unwrap()).await;
        }
        if self.answer(".", "250 2.0.0 queued").await? {
            self.state.lock().unwrap().taken.push(taken);
        }
        Ok(())
    }

    /// Says what the script wants, or the usual. Whether it was a success, or 354.
    async fn answer(&mut self, asked: &str, usual: &str) -> Result<bool, Over> {
        match (self.manners.script)(self.number, asked) {
            None => {
                self.write(format!("{usual}\r\n").as_bytes()).await?;
                Ok(true)
            }
            Some(act) => {
                let positive = match &act {
                    Act::Say(text) | Act::Bye(text) => text.starts_with(['2', '3']),
                    _ => false,
                };
                self.act(act).await?;
                Ok(positive)
            }
        }
    }

    async fn act(&mut self, act: Act) -> Result<(), Over> {
        match act {
            Act::Say(text) => self.write(format!("{text}\r\n").as_bytes()).await,
            Act::Bytes(bytes) => self.write(&bytes).await,
            Act::Bye(text) => {
                self.write(format!("{text}\r\n").as_bytes()).await?;
                Err(Over)
            }
            Act::Close | Act::NoHandshake | Act::CloseAfterHandshake => Err(Over),
            Act::Silence => {
                tokio::time::sleep(Duration::from_secs(600)).await;
                Err(Over)
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Over> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    async fn read(&mut self) -> Result<(), Over> {
        let mut buffer = vec![0; 16 * 1024];
        match self.stream.read(&mut buffer).await? {
            0 => Err(Over),
            read => {
                self.input.extend_from_slice(&buffer[..read]);
                Ok(())
            }
        }
    }

    async fn line(&mut self) -> Result<String, Over> {
        loop {
            if let Some(at) = self.input.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.input.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.read().await?;
        }
    }

    async fn data(&mut self) -> Result<Vec<u8>, Over> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            if line == "." {
                return Ok(body);
            }
            body.extend_from_slice(line.strip_prefix('.').unwrap_or(&line).as_bytes());
            body.extend_from_slice(b"\r\n");
        }
    }
}

fn path(line: &str) -> String {
    let start = line.find('<').map_or(0, |at| at + 1);
    line[start..].split('>').next().unwrap_or_default().to_owned()
}
