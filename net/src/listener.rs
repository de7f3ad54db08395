//! Accepting connections: limits, PROXY headers, implicit TLS, and one task for each.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tracing::{debug, error, info, warn};

use crate::limit::{ConnectionLimits, Permit};
use crate::network::Network;
use crate::proxy_protocol;
use crate::shutdown::{Shutdown, ShutdownGuard};
use crate::stream::Stream;
use crate::tls::TlsServer;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// A TCP address and port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// How connections are taken, the same for every listener of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Connections open at one time. An idle one costs up to 40 KiB, so the default stays below half a GiB.
    pub connections_max: usize,
    /// Connections open at one time from one network (IPv4 /32, IPv6 /64). Mail clients open five or so each and many
    /// may stand behind one address; a host that needs more than this is broken or hostile.
    pub connections_per_network_max: usize,
    /// Networks for which the limit per network does not hold: this machine, one's own relays.
    pub unlimited_networks: Vec<Network>,
    /// Peers that send a PROXY header, from which it is required. From others it is not understood.
    pub proxy_networks: Vec<Network>,
    /// Connections that the kernel holds until they are accepted.
    pub backlog: u32,
    /// Seconds for PROXY header and TLS handshake together. Honest ones need three round trips.
    pub handshake_seconds_max: u64,
    /// The permissions of Unix sockets; who may connect is mostly a matter of the folder's permissions.
    pub unix_socket_mode: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_network_max: 100,
            unlimited_networks: vec![
                Network::new([127, 0, 0, 0].into(), 8),
                Network::new(std::net::Ipv6Addr::LOCALHOST.into(), 128),
            ],
            proxy_networks: Vec::new(),
            backlog: 1024,
            handshake_seconds_max: 30,
            unix_socket_mode: 0o660,
        }
    }
}

impl Config {
    /// The counters that these limits ask for, to be shared by all listeners.
    pub fn limits(&self) -> Arc<ConnectionLimits> {
        ConnectionLimits::new(
            self.connections_max,
            self.connections_per_network_max,
            self.unlimited_networks.clone(),
        )
    }
}

/// What the connections of one listener have in common.
#[derive(Debug, Clone)]
pub struct Service {
    /// What the log calls it: `submission`.
    pub name: &'static str,
    /// Set for implicit TLS: the handshake comes before the first byte of the protocol.
    pub implicit_tls: Option<TlsServer>,
    /// Said, in plain, to a connection that is over a limit. Not said under implicit TLS, where a handshake would be
    /// work done for somebody who already has too much.
    pub refusal: Bytes,
}

/// Why a listener could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken, forbidden or not there.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: Address,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody answers on the Unix socket.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// Something that is not a socket has the path of the Unix socket.
    #[error("{0} exists and is not a socket")]
    NotASocket(PathBuf),
}

/// An open socket that accepts connections.
pub struct Listener {
    socket: Socket,
    service: Service,
    config: Arc<Config>,
    limits: Arc<ConnectionLimits>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Opens the socket; connections wait in the backlog until [`Listener::run`].
    pub async fn bind(
        address: &Address,
        service: Service,
        config: Arc<Config>,
        limits: Arc<ConnectionLimits>,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError::Bind { address: address.clone(), source };
        let socket = match address {
            Address::Tcp(address) => Socket::Tcp(tcp(*address, config.backlog).map_err(failed)?),
            Address::Unix(path) => {
                remove_stale(path).await?;
                let listener = UnixListener::bind(path).map_err(failed)?;
                let mode = std::fs::Permissions::from_mode(config.unix_socket_mode);
                std::fs::set_permissions(path, mode).map_err(failed)?;
                Socket::Unix(listener, path.clone())
            }
        };
        Ok(Self { socket, service, config, limits })
    }

    /// Where it listens; the port is the real one when port 0 was asked for.
    pub fn address(&self) -> Address {
        match &self.socket {
            Socket::Tcp(listener) => Address::Tcp(
                listener.local_addr().expect("a bound socket has an address until it is dropped"),
            ),
            Socket::Unix(_, path) => Address::Unix(path.clone()),
        }
    }

