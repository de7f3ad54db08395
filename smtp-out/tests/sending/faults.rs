//! Hosts on their bad days. Whatever they do: nobody's mail is lost, nothing is taken for delivered that is not, nothing
//! is tried again at once, and no answer fills our memory.

use std::time::Duration;

use crate::peer::{Act, Manners};
use crate::world::{World, expect};

/// What a host does at a stage, and what the recipient then has. A second host stands ready.
async fn check(stage: &'static str, act: Act, expected: &str, second_takes: bool) {
    for extensions in [vec![], vec!["PIPELINING"], vec!["PIPELINING", "CHUNKING"]] {
        let world = World::new().await;
        let act_here = act.clone();
        let mut manners = Manners::script(move |_, asked| asked.starts_with(stage).then(|| act_here.clone()));
        manners.extensions.clone_from(&extensions);
        let bad = world.peer(2, manners).await;
        let good = world.peer(3, Manners::default()).await;
        world.domain("a.test", &[(1, 2), (2, 3)]);
        world.submit(&["user@a.test"]).await;
        let whole = format!("{stage} {act:?} {extensions:?}");
        let sent = tokio::time::timeout(Duration::from_secs(40), world.service().run_once()).await;
        assert!(sent.is_ok(), "{whole}: it takes too long");
        let fates = world.fates().await;
        let found = fates.get("user@a.test").cloned().unwrap_or_default();
        assert!(found.starts_with(expected), "{whole}: {found}");
        assert_eq!(good.taken().len(), usize::from(second_takes), "{whole}");
        assert!(bad.connections() <= 2, "{whole}: hammered");
    }
}

fn many_lines(code: &str) -> Act {
    Act::Bytes(format!("{code}-line\r\n").repeat(10_000).into_bytes())
}

/// Before the message's end everything that breaks sends us to the next host.
#[tokio::test]
async fn broken_off_before_the_end() {
    for stage in ["GREETING", "EHLO", "MAIL", "RCPT"] {
        for act in [
            Act::Close,
            many_lines("250"),
            Act::Bytes(b"250 bare line feed\n".to_vec()),
            Act::Bytes(b"\x00\xff\xfe garbage\r\n".to_vec()),
            Act::Bytes(vec![b'x'; 100_000]),
            Act::Bytes(b"999 no code\r\n".to_vec()),
            Act::Bytes(b"250-one\r\n550 another\r\n".to_vec()),
            Act::Bye("421 4.3.2 going down"),
        ] {
            check(stage, act, "delivered", true).await;
        }
    }
}

#[tokio::test]
async fn silence_is_waited_for_as_long_as_it_may_take() {
    for stage in ["GREETING", "EHLO", "MAIL", "RCPT"] {
        check(stage, Act::Silence, "delivered", true).await;
    }
}

/// Wrong codes are no success: what should not be there is put off, what refuses is taken at its word.
#[tokio::test]
async fn wrong_codes() {
    check("GREETING", Act::Say("354 go"), "delivered", true).await;
    check("GREETING", Act::Say("500 what"), "delivered", true).await;
    check("MAIL", Act::Say("354 go"), "deferred 1", false).await;
    check("MAIL", Act::Say("450 4.1.8 not now"), "deferred 1: 450 4.1.8", false).await;
    check("MAIL", Act::Say("553 5.1.8 never"), "failed 5.1.8", false).await;
    check("RCPT", Act::Say("354 go"), "deferred 1", false).await;
    check("RCPT", Act::Say("599 odd"), "failed 5.0.0", false).await;
    check(".", Act::Say("354 once more"), "deferred 1", false).await;
    check(".", Act::Say("451 4.3.0 disk full"), "deferred 1: 451 4.3.0", false).await;
    check(".", Act::Say("554 5.7.1 spam"), "failed 5.7.1", false).await;
    check(".", Act::Say("421 4.7.0 suspicious"), "delivered", true).await;
}

/// RFC 5321 §4.5.3.2.6 and RFC 1047: when the answer to the whole message does not come, nobody knows, and no other host
/// is given the same at once.
#[tokio::test]
async fn lost_behind_the_final_dot() {
    check(".", Act::Close, "doubt", false).await;
    check(".", Act::Silence, "doubt", false).await;
    check(".", many_lines("250"), "doubt", false).await;
    check(".", Act::Bytes(b"250 bare\n".to_vec()), "doubt", false).await;
}

/// A success before the end of the message is no answer to it.
#[tokio::test]
async fn success_before_the_final_dot() {
    let world = World::new().await;
    let early = |_: usize, asked: &str| {
        (asked == "DATA").then(|| Act::Bytes(b"354 go\r\n250 2.0.0 taken already\r\n".to_vec()))
    };
    let _peer = world.peer(2, Manners::script(early)).await;
    world.domain("a.test", &[(1, 2)]);
    world.submit(&["user@a.test"]).await;
    let fates = world.send().await;
    assert!(fates.values().all(|fate| !fate.starts_with("delivered")), "{fates:?}");
}

