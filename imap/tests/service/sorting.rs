//! SORT and THREAD (RFC 5256), WITHIN (RFC 5032), over memory.

use crate::world::{Session, World};

/// A message: subject, from, date, and what else its header has.
fn message(subject: &str, from: &str, date: &str, more: &str) -> String {
    format!(
        "From: {from}\r\nTo: {from}\r\nSubject: {subject}\r\nDate: {date}\r\n{more}\r\n{}\r\n",
        "x".repeat(subject.len())
    )
}

async fn five(world: &World) -> Session {
    let mut session = world.selected("INBOX").await;
    for text in [
        message("beta", "Zoe <a@x.example>", "Mon, 7 Feb 1994 21:52:25 -0800", "Message-ID: <1@x>\r\n"),
        message(
            "Re: Alpha",
            "=?utf-8?q?=C3=84nne?= <c@x.example>",
            "Tue, 8 Feb 1994 04:00:00 +0000",
            "Message-ID: <2@x>\r\nIn-Reply-To: <0@x>\r\n",
        ),
        message("alpha", "b@x.example", "Wed, 9 Feb 1994 00:00:00 +0000", "Message-ID: <3@x>\r\n"),
        message(
            "Re: beta",
            "anne <d@x.example>",
            "Wed, 9 Feb 1994 01:00:00 +0000",
            "Message-ID: <4@x>\r\nReferences: <1@x>\r\n",
        ),
        message(
            "[list] RE: Beta (fwd)",
            "B@y.example",
            "nonsense",
            "Message-ID: <5@x>\r\nReferences: <1@x>\r\n <4@x>\r\n",
        ),
    ] {
        session.append("INBOX", "", &text).await;
    }
    session
}

#[tokio::test]
async fn orders() {
    let world = World::new().await;
    let mut session = five(&world).await;
    let mut check = async |command: &str, expected: &str| {
        let reply = session.ok(command).await;
        assert_eq!(reply.untagged, [expected], "{command}");
    };
    check("SORT (SUBJECT) UTF-8 ALL", "* SORT 2 3 1 4 5").await;
    check("SORT (REVERSE SUBJECT) UTF-8 ALL", "* SORT 1 4 5 2 3").await;
    check("SORT (SUBJECT REVERSE FROM) US-ASCII ALL", "* SORT 2 3 4 5 1").await;
    check("SORT (FROM) UTF-8 ALL", "* SORT 1 3 5 2 4").await;
    check("SORT (TO REVERSE ARRIVAL) UTF-8 ALL", "* SORT 1 3 5 2 4").await;
    check("SORT (CC) UTF-8 ALL", "* SORT 1 2 3 4 5").await;
    // 04:00 is before 21:52 on the west coast. The fifth has no date, and arrived in the same moment as the others.
    check("SORT (DATE) UTF-8 1:4", "* SORT 2 1 3 4").await;
    check("SORT (REVERSE DATE) UTF-8 1:4", "* SORT 4 3 1 2").await;
    check("SORT (ARRIVAL) UTF-8 ALL", "* SORT 1 2 3 4 5").await;
    check("SORT (SIZE) UTF-8 1,3", "* SORT 3 1").await;
    check("SORT (DISPLAYFROM) UTF-8 ALL", "* SORT 4 2 3 5 1").await;
    check("SORT (DISPLAYTO) UTF-8 NOT 2", "* SORT 4 3 5 1").await;
    check("UID SORT (REVERSE DATE) UTF-8 SUBJECT alpha", "* SORT 3 2").await;
    check("SORT (DATE) UTF-8 SUBJECT nothing", "* SORT").await;
    let reply = session.ok("SORT RETURN (ALL MIN MAX COUNT) (REVERSE DATE) UTF-8 1:4").await;
    assert!(reply.untagged[0].starts_with("* ESEARCH (TAG "), "{reply:?}");
    assert!(reply.untagged[0].ends_with(") MIN 4 MAX 2 COUNT 4 ALL 4,3,1:2"), "{reply:?}");
    session.expect("SORT RETURN (SAVE) (DATE) UTF-8 3", &[], "OK ").await;
    session.expect("SEARCH $", &["* SEARCH 3"], "OK ").await;
    session.expect("SORT (SUBJECT) KOI8-R ALL", &[], "NO [BADCHARSET").await;
    for wrong in
        ["SORT () UTF-8 ALL", "SORT (COLOUR) UTF-8 ALL", "SORT (SUBJECT)", "SORT (REVERSE) UTF-8 ALL"]
    {
        session.expect(wrong, &[], "BAD ").await;
    }
}

#[tokio::test]
async fn threads() {
    let world = World::new().await;
    let mut session = five(&world).await;
    let mut check = async |command: &str, expected: &str| {
        let reply = session.ok(command).await;
        assert_eq!(reply.untagged, [expected], "{command}");
    };
    check("THREAD REFERENCES UTF-8 ALL", "* THREAD (1 4 5)(3 2)").await;
    check("UID THREAD REFERENCES UTF-8 1,3,4", "* THREAD (1 4)(3)").await;
    check("THREAD REFS UTF-8 ALL", "* THREAD (2)(3)(1 4 5)").await;
    check("THREAD ORDEREDSUBJECT UTF-8 1:4", "* THREAD (2 3)(1 4)").await;
    check("THREAD ORDEREDSUBJECT UTF-8 SUBJECT beta", "* THREAD (1 (5)(4))").await;
    check("THREAD REFERENCES UTF-8 SUBJECT nothing", "* THREAD").await;
    session.expect("THREAD JWZ UTF-8 ALL", &[], "BAD ").await;
    session.expect("THREAD REFERENCES KOI8-R ALL", &[], "NO [BADCHARSET").await;
}

#[tokio::test]
async fn intervals() {
    let world = World::new().await;
    let mut session = world.selected("INBOX").await;
    session.append("INBOX", "", &message("old", "a@x.example", "Mon, 7 Feb 1994 21:52:25 -0800", "")).await;
    // What is appended here has an internal date of that year too.
    session.expect("SEARCH OLDER 3600", &["* SEARCH 1"], "OK ").await;
    session.expect("SEARCH YOUNGER 3600", &["* SEARCH"], "OK ").await;
    session.expect("SEARCH YOUNGER 4000000000", &["* SEARCH 1"], "OK ").await;
    session.expect("SEARCH OLDER 0", &[], "BAD ").await;
}
