//! What becomes of calls when the service, or the way to it, does not do what it should.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use blob::{Blobs, BlobsError, SegmentId};
use bytes::Bytes;

use crate::config::PART_BYTES_MIN;
use crate::stand_in::{Fate, Seen, Server};
use crate::{Config, Encryption, S3Blobs, Secret};

const TEXT: &[u8] = b"what was written is what is read";

fn text() -> Vec<Bytes> {
    vec![Bytes::from_static(&TEXT[..5]), Bytes::from_static(&TEXT[5..])]
}

/// Bytes that differ from place to place.
fn long(length: usize) -> Bytes {
    (0..length).map(|at| (at / 251 + at) as u8).collect::<Vec<_>>().into()
}

async fn is_there(blobs: &S3Blobs, segment: SegmentId, bytes: &[u8]) -> bool {
    let read = blobs.get(segment, 0..bytes.len() as u64).await.unwrap();
    blobs.stat(segment).await.unwrap().length == bytes.len() as u64 && read == bytes
}

/// What people are told.
fn told(error: &dyn Error) -> String {
    let cause = error.source().map(told).unwrap_or_default();
    format!("{error} {error:?} {cause}")
}

#[tokio::test]
async fn a_busy_or_broken_service_is_asked_again() {
    let server = Server::start().await;
    let blobs = server.blobs().await;
    for fate in [
        Fate::Answer(503, "SlowDown"),
        Fate::Answer(500, "InternalError"),
        Fate::Answer(429, "TooManyRequests"),
        Fate::Answer(409, "ConditionalRequestConflict"),
        Fate::Answer(400, "BadDigest"),
        Fate::Break,
    ] {
        let id = SegmentId::fresh();
        let before = server.count(Seen::is_put);
        server.once(Seen::is_put, fate.clone());
        blobs.put(id, text()).await.unwrap();
        assert_eq!(server.count(Seen::is_put) - before, 2, "{fate:?}");
        server.once(Seen::is_get, fate);
        assert!(is_there(&blobs, id, TEXT).await);
    }
}

#[tokio::test]
async fn patience_ends() {
    let mut server = Server::start().await;
    server.config.retries_max = 2;
    let blobs = server.blobs().await;
    let id = SegmentId::fresh();
    blobs.put(id, text()).await.unwrap();
    server.plan(|_| Fate::Answer(503, "SlowDown"));
    let before = server.seen().len();
    assert!(matches!(blobs.get(id, 0..1).await, Err(BlobsError::Unavailable { .. })));
    assert_eq!(server.seen().len() - before, 3);
    assert!(matches!(blobs.put(SegmentId::fresh(), text()).await, Err(BlobsError::Unavailable { .. })));
    assert!(matches!(blobs.stat(id).await, Err(BlobsError::Unavailable { .. })));
    assert!(matches!(blobs.list(None, 9).await, Err(BlobsError::Unavailable { .. })));
    assert!(matches!(blobs.delete(id).await, Err(BlobsError::Unavailable { .. })));
    assert!(matches!(blobs.begin(id, 0).await.err(), Some(BlobsError::Unavailable { .. })));
    server.plan(|_| Fate::Answer(507, "InsufficientStorage"));
    assert!(matches!(blobs.put(SegmentId::fresh(), text()).await, Err(BlobsError::Full(_))));
    server.plan(|_| Fate::Pass);
    assert!(is_there(&blobs, id, TEXT).await);
}

