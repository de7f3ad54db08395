//! ESEARCH in many mailboxes (RFC 7377).

use imap::Config;

use crate::world::{Session, World, plain};

/// INBOX, `a`, `a/b`, `a/b/c`, `ab`, `Entwürfe` and `empty`; lunch is in all but the last.
async fn seven(world: &World) -> Session {
    let mut session = world.alice().await;
    for mailbox in ["a", "a/b", "a/b/c", "ab", "Entw&APw-rfe", "empty"] {
        session.ok(&format!("CREATE {mailbox}")).await;
    }
    for mailbox in ["INBOX", "a", "a/b", "a/b/c", "ab", "Entw&APw-rfe"] {
        session.append(mailbox, "", &plain("nothing", "nothing")).await;
        session.append(mailbox, "\\Seen", &plain("lunch", &format!("in {mailbox}"))).await;
    }
    session
}

/// What is said of each mailbox, without what is the same in all: `INBOX ALL 2`.
async fn said(session: &mut Session, command: &str) -> Vec<String> {
    let reply = session.ok(command).await;
    let untagged = reply.untagged.iter().filter(|line| line.starts_with("* ESEARCH"));
    let mut said: Vec<String> = untagged
        .map(|line| {
            let (_, rest) = line.split_once(" MAILBOX ").expect("a mailbox");
            let (mailbox, rest) = rest.split_once(" UIDVALIDITY ").expect("its validity");
            let (validity, found) = rest.split_once(") UID ").expect("UIDs");
            assert!(validity.parse::<u32>().unwrap() > 0, "{line}");
            format!("{mailbox} {found}")
        })
        .collect();
    said.sort();
    said
}

#[tokio::test]
async fn many_mailboxes_are_searched_rfc7377() {
    let world = World::new().await;
    let mut session = seven(&world).await;
    assert!(session.ok("CAPABILITY").await.untagged[0].contains(" MULTISEARCH"));
    let validity = session.ok("STATUS INBOX (UIDVALIDITY)").await.untagged[0].clone();
    let validity = validity.split(['(', ')']).nth(1).unwrap().to_owned();
    let reply = session.ok("ESEARCH IN (mailboxes inbox) SUBJECT lunch").await;
    let tag = reply.untagged[0].split('"').nth(1).unwrap().to_owned();
    assert_eq!(reply.untagged, [format!("* ESEARCH (TAG \"{tag}\" MAILBOX INBOX {validity}) UID ALL 2")]);

    let all = ["Entw&APw-rfe ALL 2", "INBOX ALL 2", "a ALL 2", "a/b ALL 2", "a/b/c ALL 2", "ab ALL 2"];
    for (sources, expected) in [
        ("personal", &all[..]),
        ("inboxes", &all),
        ("subtree a", &["a ALL 2", "a/b ALL 2", "a/b/c ALL 2"]),
        ("subtree-one (a)", &["a ALL 2", "a/b ALL 2"]),
        ("MAILBOXES (ab \"a/b\" nowhere empty ab)", &["a/b ALL 2", "ab ALL 2"]),
        ("mailboxes Entw&APw-rfe subtree-one a/b", &["Entw&APw-rfe ALL 2", "a/b ALL 2", "a/b/c ALL 2"]),
        ("mailboxes nowhere", &[]),
    ] {
        let found = said(&mut session, &format!("ESEARCH IN ({sources}) RETURN (ALL) SUBJECT lunch")).await;
        assert_eq!(found, expected, "{sources}");
    }
    session.ok("SUBSCRIBE a").await;
    assert!(
        said(&mut session, "ESEARCH IN (subscribed) SUBJECT lunch").await.contains(&"a ALL 2".to_owned())
    );
    assert_eq!(
        said(&mut session, "ESEARCH IN (subtree a) RETURN (COUNT MIN PARTIAL -1:-1) BODY \"in a\"").await,
        [
            "a MIN 2 COUNT 1 PARTIAL (-1:-1 2)",
            "a/b MIN 2 COUNT 1 PARTIAL (-1:-1 2)",
            "a/b/c MIN 2 COUNT 1 PARTIAL (-1:-1 2)"
        ]
    );
    assert_eq!(
        said(&mut session, "ESEARCH IN (personal) CHARSET UTF-8 BODY \"in a/b\"").await,
        ["a/b ALL 2", "a/b/c ALL 2"]
    );
    // UIDs and numbers are those of each mailbox.
    session.ok("SELECT a").await;
    session.ok("STORE 1 +FLAGS.SILENT (\\Deleted)").await;
    session.ok("CLOSE").await;
    assert_eq!(said(&mut session, "ESEARCH IN (subtree-one a) 1").await, ["a ALL 2", "a/b ALL 1"]);
    assert_eq!(said(&mut session, "ESEARCH IN (subtree-one a) UID *").await, ["a ALL 2", "a/b ALL 2"]);
    let scored =
        said(&mut session, "ESEARCH IN (subtree a) RETURN (RELEVANCY ALL) FUZZY SUBJECT lunch").await;
    assert_eq!(scored[1], "a/b ALL 2 RELEVANCY (100)");
}

