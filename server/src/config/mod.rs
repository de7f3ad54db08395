//! The configuration file: what the process itself needs, and the settings of every crate it is made of.

mod load;
#[cfg(test)]
mod reference;
mod regions;

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use net::listener::Address;
use net::tls::PemFiles;
use serde::{Deserialize, Serialize};

pub(crate) use regions::RegionsConfig;

use crate::args::{DEFAULT_CONFIG, Store};
use crate::logs;
use crate::maintenance;
use crate::role::Role;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The name of this host, as it greets and as it writes itself into Received fields. Must resolve to this host for
    /// other servers to trust it.
    pub(crate) hostname: String,
    /// Where everything is kept. A relative path begins at the configuration file's folder.
    pub(crate) data: PathBuf,
    /// The file with the key-encryption key, which all other keys are sealed by. Made when it is not there. Empty:
    /// `key-encryption.key` in the data folder. Keep a copy elsewhere: without it all mail is unreadable.
    pub(crate) key_file: PathBuf,
    /// The user that the process becomes after it has opened its ports, when it was started as root. Empty: it stays
    /// who it is.
    pub(crate) user: String,
    /// Seconds that sessions get to end in order when the process is told to end.
    pub(crate) shutdown_seconds: u64,
    /// What this process does. Without `delivery`, mail waits in the queue; without `smtp-out`, mail for other hosts
    /// does.
    pub(crate) roles: Vec<Role>,
    /// Certificates; a client that names none of their names gets the first. Read again on SIGHUP.
    pub(crate) certificates: Vec<PemFiles>,
    /// Where the process listens, and what for.
    pub(crate) listeners: Vec<ListenerConfig>,
    /// The process's own log.
    pub(crate) log: logs::Config,
    /// Connections.
    pub(crate) net: net::listener::Config,
    /// SMTP in: mail from other servers, submission, LMTP. Its `hostname` is the one above unless it says another.
    pub(crate) smtp_in: smtp_in::Config,
    /// The queue between acceptance and mailbox.
    pub(crate) queue: queue::Config,
    /// Local delivery, from the queue into mailboxes.
    pub(crate) delivery: delivery::Config,
    /// Sending to other hosts. Its `hostname` is the one above unless it says another.
    pub(crate) smtp_out: smtp_out::Config,
    /// IMAP.
    pub(crate) imap: imap::Config,
    /// JMAP, over HTTPS.
    pub(crate) jmap: webmail_api::jmap::Config,
    /// Tokens for programs whose users log in here (OAuth 2).
    pub(crate) oauth: webmail_api::oauth::Config,
    /// Accounts, aliases, passwords.
    pub(crate) directory: directory::Config,
    /// Accounts' mailboxes.
    pub(crate) storage: storage::Config,
    /// The search index, on one machine; its `dir` lies in the data folder. What it has it makes anew from the mailboxes, so
    /// it can be deleted while no server runs.
    pub(crate) search: search::Config,
    /// Message bytes.
    pub(crate) blob: blob::Config,
    /// Files of message bytes.
    pub(crate) segments: blob::dir::DirConfig,
    /// Logs of accounts, of the queue and of the directory.
    pub(crate) logs: engine::LogOptions,
    /// The embedded storage engine.
    pub(crate) engine: engine_embedded::Config,
    /// This node among others, where `cql` is used.
    pub(crate) cluster: cluster::Config,
    /// Cassandra or ScyllaDB, for an installation of many nodes. With nodes named here the embedded engine is not used,
    /// `s3` is needed too, and all nodes serve all accounts.
    pub(crate) cql: engine_cql::Config,
    /// Message bytes in S3, where `cql` is used.
    pub(crate) s3: blob_s3::Config,
    /// What is done once in a while, by one process.
    pub(crate) maintenance: maintenance::Config,
    /// Other installations that serve the same domains.
    pub(crate) regions: RegionsConfig,
    /// The admin API.
    pub(crate) admin: webmail_api::admin::Config,
}

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenerConfig {
    /// What is spoken there.
    pub(crate) service: ServiceKind,
    /// `{ tcp = "0.0.0.0:25" }` or `{ unix = "path" }`; a relative path begins at the data folder.
    pub(crate) address: Address,
}

/// What is spoken at a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ServiceKind {
    /// SMTP from other servers (port 25).
    Smtp,
    /// SMTP from mail clients, with STARTTLS (port 587).
    Submission,
    /// SMTP from mail clients, under TLS (port 465).
    Submissions,
    /// LMTP from a server in front of this one.
    Lmtp,
    /// IMAP, with STARTTLS (port 143).
    Imap,
    /// IMAP under TLS (port 993).
    Imaps,
    /// JMAP, over HTTPS (port 443).
    Https,
    /// Nodes of other regions, under TLS.
    Region,
    /// The admin API: under TLS over TCP, by user id on a Unix socket.
    Admin,
}