    /// Accepts until shutdown begins. `handler` runs in a task of its own for each connection, and is dropped where it
    /// stands when the patience of the shutdown ends.
    pub async fn run<H, F>(self, shutdown: Shutdown, handler: H)
    where
        H: Fn(Stream, ShutdownGuard) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let guard = shutdown.guard();
        let handler = Arc::new(handler);
        let mut pause = PAUSE_MIN;
        info!(service = self.service.name, address = %self.address(), "listening");
        loop {
            let accepted = tokio::select! {
                () = guard.requested() => break,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok(stream) => {
                    pause = PAUSE_MIN;
                    self.admit(stream, &shutdown, &handler);
                }
                Err(error) if is_of_one_connection(&error) => {
                    debug!(service = self.service.name, %error, "connection gone before accept");
                }
                Err(error) => {
                    // Out of descriptors or memory: the connection stays in the backlog, so trying at once would spin.
                    error!(service = self.service.name, %error, "accept failed");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
        info!(service = self.service.name, "no longer listening");
    }

    async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Tcp(listener) => Stream::from_tcp(listener.accept().await?.0),
            Socket::Unix(listener, _) => Ok(Stream::from_unix(listener.accept().await?.0)),
        }
    }

    fn admit<H, F>(&self, mut stream: Stream, shutdown: &Shutdown, handler: &Arc<H>)
    where
        H: Fn(Stream, ShutdownGuard) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let service = self.service.clone();
        let config = Arc::clone(&self.config);
        let handler = Arc::clone(handler);
        let guard = shutdown.guard();
        let permit = self.limits.admit();
        tokio::spawn(async move {
            let work = async {
                let permit = match permit {
                    Ok(permit) => permit,
                    Err(reason) => {
                        refuse(&mut stream, &service, &reason).await;
                        return;
                    }
                };
                let wait = Duration::from_secs(config.handshake_seconds_max);
                let opened = tokio::time::timeout(wait, open(&mut stream, permit, &service, &config)).await;
                match opened {
                    Ok(Some(permit)) => {
                        // Boxed, so that this frame's own size does not stay with every session.
                        Box::pin(handler(stream, guard.clone())).await;
                        drop(permit);
                    }
                    Ok(None) => {}
                    Err(_) => {
                        debug!(service = service.name, remote = %stream.peer().remote, "handshake too slow");
                    }
                }
            };
            tokio::select! {
                () = work => {}
                () = guard.aborted() => {}
            }
        });
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = &self.socket {
            let _ = std::fs::remove_file(path);
        }
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | NotConnected)
}

/// PROXY header, then the limit per network, then TLS. `None`: the connection is not to be served.
async fn open(stream: &mut Stream, mut permit: Permit, service: &Service, config: &Config) -> Option<Permit> {
    let proxied = stream
        .peer()
        .remote
        .ip()
        .is_some_and(|ip| config.proxy_networks.iter().any(|network| network.contains(ip)));
    if proxied {
        match proxy_protocol::read(stream).await {
            Ok(Some(ends)) => stream.set_ends(ends.remote, ends.local),
            Ok(None) => {}
            Err(error) => {
                warn!(service = service.name, remote = %stream.peer().remote, %error, "no PROXY header");
                return None;
            }
        }
    }
    if let Some(ip) = stream.peer().remote.ip()
        && let Err(reason) = permit.from_address(ip)
    {
        refuse(stream, service, &reason).await;
        return None;
    }
    if let Some(tls) = &service.implicit_tls
        && let Err(error) = stream.accept_tls(tls).await
    {
        debug!(service = service.name, remote = %stream.peer().remote, %error, "TLS handshake failed");
        return None;
    }
    Some(permit)
}

async fn refuse(stream: &mut Stream, service: &Service, reason: &crate::limit::Refused) {
    warn!(service = service.name, remote = %stream.peer().remote, %reason, "connection refused");
    if service.implicit_tls.is_none() {
        // The text fits into the socket's empty send buffer, so this does not wait for the peer.
        let _ = stream.write_all(&service.refusal).await;
        let _ = stream.shutdown().await;
    }
}

