//! A name server on loopback that knows what a test tells it and asks nobody else. Written to the wire format by hand,
//! so that it can also answer what no library would.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// One record of the zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// IPv4 address.
    A(Ipv4Addr),
    /// IPv6 address.
    Aaaa(Ipv6Addr),
    /// Mail exchanger; an empty name is the null MX.
    Mx(u16, String),
    /// Another name.
    Cname(String),
}

/// What is odd about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// Answered with SERVFAIL.
    ServFail,
    /// Answered with REFUSED.
    Refused,
    /// Not answered.
    Silent,
    /// Over UDP the answer is truncated, over TCP it is whole.
    Truncated,
    /// Answered with bytes that are no message.
    Garbage,
}

#[derive(Debug, Default)]
struct Zone {
    records: Vec<(String, Data)>,
    odd: HashMap<String, Oddity>,
    questions: Vec<(String, u16)>,
}

/// A running name server; it ends when dropped.
#[derive(Debug)]
pub struct Dns {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    ended: Arc<AtomicBool>,
}

const A: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const MX: u16 = 15;
const AAAA: u16 = 28;
const SECONDS_TO_LIVE: u32 = 1;
/// As much as goes into a datagram without more being agreed upon.
const UDP_BYTES_MAX: usize = 512;

impl Dns {
    /// Starts with an empty zone: no name exists.
    pub fn start() -> Result<Self> {
        for _ in 0..50 {
            let udp = UdpSocket::bind(("127.0.0.1", 0))?;
            let address = udp.local_addr()?;
            let Ok(tcp) = TcpListener::bind(address) else { continue };
            udp.set_read_timeout(Some(Duration::from_millis(100)))?;
            tcp.set_nonblocking(true)?;
            let server = Self { address, zone: Arc::default(), ended: Arc::default() };
            let (zone, ended) = (server.zone.clone(), server.ended.clone());
            std::thread::spawn(move || serve_udp(&udp, &zone, &ended));
            let (zone, ended) = (server.zone.clone(), server.ended.clone());
            std::thread::spawn(move || serve_tcp(&tcp, &zone, &ended));
            return Ok(server);
        }
        bail!("no port is free for both UDP and TCP")
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a record.
    pub fn add(&self, name: &str, data: Data) -> &Self {
        self.zone().records.push((name.to_ascii_lowercase(), data));
        self
    }

    /// Adds a mail exchanger and its address.
    pub fn exchanger(&self, domain: &str, preference: u16, host: &str, address: Ipv4Addr) -> &Self {
        self.add(domain, Data::Mx(preference, host.to_owned())).add(host, Data::A(address))
    }

    /// Makes a name odd.
    pub fn odd(&self, name: &str, oddity: Oddity) -> &Self {
        self.zone().odd.insert(name.to_ascii_lowercase(), oddity);
        self
    }

    /// Forgets a name and what is odd about it.
    pub fn remove(&self, name: &str) -> &Self {
        let mut zone = self.zone();
        zone.records.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        zone.odd.remove(&name.to_ascii_lowercase());
        drop(zone);
        self
    }

    /// What was asked so far: names and types.
    pub fn questions(&self) -> Vec<(String, u16)> {
        self.zone().questions.clone()
    }

    fn zone(&self) -> std::sync::MutexGuard<'_, Zone> {
        self.zone.lock().expect("nobody panics with the lock")
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn serve_udp(socket: &UdpSocket, zone: &Mutex<Zone>, ended: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !ended.load(Ordering::Relaxed) {
        let Ok((read, peer)) = socket.recv_from(&mut buffer) else { continue };
        let answered = answer(&buffer[..read], zone, true);
        if let Ok(Some(bytes)) = answered {
            let _ = socket.send_to(&bytes, peer);
        }
    }
}

fn serve_tcp(listener: &TcpListener, zone: &Arc<Mutex<Zone>>, ended: &Arc<AtomicBool>) {
    while !ended.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        let zone = zone.clone();
        std::thread::spawn(move || {
            let _ = converse(stream, &zone);
        });
    }
}

fn converse(mut stream: TcpStream, zone: &Mutex<Zone>) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    loop {
        let mut size = [0; 2];
        stream.read_exact(&mut size)?;
        let mut question = vec![0; usize::from(u16::from_be_bytes(size))];
        stream.read_exact(&mut question)?;
        if let Some(bytes) = answer(&question, zone, false)? {
            stream.write_all(&u16::try_from(bytes.len())?.to_be_bytes())?;
            stream.write_all(&bytes)?;
        }
    }
}

