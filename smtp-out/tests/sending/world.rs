//! A queue in memory, a name server and the service over them, all on loopback.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use blob::keys::KeyEncryptionKey;
use blob::memory::MemoryBlobs;
use blob::{BlobStore, KeyRing};
use bytes::Bytes;
use engine::LogOptions;
use engine::memory::MemoryEngine;
use mail::address::{Address, ReversePath};
use mail::envelope::{Envelope, Recipient};
use mail::id::QueueId;
use queue::item::{Outcome, Progress, RemoteState, Said, Target, Targets};
use queue::{Clock, Foundation, Origin, Queue, Resolved, ShardKind, Standing, Submission, Work};
use smtp_out::config::{SiteLimits, Timeouts};
use smtp_out::{Config, Parts, SmtpOut};
use testkit::dns::{Data, Dns};

use crate::peer::{Manners, Peer};

pub(crate) const NOW: u64 = 1_800_000_000;

/// The text of every test message.
pub(crate) const TEXT: &str = "Subject: test\r\n\r\nhello\r\n.a dot\r\n..two\r\n";

pub(crate) struct World {
    pub(crate) dns: Dns,
    pub(crate) queue: Queue,
    pub(crate) clock: Clock,
    pub(crate) config: Config,
    /// The port of all exchangers of this world: peers have addresses of their own.
    pub(crate) port: u16,
    /// Where we listen ourselves.
    pub(crate) listeners: Vec<SocketAddr>,
    /// Recipients that were submitted.
    submitted: AtomicUsize,
}

pub(crate) fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// What became of each recipient, in few words.
pub(crate) type Fates = BTreeMap<String, String>;

impl World {
    pub(crate) async fn new() -> Self {
        let engine = MemoryEngine::new();
        let kek = KeyEncryptionKey::from_secret(&[7; 32]);
        let rows = engine.engine().rows;
        let keys = KeyRing::new(kek, rows.clone(), &blob::Config::default());
        let blobs = Arc::new(MemoryBlobs::new());
        let blobs = BlobStore::new(blobs, rows, keys.clone(), blob::Config::default()).await.unwrap();
        let clock = Clock::standing(NOW);
        let foundation = Foundation {
            engine: engine.engine(),
            log_options: LogOptions::default(),
            archive: None,
            blobs,
            keys,
            clock: clock.clone(),
            sharing: queue::Sharing::Alone,
        };
        let settings = queue::Config {
            ingest_shards: 1,
            outbound_shards: 2,
            poll_seconds: 1,
            ..queue::Config::default()
        };
        let queue = Queue::open(foundation, settings).await.unwrap();
        let dns = Dns::start().unwrap();
        let port = free_port();
        let config = Config {
            hostname: "us.test".to_owned(),
            resolvers: vec![dns.address()],
            resolver_seconds_max: 1,
            mx_port: port,
            private_destinations: true,
            timeouts: Timeouts {
                connect: 2,
                greeting: 2,
                hello: 2,
                tls: 2,
                mail: 2,
                rcpt: 2,
                data: 2,
                block: 2,
                message: 2,
                goodbye: 1,
                find: 10,
                attempt: 20,
            },
            limits: SiteLimits { connections_initial: 2, connections_max: 4, ..SiteLimits::default() },
            ..Config::default()
        };
        Self { dns, queue, clock, config, port, listeners: Vec::new(), submitted: AtomicUsize::new(0) }
    }

    /// A peer at 127.0.0.`last`, named `mx`*last*`.test`.
    pub(crate) async fn peer(&self, last: u8, manners: Manners) -> Peer {
        let ip = Ipv4Addr::new(127, 0, 0, last);
        self.dns.add(&format!("mx{last}.test"), Data::A(ip));
        Peer::start(ip, self.port, manners).await
    }

    /// A domain with these exchangers.
    pub(crate) fn domain(&self, name: &str, exchangers: &[(u16, u8)]) {
        for (preference, last) in exchangers {
            self.dns.add(name, Data::Mx(*preference, format!("mx{last}.test")));
        }
    }

    /// Puts a message for others into the queue, as delivery would.
    pub(crate) async fn submit(&self, to: &[&str]) -> QueueId {
        let mut envelope = Envelope::new(ReversePath(Some(address("sender@us.test"))));
        envelope.recipients = to.iter().map(|to| Recipient::new(address(to))).collect();
        self.submit_as(envelope, TEXT.as_bytes()).await
    }

