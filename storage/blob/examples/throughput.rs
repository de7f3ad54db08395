//! Measures what the blob store does on a disk: durable small bodies per second, and a large one in and out with the
//! memory that it adds.
//!
//! `cargo run --release -p blob --example throughput -- DIR [WRITERS [SECONDS]]`

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use blob::dir::{DirBlobs, DirConfig};
use blob::keys::KeyEncryptionKey;
use blob::{BlobStore, Config, Holder, KeyId, KeyRing};
use bytes::Bytes;
use engine::Rows;
use engine::memory::MemoryEngine;
use futures_util::StreamExt;
use uuid::Uuid;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const ACCOUNT: Uuid = Uuid::from_bytes([1; 16]);
const BODY_BYTES: usize = 20_000;

#[tokio::main]
#[allow(clippy::print_stdout, reason = "a measurement is printed")]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("needs a folder")?);
    let writers: usize = arguments.next().map_or(Ok(64), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    for preallocate in [false, true] {
        let store = open(&dir.join(format!("preallocate-{preallocate}")), preallocate).await?;
        let (rate, p50, p99) = small(&store, writers, Duration::from_secs(seconds)).await?;
        println!(
            "{writers} writers, {BODY_BYTES} bytes, preallocate {preallocate}: {rate:.0} durable bodies/s, p50 {p50:.1?}, p99 {p99:.1?}"
        );
        store.close().await;
    }
    let store = open(&dir.join("large"), true).await?;
    large(&store).await?;
    store.close().await;
    Ok(())
}

async fn open(dir: &std::path::Path, preallocate: bool) -> Outcome<BlobStore> {
    let blobs = DirBlobs::open(dir, DirConfig { preallocate, ..DirConfig::default() })?;
    let rows: Arc<dyn Rows> = Arc::new(MemoryEngine::new());
    let config = Config::default();
    let keys = KeyRing::new(KeyEncryptionKey::from_secret(&[1; 32]), Arc::clone(&rows), &config);
    keys.ensure(KeyId::Account(ACCOUNT)).await?;
    Ok(BlobStore::new(Arc::new(blobs), rows, keys, config).await?)
}

async fn small(store: &BlobStore, writers: usize, time: Duration) -> Outcome<(f64, Duration, Duration)> {
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|seed| {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let body = text(seed as u64, BODY_BYTES);
                let mut times = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let mut writer = store.writer(Holder::Account(ACCOUNT), KeyId::Account(ACCOUNT));
                    writer.write(body.clone()).await?;
                    writer.finish(Bytes::new()).await?;
                    times.push(begun.elapsed());
                }
                Ok::<_, blob::WriteError>(times)
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    times.sort_unstable();
    Ok((rate, times[times.len() / 2], times[times.len() * 99 / 100]))
}

#[allow(clippy::print_stdout, reason = "a measurement is printed")]
async fn large(store: &BlobStore) -> Outcome<()> {
    const PIECE: usize = 64 << 10;
    let pieces = (1 << 30) / PIECE;
    let piece = text(7, PIECE);
    let watch = Watch::start();
    let begun = Instant::now();
    let mut writer = store.writer(Holder::Account(ACCOUNT), KeyId::Account(ACCOUNT));
    for _ in 0..pieces {
        writer.write(piece.clone()).await?;
    }
    let stored = writer.finish(Bytes::new()).await?;
    println!("1 GiB in: {:.1?}, {} KiB more memory at the peak", begun.elapsed(), watch.peak_kib());
    let begun = Instant::now();
    let reader = store.open(stored.address(), KeyId::Account(ACCOUNT)).await?;
    let mut out = reader.read_range(0..u64::MAX);
    let mut bytes = 0u64;
    while let Some(piece) = out.next().await {
        bytes += piece?.len() as u64;
    }
    println!("{bytes} bytes out: {:.1?}, {} KiB more memory at the peak", begun.elapsed(), watch.peak_kib());
    Ok(())
}

/// Samples the resident memory.
struct Watch {
    before: u64,
    peak: Arc<AtomicU64>,
}

impl Watch {
    fn start() -> Self {
        let peak = Arc::new(AtomicU64::new(0));
        let sampled = Arc::clone(&peak);
        tokio::spawn(async move {
            loop {
                sampled.fetch_max(resident_kib(), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { before: resident_kib(), peak }
    }

    fn peak_kib(&self) -> u64 {
        self.peak.load(Ordering::Relaxed).saturating_sub(self.before)
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
}

/// Bytes that compress about as well as mail does.
fn text(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 40);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        for byte in state.to_le_bytes() {
            bytes.push(b'a' + byte % 26);
        }
        bytes.extend_from_slice(if state & 1 == 0 { b" and the " } else { b" message\r\n" });
    }
    bytes.truncate(length);
    bytes.into()
}
