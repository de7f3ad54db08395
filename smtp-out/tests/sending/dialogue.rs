//! What is said to hosts of different abilities, and what their answers come to.

use mail::address::ReversePath;
use mail::envelope::{BodyType, Envelope, Notify, Recipient, Ret};
use smtp_out::config::{Route, TlsMode};

use crate::peer::{Act, Manners};
use crate::world::{TEXT, World, address, expect};

/// With and without PIPELINING, CHUNKING, EHLO: the same message arrives.
#[tokio::test]
async fn the_same_bytes_whatever_the_host_can() {
    for (extensions, ehlo) in [
        (vec![], true),
        (vec![], false),
        (vec!["PIPELINING"], true),
        (vec!["CHUNKING"], true),
        (vec!["PIPELINING", "CHUNKING", "8BITMIME"], true),
    ] {
        let world = World::new().await;
        let mut manners = Manners::script(move |_, asked| {
            (!ehlo && asked.starts_with("EHLO")).then_some(Act::Say("502 5.5.2 no"))
        });
        manners.extensions.clone_from(&extensions);
        let peer = world.peer(2, manners).await;
        world.domain("a.test", &[(1, 2)]);
        world.submit(&["one@a.test", "two@a.test"]).await;
        let fates = world.send().await;
        expect(&fates, &[("one@a.test", "delivered"), ("two@a.test", "delivered")]);
        let taken = peer.taken();
        assert_eq!(taken.len(), 1, "{extensions:?}");
        assert_eq!(taken[0].to, ["one@a.test", "two@a.test"]);
        assert_eq!(taken[0].body, format!("Received: by us.test\r\n{TEXT}"), "{extensions:?}");
        let by_chunk = extensions.contains(&"CHUNKING");
        assert_eq!(
            (peer.lines("BDAT").len(), peer.lines("DATA").len()),
            if by_chunk { (1, 0) } else { (0, 1) }
        );
        assert_eq!(peer.lines("EHLO us.test").len(), 1);
        assert_eq!(peer.lines("HELO us.test").len(), usize::from(!ehlo));
    }
}

/// Every recipient has an answer of its own.
#[tokio::test]
async fn an_answer_for_each_recipient() {
    let world = World::new().await;
    let manners = Manners::script(|_, asked| {
        let answer = match asked {
            line if line.contains("<unknown@") => {
                "550-5.1.1 The email account that you tried to reach\r\n550 5.1.1 does not exist"
            }
            line if line.contains("<full@") => "452 4.2.2 over quota",
            line if line.contains("<grey@") => "451 4.7.1 Greylisted, try again in 300 seconds",
            _ => return None,
        };
        Some(Act::Say(answer))
    });
    let peer = world.peer(2, manners).await;
    world.domain("a.test", &[(1, 2)]);
    world.submit(&["unknown@a.test", "one@a.test", "full@a.test", "grey@a.test", "two@a.test"]).await;
    let fates = world.send().await;
    expect(
        &fates,
        &[
            (
                "unknown@a.test",
                "failed 5.1.1: 550 5.1.1 The email account that you tried to reach does not exist",
            ),
            ("one@a.test", "delivered"),
            ("two@a.test", "delivered"),
            ("full@a.test", "deferred 1: 452 4.2.2"),
            ("grey@a.test", "deferred 1: 451 4.7.1"),
        ],
    );
    assert_eq!(peer.taken().len(), 1);
}

