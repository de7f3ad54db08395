//! A server under test: `postrider dev` in a data folder of its own, on ports that are free.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::child::{self, Life};

/// Ports of `postrider dev` before the offset is added.
const SMTP: u16 = 2525;
const SUBMISSION: u16 = 2587;
const SUBMISSIONS: u16 = 2465;
const LMTP: u16 = 2424;
const IMAP: u16 = 2143;
const IMAPS: u16 = 2993;
const HTTPS: u16 = 2443;
const ADMIN: u16 = 2080;

/// The password of the accounts that `postrider dev` makes.
pub const PASSWORD: &str = "postrider";

/// Snapshots after few entries and on small pages, so that snapshot, trim, archive and page collection happen in each
/// life of a server, with commits of clients in flight.
pub const EVENTFUL: &str = "\
[logs]
snapshot_entries_min = 16
snapshot_bytes_min = 8192
snapshot_share_percent = 1
snapshot_entries_max = 64

[storage.layout]
index_messages = 64
email_records = 32
run_keys = 64
trail_bytes = 512

[smtp_in]
submission_without_tls = true
user_recipients_per_hour_max = 0
";

/// How a server is to be started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data folder; made when it is missing.
    pub data: PathBuf,
    /// More arguments after `dev`.
    pub arguments: Vec<String>,
    /// More environment variables.
    pub environment: Vec<(String, String)>,
    /// A program and arguments that run the server, such as strace.
    pub wrapper: Vec<String>,
    /// The program, where it is not the one that is tested.
    pub program: Option<PathBuf>,
    /// How long the server may take to greet.
    pub patience: Duration,
}

impl Options {
    /// A plain start in this data folder.
    pub fn new(data: &Path) -> Self {
        Self {
            data: data.to_path_buf(),
            arguments: Vec::new(),
            environment: Vec::new(),
            wrapper: Vec::new(),
            program: None,
            patience: Duration::from_secs(60),
        }
    }
}

/// How often other ports are tried.
const STARTS: usize = 5;
/// What a development server says when its ports are open.
const OPEN: &str = "Postrider runs on this machine alone";

/// A running server; killed when dropped, and with our process.
#[derive(Debug)]
pub struct Server {
    child: Child,
    offset: u16,
    log: PathBuf,
    data: PathBuf,
    wrapped: bool,
}

/// The binary under test: `$POSTRIDER_BIN`.
pub fn binary() -> Result<PathBuf> {
    let path = std::env::var_os("POSTRIDER_BIN").context("POSTRIDER_BIN names the postrider binary")?;
    let path = PathBuf::from(path);
    if !path.is_file() {
        bail!("{} is not a file", path.display());
    }
    Ok(path)
}

impl Server {
    /// Starts the server and waits until it greets on SMTP and IMAP. Its ports are free when they are chosen; where another
    /// process was faster, it is started with others.
    pub fn start(options: &Options) -> Result<Self> {
        for _ in 0..STARTS {
            match Self::start_at(options, free_offset()?) {
                Err(error) if format!("{error:#}").contains("is in use by another process") => {}
                started => return started,
            }
        }
        bail!("others take every port")
    }

