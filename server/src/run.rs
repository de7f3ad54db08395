//! A server's life: open the stores, open the ports, serve, end in order.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use net::limit::ConnectionLimits;
use net::listener::{Listener, Service};
use net::shutdown::Shutdown;
use net::tls::{Certificate, PemFiles, TlsServer};
use tokio::signal::unix::{Signal, SignalKind, signal};
use webmail_api::admin::Api;
use webmail_api::jmap::Jmap;

use crate::config::{Config, ListenerConfig, ServiceKind};
use crate::health::Health;
use crate::role::Role;
use crate::wire::{self, Services, Stores};

/// How this server differs from one that is configured by a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As configured.
    Configured,
    /// On loopback alone, where the admin API takes tokens without TLS.
    Development,
}

/// What is known of the server once it listens.
pub(crate) struct Started<'a> {
    pub(crate) stores: &'a Stores,
    pub(crate) api: &'a Api,
}

/// Runs a server until it is told to end. `prepare` runs between the stores and the ports; what it answers is printed
/// once the ports are open.
pub(crate) async fn serve(
    config: Config,
    file: Option<PathBuf>,
    mode: Mode,
    prepare: impl AsyncFnOnce(Started<'_>) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let tls = tls(&config.certificates)?;
    let stores = Stores::open(&config).await?;
    let api =
        wire::admin_api(&config, &stores.ground, Some(stores.queue.clone()), Arc::new(stores.health.clone()))
            .await?;
    let greeting = prepare(Started { stores: &stores, api: &api }).await?;
    let shutdown = Shutdown::new();
    let services = match Services::new(&config, &stores, tls.as_ref()) {
        Ok(services) => services,
        Err(error) => {
            stores.close().await;
            return Err(error);
        }
    };
    if let Err(error) = listen(&config, mode, &services, &api, tls.as_ref(), &shutdown).await {
        stores.close().await;
        return Err(error);
    }
    if config.roles.contains(&Role::Delivery) {
        services.deliver(&shutdown);
    }
    services.send(&shutdown);
    if config.roles.contains(&Role::WebmailApi) {
        services.push(&shutdown);
    }
    stores.health.running();
    tracing::info!(hostname = config.hostname, data = %config.data.display(), "server runs");
    greet(&greeting)?;

    let end = until_end(&mut signals, &stores.health, file.as_deref(), &config, tls.as_ref()).await;
    stores.health.draining();
    if let Some(cluster) = &stores.cluster {
        // The others take over at once what waits; what is under way here is finished.
        cluster.leave().await;
    }
    shutdown.begin();
    let grace = Duration::from_secs(if end.is_err() { 1 } else { config.shutdown_seconds });
    // A second signal means now. To what an operator drains a supervisor gives its first one.
    let now = async {
        if matches!(end, Ok(ToldBy::Operator)) {
            signals.end().await;
        }
        signals.end().await;
    };
    let drained = tokio::select! {
        drained = shutdown.finish(grace) => drained,
        () = now => shutdown.finish(Duration::ZERO).await,
    };
    if drained.aborted > 0 {
        tracing::warn!(aborted = drained.aborted, "sessions did not end in time");
    }
    drop((services, api));
    stores.close().await;
    tracing::info!("server has ended");
    end.map(drop)
}

#[expect(clippy::print_stdout, reason = "whoever started the server by hand wants to know what it offers")]
fn greet(greeting: &str) -> anyhow::Result<()> {
    if !greeting.is_empty() {
        println!("{greeting}");
        std::io::stdout().flush().context("standard output")?;
    }
    Ok(())
}

/// Who told the server to end.
#[derive(Clone, Copy, Debug)]
enum ToldBy {
    Signal,
    Operator,
}

/// Waits for the end. `Err`: something broke.
async fn until_end(
    signals: &mut Signals,
    health: &Health,
    file: Option<&Path>,
    config: &Config,
    tls: Option<&TlsServer>,
) -> anyhow::Result<ToldBy> {
    loop {
        tokio::select! {
            why = health.until_broken() => {
                tracing::error!(reason = why, "the server cannot go on and ends");
                bail!("ended because of a failure: {why}");
            }
            () = health.until_drained() => {
                tracing::info!("told to end by an operator");
                return Ok(ToldBy::Operator);
            }
            told = signals.next() => match told {
                Told::End => {
                    tracing::info!("told to end");
                    return Ok(ToldBy::Signal);
                }
                Told::Reload => match reload(file, config, tls) {
                    Ok(()) => tracing::info!("configuration and certificates read again"),
                    Err(error) => tracing::error!(error = format!("{error:#}"), "nothing was changed"),
                },
            },
        }
    }
}

/// SIGHUP: reads the configuration again. Certificates are replaced; what else has changed is named, since it takes a
/// restart.
fn reload(file: Option<&Path>, running: &Config, tls: Option<&TlsServer>) -> anyhow::Result<()> {
    let config = match file {
        Some(file) => Config::read(file)?,
        None => running.clone(),
    };
    if let Some(tls) = tls {
        tls.reload(&certificates(&config.certificates)?)?;
    } else if !config.certificates.is_empty() {
        bail!("certificates: the server was started without one; it has to be started anew");
    }
    if (Config { certificates: running.certificates.clone(), ..config }) != *running {
        tracing::warn!("settings other than certificates have changed; they take effect at the next start");
    }
    Ok(())
}

fn certificates(files: &[PemFiles]) -> anyhow::Result<Vec<Certificate>> {
    files.iter().map(|files| Ok(Certificate::read(files)?)).collect()
}

fn tls(files: &[PemFiles]) -> anyhow::Result<Option<TlsServer>> {
    if files.is_empty() {
        return Ok(None);
    }
    Ok(Some(TlsServer::new(&certificates(files)?)?))
}

/// Opens all ports, then starts to accept.
async fn listen(
    config: &Config,
    mode: Mode,
    services: &Services,
    api: &Api,
    tls: Option<&TlsServer>,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let net = Arc::new(config.net.clone());
    let limits = config.net.limits();
    // A few nodes of other regions stand for all their clients, who were counted where they came in.
    let region_limits = ConnectionLimits::new(config.net.connections_max, usize::MAX, Vec::new());
    // And they are who they are: no balancer stands between.
    let region_net = Arc::new(net::listener::Config { proxy_networks: Vec::new(), ..config.net.clone() });
    // Operators get in when mail clients have used up all connections.
    let admin_limits = ConnectionLimits::new(64, 64, Vec::new());
    let mut listeners = Vec::new();
    for ListenerConfig { service: kind, address } in &config.listeners {
        let plain_admin = *kind == ServiceKind::Admin && mode == Mode::Development;
        let implicit = kind.implicit_tls(address) && !plain_admin;
        let implicit_tls = match (implicit, tls) {
            (false, _) => None,
            (true, Some(tls)) if *kind == ServiceKind::Https => Some(tls.with_protocols(Jmap::protocols())),
            (true, Some(tls)) => Some(tls.clone()),
            (true, None) => return Err(anyhow!("{} at {address} needs a certificate", kind.name())),
        };
        let service = Service { name: kind.name(), implicit_tls, refusal: Services::refusal(*kind) };
        let (net, limits) = match kind {
            ServiceKind::Admin => (&net, &admin_limits),
            ServiceKind::Region => (&region_net, &region_limits),
            _ => (&net, &limits),
        };
        let listener = Listener::bind(address, service, Arc::clone(net), Arc::clone(limits))
            .await
            .with_context(|| format!("{} at {address}", kind.name()))?;
        listeners.push((*kind, listener));
    }
    for (kind, listener) in listeners {
        let shutdown = shutdown.clone();
        if kind == ServiceKind::Admin {
            let (router, plain) = (api.router(), mode == Mode::Development);
            let serve = move |stream, guard| webmail_api::admin::serve(stream, router.clone(), plain, guard);
            tokio::spawn(listener.run(shutdown, serve));
        } else {
            services.accept(kind, listener, shutdown);
        }
    }
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("signals");
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    async fn end(&mut self) {
        while self.next().await != Told::End {}
    }
}

/// What a signal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    End,
    Reload,
}
