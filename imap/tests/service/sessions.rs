//! Sessions over memory: every command, and what other sessions see of it.

use std::fmt::Write as _;
use std::time::Duration;

use directory::{NewGrant, PlainLogin, Service, ServiceSet};
use mail::address::Address;

use crate::world::{MULTIPART, World, plain};

#[tokio::test]
async fn login_and_logout() {
    let world = World::new().await;
    let mut session = world.connect(None).await;
    session.expect("SELECT INBOX", &[], "BAD Log in first").await;
    session.expect("LOGIN alice@example.test wrong", &[], "NO [AUTHENTICATIONFAILED]").await;
    session.expect("LOGIN nobody@example.test postrider", &[], "NO [AUTHENTICATIONFAILED]").await;
    session.expect("AUTHENTICATE CRAM-MD5", &[], "NO [CANNOT]").await;
    session.expect("AUTHENTICATE PLAIN AGE=", &[], "BAD ").await;
    let reply = session.run("ID (\"name\" \"test\")").await;
    assert_eq!(reply.untagged, ["* ID (\"name\" \"Postrider\")"]);
    // "\0alice@example.test\0postrider"
    let reply = session.ok("AUTHENTICATE PLAIN AGFsaWNlQGV4YW1wbGUudGVzdABwb3N0cmlkZXI=").await;
    assert!(reply.tagged.contains("QRESYNC") && !reply.tagged.contains("AUTH="), "{}", reply.tagged);
    session.expect("LOGIN alice@example.test postrider", &[], "BAD Already logged in").await;
    session.expect("LOGOUT", &["* BYE Logging out"], "OK ").await;

    let mut session = world.connect(None).await;
    session.send(b"a AUTHENTICATE PLAIN\r\n").await;
    assert_eq!(session.event().await, "+ ");
    session.send(b"AGFsaWNlQGV4YW1wbGUudGVzdABwb3N0cmlkZXI=\r\n").await;
    assert!(session.event().await.starts_with("a OK ["));
}

#[tokio::test]
async fn passwords_travel_encrypted_or_not_at_all() {
    let world = World::new().await;
    let mut session = world.connect(Some("192.0.2.1:1234")).await;
    let reply = session.ok("CAPABILITY").await;
    assert!(reply.untagged[0].contains("STARTTLS LOGINDISABLED"), "{}", reply.untagged[0]);
    session.expect("LOGIN alice@example.test postrider", &[], "NO [PRIVACYREQUIRED]").await;
    session.expect("AUTHENTICATE PLAIN AGE=", &[], "NO [PRIVACYREQUIRED]").await;
    session.ok("STARTTLS").await;
    session.pump.machine().start_tls();
    let reply = session.ok("CAPABILITY").await;
    let mechanisms = " AUTH=OAUTHBEARER AUTH=XOAUTH2 AUTH=PLAIN";
    assert!(reply.untagged[0].ends_with(mechanisms), "{}", reply.untagged[0]);
    session.expect("STARTTLS", &[], "BAD ").await;
    session.ok("LOGIN alice@example.test postrider").await;
    session.ok("SELECT INBOX").await;
}

