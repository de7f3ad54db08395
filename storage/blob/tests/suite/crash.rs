//! Power cuts and damage: what was acknowledged is there, what is broken is said, and never a wrong byte.

use std::sync::Arc;

use crate::support::{TestRows, read, store, text, write};
use blob::dir::{DirBlobs, DirConfig};
use blob::memory::{MemoryBlobs, Unsynced};
use blob::{BlobAddress, BlobStore, Blobs, Config, Fate, ReadError, Stored};
use bytes::Bytes;
use proptest::prelude::*;

fn small_segments() -> Config {
    Config { segment_bytes: 40_000, cache_bytes: 0, ..Config::default() }
}

/// After every sync of a mixed load, with what was not synced dropped, kept and torn: all that had been acknowledged by
/// then is there and true.
// With threads, as in a server: what is encoded aside comes in between, so that there are many small groups.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_blob_survives_every_power_cut() {
    let blobs = MemoryBlobs::new();
    let rows = Arc::new(TestRows::default());
    let first = store(Arc::new(blobs.clone()), &rows, small_segments()).await;
    let tasks: Vec<_> = (0..6u64)
        .map(|lane| {
            let (store, blobs) = (first.clone(), blobs.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for round in 0..8u64 {
                    let seed = lane * 100 + round;
                    let size = if seed % 17 == 0 { (1 << 20) + 5000 } else { 300 * (seed as usize % 40) };
                    let body = text(seed, size);
                    let stored = write(&store, &body, b"facts").await;
                    acknowledged.push((blobs.syncs(), *stored.address(), body));
                }
                acknowledged
            })
        })
        .collect();
    let mut acknowledged: Vec<(u64, BlobAddress, Bytes)> = Vec::new();
    for task in tasks {
        acknowledged.extend(task.await.unwrap());
    }
    let syncs = blobs.syncs();
    assert!(syncs > 20, "{syncs} syncs");
    let mut seen = std::collections::BTreeSet::new();
    for at in 0..=syncs {
        for unsynced in [Unsynced::Dropped, Unsynced::Kept, Unsynced::Torn(at), Unsynced::Torn(at + 1000)] {
            let image = blobs.image(at, unsynced);
            let reopened = store(Arc::new(image.clone()), &rows, small_segments()).await;
            for recovered in reopened.recovered() {
                seen.insert(recovered.fate as u8);
                assert!(
                    recovered.damaged.is_empty() || matches!(unsynced, Unsynced::Torn(_)),
                    "{recovered:?}"
                );
            }
            assert!(image.unsealed().await.unwrap().is_empty());
            for info in image.list(None, 1000).await.unwrap() {
                let check = reopened.check_segment(info.segment).await.unwrap();
                assert!(check.damaged.is_empty() || matches!(unsynced, Unsynced::Torn(_)), "{check:?}");
            }
            for (_, address, body) in acknowledged.iter().filter(|(synced, ..)| *synced <= at) {
                assert!(read(&reopened, address).await.unwrap() == *body, "after sync {at}, {unsynced:?}");
            }
            for (_, address, body) in acknowledged.iter().filter(|(synced, ..)| *synced > at) {
                // May be there or not; never wrong.
                if let Ok(read) = read(&reopened, address).await {
                    assert!(read == *body);
                }
            }
            // Goes on working.
            let after = write(&reopened, &text(9999, 500), b"").await;
            assert!(read(&reopened, after.address()).await.unwrap() == text(9999, 500));
        }
    }
    for fate in [Fate::Sealed, Fate::Removed] {
        assert!(seen.contains(&(fate as u8)), "{fate:?} was never needed");
    }
}

