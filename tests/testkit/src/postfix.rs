//! Debian's Postfix with folders and ports of its own: a host that nobody here wrote. It is stopped by its own command when
//! dropped. Needs root.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// A port that is free now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A folder that every user may enter, as the peers' own users have to.
pub fn folder() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("postrider-peer-").tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

/// Runs a program to its end; an error when it fails.
pub fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).output().context(program.to_owned())?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Waits until somebody listens there.
pub fn wait_for(address: SocketAddr) -> Result<()> {
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
pub enum Onward {
    /// Nowhere; its log tells of it.
    Discard,
    /// To this LMTP server.
    Lmtp(SocketAddr),
    /// To this host, over SMTP.
    Smtp(SocketAddr),
}

/// A running Postfix.
#[derive(Debug)]
pub struct Postfix {
    folder: TempDir,
    address: SocketAddr,
}

impl Postfix {
    /// Starts it on any port.
    pub fn start(onward: Onward) -> Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], free_port()?)), onward)
    }

    /// Starts it at an address of loopback.
    pub fn start_at(address: SocketAddr, onward: Onward) -> Result<Self> {
        let folder = folder()?;
        let root = folder.path().display().to_string();
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
            Onward::Smtp(address) => format!("smtp:[{}]:{}", address.ip(), address.port()),
        };
        let log = log_path(address);
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
                address.to_string()
            } else {
                fields[0].into()
            };
            let rest = fields[5..].join(" ");
            writeln!(lines, "{service} {} {} {} n {rest}", fields[1], fields[2], fields[3])?;
        }
        lines.push_str("postlog unix-dgram n - n - 1 postlogd\n");
        fs::write(folder.path().join("etc/master.cf"), lines)?;
        run("/usr/sbin/postfix", &["-c", &format!("{root}/etc"), "start"])?;
        wait_for(address)?;
        Ok(Self { folder, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What its log says was brought onward: how often, by Message-ID (without brackets) and recipient.
    pub fn sent(&self) -> Result<BTreeMap<(String, String), u32>> {
        let log = fs::read_to_string(log_path(self.address))?;
        let mut names: BTreeMap<&str, &str> = BTreeMap::new();
        let mut sent = BTreeMap::new();
        for line in log.lines() {
            // `… postfix/cleanup[7]: 4F3A: message-id=<a@b>`, `… postfix/discard[8]: 4F3A: to=<c@d>, …, status=sent (…)`
            let Some((queue_id, rest)) = line.split("]: ").nth(1).and_then(|rest| rest.split_once(": "))
            else {
                continue;
            };
            if let Some(name) = rest.strip_prefix("message-id=<").and_then(|rest| rest.strip_suffix('>')) {
                names.insert(queue_id, name);
            }
            let recipient = rest.strip_prefix("to=<").and_then(|rest| rest.split_once('>'));
            if let Some((recipient, more)) = recipient
                && more.contains("status=sent")
                && let Some(name) = names.get(queue_id)
            {
                *sent.entry(((*name).to_owned(), recipient.to_owned())).or_default() += 1;
            }
        }
        Ok(sent)
    }
}

/// Postfix writes its log nowhere else.
fn log_path(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(_) => "v6".to_owned(),
    };
    format!("/var/log/postrider-peer-{ip}-{}.log", address.port())
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let configuration = self.folder.path().join("etc").display().to_string();
        let _ = run("/usr/sbin/postfix", &["-c", &configuration, "stop"]);
        let _ = fs::remove_file(log_path(self.address));
    }
}
