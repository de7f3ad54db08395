//! What whoever has submitted a message sees of it, and taking it back while it is held.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a failure is to stop the test")]

use std::time::Duration;

use bytes::Bytes;
use mail::address::ReversePath;
use mail::envelope::{Envelope, Recipient};
use mail::id::QueueId;
use queue::item::{Outcome, Said};
use queue::{AttemptResult, Followed, Origin, PassedOn, Queue, Resolved, ShardId, Standing, Submission};

use crate::operate::Bench;
use crate::setup::address;

/// Submits a message to these, which are elsewhere.
async fn submit(queue: &Queue, to: &[&str], hold_until: Option<u64>) -> (QueueId, ShardId) {
    let mut envelope = Envelope::new(ReversePath(Some(address("a@one.test"))));
    envelope.recipients = to.iter().map(|to| Recipient::new(address(to))).collect();
    envelope.hold_until = hold_until;
    let mut writer = queue.body_writer(None).await.unwrap();
    writer.write(Bytes::from_static(b"Subject: x\r\n\r\nhello\r\n")).await.unwrap();
    let body = writer.finish().await.unwrap();
    let (id, shard) = (body.queue_id(), body.shard());
    let (resolved, prefix) = (vec![Resolved::Remote; to.len()], Bytes::new());
    let submission = Submission { envelope, resolved, body, prefix, origin: Origin::default() };
    queue.submit(submission).await.unwrap();
    (id, shard)
}

#[tokio::test(start_paused = true)]
async fn a_held_message_is_taken_back_once() {
    let bench = Bench::new().await;
    let (queue, now) = (&bench.queue, bench.disk.clock.now());
    let due = now + 1_000;
    let (id, shard) = submit(queue, &["x@far.test"], Some(due)).await;
    let (other, same) = submit(queue, &["x@far.test"], Some(due)).await;
    let followed = queue.follow(id, shard, due).await.unwrap();
    assert!(followed.is_held(now + 999) && !followed.is_held(due) && !followed.is_withdrawn(due));
    // Not later than asked for, not of another shard, and not of a message that is not there.
    assert!(!queue.withdraw(id, shard, due).await.unwrap());
    assert!(!queue.withdraw(id, ShardId::outbound(0), now).await.unwrap());
    assert!(!queue.withdraw(QueueId::random(), shard, now).await.unwrap());
    assert!(queue.withdraw(id, shard, now + 10).await.unwrap());
    assert!(!queue.withdraw(id, shard, now + 10).await.unwrap());
    let followed = queue.follow(id, shard, due).await.unwrap();
    assert!(followed.is_withdrawn(due) && !followed.is_held(now));
    // It does not come when its time comes, and the other one does.
    bench.disk.clock.set(due);
    tokio::time::sleep(Duration::from_secs(120)).await;
    bench.place().await;
    assert_eq!(queue.follow(id, shard, due).await.unwrap().outbound, []);
    assert_eq!(queue.follow(other, same, due).await.unwrap().outbound.len(), 1);
    assert!(!queue.withdraw(other, same, now).await.unwrap());
    assert_eq!(queue.overview().ingest, 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_followed_to_each_domain() {
    let bench = Bench::new().await;
    let (queue, due) = (&bench.queue, bench.disk.clock.now());
    let (id, shard) = submit(queue, &["x@far.test", "y@near.test"], None).await;
    let followed = queue.follow(id, shard, due).await.unwrap();
    assert!(matches!(followed.ingest.unwrap().standing, Standing::Open { .. }));
    assert!(!queue.withdraw(id, shard, due).await.unwrap());
    bench.place().await;
    let followed = queue.follow(id, shard, due).await.unwrap();
    assert_eq!(followed.outbound.len(), 2);
    assert!(followed.outbound.iter().all(|item| item.queue_id == id && item.recipients.len() == 1));
    let said = Said::new(7, "250 2.0.0 ok");
    bench
        .report(bench.lease().await, &AttemptResult::Delivered { said, passed_on: PassedOn::default() })
        .await;
    let followed = queue.follow(id, shard, due).await.unwrap();
    let outcomes: Vec<&Outcome> = followed
        .outbound
        .iter()
        .flat_map(|item| match &item.standing {
            Standing::Finished { fates, .. } => fates.iter().map(|fate| &fate.outcome).collect::<Vec<_>>(),
            _ => Vec::new(),
        })
        .collect();
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes.iter().all(|outcome| outcome.as_str() == "sent"), "{outcomes:?}");
    assert_eq!(queue.follow(QueueId::random(), shard, due).await.unwrap(), Followed::default());
}