/// A process that dies, on files: the runtime goes, and with it the task that would have sealed.
#[test]
fn files_that_a_dead_process_left_are_recovered() {
    let dir = tempfile::tempdir().unwrap();
    let rows = Arc::new(TestRows::default());
    let mut written: Vec<(BlobAddress, Bytes)> = Vec::new();
    for round in 0..4u64 {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let blobs = Arc::new(DirBlobs::open(dir.path(), DirConfig::default()).unwrap());
            let store = store(blobs, &rows, Config { cache_bytes: 0, ..Config::default() }).await;
            let fates: Vec<Fate> = store.recovered().iter().map(|recovered| recovered.fate).collect();
            match round {
                0 => assert!(fates.is_empty()),
                _ => assert!(fates.contains(&Fate::Sealed) && fates.contains(&Fate::Removed), "{fates:?}"),
            }
            for (address, body) in &written {
                assert!(read(&store, address).await.unwrap() == *body);
            }
            for seed in 0..10 {
                let body = text(round * 100 + seed, 2000 * seed as usize);
                written.push((*write(&store, &body, b"").await.address(), body));
            }
            let body = text(round, 2 << 20);
            written.push((*write(&store, &body, b"").await.address(), body));
            // One that is still coming in.
            let mut writer = store.writer(crate::support::HOLDER, crate::support::KEY);
            writer.write(text(round, 2 << 20)).await.unwrap();
            std::mem::forget(writer);
            // And the process is gone before it can seal.
            std::mem::forget(store);
        });
        runtime.shutdown_background();
        // What a write in progress leaves behind.
        for entry in std::fs::read_dir(dir.path().join("open")).unwrap() {
            let mut file = std::fs::OpenOptions::new().append(true).open(entry.unwrap().path()).unwrap();
            std::io::Write::write_all(&mut file, &text(1, 5000)).unwrap();
        }
        // The forgotten store keeps the lock, as the dead process would not.
        std::fs::remove_file(dir.path().join("lock")).unwrap();
    }
}

/// A store whose one segment holds five messages and is not sealed.
async fn five_messages() -> (MemoryBlobs, Arc<TestRows>, BlobStore, Vec<Stored>) {
    let blobs = MemoryBlobs::new();
    let rows = Arc::new(TestRows::default());
    let store = store(Arc::new(blobs.clone()), &rows, Config::default()).await;
    let mut written = Vec::new();
    for seed in 0..5 {
        written.push(write(&store, &text(seed, 3000), b"").await);
    }
    (blobs, rows, store, written)
}

#[tokio::test]
async fn damage_in_the_middle_of_an_unsealed_segment_costs_only_what_it_hit() {
    let (blobs, rows, _first, written) = five_messages().await;
    let written: Vec<BlobAddress> = written.iter().map(|stored| *stored.address()).collect();
    let hit = written[2];
    let image = blobs.image(blobs.syncs(), Unsynced::Dropped);
    image.damage(hit.segment, |bytes| {
        bytes[hit.offset as usize + 100] ^= 1;
        bytes.extend_from_slice(b"torn tail PRF1 that begins like a frame");
    });
    let reopened = store(Arc::new(image.clone()), &rows, Config::default()).await;
    let recovered = &reopened.recovered()[0];
    assert_eq!((recovered.fate, recovered.frames), (Fate::Sealed, 4));
    assert_eq!(recovered.damaged, [(hit.offset, hit.length)]);
    assert_eq!(recovered.cut_bytes, 39);
    for (seed, address) in written.iter().enumerate() {
        match read(&reopened, address).await {
            Ok(body) => assert!(seed != 2 && body == text(seed as u64, 3000)),
            Err(error) => {
                assert!(seed == 2 && matches!(error, ReadError::Damaged { frame: 2, .. }), "{error}");
            }
        }
    }
    let check = reopened.check_segment(hit.segment).await.unwrap();
    assert_eq!((check.frames, check.damaged.len()), (4, 1));
    assert_eq!(reopened.index(hit.segment).await.unwrap().damaged, [(hit.offset, hit.length)]);
}

