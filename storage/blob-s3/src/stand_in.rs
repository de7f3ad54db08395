//! A service in the process, for tests, and a way to it that can be disturbed.
//!
//! What stands between client and service sees every request, decides by a plan what becomes of it, and counts.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "functions that tests share are tests too"
)]

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_rustls::TlsAcceptor;

use crate::{Config, S3Blobs, Secret};

const BUCKET: &str = "mail";
/// The access key that the service knows.
pub const KEY_ID: &str = "postrider";
/// The secret of that key.
pub const SECRET: &str = "a secret that nobody may see";

/// A service on a loopback port. Dropped, it is gone.
pub struct Server {
    /// How a back end reaches it; to be changed before one is made.
    pub config: Config,
    state: Arc<State>,
    accepting: tokio::task::JoinHandle<()>,
    dir: tempfile::TempDir,
}

struct State {
    service: S3Service,
    plan: Mutex<Plan>,
    seen: Mutex<Vec<Seen>>,
    under_way: AtomicUsize,
    most_at_once: AtomicUsize,
}

type Plan = Box<dyn FnMut(&Seen) -> Fate + Send>;

/// A request, as far as tests look at it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What is to be done.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// Its headers.
    pub headers: hyper::HeaderMap,
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Fate {
    /// The service answers.
    Pass,
    /// The service answers, so much later.
    Late(Duration),
    /// The service answers as soon as there is a permit, which is used up; or at once, when the semaphore is closed.
    Held(Arc<Semaphore>),
    /// This answer instead of the service's, which hears nothing of the request.
    Answer(u16, &'static str),
    /// This text instead of the service's answer.
    Listed(&'static str),
    /// The service does what it was asked; then the connection breaks instead of an answer.
    LoseAnswer,
    /// The connection breaks in the middle of the answer's body.
    CutBody,
    /// One bit of the answer's body is another.
    FlipBit,
    /// The connection breaks at once.
    Break,
}

impl Seen {
    /// Whether it stores a whole object or a part.
    pub fn is_put(&self) -> bool {
        self.method == Method::PUT
    }

    /// Whether it reads an object or a part of one.
    pub fn is_get(&self) -> bool {
        self.method == Method::GET && !self.target.contains("list-type")
    }

    /// Whether it ends an upload in parts.
    pub fn completes_upload(&self) -> bool {
        self.method == Method::POST && self.target.contains("uploadId=")
    }
}

impl Server {
    /// One on a free port.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same over TLS, with a certificate of its own, which the configuration trusts.
    pub async fn start_tls() -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = tls.unwrap().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
        let mut server = Self::start_with(Some(Arc::new(tls.unwrap()).into())).await;
        let file = server.dir.path().join("ca.pem");
        std::fs::write(&file, made.cert.pem()).unwrap();
        server.config.ca_file = Some(file);
        server
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(dir.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        let state = Arc::new(State {
            service: builder.build(),
            plan: Mutex::new(Box::new(|_| Fate::Pass)),
            seen: Mutex::default(),
            under_way: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepting = tokio::spawn(accept(listener, tls, Arc::clone(&state)));
        let config = Config {
            endpoint: Some(format!("{scheme}://127.0.0.1:{port}")),
            bucket: BUCKET.into(),
            path_style: true,
            access_key_id: Some(KEY_ID.into()),
            secret_access_key: Some(Secret::new(SECRET)),
            retry_pause_ms: 1,
            ..Config::default()
        };
        Self { config, state, accepting, dir }
    }

    /// A back end on it.
    pub async fn blobs(&self) -> S3Blobs {
        S3Blobs::open(self.config.clone()).await.unwrap()
    }

    /// Where the service keeps the objects.
    pub fn objects(&self) -> PathBuf {
        self.dir.path().join(BUCKET).join("segments")
    }

    /// What becomes of requests from now on.
    pub fn plan(&self, plan: impl FnMut(&Seen) -> Fate + Send + 'static) {
        *self.state.plan.lock() = Box::new(plan);
    }

    /// The next request for which `which` holds meets this fate.
    pub fn once(&self, which: fn(&Seen) -> bool, fate: Fate) {
        let mut fate = Some(fate);
        self.plan(move |seen| if which(seen) { fate.take().unwrap_or(Fate::Pass) } else { Fate::Pass });
    }

    /// Requests so far for which `which` holds.
    pub fn count(&self, which: impl Fn(&Seen) -> bool) -> usize {
        self.state.seen.lock().iter().filter(|seen| which(seen)).count()
    }

    /// Most requests that were under way at one time so far.
    pub fn most_at_once(&self) -> usize {
        self.state.most_at_once.load(Ordering::Relaxed)
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            match tls {
                None => serve(stream, state).await,
                // A client that does not trust it goes away.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, state).await;
                    }
                }
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<State>) {
    let service = service_fn(move |request| answer(request, Arc::clone(&state)));
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // It breaks off where the plan says so, and when the client goes.
    let _ = pin!(connection).await;
}

/// A request that was not answered yet.
struct UnderWay<'a>(&'a State);

impl<'a> UnderWay<'a> {
    fn begin(state: &'a State) -> Self {
        let now = state.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        state.most_at_once.fetch_max(now, Ordering::Relaxed);
        Self(state)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

type Body = BoxBody<Bytes, io::Error>;

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, io::Error> {
    let seen = Seen {
        method: request.method().clone(),
        target: request.uri().to_string(),
        headers: request.headers().clone(),
    };
    let _under_way = UnderWay::begin(&state);
    let fate = (state.plan.lock())(&seen);
    state.seen.lock().push(seen);
    match &fate {
        Fate::Break => return Err(broken()),
        Fate::Answer(status, code) => {
            let text = format!("<Error><Code>{code}</Code><Message>planned</Message></Error>");
            // The request is read first, so that the client sees the answer and no broken pipe.
            let _ = request.into_body().collect().await;
            return Ok(Response::builder().status(*status).body(full(text.into())).expect("a plain answer"));
        }
        Fate::Listed(text) => return Ok(Response::new(full(Bytes::from_static(text.as_bytes())))),
        Fate::Late(duration) => tokio::time::sleep(*duration).await,
        Fate::Held(gate) => gate.acquire().await.map_or((), SemaphorePermit::forget),
        Fate::Pass | Fate::LoseAnswer | Fate::CutBody | Fate::FlipBit => {}
    }
    let answer = state.service.call(request.map(s3s::Body::from)).await;
    let (parts, body) = answer.map_err(|error| io::Error::other(format!("{error:?}")))?.into_parts();
    let mut bytes = BodyExt::collect(body).await.map_err(io::Error::other)?.to_bytes();
    let body = match fate {
        Fate::LoseAnswer => return Err(broken()),
        Fate::CutBody => {
            let half = Ok(Frame::data(bytes.split_to(bytes.len() / 2)));
            let pieces = stream::iter([half]).chain(stream::once(async { Err(broken()) }));
            BodyExt::boxed(StreamBody::new(pieces))
        }
        Fate::FlipBit => {
            let mut flipped = bytes.to_vec();
            let middle = flipped.len() / 2;
            flipped[middle] ^= 1;
            full(flipped.into())
        }
        _ => full(bytes),
    };
    Ok(Response::from_parts(parts, body))
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

fn broken() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}
