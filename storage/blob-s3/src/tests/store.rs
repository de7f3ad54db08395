//! A whole blob store on S3.

use std::sync::Arc;
use std::time::Duration;

use blob::keys::KeyEncryptionKey;
use blob::{BlobStore, Config, Holder, KeyId, KeyRing, ReadError, Stored};
use bytes::Bytes;
use engine::memory::MemoryEngine;
use futures_util::StreamExt;
use uuid::Uuid;

use crate::stand_in::{Fate, Seen, Server};

const ACCOUNT: Uuid = Uuid::from_bytes([0xaa; 16]);
const KEY: KeyId = KeyId::Account(ACCOUNT);

async fn store(server: &Server, config: Config) -> BlobStore {
    let rows = MemoryEngine::new().engine().rows;
    let keys = KeyRing::new(KeyEncryptionKey::from_secret(&[9; 32]), Arc::clone(&rows), &config);
    keys.ensure(KEY).await.unwrap();
    BlobStore::new(Arc::new(server.blobs().await), rows, keys, config).await.unwrap()
}

/// Bytes that do not compress.
fn body(seed: u64, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

async fn write(store: &BlobStore, body: &Bytes) -> Stored {
    let mut writer = store.writer(Holder::Account(ACCOUNT), KEY);
    for start in (0..body.len()).step_by(100_000) {
        writer.write(body.slice(start..(start + 100_000).min(body.len()))).await.unwrap();
    }
    writer.finish(Bytes::from_static(b"facts")).await.unwrap()
}

async fn read(store: &BlobStore, stored: &Stored) -> Result<Vec<u8>, ReadError> {
    let reader = store.open(stored.address(), KEY).await?;
    let mut pieces = reader.read_range(0..u64::MAX);
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all)
}

/// Five hundred sessions that go on and on, a hundred milliseconds a PUT.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_sessions_share_their_puts() {
    const SESSIONS: usize = 500;
    const EACH: usize = 4;
    let server = Server::start().await;
    server.plan(|seen| if seen.is_put() { Fate::Late(Duration::from_millis(100)) } else { Fate::Pass });
    let store = store(&server, Config::default()).await;
    let sessions: Vec<_> = (0..SESSIONS)
        .map(|session| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut written = Vec::new();
                for number in 0..EACH {
                    let body = body((session * EACH + number) as u64, 2000 + session);
                    let stored = write(&store, &body).await;
                    written.push((body, stored));
                }
                written
            })
        })
        .collect();
    let mut written = Vec::new();
    for session in sessions {
        written.extend(session.await.unwrap());
    }
    let puts = server.count(Seen::is_put);
    let share = puts as f64 / written.len() as f64;
    println!("{puts} PUTs for {} messages: {share:.4} each", written.len());
    assert!(share <= 0.05, "{puts} PUTs for {} messages", written.len());
    server.plan(|_| Fate::Pass);
    for (body, stored) in written.iter().step_by(41) {
        assert!(read(&store, stored).await.unwrap() == *body);
    }
    let segments = store.blobs().list(None, 1000).await.unwrap();
    assert_eq!(segments.len(), puts);
    for info in segments {
        let check = store.check_segment(info.segment).await.unwrap();
        assert!(check.damaged.is_empty() && check.frames > 0, "{check:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_alone_goes_at_once_and_large_ones_by_themselves() {
    let mut server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    server.config.cache_folder = Some(dir.path().into());
    server.config.part_bytes = crate::config::PART_BYTES_MIN;
    let store = store(&server, Config::default()).await;
    for (puts, length) in [(1, 0), (1, 20_000), (1, (1 << 20) - 1), (1, 2 << 20), (4, 18 << 20)] {
        let before = server.count(Seen::is_put);
        let body = body(length as u64, length);
        let stored = write(&store, &body).await;
        assert_eq!(server.count(Seen::is_put) - before, puts, "{length}");
        assert!(read(&store, &stored).await.unwrap() == body);
        let reader = store.open(stored.address(), KEY).await.unwrap();
        reader.verify().await.unwrap();
        assert_eq!(reader.facts().await.unwrap(), "facts");
        store.prefetch([(stored.address(), u64::MAX)]);
    }
}

/// A range has no checksum on its way: what guards it are the seals.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_are_never_given_out() {
    for cached in [false, true] {
        let mut server = Server::start().await;
        let dir = tempfile::tempdir().unwrap();
        server.config.retries_max = 1;
        for length in [30_000, 3 << 20] {
            server.config.cache_folder = cached.then(|| dir.path().join(length.to_string()));
            let store = store(&server, Config { cache_bytes: 0, ..Config::default() }).await;
            let body = body(length as u64, length);
            // Two in one segment, so that no read is of all of it.
            let (stored, _other) = tokio::join!(write(&store, &body), write(&store, &body));
            for spoilt in 0..3 {
                let mut reads = 0;
                server.plan(move |seen| {
                    reads += usize::from(seen.is_get());
                    if seen.is_get() && reads == spoilt + 1 { Fate::FlipBit } else { Fate::Pass }
                });
                assert!(read(&store, &stored).await.unwrap() == body, "one wrong answer is asked for again");
                store.blobs().distrust(stored.address().segment, 0..u64::MAX).await;
            }
            server.plan(|seen| if seen.is_get() { Fate::FlipBit } else { Fate::Pass });
            let spoilt = read(&store, &stored).await.unwrap_err();
            assert!(matches!(spoilt, ReadError::Damaged { .. } | ReadError::Blobs(_)), "{spoilt:?}");
            server.plan(|_| Fate::Pass);
            assert!(read(&store, &stored).await.unwrap() == body, "nothing wrong stays in the cache");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_that_was_not_stored() {
    let mut server = Server::start().await;
    server.config.retries_max = 1;
    let store = store(&server, Config::default()).await;
    let whole = body(1, 5000);
    server.plan(|seen| if seen.is_put() { Fate::Answer(503, "SlowDown") } else { Fate::Pass });
    for length in [5000, 2 << 20] {
        let mut writer = store.writer(Holder::Account(ACCOUNT), KEY);
        writer.write(body(1, length)).await.unwrap();
        let error = writer.finish(Bytes::new()).await.unwrap_err();
        assert!(error.is_temporary(), "{error:?}");
    }
    assert!(store.blobs().list(None, 10).await.unwrap().is_empty());
    // The service comes back, and so does the store.
    server.plan(|_| Fate::Pass);
    let stored = write(&store, &whole).await;
    assert!(read(&store, &stored).await.unwrap() == whole);
}
