//! Filters by text with an index beside filters without: the same answers, whatever has been indexed so far; and in the
//! languages that people write.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use encoding_rs::Encoding;
use search::Search;
use serde_json::{Value, json};
use storage::Account;
use webmail_api::jmap::{Indexed, TextError, TextQuery, TextSearch as _};

use crate::http::Client;
use crate::world::World;

/// A mail in some charset, as mail programs of its country write it.
fn mail(charset: &str, from: &str, subject: &str, body: &str) -> String {
    let encoding = Encoding::for_label(charset.as_bytes()).unwrap();
    let encoded = |text: &str| STANDARD.encode(encoding.encode(text).0);
    format!(
        "From: =?{charset}?B?{}?= <x@example.com>\nTo: alice@example.test\nSubject: =?{charset}?B?{}?=\n\
         X-Language: {charset} mail\nMIME-Version: 1.0\nContent-Type: text/plain; charset={charset}\n\
         Content-Transfer-Encoding: base64\n\n{}\n",
        encoded(from),
        encoded(subject),
        encoded(body)
    )
}

const HTML: &str = "From: Ann <ann@example.com>\nCc: bob@example.test\nSubject: pictures\nMIME-Version: 1.0\n\
Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html; charset=utf-8\n\n\
<style>hidden { x }</style><p>vis<b>ible</b> w&ouml;rds</p>\n--b\nContent-Type: image/png\n\
Content-Disposition: attachment; filename*=utf-8''Urlaub%20K%C3%B6ln.png\nContent-Transfer-Encoding: base64\n\nAAEC\n\
--b\nContent-Type: message/rfc822\n\nFrom: eve@inner.test\nSubject: within\n\nforwarded treasure\n--b--\n";

fn mails() -> Vec<String> {
    vec![
        mail("iso-8859-1", "Jörg Müller", "Grüße aus Köln", "Die schöne Straße, der Käse und das Brot."),
        mail("koi8-r", "Иван Петров", "Отчёт за июнь", "Привет, мир! Ёлка стоит."),
        mail("iso-2022-jp", "山田", "会議の報告書", "日本語の文章です。東京で会いましょう。"),
        mail("gb18030", "王小明", "会议记录", "今天的天气很好,我们去北京。"),
        mail("euc-kr", "김철수", "회의 안내", "안녕하세요, 한국어 보고서입니다."),
        mail("utf-8", "สมชาย", "รายงานการประชุม", "ขอบคุณสำหรับการประชุมวันนี้"),
        mail("utf-8", "Ann Archer", "Ｗｉｄｅ letters", "The beautiful world of invoices; ﬁne."),
        HTML.to_owned(),
    ]
}

