//! Three nodes of Cassandra: two serve while one is gone, and it comes back. Takes a minute, so it is run where asked for.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use engines::{Engines, Options};

#[test]
#[ignore = "needs a JDK 17 and 1 GB of memory: cargo test -p engines --test cassandra -- --ignored"]
fn one_node_takes_conditional_writes() -> Result<()> {
    let engines = Engines::start(&Options { cassandra_nodes: 1, ..Options::default() })?;
    make_table(&engines)?;
    write(&mut Session::open(engines.cassandra[0].address())?, 1)
}

#[test]
#[ignore = "needs a JDK 17 and 3 GB of memory: cargo test -p engines --test cassandra -- --ignored"]
fn two_of_three_nodes_serve_while_one_is_gone_and_it_comes_back() -> Result<()> {
    let mut engines = Engines::start(&Options { cassandra_nodes: 3, ..Options::default() })?;
    make_table(&engines)?;
    let mut first = Session::open(engines.cassandra[0].address())?;
    write(&mut first, 1)?;

    let killed = engines.cassandra[1].address();
    engines.cassandra[1].kill()?;
    ensure!(Session::open(killed).is_err(), "the killed node answers");
    write(&mut first, 2)?;
    // With two gone there is no majority, so the one that was killed was needed and the copies do lie on three nodes.
    engines.cassandra[2].pause()?;
    ensure!(write(&mut first, 3).is_err(), "one node of three took a write for a majority");
    engines.cassandra[2].resume()?;

    engines.cassandra[1].start()?;
    let mut second = Session::open(killed)?;
    for key in [1, 2] {
        let answer = second.query(&format!("SELECT value FROM test.rows WHERE key = {key}"))?;
        ensure!(rows(&answer) == Some(1), "row {key} is not there");
    }
    engines.cassandra[0].kill()?;
    write(&mut second, 4)
}

/// Makes a table with a copy on every node, and waits until all know it: those that do not refuse to vote.
fn make_table(engines: &Engines) -> Result<()> {
    let sessions = engines.cassandra.iter().map(|node| Session::open(node.address()));
    let mut sessions = sessions.collect::<Result<Vec<_>>>()?;
    let copies = sessions.len();
    let first = sessions.first_mut().context("no nodes")?;
    let class = "'class': 'SimpleStrategy'";
    first.query(&format!(
        "CREATE KEYSPACE test WITH replication = {{{class}, 'replication_factor': {copies}}}"
    ))?;
    first.query("CREATE TABLE test.rows (key int PRIMARY KEY, value int)")?;
    for _ in 0..600 {
        let versions =
            sessions.iter_mut().map(|session| session.query("SELECT schema_version FROM system.local"));
        let versions = versions.collect::<Result<Vec<_>>>()?;
        if versions.iter().all(|version| *version == versions[0]) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("the nodes do not agree on the schema")
}

fn write(session: &mut Session, key: u32) -> Result<()> {
    session.query(&format!("INSERT INTO test.rows (key, value) VALUES ({key}, 1) IF NOT EXISTS"))?;
    Ok(())
}

/// A connection that speaks as much CQL (version 4) as is needed here.
struct Session(TcpStream);

const STARTUP: u8 = 1;
const QUERY: u8 = 7;
const READY: u8 = 2;
const RESULT: u8 = 8;

impl Session {
    fn open(address: SocketAddr) -> Result<Self> {
        let mut session = Self(TcpStream::connect(address)?);
        let body = [&[0, 1, 0, 11][..], b"CQL_VERSION", &[0, 5], b"3.0.0"].concat();
        session.ask(STARTUP, &body, READY)?;
        Ok(session)
    }

    /// The body of the answer; reads and writes ask a majority.
    fn query(&mut self, text: &str) -> Result<Vec<u8>> {
        let length = u32::try_from(text.len())?.to_be_bytes();
        let (majority, no_flags) = ([0, 4], [0]);
        self.ask(QUERY, &[&length[..], text.as_bytes(), &majority, &no_flags].concat(), RESULT)
    }

    fn ask(&mut self, opcode: u8, body: &[u8], expected: u8) -> Result<Vec<u8>> {
        let length = u32::try_from(body.len())?.to_be_bytes();
        self.0.write_all(&[&[4, 0, 0, 0, opcode][..], &length, body].concat())?;
        let mut header = [0; 9];
        self.0.read_exact(&mut header).context("no answer")?;
        let length = u32::from_be_bytes(header[5..].try_into()?);
        let mut answer = vec![0; length as usize];
        self.0.read_exact(&mut answer)?;
        ensure!(header[4] == expected, "opcode {}: {}", header[4], String::from_utf8_lossy(&answer));
        Ok(answer)
    }
}

/// How many rows of one int an answer holds: a row ends the answer with the length 4 and the value.
fn rows(answer: &[u8]) -> Option<u32> {
    let count = answer.get(answer.len().checked_sub(12)?..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*count))
}
