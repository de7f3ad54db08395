//! Wake-ups: hints of this node's logs go to the others, theirs to its logs.
//!
//! The body of a message is up to [`BATCH_MAX`] times a log (17 bytes) and its number (8, BE). The same message twice, or
//! an old one, costs nothing: a log that is as far as that is not looked at.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use engine::{Hints, LogId};
use futures_util::StreamExt;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::bus::Bus;
use crate::config::Config;

/// Hints in one message: 25 KB, well below the megabyte that NATS takes.
const BATCH_MAX: usize = 1_024;

const LOG_ID_BYTES: usize = engine::id::LOG_ID_BYTES;
const HINT_BYTES: usize = LOG_ID_BYTES + 8;

/// Carries hints as long as it is kept.
#[derive(Debug)]
pub struct Wake {
    tasks: [JoinHandle<()>; 2],
}

impl Wake {
    /// Begins to carry hints. This is the one taker of `hints`.
    pub fn start(hints: Hints, bus: Bus, config: &Config) -> Self {
        let tell = tokio::spawn(tell(hints.clone(), bus.clone(), config.hint_linger()));
        let listen = tokio::spawn(listen(hints, bus));
        Self { tasks: [tell, listen] }
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn subject(bus: &Bus) -> String {
    bus.subject("hint")
}

async fn tell(hints: Hints, bus: Bus, linger: Duration) {
    let mut number = 0;
    loop {
        let batch = hints.next(BATCH_MAX).await;
        number += 1;
        // What cannot go now is dropped: by the time that it could, everybody has polled.
        if !bus.publish(subject(&bus), None, number, &encode(&batch)).await {
            bus.counts().hints_dropped.add(batch.len() as u64);
        }
        sleep(linger).await;
    }
}

async fn listen(hints: Hints, bus: Bus) {
    let subject = subject(&bus);
    let Some(mut messages) = bus.subscribe(subject.clone()).await else { return };
    while let Some(message) = messages.next().await {
        let Some(opened) = bus.open(&subject, &message.payload, BATCH_MAX * HINT_BYTES) else { continue };
        if opened.from == bus.boot() {
            continue;
        }
        match decode(opened.body) {
            Some(batch) => batch.into_iter().for_each(|(log, seq)| hints.heard(log, seq)),
            None => bus.counts().refused.add(1),
        }
    }
}

fn encode(batch: &[(LogId, u64)]) -> Vec<u8> {
    let mut body = Vec::with_capacity(batch.len() * HINT_BYTES);
    for (log, seq) in batch {
        body.put_slice(&log.to_bytes());
        body.put_u64(*seq);
    }
    body
}

/// `None`: another release wrote it, of which nothing is believed.
fn decode(mut body: Bytes) -> Option<Vec<(LogId, u64)>> {
    let mut batch = Vec::with_capacity(body.len() / HINT_BYTES);
    while !body.is_empty() {
        if body.len() < HINT_BYTES {
            return None;
        }
        let log = LogId::from_bytes(&body.split_to(LOG_ID_BYTES))?;
        batch.push((log, body.get_u64()));
    }
    Some(batch)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn batches() -> impl Strategy<Value = Vec<(LogId, u64)>> {
        let hint = (1_u8..=4, any::<u128>(), any::<u64>()).prop_map(|(kind, id, seq)| {
            let mut bytes = vec![kind];
            bytes.extend(id.to_be_bytes());
            (LogId::from_bytes(&bytes).unwrap(), seq)
        });
        prop::collection::vec(hint, 0..20)
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_said_is_heard(batch in batches()) {
            prop_assert_eq!(decode(encode(&batch).into()), Some(batch));
        }

        #[test]
        fn garbage_is_refused_or_harmless(garbage in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Some(batch) = decode(garbage.clone().into()) {
                prop_assert_eq!(encode(&batch), garbage);
            }
        }
    }
}