/// RFC 7628, and what came before it.
#[tokio::test]
async fn tokens_log_in_until_they_are_withdrawn() {
    let world = World::new().await;
    let alice = Address::parse("alice@example.test").unwrap();
    let login =
        PlainLogin { login: alice.to_string(), password: "postrider".to_owned(), service: Service::Imap };
    let home = [127, 0, 0, 1].into();
    let principal = world.directory.authenticate(&login, home).await.unwrap();
    let grant = NewGrant { client: "c", name: "a program", services: ServiceSet::ALL };
    let (grant, _) = world.directory.grant(&principal, grant).await.unwrap();
    let token = world.directory.access_token(principal.account, &grant).reveal().to_owned();
    let bearer = |name: &str, token: &str| {
        sasl::wire::encode(format!("n,{name},\x01auth=Bearer {token}\x01\x01").as_bytes())
    };
    let old = sasl::wire::encode(format!("user={alice}\x01auth=Bearer {token}\x01\x01").as_bytes());
    for exchange in [
        format!("OAUTHBEARER {}", bearer("a=alice@example.test", &token)),
        format!("OAUTHBEARER {}", bearer("", &token)),
        format!("XOAUTH2 {old}"),
    ] {
        let mut session = world.connect(None).await;
        session.ok(&format!("AUTHENTICATE {exchange}")).await;
        session.ok("SELECT INBOX").await;
    }
    // A wrong one is told why, and then that it is (RFC 7628 §3.2.3).
    let mut session = world.connect(None).await;
    let wrong = bearer("", &token.replace("access-", "access-x"));
    session.send(format!("a AUTHENTICATE OAUTHBEARER {wrong}\r\n").as_bytes()).await;
    let told = session.event().await;
    let told = sasl::wire::decode(told.strip_prefix("+ ").unwrap().as_bytes()).unwrap();
    assert_eq!(told, br#"{"status":"invalid_token"}"#);
    session.send(b"AQ==\r\n").await;
    assert!(session.event().await.starts_with("a NO [AUTHENTICATIONFAILED]"));
    session.expect("AUTHENTICATE OAUTHBEARER bm90aGluZw==", &[], "BAD ").await;

    // Without encryption a token is as good as a password.
    let mut session = world.connect(Some("192.0.2.1:1234")).await;
    let refused = format!("AUTHENTICATE OAUTHBEARER {}", bearer("", &token));
    session.expect(&refused, &[], "NO [PRIVACYREQUIRED]").await;

    // What goes on ends with what it came of, whether it idles or not.
    let looking = tokio::spawn(world.directory.clone().look_after_logins());
    let mut idle = world.connect(None).await;
    idle.ok(&format!("AUTHENTICATE XOAUTH2 {old}")).await;
    idle.ok("SELECT INBOX").await;
    idle.send(b"i IDLE\r\n").await;
    assert!(idle.event().await.starts_with('+'));
    let mut quiet = world.connect(None).await;
    quiet.ok(&format!("AUTHENTICATE XOAUTH2 {old}")).await;
    let mut by_password = world.alice().await;
    assert!(world.directory.revoke(principal.account, grant.id).await.unwrap());
    assert_eq!(idle.event().await, "* BYE The login was withdrawn");
    assert_eq!(quiet.event().await, "* BYE The login was withdrawn");
    by_password.ok("NOOP").await;
    looking.abort();
}

#[tokio::test]
async fn guessing_ends_the_connection() {
    let world = World::new().await;
    let mut session = world.connect(None).await;
    for _ in 0..4 {
        session.expect("LOGIN alice@example.test wrong", &[], "NO ").await;
    }
    session.expect("LOGIN alice@example.test wrong", &[], "NO ").await;
    assert_eq!(session.event().await, "* BYE Too many failed logins");
}

#[tokio::test]
async fn an_empty_mailbox() {
    let world = World::new().await;
    let mut session = world.alice().await;
    let reply = session.ok("SELECT inbox").await;
    assert_eq!(reply.tagged, "OK [READ-WRITE] Select completed");
    let expected = [
        "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)",
        "* OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] Flags permitted",
        "* 0 EXISTS",
        "* 0 RECENT",
    ];
    assert_eq!(reply.untagged[..4], expected);
    assert_eq!(reply.with("UIDNEXT"), ["* OK [UIDNEXT 1] Predicted next UID"]);
    session.expect("FETCH 1 FLAGS", &[], "BAD ").await;
    session.expect("FETCH * FLAGS", &[], "BAD ").await;
    session.expect("UID FETCH 1:* FLAGS", &[], "OK ").await;
    session.expect("SEARCH ALL", &["* SEARCH"], "OK ").await;
    session.expect("EXPUNGE", &[], "OK ").await;
    session
        .expect("EXAMINE nowhere", &["* OK [CLOSED] Previous mailbox is closed"], "NO [NONEXISTENT]")
        .await;
    session.expect("FETCH 1 FLAGS", &[], "BAD No mailbox is selected").await;
}

#[tokio::test]
async fn append_and_fetch() {
    let world = World::new().await;
    let mut session = world.selected("INBOX").await;
    let message = plain("one", "Hello");
    let reply = session.append("INBOX", "\\Seen $Label", &message).await;
    assert!(reply.tagged.starts_with("OK [APPENDUID "), "{}", reply.tagged);
    assert!(reply.tagged.contains(" 1] "));
    assert_eq!(reply.with("EXISTS"), ["* 1 EXISTS"]);
    assert_eq!(reply.with("FLAGS (").len(), 2, "the new keyword is announced: {reply:?}");
    let size = message.len();
    session
        .expect(
            "FETCH 1 FAST",
            &[&format!(
                "* 1 FETCH (FLAGS (\\Seen $Label) INTERNALDATE \"07-Feb-1994 21:52:25 -0800\" RFC822.SIZE {size})"
            )],
            "OK ",
        )
        .await;
    session
        .expect(
            "UID FETCH 1 (ENVELOPE BODY)",
            &["* 1 FETCH (UID 1 ENVELOPE (\"Mon, 7 Feb 1994 21:52:25 -0800\" \"one\" \
               ((\"Fred Foobar\" NIL \"fred\" \"example.com\")) ((\"Fred Foobar\" NIL \"fred\" \"example.com\")) \
               ((\"Fred Foobar\" NIL \"fred\" \"example.com\")) ((NIL NIL \"alice\" \"example.test\")) NIL NIL NIL \
               \"<one@example.com>\") BODY (\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 7 1))"],
            "OK ",
        )
        .await;
    session.expect("FETCH 1 BODY[]", &[&format!("* 1 FETCH (BODY[] {{{size}}}\r\n{message})")], "OK ").await;
    session.expect("FETCH 1 BODY[TEXT]<1.3>", &["* 1 FETCH (BODY[TEXT]<1> {3}\r\nell)"], "OK ").await;
    session.expect("FETCH 1 BODY[TEXT]<100.3>", &["* 1 FETCH (BODY[TEXT]<100> {0}\r\n)"], "OK ").await;
    session
        .expect(
            "FETCH 1 BODY[HEADER.FIELDS (subject X-None)]",
            &["* 1 FETCH (BODY[HEADER.FIELDS (subject X-None)] {16}\r\nSubject: one\r\n\r\n)"],
            "OK ",
        )
        .await;
    session.expect("FETCH 1 RFC822.TEXT", &["* 1 FETCH (RFC822.TEXT {7}\r\nHello\r\n)"], "OK ").await;
    let header = message.len() - 7;
    let reply = session.ok("FETCH 1 (RFC822.HEADER BODY[HEADER.FIELDS.NOT (From To Date Message-ID)])").await;
    assert!(reply.untagged[0].starts_with(&format!("* 1 FETCH (RFC822.HEADER {{{header}}}\r\nFrom: ")));
    assert!(reply.untagged[0].ends_with("{16}\r\nSubject: one\r\n\r\n)"), "{reply:?}");
    session
        .expect("FETCH 1 (BODY[5] BODY[1.HEADER])", &["* 1 FETCH (BODY[5] NIL BODY[1.HEADER] NIL)"], "OK ")
        .await;
    session.expect("FETCH 1 BODY[1]", &["* 1 FETCH (BODY[1] {7}\r\nHello\r\n)"], "OK ").await;
}

#[tokio::test]
async fn parts_are_ranges() {
    let world = World::new().await;
    let mut session = world.selected("INBOX").await;
    session.append("INBOX", "\\Seen", MULTIPART).await;
    let check = [
        ("BODY[1]", "K=C3=A4se ist\r\n gut"),
        (
            "BODY[1.MIME]",
            "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n",
        ),
        ("BODY[2]", "From: c@d\r\nSubject: =?utf-8?Q?in=C3=A4r?=\r\n\r\ninner text"),
        ("BODY[2.HEADER]", "From: c@d\r\nSubject: =?utf-8?Q?in=C3=A4r?=\r\n\r\n"),
        ("BODY[2.TEXT]", "inner text"),
        ("BODY[2.1]", "inner text"),
        ("BODY[2.HEADER.FIELDS (From)]", "From: c@d\r\n\r\n"),
        ("BODY[3]", "a8Okc2U="),
    ];
    for (item, expected) in check {
        let line = format!("* 1 FETCH ({item} {{{}}}\r\n{expected})", expected.len());
        session.expect(&format!("FETCH 1 {item}"), &[&line], "OK ").await;
    }
    let reply = session.ok("FETCH 1 BODYSTRUCTURE").await;
    assert_eq!(
        reply.untagged,
        [
            "* 1 FETCH (BODYSTRUCTURE ((\"text\" \"plain\" (\"charset\" \"utf-8\") NIL NIL \"quoted-printable\" 19 1 NIL NIL NIL NIL)\
          (\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 55 (NIL \"=?utf-8?Q?in=C3=A4r?=\" ((NIL NIL \"c\" \"d\")) ((NIL NIL \"c\" \"d\")) \
          ((NIL NIL \"c\" \"d\")) NIL NIL NIL NIL NIL) (\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 10 0 NIL NIL NIL NIL) 3 NIL NIL NIL NIL)\
          (\"application\" \"octet-stream\" (\"name\" \"f.bin\") NIL NIL \"base64\" 8 NIL NIL NIL NIL) \"mixed\" (\"boundary\" \"x\") NIL NIL NIL))"
        ]
    );
}

#[tokio::test]
async fn fetching_a_body_sets_seen_once() {
    let world = World::new().await;
    let mut session = world.selected("INBOX").await;
    for number in 0..3 {
        session.append("INBOX", "", &plain(&number.to_string(), "x")).await;
    }
    session.expect("FETCH 1 BODY.PEEK[TEXT]", &["* 1 FETCH (BODY[TEXT] {3}\r\nx\r\n)"], "OK ").await;
    session
        .expect("FETCH 1 BODY[TEXT]", &["* 1 FETCH (BODY[TEXT] {3}\r\nx\r\n FLAGS (\\Seen))"], "OK ")
        .await;
    session.expect("FETCH 1 BODY[TEXT]", &["* 1 FETCH (BODY[TEXT] {3}\r\nx\r\n)"], "OK ").await;
    let reply = session.ok("FETCH 1:3 (FLAGS RFC822.TEXT)").await;
    assert_eq!(reply.untagged.len(), 3, "{reply:?}");
    assert!(reply.untagged.iter().all(|line| line.contains("FLAGS (\\Seen) ")), "{reply:?}");
    session.ok("EXAMINE INBOX").await;
    session.ok("NOOP").await;
    session.ok("SELECT INBOX").await;
    session.expect("SEARCH UNSEEN", &["* SEARCH"], "OK ").await;

    session.append("INBOX", "", &plain("x", "x")).await;
    session.ok("EXAMINE INBOX").await;
    session.expect("FETCH 4 BODY[TEXT]", &["* 4 FETCH (BODY[TEXT] {3}\r\nx\r\n)"], "OK ").await;
    session.expect("STORE 4 FLAGS (\\Seen)", &[], "NO [READ-ONLY]").await;
    session.expect("SEARCH UNSEEN", &["* SEARCH 4"], "OK ").await;
}

#[tokio::test]
async fn store_and_expunge() {
    let world = World::new().await;
    let mut session = world.selected("INBOX").await;
    let mut other = world.selected("INBOX").await;
    for number in 0..4 {
        session.append("INBOX", "", &plain(&number.to_string(), "x")).await;
    }
    let reply = other.ok("NOOP").await;
    assert_eq!(reply.untagged, ["* 4 EXISTS"]);
    session
        .expect(
            "STORE 1:2 +FLAGS (\\Flagged)",
            &["* 1 FETCH (FLAGS (\\Flagged))", "* 2 FETCH (FLAGS (\\Flagged))"],
            "OK ",
        )
        .await;
    // As if fetched: also what was so before.
    session.expect("UID STORE 1 +FLAGS (\\Flagged)", &["* 1 FETCH (UID 1 FLAGS (\\Flagged))"], "OK ").await;
    session.expect("STORE 1 FLAGS.SILENT (\\Deleted)", &[], "OK ").await;
    session.expect("STORE 3 -FLAGS.SILENT (\\Deleted)", &[], "OK ").await;
    session.expect("STORE 3 +FLAGS (\\Recent)", &[], "BAD ").await;
    other.expect("NOOP", &["* 1 FETCH (FLAGS (\\Deleted))", "* 2 FETCH (FLAGS (\\Flagged))"], "OK ").await;
    // What another session changed is told although the client's own change is silent.
    other.ok("STORE 4 +FLAGS (\\Answered)").await;
    session.expect("STORE 4 +FLAGS.SILENT (\\Seen)", &["* 4 FETCH (FLAGS (\\Answered \\Seen))"], "OK ").await;
    other.expect("NOOP", &["* 4 FETCH (FLAGS (\\Answered \\Seen))"], "OK ").await;

    session.ok("STORE 3 +FLAGS.SILENT (\\Deleted)").await;
    session.expect("UID EXPUNGE 2:3", &["* 3 EXPUNGE"], "OK ").await;
    // No message number changes while the other session uses them.
    other.expect("FETCH 4 (UID)", &["* 4 FETCH (UID 4)"], "OK ").await;
    other.expect("FETCH 3 (UID)", &[], "NO [EXPUNGEISSUED]").await;
    other.expect("SEARCH UID 4", &["* SEARCH 4"], "OK ").await;
    other.expect("NOOP", &["* 3 EXPUNGE"], "OK ").await;
    session.expect("EXPUNGE", &["* 1 EXPUNGE"], "OK ").await;
    other
        .expect("UID FETCH 1:* UID", &["* 2 FETCH (UID 2)", "* 3 FETCH (UID 4)", "* 1 EXPUNGE"], "OK ")
        .await;
    session.ok("STORE 1 +FLAGS (\\Deleted)").await;
    session.expect("CLOSE", &[], "OK ").await;
    session.expect("SELECT nowhere", &[], "NO ").await;
    other.expect("CHECK", &["* 1 EXPUNGE"], "OK ").await;
    other.ok("STORE 1 +FLAGS (\\Deleted)").await;
    other.expect("UNSELECT", &[], "OK ").await;
    let reply = other.ok("SELECT INBOX").await;
    assert_eq!(reply.with("EXISTS"), ["* 1 EXISTS"]);
}

#[tokio::test]
async fn copy_and_move() {
    let world = World::new().await;
    let mut session = world.selected("INBOX").await;
    for number in 0..5 {
        session.append("INBOX", "\\Seen", &plain(&number.to_string(), "x")).await;
    }
    session.ok("CREATE Target").await;
    session.expect("COPY 1 Nowhere", &[], "NO [TRYCREATE]").await;
    let reply = session.ok("COPY 2:3 Target").await;
    assert!(
        reply.tagged.starts_with("OK [COPYUID ") && reply.tagged.contains(" 2:3 1:2] "),
        "{}",
        reply.tagged
    );
    let reply = session.ok("UID MOVE 1,5,9 Target").await;
    assert!(reply.untagged[0].starts_with("* OK [COPYUID ") && reply.untagged[0].contains(" 1,5 3:4] "));
    assert_eq!(reply.untagged[1..], ["* 5 EXPUNGE", "* 1 EXPUNGE"]);
    session.expect("UID MOVE 9 Target", &[], "OK ").await;
    session
        .expect("STATUS Target (MESSAGES UNSEEN)", &["* STATUS Target (MESSAGES 4 UNSEEN 0)"], "OK ")
        .await;
    session.ok("SELECT Target").await;
    let reply = session.ok("FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (Subject)])").await;
    let subjects: Vec<_> =
        reply.untagged.iter().map(|line| line.split("Subject: ").nth(1).unwrap()).collect();
    assert_eq!(subjects, ["1\r\n\r\n)", "2\r\n\r\n)", "0\r\n\r\n)", "4\r\n\r\n)"]);
    // A message copied into its own mailbox is another message.
    session.ok("COPY 1 Target").await;
    let reply = session.ok("NOOP").await;
    assert!(reply.untagged.is_empty());
    session.expect("UID FETCH 5 (FLAGS)", &["* 5 FETCH (UID 5 FLAGS (\\Seen))"], "OK ").await;
}

#[tokio::test]
async fn many_messages_in_one_append() {
    let world = World::new().await;
    let mut session = world.selected("INBOX").await;
    let (one, two) = (plain("one", "1"), plain("two", "2"));
    let command =
        format!("APPEND INBOX (\\Seen) {{{}+}}\r\n{one} (\\Flagged) {{{}+}}\r\n{two}", one.len(), two.len());
    let reply = session.ok(&command).await;
    assert!(reply.tagged.contains(" 1:2] "), "{}", reply.tagged);
    assert_eq!(reply.untagged, ["* 2 EXISTS"]);
    session
        .expect("FETCH 1:2 FLAGS", &["* 1 FETCH (FLAGS (\\Seen))", "* 2 FETCH (FLAGS (\\Flagged))"], "OK ")
        .await;
    // All or none.
    let broken = format!("APPEND INBOX {{{}+}}\r\n{one} (\\Nonsense) {{{}+}}\r\n{two}", one.len(), two.len());
    session.expect(&broken, &[], "BAD ").await;
    session.expect("APPEND INBOX {0+}\r\n", &[], "NO ").await;
    session.expect("APPEND Nowhere {2+}\r\nxx", &[], "NO [TRYCREATE]").await;
    session.expect("NOOP", &[], "OK ").await;
    // A literal that the client waits for.
    session.send(b"w APPEND INBOX {7}\r\n").await;
    assert_eq!(session.event().await, "+ OK");
    session.send(b"A: b\r\n\n\r\n").await;
    assert_eq!(session.event().await, "* 3 EXISTS");
    assert!(session.event().await.starts_with("w OK [APPENDUID "));
}

/// What is sent without waiting is answered command by command, in order, and before anything else is looked at.
#[tokio::test]
async fn appends_in_a_row() {
    let world = World::new().await;
    let mut session = world.selected("INBOX").await;
    let mut sent = String::new();
    for number in 1..=100 {
        let message = plain(&format!("row{number}"), "x");
        let mailbox = if number == 50 { "Nowhere" } else { "INBOX" };
        write!(sent, "a{number} APPEND {mailbox} (k{}) {{{}+}}\r\n{message}\r\n", number % 5, message.len())
            .unwrap();
    }
    sent.push_str("z FETCH 99 (UID FLAGS)\r\n");
    session.send(sent.as_bytes()).await;
    let reply = session.read_to("z").await;
    assert_eq!(reply.with(" FETCH (UID"), ["* 99 FETCH (UID 99 FLAGS (k0))"]);
    let answers: Vec<&str> =
        reply.untagged.iter().map(String::as_str).filter(|line| line.starts_with('a')).collect();
    assert_eq!(answers.len(), 100);
    // The one that was refused at once may have overtaken others; the rest have UIDs in the order in which they came.
    assert!(answers.iter().any(|line| line.starts_with("a50 NO [TRYCREATE]")), "{answers:?}");
    let uids = answers.iter().filter(|line| !line.starts_with("a50 "));
    for (uid, (number, answer)) in (1..).zip((1..=100).filter(|number| *number != 50).zip(uids)) {
        assert!(answer.starts_with(&format!("a{number} OK [APPENDUID ")), "{answer}");
        assert!(answer.contains(&format!(" {uid}] ")), "{answer}");
    }
    // A set is put whole or not at all, whatever stands beside it.
    let mut small = world.login("small").await;
    let (one, large) = (plain("fits", "x"), plain("large", &"x".repeat(1_500)));
    let mut sent = format!("a APPEND INBOX {{{}+}}\r\n{one}\r\n", one.len());
    write!(sent, "b APPEND INBOX {{{}+}}\r\n{large} {{{}+}}\r\n{large}\r\n", large.len(), large.len())
        .unwrap();
    write!(sent, "c APPEND INBOX {{{}+}}\r\n{one}\r\nd STATUS INBOX (MESSAGES)\r\n", one.len()).unwrap();
    small.send(sent.as_bytes()).await;
    let reply = small.read_to("d").await;
    let answers: Vec<&str> = reply.untagged.iter().map(|line| &line[..4]).collect();
    assert!(
        answers.contains(&"a OK") && answers.contains(&"b NO") && answers.contains(&"c OK"),
        "{answers:?}"
    );
    assert_eq!(reply.with("STATUS"), ["* STATUS INBOX (MESSAGES 2)"]);
    // A client that hangs up behind its last octet has left its messages.
    let leaving = world.login("alice").await;
    drop(session);
    let mut leaving = leaving;
    let sent = format!("a APPEND INBOX {{{}+}}\r\n{one}\r\n", one.len());
    leaving.send(sent.as_bytes()).await;
    drop(leaving);
    let mut look = world.selected("INBOX").await;
    for _ in 0..200 {
        if !look.ok("STATUS INBOX (MESSAGES)").await.with("MESSAGES 100").is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the last message is not there");
}

#[tokio::test]
async fn quota_is_kept() {
    let world = World::new().await;
    let mut session = world.login("small").await;
    session.append("INBOX", "", &plain("fits", "x")).await;
    session.ok("SELECT INBOX").await;
    session.send(b"a APPEND INBOX {5000}\r\n").await;
    assert!(session.event().await.starts_with("a NO [OVERQUOTA]"));
    for _ in 0..9 {
        session.run("COPY 1 INBOX").await;
    }
    session.expect("COPY 1:* INBOX", &[], "NO [OVERQUOTA]").await;
}

#[tokio::test]
async fn idle_hears_of_other_sessions() {
    let world = World::new().await;
    let mut idle = world.selected("INBOX").await;
    let mut other = world.selected("INBOX").await;
    idle.send(b"i IDLE\r\n").await;
    assert_eq!(idle.event().await, "+ idling");
    other.append("INBOX", "", &plain("one", "x")).await;
    assert_eq!(idle.event().await, "* 1 EXISTS");
    other.ok("STORE 1 +FLAGS (\\Deleted)").await;
    assert_eq!(idle.event().await, "* 1 FETCH (FLAGS (\\Deleted))");
    other.ok("EXPUNGE").await;
    assert_eq!(idle.event().await, "* 1 EXPUNGE");
    idle.send(b"DONE\r\n").await;
    assert_eq!(idle.event().await, "i OK Idle completed");
    idle.send(b"i IDLE\r\n").await;
    assert_eq!(idle.event().await, "+ idling");
    world.shutdown.begin();
    assert!(idle.event().await.starts_with("* BYE [UNAVAILABLE]"));
    let drained = world.shutdown.finish(Duration::from_secs(5)).await;
    assert_eq!(drained.aborted, 0);
}

#[tokio::test]
async fn mailboxes() {
    let world = World::new().await;
    let mut session = world.alice().await;
    session.expect("LIST \"\" \"\"", &["* LIST (\\Noselect) \"/\" \"\""], "OK ").await;
    session.expect("NAMESPACE", &["* NAMESPACE ((\"\" \"/\")) NIL NIL"], "OK ").await;
    session.ok("CREATE Work/Projects/One").await;
    session.ok("CREATE Entw&APw-rfe/").await;
    session.expect("CREATE inbox", &[], "NO [ALREADYEXISTS]").await;
    session.expect("CREATE Work", &[], "NO [ALREADYEXISTS]").await;
    session.expect("CREATE \"a\u{0}\"", &[], "BAD ").await;
    session.expect("CREATE &AAA", &[], "NO [CANNOT]").await;
    session
        .expect(
            "LIST \"\" Work*",
            &[
                "* LIST (\\HasChildren) \"/\" Work",
                "* LIST (\\HasChildren) \"/\" Work/Projects",
                "* LIST (\\HasNoChildren) \"/\" Work/Projects/One",
            ],
            "OK ",
        )
        .await;
    session.expect("LIST Work/ %", &["* LIST (\\HasChildren) \"/\" Work/Projects"], "OK ").await;
    session.expect("LIST \"\" Entw&APw-r%", &["* LIST (\\HasNoChildren) \"/\" Entw&APw-rfe"], "OK ").await;
    let reply = session.ok("LIST (SPECIAL-USE) \"\" *").await;
    assert!(reply.untagged.iter().any(|line| line.contains("\\Sent")), "{reply:?}");
    assert!(!reply.untagged.iter().any(|line| line.contains("INBOX")), "{reply:?}");
    session.expect("CREATE Sent2 (USE (\\Sent))", &[], "NO [USEATTR]").await;
    session.expect("CREATE All (USE (\\All))", &[], "NO [USEATTR]").await;

    session.expect("DELETE Work", &[], "NO [HASCHILDREN]").await;
    session.expect("DELETE INBOX", &[], "NO [CANNOT]").await;
    session.expect("DELETE Nowhere", &[], "NO [NONEXISTENT]").await;
    session.ok("RENAME Work Arbeit").await;
    session.expect("LIST \"\" Work*", &[], "OK ").await;
    session
        .expect(
            "STATUS Arbeit/Projects/One (MESSAGES)",
            &["* STATUS Arbeit/Projects/One (MESSAGES 0)"],
            "OK ",
        )
        .await;
    session.ok("SELECT Arbeit/Projects/One").await;
    session
        .expect("DELETE Arbeit/Projects/One", &["* OK [CLOSED] The selected mailbox was deleted"], "OK ")
        .await;
    session.expect("CHECK", &[], "BAD ").await;

    // Renaming INBOX moves its messages (RFC 9051 §6.3.6).
    session.append("INBOX", "", &plain("one", "x")).await;
    session.ok("RENAME INBOX Old").await;
    session.expect("STATUS Old (MESSAGES UIDNEXT)", &["* STATUS Old (MESSAGES 1 UIDNEXT 2)"], "OK ").await;
    session.expect("STATUS INBOX (MESSAGES)", &["* STATUS INBOX (MESSAGES 0)"], "OK ").await;
}

#[tokio::test]
async fn subscriptions() {
    let world = World::new().await;
    let mut session = world.alice().await;
    for mailbox in ["A/B/C", "A/D", "E"] {
        session.ok(&format!("CREATE {mailbox}")).await;
    }
    let reply = session.ok("LSUB \"\" *").await;
    for line in reply.untagged {
        let name = line.rsplit(' ').next().unwrap().to_owned();
        session.ok(&format!("UNSUBSCRIBE {name}")).await;
    }
    session.ok("SUBSCRIBE A/B/C").await;
    session.ok("SUBSCRIBE E").await;
    session.ok("DELETE E").await;
    session.expect("LSUB \"\" *", &["* LSUB () \"/\" A/B/C", "* LSUB () \"/\" E"], "OK ").await;
    session.expect("LSUB \"\" %", &["* LSUB (\\Noselect) \"/\" A", "* LSUB () \"/\" E"], "OK ").await;
    session
        .expect(
            "LIST (SUBSCRIBED) \"\" *",
            &[
                "* LIST (\\HasNoChildren \\Subscribed) \"/\" A/B/C",
                "* LIST (\\NonExistent \\HasNoChildren \\Subscribed) \"/\" E",
            ],
            "OK ",
        )
        .await;
    session
        .expect(
            "LIST (SUBSCRIBED RECURSIVEMATCH) \"\" % RETURN (CHILDREN)",
            &[
                "* LIST (\\HasChildren) \"/\" A (\"CHILDINFO\" (\"SUBSCRIBED\"))",
                "* LIST (\\NonExistent \\HasNoChildren \\Subscribed) \"/\" E",
            ],
            "OK ",
        )
        .await;
    session
        .expect(
            "LIST \"\" (A A/%) RETURN (SUBSCRIBED STATUS (MESSAGES))",
            &[
                "* LIST (\\HasChildren) \"/\" A",
                "* STATUS A (MESSAGES 0)",
                "* LIST (\\HasChildren) \"/\" A/B",
                "* STATUS A/B (MESSAGES 0)",
                "* LIST (\\HasNoChildren) \"/\" A/D",
                "* STATUS A/D (MESSAGES 0)",
            ],
            "OK ",
        )
        .await;
}

#[tokio::test]
async fn condstore() {
    let world = World::new().await;
    let mut session = world.alice().await;
    for number in 0..3 {
        session.append("INBOX", "", &plain(&number.to_string(), "x")).await;
    }
    let reply = session.ok("SELECT INBOX (CONDSTORE)").await;
    let highest = number_in(reply.with("HIGHESTMODSEQ")[0], "HIGHESTMODSEQ ");
    let reply = session.ok("FETCH 3 (MODSEQ)").await;
    assert_eq!(reply.untagged, [format!("* 3 FETCH (MODSEQ ({highest}))")]);
    let reply = session.ok("STORE 1 +FLAGS.SILENT (\\Seen)").await;
    let first = number_in(&reply.untagged[0], "MODSEQ (");
    assert!(first > highest && !reply.untagged[0].contains("FLAGS"), "{reply:?}");
    let reply = session.run(&format!("STORE 1:2 (UNCHANGEDSINCE {highest}) +FLAGS (\\Flagged)")).await;
    assert!(reply.tagged.starts_with("OK [MODIFIED 1] "), "{}", reply.tagged);
    assert_eq!(reply.with("* 2 FETCH (FLAGS (\\Flagged) MODSEQ (").len(), 1, "{reply:?}");
    assert_eq!(reply.with("* 1 FETCH").len(), 0, "{reply:?}");
    let reply = session.ok(&format!("UID FETCH 1:* (FLAGS) (CHANGEDSINCE {highest})")).await;
    assert_eq!(reply.untagged.len(), 2, "{reply:?}");
    assert!(reply.untagged[0].starts_with("* 1 FETCH (UID 1 FLAGS (\\Seen) MODSEQ ("), "{reply:?}");
    let reply = session.ok(&format!("SEARCH MODSEQ {first}")).await;
    assert!(reply.untagged[0].starts_with("* SEARCH 1 2 (MODSEQ "), "{reply:?}");
    session.expect("SEARCH MODSEQ 99999", &["* SEARCH"], "OK ").await;
    let reply = session.ok("STATUS INBOX (HIGHESTMODSEQ)").await;
    assert!(number_in(&reply.untagged[0], "HIGHESTMODSEQ ") > first);
    session.expect("STORE 1 (UNCHANGEDSINCE 0) +FLAGS (x)", &[], "OK [MODIFIED 1]").await;
}

fn number_in(line: &str, before: &str) -> u64 {
    let rest = line.split(before).nth(1).unwrap_or_else(|| panic!("no {before} in {line}"));
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// What was expunged long ago has to be fetched before anything can be said of it.
#[tokio::test]
async fn expunges_are_told_when_they_are_no_longer_in_memory() {
    const MESSAGES: usize = 40;
    let world = World::forgetful().await;
    let mut waiting = world.alice().await;
    for number in 0..MESSAGES {
        waiting.append("INBOX", "", &plain(&number.to_string(), "x")).await;
    }
    waiting.ok("ENABLE QRESYNC").await;
    let reply = waiting.ok("SELECT INBOX").await;
    let validity = number_in(reply.with("UIDVALIDITY")[0], "UIDVALIDITY ");
    let highest = number_in(reply.with("HIGHESTMODSEQ")[0], "HIGHESTMODSEQ ");

    let mut other = world.selected("INBOX").await;
    for uid in (1..=MESSAGES).step_by(2) {
        other.ok(&format!("UID STORE {uid} +FLAGS.SILENT (\\Deleted)")).await;
        other.ok(&format!("UID EXPUNGE {uid}")).await;
    }
    // Whoever opens another account has this one put away what is written: the snapshots first have to be.
    for _ in 0..20 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        world.login("small").await.ok("STATUS INBOX (MESSAGES)").await;
    }
    let gone: Vec<String> = (1..=MESSAGES).step_by(2).map(|uid| uid.to_string()).collect();
    let gone = gone.join(",");

    let mut late = world.alice().await;
    late.ok("ENABLE QRESYNC").await;
    let reply = late.ok(&format!("SELECT INBOX (QRESYNC ({validity} {highest}))")).await;
    assert!(reply.untagged.contains(&format!("* VANISHED (EARLIER) {gone}")), "{reply:?}");
    let reply = late.ok(&format!("UID FETCH 1:* (FLAGS) (CHANGEDSINCE {highest} VANISHED)")).await;
    assert!(reply.untagged.contains(&format!("* VANISHED (EARLIER) {gone}")), "{reply:?}");
    waiting.ok("UID STORE 2 +FLAGS (\\Flagged)").await;
    let reply = waiting.ok("NOOP").await;
    let told = waiting.ok("UID SEARCH ALL").await;
    assert!(!told.untagged.concat().contains(" 1 "), "{reply:?} {told:?}");
}

#[tokio::test]
async fn qresync() {
    let world = World::new().await;
    let mut session = world.alice().await;
    for number in 0..6 {
        session.append("INBOX", "", &plain(&number.to_string(), "x")).await;
    }
    session.expect("SELECT INBOX (QRESYNC (1 1))", &[], "BAD ").await;
    session.expect("ENABLE QRESYNC FOO", &["* ENABLED QRESYNC"], "OK ").await;
    let reply = session.ok("SELECT INBOX").await;
    let validity = number_in(reply.with("UIDVALIDITY")[0], "UIDVALIDITY ");
    let highest = number_in(reply.with("HIGHESTMODSEQ")[0], "HIGHESTMODSEQ ");

    let mut other = world.selected("INBOX").await;
    other.ok("STORE 2,4 +FLAGS.SILENT (\\Deleted)").await;
    other.ok("EXPUNGE").await;
    other.ok("STORE 1 +FLAGS (\\Seen)").await;
    other.append("INBOX", "\\Flagged", &plain("new", "x")).await;

    let reply = session.ok("NOOP").await;
    assert_eq!(reply.untagged[..2], ["* VANISHED 2,4", "* 5 EXISTS"]);
    assert!(reply.untagged[2].starts_with("* 1 FETCH (UID 1 FLAGS (\\Seen) MODSEQ ("), "{reply:?}");
    let reply = session.ok(&format!("UID FETCH 1:* (FLAGS) (CHANGEDSINCE {highest} VANISHED)")).await;
    assert_eq!(reply.untagged[0], "* VANISHED (EARLIER) 2,4");
    assert_eq!(reply.untagged.len(), 3, "{reply:?}");
    session.expect("FETCH 1 (FLAGS) (CHANGEDSINCE 1 VANISHED)", &[], "BAD ").await;

    let mut late = world.alice().await;
    late.ok("ENABLE QRESYNC").await;
    let reply = late.ok(&format!("SELECT INBOX (QRESYNC ({validity} {highest}))")).await;
    assert_eq!(reply.with("VANISHED"), ["* VANISHED (EARLIER) 2,4"]);
    let fetched = reply.with(" FETCH (UID ");
    assert!(fetched[0].starts_with("* 1 FETCH (UID 1 FLAGS (\\Seen) MODSEQ ("), "{reply:?}");
    assert!(fetched[1].starts_with("* 5 FETCH (UID 7 FLAGS (\\Flagged) MODSEQ ("), "{reply:?}");
    let reply = late.ok(&format!("SELECT INBOX (QRESYNC ({validity} {highest} 3:6))")).await;
    assert_eq!(reply.with("VANISHED"), ["* VANISHED (EARLIER) 4"]);
    assert_eq!(reply.with(" FETCH (").len(), 0, "{reply:?}");
    let other_validity = validity + 1;
    let reply = late.ok(&format!("SELECT INBOX (QRESYNC ({other_validity} {highest}))")).await;
    assert_eq!(reply.with("VANISHED").len() + reply.with("FETCH").len(), 0);
    let reply = late.ok("UID STORE 7 +FLAGS (\\Deleted)").await;
    assert!(
        reply.untagged[0].starts_with("* 5 FETCH (UID 7 FLAGS (\\Flagged \\Deleted) MODSEQ ("),
        "{reply:?}"
    );
    let reply = late.ok("EXPUNGE").await;
    assert_eq!(reply.untagged, ["* VANISHED 7"]);
    assert!(reply.tagged.starts_with("OK [HIGHESTMODSEQ "), "{}", reply.tagged);
}

#[tokio::test]
async fn search() {
    let world = World::new().await;
    let mut session = world.selected("INBOX").await;
    session.append("INBOX", "\\Seen", &plain("Grüße", "A Beautiful World")).await;
    session.append("INBOX", "\\Flagged keyWord", MULTIPART).await;
    let encoded = plain("=?utf-8?B?R3LDvMOfZQ==?=", "nothing here").replace("Date: Mon, 7", "Date: Tue, 8");
    let reply = session
        .ok(&format!("APPEND INBOX \" 9-Mar-2020 23:30:00 -0800\" {{{}+}}\r\n{encoded}", encoded.len()))
        .await;
    assert!(reply.tagged.contains(" 3] "));
    let cases = [
        ("ALL", "1 2 3"),
        ("SEEN", "1"),
        ("UNSEEN", "2 3"),
        ("KEYWORD KEYWORD", "2"),
        ("UNKEYWORD keyword", "1 3"),
        ("KEYWORD none", ""),
        ("NOT FLAGGED", "1 3"),
        ("OR SEEN FLAGGED", "1 2"),
        ("2:3 NOT UID 3", "2"),
        ("UID *", "3"),
        ("NEW", ""),
        ("OLD", "1 2 3"),
        ("BODY eautiful BODY \"ul worl\"", "1"),
        ("BODY k\u{e4}se", "2"),
        ("BODY \"inner text\"", "2"),
        ("BODY in\u{e4}r", "2"),
        ("BODY outer", ""),
        ("TEXT outer", "2"),
        ("TEXT quoted-printable", "2"),
        ("SUBJECT gr\u{fc}\u{df}e", "1 3"),
        ("SUBJECT \"\"", "1 2 3"),
        ("HEADER X-None \"\"", ""),
        ("HEADER Message-ID \"\"", "1 3"),
        ("FROM fred FROM foobar", "1 3"),
        ("TO alice", "1 3"),
        ("CC alice", ""),
        ("SENTON 7-Feb-1994", "1"),
        ("SENTSINCE 8-Feb-1994", "3"),
        ("SENTBEFORE 8-Feb-1994", "1"),
        ("ON 7-Feb-1994", "1 2"),
        ("SINCE 9-Mar-2020", "3"),
        ("BEFORE 9-Mar-2020", "1 2"),
        ("LARGER 400", "2"),
        ("SMALLER 400", "1 3"),
        ("NOT (BODY beautiful)", "2 3"),
        ("OR BODY beautiful (TEXT outer FLAGGED)", "1 2"),
        ("SEEN BODY nothing", ""),
        ("1:100", "1 2 3"),
    ];
    for (key, expected) in cases {
        let found = if expected.is_empty() { "* SEARCH".to_owned() } else { format!("* SEARCH {expected}") };
        // Words beyond ASCII go as literals.
        let mut command = String::from("SEARCH CHARSET UTF-8");
        for word in key.split(' ') {
            command.push(' ');
            if word.is_ascii() {
                command.push_str(word);
            } else {
                write!(command, "{{{}+}}\r\n{word}", word.len()).unwrap();
            }
        }
        session.expect(&command, &[&found], "OK ").await;
    }
    session.expect("SEARCH CHARSET LATIN-1 TEXT x", &[], "NO [BADCHARSET (US-ASCII UTF-8)]").await;
}

#[tokio::test]
async fn extended_search() {
    let world = World::new().await;
    let mut session = world.selected("INBOX").await;
    for number in 0..5 {
        session
            .append("INBOX", if number % 2 == 0 { "\\Seen" } else { "" }, &plain(&number.to_string(), "x"))
            .await;
    }
    session.ok("STORE 1 +FLAGS.SILENT (\\Deleted)").await;
    session.ok("EXPUNGE").await;
    let run = async |session: &mut crate::world::Session, command: &str| {
        let reply = session.ok(command).await;
        reply.untagged.first().map(|line| line.split_once(") ").map_or("", |(_, rest)| rest).to_owned())
    };
    assert_eq!(run(&mut session, "SEARCH RETURN () ALL").await.as_deref(), Some("ALL 1:4"));
    assert_eq!(
        run(&mut session, "UID SEARCH RETURN (MIN MAX COUNT) SEEN").await.as_deref(),
        Some("UID MIN 3 MAX 5 COUNT 2")
    );
    assert_eq!(run(&mut session, "SEARCH RETURN (COUNT ALL) FLAGGED").await.as_deref(), Some("COUNT 0"));
    assert_eq!(run(&mut session, "SEARCH RETURN (MIN) FLAGGED").await.as_deref(), Some(""));
    // The result is kept, and shrinks with the mailbox.
    assert_eq!(run(&mut session, "SEARCH RETURN (SAVE) SEEN").await, None);
    session.expect("FETCH $ UID", &["* 2 FETCH (UID 3)", "* 4 FETCH (UID 5)"], "OK ").await;
    assert_eq!(run(&mut session, "UID SEARCH RETURN (ALL) $ LARGER 1").await.as_deref(), Some("UID ALL 3,5"));
    session.ok("STORE $ +FLAGS.SILENT (\\Deleted)").await;
    session.ok("UID EXPUNGE 3").await;
    session.expect("UID FETCH $ FLAGS", &["* 3 FETCH (UID 5 FLAGS (\\Deleted \\Seen))"], "OK ").await;
    assert_eq!(run(&mut session, "SEARCH RETURN (SAVE MIN) ALL").await.as_deref(), Some("MIN 1"));
    session.expect("FETCH $ UID", &["* 1 FETCH (UID 2)"], "OK ").await;
    session.expect("SEARCH RETURN (SAVE) CHARSET x ALL", &[], "NO ").await;
}

#[tokio::test]
async fn a_deleted_mailbox_ends_who_has_it_selected() {
    let world = World::new().await;
    let mut other = world.alice().await;
    other.ok("CREATE Gone").await;
    let mut session = world.selected("Gone").await;
    other.ok("DELETE Gone").await;
    session.send(b"a NOOP\r\n").await;
    assert_eq!(session.event().await, "* BYE [UNAVAILABLE] The selected mailbox was deleted");
}

#[tokio::test]
async fn big_messages_are_streamed() {
    let world = World::new().await;
    let mut session = world.selected("INBOX").await;
    let line = format!("{}\r\n", "x".repeat(98));
    let mut message = plain("big", "");
    while message.len() < 3_000_000 {
        message.push_str(&line);
    }
    session.append("INBOX", "\\Seen", &message).await;
    let reply = session.ok("FETCH 1 (RFC822.SIZE BODY.PEEK[])").await;
    let expected = format!("* 1 FETCH (RFC822.SIZE {0} BODY[] {{{0}}}\r\n{message})", message.len());
    assert!(reply.untagged == [expected], "the message is not what it was");
    let reply = session.ok("FETCH 1 BODY.PEEK[]<2000000.300000>").await;
    let expected = format!("* 1 FETCH (BODY[]<2000000> {{300000}}\r\n{})", &message[2_000_000..2_300_000]);
    assert!(reply.untagged == [expected], "the part is not what it was");
    // A header that is longer than what is held.
    let mut header = String::new();
    for number in 0..20_000 {
        write!(header, "X-{}: {number}\r\n", number % 2).unwrap();
    }
    let message = format!("{header}\r\nbody\r\n");
    session.append("INBOX", "\\Seen", &message).await;
    let reply = session.ok("FETCH 2 BODY.PEEK[HEADER.FIELDS (X-1)]").await;
    let wanted: String = header.split_inclusive("\r\n").filter(|line| line.starts_with("X-1")).collect();
    let expected = format!("* 2 FETCH (BODY[HEADER.FIELDS (X-1)] {{{}}}\r\n{wanted}\r\n)", wanted.len() + 2);
    assert!(reply.untagged == [expected], "the fields are not what they were");
    let reply = session.ok("FETCH 2 BODY.PEEK[HEADER.FIELDS (X-1)]<100000.50>").await;
    let expected =
        format!("* 2 FETCH (BODY[HEADER.FIELDS (X-1)]<100000> {{50}}\r\n{})", &wanted[100_000..100_050]);
    assert_eq!(reply.untagged, [expected]);
}

/// RFC 9051 §9: a literal holds no NUL. A message may: 0x80 stands for it, whichever way the octets go out.
#[tokio::test]
async fn no_nul_is_sent() {
    let world = World::new().await;
    let mut session = world.selected("INBOX").await;
    let long = format!("X-Long: a\0b{}\r\n", "\0".repeat(70_000));
    let header = format!("Subject: a\0b\r\n{long}\r\n");
    let long = format!("{long}\r\n");
    let body = "\0line\r\n".repeat(20_000);
    let message = format!("{header}{body}");
    session.append("INBOX", "\\Seen", &message).await;
    let check = [
        ("BODY[]", message.as_str()),
        ("BODY[HEADER]", header.as_str()),
        ("BODY[TEXT]", body.as_str()),
        ("BODY[1]", body.as_str()),
        ("BODY[TEXT]<0>", &body[..4]),
        ("BODY[HEADER.FIELDS (Subject)]", "Subject: a\0b\r\n\r\n"),
        ("BODY[HEADER.FIELDS (X-Long)]", long.as_str()),
        ("RFC822", message.as_str()),
    ];
    for (item, expected) in check {
        let sent = expected.replace('\0', "\u{fffd}");
        let answer = format!("* 1 FETCH ({item} {{{}}}\r\n{sent})", expected.len());
        let reply = session.ok(&format!("FETCH 1 {}", item.replace("<0>", "<0.4>"))).await;
        assert!(reply.untagged == [answer], "{item}");
    }
    assert!(message.len() > 64 * 1024 && header.len() > 64 * 1024, "more than is held");
}
