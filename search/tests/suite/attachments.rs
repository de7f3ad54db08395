//! Attachments that are taken apart by another program: what it says is found, and what it does harms nobody.

use std::time::{Duration, Instant};

use search::{Needle, Place, Texts, Wanted};
use storage::Account;

use crate::setup::*;

/// The attachment of this message stands as it is, so that a program that repeats it has taken it apart.
const MESSAGE: &str = "From: ann@example.test\r\nSubject: x\r\nMIME-Version: 1.0\r\n\
     Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nsee below\r\n\
     --b\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: 8bit\r\n\r\n회의 보고서, Größe\r\n--b--\r\n";

/// Follows an account with such a message and another one, by a program of the shell's.
async fn follow_with(script: &str) -> (Installation, Account, search::Search) {
    let mut place = Installation::new().await;
    let arguments = vec!["-c".to_owned(), script.to_owned()];
    place.config.attachments.program = Some(("/bin/sh".into(), arguments));
    place.config.attachments.enabled = true;
    place.config.attachments.seconds_max = 1;
    let account = place.account(1).await;
    append(&account, MESSAGE.as_bytes()).await;
    append(&account, b"From: bob@example.test\r\nSubject: later\r\n\r\nhello\r\n").await;
    let search = place.search().await;
    follow(&search, &account).await;
    (place, account, search)
}

async fn found(search: &search::Search, account: &Account, of: Texts, words: &str) -> Vec<u64> {
    let found = search.find(account, &Wanted::read(of, words)).await.unwrap();
    found.hits.iter().map(|hit| hit.email.0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn its_words_are_found_and_exact_search_does_not_change() {
    let (_place, account, search) = follow_with("cat").await;
    for words in ["보고서", "grosse", "GRÖSSE 회의"] {
        assert_eq!(found(&search, &account, Texts::Any, words).await, [1], "{words}");
        assert_eq!(found(&search, &account, Texts::Body, words).await, [1], "{words}");
    }
    assert!(found(&search, &account, Texts::Subject, "grosse").await.is_empty());
    let needle = Needle { place: Place::Anywhere, text: "Größe".to_owned() };
    let candidates = search.candidates(account.id(), &[needle]).await;
    assert!(!candidates.may_hold(mail::id::EmailId(1)), "an attachment has no grams");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_hangs_or_never_ends_costs_its_text_alone() {
    for script in
        ["kill -9 $$", "exit 3", "exec sleep 60", "while :; do echo grosse; done", "exec <&-; sleep 60"]
    {
        let began = Instant::now();
        let (_place, account, search) = follow_with(script).await;
        assert!(began.elapsed() < Duration::from_secs(15), "{script}");
        assert!(found(&search, &account, Texts::Any, "grosse").await.is_empty(), "{script}");
        assert_eq!(found(&search, &account, Texts::Any, "below").await, [1], "{script}");
        assert_eq!(found(&search, &account, Texts::Any, "hello").await, [2], "{script}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_switch_nothing_is_started() {
    let mut place = Installation::new().await;
    place.config.attachments.enabled = false;
    place.config.attachments.program = Some(("/bin/sh".into(), vec!["-c".to_owned(), "cat".to_owned()]));
    let account = place.account(1).await;
    append(&account, MESSAGE.as_bytes()).await;
    let search = place.search().await;
    follow(&search, &account).await;
    assert!(found(&search, &account, Texts::Any, "grosse").await.is_empty());
}