/// Filters, and how many of the mails pass each.
fn filters() -> Vec<(Value, usize)> {
    let both = |a: Value, b: Value| json!({"operator": "AND", "conditions": [a, b]});
    let not = |a: Value| json!({"operator": "NOT", "conditions": [a]});
    vec![
        (json!({"text": "grusse"}), 1),
        (json!({"text": "GRÜSSE köln"}), 1),
        (json!({"subject": "\"aus koln\""}), 1),
        (json!({"subject": "\"koln aus\""}), 0),
        (json!({"body": "strasse kase"}), 1),
        (json!({"from": "muller"}), 1),
        (json!({"from": "мюллер"}), 0),
        (json!({"body": "ПРИВЕТ"}), 1),
        (json!({"text": "елка отчет"}), 1),
        (json!({"from": "петр*"}), 1),
        (json!({"subject": "報告"}), 1),
        (json!({"body": "日本語"}), 1),
        (json!({"body": "本語の"}), 1),
        (json!({"body": "日語"}), 0),
        (json!({"text": "会"}), 2),
        (json!({"body": "北京"}), 1),
        (json!({"from": "王小明"}), 1),
        (json!({"body": "한국어"}), 1),
        (json!({"text": "회의 보고서"}), 1),
        (json!({"text": "의회"}), 0),
        (json!({"subject": "ประชุม"}), 1),
        (json!({"text": "การประชุม"}), 1),
        (json!({"subject": "wide"}), 1),
        (json!({"body": "FINE"}), 1),
        (json!({"body": "invoice"}), 0),
        (json!({"body": "invoice*"}), 1),
        (json!({"body": "'beautiful world'"}), 1),
        (json!({"body": "visible words"}), 1),
        (json!({"body": "hidden"}), 0),
        (json!({"body": "treasure within"}), 1),
        (json!({"text": "urlaub"}), 1),
        (json!({"cc": "bob"}), 1),
        (json!({"text": "bob@example.test"}), 1),
        (json!({"to": "alice"}), 7),
        (json!({"header": ["X-Language"]}), 7),
        (json!({"header": ["x-language", "MAIL koi8"]}), 1),
        (json!({"header": ["Subject", "within"]}), 0),
        (json!({"header": ["X-None", ""]}), 0),
        (json!({"text": "secret"}), 0),
        (json!({"text": "..."}), 8),
        (both(json!({"to": "alice"}), not(json!({"text": "会"}))), 5),
        (both(json!({"from": "ann", "body": "words"}), json!({"hasAttachment": true})), 1),
        (
            json!({"operator": "OR", "conditions": [{"body": "kase"}, {"from": "山田"}, {"subject": "nowhere"}]}),
            2,
        ),
    ]
}

async fn ask(client: &Client<'_>, filter: &Value) -> Value {
    let arguments = json!({"filter": filter, "sort": [{"property": "receivedAt"}]});
    client.call("Email/query", arguments).await["ids"].clone()
}

struct Index {
    search: Search,
    task: tokio::task::JoinHandle<()>,
    folder: tempfile::TempDir,
}

impl Index {
    async fn of(world: &World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = search::Config {
            dir: folder.path().join("search"),
            shards: 2,
            commit_emails: 5,
            commit_seconds: 1,
            ..search::Config::default()
        };
        let search = Search::open(world.storage.clone(), settings).await.unwrap();
        let runs = search.clone();
        let task = tokio::spawn(async move { runs.run(std::future::pending()).await });
        Self { search, task, folder }
    }

