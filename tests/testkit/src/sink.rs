//! Other hosts, on loopback, that take mail and remember every time that they took something. How they behave towards a
//! recipient stands in its address, so that a test says beforehand what has to become of it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;

use crate::ledger;
use crate::message;

/// How a recipient is treated; the first word of its local part, up to a hyphen. Whatever else: taken.
pub mod manners {
    /// Does not exist: 550 5.1.1.
    pub const GONE: &str = "gone";
    /// Deferred at RCPT the first time, 451.
    pub const LATER: &str = "later";
    /// Taken the first time, and the connection closed without an answer to the final dot.
    pub const DOUBT: &str = "doubt";
}

/// A message that was taken for a recipient.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// When, on the clock of [`ledger::now`].
    pub at: f64,
    /// Its number, see [`message::numbered`].
    pub id: u64,
    /// The recipient.
    pub recipient: String,
    /// Whether the client was told.
    pub answered: bool,
}

#[derive(Debug, Default)]
struct State {
    taken: Vec<Taken>,
    /// Recipients that have been put off, or left in doubt, once.
    met: BTreeSet<String>,
}

/// Hosts at some addresses of loopback; they end when dropped.
#[derive(Debug)]
pub struct Sink {
    port: u16,
    state: Arc<Mutex<State>>,
    ended: Arc<AtomicBool>,
}

impl Sink {
    /// Listens at all of these addresses, at one port.
    pub fn start(addresses: &[Ipv4Addr]) -> Result<Self> {
        let mut last = None;
        for _ in 0..50 {
            let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            let bound: Result<Vec<TcpListener>, _> =
                addresses.iter().map(|address| TcpListener::bind((*address, port))).collect();
            match bound {
                Ok(listeners) => return Self::serve(port, listeners),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(|| anyhow::anyhow!("no addresses"), Into::into))
    }

    fn serve(port: u16, listeners: Vec<TcpListener>) -> Result<Self> {
        let sink = Self { port, state: Arc::default(), ended: Arc::default() };
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let (state, ended) = (Arc::clone(&sink.state), Arc::clone(&sink.ended));
            std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    let Ok((stream, _)) = listener.accept() else {
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || {
                        // Whoever breaks off gets no more.
                        let _ = converse(stream, &state);
                    });
                }
            });
        }
        Ok(sink)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How much was taken.
    pub fn count(&self) -> usize {
        self.lock().taken.len()
    }

    /// What was taken last.
    pub fn last(&self) -> Option<Taken> {
        self.lock().taken.last().cloned()
    }

    /// Everything that was taken, in order.
    pub fn taken(&self) -> Vec<Taken> {
        self.lock().taken.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the lock")
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn manner(recipient: &str) -> &str {
    recipient.split(['-', '@']).next().unwrap_or_default()
}

fn converse(stream: TcpStream, state: &Mutex<State>) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let mut say = |line: &str| writer.write_all(format!("{line}\r\n").as_bytes());
    let lock = || state.lock().expect("nobody panics with the lock");
    say("220 sink.test ESMTP")?;
    let mut recipients: Vec<String> = Vec::new();
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
            "EHLO" => say("250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES")?,
            "MAIL" => {
                recipients.clear();
                say("250 2.1.0 ok")?;
            }
            "RCPT" => {
                let start = line.find('<').map_or(0, |at| at + 1);
                let recipient = line[start..].split('>').next().unwrap_or_default().to_owned();
                match manner(&recipient) {
                    manners::GONE => say("550 5.1.1 no such user")?,
                    manners::LATER if lock().met.insert(recipient.clone()) => {
                        say("451 4.7.1 come back later")?;
                    }
                    _ => {
                        recipients.push(recipient);
                        say("250 2.1.5 ok")?;
                    }
                }
            }
            "DATA" if recipients.is_empty() => say("554 5.5.1 no valid recipients")?,
            "DATA" => {
                say("354 go")?;
                let Some(id) = data(&mut reader)? else { return Ok(()) };
                let answered = {
                    let mut state = lock();
                    let doubted = recipients
                        .iter()
                        .filter(|recipient| manner(recipient) == manners::DOUBT)
                        .filter(|recipient| state.met.insert((*recipient).clone()))
                        .count();
                    let (at, answered) = (ledger::now(), doubted == 0);
                    let taken = recipients.drain(..).map(|recipient| Taken { at, id, recipient, answered });
                    state.taken.extend(taken);
                    answered
                };
                if !answered {
                    return Ok(());
                }
                say("250 2.0.0 taken")?;
            }
            "QUIT" => {
                say("221 2.0.0 bye")?;
                return Ok(());
            }
            _ => say("250 2.0.0 ok")?,
        }
    }
}

/// Reads a message to its end; its number. `None`: it broke off, or has none.
fn data(reader: &mut BufReader<TcpStream>) -> Result<Option<u64>> {
    let mut id = None;
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line == b".\r\n" {
            return Ok(id);
        }
        if id.is_none() {
            id = message::id_of(&String::from_utf8_lossy(&line));
        }
    }
}