    pub(crate) async fn submit_as(&self, envelope: Envelope, text: &[u8]) -> QueueId {
        let mut writer = self.queue.body_writer(None).await.unwrap();
        for piece in text.chunks(64 * 1024) {
            writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        let body = writer.finish().await.unwrap();
        self.submitted.fetch_add(envelope.recipients.len(), Ordering::Relaxed);
        let resolved = vec![Resolved::Remote; envelope.recipients.len()];
        let prefix = Bytes::from_static(b"Received: by us.test\r\n");
        let submission = Submission { envelope, resolved, body, prefix, origin: Origin::default() };
        let queue_id = self.queue.submit(submission).await.unwrap().queue_id();
        for claimed in self.queue.claim_now(100).await {
            // Notifications are not written here.
            if claimed.work() != Work::Deliver {
                continue;
            }
            let details = self.queue.details(&claimed).await.unwrap();
            let slice = claimed.expansion().unwrap().slices.last().unwrap();
            let Targets::Here(targets) = &slice.targets else { panic!("small ones are here") };
            let targets: Vec<(u32, &Target)> = (slice.first..).zip(targets.iter()).collect();
            self.queue.place_remote(&claimed, &details, &targets).await.unwrap();
            self.queue.report(claimed, Vec::new(), true).await;
        }
        queue_id
    }

    pub(crate) fn service(&self) -> SmtpOut {
        let parts = Parts {
            config: self.config.clone(),
            hostname: "us.test",
            listeners: self.listeners.clone(),
            queue: &self.queue,
            elsewhere: None,
            leases: None,
        };
        SmtpOut::new(parts).unwrap()
    }

    /// Sends what is due, and says what became of all recipients.
    pub(crate) async fn send(&self) -> Fates {
        self.service().run_once().await;
        self.fates().await
    }

    /// What became of all recipients. Moves the clock, so that what waits is due.
    pub(crate) async fn fates(&self) -> Fates {
        self.clock.set(self.clock.now() + 7_200);
        let mut fates = Fates::new();
        // What has become due is found by and by.
        for _ in 0..100 {
            self.look(&mut fates).await;
            if fates.len() >= self.submitted.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        fates
    }

    async fn look(&self, fates: &mut Fates) {
        for view in self.queue.history(ShardKind::Outbound, 10_000).await.unwrap() {
            let Standing::Finished { fates: all, .. } = view.standing else { continue };
            for fate in all {
                let address = fate.address.unwrap().to_string();
                let what = match &fate.outcome {
                    Outcome::Sent { .. } => "delivered".to_owned(),
                    Outcome::Failed { failure, .. } => {
                        format!("failed {}: {}", failure.status, failure.text)
                    }
                    other => other.as_str().to_owned(),
                };
                fates.insert(address, what);
            }
        }
        // What somebody is to be told of, which is delivery's affair.
        for claimed in self.queue.claim_now(10_000).await {
            let Progress::Sending(sending) = &claimed.item().progress else { continue };
            for recipient in &sending.recipients {
                let what = match &recipient.state {
                    RemoteState::Failed { failure, .. } => {
                        format!("failed {}: {}", failure.status, failure.text)
                    }
                    RemoteState::Pending | RemoteState::InDoubt { .. } => {
                        match waiting(recipient.deferrals, recipient.doubts, recipient.last.as_ref()) {
                            Some(what) => what,
                            None => continue,
                        }
                    }
                    state => state.as_str().to_owned(),
                };
                fates.insert(recipient.recipient.address.to_string(), what);
            }
        }
        for mut turn in self.queue.outbound().turns_now(1_000) {
            for claim in turn.claim(10_000).await {
                for due in claim.recipients() {
                    let what = waiting(due.deferrals, due.doubts, due.last.as_ref());
                    let what = what.unwrap_or_else(|| "deferred 0: ".to_owned());
                    fates.insert(due.recipient.address.to_string(), what);
                }
            }
        }
    }
}

/// How a recipient waits that was tried.
fn waiting(deferrals: u32, doubts: u32, last: Option<&Said>) -> Option<String> {
    let what = if doubts > 0 { "doubt" } else { "deferred" };
    Some(format!("{what} {deferrals}: {}", last?.reply))
}

/// A port that is free at all addresses of loopback, as far as one can know.
fn free_port() -> u16 {
    std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

/// Requires these fates, each by how it begins.
#[track_caller]
pub(crate) fn expect(fates: &Fates, expected: &[(&str, &str)]) {
    for (address, start) in expected {
        let found = fates.get(*address).map_or("nowhere", String::as_str);
        assert!(found.starts_with(start), "{address}: {found:?}, not {start:?}; all: {fates:#?}");
    }
}
