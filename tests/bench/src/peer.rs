//! The peers: Debian's Postfix and Dovecot with folders and ports of their own, and smtp-sink. Each is stopped by
//! process id when dropped.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// A port that is free now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A folder that every user may enter, as the peers' own users have to.
fn folder() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("postrider-bench-").tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).output().context(program.to_owned())?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn wait_for(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_err() {
        if Instant::now() > deadline {
            bail!("nobody listens on {address}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Where Postfix brings what it has accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Onward {
    Discard,
    Lmtp(SocketAddr),
}

#[derive(Debug)]
pub(crate) struct Postfix {
    folder: TempDir,
    port: u16,
}

impl Postfix {
    pub(crate) fn start(onward: Onward) -> Result<Self> {
        let folder = folder()?;
        let root = folder.path().display().to_string();
        let port = free_port()?;
        for name in ["etc", "queue", "data"] {
            fs::create_dir(folder.path().join(name))?;
        }
        run("chown", &["postfix", &format!("{root}/data")])?;
        for name in ["dynamicmaps.cf", "postfix-files"] {
            fs::copy(format!("/etc/postfix/{name}"), folder.path().join("etc").join(name))?;
        }
        let transport = match onward {
            Onward::Discard => "discard:".to_owned(),
            Onward::Lmtp(address) => format!("lmtp:inet:{}:{}", address.ip(), address.port()),
        };
        let log = format!("/var/log/postrider-bench-{port}.log");
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {root}/queue\ndata_directory = {root}/data\nmail_owner = postfix\n\
             maillog_file = {log}\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmyhostname = peer.example.test\n\
             mydestination =\nlocal_recipient_maps =\nmynetworks = 127.0.0.0/8\nsmtpd_peername_lookup = no\n\
             disable_dns_lookups = yes\nsmtp_host_lookup = native\nin_flow_delay = 0\ndefault_process_limit = 200\n\
             initial_destination_concurrency = 50\ndefault_destination_concurrency_limit = 50\n\
             smtpd_client_connection_count_limit = 0\nsmtpd_client_connection_rate_limit = 0\n\
             lmtp_destination_concurrency_limit = 50\nmessage_size_limit = 200000000\nmailbox_size_limit = 0\n\
             default_transport = {transport}\nrelay_transport = {transport}\nalias_maps =\n\
             import_environment = MAIL_CONFIG=$config_directory MAIL_LOGTAG\n"
        );
        fs::write(folder.path().join("etc/main.cf"), main)?;
        let master = fs::read_to_string("/usr/share/postfix/master.cf.dist")?;
        let mut lines = String::new();
        for line in master.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if line.starts_with(['#', ' ', '\t']) || fields.len() < 8 {
                continue;
            }
            let service = if fields[0] == "smtp" && fields[1] == "inet" {
                format!("127.0.0.1:{port}")
            } else {
                fields[0].into()
            };
            let rest = fields[5..].join(" ");
            writeln!(lines, "{service} {} {} {} n {rest}", fields[1], fields[2], fields[3])?;
        }
        lines.push_str("postlog unix-dgram n - n - 1 postlogd\n");
        fs::write(folder.path().join("etc/master.cf"), lines)?;
        run("/usr/sbin/postfix", &["-c", &format!("{root}/etc"), "start"])?;
        wait_for(address(port))?;
        Ok(Self { folder, port })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        address(self.port)
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let configuration = self.folder.path().join("etc").display().to_string();
        let _ = run("/usr/sbin/postfix", &["-c", &configuration, "stop"]);
        let _ = fs::remove_file(format!("/var/log/postrider-bench-{}.log", self.port));
    }
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
