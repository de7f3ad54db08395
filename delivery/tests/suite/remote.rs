//! What senders hear of recipients at other hosts (RFC 3461, RFC 3464).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::IpAddr;
use std::time::Duration;

use mail::address::ReversePath;
use mail::envelope::{ByMode, DeliverBy, Envelope, Notify, Recipient, Ret};
use mail::id::QueueId;
use queue::item::{Failure, Said};
use queue::{AttemptReport, AttemptResult, Origin, PassedOn, Resolved};
use storage::Principal;

use crate::world::{Disk, World, address};

const TEXT: &str =
    "From: sender@example.test\r\nMessage-ID: <o1@example.test>\r\nSubject: hi\r\n\r\nhello\r\n";

/// Submits a message to one address elsewhere.
async fn submit(world: &World, from: ReversePath, notify: Notify, ret: Option<Ret>) {
    submit_by(world, from, notify, ret, None).await;
}

async fn submit_by(
    world: &World,
    from: ReversePath,
    notify: Notify,
    ret: Option<Ret>,
    deliver_by: Option<DeliverBy>,
) {
    let mut envelope = Envelope::new(from);
    envelope.ret = ret;
    envelope.deliver_by = deliver_by;
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
    let mut count = attempt_once(world, &result).await;
    if count == 0 {
        // What is to be told goes first; then the item comes again.
        world.settle().await;
        count = attempt_once(world, &result).await;
    }
    assert!(count > 0, "nothing was due");
    world.settle().await;
}

async fn attempt_once(world: &World, result: &impl Fn(Said) -> AttemptResult) -> usize {
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
    count
}

fn deferred(said: Said) -> AttemptResult {
    let said = Said { reply: "451 4.7.1 try again later".to_owned(), ..said };
    AttemptResult::Deferred { said, not_before: None }
}

fn refused(said: Said) -> AttemptResult {
    let reply = "550 5.1.1 no such user".to_owned();
    AttemptResult::Failed { failure: Failure::new("5.1.1", reply.clone()), said: Said { reply, ..said } }
}

fn taken(passed_on: PassedOn) -> impl Fn(Said) -> AttemptResult {
    move |said| {
        let said = Said { reply: "250 2.0.0 queued as 42".to_owned(), ..said };
        AttemptResult::Delivered { said, passed_on }
    }
}

fn wait(disk: &Disk, seconds: u64) {
    disk.clock.set(disk.clock.now() + seconds);
}

/// The words of a text whose lines are broken.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
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
    attempt(&world, taken(PassedOn::default())).await;
    // The other host will tell.
    submit(&world, sender(), Notify::SUCCESS, None).await;
    attempt(&world, taken(PassedOn::ALL)).await;
    assert!(world.inbox("sender").await.is_empty());
    assert_eq!(world.queue.overview().outbound, 0);
}

/// RFC 3461 §5.2.2: a host without DSN tells nobody, so we do.
#[tokio::test(start_paused = true)]
async fn who_asks_hears_that_it_was_passed_on() {
    let disk = Disk::new();
    let world = World::new(&disk).await;
    submit(&world, sender(), Notify::SUCCESS, None).await;
    attempt(&world, taken(PassedOn::default())).await;
    let told = world.inbox("sender").await;
    assert_eq!(told.len(), 1);
    contains(&told[0], &["\r\nAction: relayed\r\nStatus: 2.0.0\r\n", "250 2.0.0 queued as 42"]);
    assert_eq!(world.queue.overview().outbound, 0);
}

/// RFC 2852 §4.2: a host that does not know of the time cannot tell when it has passed.
#[tokio::test(start_paused = true)]
async fn who_has_set_a_time_hears_where_it_is_not_kept() {
    let disk = Disk::new();
    let world = World::new(&disk).await;
    let until = disk.clock.now() + 600;
    let by = |mode| Some(DeliverBy { until, mode, trace: false });
    submit_by(&world, sender(), Notify::UNSPECIFIED, None, by(ByMode::Notify)).await;
    attempt(&world, taken(PassedOn { deliver_by: true, dsn: false })).await;
    assert!(world.inbox("sender").await.is_empty());
    submit_by(&world, sender(), Notify::UNSPECIFIED, None, by(ByMode::Notify)).await;
    attempt(&world, taken(PassedOn::default())).await;
    contains(&world.inbox("sender").await[0], &["\r\nAction: relayed\r\nStatus: 2.0.0\r\n"]);
    submit_by(&world, sender(), Notify::UNSPECIFIED, None, by(ByMode::Return)).await;
    attempt(&world, deferred).await;
    wait(&disk, 601);
    world.settle().await;
    let told = world.inbox("sender").await;
    assert_eq!(told.len(), 2);
    contains(&told[1], &["\r\nAction: failed\r\nStatus: 5.4.7\r\n"]);
    contains(&words(&told[1]), &["in the time that you had set."]);
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
    contains(&words(&told[0]), &["may have come through all the same."]);
}

/// Submits a message as the user `sender`; whether it waits for another host then.
async fn submit_as_user(world: &World, to: &str) -> (QueueId, bool) {
    let before = world.queue.overview().outbound;
    let origin = Origin { principal: Some(world.account("sender").await), ..Origin::default() };
    let mut envelope = Envelope::new(sender());
    envelope.recipients.push(Recipient::new(address(to)));
    let id = world.submit_from(origin, envelope, vec![Resolved::Remote], TEXT).await.unwrap();
    world.settle().await;
    (id, world.queue.overview().outbound > before)
}