/// RFC 5321 §4.5.3.1.10 and RFC 9422: what does not go into one transaction goes into the next.
#[tokio::test]
async fn too_many_recipients_are_no_failure() {
    for (extensions, code, transactions) in [
        (vec!["PIPELINING"], "452 4.5.3 Too many recipients", 4),
        (vec![], "552 Too many recipients", 4),
        (vec!["PIPELINING", "LIMITS RCPTMAX=2"], "", 5),
    ] {
        let world = World::new().await;
        let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let mut manners = Manners::script(move |_, asked| {
            use std::sync::atomic::Ordering::SeqCst;
            if asked.starts_with("MAIL") {
                count.store(0, SeqCst);
            }
            let over = asked.starts_with("RCPT") && count.fetch_add(1, SeqCst) >= 3 && !code.is_empty();
            over.then_some(Act::Say(code))
        });
        manners.extensions = extensions;
        let peer = world.peer(2, manners).await;
        world.domain("a.test", &[(1, 2)]);
        let names: Vec<String> = (0..10).map(|number| format!("user{number}@a.test")).collect();
        let to: Vec<&str> = names.iter().map(String::as_str).collect();
        world.submit(&to).await;
        let fates = world.send().await;
        assert!(fates.values().all(|fate| fate == "delivered") && fates.len() == 10, "{fates:#?}");
        let taken = peer.taken();
        assert_eq!((taken.len(), peer.connections()), (transactions, 1));
        let mut all: Vec<&String> = taken.iter().flat_map(|taken| &taken.to).collect();
        all.sort();
        assert_eq!(all, names.iter().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn parameters_of_the_sender_are_passed_on() {
    let world = World::new().await;
    let all = ["PIPELINING", "8BITMIME", "SIZE", "DSN", "SMTPUTF8", "MT-PRIORITY"];
    let with =
        |extensions: &[&'static str]| Manners { extensions: extensions.to_vec(), ..Manners::default() };
    let knows = world.peer(2, with(&all)).await;
    let plain = world.peer(3, with(&[])).await;
    let small = world.peer(4, with(&["SIZE 20"])).await;
    world.domain("knows.test", &[(1, 2)]);
    world.domain("plain.test", &[(1, 3)]);
    world.domain("small.test", &[(1, 4)]);
    let text = "Subject: test\r\n\r\nh\u{e9}llo\r\n";
    for domain in ["knows", "plain", "small"] {
        let mut envelope = Envelope::new(ReversePath(Some(address("sender@us.test"))));
        envelope.body = BodyType::EightBitMime;
        envelope.ret = Some(Ret::Headers);
        envelope.envid = Some("an id".to_owned());
        envelope.priority = 3;
        envelope.recipients.push(Recipient {
            notify: Notify::SUCCESS,
            orcpt: Some("rfc822;original@us.test".to_owned()),
            ..Recipient::new(address(&format!("user@{domain}.test")))
        });
        world.submit_as(envelope, text.as_bytes()).await;
    }
    let fates = world.send().await;
    expect(
        &fates,
        &[
            ("user@knows.test", "delivered"),
            ("user@plain.test", "failed 5.6.3"),
            ("user@small.test", "failed 5.3.4"),
        ],
    );
    let size = text.len() + "Received: by us.test\r\n".len();
    assert_eq!(
        knows.lines("MAIL"),
        [format!(
            "MAIL FROM:<sender@us.test> SIZE={size} BODY=8BITMIME RET=HDRS ENVID=an+20id MT-PRIORITY=3"
        )]
    );
    assert_eq!(
        knows.lines("RCPT"),
        ["RCPT TO:<user@knows.test> NOTIFY=SUCCESS ORCPT=rfc822;original@us.test"]
    );
    assert!(plain.taken().is_empty() && small.taken().is_empty());
    assert!(plain.lines("MAIL").is_empty() && small.lines("MAIL").is_empty());
}

/// RFC 6531: addresses outside ASCII need a host that knows them.
#[tokio::test]
async fn addresses_outside_ascii() {
    let world = World::new().await;
    let knows = Manners { extensions: vec!["SMTPUTF8", "8BITMIME"], ..Manners::default() };
    let knows = world.peer(2, knows).await;
    let plain = world.peer(3, Manners::default()).await;
    world.domain("knows.test", &[(1, 2)]);
    world.domain("plain.test", &[(1, 3)]);
    for domain in ["knows", "plain"] {
        let mut envelope = Envelope::new(ReversePath(Some(address("sender@us.test"))));
        envelope.smtputf8 = true;
        for user in ["j\u{fc}rgen", "jim"] {
            envelope.recipients.push(Recipient::new(address(&format!("{user}@{domain}.test"))));
        }
        world.submit_as(envelope, TEXT.as_bytes()).await;
    }
    let fates = world.send().await;
    expect(
        &fates,
        &[
            ("j\u{fc}rgen@knows.test", "delivered"),
            ("jim@knows.test", "delivered"),
            ("j\u{fc}rgen@plain.test", "failed 5.6.7"),
            ("jim@plain.test", "delivered"),
        ],
    );
    assert!(knows.lines("MAIL")[0].contains(" SMTPUTF8"));
    assert_eq!(plain.taken()[0].to, ["jim@plain.test"]);
}

/// RFC 7435: encrypted where it can be. Whatever goes wrong with it, in plain then, and for a while.
#[tokio::test]
async fn opportunistic_tls() {
    let world = World::new().await;
    let tls = |act: Option<Act>| {
        let script = move |_: usize, asked: &str| if asked == "STARTTLS" { act.clone() } else { None };
        Manners { tls: true, ..Manners::script(script) }
    };
    let good = world.peer(2, tls(None)).await;
    let refuses = world.peer(3, tls(Some(Act::Say("454 4.7.0 not now")))).await;
    let broken = world.peer(4, tls(Some(Act::NoHandshake))).await;
    let after = world.peer(5, tls(Some(Act::CloseAfterHandshake))).await;
    for (domain, last) in [("good.test", 2), ("refuses.test", 3), ("broken.test", 4), ("after.test", 5)] {
        world.domain(domain, &[(1, last)]);
    }
    let service = world.service();
    for round in 1..=2 {
        for domain in ["good", "refuses", "broken", "after"] {
            world.submit(&[&format!("user{round}@{domain}.test")]).await;
        }
        service.run_once().await;
    }
    let fates = world.fates().await;
    assert!(fates.len() == 8 && fates.values().all(|fate| fate == "delivered"), "{fates:#?}");
    assert!(good.taken().iter().all(|taken| taken.tls));
    for peer in [&refuses, &broken, &after] {
        assert!(peer.taken().len() == 2 && peer.taken().iter().all(|taken| !taken.tls));
    }
    // One failed connection, one in plain, and the next message went in plain at once.
    assert_eq!((broken.connections(), broken.lines("STARTTLS").len()), (3, 1));
    assert_eq!((after.connections(), after.lines("STARTTLS").len()), (3, 1));
}

/// Where TLS is required there is no way back to plain.
#[tokio::test]
async fn required_tls() {
    let mut world = World::new().await;
    let tls = |act: Option<Act>| {
        let script = move |_: usize, asked: &str| if asked == "STARTTLS" { act.clone() } else { None };
        Manners { tls: true, ..Manners::script(script) }
    };
    let good = world.peer(2, tls(None)).await;
    let none = world.peer(3, Manners::default()).await;
    let broken = world.peer(4, tls(Some(Act::NoHandshake))).await;
    let refuses = world.peer(5, tls(Some(Act::Say("454 4.7.0 not now")))).await;
    let untrusted = world.peer(6, tls(None)).await;
    for last in 2..=6 {
        world.domain(&format!("d{last}.test"), &[(1, last)]);
        let tls = if last == 6 { TlsMode::RequiredVerified } else { TlsMode::Required };
        world.config.routes.push(Route { domain: format!("d{last}.test"), tls, ..Route::default() });
        world.submit(&[&format!("user@d{last}.test")]).await;
    }
    let fates = world.send().await;
    expect(
        &fates,
        &[
            ("user@d2.test", "delivered"),
            ("user@d3.test", "deferred 1: 4.7.5"),
            ("user@d4.test", "deferred 1: 4.7.5"),
            ("user@d5.test", "deferred 1: 454 4.7.0"),
            ("user@d6.test", "deferred 1: 4.7.5"),
        ],
    );
    assert!(good.taken()[0].tls);
    for peer in [&none, &broken, &refuses, &untrusted] {
        assert!(peer.taken().is_empty() && peer.lines("MAIL").is_empty());
    }
}

/// A smart host with a login takes the mail of the domains that are sent through it.
#[tokio::test]
async fn smart_host() {
    let mut world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "secret\n").unwrap();
    let manners =
        Manners { tls: true, extensions: vec!["AUTH PLAIN LOGIN", "PIPELINING"], ..Manners::default() };
    let relay = world.peer(2, manners).await;
    let direct = world.peer(3, Manners::default()).await;
    world.domain("direct.test", &[(1, 3)]);
    // Smart hosts may be anywhere.
    world.config.private_destinations = false;
    let route = |domain: &str| Route {
        domain: domain.to_owned(),
        host: "mx2.test".to_owned(),
        port: world.port,
        tls: TlsMode::Required,
        user: "alice".to_owned(),
        password_file: password_file.clone(),
        ..Route::default()
    };
    world.config.routes = vec![
        Route { domain: "direct.test".to_owned(), ..Route::default() },
        route("*.inside.test"),
        route("missing.test"),
    ];
    for to in ["a@one.inside.test", "b@missing.test", "c@direct.test"] {
        world.submit(&[to]).await;
    }
    let fates = world.send().await;
    expect(
        &fates,
        &[
            ("a@one.inside.test", "delivered"),
            ("b@missing.test", "delivered"),
            ("c@direct.test", "failed 5.4.4"),
        ],
    );
    assert_eq!((relay.taken().len(), direct.taken().len()), (2, 0));
    // NUL alice NUL secret
    assert!(relay.lines("AUTH").iter().all(|line| line == "AUTH PLAIN AGFsaWNlAHNlY3JldA=="));
    assert!(!relay.lines("AUTH").is_empty());

    let strict = Manners {
        tls: true,
        extensions: vec!["AUTH PLAIN"],
        ..Manners::script(|_, asked| asked.starts_with("AUTH").then_some(Act::Say("535 5.7.8 wrong")))
    };
    drop(relay);
    let relay = world.peer(4, strict).await;
    world.config.routes[2].host = "mx4.test".to_owned();
    world.submit(&["d@missing.test"]).await;
    // It is our password that is wrong, and no fault of the recipient's.
    expect(&world.send().await, &[("d@missing.test", "deferred 1: 535 5.7.8")]);
    assert!(relay.lines("MAIL").is_empty());
}