#[tokio::test]
async fn the_selected_mailbox_is_one_of_them() {
    let world = World::new().await;
    let mut session = seven(&world).await;
    for needs_one in
        ["ESEARCH SUBJECT lunch", "ESEARCH IN (selected) ALL", "ESEARCH IN (subtree a selected) ALL"]
    {
        session.expect(needs_one, &[], "BAD ").await;
    }
    session.expect("ESEARCH IN (personal) RETURN (SAVE) ALL", &[], "BAD ").await;
    session.expect("ESEARCH IN (mailboxes a) $", &[], "NO ").await;

    session.ok("SELECT a/b").await;
    assert_eq!(said(&mut session, "ESEARCH SUBJECT lunch").await, ["a/b ALL 2"]);
    assert_eq!(said(&mut session, "ESEARCH IN (selected) UNSEEN").await, ["a/b ALL 1"]);
    assert_eq!(
        said(&mut session, "ESEARCH IN (selected mailboxes (a a/b)) SEEN").await,
        ["a ALL 2", "a/b ALL 2"]
    );
    session.expect("ESEARCH IN (selected) RETURN (SAVE) SEEN", &[], "OK ").await;
    session.expect("FETCH $ UID", &["* 2 FETCH (UID 2)"], "OK ").await;
    assert_eq!(said(&mut session, "ESEARCH IN (mailboxes a/b) $").await, ["a/b ALL 2"]);
    session.expect("ESEARCH IN (mailboxes a) $", &[], "NO ").await;
    session.expect("ESEARCH IN (subtree a) UID $", &[], "NO ").await;
    session.expect("ESEARCH IN (subtree a) RETURN (SAVE) ALL", &[], "BAD ").await;
    session.expect("ESEARCH RETURN (SAVE) FLAGGED", &[], "OK ").await;
    session.expect("FETCH $ UID", &[], "OK ").await;
    // The selected mailbox is searched as the client sees it: what another session expunges keeps its number.
    let mut other = world.selected("a/b").await;
    other.ok("STORE 1 +FLAGS.SILENT (\\Deleted)").await;
    other.ok("EXPUNGE").await;
    assert_eq!(said(&mut session, "ESEARCH IN (selected) 2").await, ["a/b ALL 2"]);
    let reply = session.ok("NOOP").await;
    assert_eq!(reply.with("EXPUNGE"), ["* 1 EXPUNGE"]);
    assert_eq!(said(&mut session, "ESEARCH IN (selected) 1").await, ["a/b ALL 2"]);
}

#[tokio::test]
async fn wrong_sources_are_refused() {
    let world = World::with(Config { multisearch_mailboxes_max: 3, ..Config::default() }).await;
    let mut session = world.connect(None).await;
    session.expect("ESEARCH IN (personal) ALL", &[], "BAD ").await;
    let mut session = seven(&world).await;
    session.ok("SELECT INBOX").await;
    for wrong in [
        "ESEARCH",
        "ESEARCH IN (personal)",
        "ESEARCH IN ALL",
        "ESEARCH IN () ALL",
        "ESEARCH IN (elsewhere) ALL",
        "ESEARCH IN (\"personal\") ALL",
        // A word of NOTIFY, which RFC 7377 §2.2 does not take over.
        "ESEARCH IN (selected-delayed) ALL",
        "ESEARCH IN (subtree) ALL",
        "ESEARCH IN (subtree-one ()) ALL",
        "ESEARCH IN (mailboxes (a b) ) ALL",
        "ESEARCH IN (personal (depth 1)) ALL",
        "ESEARCH IN (personal) RETURN (PARTIAL 1:2 ALL) ALL",
        "ESEARCH IN (personal) RETURN (RELEVANCY) ALL",
        "UID ESEARCH IN (personal) ALL",
    ] {
        session.expect(wrong, &[], "BAD ").await;
    }
    session.expect("ESEARCH IN (personal) ALL", &[], "NO [LIMIT]").await;
    session.expect("ESEARCH IN (personal) CHARSET KOI8-R ALL", &[], "NO [BADCHARSET").await;
    assert_eq!(said(&mut session, "ESEARCH IN (subtree a) SEEN").await.len(), 3);
}
