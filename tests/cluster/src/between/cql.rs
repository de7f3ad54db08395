//! Proxies in front of the nodes of Cassandra. They know frames (native protocol version 4, §2: a header of nine bytes with
//! the length of the body at its end), so that single answers and requests can be lost while the connection stays whole.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::who;

/// What happens between a node and a node of Cassandra.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Traffic {
    /// Everything is passed on.
    #[default]
    Passes,
    /// Connections are closed, and new ones closed as soon as they are made.
    IsCut,
    /// Nothing comes through in either direction until it ends; then what was sent meanwhile does.
    Stalls,
    /// Requests go through, and answers are kept back until it ends.
    KeepsAnswers,
    /// Of a hundred answers so many are lost; what was asked for has happened.
    LosesAnswers(u8),
    /// Of a hundred requests so many are lost; what was asked for does not happen, and nobody says so.
    LosesRequests(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Request,
    Answer,
}

/// The proxies of all nodes of Cassandra; they end when dropped.
#[derive(Debug)]
pub struct Ways {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    ended: AtomicBool,
    lost: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Process of each node.
    processes: Vec<u32>,
    /// What is not passed on: node, Cassandra, and what happens.
    faults: Vec<(usize, usize, Traffic)>,
    open: Vec<Connection>,
    connections: u64,
}

#[derive(Debug)]
struct Connection {
    number: u64,
    process: u32,
    cassandra: usize,
    streams: [TcpStream; 2],
}

impl Ways {
    /// Listens at each announced address, for the node of Cassandra that is behind it.
    pub fn start(ways: &[(SocketAddr, SocketAddr)], seed: u64) -> Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            ended: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        for (cassandra, (announced, behind)) in ways.iter().copied().enumerate() {
            let listener = TcpListener::bind(announced).with_context(|| announced.to_string())?;
            listener.set_nonblocking(true)?;
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                while !shared.ended.load(Ordering::Relaxed) {
                    let Ok((client, peer)) = listener.accept() else {
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    let process = who::holds(peer, announced).unwrap_or(0);
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || {
                        // Who breaks off gets no more.
                        let _ = connect(&shared, client, process, cassandra, behind, seed);
                    });
                }
            });
        }
        Ok(Self { shared })
    }

    /// Says which process each node is now.
    pub fn processes(&self, processes: Vec<u32>) {
        self.shared.lock().processes = processes;
    }

    /// Lets something happen between a node and a node of Cassandra.
    pub fn set(&self, node: usize, cassandra: usize, traffic: Traffic) {
        let mut state = self.shared.lock();
        state.faults.push((node, cassandra, traffic));
        if traffic == Traffic::IsCut {
            let process = state.processes.get(node).copied();
            for connection in &state.open {
                if Some(connection.process) == process && connection.cassandra == cassandra {
                    connection.close();
                }
            }
        }
    }

    /// Everything is passed on again.
    pub fn heal(&self) {
        self.shared.lock().faults.clear();
        self.shared.changed.notify_all();
    }

    /// Requests and answers that were lost so far.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Bytes of frames that were passed on, in both directions.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Ways {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.heal();
        self.shared.lock().open.iter().for_each(Connection::close);
    }
}

