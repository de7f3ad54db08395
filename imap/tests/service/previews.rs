//! PREVIEW (RFC 8970).

use crate::world::{MULTIPART, World, plain};

#[tokio::test]
async fn previews_are_told_and_nothing_is_seen() {
    let world = World::new().await;
    let mut session = world.selected("INBOX").await;
    assert!(session.ok("CAPABILITY").await.untagged[0].contains(" PREVIEW"));
    session.append("INBOX", "", &plain("one", "> what you said\r\n\r\nHello   there,\r\n\tyou")).await;
    session.append("INBOX", "", MULTIPART).await;
    let html = "From: a@b\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n\
        <html><head><style>p { color: red }</style></head><body><p>Gr&uuml;&szlig;e <b>all</b></p></body></html>\r\n";
    session.append("INBOX", "", html).await;
    session.append("INBOX", "", "From: a@b\r\n\r\n").await;
    session.append("INBOX", "", &plain("long", &"word ".repeat(1000))).await;
    session.ok("NOOP").await;
    session
        .expect(
            "FETCH 1:4 PREVIEW",
            &[
                "* 1 FETCH (PREVIEW \"Hello there, you\")",
                "* 2 FETCH (PREVIEW {13}\r\nK\u{e4}se ist gut)",
                "* 3 FETCH (PREVIEW {11}\r\nGr\u{fc}\u{df}e all)",
                "* 4 FETCH (PREVIEW \"\")",
            ],
            "OK ",
        )
        .await;
    session
        .expect(
            "UID FETCH 1 (FLAGS PREVIEW (LAZY))",
            &["* 1 FETCH (UID 1 FLAGS () PREVIEW \"Hello there, you\")"],
            "OK ",
        )
        .await;
    let long = session.ok("FETCH 5 PREVIEW (LAZY)").await.untagged.remove(0);
    let text = long.split('"').nth(1).unwrap();
    assert!(text.len() <= 200 && text.starts_with("word word") && text.ends_with("word"), "{long}");
    // With the body beside it, which is read.
    session
        .expect(
            "FETCH 1 (PREVIEW BODY.PEEK[HEADER.FIELDS (SUBJECT)])",
            &["* 1 FETCH (PREVIEW \"Hello there, you\" BODY[HEADER.FIELDS (SUBJECT)] {16}\r\nSubject: one\r\n\r\n)"],
            "OK ",
        )
        .await;
    session.expect("SEARCH SEEN", &["* SEARCH"], "OK ").await;
    for wrong in ["FETCH 1 PREVIEW (BRIEF)", "FETCH 1 (PREVIEW (LAZY BRIEF))", "FETCH 1 PREVIEW ()"] {
        session.expect(wrong, &[], "BAD ").await;
    }
}
