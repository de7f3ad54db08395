//! FUZZY and RELEVANCY (RFC 6203), with a search index and without.

use std::time::Duration;

use imap::Config;
use search::Search;

use crate::world::{Session, World, alice_id, plain};

async fn reports(world: &World) -> Session {
    let mut session = world.selected("INBOX").await;
    for (flags, subject, text) in [
        ("", "IMAP breaks", "a meeting about nothing"),
        ("\\Seen", "lunch", "the report of the quarter is here, after three pages of other things"),
        ("", "quarterly report", "numbers, and a report"),
        ("", "holidays", "in the mountains"),
    ] {
        session.append("INBOX", flags, &plain(subject, text)).await;
    }
    session.ok("NOOP").await;
    session
}

/// The numbers of an untagged SEARCH or SORT.
async fn found(session: &mut Session, command: &str) -> Vec<u32> {
    let reply = session.ok(command).await;
    let line = reply.untagged.iter().find(|line| line.starts_with("* S")).expect("an answer");
    line.split(' ').filter_map(|word| word.parse().ok()).collect()
}

/// What RELEVANCY says of an ESEARCH response.
async fn scores(session: &mut Session, command: &str) -> Vec<u8> {
    let reply = session.ok(command).await;
    let (_, scores) = reply.untagged[0].split_once("RELEVANCY (").expect("scores");
    let scores = scores.strip_suffix(')').expect("the end of the scores");
    scores.split(' ').filter(|score| !score.is_empty()).map(|score| score.parse().unwrap()).collect()
}

async fn check_by_words(session: &mut Session) {
    // Whole words, those nearly spelt so, and in any order.
    for (command, expected) in [
        ("SEARCH FUZZY SUBJECT quaterly", &[3][..]),
        ("SEARCH FUZZY SUBJECT \"report quarterly\"", &[3]),
        ("SEARCH FUZZY TEXT report", &[2, 3]),
        ("SEARCH FUZZY BODY mountians", &[4]),
        ("SEARCH FUZZY TEXT report SEEN", &[2]),
        ("SEARCH FUZZY (TEXT report SEEN)", &[2]),
        ("SEARCH FUZZY NOT TEXT report", &[1, 4]),
        ("SEARCH OR FUZZY SUBJECT reprt SUBJECT unch", &[2, 3]),
        ("UID SEARCH FUZZY FROM fred FUZZY SUBJECT holydays", &[4]),
        // Exactly as ever, since that is not fuzzy.
        ("SEARCH SUBJECT quaterly", &[]),
        ("SEARCH SUBJECT uarter", &[3]),
        // What has no words is looked for exactly.
        ("SEARCH FUZZY ANSWERED", &[]),
        ("SEARCH FUZZY HEADER Message-ID lunch@", &[2]),
        ("SEARCH FUZZY SUBJECT \"\"", &[1, 2, 3, 4]),
        ("SEARCH FUZZY (LARGER 1 SMALLER 100000)", &[1, 2, 3, 4]),
    ] {
        assert_eq!(found(session, command).await, expected, "{command}");
    }
    let scored = scores(session, "SEARCH RETURN (RELEVANCY ALL) FUZZY TEXT report").await;
    assert_eq!(scored.len(), 2, "{scored:?}");
    assert!(scored[1] == 100 && (1..100).contains(&scored[0]), "the subject counts for more: {scored:?}");
    assert_eq!(found(session, "SORT (RELEVANCY) UTF-8 FUZZY TEXT report").await, [3, 2]);
    assert_eq!(found(session, "SORT (REVERSE RELEVANCY) UTF-8 FUZZY TEXT report").await, [2, 3]);
    let sorted = scores(session, "UID SORT RETURN (RELEVANCY ALL) (RELEVANCY) UTF-8 FUZZY TEXT report").await;
    assert_eq!(sorted, [scored[1], scored[0]]);
    let page = scores(session, "SEARCH RETURN (PARTIAL 1:1 RELEVANCY) FUZZY TEXT report").await;
    assert_eq!(page, [scored[0]]);
    let none = scores(session, "SEARCH RETURN (RELEVANCY ALL) FUZZY TEXT nowhere").await;
    assert!(none.is_empty());
}

#[tokio::test]
async fn words_are_found_by_the_index_and_before_they_are_in_it() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = search::Config {
        dir: folder.path().join("search"),
        shards: 1,
        commit_emails: 1,
        commit_seconds: 1,
        ..search::Config::default()
    };
    let search = Search::open(world.storage.clone(), settings).await.unwrap();
    world.imap.search_with(search.clone());
    let mut session = reports(&world).await;
    assert!(session.ok("CAPABILITY").await.untagged[0].contains(" SEARCH=FUZZY"));
    // Nothing follows the account yet.
    check_by_words(&mut session).await;

    let runs = search.clone();
    let task = tokio::spawn(async move { runs.run(std::future::pending()).await });
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
    check_by_words(&mut session).await;
    task.abort();
}

#[tokio::test]
async fn without_an_index_and_beyond_the_limit_texts_are_found_exactly_rfc6203_5() {
    let world = World::new().await;
    let mut session = reports(&world).await;
    assert!(!session.ok("CAPABILITY").await.untagged[0].contains("FUZZY"));
    assert_eq!(found(&mut session, "SEARCH FUZZY SUBJECT uarter").await, [3]);
    assert!(found(&mut session, "SEARCH FUZZY SUBJECT quaterly").await.is_empty());
    assert_eq!(scores(&mut session, "SEARCH RETURN (RELEVANCY) FUZZY TEXT report").await, [100, 100]);
    assert_eq!(found(&mut session, "SORT (RELEVANCY) UTF-8 FUZZY TEXT report").await, [2, 3]);

    let folder = tempfile::tempdir().unwrap();
    let settings = search::Config { dir: folder.path().join("search"), ..search::Config::default() };
    let limited = Config { fuzzy_texts_max: 1, ..Config::default() };
    let limited = World::beside(limited, world.storage.clone(), world.directory.clone());
    limited.imap.search_with(Search::open(world.storage.clone(), settings).await.unwrap());
    let mut session = limited.selected("INBOX").await;
    assert_eq!(found(&mut session, "SEARCH FUZZY SUBJECT quaterly").await, [3]);
    assert_eq!(found(&mut session, "SEARCH FUZZY SUBJECT quaterly FUZZY SUBJECT quaterly").await, [3]);
    assert_eq!(found(&mut session, "SEARCH FUZZY SUBJECT quaterly FUZZY SUBJECT eport").await, [3]);
    assert!(found(&mut session, "SEARCH FUZZY SUBJECT quaterly FUZZY SUBJECT reprt").await.is_empty());
    for wrong in [
        "SEARCH RETURN (RELEVANCY ALL) TEXT report",
        "SORT (RELEVANCY) UTF-8 TEXT report",
        "SEARCH FUZZY",
        "SEARCH FUZZY (TEXT",
    ] {
        session.expect(wrong, &[], "BAD ").await;
    }
}