impl Connection {
    fn close(&self) {
        for stream in &self.streams {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl State {
    fn traffic(&self, process: u32, cassandra: usize) -> Traffic {
        let node = self.processes.iter().position(|known| *known == process);
        let fault = self.faults.iter().find(|(whose, at, _)| Some(*whose) == node && *at == cassandra);
        fault.map_or(Traffic::Passes, |(.., traffic)| *traffic)
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the lock")
    }

    /// Waits for as long as nothing comes through this way; then what happens now.
    fn traffic(&self, process: u32, cassandra: usize, direction: Direction) -> Traffic {
        let stands = |state: &mut State| match state.traffic(process, cassandra) {
            Traffic::Stalls => true,
            Traffic::KeepsAnswers => direction == Direction::Answer,
            _ => false,
        };
        let state = self.changed.wait_while(self.lock(), stands).expect("nobody panics with the lock");
        state.traffic(process, cassandra)
    }
}

fn connect(
    shared: &Arc<Shared>,
    client: TcpStream,
    process: u32,
    cassandra: usize,
    behind: SocketAddr,
    seed: u64,
) -> Result<()> {
    client.set_nonblocking(false)?;
    if shared.lock().traffic(process, cassandra) == Traffic::IsCut {
        return Ok(());
    }
    let server = TcpStream::connect_timeout(&behind, Duration::from_secs(5))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let number = {
        let mut state = shared.lock();
        state.connections += 1;
        let number = state.connections;
        let streams = [client.try_clone()?, server.try_clone()?];
        state.open.push(Connection { number, process, cassandra, streams });
        number
    };
    let random = |way: u64| StdRng::seed_from_u64(seed.wrapping_add(number * 2 + way));
    let (to_server, to_client) = (server.try_clone()?, client.try_clone()?);
    let answers = {
        let (shared, random) = (Arc::clone(shared), random(1));
        std::thread::spawn(move || {
            let _ = pass(&shared, server, to_client, (process, cassandra), Direction::Answer, random);
        })
    };
    let _ = pass(shared, client, to_server, (process, cassandra), Direction::Request, random(0));
    let _ = answers.join();
    shared.lock().open.retain(|connection| connection.number != number);
    Ok(())
}

/// Passes frames on until one side ends, and then ends both.
fn pass(
    shared: &Shared,
    from: TcpStream,
    to: TcpStream,
    (process, cassandra): (u32, usize),
    direction: Direction,
    random: StdRng,
) -> Result<()> {
    let passed = pass_frames(shared, &from, &to, (process, cassandra), direction, random);
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
    passed
}

fn pass_frames(
    shared: &Shared,
    mut from: &TcpStream,
    mut to: &TcpStream,
    (process, cassandra): (u32, usize),
    direction: Direction,
    mut random: StdRng,
) -> Result<()> {
    loop {
        let mut frame = vec![0; 9];
        from.read_exact(&mut frame)?;
        let size = u32::from_be_bytes([frame[5], frame[6], frame[7], frame[8]]);
        frame.resize(9 + size as usize, 0);
        from.read_exact(&mut frame[9..])?;
        let lost = match (shared.traffic(process, cassandra, direction), direction) {
            (Traffic::IsCut, _) => return Ok(()),
            (Traffic::LosesAnswers(percent), Direction::Answer)
            | (Traffic::LosesRequests(percent), Direction::Request) => {
                carries_data(frame[4]) && random.random_range(0..100) < percent
            }
            _ => false,
        };
        if lost {
            shared.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            to.write_all(&frame)?;
            shared.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        }
    }
}

/// QUERY, EXECUTE and BATCH; RESULT. What sets a connection up, and what keeps it, is passed on.
fn carries_data(opcode: u8) -> bool {
    matches!(opcode, 0x07 | 0x0a | 0x0d | 0x08)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: u8 = 0x07;

    fn frame(opcode: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![4, 0, 0, 1, opcode];
        frame.extend((body.len() as u32).to_be_bytes());
        frame.extend(body);
        frame
    }

    fn read(stream: &mut TcpStream, size: usize) -> Option<Vec<u8>> {
        stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a time-out");
        let mut bytes = vec![0; size];
        stream.read_exact(&mut bytes).ok().map(|()| bytes)
    }

    /// A proxy, a client at it, and the server's end.
    fn line() -> (Ways, TcpStream, TcpStream) {
        let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let announced = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("another");
        let behind = server.local_addr().expect("it is bound");
        let ways = Ways::start(&[(announced, behind)], 1).expect("it starts");
        ways.processes(vec![std::process::id()]);
        let client = TcpStream::connect(announced).expect("it listens");
        let (server, _) = server.accept().expect("it connects");
        (ways, client, server)
    }

    #[test]
    fn requests_and_answers_are_passed_lost_and_kept() {
        let (ways, mut client, mut server) = line();
        let (question, answer) = (frame(QUERY, b"question"), frame(0x08, b"answer"));
        let size = (question.len(), answer.len());
        client.write_all(&question).expect("it takes that");
        assert_eq!(read(&mut server, size.0).as_ref(), Some(&question));

        ways.set(0, 0, Traffic::LosesRequests(100));
        client.write_all(&question).expect("it takes that");
        assert_eq!(read(&mut server, 1), None);
        ways.heal();
        client.write_all(&question).expect("it takes that");
        assert_eq!(read(&mut server, size.0).as_ref(), Some(&question));

        ways.set(0, 0, Traffic::LosesAnswers(100));
        server.write_all(&answer).expect("it takes that");
        assert_eq!(read(&mut client, 1), None);
        ways.heal();
        assert_eq!(ways.lost(), 2);

        ways.set(0, 0, Traffic::KeepsAnswers);
        client.write_all(&question).expect("it takes that");
        assert_eq!(read(&mut server, size.0).as_ref(), Some(&question));
        server.write_all(&answer).expect("it takes that");
        assert_eq!(read(&mut client, 1), None);
        ways.heal();
        assert_eq!(read(&mut client, size.1).as_ref(), Some(&answer));

        ways.set(0, 0, Traffic::IsCut);
        assert_eq!(client.read(&mut [0]).expect("it ends in order"), 0);
    }
}
