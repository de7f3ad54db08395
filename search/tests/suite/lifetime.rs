//! Emails and accounts that go, generations that come.

use std::fs;
use std::path::Path;

use mail::id::EmailId;
use search::{Ids, Needle, Place, Texts, Wanted};
use storage::Account;

use crate::setup::*;

fn anywhere(text: &str) -> Needle {
    Needle { place: Place::Anywhere, text: text.to_owned() }
}

async fn candidates(search: &search::Search, account: &Account, text: &str) -> Ids {
    search.candidates(account.id(), &[anywhere(text)]).await.ids
}

fn these(numbers: &[u64]) -> Ids {
    Ids::These(numbers.iter().copied().map(EmailId).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn destroyed_emails_go() {
    let place = Installation::new().await;
    let account = place.account(1).await;
    let search = place.search().await;
    for number in 0..6 {
        append(&account, format!("Subject: {number}\r\n\r\nsame words\r\n").as_bytes()).await;
    }
    follow(&search, &account).await;
    assert_eq!(candidates(&search, &account, "same words").await, these(&[1, 2, 3, 4, 5, 6]));
    remove(&account, &[1, 4]).await;
    append(&account, b"Subject: 7\r\n\r\nsame words\r\n").await;
    // One that goes before it was ever looked at.
    append(&account, b"Subject: 8\r\n\r\nsame words\r\n").await;
    remove(&account, &[5]).await;
    follow(&search, &account).await;
    assert_eq!(candidates(&search, &account, "same words").await, these(&[1, 3, 4, 6, 7]));
    let found = search.find(&account, &Wanted::read(Texts::Body, "words")).await.unwrap();
    assert_eq!(found.hits.iter().map(|hit| hit.email.0).collect::<Vec<_>>(), [1, 3, 4, 6, 7]);
}

/// Where the account does not remember any more what was destroyed, the index is compared with what is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn destroyed_beyond_the_horizon() {
    let layout = storage::Layout { index_messages: 8, email_records: 6, run_keys: 4, trail_bytes: 60 };
    let config = storage::Config { layout, expunged_bytes_max: 100, ..storage::Config::default() };
    let place = Installation::with(config, true).await;
    let account = place.account(1).await;
    let search = place.search().await;
    for number in 0..200 {
        append(&account, format!("Subject: {number}\r\n\r\nsame words\r\n").as_bytes()).await;
    }
    follow(&search, &account).await;
    let mark = search.standing(&account).await.unwrap().mark;
    let mut removed = 0;
    while account.destroyed_since(mark.swept).await.unwrap().1 != storage::Destroyed::Forgotten {
        remove(&account, &[0]).await;
        removed += 1;
        assert!(removed < 190, "the account remembers everything");
        // Forgetting goes by what snapshots have written.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    append(&account, b"Subject: x\r\n\r\nsame words\r\n").await;
    follow(&search, &account).await;
    let expected: Vec<u64> = (removed + 1..=201).collect();
    assert_eq!(candidates(&search, &account, "same words").await, these(&expected));
}

/// All terms of all files of all shards, and whether there are files that belong to no segment.
fn terms(dir: &Path) -> (Vec<Vec<u8>>, usize) {
    let (mut found, mut strays) = (Vec::new(), 0);
    for shard in fs::read_dir(dir.join("g-00000001")).unwrap() {
        let shard = shard.unwrap().path();
        let index = tantivy::Index::open_in_dir(&shard).unwrap();
        let searcher = index.reader().unwrap().searcher();
        let ids: Vec<String> =
            searcher.segment_readers().iter().map(|segment| segment.segment_id().uuid_string()).collect();
        for entry in fs::read_dir(&shard).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let is_segment = name.len() > 32 && name.as_bytes()[..32].iter().all(u8::is_ascii_hexdigit);
            strays += usize::from(is_segment && !ids.iter().any(|id| name.starts_with(id.as_str())));
        }
        for segment in searcher.segment_readers() {
            for (field, entry) in index.schema().fields() {
                if !entry.is_indexed() {
                    continue;
                }
                let inverted = segment.inverted_index(field).unwrap();
                let mut stream = inverted.terms().stream().unwrap();
                while stream.advance() {
                    found.push(stream.key().to_vec());
                }
            }
        }
    }
    (found, strays)
}

fn holds(dir: &Path, needle: &[u8]) -> bool {
    terms(dir).0.iter().any(|term| term.windows(needle.len()).any(|window| window == needle))
}

/// An erased account leaves nothing, and who is still following it does not bring it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erased_accounts_leave_nothing() {
    let place = Installation::new().await;
    let (gone, stays) = (place.account(0xabcd_ef01_2345_6789).await, place.account(2).await);
    let search = place.search().await;
    for number in 0..20 {
        append(&gone, format!("Subject: {number}\r\n\r\nxylophonecanary{number} words\r\n").as_bytes()).await;
        append(&stays, format!("Subject: {number}\r\n\r\nother words\r\n").as_bytes()).await;
    }
    follow(&search, &gone).await;
    follow(&search, &stays).await;
    let id = gone.id();
    assert!(holds(&place.config.dir, id.0.as_bytes()));
    assert!(holds(&place.config.dir, b"xylophonecanary"));
    search.erase(id).await.unwrap();
    assert_eq!(terms(&place.config.dir).1, 0, "a file is left of a segment that is gone");
    assert!(!holds(&place.config.dir, id.0.as_bytes()));
    assert!(!holds(&place.config.dir, b"xylophonecanary"));
    while_following(&search, async {
        search.touch(id);
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    })
    .await;
    assert!(!holds(&place.config.dir, id.0.as_bytes()));
    assert_eq!(search.standing(&gone).await.unwrap().mark, search::Mark::NONE);
    assert_eq!(candidates(&search, &stays, "other words").await, these(&(1..=20).collect::<Vec<_>>()));
}

