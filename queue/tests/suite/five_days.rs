//! Five days of hosts that take nothing, for a hundred thousand recipients, under a clock that is set: every wait lies
//! where the configuration has it, every sender hears of the delay once, and everything expires when it is to.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a failure is to stop the test")]

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use engine::LogOptions;
use engine::memory::MemoryEngine;
use mail::address::ReversePath;
use mail::envelope::{Envelope, Recipient};
use mail::id::QueueId;
use queue::item::Said;
use queue::{
    AttemptReport, AttemptResult, Config, Event, Origin, Queue, Resolved, Retry, RetryRule, Submission, Work,
};

use crate::setup::{Disk, address};

const START: u64 = 1_800_000_000;
/// Messages, each to a hundred at one domain.
const MESSAGES: u64 = 1_000;
const RECIPIENTS: u64 = 100;
/// How far the clock goes at a time, and so how late an attempt may be.
const STEP: u64 = 60;
const DAY: u64 = 86_400;
/// The queue's keeper looks once a second of its other clock.
const KEEPER_PAUSE: Duration = Duration::from_millis(1_100);

const USUAL: Retry =
    Retry { seconds_min: 300, seconds_max: 14_400, expire_seconds: 5 * DAY, delay_notice_seconds: 14_400 };
const SLOW: Retry =
    Retry { seconds_min: 1_800, seconds_max: 43_200, expire_seconds: 5 * DAY, delay_notice_seconds: 0 };
const BRIEF: Retry =
    Retry { seconds_min: 60, seconds_max: 3_600, expire_seconds: DAY, delay_notice_seconds: 3_600 };

fn domain(number: u64) -> (&'static str, &'static Retry) {
    [("usual.test", &USUAL), ("slow.test", &SLOW), ("a.brief.test", &BRIEF), ("b.brief.test", &BRIEF)]
        [(number % 4) as usize]
}

async fn submit(queue: &Queue, number: u64) -> QueueId {
    let (domain, _) = domain(number);
    let mut envelope = Envelope::new(ReversePath(Some(address(&format!("sender{number}@example.test")))));
    envelope.recipients =
        (0..RECIPIENTS).map(|user| Recipient::new(address(&format!("user{user}@{domain}")))).collect();
    let mut writer = queue.body_writer(None).await.unwrap();
    writer.write(Bytes::from_static(b"Subject: x\r\n\r\nhello\r\n")).await.unwrap();
    let body = writer.finish().await.unwrap();
    let resolved = vec![Resolved::Remote; RECIPIENTS as usize];
    let submission = Submission { envelope, resolved, body, prefix: Bytes::new(), origin: Origin::default() };
    queue.submit(submission).await.unwrap().queue_id()
}

/// What happened to a message.
#[derive(Default)]
struct Course {
    number: u64,
    accepted: u64,
    attempts: Vec<u64>,
    delay_told: Vec<(u64, u64)>,
    expired: Vec<(u64, u64)>,
}

