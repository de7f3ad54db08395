//! The peers beside Postfix: Debian's Dovecot with a folder and ports of its own, and smtp-sink. Each is stopped by process
//! id when dropped.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use testkit::postfix::{folder, free_port, run, wait_for};

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[derive(Debug)]
pub(crate) struct Dovecot {
    folder: TempDir,
    child: Child,
    imap: u16,
    lmtp: u16,
}

impl Dovecot {
    pub(crate) fn start() -> Result<Self> {
        let folder = folder()?;
        let root = folder.path().display().to_string();
        let (imap, lmtp) = (free_port()?, free_port()?);
        fs::create_dir(folder.path().join("mail"))?;
        run("chown", &["nobody:nogroup", &format!("{root}/mail")])?;
        let configuration = format!(
            "base_dir = {root}/run\nstate_dir = {root}/state\nlog_path = {root}/log\nprotocols = imap lmtp\nlisten = 127.0.0.1\n\
             ssl = no\ndisable_plaintext_auth = no\nmail_location = mdbox:{root}/mail/%u\nfirst_valid_uid = 1\nmail_fsync = optimized\n\
             mail_max_userip_connections = 500\npassdb {{\n driver = static\n args = password={password}\n}}\n\
             userdb {{\n driver = static\n args = uid=nobody gid=nogroup home={root}/mail/%u\n}}\n\
             service imap-login {{\n inet_listener imap {{\n  port = {imap}\n }}\n inet_listener imaps {{\n  port = 0\n }}\n process_min_avail = 4\n}}\n\
             service imap {{\n process_limit = 500\n process_min_avail = 4\n}}\n\
             service lmtp {{\n inet_listener lmtp {{\n  address = 127.0.0.1\n  port = {lmtp}\n }}\n process_min_avail = 4\n}}\n\
             namespace inbox {{\n inbox = yes\n}}\nlda_mailbox_autocreate = yes\n",
            password = testkit::server::PASSWORD
        );
        let path = folder.path().join("dovecot.conf");
        fs::write(&path, configuration)?;
        let child = Command::new("/usr/sbin/dovecot")
            .args(["-F", "-c"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        let dovecot = Self { folder, child, imap, lmtp };
        wait_for(address(imap)).with_context(|| dovecot.log())?;
        wait_for(address(lmtp)).with_context(|| dovecot.log())?;
        Ok(dovecot)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn imap(&self) -> SocketAddr {
        address(self.imap)
    }

    pub(crate) fn lmtp(&self) -> SocketAddr {
        address(self.lmtp)
    }

    /// Restarts nothing but forgets caches of the operating system for a cold read, where we may.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// smtp-sink, which answers and stores nothing.
#[derive(Debug)]
pub(crate) struct Sink {
    child: Child,
    port: u16,
}

impl Sink {
    pub(crate) fn start() -> Result<Self> {
        let port = free_port()?;
        let child = Command::new("smtp-sink")
            .args(["-u", "postfix", "-c", &format!("127.0.0.1:{port}"), "500"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        wait_for(address(port))?;
        Ok(Self { child, port })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        address(self.port)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// smtp-sink, which answers, and counts what it was sent.
#[derive(Debug)]
pub(crate) struct CountingSink {
    child: Child,
    port: u16,
    messages: Arc<AtomicU64>,
}

impl CountingSink {
    pub(crate) fn start() -> Result<Self> {
        let port = free_port()?;
        let mut child = Command::new("smtp-sink")
            .args(["-u", "postfix", "-c", &format!("127.0.0.1:{port}"), "500"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let output = child.stdout.take().context("its output")?;
        let messages = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&messages);
        std::thread::spawn(move || {
            // `sess=3 quit=2 mesg=7`, again and again, each behind the other with a carriage return.
            for line in BufReader::new(output).split(b'\r').map_while(Result::ok) {
                let text = String::from_utf8_lossy(&line);
                let number = text.split("mesg=").nth(1).and_then(|rest| rest.split_whitespace().next());
                if let Some(number) = number.and_then(|number| number.parse().ok()) {
                    count.store(number, Ordering::Relaxed);
                }
            }
        });
        wait_for(address(port))?;
        Ok(Self { child, port, messages })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        address(self.port)
    }

    pub(crate) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }
}

impl Drop for CountingSink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends messages with smtp-source, one in each connection, and returns messages a second.
pub(crate) fn source(
    to: SocketAddr,
    recipients: usize,
    sessions: usize,
    messages: usize,
    bytes: usize,
) -> Result<f64> {
    let target = format!("127.0.0.1:{}", to.port());
    let started = Instant::now();
    let (sessions, per, bytes) = (sessions.max(1), messages / recipients.max(1), bytes.to_string());
    let mut children = Vec::new();
    for recipient in 0..recipients.max(1) {
        let share = (sessions / recipients.max(1)).max(1).to_string();
        children.push(
            Command::new("smtp-source")
                .args(["-s", &share, "-m", &per.to_string(), "-l", &bytes, "-f", "load@example.net"])
                .args(["-t", &user(recipient), &target])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .context("smtp-source")?,
        );
    }
    for mut child in children {
        let status = child.wait()?;
        if !status.success() {
            bail!("smtp-source ended with {status}");
        }
    }
    Ok((per * recipients.max(1)) as f64 / started.elapsed().as_secs_f64())
}

/// The login and address of the user with this number; the first two are those of `postrider dev`.
pub(crate) fn user(number: usize) -> String {
    match number {
        0 => "alice@example.test".into(),
        1 => "bob@example.test".into(),
        _ => format!("user{number}@example.test"),
    }
}
