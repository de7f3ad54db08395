//! Postfix's smtp-sink with its fault flags, where it is installed: a host that nobody here wrote.

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testkit::dns::Data;

use crate::world::{World, expect};

const SINK: &str = "/usr/sbin/smtp-sink";

/// Who it is to be when we are root, without which it does not start.
fn user() -> &'static [&'static str] {
    let id = Command::new("id").arg("-u").output().unwrap().stdout;
    if id.trim_ascii() == b"0" { &["-u", "nobody"] } else { &[] }
}

struct Sink(Child);

impl Sink {
    fn start(address: &str, flags: &[&str]) -> Self {
        let child = Command::new(SINK)
            .args(flags)
            .args(user())
            .args([address, "100"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sink = Self(child);
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < until, "smtp-sink does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        sink
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `-f` refuses for good, `-r` for now, `-q` closes without an answer, `-Q` says 421 first.
#[tokio::test]
async fn every_fault_flag_at_every_stage() {
    if !Path::new(SINK).exists() {
        eprintln!("left out: {SINK} is not installed");
        return;
    }
    let mut cases: Vec<(Vec<&str>, &str)> = vec![
        (vec![], "delivered"),
        (vec!["-p"], "delivered"),
        (vec!["-e"], "delivered"),
        (vec!["-e", "-p"], "delivered"),
        // Without EHLO there is HELO.
        (vec!["-f", "ehlo"], "delivered"),
        (vec!["-f", "connect"], "deferred 1"),
        (vec!["-q", "."], "doubt"),
        (vec!["-Q", "."], "deferred 1"),
        (vec!["-r", "."], "deferred 1"),
        (vec!["-f", "."], "failed"),
    ];
    for stage in ["connect", "ehlo", "mail", "rcpt", "data"] {
        for flag in ["-r", "-q", "-Q"] {
            cases.push((vec![flag, stage], "deferred 1"));
        }
    }
    for stage in ["mail", "rcpt", "data"] {
        cases.push((vec!["-f", stage], "failed"));
    }
    for (flags, expected) in cases {
        let world = World::new().await;
        let _sink = Sink::start(&format!("127.0.0.2:{}", world.port), &flags);
        world.dns.add("a.test", Data::A(Ipv4Addr::new(127, 0, 0, 2)));
        world.submit(&["user@a.test"]).await;
        let fates = world.send().await;
        eprintln!("smtp-sink {}: {}", flags.join(" "), fates.values().next().map_or("", String::as_str));
        expect(&fates, &[("user@a.test", expected)]);
    }
}
