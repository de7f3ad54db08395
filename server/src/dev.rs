//! `postrider dev`: a whole server on loopback, with a certificate of its own and two accounts, to try things with.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use directory::AdminError;
use directory::admin::{NewAccount, NewPassword};
use directory::entry::DomainSettings;
use mail::address::{Address as MailAddress, Domain};
use net::listener::Address;
use net::tls::{Certificate, PemFiles};
use queue::Retry;

use crate::args::Dev;
use crate::config::{ADMIN_SOCKET, Config, ListenerConfig, ServiceKind};
use crate::role::Role;
use crate::run::Started;

/// Below the folder where the command is given; version control ignores it in this project's own.
pub(crate) const DEFAULT_DATA: &str = ".local/dev";

const DOMAIN: &str = "example.test";
const ACCOUNTS: [&str; 2] = ["alice", "bob"];
const PASSWORD: &str = "postrider";
const ADMIN_TOKEN: &str = "dev";
const RETRY_SECONDS_MIN: u64 = 5;
const RETRY_SECONDS_MAX: u64 = 60;

/// The ports, before the offset is added.
const PORTS: [(ServiceKind, u16); 8] = [
    (ServiceKind::Smtp, 2525),
    (ServiceKind::Submission, 2587),
    (ServiceKind::Submissions, 2465),
    (ServiceKind::Lmtp, 2424),
    (ServiceKind::Imap, 2143),
    (ServiceKind::Imaps, 2993),
    (ServiceKind::Https, 2443),
    (ServiceKind::Admin, 2080),
];

/// What the command line comes down to.
pub(crate) fn config(dev: &Dev) -> anyhow::Result<Config> {
    let mut config = match &dev.config {
        Some(path) => Config::read_unchecked(path)?,
        None => Config::default(),
    };
    let here = std::env::current_dir().context("no current folder")?;
    config.data = here.join(&dev.data);
    "localhost".clone_into(&mut config.hostname);
    config.directory.postmaster = format!("{}@{DOMAIN}", ACCOUNTS[0]);
    config.certificates = vec![PemFiles {
        certificate: config.data.join("certificate.pem"),
        key: config.data.join("certificate.key"),
    }];
    let mut listeners = Vec::new();
    for (service, port) in PORTS {
        let port = port
            .checked_add(dev.port_offset)
            .ok_or_else(|| anyhow!("--port-offset {}: ports end at 65535", dev.port_offset))?;
        let address = Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        listeners.push(ListenerConfig { service, address });
    }
    let socket = Address::Unix(config.data.join(ADMIN_SOCKET));
    listeners.push(ListenerConfig { service: ServiceKind::Admin, address: socket });
    config.listeners = listeners;
    // Whoever tries things has no application password yet.
    config.jmap.account_passwords = true;
    sending(&mut config, dev)?;
    config.check()?;
    make_certificate(&config)?;
    Ok(config)
}

/// Nothing is sent to other hosts unless the command line says where.
fn sending(config: &mut Config, dev: &Dev) -> anyhow::Result<()> {
    let sending = &mut config.smtp_out;
    if let Some(resolver) = dev.resolver {
        sending.resolvers = vec![resolver];
        sending.mx_port = dev.mx_port;
        sending.private_destinations = true;
    } else if let Some(relay) = &dev.relay {
        let (host, port) = relay
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)))
            .ok_or_else(|| anyhow!("--relay {relay}: not HOST:PORT"))?;
        let route = smtp_out::config::Route { domain: "*".to_owned(), host, port, ..Default::default() };
        sending.routes = vec![route];
    } else {
        config.roles.retain(|role| *role != Role::SmtpOut);
    }
    // Whoever tries things does not wait for five minutes.
    if config.queue.retry == Retry::default() {
        config.queue.retry.seconds_min = RETRY_SECONDS_MIN;
        config.queue.retry.seconds_max = RETRY_SECONDS_MAX;
    }
    Ok(())
}

/// Makes domain and accounts where they are not there yet, and prints what to try.
pub(crate) async fn prepare(started: Started<'_>, config: &Config) -> anyhow::Result<String> {
    let directory = &started.stores.ground.directory;
    let domain = Domain::parse(DOMAIN).context("the domain's name")?;
    make(directory.create_domain(&domain, DomainSettings::default()).await.map(drop))?;
    for name in ACCOUNTS {
        let address = MailAddress::new(name, domain.clone()).context("an account's name")?;
        if directory.entry(&address).await?.is_some() {
            continue;
        }
        let password = NewPassword::Clear(PASSWORD.to_owned());
        let new = NewAccount { password, ..NewAccount::default() };
        make(directory.create_account(&address, new).await.map(drop))?;
    }
    let token = admin_token(&started, config).await?;
    Ok(explain(config, &token))
}

