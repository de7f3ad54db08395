//! SEARCH with an index beside SEARCH without: the same answers, whatever has been indexed so far.

use std::time::Duration;

use imap::Config;
use search::Search;

use crate::world::{MULTIPART, Session, World, alice_id, plain};

const QUERIES: [&str; 18] = [
    "TEXT lunch",
    "BODY eautiful",
    "BODY \"worl\"",
    "SUBJECT 7",
    "SUBJECT ub",
    "FROM fred",
    "TO alice",
    "CC nobody",
    "HEADER Message-ID @example.com",
    "HEADER X-None \"\"",
    "TEXT k\u{e4}se",
    "BODY \u{65e5}\u{672c}",
    "BODY \u{672c}\u{8a9e}",
    "NOT TEXT lunch",
    "OR BODY lunch SUBJECT \"number 3\"",
    "BODY lunch NOT SUBJECT 4",
    "BODY nowhere",
    "SENTBEFORE 1-Jan-2000 BODY beautiful",
];

async fn ask(session: &mut Session, query: &str) -> Vec<String> {
    session.ok("NOOP").await;
    // UTF-8 goes as a literal, as it has to without UTF8=ACCEPT.
    session.ok(&literals(query)).await.untagged
}

/// The query as a command, with what is not ASCII as literals.
fn literals(query: &str) -> String {
    let words = query
        .split(' ')
        .map(|word| if word.is_ascii() { word.to_owned() } else { format!("{{{}+}}\r\n{word}", word.len()) });
    format!("SEARCH CHARSET UTF-8 {}", words.collect::<Vec<_>>().join(" "))
}

#[tokio::test]
async fn the_index_changes_no_answer() {
    let world = World::new().await;
    let without = World::beside(Config::default(), world.storage.clone(), world.directory.clone());
    let folder = tempfile::tempdir().unwrap();
    let settings = search::Config {
        dir: folder.path().join("search"),
        shards: 2,
        commit_emails: 5,
        commit_seconds: 1,
        ..search::Config::default()
    };
    let search = Search::open(world.storage.clone(), settings).await.unwrap();
    world.imap.search_with(search.clone());
    let runs = search.clone();
    let task = tokio::spawn(async move { runs.run(std::future::pending()).await });

    let mut writer = without.selected("INBOX").await;
    let (mut one, mut other) = (world.selected("INBOX").await, without.selected("INBOX").await);
    let texts = [
        "a beautiful world",
        "lunch at noon, beautifully",
        "\u{65e5}\u{672c}\u{8a9e}\u{306e}\u{6587}\u{7ae0}",
        "nothing of interest",
        "LUNCH and the world",
    ];
    for round in 0..40_usize {
        let text = if round % 9 == 8 {
            MULTIPART.to_owned()
        } else {
            plain(&format!("sub number {round}"), texts[round % texts.len()])
        };
        writer.append("INBOX", "", &text).await;
        if round % 10 == 9 {
            writer.ok(&format!("STORE {} +FLAGS (\\Deleted)", round / 2)).await;
            writer.ok("EXPUNGE").await;
        }
        // Two of the queries each time, so that all of them meet an index that is behind.
        for query in [QUERIES[round % QUERIES.len()], QUERIES[(round * 7) % QUERIES.len()]] {
            assert_eq!(ask(&mut one, query).await, ask(&mut other, query).await, "{query}, round {round}");
        }
    }
    // And one that is not.
    let id = alice_id(&world).await;
    let account = world.storage.account(&storage::Principal::Operator, id).await.unwrap();
    search.touch(id);
    for _ in 0..200 {
        let standing = search.standing(&account).await.unwrap();
        if standing.mark.indexed == standing.last {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let standing = search.standing(&account).await.unwrap();
    assert_eq!(standing.mark.indexed, standing.last, "it has caught up");
    let mut found = 0;
    for query in QUERIES {
        let answer = ask(&mut one, query).await;
        assert_eq!(answer, ask(&mut other, query).await, "{query}");
        found += usize::from(answer != ["* SEARCH"]);
    }
    assert!(found > 10, "most of them find something");
    task.abort();
}