#[tokio::test]
async fn an_answer_that_is_too_late_is_not_waited_for() {
    let mut server = Server::start().await;
    server.config.attempt_seconds_max = 1;
    server.config.call_seconds_max = 3;
    let blobs = server.blobs().await;
    let id = SegmentId::fresh();
    server.once(Seen::is_put, Fate::Late(Duration::from_secs(600)));
    blobs.put(id, text()).await.unwrap();
    server.once(Seen::is_get, Fate::Late(Duration::from_secs(600)));
    assert!(is_there(&blobs, id, TEXT).await);
    server.plan(|_| Fate::Late(Duration::from_secs(600)));
    assert!(matches!(blobs.get(id, 0..1).await, Err(BlobsError::Unavailable { .. })));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_asked_for_again() {
    let server = Server::start().await;
    let blobs = server.blobs().await;
    let id = SegmentId::fresh();
    let bytes = long(300_000);
    blobs.put(id, vec![bytes.clone()]).await.unwrap();
    server.once(Seen::is_get, Fate::CutBody);
    let before = server.count(Seen::is_get);
    assert_eq!(blobs.get(id, 1000..200_000).await.unwrap(), bytes[1000..200_000]);
    assert_eq!(server.count(Seen::is_get) - before, 2);
    server.plan(|seen| if seen.is_get() { Fate::CutBody } else { Fate::Pass });
    assert!(matches!(blobs.get(id, 1000..200_000).await, Err(BlobsError::Unavailable { .. })));
}

/// The write landed, its answer did not come, and the second attempt finds the key in use: by itself.
async fn put_with_a_lost_answer(server: &Server, blobs: &S3Blobs) -> (SegmentId, Result<(), BlobsError>) {
    let id = SegmentId::fresh();
    server.once(Seen::is_put, Fate::LoseAnswer);
    let before = server.count(Seen::is_put);
    let put = blobs.put(id, text()).await;
    assert_eq!(server.count(Seen::is_put) - before, 2);
    (id, put)
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_recognised() {
    let mut server = Server::start().await;
    let blobs = server.blobs().await;
    let (id, put) = put_with_a_lost_answer(&server, &blobs).await;
    put.unwrap();
    assert!(is_there(&blobs, id, TEXT).await);
    // What another wrote is not taken for it, be it the same bytes.
    let other = server.blobs().await;
    assert!(matches!(other.put(id, text()).await, Err(BlobsError::Exists(taken)) if taken == id));
    // Seen to be noticed: without looking at what is there, the message would be refused.
    server.config.believe_every_conflict = true;
    let blobs = server.blobs().await;
    let (id, put) = put_with_a_lost_answer(&server, &blobs).await;
    assert!(matches!(put, Err(BlobsError::Exists(_))));
    assert!(is_there(&blobs, id, TEXT).await);
}

#[tokio::test]
async fn every_write_is_conditional_and_has_a_checksum() {
    let mut server = Server::start().await;
    server.config.part_bytes = PART_BYTES_MIN;
    server.config.encryption = Encryption::Kms;
    server.config.encryption_key_id = Some("the key".into());
    let blobs = server.blobs().await;
    blobs.put(SegmentId::fresh(), text()).await.unwrap();
    let mut appender = blobs.begin(SegmentId::fresh(), 0).await.unwrap();
    appender.append(vec![long(PART_BYTES_MIN + 1)]).await.unwrap();
    appender.seal(Vec::new()).await.unwrap();
    let seen = server.seen();
    let has = |seen: &Seen, name: &str| seen.headers.contains_key(name);
    let completes =
        |seen: &&Seen| seen.is_put() && !seen.target.contains("partNumber") || seen.completes_upload();
    assert_eq!(seen.iter().filter(completes).count(), 2);
    assert!(seen.iter().filter(completes).all(|seen| has(seen, "if-none-match")));
    assert_eq!(seen.iter().filter(|seen| seen.is_put()).count(), 3);
    assert!(seen.iter().filter(|seen| seen.is_put()).all(|seen| has(seen, "x-amz-checksum-crc32c")));
    let encrypted = seen.iter().filter(|seen| {
        has(seen, "x-amz-server-side-encryption-aws-kms-key-id")
            && seen.headers["x-amz-server-side-encryption"] == "aws:kms"
    });
    assert_eq!(encrypted.count(), 2, "the object, and the upload when it begins");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_segments_go_in_parts_and_appear_at_once() {
    let mut server = Server::start().await;
    server.config.part_bytes = PART_BYTES_MIN;
    // In memory, and in files where there is no room.
    for waiting_bytes_max in [64 << 20, 0, 3 << 20] {
        server.config.waiting_bytes_max = waiting_bytes_max;
        let blobs = server.blobs().await;
        for length in [0, 5, PART_BYTES_MIN - 1, PART_BYTES_MIN, PART_BYTES_MIN + 1, 3 * PART_BYTES_MIN + 77]
        {
            let id = SegmentId::fresh();
            let bytes = long(length);
            let parts = |seen: &Seen| seen.is_put() && seen.target.contains("partNumber");
            let before = server.count(parts);
            let mut appender = blobs.begin(id, 0).await.unwrap();
            for start in (0..length).step_by(1_000_003) {
                appender.append(vec![bytes.slice(start..(start + 1_000_003).min(length))]).await.unwrap();
            }
            assert!(matches!(blobs.stat(id).await, Err(BlobsError::NotFound(_))));
            appender.seal(Vec::new()).await.unwrap();
            assert!(is_there(&blobs, id, &bytes).await, "{length}");
            let expected = if length < PART_BYTES_MIN { 0 } else { length.div_ceil(PART_BYTES_MIN) };
            assert_eq!(server.count(parts) - before, expected);
            assert!(matches!(blobs.begin(id, 0).await.err(), Some(BlobsError::Exists(_))));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_whose_answers_are_lost_is_recognised() {
    let mut server = Server::start().await;
    server.config.part_bytes = PART_BYTES_MIN;
    let blobs = server.blobs().await;
    // What services say of an upload that is completed differs.
    for (status, code) in [(404, "NoSuchUpload"), (412, "PreconditionFailed")] {
        let id = SegmentId::fresh();
        let bytes = long(2 * PART_BYTES_MIN + 3);
        let (mut parts, mut completions) = (0, 0);
        server.plan(move |seen| {
            if seen.target.contains("partNumber=2") {
                parts += 1;
                return if parts == 1 { Fate::LoseAnswer } else { Fate::Pass };
            }
            if seen.completes_upload() {
                completions += 1;
                return if completions == 1 { Fate::LoseAnswer } else { Fate::Answer(status, code) };
            }
            Fate::Pass
        });
        let mut appender = blobs.begin(id, 0).await.unwrap();
        appender.append(vec![bytes.clone()]).await.unwrap();
        appender.seal(Vec::new()).await.unwrap();
        server.plan(|_| Fate::Pass);
        assert!(is_there(&blobs, id, &bytes).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_fails_or_is_given_up_leaves_nothing() {
    let mut server = Server::start().await;
    server.config.part_bytes = PART_BYTES_MIN;
    server.config.retries_max = 1;
    let blobs = server.blobs().await;
    let aborts = |seen: &Seen| seen.method == hyper::Method::DELETE && seen.target.contains("uploadId=");
    let (failed, given_up) = (SegmentId::fresh(), SegmentId::fresh());
    server.plan(|seen| {
        if seen.target.contains("partNumber=2") { Fate::Answer(503, "SlowDown") } else { Fate::Pass }
    });
    let mut appender = blobs.begin(failed, 0).await.unwrap();
    // Which of the later calls hears of it depends on how far the part has come.
    let appended = appender.append(vec![long(3 * PART_BYTES_MIN)]).await;
    let sealed = appender.seal(Vec::new()).await;
    assert!(matches!(appended.and(sealed), Err(BlobsError::Unavailable { .. })));
    assert_eq!(server.count(aborts), 1);
    server.plan(|_| Fate::Pass);
    let mut appender = blobs.begin(given_up, 0).await.unwrap();
    appender.append(vec![long(3 * PART_BYTES_MIN)]).await.unwrap();
    appender.abort().await;
    assert_eq!(server.count(aborts), 2);
    for id in [failed, given_up] {
        assert!(matches!(blobs.stat(id).await, Err(BlobsError::NotFound(_))));
        drop(blobs.begin(id, 0).await.unwrap());
    }
    assert!(blobs.list(None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn wrong_bytes_are_noticed_where_the_service_gives_a_checksum() {
    let server = Server::start().await;
    let blobs = server.blobs().await;
    let id = SegmentId::fresh();
    blobs.put(id, text()).await.unwrap();
    server.once(Seen::is_get, Fate::FlipBit);
    let before = server.count(Seen::is_get);
    assert_eq!(blobs.get(id, 0..TEXT.len() as u64).await.unwrap(), TEXT);
    assert_eq!(server.count(Seen::is_get) - before, 2);
    server.plan(|seen| if seen.is_get() { Fate::FlipBit } else { Fate::Pass });
    assert!(matches!(blobs.get(id, 0..TEXT.len() as u64).await, Err(BlobsError::Unavailable { .. })));
}

/// A bucket that is not there, or a way that leads elsewhere, must never look like a message that is lost.
#[tokio::test]
async fn a_missing_bucket_is_no_missing_segment() {
    let server = Server::start().await;
    let blobs = server.blobs().await;
    let id = SegmentId::fresh();
    blobs.put(id, text()).await.unwrap();
    for fate in [
        Fate::Answer(404, "NoSuchBucket"),
        Fate::Answer(404, ""),
        Fate::Answer(403, "AccessDenied"),
        Fate::Answer(301, "PermanentRedirect"),
    ] {
        server.plan(move |_| fate.clone());
        assert!(matches!(blobs.get(id, 0..1).await, Err(BlobsError::Refused { .. })));
        assert!(matches!(blobs.get(id, 0..0).await, Err(BlobsError::Refused { .. })));
        assert!(matches!(blobs.stat(id).await, Err(BlobsError::Refused { .. })));
        assert!(matches!(blobs.list(None, 1).await, Err(BlobsError::Refused { .. })));
        assert!(matches!(blobs.put(SegmentId::fresh(), text()).await, Err(BlobsError::Refused { .. })));
        let begun = blobs.begin(SegmentId::fresh(), 0).await;
        let Ok(appender) = begun else { continue };
        assert!(matches!(appender.seal(text()).await, Err(BlobsError::Refused { .. })));
    }
}

#[tokio::test]
async fn secrets_are_in_no_error() {
    let server = Server::start().await;
    let wrong = Config { secret_access_key: Some(Secret::new("not the secret")), ..server.config.clone() };
    let blobs = S3Blobs::open(wrong).await.unwrap();
    let error = blobs.put(SegmentId::fresh(), text()).await.unwrap_err();
    assert!(matches!(error, BlobsError::Refused { .. }));
    let told = format!("{} {blobs:?}", told(&error));
    assert!(told.contains("403") && !told.contains("secret") && !told.contains("Signature="), "{told}");
}

#[tokio::test]
async fn strange_objects_are_left_alone() {
    let server = Server::start().await;
    let blobs: Arc<dyn Blobs> = Arc::new(server.blobs().await);
    let mut ids = Vec::new();
    for _ in 0..5 {
        let id = SegmentId::fresh();
        blobs.put(id, text()).await.unwrap();
        ids.push(id);
    }
    for name in ["0", "README", "ffff", &ids[2].0.to_string(), &ids[3].to_string().to_uppercase()] {
        std::fs::write(server.objects().join(name), "x").unwrap();
    }
    let mut found = Vec::new();
    loop {
        let page = blobs.list(found.last().copied(), 2).await.unwrap();
        assert!(page.len() <= 2);
        if page.is_empty() {
            break;
        }
        found.extend(page.iter().map(|info| info.segment));
    }
    assert_eq!(found, ids);
}
