//! Connections: how many there are, how long they last, and who may use them.

use smtp_out::config::{SiteConfig, SiteLimits, Source};

use crate::peer::{Act, Manners};
use crate::world::{World, expect};

#[tokio::test]
async fn messages_share_a_connection_and_no_more_than_allowed() {
    for (announced, expected) in [(vec!["PIPELINING"], 3), (vec!["PIPELINING", "LIMITS MAILMAX=2"], 5)] {
        let mut world = World::new().await;
        world.config.limits = SiteLimits {
            connections_initial: 1,
            connections_max: 1,
            messages_per_connection_max: 4,
            ..SiteLimits::default()
        };
        let peer = world.peer(2, Manners { extensions: announced, ..Manners::default() }).await;
        world.domain("a.test", &[(1, 2)]);
        for number in 0..10 {
            world.submit(&[&format!("user{number}@a.test")]).await;
        }
        let fates = world.send().await;
        assert!(fates.len() == 10 && fates.values().all(|fate| fate == "delivered"), "{fates:#?}");
        assert_eq!((peer.taken().len(), peer.connections()), (10, expected));
        assert_eq!(peer.seen.lock().unwrap().open_max, 1);
    }
}

#[tokio::test]
async fn no_more_connections_than_a_site_allows() {
    let mut world = World::new().await;
    // Two domains with the same exchanger are one site.
    world.config.limits = SiteLimits { connections_initial: 2, connections_max: 2, ..SiteLimits::default() };
    let peer = world.peer(2, Manners::default()).await;
    world.domain("a.test", &[(1, 2)]);
    world.domain("b.test", &[(1, 2)]);
    for number in 0..40 {
        world.submit(&[&format!("user{number}@{}.test", if number % 2 == 0 { "a" } else { "b" })]).await;
    }
    let fates = world.send().await;
    assert!(fates.values().filter(|fate| *fate == "delivered").count() == 40, "{fates:#?}");
    assert_eq!(peer.taken().len(), 40);
    assert!(peer.seen.lock().unwrap().open_max <= 2);
}

/// A kept connection that the host has closed meanwhile costs nothing but a new one.
#[tokio::test]
async fn a_connection_that_died_while_idle() {
    let world = World::new().await;
    let manners = Manners::script(|number, asked| {
        // The first connection ends behind its first message.
        (number == 1 && asked == ".").then_some(Act::Bye("250 2.0.0 queued"))
    });
    let peer = world.peer(2, manners).await;
    world.domain("a.test", &[(1, 2)]);
    for number in 0..3 {
        world.submit(&[&format!("user{number}@a.test")]).await;
    }
    let fates = world.send().await;
    assert!(fates.len() == 3 && fates.values().all(|fate| fate == "delivered"), "{fates:#?}");
    assert_eq!(peer.taken().len(), 3);
}

/// The same where the host has said that it closes.
#[tokio::test]
async fn a_connection_that_was_given_notice_while_idle() {
    let mut world = World::new().await;
    world.config.limits = SiteLimits { connections_initial: 1, connections_max: 1, ..SiteLimits::default() };
    let manners = Manners::script(|number, asked| {
        let notice = "250 2.0.0 queued\r\n421 4.4.2 idle for too long";
        (number == 1 && asked == ".").then_some(Act::Bye(notice))
    });
    let peer = world.peer(2, manners).await;
    world.domain("a.test", &[(1, 2)]);
    for number in 0..3 {
        world.submit(&[&format!("user{number}@a.test")]).await;
    }
    let fates = world.send().await;
    assert!(fates.len() == 3 && fates.values().all(|fate| fate == "delivered"), "{fates:#?}");
    assert_eq!((peer.taken().len(), peer.connections()), (3, 2));
}

/// After a transaction that came to nothing the host is told so.
#[tokio::test]
async fn reset_after_a_refusal() {
    let mut world = World::new().await;
    world.config.limits = SiteLimits { connections_initial: 1, connections_max: 1, ..SiteLimits::default() };
    let manners = Manners::script(|_, asked| asked.contains("<unknown@").then_some(Act::Say("550 5.1.1 no")));
    let peer = world.peer(2, manners).await;
    world.domain("a.test", &[(1, 2)]);
    for user in ["unknown", "one", "two"] {
        world.submit(&[&format!("{user}@a.test")]).await;
    }
    let fates = world.send().await;
    expect(
        &fates,
        &[("unknown@a.test", "failed 5.1.1"), ("one@a.test", "delivered"), ("two@a.test", "delivered")],
    );
    // The peer asks for data of nobody's message as well; it gets none.
    let taken = peer.taken().iter().filter(|taken| !taken.to.is_empty()).count();
    assert_eq!((peer.connections(), taken), (1, 2));
    assert!(peer.lines("RSET").len() <= 1);
}

/// A site that does not want us is left alone: the first message is put off, the others are not even offered.
#[tokio::test]
async fn a_suspended_site_is_left_alone() {
    let mut world = World::new().await;
    world.config.limits = SiteLimits { connections_initial: 1, connections_max: 1, ..SiteLimits::default() };
    let limited =
        "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation";
    let manners = Manners::script(move |_, asked| asked.starts_with("MAIL").then_some(Act::Say(limited)));
    let peer = world.peer(2, manners).await;
    let other = world.peer(3, Manners::default()).await;
    world.domain("a.test", &[(1, 2)]);
    world.domain("b.test", &[(1, 3)]);
    for number in 0..20 {
        world.submit(&[&format!("user{number}@a.test")]).await;
    }
    world.submit(&["user@b.test"]).await;
    let fates = world.send().await;
    expect(&fates, &[("user@b.test", "delivered")]);
    let deferred = fates.values().filter(|fate| fate.starts_with("deferred 1: 451 4.7.650")).count();
    let untried = fates.values().filter(|fate| fate.starts_with("deferred 0")).count();
    assert_eq!((deferred, untried), (1, 19), "{fates:#?}");
    assert_eq!((peer.lines("MAIL").len(), other.taken().len()), (1, 1));
}

#[tokio::test]
async fn messages_per_minute() {
    let mut world = World::new().await;
    let slow = SiteLimits { messages_per_minute_max: 3, ..world.config.limits };
    world.config.sites = vec![SiteConfig { suffix: "test".to_owned(), limits: slow }];
    let peer = world.peer(2, Manners::default()).await;
    world.domain("a.test", &[(1, 2)]);
    for number in 0..10 {
        world.submit(&[&format!("user{number}@a.test")]).await;
    }
    let fates = world.send().await;
    assert_eq!(peer.taken().len(), 3);
    assert_eq!(fates.values().filter(|fate| *fate == "delivered").count(), 3, "{fates:#?}");
}

/// We come from where we are told to, under the name that belongs there.
#[tokio::test]
async fn source_addresses() {
    let mut world = World::new().await;
    let source =
        |last: u8| Source { address: [127, 0, 1, last].into(), hostname: format!("out{last}.us.test") };
    world.config.sources = vec![source(1), source(2)];
    let peer = world.peer(2, Manners::default()).await;
    world.domain("a.test", &[(1, 2)]);
    world.submit(&["user@a.test"]).await;
    world.submit(&["user@[IPv6:::1]"]).await;
    let fates = world.send().await;
    expect(
        &fates,
        &[("user@a.test", "delivered"), ("user@[IPv6:::1]", "deferred 1: 4.4.1 no local address")],
    );
    let remote = peer.seen.lock().unwrap().remotes[0].to_string();
    let last = remote.strip_prefix("127.0.1.").unwrap().to_owned();
    assert_eq!(peer.lines("EHLO"), [format!("EHLO out{last}.us.test")]);
}