impl Default for Config {
    fn default() -> Self {
        let everywhere = |service, port: u16| ListenerConfig {
            service,
            address: Address::Tcp((std::net::Ipv4Addr::UNSPECIFIED, port).into()),
        };
        Self {
            hostname: "localhost".to_owned(),
            data: PathBuf::from("/var/lib/postrider"),
            key_file: PathBuf::new(),
            user: String::new(),
            shutdown_seconds: 30,
            roles: Role::ALL.to_vec(),
            certificates: Vec::new(),
            listeners: vec![
                everywhere(ServiceKind::Smtp, 25),
                everywhere(ServiceKind::Submission, 587),
                everywhere(ServiceKind::Submissions, 465),
                everywhere(ServiceKind::Imap, 143),
                everywhere(ServiceKind::Imaps, 993),
                everywhere(ServiceKind::Https, 443),
                ListenerConfig { service: ServiceKind::Admin, address: Address::Unix(ADMIN_SOCKET.into()) },
            ],
            log: logs::Config::default(),
            net: net::listener::Config::default(),
            smtp_in: smtp_in::Config::default(),
            queue: queue::Config::default(),
            delivery: delivery::Config::default(),
            smtp_out: smtp_out::Config::default(),
            imap: imap::Config::default(),
            jmap: webmail_api::jmap::Config::default(),
            oauth: webmail_api::oauth::Config::default(),
            directory: directory::Config::default(),
            storage: storage::Config::default(),
            search: search::Config::default(),
            blob: blob::Config::default(),
            segments: blob::dir::DirConfig::default(),
            logs: engine::LogOptions::default(),
            engine: engine_embedded::Config::default(),
            cluster: cluster::Config::default(),
            cql: engine_cql::Config::default(),
            s3: blob_s3::Config::default(),
            maintenance: maintenance::Config::default(),
            regions: RegionsConfig::default(),
            admin: webmail_api::admin::Config::default(),
        }
    }
}

/// The admin API's socket in the data folder.
pub(crate) const ADMIN_SOCKET: &str = "admin.sock";

