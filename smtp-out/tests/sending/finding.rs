//! Finding the hosts (RFC 5321 §5.1, RFC 7505).

use std::net::{Ipv4Addr, Ipv6Addr};

use testkit::dns::{Data, Oddity};

use crate::peer::{Act, Manners, Peer};
use crate::world::{World, expect};

/// By preference; a dead host, one that says 421 and one that takes no mail are passed over.
#[tokio::test]
async fn the_next_host_has_its_turn() {
    let world = World::new().await;
    let busy = Manners::script(|_, asked| (asked == "GREETING").then_some(Act::Bye("421 4.3.2 too busy")));
    let refuses = Manners::script(|_, asked| (asked == "GREETING").then_some(Act::Bye("554 no SMTP here")));
    let busy = world.peer(2, busy).await;
    let refuses = world.peer(3, refuses).await;
    let good = world.peer(4, Manners::default()).await;
    let unused = world.peer(5, Manners::default()).await;
    world.dns.add("mx9.test", Data::A(Ipv4Addr::new(127, 0, 0, 9)));
    world.domain("a.test", &[(1, 9), (5, 2), (10, 3), (20, 4), (30, 5)]);
    world.submit(&["user@a.test"]).await;
    expect(&world.send().await, &[("user@a.test", "delivered")]);
    assert_eq!((busy.connections(), refuses.connections(), unused.connections()), (1, 1, 0));
    let taken = good.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!(
        (taken[0].from.as_str(), taken[0].to.as_slice()),
        ("sender@us.test", &["user@a.test".to_owned()][..])
    );
    assert_eq!(taken[0].body, format!("Received: by us.test\r\n{}", crate::world::TEXT));
}

/// Names that do not exist and domains that take no mail fail; what a name server does not know now is put off.
#[tokio::test]
async fn what_a_name_server_says() {
    let world = World::new().await;
    let peer = world.peer(2, Manners::default()).await;
    world.domain("good.test", &[(10, 2)]);
    // Implicit MX: by address alone; by a CNAME; a CNAME to a domain with MX.
    world.dns.add("implicit.test", Data::A(Ipv4Addr::new(127, 0, 0, 2)));
    world.dns.add("other.test", Data::Cname("implicit.test".to_owned()));
    world.dns.add("alias.test", Data::Cname("good.test".to_owned()));
    world.dns.add("nullmx.test", Data::Mx(0, String::new()));
    world.dns.add("nullmx.test", Data::A(Ipv4Addr::new(127, 0, 0, 2)));
    world.dns.add("nothing.test", Data::Mx(10, "nowhere.test".to_owned()));
    world.dns.add("empty.test", Data::Cname("also-empty.test".to_owned()));
    world.dns.add("below.also-empty.test", Data::A(Ipv4Addr::new(127, 0, 0, 2)));
    world.dns.odd("broken.test", Oddity::ServFail).odd("silent.test", Oddity::Silent);
    world.dns.odd("garbage.test", Oddity::Garbage).odd("refused.test", Oddity::Refused);
    world.dns.add("half.test", Data::Mx(10, "broken.test".to_owned()));
    world.domain("big.test", &[(10, 2)]);
    world.dns.odd("big.test", Oddity::Truncated);
    world.dns.add("loop.test", Data::Cname("loop2.test".to_owned()));
    world.dns.add("loop2.test", Data::Cname("loop.test".to_owned()));
    for domain in [
        "implicit", "other", "alias", "nullmx", "nothing", "empty", "missing", "broken", "silent", "garbage",
        "refused", "half", "big", "loop",
    ] {
        world.submit(&[&format!("user@{domain}.test")]).await;
    }
    let fates = world.send().await;
    expect(
        &fates,
        &[
            ("user@implicit.test", "delivered"),
            ("user@other.test", "delivered"),
            ("user@alias.test", "delivered"),
            ("user@big.test", "delivered"),
            ("user@nullmx.test", "failed 5.1.10"),
            ("user@nothing.test", "failed 5.4.4"),
            ("user@empty.test", "failed 5.1.2"),
            ("user@missing.test", "failed 5.1.2"),
            ("user@broken.test", "deferred 1: 4.4.3"),
            ("user@silent.test", "deferred 1: 4.4.3"),
            ("user@garbage.test", "deferred 1: 4.4.3"),
            ("user@refused.test", "deferred 1: 4.4.3"),
            ("user@half.test", "deferred 1: 4.4.3"),
        ],
    );
    // Whatever a loop of names is taken for, nobody gets the mail.
    assert!(fates["user@loop.test"].starts_with("deferred") || fates["user@loop.test"].starts_with("failed"));
    assert_eq!(peer.taken().len(), 4);
}