fn tcp(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` then means IPv6 alone, on every system, and `0.0.0.0` can be listened on beside it.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

/// A socket file outlives a process that was killed. It is removed if nobody answers there.
async fn remove_stale(path: &Path) -> Result<(), BindError> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(BindError::InUse(path.to_owned()));
    }
    std::fs::remove_file(path)
        .map_err(|source| BindError::Bind { address: Address::Unix(path.to_owned()), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{Certificate, TlsClient};
    use tokio::io::AsyncReadExt;

    fn service(implicit_tls: Option<TlsServer>) -> Service {
        Service { name: "test", implicit_tls, refusal: Bytes::from_static(b"busy\r\n") }
    }

    /// Serves connections by saying who they are, until the shutdown.
    async fn start(config: Config, tls: Option<TlsServer>) -> (SocketAddr, Shutdown) {
        let limits = config.limits();
        let address = Address::Tcp("127.0.0.1:0".parse().unwrap());
        let listener = Listener::bind(&address, service(tls), Arc::new(config), limits).await.unwrap();
        let Address::Tcp(address) = listener.address() else { panic!() };
        let shutdown = Shutdown::new();
        tokio::spawn(listener.run(shutdown.clone(), |mut stream, guard| async move {
            let text = format!("{}\n", stream.peer().remote.ip().unwrap());
            stream.write_all(text.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            guard.requested().await;
            stream.write_all(b"bye\n").await.unwrap();
            stream.shutdown().await.unwrap();
        }));
        (address, shutdown)
    }

    async fn line(stream: &mut Stream) -> String {
        let mut line = String::new();
        while !line.ends_with('\n') {
            match stream.read_u8().await {
                Ok(byte) => line.push(char::from(byte)),
                Err(_) => break,
            }
        }
        line
    }

    #[tokio::test]
    async fn limits_and_shutdown() {
        let config = Config { connections_max: 2, ..Config::default() };
        let (address, shutdown) = start(config, None).await;
        let mut first = Stream::connect(address).await.unwrap();
        let mut second = Stream::connect(address).await.unwrap();
        assert_eq!(line(&mut first).await, "127.0.0.1\n");
        assert_eq!(line(&mut second).await, "127.0.0.1\n");
        let mut third = Stream::connect(address).await.unwrap();
        assert_eq!(line(&mut third).await, "busy\r\n");
        let drained = shutdown.finish(Duration::from_secs(10)).await;
        assert_eq!(drained.aborted, 0);
        assert_eq!(line(&mut first).await, "bye\n");
        assert!(Stream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn limit_per_network_counts_what_the_proxy_says() {
        let config = Config {
            connections_per_network_max: 1,
            proxy_networks: vec!["127.0.0.1".parse().unwrap()],
            ..Config::default()
        };
        let (address, _shutdown) = start(config, None).await;
        let mut streams = Vec::new();
        for (source, expected) in
            [("192.0.2.1", "192.0.2.1\n"), ("192.0.2.1", "busy\r\n"), ("192.0.2.2", "192.0.2.2\n")]
        {
            let mut stream = Stream::connect(address).await.unwrap();
            let header = format!("PROXY TCP4 {source} 192.0.2.9 4000 25\r\n");
            stream.write_all(header.as_bytes()).await.unwrap();
            assert_eq!(line(&mut stream).await, expected);
            streams.push(stream);
        }
        let mut stream = Stream::connect(address).await.unwrap();
        stream.write_all(b"EHLO somebody.example\r\n").await.unwrap();
        assert_eq!(line(&mut stream).await, "");
    }

    #[tokio::test]
    async fn implicit_tls() {
        let made = Certificate::self_signed(&["localhost".to_owned()]).unwrap();
        let tls = TlsServer::new(&[made.certificate().unwrap()]).unwrap();
        let (address, _shutdown) = start(Config::default(), Some(tls)).await;
        let mut garbage = Stream::connect(address).await.unwrap();
        garbage.write_all(b"EHLO this is not TLS at all\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = garbage.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"127"), "nothing but an alert");
        let mut stream = Stream::connect(address).await.unwrap();
        let client = TlsClient::trusting_self_signed("localhost", &made).unwrap();
        stream.connect_tls(&client).await.unwrap();
        assert_eq!(line(&mut stream).await, "127.0.0.1\n");
    }

    #[tokio::test]
    async fn unix_socket_replaces_only_a_dead_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let address = Address::Unix(path.clone());
        let config = Arc::new(Config::default());
        let bind = || Listener::bind(&address, service(None), Arc::clone(&config), config.limits());
        std::fs::write(&path, "a file").unwrap();
        assert!(matches!(bind().await, Err(BindError::NotASocket(_))));
        std::fs::remove_file(&path).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = bind().await.unwrap();
        assert!(matches!(bind().await, Err(BindError::InUse(_))));
        drop(listener);
        assert!(!path.exists());
    }
}
