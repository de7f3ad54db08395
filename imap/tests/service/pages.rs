//! PARTIAL (RFC 9394): pages of SEARCH, SORT and UID FETCH.

use crate::world::{Session, World, plain};

/// Eight messages with the UIDs 2 to 9; every other one is seen.
async fn eight(world: &World) -> Session {
    let mut session = world.selected("INBOX").await;
    for number in 1..10 {
        let flags = if number % 2 == 0 { "\\Seen" } else { "" };
        session.append("INBOX", flags, &plain(&format!("number {}", 10 - number), "x")).await;
    }
    session.ok("STORE 1 +FLAGS.SILENT (\\Deleted)").await;
    session.ok("EXPUNGE").await;
    session
}

/// What an ESEARCH response says behind the tag; nothing where there is none.
async fn said(session: &mut Session, command: &str) -> String {
    let reply = session.ok(command).await;
    let line = reply.untagged.first().map(String::as_str).unwrap_or_default();
    line.split_once(") ").map_or("", |(_, said)| said).to_owned()
}

#[tokio::test]
async fn searches_are_answered_in_pages_rfc9394_3_1() {
    let world = World::new().await;
    let mut session = eight(&world).await;
    assert!(session.ok("CAPABILITY").await.untagged[0].contains(" PARTIAL"));
    let mut check = async |command: &str, expected: &str| {
        assert_eq!(said(&mut session, command).await, expected, "{command}");
    };
    check("UID SEARCH RETURN (PARTIAL 1:3) ALL", "UID PARTIAL (1:3 2:4)").await;
    check("SEARCH RETURN (PARTIAL 1:3) ALL", "PARTIAL (1:3 1:3)").await;
    check("UID SEARCH RETURN (PARTIAL 7:20) ALL", "UID PARTIAL (7:20 8:9)").await;
    check("UID SEARCH RETURN (PARTIAL 9:20) ALL", "UID PARTIAL (9:20 NIL)").await;
    check("UID SEARCH RETURN (PARTIAL -1:-3) ALL", "UID PARTIAL (-1:-3 7:9)").await;
    check("UID SEARCH RETURN (PARTIAL -3:-1) ALL", "UID PARTIAL (-3:-1 7:9)").await;
    check("UID SEARCH RETURN (PARTIAL -7:-30) ALL", "UID PARTIAL (-7:-30 2:3)").await;
    check("UID SEARCH RETURN (PARTIAL -2:-2) SEEN", "UID PARTIAL (-2:-2 6)").await;
    check("UID SEARCH RETURN (PARTIAL 1:2) FLAGGED", "UID PARTIAL (1:2 NIL)").await;
    check("UID SEARCH RETURN (MIN PARTIAL 2:3 COUNT) SEEN", "UID MIN 2 COUNT 4 PARTIAL (2:3 4,6)").await;
    check("UID SORT RETURN (PARTIAL 1:3) (SUBJECT) UTF-8 ALL", "UID PARTIAL (1:3 9,8,7)").await;
    check("UID SORT RETURN (PARTIAL -1:-2) (SUBJECT) UTF-8 ALL", "UID PARTIAL (-1:-2 3,2)").await;
    for wrong in [
        "SEARCH RETURN (PARTIAL 1:5 ALL) ALL",
        "SEARCH RETURN (PARTIAL 1:5 PARTIAL 6:9) ALL",
        "SEARCH RETURN (PARTIAL 0:5) ALL",
        "SEARCH RETURN (PARTIAL -1:5) ALL",
        "SEARCH RETURN (PARTIAL 1:*) ALL",
        "SEARCH RETURN (PARTIAL) ALL",
    ] {
        session.expect(wrong, &[], "BAD ").await;
    }
}

