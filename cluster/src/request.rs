//! Requests that nodes ask each other: at most once, with a deadline, and nothing that must be true hangs on an answer.
//!
//! A request goes to a subject of the boot that is asked, and its answer to one of the asker's boot and the request's
//! number; both are part of what is authenticated. So no message counts for another node, another run of it or another
//! request. A request that comes twice is refused by its number: each boot has its own, which never go back, and of each
//! asker the last [`WINDOW`](crate::replay::WINDOW) numbers are remembered. (What asks today, for leases, would stand a
//! repetition; the next thing need not.)

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::StatusCode;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::authentic::Opened;
use crate::bus::Bus;
use crate::config::Config;
use crate::node::Boot;
use crate::replay::Replays;

/// The first byte of an answer.
mod status {
    pub(super) const ANSWERED: u8 = 0;
    pub(super) const NOT_SERVED: u8 = 1;
    pub(super) const BUSY: u8 = 2;
}

/// Why a request has no answer. Whether it had an effect is not known in any case but the first three.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestError {
    /// It is larger than what is taken.
    #[error("the request is too large")]
    TooLarge,
    /// Too much is asked at once, here or there.
    #[error("too many requests")]
    Busy,
    /// The node does not serve this.
    #[error("the node does not serve this")]
    NotServed,
    /// No answer in time: the node, or the way to it, is away.
    #[error("no answer")]
    Unanswered,
}

type Handler = Arc<dyn Fn(Boot, Bytes) -> BoxFuture<'static, Bytes> + Send + Sync>;

/// What this node asks and answers. Cheap to clone; ends with its last clone.
#[derive(Clone)]
pub struct Requests {
    shared: Arc<Shared>,
    _tasks: Arc<Tasks>,
}

struct Shared {
    bus: Bus,
    within: Duration,
    bytes_max: usize,
    handlers: RwLock<HashMap<&'static str, Handler>>,
    number: AtomicU64,
    /// Those who wait for an answer, by the number of their request.
    waiting: Mutex<HashMap<u64, Waiting>>,
    asking: Semaphore,
    serving: Arc<Semaphore>,
    replays: Mutex<Replays>,
}

struct Waiting {
    node: Boot,
    answer: oneshot::Sender<Bytes>,
}

struct Tasks([JoinHandle<()>; 2]);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Requests {
    /// Begins to listen for requests and answers.
    pub fn start(bus: Bus, config: &Config) -> Self {
        let shared = Arc::new(Shared {
            bus,
            within: config.request_timeout(),
            bytes_max: config.request_bytes_max,
            handlers: RwLock::default(),
            number: AtomicU64::new(1),
            waiting: Mutex::default(),
            asking: Semaphore::new(config.requests_concurrent_max),
            serving: Arc::new(Semaphore::new(config.requests_concurrent_max)),
            replays: Mutex::default(),
        });
        let tasks =
            [tokio::spawn(shared.clone().hear_requests()), tokio::spawn(shared.clone().hear_answers())];
        Self { shared, _tasks: Arc::new(Tasks(tasks)) }
    }

    /// Answers requests of this name from now on: letters, digits and hyphens. The handler is told who asks, and is
    /// stopped when the asker waits no more. An answer above the size limit is not sent.
    pub fn serve<F, A>(&self, name: &'static str, handler: F)
    where
        F: Fn(Boot, Bytes) -> A + Send + Sync + 'static,
        A: Future<Output = Bytes> + Send + 'static,
    {
        debug_assert!(is_name(name), "names stand in subjects");
        let handler: Handler = Arc::new(move |from, request| handler(from, request).boxed());
        self.shared.handlers.write().insert(name, handler);
    }

    /// Asks a node. When the future is dropped the request may still have its effect.
    pub async fn ask(&self, node: Boot, name: &'static str, request: Bytes) -> Result<Bytes, RequestError> {
        debug_assert!(is_name(name), "names stand in subjects");
        let shared = &*self.shared;
        if request.len() > shared.bytes_max {
            return Err(RequestError::TooLarge);
        }
        let _asks = shared.asking.try_acquire().map_err(|_| RequestError::Busy)?;
        let deadline = Instant::now() + shared.within;
        if node == shared.bus.boot() {
            return shared.ask_self(name, request, deadline).await;
        }
        let number = shared.number.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        shared.waiting.lock().insert(number, Waiting { node, answer: sender });
        let _forget = Forget { shared, number };
        let subject = request_subject(&shared.bus, node, name);
        let reply = answer_subject(&shared.bus, shared.bus.boot(), number);
        if !shared.bus.publish(subject, Some(reply), number, &request).await {
            return Err(RequestError::Unanswered);
        }
        let Ok(Ok(mut answer)) = timeout_at(deadline, answer).await else {
            return Err(RequestError::Unanswered);
        };
        match answer.split_to(1)[0] {
            status::ANSWERED => Ok(answer),
            status::NOT_SERVED => Err(RequestError::NotServed),
            status::BUSY => Err(RequestError::Busy),
            _ => Err(RequestError::Unanswered),
        }
    }
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requests").field("bus", &self.shared.bus).finish_non_exhaustive()
    }
}