    async fn caught_up(&self, account: &Account) {
        self.search.touch(account.id());
        for _ in 0..400 {
            let standing = self.search.standing(account).await.unwrap();
            if standing.mark.indexed == standing.last {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the index does not catch up");
    }
}

#[tokio::test]
async fn the_index_changes_no_answer() {
    let without = World::new().await;
    let index = Index::of(&without).await;
    let with = without.beside(Arc::new(Indexed::new(index.search.clone()))).await;
    let (one, other) = (with.client("alice"), without.client("alice"));
    let (mails, filters) = (mails(), filters());
    without.put("bob", "INBOX", &[], &mail("utf-8", "Bob", "secret", "secret of Köln")).await;
    for round in 0..40_usize {
        without.put("alice", "INBOX", &[], &mails[round % mails.len()]).await;
        if round % 10 == 9 {
            one.call("Email/set", json!({"destroy": [format!("E{}", round / 2)]})).await;
        }
        // Three of the filters each time, so that all of them meet an index that is behind.
        for turn in [round, round * 7 + 1, round * 11 + 2] {
            let (filter, _) = &filters[turn % filters.len()];
            assert_eq!(ask(&one, filter).await, ask(&other, filter).await, "{filter}, round {round}");
        }
    }
    // And one that is not.
    index.caught_up(&without.account("alice").await).await;
    for (filter, _) in &filters {
        assert_eq!(ask(&one, filter).await, ask(&other, filter).await, "{filter}");
    }
    index.task.abort();
}

#[tokio::test]
async fn words_of_all_languages_are_found_with_and_without_an_index() {
    let without = World::new().await;
    let index = Index::of(&without).await;
    let with = without.beside(Arc::new(Indexed::new(index.search.clone()))).await;
    for mail in mails() {
        without.put("alice", "INBOX", &[], &mail).await;
    }
    index.caught_up(&without.account("alice").await).await;
    for (world, which) in [(&with, "with"), (&without, "without")] {
        let client = world.client("alice");
        for (filter, expected) in filters() {
            let found = ask(&client, &filter).await;
            assert_eq!(found.as_array().unwrap().len(), expected, "{filter} {which} an index: {found}");
        }
        // RFC 8621 §5: what was found is what is marked.
        for (filter, id, subject, preview) in [
            (json!({"text": "koln"}), "E1", Some("Grüße aus <mark>Köln</mark>"), None),
            (json!({"body": "strasse"}), "E1", None, Some("<mark>Straße</mark>")),
            (json!({"text": "елка"}), "E2", None, Some("<mark>Ёлка</mark>")),
            (json!({"text": "報告"}), "E3", Some("会議の<mark>報告</mark>書"), None),
            (json!({"body": "한국어"}), "E5", None, Some("<mark>한국어</mark>")),
            (json!({"body": "visible"}), "E8", None, Some("<mark>visible</mark>")),
            (json!({"from": "ann"}), "E7", None, None),
            (json!({"operator": "NOT", "conditions": [{"body": "beautiful"}]}), "E7", None, None),
        ] {
            let arguments = json!({"filter": filter, "emailIds": [id]});
            let snippet = client.call("SearchSnippet/get", arguments).await["list"][0].clone();
            assert_eq!(snippet["subject"].as_str(), subject, "{filter}");
            match preview {
                Some(preview) => assert!(snippet["preview"].as_str().unwrap().contains(preview), "{snippet}"),
                None => assert_eq!(snippet["preview"], Value::Null, "{filter}"),
            }
        }
    }
    index.task.abort();
}

/// What may be read is bounded; what the index knows is not read.
#[tokio::test]
async fn messages_that_the_index_knows_are_not_read() {
    let world = World::new().await;
    let index = Index::of(&world).await;
    let text = Indexed::new(index.search.clone());
    for mail in mails() {
        world.put("alice", "INBOX", &[], &mail).await;
    }
    let account = world.account("alice").await;
    index.caught_up(&account).await;
    let test = |text: &str| jmap_protocol::object::filter::TextTest {
        field: jmap_protocol::object::filter::TextField::Text,
        text: text.to_owned(),
    };
    let tests = [test("koln"), test("nowhere"), test("")];
    let among: Vec<_> = (1..=8).map(mail::id::EmailId).collect();
    let query = TextQuery { account: &account, tests: &tests, among: &among, reads_max: 0 };
    let found: Vec<usize> = text.find(&query).await.unwrap().iter().map(|found| found.len()).collect();
    // The attachment's name is one of the places.
    assert_eq!(found, [2, 0, 8]);
    index.task.abort();
    world.put("alice", "INBOX", &[], HTML).await;
    let among: Vec<_> = (1..=9).map(mail::id::EmailId).collect();
    let query = TextQuery { among: &among, ..query };
    assert!(matches!(text.find(&query).await, Err(TextError::TooMany)));
    let found = text.find(&TextQuery { reads_max: 1, ..query }).await.unwrap();
    assert_eq!(found[0].len(), 3);
}

/// Where the index cannot be read, messages are.
#[tokio::test]
async fn an_index_that_does_not_answer() {
    let without = World::new().await;
    let index = Index::of(&without).await;
    index.task.abort();
    // A file where a shard should be, which no right to write helps against.
    for shard in ["shard-0000", "shard-0001"] {
        let path = index.folder.path().join("search/g-00000001").join(shard);
        std::fs::write(path, "in the way").unwrap();
    }
    let with = without.beside(Arc::new(Indexed::new(index.search.clone()))).await;
    for mail in mails() {
        without.put("alice", "INBOX", &[], &mail).await;
    }
    let client = with.client("alice");
    for (filter, expected) in filters() {
        let found = ask(&client, &filter).await;
        assert_eq!(found.as_array().unwrap().len(), expected, "{filter}: {found}");
    }
}