/// The answer to a question. `None`: silence.
fn answer(question: &[u8], zone: &Mutex<Zone>, udp: bool) -> Result<Option<Vec<u8>>> {
    let (name, kind, end) = asked(question)?;
    let mut zone = zone.lock().expect("nobody panics with the lock");
    zone.questions.push((name.clone(), kind));
    let mut code = 0;
    let mut truncated = false;
    match zone.odd.get(&name) {
        Some(Oddity::Silent) => return Ok(None),
        Some(Oddity::Garbage) => return Ok(Some(vec![0xff; 20])),
        Some(Oddity::ServFail) => code = 2,
        Some(Oddity::Refused) => code = 5,
        Some(Oddity::Truncated) => truncated = udp,
        None => {}
    }
    let mut answers = Vec::new();
    let mut current = name.clone();
    // A chain of other names, and no loop of them for ever.
    for _ in 0..8 {
        let records: Vec<&Data> =
            zone.records.iter().filter(|(known, _)| *known == current).map(|(_, data)| data).collect();
        let exact = records.iter().filter(|data| type_of(data) == kind);
        answers.extend(exact.map(|data| (current.clone(), (*data).clone())));
        let other = records.iter().find_map(|data| match data {
            Data::Cname(other) if kind != CNAME => Some(other.clone()),
            _ => None,
        });
        match other {
            Some(other) => {
                answers.push((current, Data::Cname(other.clone())));
                current = other.to_ascii_lowercase();
            }
            None => break,
        }
    }
    let suffix = format!(".{current}");
    let exists = zone.records.iter().any(|(known, _)| *known == current || known.ends_with(&suffix));
    if code == 0 && !exists {
        code = 3;
    }
    if code == 2 || code == 5 {
        answers.clear();
    }
    let mut out = question[..2].to_vec();
    let mut body = Vec::new();
    for (owner, data) in &answers {
        record(&mut body, owner, data)?;
    }
    truncated |= udp && body.len() > UDP_BYTES_MAX;
    let negative = (code == 0 || code == 3) && answers.is_empty();
    let flags = 0x8180_u16 | code | if truncated { 0x0200 } else { 0 };
    out.extend(flags.to_be_bytes());
    let count = if truncated { 0 } else { u16::try_from(answers.len())? };
    for number in [1, count, u16::from(negative && !truncated), 0] {
        out.extend(number.to_be_bytes());
    }
    out.extend(&question[12..end]);
    if !truncated {
        out.extend(body);
        if negative {
            authority(&mut out)?;
        }
    }
    Ok(Some(out))
}

/// Name, type, and where the question ends.
fn asked(message: &[u8]) -> Result<(String, u16, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*message.get(at).context("short question")?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = message.get(at..at + length).context("short question")?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
    let kind = message.get(at..at + 2).context("short question")?;
    Ok((labels.join("."), u16::from_be_bytes([kind[0], kind[1]]), at + 4))
}

fn type_of(data: &Data) -> u16 {
    match data {
        Data::A(_) => A,
        Data::Aaaa(_) => AAAA,
        Data::Mx(..) => MX,
        Data::Cname(_) => CNAME,
    }
}

fn record(out: &mut Vec<u8>, owner: &str, data: &Data) -> Result<()> {
    let mut value = Vec::new();
    match data {
        Data::A(address) => value.extend(address.octets()),
        Data::Aaaa(address) => value.extend(address.octets()),
        Data::Mx(preference, host) => {
            value.extend(preference.to_be_bytes());
            name(&mut value, host)?;
        }
        Data::Cname(other) => name(&mut value, other)?,
    }
    header(out, owner, type_of(data), &value)
}

fn authority(out: &mut Vec<u8>) -> Result<()> {
    let mut value = Vec::new();
    name(&mut value, "ns.invalid")?;
    name(&mut value, "hostmaster.invalid")?;
    for number in [1_u32, 60, 60, 60, SECONDS_TO_LIVE] {
        value.extend(number.to_be_bytes());
    }
    header(out, "", SOA, &value)
}

fn header(out: &mut Vec<u8>, owner: &str, kind: u16, value: &[u8]) -> Result<()> {
    name(out, owner)?;
    out.extend(kind.to_be_bytes());
    out.extend(1_u16.to_be_bytes());
    out.extend(SECONDS_TO_LIVE.to_be_bytes());
    out.extend(u16::try_from(value.len())?.to_be_bytes());
    out.extend(value);
    Ok(())
}

fn name(out: &mut Vec<u8>, text: &str) -> Result<()> {
    for label in text.split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len())?);
        out.extend(label.as_bytes());
    }
    out.push(0);
    Ok(())
}
