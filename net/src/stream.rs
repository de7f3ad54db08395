//! One connection: plain or encrypted, over TCP, a Unix socket, or memory.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::network::canonical;
use crate::tls::{TlsClient, TlsInfo, TlsServer};

/// One end of a connection, as seen from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// A TCP address; IPv4-mapped IPv6 addresses are shown as IPv4.
    Tcp(SocketAddr),
    /// A Unix socket; the numbers are the peer's, where the system tells them.
    Unix {
        /// The peer's user id.
        uid: Option<u32>,
        /// The peer's process id.
        pid: Option<i32>,
    },
    /// Another task of this process.
    Memory,
}

impl End {
    /// The address, where the end has one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix { .. } | Self::Memory => None,
        }
    }

    pub(crate) fn tcp(address: SocketAddr) -> Self {
        Self::Tcp(SocketAddr::new(canonical(address.ip()), address.port()))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { uid: Some(uid), .. } => write!(f, "unix socket of uid {uid}"),
            Self::Unix { uid: None, .. } => f.write_str("unix socket"),
            Self::Memory => f.write_str("memory"),
        }
    }
}

/// Who is on the other side, and how.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where the peer is; what a trusted proxy said, if there is one between.
    pub remote: End,
    /// Where the peer connected to.
    pub local: End,
    /// Set once the connection is encrypted.
    pub tls: Option<TlsInfo>,
}

#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    Memory(DuplexStream),
}

// TLS states are boxed: most connections spend most of their life in one of them, but a plain one should stay small.
enum Layer {
    Plain(Transport),
    Accepting(Box<tokio_rustls::Accept<Transport>>),
    Connecting(Box<tokio_rustls::Connect<Transport>>),
    Server(Box<tokio_rustls::server::TlsStream<Transport>>),
    Client(Box<tokio_rustls::client::TlsStream<Transport>>),
    /// The handshake has failed; there is nothing left to talk to.
    Broken,
}

/// A connection that can turn from plain to encrypted.
pub struct Stream {
    layer: Layer,
    peer: Peer,
}

impl Stream {
    /// A connection that was accepted or made over TCP.
    pub fn from_tcp(stream: TcpStream) -> io::Result<Self> {
        let peer =
            Peer { remote: End::tcp(stream.peer_addr()?), local: End::tcp(stream.local_addr()?), tls: None };
        // Replies are small and somebody waits for each; what could be joined has been joined by the machine.
        stream.set_nodelay(true)?;
        Ok(Self { layer: Layer::Plain(Transport::Tcp(stream)), peer })
    }

    /// A connection that was accepted or made over a Unix socket.
    pub fn from_unix(stream: UnixStream) -> Self {
        let credentials = stream.peer_cred().ok();
        let remote = End::Unix {
            uid: credentials.as_ref().map(|credentials| credentials.uid()),
            pid: credentials.and_then(|credentials| credentials.pid()),
        };
        let peer = Peer { remote, local: End::Unix { uid: None, pid: None }, tls: None };
        Self { layer: Layer::Plain(Transport::Unix(stream)), peer }
    }

    /// A connection within this process, for tests that need no network.
    pub fn from_memory(stream: DuplexStream) -> Self {
        let peer = Peer { remote: End::Memory, local: End::Memory, tls: None };
        Self { layer: Layer::Plain(Transport::Memory(stream)), peer }
    }

    /// Two connected ends; each holds up to `buffer` bytes that the other has not read yet.
    pub fn memory_pair(buffer: usize) -> (Self, Self) {
        let (one, other) = tokio::io::duplex(buffer);
        (Self::from_memory(one), Self::from_memory(other))
    }

    /// Connects to a TCP address.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::from_tcp(TcpStream::connect(address).await?)
    }

    /// Who is on the other side.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Replaces the ends by what a trusted proxy, or a test, says they are.
    pub fn set_ends(&mut self, remote: End, local: End) {
        self.peer.remote = remote;
        self.peer.local = local;
    }

    /// Replaces all that is known of the other side: this connection is the last part of a way that begins there.
    pub fn set_peer(&mut self, peer: Peer) {
        self.peer = peer;
    }

    /// Whether what is sent now is encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.layer, Layer::Server(_) | Layer::Client(_))
    }

    /// Does the server's side of a TLS handshake. Cancel-safe: called again, it goes on where it was.
    pub async fn accept_tls(&mut self, tls: &TlsServer) -> io::Result<()> {
        if let Layer::Plain(_) = self.layer {
            let Layer::Plain(transport) = std::mem::replace(&mut self.layer, Layer::Broken) else {
                unreachable!("matched above")
            };
            self.layer = Layer::Accepting(Box::new(tls.acceptor().accept(transport)));
        }
        self.handshake().await
    }

    /// Does the client's side of a TLS handshake. Cancel-safe: called again, it goes on where it was.
    pub async fn connect_tls(&mut self, tls: &TlsClient) -> io::Result<()> {
        if let Layer::Plain(_) = self.layer {
            let Layer::Plain(transport) = std::mem::replace(&mut self.layer, Layer::Broken) else {
                unreachable!("matched above")
            };
            self.layer = Layer::Connecting(Box::new(tls.connect(transport)));
        }
        self.handshake().await
    }

    async fn handshake(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            let (layer, info) = match &mut self.layer {
                Layer::Accepting(accept) => match ready!(Pin::new(accept.as_mut()).poll(cx)) {
                    Ok(stream) => {
                        let info = TlsInfo::of(stream.get_ref().1);
                        (Layer::Server(Box::new(stream)), Ok(info))
                    }
                    Err(error) => (Layer::Broken, Err(error)),
                },
                Layer::Connecting(connect) => match ready!(Pin::new(connect.as_mut()).poll(cx)) {
                    Ok(stream) => {
                        let info = TlsInfo::of(stream.get_ref().1);
                        (Layer::Client(Box::new(stream)), Ok(info))
                    }
                    Err(error) => (Layer::Broken, Err(error)),
                },
                Layer::Server(_) | Layer::Client(_) => return Poll::Ready(Ok(())),
                Layer::Plain(_) | Layer::Broken => return Poll::Ready(Err(broken())),
            };
            self.layer = layer;
            Poll::Ready(info.map(|info| self.peer.tls = Some(info)))
        })
        .await
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the TLS handshake did not succeed")
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Hands a call on to whatever the transport is.
macro_rules! on_transport {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Transport::Tcp($stream) => $call,
            Transport::Unix($stream) => $call,
            Transport::Memory($stream) => $call,
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_transport!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_transport!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_transport!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_transport!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_transport!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Memory(stream) => stream.is_write_vectored(),
        }
    }
}

/// Hands a call on to whatever the layer is; between plain and encrypted there is nothing to call.
macro_rules! on_layer {
    ($self:expr, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().layer {
            Layer::Plain($stream) => $call,
            Layer::Server($stream) => $call,
            Layer::Client($stream) => $call,
            Layer::Accepting(_) | Layer::Connecting(_) | Layer::Broken => Poll::Ready(Err(broken())),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_layer!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_layer!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_layer!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_layer!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_layer!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
