//! Short records of one kind that each node tells all others, at most once. They say what has happened and not what is: who
//! hears nothing goes by what it sees itself.
//!
//! A message is up to [`BATCH_MAX`] records, one behind the other. It counts once: boots have their numbers, as with
//! requests.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::bus::Bus;
use crate::config::Config;
use crate::replay::Replays;

/// Records in one message.
const BATCH_MAX: usize = 512;

/// Records that wait to be told. More happen when somebody makes them happen; then it is all the same which are told.
const WAITING_MAX: usize = 4_096;

/// Tells and hears as long as it is kept.
#[derive(Debug)]
pub struct News {
    records: mpsc::Sender<Bytes>,
    dropped: metrics::Counter,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for News {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl News {
    /// Begins to tell and to hear records of `record_bytes` under a name: letters, digits and hyphens.
    pub fn start(
        bus: &Bus,
        name: &'static str,
        record_bytes: usize,
        config: &Config,
        heard: impl Fn(&[u8]) + Send + 'static,
    ) -> Self {
        let subject = bus.subject(&format!("news.{name}"));
        let (records, waiting) = mpsc::channel(WAITING_MAX);
        let tell = tokio::spawn(tell(bus.clone(), subject.clone(), waiting, config.hint_linger()));
        let listen = tokio::spawn(listen(bus.clone(), subject, record_bytes, heard));
        let dropped = metrics::counter!("postrider_cluster_news_dropped_total", "of" => name);
        Self { records, dropped, tasks: [tell, listen] }
    }

    /// Tells the others, if that can be done soon. Never waits.
    pub fn tell(&self, record: &[u8]) {
        if self.records.try_send(Bytes::copy_from_slice(record)).is_err() {
            self.dropped.increment(1);
        }
    }
}

async fn tell(bus: Bus, subject: String, mut waiting: mpsc::Receiver<Bytes>, linger: Duration) {
    let mut number = 0;
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
        number += 1;
        // What cannot go now is old when it could.
        bus.publish(subject.clone(), None, number, &batch.concat()).await;
        batch.clear();
        sleep(linger).await;
    }
}

async fn listen(bus: Bus, subject: String, record_bytes: usize, heard: impl Fn(&[u8])) {
    let Some(mut messages) = bus.subscribe(subject.clone()).await else { return };
    let mut replays = Replays::default();
    while let Some(message) = messages.next().await {
        let Some(opened) = bus.open(&subject, &message.payload, BATCH_MAX * record_bytes) else { continue };
        if opened.from == bus.boot() {
            continue;
        }
        let records = opened.body.chunks_exact(record_bytes);
        if !records.remainder().is_empty() || !replays.accept(opened.from, opened.number) {
            bus.counts().refused.add(1);
            continue;
        }
        records.for_each(&heard);
    }
}