impl Config {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let config = Self::read_unchecked(path)?;
        config.check().with_context(|| path.display().to_string())?;
        Ok(config)
    }

    /// Reads a file that is not the whole configuration: whoever completes it checks it then.
    pub(crate) fn read_unchecked(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut config = load::parse(&text).with_context(|| path.display().to_string())?;
        let folder = path.parent().unwrap_or(Path::new(""));
        config.anchor(folder);
        Ok(config)
    }

    /// The configuration of the store that a command is about.
    pub(crate) fn of_store(store: &Store) -> anyhow::Result<Self> {
        match (&store.config, &store.data) {
            (Some(path), _) => Self::read(path),
            (None, Some(data)) => Ok(Self { data: data.clone(), ..Self::default() }),
            (None, None) if Path::new(DEFAULT_CONFIG).exists() => Self::read(Path::new(DEFAULT_CONFIG)),
            (None, None) => Ok(Self { data: PathBuf::from(crate::dev::DEFAULT_DATA), ..Self::default() }),
        }
    }

    /// Makes relative paths begin at `folder`.
    pub(crate) fn anchor(&mut self, folder: &Path) {
        self.data = folder.join(&self.data);
        if !self.key_file.as_os_str().is_empty() {
            self.key_file = folder.join(&self.key_file);
        }
        for files in &mut self.certificates {
            files.certificate = folder.join(&files.certificate);
            files.key = folder.join(&files.key);
        }
        for route in &mut self.smtp_out.routes {
            for path in [&mut route.ca, &mut route.password_file] {
                if !path.as_os_str().is_empty() {
                    *path = folder.join(&*path);
                }
            }
        }
        let nats = &mut self.cluster.nats;
        for path in [
            &mut self.cql.password_file,
            &mut self.cql.ca_file,
            &mut nats.credentials_file,
            &mut nats.ca_file,
            &mut nats.certificate_file,
            &mut nats.key_file,
        ] {
            if !path.as_os_str().is_empty() {
                *path = folder.join(&*path);
            }
        }
        let others = self.regions.others.iter_mut().map(|other| &mut other.ca_file);
        for path in others.chain([&mut self.regions.secret_file]) {
            if !path.as_os_str().is_empty() {
                *path = folder.join(&*path);
            }
        }
        let s3 = &mut self.s3;
        let paths = [&mut s3.credentials_file, &mut s3.waiting_folder, &mut s3.cache_folder, &mut s3.ca_file];
        for path in paths.into_iter().flatten() {
            *path = folder.join(&*path);
        }
        for listener in &mut self.listeners {
            if let Address::Unix(path) = &mut listener.address {
                *path = self.data.join(&*path);
            }
        }
    }

    /// What no single setting can tell.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.hostname.is_empty()
            || self.hostname.len() > 253
            || self.hostname.contains(char::is_whitespace)
        {
            bail!("hostname: {:?} is not the name of a host", self.hostname);
        }
        self.cql.check().map_err(|wrong| anyhow!("cql: {wrong}"))?;
        self.cluster.check().map_err(|wrong| anyhow!("{}", engine::with_causes(&wrong)))?;
        if self.in_cluster() {
            self.s3.check().map_err(|wrong| anyhow!("s3: {wrong}"))?;
        }
        self.regions.check(&self.cql)?;
        self.smtp_out.check().map_err(|wrong| anyhow!("smtp_out: {wrong}"))?;
        let (lease, attempt) = (self.queue.outbound_lease_seconds_max, self.smtp_out.timeouts.attempt);
        if u64::from(lease) < attempt {
            // No message would ever be begun.
            bail!(
                "queue.outbound_lease_seconds_max: {lease} is less than smtp_out.timeouts.attempt, {attempt}"
            );
        }
        self.delivery.check().map_err(|wrong| anyhow!("delivery: {wrong}"))?;
        self.jmap.check().map_err(|wrong| anyhow!("jmap.{wrong}"))?;
        for listener in &self.listeners {
            if listener.service == ServiceKind::Region && self.regions.name.is_empty() {
                bail!("listeners: region at {} needs regions.name", listener.address);
            }
            let role = listener.service.role();
            if let Some(role) = role
                && !self.roles.contains(&role)
            {
                bail!(
                    "listeners: {} at {} needs the role {role:?}",
                    listener.service.name(),
                    listener.address
                );
            }
            if listener.service.needs_certificate(&listener.address) && self.certificates.is_empty() {
                bail!("certificates: {} at {} needs one", listener.service.name(), listener.address);
            }
        }
        Ok(())
    }

    /// Whether everything is kept on the engines of a cluster.
    pub(crate) fn in_cluster(&self) -> bool {
        !self.cql.nodes.is_empty()
    }

    /// Where the admin API answers commands of this machine.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        let mut sockets = self.listeners.iter().filter(|listener| listener.service == ServiceKind::Admin);
        let unix = sockets.find_map(|listener| match &listener.address {
            Address::Unix(path) => Some(self.data.join(path)),
            Address::Tcp(_) => None,
        });
        unix.unwrap_or_else(|| self.data.join(ADMIN_SOCKET))
    }

    /// The file of the key-encryption key.
    pub(crate) fn key_path(&self) -> PathBuf {
        if self.key_file.as_os_str().is_empty() {
            self.data.join("key-encryption.key")
        } else {
            self.key_file.clone()
        }
    }
}

impl ServiceKind {
    /// What the log calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Submission => "submission",
            Self::Submissions => "submissions",
            Self::Lmtp => "lmtp",
            Self::Imap => "imap",
            Self::Imaps => "imaps",
            Self::Https => "https",
            Self::Region => "region",
            Self::Admin => "admin",
        }
    }

    /// The role that it is part of; the admin API is part of every process, and other regions ask for what there is.
    pub(crate) fn role(self) -> Option<Role> {
        match self {
            Self::Smtp | Self::Submission | Self::Submissions | Self::Lmtp => Some(Role::SmtpIn),
            Self::Imap | Self::Imaps => Some(Role::Imap),
            Self::Https => Some(Role::WebmailApi),
            Self::Region | Self::Admin => None,
        }
    }

    /// Whether TLS comes before the first octet of the protocol.
    pub(crate) fn implicit_tls(self, address: &Address) -> bool {
        match self {
            Self::Submissions | Self::Imaps | Self::Https | Self::Region => true,
            Self::Admin => matches!(address, Address::Tcp(_)),
            Self::Smtp | Self::Submission | Self::Lmtp | Self::Imap => false,
        }
    }

    /// Whether it is of no use without a certificate. SMTP between servers goes on in plain where it must.
    fn needs_certificate(self, address: &Address) -> bool {
        self.implicit_tls(address)
            || (matches!(self, Self::Submission | Self::Imap) && matches!(address, Address::Tcp(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_must_fit_into_its_lease() {
        let mut config = Config { listeners: Vec::new(), ..Config::default() };
        config.check().expect("the defaults go together");
        config.queue.outbound_lease_seconds_max = 20;
        let wrong = config.check().expect_err("nothing would be sent").to_string();
        assert!(wrong.starts_with("queue.outbound_lease_seconds_max: 20 is less than"), "{wrong}");
        config.smtp_out.timeouts.attempt = 20;
        config.check().expect("they go together");
    }
}
