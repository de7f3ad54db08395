//! Two regions on one set of engines: each with a keyspace, a bucket, a key and a node of its own.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use engines::Engines;
use testkit::child::{self, Life};
use testkit::server::binary;

/// The regions, in the order in which they are started.
pub const REGIONS: [&str; 2] = ["eu", "us"];
/// Of every account.
pub const PASSWORD: &str = "a-long-password";

/// What a node may take to start: the schema is made, twice.
const START_PATIENCE: Duration = Duration::from_secs(180);
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// Tables are made slowly where the machine has other things to do.
const PATIENT: &str = "request_timeout_ms = 60000\nsilence_ms_max = 60000\nconnect_timeout_ms = 30000\n";

const SMTP: u16 = 2525;
const SUBMISSION: u16 = 2587;
const IMAP: u16 = 2143;
const IMAPS: u16 = 2993;
const REGION: u16 = 7925;

/// A region with one node.
#[derive(Debug)]
pub struct Region {
    /// Its name.
    pub name: &'static str,
    folder: PathBuf,
    address: String,
    process: Option<Child>,
}

impl Region {
    /// Makes the configurations of both, below a folder, on these engines.
    pub fn pair(folder: &Path, engines: &Engines) -> Result<[Self; 2]> {
        let url = engines.nats_url().context("NATS")?;
        let network = url.trim_start_matches("nats://").rsplit_once('.').context("an address")?.0.to_owned();
        certificate(folder)?;
        secret_file(&folder.join("regions.secret"), &"5a".repeat(32))?;
        let pair: [Self; 2] = std::array::from_fn(|index| Self {
            name: REGIONS[index],
            folder: folder.join(REGIONS[index]),
            address: format!("{network}.{}", index + 1),
            process: None,
        });
        for (region, other) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
            fs::create_dir_all(&region.folder)?;
            let bucket = format!("postrider-{}", region.name);
            engines.s3.as_ref().context("S3")?.create_bucket(&bucket)?;
            let stores = engines
                .configuration()
                .replace("[cql]\n", &format!("[cql]\nkeyspace = \"postrider_{}\"\n{PATIENT}", region.name))
                .replace("bucket = \"postrider\"", &format!("bucket = \"{bucket}\""));
            fs::write(region.file(), format!("{}{stores}", region.settings(other)))?;
        }
        Ok(pair)
    }

    fn settings(&self, other: &Self) -> String {
        let Self { name, address, .. } = self;
        let listeners = [
            ("smtp", SMTP),
            ("submission", SUBMISSION),
            ("imap", IMAP),
            ("imaps", IMAPS),
            ("region", REGION),
        ];
        let listeners = listeners.map(|(service, port)| {
            format!("  {{ service = \"{service}\", address = {{ tcp = \"{address}:{port}\" }} }},\n")
        });
        format!(
            "hostname = \"{name}.example.test\"\ndata = \"data\"\nshutdown_seconds = 20\n\
             certificates = [{{ certificate = \"../certificate.pem\", key = \"../key.pem\" }}]\n\
             listeners = [\n{}  {{ service = \"admin\", address = {{ unix = \"admin.sock\" }} }},\n]\n\
             [smtp_in]\nsubmission_without_tls = true\n\
             [queue]\npoll_seconds = 1\n[queue.retry]\nseconds_min = 1\nseconds_max = 2\n\
             [cluster]\nnode = \"{name}-1\"\n\
             [regions]\nname = \"{name}\"\nsecret_file = \"../regions.secret\"\n\
             [[regions.others]]\nname = \"{}\"\nnodes = [\"{}:{REGION}\"]\n\
             server_name = \"node.example.test\"\nca_file = \"../ca.pem\"\n",
            listeners.concat(),
            other.name,
            other.address
        )
    }

    /// The configuration file.
    pub fn file(&self) -> PathBuf {
        self.folder.join("postrider.toml")
    }

    /// Starts the node, and waits until its ports are open.
    pub fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.folder.join("log"))?;
        let mut command = Life::Bound.command(&binary()?);
        command.args(["serve", "--config"]).arg(self.file());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let said_before = self.log().len();
        let mut process = child::spawn(command)?;
        let deadline = Instant::now() + START_PATIENCE;
        while !self.log()[said_before..].contains("server runs") {
            if let Some(status) = process.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.name, self.last_words());
            }
            if Instant::now() > deadline {
                let _ = process.kill();
                bail!("{} does not start:\n{}", self.name, self.last_words());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.process = Some(process);
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("it is down")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    /// SIGTERM, until it has ended in order.
    pub fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("it is down")?;
        let pid = process.id().to_string();
        ensure!(Command::new("kill").args(["-TERM", &pid]).status()?.success(), "kill {pid}");
        let deadline = Instant::now() + STOP_PATIENCE;
        loop {
            if let Some(status) = process.try_wait()? {
                ensure!(status.success(), "{} ended with {status}:\n{}", self.name, self.last_words());
                return Ok(());
            }
            if Instant::now() > deadline {
                let _ = process.kill();
                bail!("{} does not stop:\n{}", self.name, self.last_words());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A command about this region, with something on its standard input.
    pub fn command(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let mut command = Command::new(binary()?);
        command.args(arguments).arg("--config").arg(self.file());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        child.stdin.take().context("standard input")?.write_all(input.as_bytes())?;
        Ok(child.wait_with_output()?)
    }

    /// The same, which has to succeed.
    pub fn succeeds(&self, arguments: &[&str], input: &str) -> Result<String> {
        let output = self.command(arguments, input)?;
        ensure!(output.status.success(), "{arguments:?} in {}: {}", self.name, told(&output));
        Ok(told(&output))
    }

    /// Gives a command about this region, and kills it (SIGKILL) when it has said something. `false`: it had nothing to say
    /// of this, and has ended in order.
    pub fn killed_after(&self, arguments: &[&str], said: &str) -> Result<bool> {
        let mut command = Life::Bound.command(&binary()?);
        command.args(arguments).arg("--config").arg(self.file());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = child::spawn(command)?;
        let output = BufReader::new(process.stdout.take().context("its output")?);
        let mut heard = Vec::new();
        for line in output.lines() {
            heard.push(line?);
            if heard.last().is_some_and(|line| line.contains(said)) {
                process.kill()?;
                process.wait()?;
                return Ok(true);
            }
        }
        let mut errors = String::new();
        process.stderr.take().context("its errors")?.read_to_string(&mut errors)?;
        let status = process.wait()?;
        ensure!(status.success(), "{arguments:?} in {}: {heard:?}, {status}: {errors}", self.name);
        Ok(false)
    }

    /// Makes an account.
    pub fn add_account(&self, address: &str) -> Result<()> {
        self.succeeds(&["account", "add", address], &format!("{PASSWORD}\n")).map(drop)
    }

    /// Where IMAP is spoken.
    pub fn imap(&self) -> Result<SocketAddr> {
        self.at(IMAP)
    }

    /// Where IMAP is spoken under TLS.
    pub fn imaps(&self) -> Result<SocketAddr> {
        self.at(IMAPS)
    }

    /// Where other servers bring mail.
    pub fn smtp(&self) -> Result<SocketAddr> {
        self.at(SMTP)
    }

    /// Where users submit mail.
    pub fn submission(&self) -> Result<SocketAddr> {
        self.at(SUBMISSION)
    }

    fn at(&self, port: u16) -> Result<SocketAddr> {
        Ok(format!("{}:{port}", self.address).parse()?)
    }

    /// What the node has logged.
    pub fn log(&self) -> String {
        let text = fs::read(self.folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// What the node has written down of administrative acts and failed logins.
    pub fn audit(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.join("data/audit.jsonl"))?)
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// What a command has said.
pub fn told(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

/// Writes a secret so that nobody else reads it.
pub fn secret_file(path: &Path, secret: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(writeln!(file, "{secret}")?)
}

/// An authority of one's own, and a certificate that it has signed: what the guide tells operators to make.
fn certificate(folder: &Path) -> Result<()> {
    let script = "set -eu\n\
        new='openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'\n\
        $new -x509 -days 30 -subj /CN=authority -keyout ca.key -out ca.pem\n\
        $new -subj /CN=node.example.test -keyout key.pem -out node.csr\n\
        printf 'subjectAltName=DNS:node.example.test\\nbasicConstraints=CA:FALSE\\n' > node.ext\n\
        openssl x509 -req -in node.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile node.ext -out certificate.pem\n";
    let output = Command::new("sh").args(["-c", script]).current_dir(folder).stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "openssl: {}", told(&output));
    Ok(())
}
