//! What a crash leaves, and damage.

use std::fs;
use std::path::{Path, PathBuf};

use mail::id::EmailId;
use search::{Candidates, Ids, Needle, Place, Search};
use storage::Account;

use crate::setup::*;

fn anywhere(text: &str) -> Needle {
    Needle { place: Place::Anywhere, text: text.to_owned() }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            // A merge may take a file away meanwhile.
            let _ = fs::copy(entry.path(), target);
        }
    }
}

/// Searches with what lies in `dir` give what looking at everything gives.
async fn check(installation: &Installation, account: &Account, dir: PathBuf, what: &str) -> Search {
    let config = search::Config { dir, ..installation.config.clone() };
    let search = Search::open(installation.storage.clone(), config).await.unwrap();
    let all = look_at_all(account).await;
    let mut random = Random::new(7);
    for _ in 0..40 {
        let needle = needle(&mut random, &all);
        let candidates = search.candidates(account.id(), std::slice::from_ref(&needle)).await;
        let (brute, found, _) = compare(&all, &candidates, &needle);
        assert_eq!(brute, found, "{needle:?} {what}");
    }
    search
}

/// The files as they are at any moment, as a kill leaves them: at each commit, and amid documents that no commit has
/// taken yet. Each opens, answers right, and is caught up with from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_each_commit_and_between() {
    let mut place = Installation::new().await;
    place.config.batch_emails = 3;
    place.config.commit_emails = 5;
    place.config.commit_seconds = 3600;
    let account = place.account(1).await;
    let search = place.search().await;
    let mut random = Random::new(42);
    for number in 0..60 {
        append(&account, &message(&mut random, number)).await;
    }
    let dir = place.config.dir.clone();
    let mut images = Vec::new();
    while_following(&search, async {
        search.touch(account.id());
        let mut seen = 0;
        for number in 0..4_000 {
            let standing = search.standing(&account).await.unwrap();
            if standing.mark.indexed.0 != seen || number % 7 == 0 && images.len() < 8 {
                seen = standing.mark.indexed.0;
                let image = place.dir.path().join(format!("image-{number}"));
                copy_dir(&dir, &image);
                images.push(image);
            }
            if standing.mark.indexed == standing.last {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await;
    let finals = place.dir.path().join("image-final");
    copy_dir(&dir, &finals);
    images.push(finals);
    assert!(images.len() > 4, "{} images", images.len());
    let mut standings = Vec::new();
    for image in images {
        let again = check(&place, &account, image, "after a kill").await;
        standings.push(again.standing(&account).await.unwrap().mark.indexed.0);
        follow(&again, &account).await;
        let candidates = again.candidates(account.id(), &[anywhere("report")]).await;
        assert_eq!(candidates.unindexed.after, EmailId(60));
        // Each email once, however often a crash made it come again.
        let found =
            again.find(&account, &search::Wanted::read(search::Texts::From, "example")).await.unwrap();
        let mut ids: Vec<u64> = found.hits.iter().map(|hit| hit.email.0).collect();
        ids.dedup();
        assert_eq!(ids.len(), found.hits.len());
        assert_eq!(ids.len(), 60);
    }
    println!("killed with so many emails in the index: {standings:?}");
}

async fn indexed(place: &Installation) -> (Account, Search) {
    let account = place.account(1).await;
    let search = place.search().await;
    let mut random = Random::new(5);
    for number in 0..30 {
        append(&account, &message(&mut random, number)).await;
    }
    follow(&search, &account).await;
    (account, search)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A flipped bit, a cut and a missing file, in each file in turn: answers stay right, and what is damaged is made anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_noticed_and_repaired() {
    let place = Installation::new().await;
    let (account, search) = indexed(&place).await;
    drop(search);
    let good = place.config.dir.clone();
    let (mut damaged, mut repaired) = (0, 0);
    for file in files(&good) {
        let name = file.strip_prefix(&good).unwrap().to_owned();
        if name.extension().is_some_and(|kind| kind == "lock") {
            continue;
        }
        for kind in 0..3 {
            let image = place.dir.path().join(format!("damaged-{damaged}"));
            copy_dir(&good, &image);
            let target = image.join(&name);
            let mut bytes = fs::read(&target).unwrap();
            match kind {
                0 if bytes.is_empty() => continue,
                0 => {
                    let at = bytes.len() / 2;
                    bytes[at] ^= 0x10;
                    fs::write(&target, &bytes).unwrap();
                }
                1 => fs::write(&target, &bytes[..bytes.len() / 2]).unwrap(),
                _ => fs::remove_file(&target).unwrap(),
            }
            damaged += 1;
            let what = format!("with {} damaged in way {kind}", name.display());
            let again = check(&place, &account, image.clone(), &what).await;
            follow(&again, &account).await;
            let candidates = again.candidates(account.id(), &[anywhere("no such text anywhere")]).await;
            assert_eq!(candidates.ids, Ids::These(Vec::new()), "{what}");
            repaired +=
                usize::from(files(&image).iter().any(|file| file.to_string_lossy().contains("damaged-0")));
        }
    }
    println!("{damaged} damages, after {repaired} of them a shard was set aside");
    assert!(damaged > 20 && repaired > 10);
}

/// Files that are damaged under an open index are found by a look at all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_under_an_open_index() {
    let place = Installation::new().await;
    let (account, search) = indexed(&place).await;
    let dir = place.config.dir.clone();
    assert_eq!(search.verify().await.unwrap(), 0);
    let term =
        files(&dir).into_iter().find(|file| file.extension().is_some_and(|kind| kind == "term")).unwrap();
    let mut bytes = fs::read(&term).unwrap();
    let at = bytes.len() / 3;
    bytes[at] ^= 1;
    // In place, so that what is mapped changes.
    let file = fs::OpenOptions::new().write(true).open(&term).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    assert_eq!(search.verify().await.unwrap(), 1);
    let candidates = search.candidates(account.id(), &[anywhere("report")]).await;
    assert_eq!(candidates.unindexed.after, EmailId(0), "nothing is in the new index yet");
    follow(&search, &account).await;
    let all = look_at_all(&account).await;
    let needle = anywhere("report");
    let candidates: Candidates = search.candidates(account.id(), std::slice::from_ref(&needle)).await;
    let (brute, found, _) = compare(&all, &candidates, &needle);
    assert!(candidates.unindexed.after == EmailId(30) && brute == found);
}

/// A directory that cannot be written leaves searches that look at everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_cannot_be_written() {
    let place = Installation::new().await;
    let account = place.account(1).await;
    append(&account, b"Subject: one\r\n\r\ntext\r\n").await;
    let search = place.search().await;
    // A file where a shard should be, which no right to write helps against.
    for shard in ["shard-0000", "shard-0001"] {
        fs::write(place.config.dir.join("g-00000001").join(shard), "in the way").unwrap();
    }
    let candidates = search.candidates(account.id(), &[anywhere("text")]).await;
    assert_eq!(candidates, Candidates::UNKNOWN);
    let found = search.find(&account, &search::Wanted::read(search::Texts::Any, "text")).await.unwrap();
    assert!(found.hits.len() == 1 && found.is_complete);
}
