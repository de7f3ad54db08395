//! The engines that start at once: what they are for works, and they come and go as they are told to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use engines::{Engine, Engines, Options, S3, s3};
use testkit::child::{self, is_running};

/// Whether these can be started; where not, that is said, and is a failure in CI.
fn can_start(options: &Options) -> Result<bool> {
    let mut missing = engines::missing(options);
    if options.s3 && Command::new("curl").arg("-V").stdout(Stdio::null()).status().is_err() {
        missing.push("curl, which asks S3");
    }
    if missing.is_empty() {
        return Ok(true);
    }
    ensure!(!std::env::var("CI").is_ok_and(|value| value == "true"), "not found: {}", missing.join("; "));
    eprintln!("LEFT OUT, not found: {}", missing.join("; "));
    Ok(false)
}

#[test]
fn s3_keeps_objects_over_a_kill() -> Result<()> {
    let options = Options { s3: true, ..Options::default() };
    if !can_start(&options)? {
        return Ok(());
    }
    let mut engines = Engines::start(&options)?;
    let s3 = engines.s3.as_mut().context("S3 was asked for")?;
    s3.create_bucket("another-one")?;
    ensure!(s3.create_bucket("../outside").is_err(), "a bucket outside of the folder");
    for bucket in [s3::BUCKET, "another-one"] {
        ensure!(curl(s3, &["-T", "-"], &format!("{bucket}/some/key"))? == (200, String::new()));
    }
    ensure!(curl(s3, &[], "no-such-bucket/some/key")?.0 == 404);
    // The second of two conditional writes is refused.
    ensure!(curl(s3, &["-T", "-", "-H", "If-None-Match: *"], &format!("{}/some/key", s3::BUCKET))?.0 == 412);

    let address = s3.engine.address();
    s3.engine.kill()?;
    ensure!(TcpStream::connect(address).is_err(), "S3 was killed and takes connections");
    ensure!(s3.engine.pause().is_err());
    s3.engine.start()?;
    ensure!(s3.engine.address() == address);
    let (status, body) = curl(s3, &["-r", "4-7"], &format!("{}/some/key", s3::BUCKET))?;
    ensure!((status, body.as_str()) == (206, "body"), "{status} {body}");
    Ok(())
}

/// A signed request, with "the body" where an argument is `-`: the status and the body of the answer.
fn curl(s3: &S3, arguments: &[&str], key: &str) -> Result<(u16, String)> {
    let mut curl = Command::new("curl");
    curl.args(["-s", "--max-time", "30", "-w", "\n%{http_code}"]);
    curl.args(["--aws-sigv4", &format!("aws:amz:{}:s3", s3::REGION)]);
    curl.args(["-u", &format!("{}:{}", s3::ACCESS_KEY, s3::SECRET_KEY)]);
    curl.args(["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]);
    // From a file, so that curl can say its length: S3 takes no chunks without a signature of each.
    let body = tempfile::NamedTempFile::new()?;
    std::fs::write(body.path(), "the body")?;
    let body = body.path().to_str().context("a temporary name")?.to_owned();
    curl.args(arguments.iter().map(|argument| if *argument == "-" { body.as_str() } else { argument }));
    let output = curl.arg(format!("{}/{key}", s3.endpoint())).stdin(Stdio::null()).output()?;
    let text = String::from_utf8(output.stdout)?;
    let (answer, status) = text.rsplit_once('\n').context("curl says no status")?;
    Ok((status.parse()?, answer.to_owned()))
}

#[test]
fn nats_carries_messages_pauses_and_comes_back() -> Result<()> {
    let options = Options { nats: true, ..Options::default() };
    if !can_start(&options)? {
        return Ok(());
    }
    let mut engines = Engines::start(&options)?;
    let beside = Engines::start(&options)?;
    let own = engines.nats.as_mut().context("NATS was asked for")?;
    let other = beside.nats.as_ref().context("NATS was asked for")?;
    ensure!(own.address() != other.address(), "two sets share an address");
    for nats in [&*own, other] {
        ensure!(carries_a_message(nats.address())?);
    }
    own.pause()?;
    ensure!(carries_a_message(own.address()).is_err(), "a paused server answers");
    ensure!(carries_a_message(other.address())?, "pausing one stopped another");
    own.resume()?;
    ensure!(carries_a_message(own.address())?);

    let address = own.address();
    own.kill()?;
    ensure!(TcpStream::connect(address).is_err(), "NATS was killed and takes connections");
    own.start()?;
    ensure!(carries_a_message(address)?);
    ensure!(own.start().is_err(), "it was started twice");

    let process = own.process()?;
    drop(engines);
    ensure!(!is_running(process), "dropped engines run on");
    ensure!(carries_a_message(other.address())?, "dropping one set stopped another");
    Ok(())
}

/// Subscribes, publishes, and sees what was published; an error when nothing is answered within a second.
fn carries_a_message(nats: SocketAddr) -> Result<bool> {
    let mut stream = TcpStream::connect(nats)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"CONNECT {\"verbose\":false}\r\nSUB hints 1\r\nPUB hints 5\r\nhello\r\nPING\r\n")?;
    let mut said = String::new();
    let mut lines = BufReader::new(stream);
    while !said.contains("PONG") {
        if lines.read_line(&mut said)? == 0 {
            bail!("NATS ends the connection: {said}");
        }
    }
    Ok(said.contains("MSG hints 1 5\r\nhello\r\n"))
}

/// A process that is killed drops nothing, and leaves no engine behind all the same.
#[test]
fn engines_end_with_a_process_that_is_killed() -> Result<()> {
    let options = Options { nats: true, ..Options::default() };
    if !can_start(&options)? {
        return Ok(());
    }
    // Ours, since the one that is killed leaves what it made.
    let folder = tempfile::tempdir()?;
    let other_half = "uses_an_engine_until_it_is_killed";
    child::ends_with_its_starter(other_half, &[(FOLDER, folder.path())])
}

const FOLDER: &str = "ENGINES_FOLDER";

#[test]
#[ignore = "the other half of engines_end_with_a_process_that_is_killed"]
fn uses_an_engine_until_it_is_killed() -> Result<()> {
    // Started in a thread that ends, which must not end the engine.
    let folder = std::env::var_os(FOLDER).map(Into::into);
    let start = || Engines::start(&Options { nats: true, folder, ..Options::default() });
    let engines = std::thread::spawn(start).join().expect("starting does not panic")?;
    let nats: &Engine = engines.nats.as_ref().context("NATS was asked for")?;
    ensure!(carries_a_message(nats.address())?);
    child::wait_to_be_killed(nats.process()?)
}