fn make(made: Result<(), AdminError>) -> anyhow::Result<()> {
    match made {
        Ok(()) | Err(AdminError::Exists { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The token for the admin port, kept in the data folder, since this is for trying things.
async fn admin_token(started: &Started<'_>, config: &Config) -> anyhow::Result<String> {
    use webmail_api::admin::caller::Scope;
    let path = config.data.join("admin-token");
    let tokens = started.api.tokens();
    if let Ok(token) = std::fs::read_to_string(&path)
        && tokens.find(&token).await?.is_some()
    {
        return Ok(token);
    }
    // Of its port: tokens are for all nodes, and there may be several of this kind, which must not withdraw each other's.
    let port = config.listeners.iter().find_map(|listener| match listener.address {
        Address::Tcp(address) if listener.service == ServiceKind::Admin => Some(address.port()),
        _ => None,
    });
    let name = format!("{ADMIN_TOKEN} {}", port.unwrap_or_default());
    if tokens.list().await?.iter().any(|token| token.name == name) {
        tokens.delete(&name).await?;
    }
    let (_, token) = tokens.create(&name, Scope::ALL.to_vec(), None).await?;
    write_private(&path, token.as_bytes())?;
    Ok(token)
}

fn make_certificate(config: &Config) -> anyhow::Result<()> {
    let [files] = config.certificates.as_slice() else { bail!("one certificate is needed") };
    if files.certificate.exists() && files.key.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(&config.data)
        .with_context(|| format!("cannot make the data folder {}", config.data.display()))?;
    let names = ["localhost", "127.0.0.1", "::1", DOMAIN, "mail.example.test"].map(str::to_owned);
    let made = Certificate::self_signed(&names)?;
    write_private(&files.key, made.key_pem.as_bytes())?;
    write_private(&files.certificate, made.certificate_pem.as_bytes())
}

fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Where a service listens.
fn port(config: &Config, service: ServiceKind) -> u16 {
    let mut ports = config.listeners.iter().filter(|listener| listener.service == service);
    let tcp = ports.find_map(|listener| match listener.address {
        Address::Tcp(address) => Some(address.port()),
        Address::Unix(_) => None,
    });
    tcp.unwrap_or_default()
}

/// What there is to try.
fn explain(config: &Config, token: &str) -> String {
    let port = |service| port(config, service);
    let command: PathBuf = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("postrider"));
    let (command, data) = (command.display(), config.data.display());
    let sending = if !config.roles.contains(&Role::SmtpOut) {
        "waits in the queue: start with --resolver or --relay to have it sent".to_owned()
    } else if let Some(route) = config.smtp_out.routes.first().filter(|route| !route.host.is_empty()) {
        format!("goes to {}:{}", route.host, route.port)
    } else {
        format!("goes to their mail exchangers, port {}", config.smtp_out.mx_port)
    };
    format!(
        "Postrider runs on this machine alone. Accounts: {accounts}; password: {PASSWORD}
Data: {data}

  SMTP        127.0.0.1:{smtp}
  submission  127.0.0.1:{submission} (STARTTLS), 127.0.0.1:{submissions} (TLS)
  LMTP        127.0.0.1:{lmtp}
  IMAP        127.0.0.1:{imap} (STARTTLS), 127.0.0.1:{imaps} (TLS)
  JMAP        https://127.0.0.1:{https}
  admin       http://127.0.0.1:{admin}

Mail for other domains {sending}.

Send a mail:
  swaks --server 127.0.0.1:{smtp} --from someone@elsewhere.example --to alice@{DOMAIN}
  swaks --server 127.0.0.1:{submission} --tls --auth PLAIN --auth-user bob@{DOMAIN} --auth-password {PASSWORD} \\
        --from bob@{DOMAIN} --to alice@{DOMAIN}
  printf 'Subject: hello\\r\\n\\r\\nhello\\r\\n' | curl --silent --url smtp://127.0.0.1:{smtp} \\
        --mail-from a@elsewhere.example --mail-rcpt alice@{DOMAIN} --upload-file -

Read it:
  curl --insecure --user alice@{DOMAIN}:{PASSWORD} 'imaps://127.0.0.1:{imaps}/INBOX;MAILINDEX=1'
  openssl s_client -quiet -crlf -connect 127.0.0.1:{imaps}
  curl --insecure --user alice@{DOMAIN}:{PASSWORD} https://127.0.0.1:{https}/.well-known/jmap

Administrate:
  {command} account list {DOMAIN} --data {data}
  curl --header 'Authorization: Bearer {token}' http://127.0.0.1:{admin}/admin/v1/domains
",
        accounts = ACCOUNTS.map(|name| format!("{name}@{DOMAIN}")).join(", "),
        smtp = port(ServiceKind::Smtp),
        submission = port(ServiceKind::Submission),
        submissions = port(ServiceKind::Submissions),
        lmtp = port(ServiceKind::Lmtp),
        imap = port(ServiceKind::Imap),
        imaps = port(ServiceKind::Imaps),
        https = port(ServiceKind::Https),
        admin = port(ServiceKind::Admin),
    )
}
