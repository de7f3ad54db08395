//! A client of the admin API: over its Unix socket, over TLS, or in this process.

use std::io;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request, Uri, header};
use hyper_util::rt::TokioIo;
use net::stream::Stream;
use net::tls::TlsClient;
use queue::Queue;
use serde_json::Value;
use tokio::net::UnixStream;
use tower::ServiceExt as _;
use webmail_api::admin::Problem;
use webmail_api::admin::caller::Connection;
use webmail_api::admin::monitor::Monitor;

use crate::args::Reach;
use crate::config::Config;
use crate::wire::{self, Ground};

/// The largest answer taken.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// What a command works on, where it has to open the store itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    Directory,
    Queue,
}

/// Where requests go.
pub(crate) enum Client {
    /// To a server, one connection for each request.
    Socket(PathBuf),
    /// To a server elsewhere.
    Remote { uri: Uri, token: String, tls: Option<TlsClient> },
    /// To the store itself, which this process has locked.
    Process { router: Router, ground: Box<Ground>, queue: Option<Queue> },
}

impl Client {
    /// Finds the server, or opens the store where none is running.
    pub(crate) async fn connect(reach: &Reach, needs: Needs) -> anyhow::Result<Self> {
        if let Some(url) = &reach.url {
            return remote(url, reach);
        }
        let config = Config::of_store(&reach.store)?;
        let socket = config.admin_socket();
        match UnixStream::connect(&socket).await {
            Ok(_) => Ok(Self::Socket(socket)),
            Err(error) if is_nobody(&error) => {
                if !config.data.exists() {
                    bail!(
                        "no server answers at {}, and {} does not exist",
                        socket.display(),
                        config.data.display()
                    );
                }
                // The queue is only looked at: commands are no reason to count a start.
                let ground = Ground::open(&config)
                    .await
                    .with_context(|| format!("no server answers at {}", socket.display()))?;
                let queue = match needs {
                    Needs::Directory => None,
                    Needs::Queue => {
                        let opened =
                            Queue::inspect(ground.under_queue(&config, None), config.queue.clone()).await;
                        Some(opened.context("queue")?)
                    }
                };
                let api = wire::admin_api(&config, &ground, queue.clone(), Arc::new(Command)).await?;
                let router = api.router();
                Ok(Self::Process { router, ground: Box::new(ground), queue })
            }
            Err(error) => {
                Err(error).with_context(|| format!("cannot reach the server at {}", socket.display()))
            }
        }
    }

    /// Whether there is a server, and not only the store.
    pub(crate) fn is_server(&self) -> bool {
        !matches!(self, Self::Process { .. })
    }

    /// Sends a request; an answer that is a problem is an error.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Option<Value>> {
        let mut request = Request::builder().method(method).uri(path);
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(serde_json::to_vec(body)?)
            }
            None => Body::empty(),
        };
        let answer = tokio::time::timeout(PATIENCE, self.exchange(request, body))
            .await
            .map_err(|_| anyhow!("no answer within {} seconds", PATIENCE.as_secs()))?;
        let (status, bytes) = answer?;
        if status.is_success() {
            return Ok(if bytes.is_empty() { None } else { Some(serde_json::from_slice(&bytes)?) });
        }
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => bail!("{}", problem.detail),
            Err(_) => bail!("the server answered {status}"),
        }
    }

    /// Ends it. A store that was opened is closed in order.
    pub(crate) async fn close(self) {
        if let Self::Process { ground, router, queue } = self {
            drop(router);
            if let Some(queue) = queue {
                queue.close();
            }
            ground.close().await;
        }
    }

    async fn exchange(
        &self,
        request: axum::http::request::Builder,
        body: Body,
    ) -> anyhow::Result<(axum::http::StatusCode, Bytes)> {
        match self {
            Self::Process { router, .. } => {
                let mut request = request.body(body)?;
                request.extensions_mut().insert(Connection::Process);
                let response = router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
                let status = response.status();
                Ok((status, to_bytes(response.into_body(), ANSWER_BYTES_MAX).await?))
            }
            Self::Socket(path) => {
                let stream = Stream::from_unix(UnixStream::connect(path).await?);
                over(stream, request.header(header::HOST, "localhost").body(body)?).await
            }
            Self::Remote { uri, token, tls } => {
                let host = uri.host().unwrap_or_default();
                let port = uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
                let address = (host, port)
                    .to_socket_addrs()
                    .with_context(|| format!("cannot find {host}"))?
                    .next()
                    .ok_or_else(|| anyhow!("{host} has no address"))?;
                let mut stream =
                    Stream::connect(address).await.with_context(|| format!("cannot reach {address}"))?;
                match tls {
                    Some(tls) => stream.connect_tls(tls).await.context("TLS handshake failed")?,
                    None if address.ip().is_loopback() => {}
                    None => bail!("a token is sent in plain to this machine only; use https"),
                }
                let request = request
                    .header(header::HOST, uri.authority().map_or(host, |authority| authority.as_str()))
                    .header(header::AUTHORIZATION, format!("Bearer {token}"));
                over(stream, request.body(body)?).await
            }
        }
    }
}

async fn over(stream: Stream, request: Request<Body>) -> anyhow::Result<(axum::http::StatusCode, Bytes)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.context("the server broke off")?;
    let status = response.status();
    let bytes = to_bytes(Body::new(response.into_body()), ANSWER_BYTES_MAX).await?;
    connection.abort();
    Ok((status, bytes))
}

fn remote(url: &str, reach: &Reach) -> anyhow::Result<Client> {
    let uri: Uri = url.parse().with_context(|| format!("{url:?} is not a URL"))?;
    let host = uri.host().ok_or_else(|| anyhow!("{url:?} names no host"))?.to_owned();
    let path = reach.token_file.as_ref().ok_or_else(|| anyhow!("--token-file is needed"))?;
    let token = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let tls = match (uri.scheme_str(), &reach.ca) {
        (Some("http"), _) => None,
        (Some("https"), Some(ca)) => Some(TlsClient::trusting(&host, &certificates(ca)?)?),
        (Some("https"), None) => bail!("--ca is needed: the certificates that are trusted"),
        _ => bail!("{url:?} begins with neither https:// nor http://"),
    };
    Ok(Client::Remote { uri, token: token.trim().to_owned(), tls })
}

fn certificates(path: &Path) -> anyhow::Result<Vec<rustls::pki_types::CertificateDer<'static>>> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .with_context(|| format!("cannot read certificates from {}", path.display()))
}

/// Nobody listens: the socket is not there, or was left behind by a server that was killed.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// A command has no health to speak of.
struct Command;

impl Monitor for Command {
    fn health(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        Err("not a server".to_owned())
    }

    fn metrics(&self) -> String {
        String::new()
    }
}
