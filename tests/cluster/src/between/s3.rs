//! A proxy in front of S3 that knows as much of HTTP/1.1 as is needed to refuse, to be slow, to break off in the midst of a
//! body, and to change a byte of what is read.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How S3 behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// As it is.
    #[default]
    Sound,
    /// Answers 503 to everything.
    Refuses,
    /// Takes half a second for each request, and a tenth for each 64 KiB.
    IsSlow,
    /// Answers a tenth of a second later.
    IsFar,
    /// Breaks off in the midst of every third body, of requests and of answers.
    BreaksOff,
    /// Changes a byte in every third object that is read.
    Lies,
}

/// The proxy; it ends when dropped.
#[derive(Debug)]
pub struct Way {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    manner: Mutex<Manner>,
    ended: AtomicBool,
    connections: AtomicU64,
    spoilt: AtomicU64,
    bytes: AtomicU64,
}

impl Shared {
    fn manner(&self) -> Manner {
        *self.manner.lock().expect("nobody panics with the lock")
    }
}

/// What a proxy takes of a body at once.
const PIECE_BYTES: usize = 64 * 1024;
/// One body of so many breaks off, or is changed.
const SPOILT: u32 = 3;

impl Way {
    /// Listens on a free port, for the server that is behind it.
    pub fn start(behind: SocketAddr, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let shared: Arc<Shared> = Arc::default();
        let way = Self { address, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            while !shared.ended.load(Ordering::Relaxed) {
                let Ok((client, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                };
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    // Who breaks off gets no more.
                    let _ = serve(&shared, client, behind, seed);
                });
            }
        });
        Ok(way)
    }

    /// The URL below which buckets lie.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets it behave in another way.
    pub fn set(&self, manner: Manner) {
        *self.shared.manner.lock().expect("nobody panics with the lock") = manner;
    }

    /// Requests that were refused, bodies that broke off or were changed.
    pub fn spoilt(&self) -> u64 {
        self.shared.spoilt.load(Ordering::Relaxed)
    }

    /// Bytes of bodies that were passed on, in both directions.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
    }
}

/// The lines before a body.
#[derive(Debug, Default)]
struct Head {
    bytes: Vec<u8>,
    first: String,
    length: Option<u64>,
    chunked: bool,
    expects: bool,
    closes: bool,
}

impl Head {
    /// `None` where the other side has ended in order.
    fn read(reader: &mut impl BufRead) -> Result<Option<Self>> {
        let mut head = Self::default();
        loop {
            let start = head.bytes.len();
            if reader.read_until(b'\n', &mut head.bytes)? == 0 {
                if start == 0 {
                    return Ok(None);
                }
                bail!("the head breaks off");
            }
            let line = String::from_utf8_lossy(&head.bytes[start..]).trim_end().to_owned();
            if line.is_empty() {
                return Ok(Some(head));
            }
            if start == 0 {
                head.first = line;
                continue;
            }
            let (name, value) = line.split_once(':').context("a field has a colon")?;
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = Some(value.parse()?),
                "transfer-encoding" => head.chunked = value.to_ascii_lowercase().contains("chunked"),
                "expect" => head.expects = true,
                "connection" => head.closes = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
    }

    fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }
}

/// What becomes of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Whole,
    BreaksOff,
    Changed,
}

fn serve(shared: &Shared, client: TcpStream, behind: SocketAddr, seed: u64) -> Result<()> {
    client.set_nonblocking(false)?;
    client.set_nodelay(true)?;
    let number = shared.connections.fetch_add(1, Ordering::Relaxed);
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(number));
    let server = TcpStream::connect_timeout(&behind, Duration::from_secs(5))?;
    server.set_nodelay(true)?;
    let (mut from_client, mut from_server) =
        (BufReader::new(client.try_clone()?), BufReader::new(server.try_clone()?));
    let done = converse(shared, (&mut from_client, &client), (&mut from_server, &server), &mut random);
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
    done
}

type Side<'a> = (&'a mut BufReader<TcpStream>, &'a TcpStream);

