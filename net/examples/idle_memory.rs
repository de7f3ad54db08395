//! Measures what an idle session costs: `cargo run --example idle_memory -- plain|tls COUNT`.
//!
//! Both ends are in this process, so the client's share is measured first, by a server that does nothing.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement prints and may fail")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use machine::{Machine, Step};
use net::pump::{Pump, PumpLimits};
use net::stream::Stream;
use net::tls::{Certificate, TlsClient, TlsServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Greets, then answers every line with the same word.
#[derive(Default)]
struct Echo {
    owed: usize,
    ended: bool,
}

impl Machine for Echo {
    type Event = ();

    fn input(&mut self, bytes: &[u8], _: Instant) {
        self.owed += String::from_utf8_lossy(bytes).matches('\n').count();
    }

    fn end_of_input(&mut self, _: Instant) {
        self.ended = true;
    }

    fn next(&mut self, now: Instant) -> Step<()> {
        if self.owed > 0 {
            self.owed -= 1;
            return Step::Write(Bytes::from_static(b"word\r\n"));
        }
        if self.ended { Step::Close } else { Step::Wait { until: Some(now + Duration::from_mins(5)) } }
    }

    fn tls_started(&mut self, _: Instant) {}
}

fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::main]
async fn main() {
    let tls = std::env::args().nth(1).as_deref() == Some("tls");
    let count: u64 = std::env::args().nth(2).and_then(|text| text.parse().ok()).unwrap_or(2000);
    let made = Certificate::self_signed(&["localhost".to_owned()]).unwrap();
    let server = TlsServer::new(&[made.certificate().unwrap()]).unwrap();
    let client = TlsClient::trusting_self_signed("localhost", &made).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let before = rss();
    let mut clients = Vec::new();
    for _ in 0..count {
        let (there, here) = tokio::join!(Stream::connect(address), listener.accept());
        let (mut there, mut here) = (there.unwrap(), Stream::from_tcp(here.unwrap().0).unwrap());
        let server = server.clone();
        tokio::spawn(async move {
            if tls {
                here.accept_tls(&server).await.unwrap();
            }
            let mut pump = Pump::new(here, Echo::default(), PumpLimits::default());
            while let Ok(Some(())) = pump.next().await {}
        });
        if tls {
            there.connect_tls(&client).await.unwrap();
        }
        there.write_all(b"line\r\n").await.unwrap();
        there.flush().await.unwrap();
        let mut word = [0; 6];
        there.read_exact(&mut word).await.unwrap();
        clients.push(there);
    }
    println!("{} KiB for each pair of ends", (rss() - before) as f64 / count as f64);
}