/// What is to be done in a moment, as long as there is something.
async fn moment(queue: &Queue, courses: &mut HashMap<QueueId, Course>) {
    let outbound = queue.outbound();
    let now = queue.clock().now();
    loop {
        let mut busy = false;
        for claimed in queue.claim_now(1_000).await {
            busy = true;
            if claimed.work() == Work::Notify {
                let course = courses.get_mut(&claimed.message().queue_id).unwrap();
                let news = queue.news(&claimed);
                for event in news.iter().map(|news| &news.event) {
                    let told = match event {
                        Event::Delayed => &mut course.delay_told,
                        Event::Expired => &mut course.expired,
                        other => panic!("{other:?}"),
                    };
                    match told.last_mut() {
                        Some((at, count)) if *at == now => *count += 1,
                        _ => told.push((now, 1)),
                    }
                }
                queue.told(claimed, news.iter().map(queue::News::told).collect()).await.unwrap();
                continue;
            }
            let details = queue.details(&claimed).await.unwrap();
            let slice = claimed.expansion().unwrap().slices[0].clone();
            let targets = queue.targets(&slice).await.unwrap();
            let targets: Vec<_> = (slice.first..).zip(targets.iter()).collect();
            queue.place_remote(&claimed, &details, &targets).await.unwrap();
            queue.report(claimed, Vec::new(), true).await;
        }
        for mut turn in outbound.turns_now(100) {
            let claims = turn.claim(1_000).await;
            busy |= !claims.is_empty();
            let mut reports = Vec::new();
            for leased in outbound.lease(claims, Duration::from_secs(60)).await {
                let leased = leased.unwrap();
                assert_eq!(leased.recipients().len() as u64, RECIPIENTS);
                courses.get_mut(&leased.queue_id()).unwrap().attempts.push(now);
                let said = Said { host: Some("mx.test".to_owned()), ..Said::new(now, "451 later") };
                let deferred = AttemptResult::Deferred { said, not_before: None };
                reports.push(AttemptReport::all(leased, &deferred));
            }
            for reported in outbound.report(reports).await {
                reported.unwrap();
            }
        }
        if !busy {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_recipients_are_tried_as_configured() {
    let disk = Disk { log_options: LogOptions::default(), ..Disk::new() };
    let rule = |domain: &str, retry: &Retry| RetryRule { domain: domain.to_owned(), retry: retry.clone() };
    let config = Config {
        outbound_shards: 4,
        retry: USUAL,
        retry_domains: vec![rule("slow.test", &SLOW), rule("*.brief.test", &BRIEF)],
        ..Disk::config()
    };
    let queue = disk.open(&MemoryEngine::new(), config).await.unwrap();
    let mut courses = HashMap::new();
    // They come in the course of an hour.
    for number in 0..MESSAGES {
        let accepted = disk.clock.now();
        let id = submit(&queue, number).await;
        courses.insert(id, Course { number, accepted, ..Course::default() });
        if number % (MESSAGES / 60) == 0 {
            moment(&queue, &mut courses).await;
            disk.clock.set(accepted + STEP);
            tokio::time::sleep(KEEPER_PAUSE).await;
        }
    }
    while queue.overview().ingest + queue.overview().outbound > 0 {
        assert!(disk.clock.now() < START + 5 * DAY + 7_200, "{:?}", queue.overview());
        disk.clock.set(disk.clock.now() + STEP);
        tokio::time::sleep(KEEPER_PAUSE).await;
        moment(&queue, &mut courses).await;
    }
    let mut attempts = 0;
    for course in courses.values() {
        let (name, retry) = domain(course.number);
        let about = |what: &str| format!("{name} {}: {what}, {:?}", course.number, course.attempts);
        attempts += course.attempts.len() as u64 * RECIPIENTS;
        let end = course.accepted + retry.expire_seconds;
        assert!(course.attempts[0] <= course.accepted + 2 * STEP, "{}", about("the first is late"));
        for (before, pair) in course.attempts.windows(2).enumerate() {
            let base = retry.seconds_min.saturating_mul(1 << before.min(20)).min(retry.seconds_max);
            let wait = pair[1] - pair[0];
            let (least, most) = (base * 4 / 5, base * 6 / 5 + 2 * STEP);
            assert!((least..=most).contains(&wait), "{}", about(&format!("wait {before} took {wait}")));
        }
        let last = *course.attempts.last().unwrap();
        assert!(last + retry.seconds_max * 6 / 5 + 2 * STEP >= end, "{}", about("it was left alone"));
        let [(at, count)] = course.expired[..] else { panic!("{}", about("it did not expire once")) };
        assert!(
            count == RECIPIENTS && at >= end && at <= end + 2 * STEP,
            "{}",
            about(&format!("expired at {at}"))
        );
        match (retry.delay_notice_seconds, &course.delay_told[..]) {
            (0, []) => {}
            (seconds, [(at, RECIPIENTS)]) if seconds > 0 => {
                assert!(*at >= course.accepted + seconds, "{}", about("told too early"));
            }
            (_, told) => panic!("{}", about(&format!("delays told: {told:?}"))),
        }
    }
    eprintln!("{attempts} attempts for {} recipients", MESSAGES * RECIPIENTS);
    queue.close();
}