    fn start_at(options: &Options, offset: u16) -> Result<Self> {
        let log = options.data.with_extension("log");
        if let Some(parent) = options.data.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let output = File::options().create(true).append(true).open(&log)?;
        let said_before = output.metadata()?.len();
        let binary = match &options.program {
            Some(program) => program.clone(),
            None => binary()?,
        };
        let mut command = match options.wrapper.split_first() {
            Some((program, arguments)) => {
                let mut command = Life::Bound.command(Path::new(program));
                command.args(arguments).arg(binary);
                command
            }
            None => Life::Bound.command(&binary),
        };
        command.arg("dev").arg("--data").arg(&options.data);
        command.arg("--port-offset").arg(offset.to_string()).args(&options.arguments);
        command.envs(options.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = child::spawn(command).context("cannot start the server")?;
        let mut server =
            Self { child, offset, log, data: options.data.clone(), wrapped: !options.wrapper.is_empty() };
        server.wait_ready(options.patience, said_before)?;
        Ok(server)
    }

    /// Until this server says that its ports are open, and greets: who greets there before that is another.
    fn wait_ready(&mut self, patience: Duration, said_before: u64) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !self.log_after(said_before)?.contains(OPEN) {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}:\n{}", self.log_tail(30));
            }
            if Instant::now() > deadline {
                bail!("the server does not open its ports:\n{}", self.log_tail(30));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        for address in [self.smtp(), self.imap()] {
            loop {
                if let Ok(stream) = TcpStream::connect(address) {
                    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                    let mut byte = [0_u8; 1];
                    if stream.peek(&mut byte).is_ok_and(|read| read == 1) {
                        break;
                    }
                }
                if let Some(status) = self.child.try_wait()? {
                    bail!("the server ended with {status}:\n{}", self.log_tail(30));
                }
                if Instant::now() > deadline {
                    bail!("the server does not greet on {address}:\n{}", self.log_tail(30));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// What was written into the log behind so many bytes.
    fn log_after(&self, bytes: u64) -> Result<String> {
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(bytes))?;
        let mut said = Vec::new();
        file.read_to_end(&mut said)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGSTOP: its connections stay open and nothing is answered, until [`Self::resume`].
    pub fn pause(&self) -> Result<()> {
        self.signal(rustix::process::Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.signal(rustix::process::Signal::CONT)
    }

    fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).with_context(|| format!("{signal:?} to a server"))
    }

    /// SIGTERM, and waits until the process has ended by itself; an error when it fails or takes too long.
    pub fn stop(mut self, patience: Duration) -> Result<()> {
        self.signal(rustix::process::Signal::TERM)?;
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("the server ended with {status}:\n{}", self.log_tail(20));
            }
            if Instant::now() > deadline {
                bail!("the server does not stop:\n{}", self.log_tail(20));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a wrapped server, which was told to stop by other means, has ended.
    pub fn stop_wrapped(mut self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("the server does not stop:\n{}", self.log_tail(20));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Whether the process has ended by itself.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in bytes, now.
    pub fn resident(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most resident memory in bytes since the start, or since [`Self::reset_peak`].
    pub fn peak_resident(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    /// Lets the peak of resident memory begin now.
    pub fn reset_peak(&self) -> Result<()> {
        let path = format!("/proc/{}/clear_refs", self.process()?);
        std::fs::write(&path, "5").with_context(|| path)
    }

    fn memory(&self, name: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// The process id of the server itself, also when a program runs it.
    pub fn process(&self) -> Result<u32> {
        if !self.wrapped {
            return Ok(self.pid());
        }
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid()))?;
        Ok(children.split_whitespace().next().context("nothing is being run")?.parse()?)
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// The whole log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// What it has counted since its start, as `/metrics` shows it.
    pub fn metrics(&self) -> Result<String> {
        self.get("/metrics")
    }

    /// The token that is good for everything at the admin API.
    pub fn admin_token(&self) -> Result<String> {
        let token = std::fs::read_to_string(self.data.join("admin-token")).context("admin-token")?;
        Ok(token.trim().to_owned())
    }

    /// What the admin API answers to a GET of this path.
    pub fn get(&self, path: &str) -> Result<String> {
        let token = self.admin_token()?;
        let mut stream = TcpStream::connect(self.admin())?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        // HTTP/1.0: no chunks, and the answer ends with the connection.
        write!(stream, "GET {path} HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        let status = head.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("200") {
            bail!("{path}: {status} {body}");
        }
        Ok(body.to_owned())
    }

    /// The port offset it was started with.
    pub fn offset(&self) -> u16 {
        self.offset
    }

    /// Plain SMTP for mail from anywhere.
    pub fn smtp(&self) -> SocketAddr {
        self.address(SMTP)
    }

    /// Submission with STARTTLS.
    pub fn submission(&self) -> SocketAddr {
        self.address(SUBMISSION)
    }

    /// Submission over TLS from the first byte.
    pub fn submissions(&self) -> SocketAddr {
        self.address(SUBMISSIONS)
    }

    /// LMTP.
    pub fn lmtp(&self) -> SocketAddr {
        self.address(LMTP)
    }

    /// IMAP with STARTTLS; plain logins are allowed since it is loopback.
    pub fn imap(&self) -> SocketAddr {
        self.address(IMAP)
    }

    /// IMAP over TLS from the first byte.
    pub fn imaps(&self) -> SocketAddr {
        self.address(IMAPS)
    }

    /// JMAP over HTTPS.
    pub fn https(&self) -> SocketAddr {
        self.address(HTTPS)
    }

    /// The admin API.
    pub fn admin(&self) -> SocketAddr {
        self.address(ADMIN)
    }

    fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port + self.offset))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A log holds no WARN and no ERROR but those that contain one of `expected`.
pub fn is_quiet(log: &str, expected: &[&str]) -> Result<()> {
    let loud: Vec<&str> = log
        .lines()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR ") || line.contains("panicked"))
        .filter(|line| !expected.iter().any(|known| line.contains(known)))
        .collect();
    if !loud.is_empty() {
        bail!("unexpected lines in the log:\n{}", loud[..loud.len().min(20)].join("\n"));
    }
    Ok(())
}

/// An offset whose ports can all be bound now. The start is spread by process id, so that test processes that run side
/// by side do not race for the same ports.
fn free_offset() -> Result<u16> {
    use std::sync::atomic::{AtomicU16, Ordering};
    static TURN: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() as u16 % 400;
    for _ in 0..400 {
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        // Steps of 1 000 keep the ports of neighbours apart; the services lie within that span.
        let offset = 3_000 + ((start + turn * 37) % 400) * 70;
        let free = [SMTP, SUBMISSION, SUBMISSIONS, LMTP, IMAP, IMAPS, ADMIN]
            .iter()
            .all(|port| TcpListener::bind(("127.0.0.1", port + offset)).is_ok());
        if free {
            return Ok(offset);
        }
    }
    bail!("no free ports")
}
