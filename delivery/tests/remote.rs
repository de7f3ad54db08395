//! What senders hear of recipients at other hosts (RFC 3461, RFC 3464).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod world;

use std::net::IpAddr;
use std::time::Duration;

use mail::address::ReversePath;
use mail::envelope::{Envelope, Notify, Recipient, Ret};
use queue::item::{Failure, Said};
use queue::{AttemptReport, AttemptResult, Resolved};
use world::{Disk, World, address};

const TEXT: &str =
    "From: sender@example.test\r\nMessage-ID: <o1@example.test>\r\nSubject: hi\r\n\r\nhello\r\n";

/// Submits a message to one address elsewhere.
async fn submit(world: &World, from: ReversePath, notify: Notify, ret: Option<Ret>) {
    let mut envelope = Envelope::new(from);
    envelope.ret = ret;
    envelope.envid = Some("E-17".to_owned());
    let mut recipient = Recipient::new(address("bob@where.test"));
    recipient.notify = notify;
    recipient.orcpt = Some("rfc822;robert@where.test".to_owned());
    envelope.recipients.push(recipient);
    world.submit_envelope(envelope, vec![Resolved::Remote], TEXT).await.unwrap();
    world.settle().await;
}

fn sender() -> ReversePath {
    ReversePath(Some(address("sender@example.test")))
}

/// What the service that dials hears, for everything that is due.
async fn attempt(world: &World, result: impl Fn(Said) -> AttemptResult) {
    let outbound = world.queue.outbound();
    let mut count = 0;
    for mut turn in outbound.turns_now(9) {
        let claims = turn.claim(9).await;
        for leased in outbound.lease(claims, Duration::from_secs(60)).await {
            let leased = leased.unwrap();
            let body = outbound.body(&leased).await.unwrap();
            assert!(body.size() > TEXT.len() as u64);
            let said = Said {
                host: Some("mx.where.test".to_owned()),
                address: Some(IpAddr::from([192, 0, 2, 1])),
                ..Said::new(world.queue.clock().now(), "")
            };
            let report = AttemptReport::all(leased, &result(said));
            outbound.report(vec![report]).await.pop().unwrap().unwrap();
            count += 1;
        }
    }
    assert!(count > 0, "nothing was due");
    world.settle().await;
}

fn deferred(said: Said) -> AttemptResult {
    let said = Said { reply: "451 4.7.1 try again later".to_owned(), ..said };
    AttemptResult::Deferred { said, not_before: None }
}

fn refused(said: Said) -> AttemptResult {
    let reply = "550 5.1.1 no such user".to_owned();
    AttemptResult::Failed { failure: Failure::new("5.1.1", reply.clone()), said: Said { reply, ..said } }
}

fn taken(dsn_passed_on: bool) -> impl Fn(Said) -> AttemptResult {
    move |said| {
        let said = Said { reply: "250 2.0.0 queued as 42".to_owned(), ..said };
        AttemptResult::Delivered { said, dsn_passed_on }
    }
}

fn wait(disk: &Disk, seconds: u64) {
    disk.clock.set(disk.clock.now() + seconds);
}

