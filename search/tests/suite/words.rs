//! Words, phrases, beginnings of words, slips; in the index and in what came a moment ago.

use search::{Search, Texts, Wanted};
use storage::Account;

use crate::setup::*;

const MAIL: [&str; 7] = [
    "From: Ann Archer <ann@example.test>\r\nTo: bob@other.test\r\nSubject: Quarterly report\r\n\r\n\
     The beautiful world of invoices.\r\n",
    "From: =?utf-8?q?J=C3=B6rg_M=C3=BCller?= <joerg@example.test>\r\nTo: ann@example.test\r\n\
     Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe_aus_K=C3=B6ln?=\r\nMIME-Version: 1.0\r\n\
     Content-Type: text/plain; charset=utf-8\r\n\r\nSchöne Straße, world beautiful\r\n",
    "From: yamada@example.jp\r\nSubject: =?utf-8?b?5Lya6K2w44Gu5aCx5ZGK5pu4?=\r\nMIME-Version: 1.0\r\n\
     Content-Type: text/html; charset=utf-8\r\n\r\n<p>日本<b>語</b>です</p><p>東京</p>\r\n",
    "From: kim@example.kr\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
     한국어 회의 보고서\r\n",
    "From: ivan@example.ru\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=koi8-r\r\n\
     Content-Transfer-Encoding: quoted-printable\r\n\r\n=F0=D2=C9=D7=C5=D4, =CD=C9=D2\r\n",
    "From: somchai@example.th\r\nCc: ann@example.test\r\nSubject: x\r\nMIME-Version: 1.0\r\n\
     Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
     รายงานการประชุม\r\n--b\r\nContent-Type: application/pdf\r\n\
     Content-Disposition: attachment; filename*=utf-8''K%C3%A4se_plan.pdf\r\n\r\nx\r\n--b--\r\n",
    "From: f@example.test\r\nSubject: Fwd\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
     --b\r\nContent-Type: text/plain\r\n\r\nsee below\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n\
     From: eve@inner.test\r\nSubject: within\r\n\r\nforwarded treasure\r\n--b--\r\n",
];

async fn check(search: &Search, account: &Account, wanted: &Wanted, expected: &[u64]) {
    let found = search.find(account, wanted).await.unwrap();
    let ids: Vec<u64> = found.hits.iter().map(|hit| hit.email.0).collect();
    assert_eq!(ids, expected, "{wanted:?}");
    assert!(found.is_complete);
}