#[tokio::test]
async fn what_is_saved_is_what_was_told_rfc9394_3_2() {
    let world = World::new().await;
    let mut session = eight(&world).await;
    let mut check = async |returns: &str, told: &str, saved: &str| {
        assert_eq!(
            said(&mut session, &format!("UID SEARCH RETURN ({returns}) ALL")).await,
            told,
            "{returns}"
        );
        assert_eq!(said(&mut session, "UID SEARCH RETURN (ALL) $").await, saved, "{returns}");
    };
    check("SAVE PARTIAL 2:3", "UID PARTIAL (2:3 3:4)", "UID ALL 3:4").await;
    check("SAVE PARTIAL 2:3 MIN", "UID MIN 2 PARTIAL (2:3 3:4)", "UID ALL 2:4").await;
    check("SAVE PARTIAL 2:3 MAX", "UID MAX 9 PARTIAL (2:3 3:4)", "UID ALL 3:4,9").await;
    check("SAVE PARTIAL 2:3 MIN MAX", "UID MIN 2 MAX 9 PARTIAL (2:3 3:4)", "UID ALL 2:4,9").await;
    check("SAVE PARTIAL 2:3 COUNT", "UID COUNT 8 PARTIAL (2:3 3:4)", "UID ALL 2:9").await;
    check("SAVE PARTIAL 2:3 COUNT MIN", "UID MIN 2 COUNT 8 PARTIAL (2:3 3:4)", "UID ALL 2:9").await;
    check("SAVE PARTIAL 20:30", "UID PARTIAL (20:30 NIL)", "UID").await;
}

#[tokio::test]
async fn messages_are_fetched_in_pages_rfc9394_3_3() {
    let world = World::new().await;
    let mut session = eight(&world).await;
    let uids = async |session: &mut Session, command: &str| {
        let uid = |line: &String| {
            line.split("UID ").nth(1).unwrap().split([' ', ')']).next().unwrap().parse::<u32>().unwrap()
        };
        session.ok(command).await.untagged.iter().map(uid).collect::<Vec<_>>()
    };
    assert_eq!(uids(&mut session, "UID FETCH 1:* (UID) (PARTIAL 1:3)").await, [2, 3, 4]);
    assert_eq!(uids(&mut session, "UID FETCH 1:* UID (PARTIAL -1:-3)").await, [7, 8, 9]);
    assert_eq!(uids(&mut session, "UID FETCH 3:4,6,8:20 FLAGS (PARTIAL 2:4)").await, [4, 6, 8]);
    assert_eq!(uids(&mut session, "UID FETCH 3:4,6,8:20 FLAGS (PARTIAL -4:-2)").await, [4, 6, 8]);
    assert!(uids(&mut session, "UID FETCH 3:4 FLAGS (PARTIAL 3:9)").await.is_empty());
    // Only these are seen.
    session.ok("UID FETCH 3,5,7 BODY[TEXT] (PARTIAL 2:2)").await;
    session.expect("UID SEARCH SEEN", &["* SEARCH 2 4 5 6 8"], "OK ").await;
    // Of those that have changed, in whatever order it is asked for.
    let highest = session.ok("STATUS INBOX (HIGHESTMODSEQ)").await.with("* STATUS")[0].to_owned();
    let highest: u64 = highest.split([' ', ')']).find_map(|word| word.parse().ok()).unwrap();
    session.ok("UID STORE 3,5,8 +FLAGS.SILENT (\\Flagged)").await;
    for modifiers in
        [format!("PARTIAL -1:-2 CHANGEDSINCE {highest}"), format!("CHANGEDSINCE {highest} PARTIAL -1:-2")]
    {
        assert_eq!(uids(&mut session, &format!("UID FETCH 1:7 (UID) ({modifiers})")).await, [3, 5]);
        assert_eq!(uids(&mut session, &format!("UID FETCH 1:* (UID) ({modifiers})")).await, [5, 8]);
    }
    for wrong in [
        "FETCH 1:* FLAGS (PARTIAL 1:3)",
        "UID FETCH 1:* FLAGS (PARTIAL 1:3 PARTIAL 1:3)",
        "UID FETCH 1:* FLAGS (PARTIAL)",
        "UID FETCH 1:* FLAGS (PARTIAL 1:-3)",
        "UID FETCH 1:* FLAGS PARTIAL 1:3",
    ] {
        session.expect(wrong, &[], "BAD ").await;
    }
}