#[track_caller]
fn contains(text: &str, expected: &[&str]) {
    for expected in expected {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_quotes_the_other_host() {
    let disk = Disk::new();
    let world = World::new(&disk).await;
    submit(&world, sender(), Notify::UNSPECIFIED, None).await;
    attempt(&world, refused).await;
    let told = world.inbox("sender").await;
    assert_eq!(told.len(), 1);
    contains(
        &told[0],
        &[
            "\r\nSubject: Your message could not be delivered\r\n",
            "\r\n    mx.where.test said: 550 5.1.1 no such user\r\n",
            "\r\nOriginal-Envelope-Id: E-17\r\n",
            "\r\nOriginal-Recipient: rfc822;robert@where.test\r\n",
            "\r\nFinal-Recipient: rfc822; bob@where.test\r\nAction: failed\r\nStatus: 5.1.1\r\n",
            "\r\nRemote-MTA: dns; mx.where.test\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user\r\n",
            "\r\nSubject: hi\r\n",
        ],
    );
    assert!(!told[0].contains("hello"), "only the header comes back");
    assert_eq!(world.queue.overview().outbound, 0);
}

#[tokio::test(start_paused = true)]
async fn the_whole_message_comes_back_where_asked_for() {
    let disk = Disk::new();
    let world = World::new(&disk).await;
    submit(&world, sender(), Notify::FAILURE, Some(Ret::Full)).await;
    attempt(&world, refused).await;
    contains(&world.inbox("sender").await[0], &["\r\nContent-Type: message/rfc822\r\n", "hello"]);
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_told_once_and_then_the_end() {
    let disk = Disk::new();
    let world = World::new(&disk).await;
    submit(&world, sender(), Notify::UNSPECIFIED, None).await;
    attempt(&world, deferred).await;
    assert!(world.inbox("sender").await.is_empty(), "it is not late yet");
    for _ in 0..2 {
        wait(&disk, 5 * 3_600);
        attempt(&world, deferred).await;
        let told = world.inbox("sender").await;
        assert_eq!(told.len(), 1);
        contains(
            &told[0],
            &[
                "\r\nSubject: Your message is delayed\r\n",
                "\r\nAction: delayed\r\n",
                "\r\nDiagnostic-Code: smtp; 451 4.7.1 try again later\r\n",
                "\r\nWill-Retry-Until: ",
            ],
        );
    }
    wait(&disk, 6 * 86_400);
    world.settle().await;
    let told = world.inbox("sender").await;
    assert_eq!(told.len(), 2);
    contains(
        &told[1],
        &[
            "\r\nAction: failed\r\nStatus: 4.4.7\r\n",
            "It was tried for 6 days and is not tried any more.",
            "mx.where.test said: 451 4.7.1 try again later",
        ],
    );
    assert_eq!(world.queue.overview().outbound, 0);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_ask_hears_nothing_of_a_success() {
    let disk = Disk::new();
    let world = World::new(&disk).await;
    submit(&world, sender(), Notify::UNSPECIFIED, None).await;
    attempt(&world, taken(false)).await;
    // The other host will tell.
    submit(&world, sender(), Notify::SUCCESS, None).await;
    attempt(&world, taken(true)).await;
    assert!(world.inbox("sender").await.is_empty());
    assert_eq!(world.queue.overview().outbound, 0);
}

/// RFC 3461 §5.2.2: a host without DSN tells nobody, so we do.
#[tokio::test(start_paused = true)]
async fn who_asks_hears_that_it_was_passed_on() {
    let disk = Disk::new();
    let world = World::new(&disk).await;
    submit(&world, sender(), Notify::SUCCESS, None).await;
    attempt(&world, taken(false)).await;
    let told = world.inbox("sender").await;
    assert_eq!(told.len(), 1);
    contains(&told[0], &["\r\nAction: relayed\r\nStatus: 2.0.0\r\n", "250 2.0.0 queued as 42"]);
    assert_eq!(world.queue.overview().outbound, 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_of_a_notification() {
    let disk = Disk::new();
    let world = World::new(&disk).await;
    submit(&world, ReversePath::NULL, Notify::UNSPECIFIED, None).await;
    attempt(&world, refused).await;
    submit(&world, sender(), Notify::NEVER, None).await;
    attempt(&world, refused).await;
    assert!(world.inbox("sender").await.is_empty());
    assert_eq!(world.queue.overview(), queue::Overview::default());
}

/// A connection that was lost behind the final dot may have delivered it: whoever hears of the failure hears of that.
#[tokio::test(start_paused = true)]
async fn doubt_is_told() {
    let disk = Disk::new();
    let world = World::new(&disk).await;
    submit(&world, sender(), Notify::UNSPECIFIED, None).await;
    attempt(&world, |said| AttemptResult::InDoubt { said }).await;
    wait(&disk, 3_600);
    attempt(&world, refused).await;
    let told = world.inbox("sender").await;
    assert_eq!(told.len(), 1);
    // Lines are broken, so words are looked for.
    let words = told[0].split_whitespace().collect::<Vec<_>>().join(" ");
    contains(&words, &["may have come through all the same."]);
}