async fn check_all(search: &Search, account: &Account) {
    let any: [(&str, &[u64]); 30] = [
        ("report", &[1]),
        ("REPORT quarterly", &[1]),
        ("beautiful", &[1, 2]),
        ("\"beautiful world\"", &[1]),
        ("\"world beautiful\"", &[2]),
        ("beautiful invoice", &[]),
        ("invoic*", &[1]),
        ("invoic", &[]),
        ("grusse", &[2]),
        ("GRÜSSE köln", &[2]),
        ("strasse", &[2]),
        ("muller", &[2]),
        ("日本語", &[3]),
        ("本語です", &[3]),
        ("日語", &[]),
        ("京", &[3]),
        ("東", &[3]),
        ("報告", &[3]),
        ("한국", &[4]),
        ("국어", &[4]),
        ("회의 보고서", &[4]),
        ("привет", &[5]),
        ("мир", &[5]),
        ("ประชุม", &[6]),
        ("รายงาน", &[6]),
        ("kase", &[6]),
        ("treasure", &[7]),
        ("inner", &[7]),
        ("ann@example.test", &[1, 2, 6]),
        ("nowhere", &[]),
    ];
    for (value, expected) in any {
        check(search, account, &Wanted::read(Texts::Any, value), expected).await;
    }
    let placed: [(Texts, &str, &[u64]); 9] = [
        (Texts::From, "ann", &[1]),
        (Texts::To, "ann", &[2]),
        (Texts::Cc, "ann", &[6]),
        (Texts::Subject, "report", &[1]),
        (Texts::Body, "report", &[]),
        (Texts::Subject, "within", &[]),
        (Texts::Filename, "plan", &[6]),
        (Texts::Body, "world", &[1, 2]),
        (Texts::From, "example", &[1, 2, 3, 4, 5, 6, 7]),
    ];
    for (texts, value, expected) in placed {
        check(search, account, &Wanted::read(texts, value), expected).await;
    }
    let fuzzy = Wanted { is_fuzzy: true, ..Wanted::read(Texts::Any, "beatiful quaterly") };
    check(search, account, &fuzzy, &[1]).await;
    check(search, account, &Wanted::read(Texts::Any, "beatiful"), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_in_many_scripts() {
    let place = Installation::new().await;
    let account = place.account(1).await;
    let search = place.search().await;
    for message in MAIL {
        append(&account, message.as_bytes()).await;
    }
    // All of it is tail, then none, and in between a part.
    check_all(&search, &account).await;
    follow(&search, &account).await;
    check_all(&search, &account).await;
    let other = place.account(2).await;
    for message in &MAIL[..3] {
        append(&other, message.as_bytes()).await;
    }
    follow(&search, &other).await;
    for message in &MAIL[3..] {
        append(&other, message.as_bytes()).await;
    }
    check_all(&search, &other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fits_better_is_better() {
    let place = Installation::new().await;
    let account = place.account(1).await;
    let search = place.search().await;
    append(&account, format!("Subject: x\r\n\r\n{} lemon\r\n", "words ".repeat(200)).as_bytes()).await;
    append(&account, b"Subject: lemon\r\n\r\nlemon lemon\r\n").await;
    append(&account, b"Subject: x\r\n\r\nsomething else\r\n").await;
    follow(&search, &account).await;
    let found = search.find(&account, &Wanted::read(Texts::Any, "lemon")).await.unwrap();
    assert!(found.hits.len() == 2 && found.hits[1].score > found.hits[0].score, "{found:?}");
}

/// An account far behind is answered for its newest mail, and it is said that this is not all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_tail_is_bounded() {
    let mut place = Installation::new().await;
    place.config.tail_max = 5;
    let account = place.account(1).await;
    let search = place.search().await;
    for number in 0..12 {
        append(&account, format!("Subject: {number}\r\n\r\nwords\r\n").as_bytes()).await;
    }
    let found = search.find(&account, &Wanted::read(Texts::Any, "words")).await.unwrap();
    let ids: Vec<u64> = found.hits.iter().map(|hit| hit.email.0).collect();
    assert!(ids == [8, 9, 10, 11, 12] && !found.is_complete);
}

/// RFC 8621 §5: what matched is shown, what must not match is not, and markup of the mail is text.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snippets_of_emails() {
    let place = Installation::new().await;
    let account = place.account(1).await;
    let search = place.search().await;
    append(
        &account,
        b"Subject: A <b>lemon</b> tree\r\nMIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n\
          <style>lemon{}</style><p>One &lt;script&gt; and two lemon<b>s</b>, a lemon.</p>\r\n",
    )
    .await;
    let asked = search::Asked { now: 0, zone_minutes: 0 };
    let snippet = async |query: &str| {
        let filter = search::Filter::parse(query, asked).unwrap();
        search.snippet(&account, mail::id::EmailId(1), &filter).await.unwrap().unwrap()
    };
    let shown = snippet("lemon -tree").await;
    assert_eq!(shown.subject.as_deref(), Some("A &lt;b&gt;<mark>lemon</mark>&lt;/b&gt; tree"));
    assert_eq!(shown.preview.as_deref(), Some("One &lt;script&gt; and two lemons, a <mark>lemon</mark>."));
    assert_eq!(snippet("subject:tree").await.preview, None);
    assert_eq!(snippet("has:attachment").await, search::Snippet::default());
    let gone = search.snippet(&account, mail::id::EmailId(9), &search::Filter::All(Vec::new())).await;
    assert_eq!(gone.unwrap(), None);
}