/// A group is written at once, so a power cut may break a frame of it and leave a later one whole. Nobody in the group
/// had an answer, and so nobody has a reference: that is no damage.
#[tokio::test]
async fn a_torn_frame_before_an_intact_one_of_its_group_is_no_damage() {
    let (blobs, rows, first, written) = five_messages().await;
    let (torn, whole) = (*written[2].address(), *written[4].address());
    let nonce = written[2].nonce();
    first.unreference(torn.segment, torn.frame, crate::support::HOLDER, nonce).await.unwrap();
    let image = blobs.image(blobs.syncs(), Unsynced::Dropped);
    image.damage(torn.segment, |bytes| bytes[torn.offset as usize + 100] ^= 1);
    let reopened = store(Arc::new(image), &rows, Config::default()).await;
    let recovered = &reopened.recovered()[0];
    assert_eq!((recovered.fate, recovered.frames), (Fate::Sealed, 4));
    assert_eq!((recovered.torn_bytes, recovered.damaged.len()), (torn.length, 0));
    assert!(reopened.check_segment(torn.segment).await.unwrap().damaged.is_empty());
    assert!(matches!(read(&reopened, &torn).await, Err(ReadError::Damaged { .. })));
    assert!(read(&reopened, &whole).await.unwrap() == text(4, 3000));
}

/// A large message is synced once, at its end, so a power cut may keep the footer of its segment and tear its frame.
/// Nobody had an answer then: that is no damage, and nothing is left. Where somebody has one, it is damage and is kept.
#[tokio::test]
async fn a_streamed_segment_with_its_footer_and_a_torn_frame_is_removed() {
    let blobs = MemoryBlobs::new();
    let rows = Arc::new(TestRows::default());
    let first = store(Arc::new(blobs.clone()), &rows, Config::default()).await;
    let written = write(&first, &text(1, 2 << 20), b"").await;
    let address = *written.address();
    let torn = || {
        // Before the last sync, which is that of this segment.
        let image = blobs.image(blobs.syncs() - 1, Unsynced::Kept);
        image.damage(address.segment, |bytes| bytes[address.offset as usize + 5000] ^= 1);
        image
    };
    let kept = store(Arc::new(torn()), &rows, Config::default()).await;
    let of = |store: &BlobStore| {
        store.recovered().iter().find(|recovered| recovered.segment == address.segment).map(|one| one.fate)
    };
    assert_eq!(of(&kept), Some(Fate::Complete));
    assert_eq!(kept.check_segment(address.segment).await.unwrap().damaged.len(), 1);
    first.unreference(address.segment, address.frame, crate::support::HOLDER, written.nonce()).await.unwrap();
    let image = torn();
    let removed = store(Arc::new(image.clone()), &rows, Config::default()).await;
    assert_eq!(of(&removed), Some(Fate::Removed));
    assert!(image.stat(address.segment).await.is_err());
}

#[tokio::test]
async fn every_flipped_bit_is_noticed_and_never_read() {
    let blobs = MemoryBlobs::new();
    let rows = Arc::new(TestRows::default());
    let store = store(Arc::new(blobs.clone()), &rows, small_segments()).await;
    let body = text(1, 700);
    let address = *write(&store, &body, b"some facts").await.address();
    let other = *write(&store, &text(2, 700), b"").await.address();
    for at in address.offset..address.offset + address.length {
        for bit in 0..8 {
            blobs.damage(address.segment, |bytes| bytes[at as usize] ^= 1 << bit);
            let reader = store.open(&address, crate::support::KEY).await.unwrap();
            match crate::support::read_range(&reader, 0..u64::MAX).await {
                Ok(read) => assert!(read == body, "byte {at} bit {bit}"),
                Err(error) => {
                    assert!(matches!(error, ReadError::Damaged { frame: 0, .. }) && !error.is_temporary());
                }
            }
            assert!(reader.verify().await.is_err(), "byte {at} bit {bit}");
            let check = store.check_segment(address.segment).await.unwrap();
            assert_eq!(check.frames, 1, "byte {at} bit {bit}");
            blobs.damage(address.segment, |bytes| bytes[at as usize] ^= 1 << bit);
        }
    }
    assert!(read(&store, &address).await.unwrap() == body);
    assert!(read(&store, &other).await.unwrap() == text(2, 700));
}

type Change<'a> = &'a dyn Fn(&mut Vec<u8>);