/// A rebuild answers from the old index until it swings, and says how far it is; another number of shards comes with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebuilt_into_a_new_generation() {
    let mut place = Installation::new().await;
    let mut accounts = Vec::new();
    let search = place.search().await;
    let mut random = Random::new(3);
    for number in 1..=6 {
        let account = place.account(number).await;
        for at in 0..10 {
            append(&account, &message(&mut random, at)).await;
        }
        follow(&search, &account).await;
        accounts.push(account);
    }
    drop(search);
    place.config.shards = 5;
    let search = place.search().await;
    let ids: Vec<_> = accounts.iter().take(5).map(Account::id).collect();
    let mut heard = Vec::new();
    let progress = search.rebuild(ids, |progress| heard.push(progress.done)).await.unwrap();
    assert_eq!((progress.done, progress.failed, progress.total), (5, 0, 5));
    assert_eq!(heard, [1, 2, 3, 4, 5]);
    assert!(!place.config.dir.join("g-00000001").exists());
    assert!(place.config.dir.join("g-00000002").join("shard-0000").exists());
    for (at, account) in accounts.iter().enumerate() {
        let standing = search.standing(account).await.unwrap();
        // The last was not in the list, so it is all tail.
        assert_eq!(standing.mark.indexed.0, if at < 5 { 10 } else { 0 });
        let all = look_at_all(account).await;
        for _ in 0..20 {
            let needle = needle(&mut random, &all);
            let found = search.candidates(account.id(), std::slice::from_ref(&needle)).await;
            let (brute, found, _) = compare(&all, &found, &needle);
            assert_eq!(brute, found, "{needle:?}");
        }
    }
    drop(search);
    let again = place.search().await;
    assert_eq!(again.standing(&accounts[0]).await.unwrap().mark.indexed, EmailId(10));
    follow(&again, &accounts[5]).await;
}

/// An account that was not read for long is left alone until it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lazy_for_who_does_not_read() {
    let place = Installation::new().await;
    let account = place.account(1).await;
    let search = place.search().await;
    append(&account, b"Subject: one\r\n\r\ntext\r\n").await;
    while_following(&search, async {
        for _ in 0..20 {
            search.note(account.id());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(search.standing(&account).await.unwrap().mark.indexed, EmailId(0));
        caught_up(&search, &account).await;
    })
    .await;
    drop(search);
    // Whoever has read it lately is remembered across a restart.
    let search = place.search().await;
    append(&account, b"Subject: two\r\n\r\ntext\r\n").await;
    while_following(&search, async {
        for _ in 0..500 {
            search.note(account.id());
            if search.standing(&account).await.unwrap().mark.indexed == EmailId(2) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("it was not followed");
    })
    .await;
}

/// An index that is ahead of its account is of another one: it begins anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_ahead_of_its_account() {
    let place = Installation::new().await;
    let account = place.account(1).await;
    let search = place.search().await;
    for number in 0..5 {
        append(&account, format!("Subject: {number}\r\n\r\nformer text\r\n").as_bytes()).await;
    }
    follow(&search, &account).await;
    drop(search);
    // The same id, elsewhere.
    let mut other = Installation::new().await;
    other.config.dir = place.config.dir.clone();
    let restored = other.account(1).await;
    append(&restored, b"Subject: x\r\n\r\nrestored text\r\n").await;
    let search = other.search().await;
    follow(&search, &restored).await;
    assert_eq!(candidates(&search, &restored, "former text").await, these(&[]));
    assert_eq!(candidates(&search, &restored, "restored text").await, these(&[1]));
}
