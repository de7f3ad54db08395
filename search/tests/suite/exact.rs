//! Exact search: candidates, looked at, are what looking at everything finds.

use mail::id::EmailId;
use search::config::TextLimits;
use search::{Candidates, Ids, Needle, Place};

use crate::setup::*;

fn anywhere(text: &str) -> Needle {
    Needle { place: Place::Anywhere, text: text.to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_substring_across_words_is_found() {
    let place = Installation::new().await;
    let account = place.account(1).await;
    let search = place.search().await;
    append(&account, b"Subject: one\r\n\r\na beautiful world\r\n").await;
    append(&account, b"Subject: two\r\n\r\nnothing of the kind\r\n").await;
    // Nothing is indexed yet, so both have to be looked at.
    let before = search.candidates(account.id(), &[anywhere("eautiful worl")]).await;
    assert!(before.may_hold(EmailId(1)) && before.may_hold(EmailId(2)));
    follow(&search, &account).await;
    let after = search.candidates(account.id(), &[anywhere("EAUTIFUL WORL")]).await;
    assert_eq!(after.ids, Ids::These(vec![EmailId(1)]));
    assert_eq!(after.unindexed.after, EmailId(2));
    append(&account, b"Subject: three\r\n\r\nanother beautiful world\r\n").await;
    let later = search.candidates(account.id(), &[anywhere("eautiful worl")]).await;
    assert!(later.may_hold(EmailId(1)) && !later.may_hold(EmailId(2)) && later.may_hold(EmailId(3)));
    assert_eq!(later.unindexed.of(&account).collect::<Vec<_>>(), [EmailId(3)]);
    let short = search.candidates(account.id(), &[anywhere("xy")]).await;
    assert_eq!(short.ids, Ids::All);
    let both = search.candidates(account.id(), &[anywhere("beautiful"), anywhere("kind")]).await;
    assert_eq!(both.ids, Ids::These(Vec::new()));
    // Somebody else's mail is nobody's candidate.
    let other = place.account(2).await;
    assert_eq!(search.candidates(other.id(), &[anywhere("beautiful")]).await.ids, Ids::These(Vec::new()));
}

/// Invariant 9: SEARCH is brute force, while mail arrives and goes, in any script.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_questions_while_mail_arrives() {
    let place = Installation::new().await;
    let account = place.account(1).await;
    let neighbour = place.account(2).await;
    let search = place.search().await;
    let mut random = Random::new(20261128);
    let mut skipped = 0;
    let mut asked = 0;
    while_following(&search, async {
        for round in 0..25 {
            for number in 0..8 {
                append(&account, &message(&mut random, round * 8 + number)).await;
                append(&neighbour, &message(&mut random, number)).await;
                search.touch(account.id());
                search.touch(neighbour.id());
            }
            if round % 2 == 1 {
                caught_up(&search, &account).await;
                append(&account, &message(&mut random, round)).await;
            }
            if round % 4 == 3 {
                let gone: Vec<usize> = (0..3).map(|_| random.below(round * 6)).collect();
                remove(&account, &gone).await;
                search.note(account.id());
            }
            let all = look_at_all(&account).await;
            for _ in 0..20 {
                let needle = needle(&mut random, &all);
                let candidates = search.candidates(account.id(), std::slice::from_ref(&needle)).await;
                let (brute, found, looked_at) = compare(&all, &candidates, &needle);
                assert_eq!(brute, found, "{needle:?} in round {round}");
                skipped += all.len() - looked_at;
                asked += 1;
            }
        }
        caught_up(&search, &account).await;
    })
    .await;
    // The index was of use: most messages were not looked at.
    let all = look_at_all(&account).await;
    let (mut looked_at_all, mut found_all) = (0, 0);
    for _ in 0..300 {
        let needle = needle(&mut random, &all);
        let candidates = search.candidates(account.id(), std::slice::from_ref(&needle)).await;
        let (brute, found, looked_at) = compare(&all, &candidates, &needle);
        assert_eq!(brute, found, "{needle:?} at the end");
        if candidates.ids != Ids::All {
            looked_at_all += looked_at;
            found_all += found.len();
        }
    }
    println!(
        "{asked} questions while mail arrived, {skipped} messages skipped; at the end {looked_at_all} looked at, {found_all} found"
    );
    assert!(skipped > 0 && looked_at_all < found_all * 2);
}

/// A message of which not all was looked at is a candidate whatever is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_limits_is_looked_at() {
    let mut place = Installation::new().await;
    place.config.text = TextLimits { text_bytes_max: 5_000, grams_max: 300, ..TextLimits::default() };
    let account = place.account(1).await;
    let search = place.search().await;
    let long = format!("Subject: long\r\n\r\n{}needle\r\n", "filler text ".repeat(1_000));
    let varied: Vec<String> = (0..500).map(|n| format!("{:x}", n * 7919)).collect();
    let varied = varied.join(" ");
    append(&account, long.as_bytes()).await;
    append(&account, format!("Subject: varied\r\n\r\n{varied} needle\r\n").as_bytes()).await;
    append(&account, b"Subject: short\r\n\r\nneedle\r\n").await;
    append(&account, b"Subject: short\r\n\r\nnothing\r\n").await;
    let field = format!("X-Long: {}needle\r\n\r\ntext\r\n", "word ".repeat(20_000));
    append(&account, field.as_bytes()).await;
    follow(&search, &account).await;
    let all = look_at_all(&account).await;
    let needle = anywhere("needle");
    let candidates = search.candidates(account.id(), std::slice::from_ref(&needle)).await;
    let (brute, found, looked_at) = compare(&all, &candidates, &needle);
    assert_eq!((brute.len(), looked_at), (4, 4));
    assert_eq!(brute, found);
}

/// Each needle by itself, out of one commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn needles_one_by_one() {
    let place = Installation::new().await;
    let account = place.account(1).await;
    let search = place.search().await;
    append(&account, b"Subject: apple\r\n\r\none\r\n").await;
    append(&account, b"Subject: pear\r\n\r\none\r\n").await;
    follow(&search, &account).await;
    let needles = [anywhere("apple"), anywhere("pear"), anywhere(""), anywhere("one")];
    let each = search.candidates_each(account.id(), &needles).await;
    let shown: Vec<Vec<bool>> =
        each.iter().map(|c: &Candidates| vec![c.may_hold(EmailId(1)), c.may_hold(EmailId(2))]).collect();
    assert_eq!(shown, [[true, false], [false, true], [true, true], [true, true]]);
}