fn converse(shared: &Shared, client: Side<'_>, server: Side<'_>, random: &mut StdRng) -> Result<()> {
    let ((from_client, mut to_client), (from_server, mut to_server)) = (client, server);
    while let Some(request) = Head::read(from_client)? {
        let manner = shared.manner();
        let mut fate = |wanted: Manner, fate: Fate| {
            let spoilt = manner == wanted && random.random_range(0..SPOILT) == 0;
            if spoilt { fate } else { Fate::Whole }
        };
        let pause = if manner == Manner::IsSlow { Duration::from_millis(100) } else { Duration::ZERO };
        if manner == Manner::Refuses {
            shared.spoilt.fetch_add(1, Ordering::Relaxed);
            to_client
                .write_all(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
            // Who still sends its body shall read the answer.
            to_client.shutdown(Shutdown::Write)?;
            to_client.set_read_timeout(Some(Duration::from_secs(2)))?;
            std::io::copy(from_client, &mut std::io::sink())?;
            return Ok(());
        }
        let far = if manner == Manner::IsFar { Duration::from_millis(100) } else { Duration::ZERO };
        std::thread::sleep(pause * 5 + far);
        to_server.write_all(&request.bytes)?;
        let mut answer = None;
        if request.expects {
            let first = Head::read(from_server)?.context("no answer")?;
            if first.status() == 100 {
                to_client.write_all(&first.bytes)?;
            } else {
                answer = Some(first);
            }
        }
        if answer.is_none() {
            let fate = fate(Manner::BreaksOff, Fate::BreaksOff);
            body(&request, false, from_client, to_server, fate, pause, shared)?;
        }
        let answer = match answer {
            Some(answer) => answer,
            None => Head::read(from_server)?.context("no answer")?,
        };
        to_client.write_all(&answer.bytes)?;
        let is_object = request.first.starts_with("GET ") && !request.first.contains("list-type=");
        let has_body =
            !request.first.starts_with("HEAD ") && !matches!(answer.status(), 100..200 | 204 | 304);
        if has_body {
            let fate = match fate(Manner::BreaksOff, Fate::BreaksOff) {
                Fate::Whole if is_object && matches!(answer.status(), 200 | 206) => {
                    fate(Manner::Lies, Fate::Changed)
                }
                fate => fate,
            };
            body(&answer, true, from_server, to_client, fate, pause, shared)?;
        }
        if request.closes || answer.closes {
            return Ok(());
        }
    }
    Ok(())
}

/// Passes a body on. An error when it breaks off, by its fate or by itself.
fn body(
    head: &Head,
    until_end: bool,
    from: &mut impl BufRead,
    to: &TcpStream,
    fate: Fate,
    pause: Duration,
    shared: &Shared,
) -> Result<()> {
    if head.chunked {
        loop {
            let mut line = Vec::new();
            from.read_until(b'\n', &mut line)?;
            let text = String::from_utf8_lossy(&line);
            let size = u64::from_str_radix(text.trim_end().split(';').next().unwrap_or_default(), 16)?;
            { to }.write_all(&line)?;
            if size == 0 {
                // Trailers, up to an empty line.
                loop {
                    let mut line = Vec::new();
                    from.read_until(b'\n', &mut line)?;
                    { to }.write_all(&line)?;
                    if line.is_empty() || line == b"\r\n" {
                        return Ok(());
                    }
                }
            }
            piece(size, from, to, fate, pause, shared)?;
            let mut end = [0; 2];
            from.read_exact(&mut end)?;
            { to }.write_all(&end)?;
        }
    }
    match head.length {
        Some(length) => piece(length, from, to, fate, pause, shared),
        None if until_end => {
            std::io::copy(from, &mut { to })?;
            Ok(())
        }
        None => Ok(()),
    }
}

/// So many bytes of a body; breaks off at their half, or changes the one in the middle.
fn piece(
    size: u64,
    from: &mut impl Read,
    mut to: &TcpStream,
    fate: Fate,
    pause: Duration,
    shared: &Shared,
) -> Result<()> {
    let (mut done, middle) = (0, size / 2);
    while done < size {
        let mut bytes = vec![0; PIECE_BYTES.min((size - done) as usize)];
        from.read_exact(&mut bytes)?;
        let here = (done..done + bytes.len() as u64).contains(&middle);
        if here && fate != Fate::Whole {
            shared.spoilt.fetch_add(1, Ordering::Relaxed);
            let at = (middle - done) as usize;
            if fate == Fate::BreaksOff {
                to.write_all(&bytes[..at])?;
                bail!("breaks off");
            }
            bytes[at] ^= 0x20;
        }
        to.write_all(&bytes)?;
        done += bytes.len() as u64;
        shared.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        std::thread::sleep(pause);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every request with this, and its own body back.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || -> Result<()> {
                    let mut reader = BufReader::new(stream.try_clone()?);
                    while let Some(head) = Head::read(&mut reader)? {
                        let mut body = vec![0; head.length.unwrap_or(0) as usize];
                        reader.read_exact(&mut body)?;
                        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                        (&stream).write_all(answer.as_bytes())?;
                        (&stream).write_all(&body)?;
                    }
                    Ok(())
                });
            }
        });
        address
    }

    /// What comes back for a body: the status line, and the body.
    fn ask(way: &Way, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect(way.address)?;
        let head = format!("GET /o HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut reader = BufReader::new(stream);
        let head = Head::read(&mut reader)?.context("an answer")?;
        let mut back = vec![0; head.length.unwrap_or(0) as usize];
        reader.read_exact(&mut back)?;
        Ok((head.status(), back))
    }

    #[test]
    fn each_manner_shows() {
        let way = Way::start(echo(), 1).expect("it starts");
        let text = vec![b'x'; 200_000];
        let ask = |_: usize| ask(&way, &text);
        assert!((0..10).map(ask).all(|back| back.is_ok_and(|(code, back)| code == 200 && back == text)));
        way.set(Manner::Refuses);
        assert!(ask(0).is_ok_and(|(code, _)| code == 503));
        way.set(Manner::Lies);
        let lies = (0..30).map(ask).filter(|back| back.as_ref().is_ok_and(|(_, back)| *back != text)).count();
        assert!((1..30).contains(&lies), "{lies}");
        way.set(Manner::BreaksOff);
        let broken = (0..30).map(ask).filter(Result::is_err).count();
        assert!((1..30).contains(&broken), "{broken}");
        way.set(Manner::Sound);
        assert!(ask(0).is_ok_and(|(_, back)| back == text));
        assert_eq!(way.spoilt(), 1 + (lies + broken) as u64);
    }
}