/// An answer that does not go into a datagram is asked for over TCP.
#[tokio::test]
async fn many_exchangers() {
    let mut world = World::new().await;
    world.config.hosts_max = 5;
    let peer = world.peer(2, Manners::default()).await;
    world.domain("many.test", &[(1, 2)]);
    for number in 0..100 {
        world.dns.add("many.test", Data::Mx(10, format!("a-rather-long-name-{number}.many.test")));
    }
    world.submit(&["user@many.test"]).await;
    expect(&world.send().await, &[("user@many.test", "delivered")]);
    assert_eq!(peer.taken().len(), 1);
}

#[tokio::test]
async fn literals_and_ipv6() {
    let world = World::new().await;
    let four = world.peer(2, Manners::default()).await;
    let six = Peer::start_at((Ipv6Addr::LOCALHOST, world.port).into(), Manners::default()).await;
    world.dns.add("six.test", Data::Aaaa(Ipv6Addr::LOCALHOST));
    // The IPv6 address comes first and nobody listens at the other.
    world.dns.add("both.test", Data::Aaaa(Ipv6Addr::LOCALHOST));
    world.dns.add("both.test", Data::A(Ipv4Addr::new(127, 0, 0, 77)));
    // Nobody listens at the IPv6 address.
    world.dns.add("fallback.test", Data::Aaaa("::ffff:127.0.0.77".parse().unwrap()));
    world.dns.add("fallback.test", Data::A(Ipv4Addr::new(127, 0, 0, 2)));
    for to in ["a@[127.0.0.2]", "b@[IPv6:::1]", "c@six.test", "d@both.test", "e@fallback.test"] {
        world.submit(&[to]).await;
    }
    let fates = world.send().await;
    expect(
        &fates,
        &[
            ("a@[127.0.0.2]", "delivered"),
            ("b@[IPv6:::1]", "delivered"),
            ("c@six.test", "delivered"),
            ("d@both.test", "delivered"),
            ("e@fallback.test", "delivered"),
        ],
    );
    assert_eq!((four.taken().len(), six.taken().len()), (2, 3));
}

/// Nothing goes to loopback or private networks unless that is allowed, and nothing to ourselves.
#[tokio::test]
async fn neither_inside_nor_in_circles() {
    let mut world = World::new().await;
    let peer = world.peer(2, Manners::default()).await;
    let better = world.peer(3, Manners::default()).await;
    world.domain("inside.test", &[(10, 2)]);
    world.domain("us.circle.test", &[(20, 2)]);
    world.dns.add("us.circle.test", Data::Mx(10, "us.test".to_owned()));
    world.domain("address.test", &[(20, 2)]);
    world.domain("backup.test", &[(10, 3), (20, 2)]);
    world.config.private_destinations = false;
    world.submit(&["user@inside.test"]).await;
    world.submit(&["user@[127.0.0.2]"]).await;
    world.submit(&["user@[IPv6:::ffff:127.0.0.2]"]).await;
    let fates = world.send().await;
    expect(&fates, &[("user@inside.test", "failed 5.4.4"), ("user@[127.0.0.2]", "failed 5.4.4")]);
    assert!(fates.values().all(|fate| fate.starts_with("failed 5.4.4")), "{fates:?}");
    assert_eq!(peer.connections(), 0);

    world.config.private_destinations = true;
    world.listeners = vec![([127, 0, 0, 2], world.port).into()];
    world.submit(&["user@us.circle.test"]).await;
    world.submit(&["user@address.test"]).await;
    world.submit(&["user@backup.test"]).await;
    expect(
        &world.send().await,
        &[
            ("user@us.circle.test", "failed 5.4.6"),
            ("user@address.test", "failed 5.4.6"),
            // We are a backup there, and the better host is up.
            ("user@backup.test", "delivered"),
        ],
    );
    assert_eq!((peer.connections(), better.taken().len()), (0, 1));
}
