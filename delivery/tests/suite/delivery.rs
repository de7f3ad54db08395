//! From the queue into mailboxes, with everything real but the medium.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a failure is to stop the test")]

use mail::address::ReversePath;
use mail::envelope::{Envelope, Notify, Recipient};
use queue::{Resolved, ShardKind, Standing};

use crate::world::{Disk, World, address};

const TEXT: &str = "Subject: hello\r\nMessage-ID: <1@a.test>\r\n\r\nbody\r\n";

#[tokio::test(start_paused = true)]
async fn one_message_to_one_mailbox() {
    for looked_up in [true, false] {
        let world = World::new(&Disk::new()).await;
        let submitted = world.submit("sender@far.test", &["alice@example.test"], TEXT, looked_up).await;
        let id = submitted.unwrap();
        world.settle().await;
        let expected = format!(
            "Return-Path: <sender@far.test>\r\nDelivered-To: alice@example.test\r\n\
             Received: from a by b with ESMTP id {id};\r\n\tnow\r\n{TEXT}"
        );
        assert_eq!(world.inbox("alice").await, [expected]);
        assert_eq!(world.queue.overview().ingest, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn aliases_and_the_same_account_twice() {
    let world = World::new(&Disk::new()).await;
    let to = ["info@example.test", "alice@example.test", "bob@example.test"];
    world.submit("sender@far.test", &to, TEXT, true).await.unwrap();
    world.settle().await;
    assert_eq!(world.inbox("alice").await.len(), 1);
    assert_eq!(world.inbox("bob").await.len(), 1);
    let waiting = world.queue.list(ShardKind::Outbound, 10).await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert!(matches!(waiting[0].standing, Standing::Open { pending: 1, .. }));
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_once() {
    let world = World::new(&Disk::new()).await;
    let to = ["loop@example.test", "bob@example.test"];
    let id = world.submit("alice@example.test", &to, TEXT, true).await.unwrap();
    world.settle().await;
    assert_eq!(world.inbox("bob").await.len(), 1);
    let notifications = world.inbox("alice").await;
    assert_eq!(notifications.len(), 1);
    let text = &notifications[0];
    for part in [
        "Return-Path: <>\r\n",
        "Auto-Submitted: auto-replied",
        "Final-Recipient: rfc822; nobody@example.test",
        "Action: failed",
        "Status: 5.1.1",
        "Subject: hello",
        "In-Reply-To: <1@a.test>",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("\r\nbody\r\n"));
    let trace = world.queue.trace(id).await.unwrap();
    assert!(matches!(&trace[0].standing, Standing::Finished { fates, .. } if fates.len() == 2), "{trace:?}");
}

#[tokio::test(start_paused = true)]
async fn over_quota_bounces_or_is_held() {
    let world = World::new(&Disk::new()).await;
    let large = format!("Subject: large\r\n\r\n{}\r\n", "x".repeat(2_000));
    world.submit("alice@example.test", &["small@example.test"], &large, true).await.unwrap();
    let held = world.submit("", &["small@example.test"], &large, true).await.unwrap();
    world.settle().await;
    assert!(world.inbox("small").await.is_empty());
    let notifications = world.inbox("alice").await;
    assert_eq!(notifications.len(), 1);
    assert!(notifications[0].contains("Status: 5.2.2"), "{}", notifications[0]);
    // Nobody can be told about the other one: it waits for a person, and its shard's watermark goes on.
    let quarantined = world.queue.list(ShardKind::Quarantine, 10).await.unwrap();
    assert_eq!(quarantined.len(), 1);
    assert_eq!(quarantined[0].queue_id, held);
    assert_eq!(world.queue.overview().ingest, 0);
    // Released while the mailbox is still full, it comes back; nothing is doubled.
    assert!(world.queue.release(held).await.unwrap());
    world.settle().await;
    assert_eq!(world.queue.list(ShardKind::Quarantine, 10).await.unwrap().len(), 1);
    assert!(world.queue.drop_quarantined(held).await.unwrap());
    assert_eq!(world.queue.overview().quarantined, 0);
}

#[tokio::test(start_paused = true)]
async fn lists_have_an_owner() {
    let world = World::new(&Disk::new()).await;
    world.submit("sender@far.test", &["team@example.test"], TEXT, true).await.unwrap();
    world.settle().await;
    let alice = world.inbox("alice").await;
    assert_eq!(alice.len(), 1);
    assert!(alice[0].starts_with("Return-Path: <bob@example.test>\r\n"), "{}", alice[0]);
    // The owner is a member too, and hears of the member that does not exist.
    let bob = world.inbox("bob").await;
    assert_eq!(bob.len(), 2);
    assert_eq!(bob.iter().filter(|text| text.contains("Action: failed")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn subaddresses_name_mailboxes_where_configured() {
    for (subaddress, expected) in [
        (delivery::Subaddress::Inbox, "INBOX"),
        (delivery::Subaddress::Mailbox, "INBOX"),
        (delivery::Subaddress::MakeMailbox, "lists"),
    ] {
        let config = delivery::Config { subaddress, ..delivery::Config::default() };
        let world = World::open(&Disk::new(), config).await.unwrap();
        world.populate().await;
        world.submit("sender@far.test", &["alice+lists@example.test"], TEXT, true).await.unwrap();
        world.settle().await;
        assert_eq!(world.mailbox("alice", expected).await.len(), 1, "{subaddress:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn success_is_told_where_asked_for() {
    let world = World::new(&Disk::new()).await;
    let mut envelope = Envelope::new(ReversePath(Some(address("alice@example.test"))));
    let notify = Notify::SUCCESS.and(Notify::FAILURE);
    envelope.recipients.push(Recipient { notify, ..Recipient::new(address("bob@example.test")) });
    world.submit_envelope(envelope, vec![Resolved::Later], TEXT).await.unwrap();
    world.settle().await;
    assert_eq!(world.inbox("bob").await.len(), 1);
    let alice = world.inbox("alice").await;
    assert_eq!(alice.len(), 1);
    assert!(alice[0].contains("Action: delivered"), "{}", alice[0]);
}

#[tokio::test(start_paused = true)]
async fn what_waits_to_be_sent_expires() {
    let disk = Disk::new();
    let world = World::new(&disk).await;
    let to = ["far@where.test", "farther@where.test", "other@place.test"];
    world.submit("alice@example.test", &to, TEXT, true).await.unwrap();
    world.settle().await;
    assert!(world.inbox("alice").await.is_empty());
    assert_eq!(world.queue.overview().outbound, 2);
    disk.clock.set(disk.clock.now() + 6 * 86_400);
    world.settle().await;
    assert_eq!(world.queue.overview().outbound, 0);
    let alice = world.inbox("alice").await;
    assert_eq!(alice.len(), 3);
    assert!(alice.iter().all(|text| text.contains("Status: 4.4.7")));
}

#[tokio::test(start_paused = true)]
async fn many_recipients_go_in_slices() {
    many_recipients(20).await;
    // One slice, too large to stand in the item.
    many_recipients(5_000).await;
}

async fn many_recipients(slice_targets: usize) {
    const MANY: usize = 700;
    let disk = Disk::new();
    let config = delivery::Config { slice_targets, ..delivery::Config::default() };
    let world = World::open(&disk, config).await.unwrap();
    world.populate().await;
    // Enough for a details blob and for several slices; every seventh does not exist.
    let to: Vec<String> = (0..MANY)
        .map(|number| match number % 7 {
            0 => format!("nobody{number}@example.test"),
            _ => format!("alice+{number}@example.test"),
        })
        .collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    world.submit("bob@example.test", &to, TEXT, false).await.unwrap();
    world.settle().await;
    let nobodies = (0..MANY).filter(|number| number % 7 == 0).count();
    assert_eq!(world.inbox("alice").await.len(), MANY - nobodies);
    assert_eq!(world.inbox("bob").await.len(), nobodies);
    assert_eq!(world.queue.overview().ingest, 0);
}