/// A host that closes after the recipients has taken nothing, and nothing is in doubt.
#[tokio::test]
async fn closed_after_the_last_recipient() {
    for extensions in [vec!["PIPELINING", "CHUNKING"], vec!["CHUNKING"], vec!["PIPELINING"], vec![]] {
        let world = World::new().await;
        let manners = Manners {
            extensions,
            ..Manners::script(|_, asked| {
                asked.starts_with("RCPT TO:<two").then_some(Act::Bye("421 4.3.2 going down"))
            })
        };
        let peer = world.peer(2, manners).await;
        world.domain("a.test", &[(1, 2)]);
        world.submit(&["one@a.test", "two@a.test"]).await;
        expect(&world.send().await, &[("one@a.test", "deferred 1"), ("two@a.test", "deferred 1")]);
        assert!(peer.taken().is_empty());
    }
}

#[tokio::test]
async fn data_is_refused() {
    for (act, expected) in [
        (Act::Say("451 4.3.0 not now"), "deferred 1: 451 4.3.0"),
        (Act::Say("554 5.7.1 no"), "failed 5.7.1"),
        (Act::Say("250 what"), "deferred 1"),
    ] {
        for extensions in [vec![], vec!["PIPELINING"]] {
            let world = World::new().await;
            let act = act.clone();
            let mut manners = Manners::script(move |_, asked| (asked == "DATA").then(|| act.clone()));
            manners.extensions = extensions;
            let peer = world.peer(2, manners).await;
            world.domain("a.test", &[(1, 2)]);
            world.submit(&["user@a.test"]).await;
            expect(&world.send().await, &[("user@a.test", expected)]);
            assert!(peer.taken().is_empty());
        }
    }
}

/// A host that asks for data although it has refused everybody gets an empty message, and nobody is delivered.
#[tokio::test]
async fn data_for_nobody() {
    let world = World::new().await;
    let manners = Manners {
        extensions: vec!["PIPELINING"],
        ..Manners::script(|_, asked| asked.starts_with("RCPT").then_some(Act::Say("550 5.1.1 no")))
    };
    let peer = world.peer(2, manners).await;
    world.domain("a.test", &[(1, 2)]);
    world.submit(&["one@a.test", "two@a.test"]).await;
    expect(&world.send().await, &[("one@a.test", "failed 5.1.1"), ("two@a.test", "failed 5.1.1")]);
    assert!(peer.taken().iter().all(|taken| taken.body.is_empty() && taken.to.is_empty()));
}

/// A host that has seen enough of a long message says why before it goes.
#[tokio::test]
async fn refused_in_the_middle() {
    let world = World::new().await;
    // The peer reads no more than the first line.
    let listener = tokio::net::TcpListener::bind(("127.0.0.2", world.port)).await.unwrap();
    let task = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        for answer in ["220 hi", "250 peer.test", "250 ok", "250 ok", "354 go"] {
            stream.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
            assert!(stream.read(&mut buffer).await.unwrap() > 0);
        }
        stream.write_all(b"552 5.3.4 that is enough\r\n").await.unwrap();
        stream.flush().await.unwrap();
        // Reads on for a while, so that the answer is not lost by a reset.
        let _ = tokio::time::timeout(Duration::from_secs(1), async {
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        })
        .await;
    });
    world.dns.add("mx2.test", testkit::dns::Data::A([127, 0, 0, 2].into()));
    world.domain("a.test", &[(1, 2)]);
    let text = format!("Subject: long\r\n\r\n{}", "0123456789\r\n".repeat(1_000_000));
    let mut envelope = mail::envelope::Envelope::new(mail::address::ReversePath(Some(
        crate::world::address("sender@us.test"),
    )));
    envelope.recipients.push(mail::envelope::Recipient::new(crate::world::address("user@a.test")));
    world.submit_as(envelope, text.as_bytes()).await;
    expect(&world.send().await, &[("user@a.test", "failed 5.3.4")]);
    task.await.unwrap();
}

/// All hosts are dead: the mail is put off, with the reason.
#[tokio::test]
async fn nobody_is_there() {
    let world = World::new().await;
    world.dns.add("a.test", testkit::dns::Data::A([127, 0, 0, 99].into()));
    for number in 0..3 {
        world.submit(&[&format!("user{number}@a.test")]).await;
    }
    let fates = world.send().await;
    for number in 0..3 {
        expect(&fates, &[(&format!("user{number}@a.test"), "deferred 1: 4.4.1 connect to 127.0.0.99")]);
    }
}