async fn suppressed(world: &World) -> Vec<String> {
    let account = world.account("sender").await;
    let account = world.storage.account(&Principal::Operator, account).await.unwrap();
    account.state().suppressions().map(|(address, why)| format!("{address} {}", why.status)).collect()
}

#[tokio::test(start_paused = true)]
async fn who_does_not_exist_is_not_written_to_again() {
    let disk = Disk::new();
    let world = World::new(&disk).await;
    assert!(submit_as_user(&world, "bob@where.test").await.1);
    attempt(&world, refused).await;
    assert_eq!(world.inbox("sender").await.len(), 1);
    assert_eq!(suppressed(&world).await, ["bob@where.test 5.1.1"]);
    assert!(!submit_as_user(&world, "BOB@where.test").await.1, "it comes back at once");
    let told = world.inbox("sender").await;
    assert_eq!(told.len(), 2);
    contains(&told[1], &["\r\nAction: failed\r\nStatus: 5.1.1\r\n"]);
    contains(&words(&told[1]), &["mail to this address is not sent", "550 5.1.1 no such user"]);
    // Others are written to, and by others it is.
    assert!(submit_as_user(&world, "carol@where.test").await.1);
    attempt(&world, taken(PassedOn::ALL)).await;
    submit(&world, sender(), Notify::UNSPECIFIED, None).await;
    attempt(&world, taken(PassedOn::ALL)).await;
    let account = world.account("sender").await;
    let account = world.storage.account(&Principal::Operator, account).await.unwrap();
    assert!(account.unsuppress(&address("bob@where.test")).await.unwrap());
    assert!(submit_as_user(&world, "bob@where.test").await.1);
}

/// Full mailboxes, refused content and bare codes say nothing about addresses.
#[tokio::test(start_paused = true)]
async fn other_failures_suppress_nothing() {
    let disk = Disk::new();
    let world = World::new(&disk).await;
    for reply in ["552 5.2.2 full", "550 5.7.1 not from you", "550 no"] {
        submit_as_user(&world, "bob@where.test").await;
        let status = reply.split(' ').nth(1).filter(|word| word.contains('.')).unwrap_or("5.0.0");
        let failed = |said| AttemptResult::Failed {
            failure: Failure::new(status, reply),
            said: Said { reply: reply.to_owned(), ..said },
        };
        attempt(&world, failed).await;
    }
    assert_eq!(world.inbox("sender").await.len(), 3);
    assert_eq!(suppressed(&world).await, [""; 0]);
}

/// A notification from outside about the message `id`, which names `recipient`.
fn report(id: &str, recipient: &str) -> String {
    format!(
        "From: MAILER-DAEMON@where.test\r\nSubject: Undelivered\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n\
         --b\r\n\r\nSorry.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.where.test\r\n\r\n\
         Final-Recipient: rfc822; {recipient}\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n\
         --b\r\nContent-Type: message/rfc822\r\n\r\nReceived: from us by mx.where.test with ESMTPS id 4cFgHi\r\n\tfor <x@where.test>;\r\n\tnow\r\n\
         Received: from a by b with ESMTP id {id};\r\n\tnow\r\nSubject: hi\r\n\r\nhello\r\n--b--\r\n"
    )
}

#[tokio::test(start_paused = true)]
async fn a_bounce_from_outside_is_believed_about_what_was_sent() {
    let disk = Disk::new();
    let world = World::new(&disk).await;
    let (id, _) = submit_as_user(&world, "bob@where.test").await;
    attempt(&world, taken(PassedOn::ALL)).await;
    let id = id.to_string();
    // Neither about somebody else, nor about a message that did not go from here, nor to somebody who did not send it.
    for (to, id, recipient) in [
        ("sender@example.test", id.as_str(), "carol@where.test"),
        ("sender@example.test", "01a21aa8b7597214878e70628cf415b7", "bob@where.test"),
        ("alice@example.test", id.as_str(), "bob@where.test"),
    ] {
        world.submit("", &[to], &report(id, recipient), true).await.unwrap();
        world.settle().await;
        assert_eq!(suppressed(&world).await, [""; 0], "{to} {id} {recipient}");
    }
    world
        .submit("mallory@where.test", &["sender@example.test"], &report(&id, "bob@where.test"), true)
        .await
        .unwrap();
    world.settle().await;
    assert_eq!(suppressed(&world).await, [""; 0], "not a notification");
    world.submit("", &["sender@example.test"], &report(&id, "bob@where.test"), true).await.unwrap();
    world.settle().await;
    assert_eq!(suppressed(&world).await, ["bob@where.test 5.1.1"]);
    assert_eq!(world.inbox("sender").await.len(), 4, "they come through all the same");
}

/// Whoever looks after the server sees failures too, each once.
#[tokio::test(start_paused = true)]
async fn failures_are_copied_where_that_is_wanted() {
    let disk = Disk::new();
    let config = delivery::Config { failure_copies_to: "bob@example.test".to_owned(), ..Default::default() };
    let world = World::open(&disk, config).await.unwrap();
    world.populate().await;
    submit(&world, sender(), Notify::UNSPECIFIED, None).await;
    attempt(&world, refused).await;
    submit(&world, sender(), Notify::SUCCESS, None).await;
    attempt(&world, taken(PassedOn::default())).await;
    let copies = world.inbox("bob").await;
    assert_eq!(
        (world.inbox("sender").await.len(), copies.len()),
        (2, 1),
        "a success is nobody else's business"
    );
    contains(&copies[0], &["\r\nTo: <bob@example.test>\r\n", "\r\nAction: failed\r\nStatus: 5.1.1\r\n"]);
    assert_eq!(world.queue.overview(), queue::Overview::default());
}