#[tokio::test]
async fn a_large_blob_that_was_cut_or_rearranged_is_noticed() {
    let blobs = MemoryBlobs::new();
    let store = store(Arc::new(blobs.clone()), &Arc::default(), small_segments()).await;
    let mut body = vec![0; 5 << 18];
    rand::RngCore::fill_bytes(&mut rand::rng(), &mut body);
    let address = *write(&store, &Bytes::from(body.clone()), b"facts").await.address();
    let length = blobs.stat(address.segment).await.unwrap().length;
    let good = blobs.get(address.segment, 0..length).await.unwrap();
    let chunk = (256 << 10) + 17;
    let at = address.offset as usize + 32;
    let damages: [Change<'_>; 5] = [
        // Two chunks change places; both are sealed by the right key.
        &|bytes| {
            let first = bytes[at..at + chunk].to_vec();
            bytes.copy_within(at + chunk..at + 2 * chunk, at);
            bytes[at + chunk..at + 2 * chunk].copy_from_slice(&first);
        },
        // One is there twice.
        &|bytes| bytes.copy_within(at..at + chunk, at + chunk),
        &|bytes| bytes.truncate(bytes.len() / 2),
        &|bytes| bytes.truncate(address.offset as usize),
        &|bytes| bytes.clear(),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        blobs.damage(address.segment, |bytes| damage(bytes));
        assert!(matches!(read(&store, &address).await, Err(ReadError::Damaged { .. })), "damage {number}");
        blobs.damage(address.segment, |bytes| *bytes = good.to_vec());
        assert!(read(&store, &address).await.unwrap() == body);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the bytes: an answer, no panic, no large allocation (a hostile length would abort the test).
    #[test]
    fn decoding_anything_ends(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 0..4u8) {
        // Magic and checksums are put right, so that the fields behind them are reached.
        let length = bytes.len();
        match kind {
            0 if length >= 48 => {
                bytes[..8].copy_from_slice(b"PRSEG1\r\n");
                let crc = crc32c::crc32c(&bytes[..44]);
                bytes[44..48].copy_from_slice(&crc.to_le_bytes());
            }
            1 if length >= 64 => {
                bytes[length - 8..].copy_from_slice(b"PRSEGEND");
                let crc = crc32c::crc32c(&bytes[length - 64..length - 12]);
                bytes[length - 12..length - 8].copy_from_slice(&crc.to_le_bytes());
            }
            2 if length >= 92 => {
                bytes[length - 4..].copy_from_slice(b"PRT1");
                let header = blob::format::frame::FrameHeader { dictionary: 0, frame: 1, length: length as u64 };
                bytes[..32].copy_from_slice(&header.encode());
            }
            _ => {}
        }
        let _ = blob::format::decode_header(&bytes);
        prop_assert!(blob::format::decode_frame(&bytes).is_err());
        prop_assert!(blob::format::decode_footer(&bytes).is_err());
    }

    /// A whole segment with a few bytes changed or its end cut: all reads give the truth or an error.
    #[test]
    fn damaged_segments_never_give_wrong_bytes(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let blobs = MemoryBlobs::new();
            let rows = Arc::new(TestRows::default());
            let first = store(Arc::new(blobs.clone()), &rows, small_segments()).await;
            let mut written = Vec::new();
            for seed in 0..4 {
                written.push(*write(&first, &text(seed, 900 * seed as usize), b"facts").await.address());
            }
            first.close().await;
            let segment = written[0].segment;
            blobs.damage(segment, |bytes| {
                for (at, value) in &changes {
                    let at = at.index(bytes.len());
                    bytes[at] = *value;
                }
                if let Some(cut) = cut {
                    bytes.truncate(cut.index(bytes.len()));
                }
            });
            let again = store(Arc::new(blobs.clone()), &rows, small_segments()).await;
            let check = again.check_segment(segment).await.unwrap();
            prop_assert!(check.frames <= 4);
            for (seed, address) in written.iter().enumerate() {
                match read(&again, address).await {
                    Ok(body) => prop_assert!(body == text(seed as u64, 900 * seed)),
                    Err(ReadError::Damaged { .. }) => prop_assert!(!check.damaged.is_empty()),
                    Err(error) => prop_assert!(false, "{error}"),
                }
            }
            Ok(())
        })?;
    }
}