/// Who asks no more waits no more.
struct Forget<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.waiting.lock().remove(&self.number);
    }
}

impl Shared {
    async fn ask_self(
        &self,
        name: &'static str,
        request: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, RequestError> {
        let handler = self.handlers.read().get(name).cloned().ok_or(RequestError::NotServed)?;
        timeout_at(deadline, handler(self.bus.boot(), request)).await.map_err(|_| RequestError::Unanswered)
    }

    async fn hear_requests(self: Arc<Self>) {
        let subject = request_subject(&self.bus, self.bus.boot(), "*");
        let Some(mut messages) = self.bus.subscribe(subject).await else { return };
        while let Some(message) = messages.next().await {
            let subject = message.subject.as_str();
            let Some(request) = self.bus.open(subject, &message.payload, self.bytes_max) else { continue };
            if !self.replays.lock().accept(request.from, request.number) {
                self.bus.counts().refused.add(1);
                continue;
            }
            let name = subject.rsplit('.').next().unwrap_or_default();
            let handler = self.handlers.read().get(name).cloned();
            let turn = self.serving.clone().try_acquire_owned();
            let (Some(handler), Ok(turn)) = (handler.clone(), turn) else {
                let status = if handler.is_none() { status::NOT_SERVED } else { status::BUSY };
                self.answer(&request, &[status]).await;
                continue;
            };
            let shared = self.clone();
            tokio::spawn(async move {
                let _turn = turn;
                let Opened { from, body, .. } = request.clone();
                let Ok(answer) = timeout(shared.within, handler(from, body)).await else { return };
                if answer.len() > shared.bytes_max {
                    tracing::error!(bytes = answer.len(), "answer to another node is too large");
                    return;
                }
                shared.answer(&request, &[&[status::ANSWERED], &answer[..]].concat()).await;
            });
        }
    }

    async fn answer(&self, request: &Opened, answer: &[u8]) {
        // Not to where the message says that it wants its answer, which is not authenticated.
        let subject = answer_subject(&self.bus, request.from, request.number);
        self.bus.publish(subject, None, request.number, answer).await;
    }

    async fn hear_answers(self: Arc<Self>) {
        let subject = format!("{}.*", answers_subject(&self.bus, self.bus.boot()));
        let Some(mut messages) = self.bus.subscribe(subject).await else { return };
        while let Some(message) = messages.next().await {
            let subject = message.subject.as_str();
            let Some(number) = subject.rsplit('.').next().and_then(|number| number.parse().ok()) else {
                continue;
            };
            if message.status == Some(StatusCode::NO_RESPONDERS) {
                // The server's word that nobody listens. If it is not true, an answer is lost, as any may be.
                self.waiting.lock().remove(&number);
                continue;
            }
            let Some(answer) = self.bus.open(subject, &message.payload, self.bytes_max + 1) else { continue };
            let mut waiting = self.waiting.lock();
            let asked = waiting.get(&number).is_some_and(|waiting| waiting.node == answer.from);
            if !asked || answer.body.is_empty() {
                continue;
            }
            if let Some(waiting) = waiting.remove(&number) {
                // Who asked may have given up just now.
                let _ = waiting.answer.send(answer.body);
            }
        }
    }
}

fn request_subject(bus: &Bus, node: Boot, name: &str) -> String {
    bus.subject(&format!("ask.{node}.{name}"))
}

fn answers_subject(bus: &Bus, node: Boot) -> String {
    bus.subject(&format!("answer.{node}"))
}

fn answer_subject(bus: &Bus, node: Boot, number: u64) -> String {
    format!("{}.{number}", answers_subject(bus, node))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
