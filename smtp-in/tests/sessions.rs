//! Whole sessions against real storage in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod world;

use std::time::Duration;

use mail::address::ReversePath;
use net::pump::{Pump, PumpLimits};
use net::tls::TlsClient;
use sasl::Mechanism;
use sasl::server::Binding;
use smtp_in::Role;
use smtp_protocol::client::{Client as ClientMachine, Event, Sent};
use smtp_protocol::command::HelloKind;
use smtp_protocol::parameter::{MailParameters, RcptParameters};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::{World, address};

const MESSAGE: &str = "From: a@far.test\r\nSubject: hello\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\n\
    Message-ID: <1@far.test>\r\n\r\nHello.\r\n";

#[tokio::test]
async fn mx_takes_mail_for_users_and_for_nobody_else() {
    let world = World::new().await;
    let mut client = world.connect(Role::Mx).await;
    client.ask("EHLO far.test", "250-mx.example.test").await;
    client.ask("MAIL FROM:<a@far.test>", "250 2.1.0").await;
    client.ask("RCPT TO:<nobody@example.test>", "550 5.1.1").await;
    client.ask("RCPT TO:<else@where.test>", "550 5.7.1").await;
    client.ask("DATA", "554 5.5.1").await;
    client.ask("RCPT TO:<Alice+tag@Example.Test>", "250 2.1.5").await;
    client.ask("RCPT TO:<info@example.test>", "250 2.1.5").await;
    client.ask("RCPT TO:<postmaster>", "250 2.1.5").await;
    let reply = client.message(MESSAGE, "250 2.0.0 Queued as ").await;
    client.ask("QUIT", "221").await;
    let queued = world.queued().await;
    assert_eq!(queued.len(), 1);
    let (prefix, recipients, body) = &queued[0];
    assert_eq!(recipients, &["Alice+tag@example.test", "info@example.test", "alice@example.test"]);
    assert_eq!(body, MESSAGE);
    let id = reply.trim_end().rsplit(' ').next().unwrap();
    let expected =
        format!("Received: from far.test (local)\r\n\tby mx.example.test with ESMTP id {id};\r\n\t");
    assert!(prefix.starts_with(&expected), "{prefix}");
    assert_eq!(prefix.matches("\r\n").count(), 3);
}

#[tokio::test]
async fn quota_is_looked_at_twice() {
    let world = World::new().await;
    let mut client = world.connect(Role::Mx).await;
    client.ask("EHLO far.test", "250").await;
    client.ask("MAIL FROM:<> SIZE=3000", "250").await;
    client.ask("RCPT TO:<small@example.test>", "452 4.2.2").await;
    client.ask("RCPT TO:<bob@example.test>", "250").await;
    client.ask("RSET", "250").await;
    let large = format!("{MESSAGE}{}", "0123456789\r\n".repeat(300));
    client.ask("MAIL FROM:<>", "250").await;
    client.ask("RCPT TO:<small@example.test>", "250").await;
    client.message(&large, "452 4.2.2").await;
    // With somebody who has room, the message is taken for both.
    client.ask("MAIL FROM:<>", "250").await;
    client.ask("RCPT TO:<small@example.test>", "250").await;
    client.ask("RCPT TO:<bob@example.test>", "250").await;
    client.message(&large, "250 2.0.0").await;
    assert_eq!(world.queued().await.len(), 1);
}

#[tokio::test]
async fn loops_end() {
    let world = World::new().await;
    let mut client = world.connect(Role::Mx).await;
    client.ask("HELO far.test", "250").await;
    for (count, answer) in [(99, "250"), (100, "554 5.4.6")] {
        client.ask("MAIL FROM:<a@far.test>", "250").await;
        client.ask("RCPT TO:<bob@example.test>", "250").await;
        let text = format!("{}{MESSAGE}", "Received: from a by b; today\r\n".repeat(count));
        client.message(&text, answer).await;
    }
}

#[tokio::test]
async fn notifications_have_few_recipients() {
    let world = World::new().await;
    let mut client = world.connect(Role::Mx).await;
    client.ask("HELO far.test", "250").await;
    client.ask("MAIL FROM:<>", "250").await;
    for _ in 0..5 {
        client.ask("RCPT TO:<bob@example.test>", "250").await;
    }
    client.ask("RCPT TO:<bob@example.test>", "452 4.5.3").await;
    client.message(MESSAGE, "250").await;
}

/// Talks through the client's machine, as a mail program would.
#[tokio::test]
async fn submission_over_tls() {
    let world = World::new().await;
    let token = world.token("alice@example.test").await;
    for mechanism in Mechanism::ALL.into_iter().filter(|one| *one != Mechanism::ScramSha256Plus) {
        let good = if mechanism.takes_token() { token.as_str() } else { "postrider" };
        let tls = TlsClient::trusting_self_signed("mx.example.test", &world.certificate).unwrap();
        let stream = world.stream(Role::Submission);
        let mut pump =
            Pump::new(stream, ClientMachine::new(false), PumpLimits::default()).with_tls_client(tls);
        let expect = async |pump: &mut Pump<ClientMachine>, sent, code| match pump.next().await.unwrap() {
            Some(Event::Reply { to, reply }) => assert_eq!((to, reply.code), (sent, code), "{reply}"),
            event => panic!("{event:?}"),
        };
        expect(&mut pump, Sent::Connection, 220).await;
        pump.machine().hello(HelloKind::Ehlo, "laptop");
        expect(&mut pump, Sent::Hello, 250).await;
        pump.machine().mail(&ReversePath::NULL, &MailParameters::default());
        expect(&mut pump, Sent::Mail, 530).await;
        pump.machine().start_tls();
        assert_eq!(pump.next().await.unwrap(), Some(Event::TlsStarted));
        pump.machine().hello(HelloKind::Ehlo, "laptop");
        expect(&mut pump, Sent::Hello, 250).await;
        for (password, code) in [("wrong", 535), (good, 235)] {
            let login = sasl::client::Client::plain_login("alice@example.test", password.into());
            pump.machine().auth(sasl::client::Client::new(mechanism, login, Binding::None));
            expect(&mut pump, Sent::Auth, code).await;
        }
        pump.machine().mail(&ReversePath::from(address("bob@example.test")), &MailParameters::default());
        expect(&mut pump, Sent::Mail, 553).await;
        for sender in ["info@example.test", "alice+x@example.test"] {
            pump.machine().mail(&ReversePath::from(address(sender)), &MailParameters::default());
            pump.machine().rcpt(&address("else@where.test"), &RcptParameters::default());
            pump.machine().data();
            expect(&mut pump, Sent::Mail, 250).await;
            expect(&mut pump, Sent::Rcpt, 250).await;
            expect(&mut pump, Sent::Data, 354).await;
            let body = pump.machine().encode_body(b"Subject: bare\r\n\r\n.Hello.\r\n").unwrap();
            pump.send(body).await.unwrap();
            let end = pump.machine().end_body().unwrap();
            pump.send(end).await.unwrap();
            expect(&mut pump, Sent::Body, 250).await;
            let queued = world.queued().await;
            let (prefix, recipients, body) = &queued[0];
            assert_eq!(recipients, &["else@where.test"]);
            assert_eq!(body, "Subject: bare\r\n\r\n.Hello.\r\n");
            assert!(
                prefix.contains("with ESMTPSA id ") && prefix.contains("(using TLSv1.3 with cipher "),
                "{prefix}"
            );
            assert!(prefix.contains("\r\n\tfor <else@where.test>;\r\n"), "{prefix}");
            assert!(prefix.contains("\r\nDate: ") && prefix.contains("\r\nMessage-ID: <"), "{prefix}");
        }
        pump.machine().quit();
        expect(&mut pump, Sent::Quit, 221).await;
        assert_eq!(pump.next().await.unwrap(), None);
    }
}

#[tokio::test]
async fn lmtp_answers_with_each_mailbox() {
    let world = World::new().await;
    let mut client = world.connect(Role::Lmtp).await;
    client.ask("LHLO filter.test", "250").await;
    client.ask("MAIL FROM:<a@far.test>", "250").await;
    client.ask("RCPT TO:<alice@example.test>", "250").await;
    client.ask("RCPT TO:<nobody@example.test>", "550 5.1.1").await;
    client.ask("RCPT TO:<small@example.test>", "250").await;
    client.ask("RCPT TO:<bob@example.test>", "250").await;
    client.ask("RCPT TO:<alice+again@example.test>", "250").await;
    let large = format!("{MESSAGE}{}", "0123456789\r\n".repeat(300));
    client.message(&large, "250 2.1.5 Delivered").await;
    client.expect("452 4.2.2").await;
    client.expect("250 2.1.5 Delivered").await;
    client.expect("250 2.1.5 Delivered").await;
    for name in ["alice", "bob"] {
        let inbox = world.inbox(name).await;
        assert_eq!(inbox.len(), 1);
        let prefix = inbox[0].strip_suffix(&large).expect("the bytes are unchanged");
        let expected = format!(
            "Return-Path: <a@far.test>\r\nDelivered-To: {name}@example.test\r\n\
             Received: from filter.test (local)\r\n\tby mx.example.test with LMTP id "
        );
        assert!(prefix.starts_with(&expected), "{prefix}");
    }
    assert!(world.inbox("small").await.is_empty());
    assert!(world.queued().await.is_empty());
    // What is not one mailbox append goes through the queue.
    client.ask("MAIL FROM:<a@far.test>", "250").await;
    client.ask("RCPT TO:<info@example.test>", "250").await;
    client.ask("RCPT TO:<bob@example.test>", "250").await;
    client.message(MESSAGE, "250 2.0.0 Queued").await;
    client.expect("250 2.0.0 Queued").await;
    assert_eq!(world.queued().await.len(), 1);
}

/// Where details choose mailboxes, that is for delivery to do, and LMTP may not put everything into INBOX.
#[tokio::test]
async fn lmtp_leaves_details_to_delivery() {
    let config = smtp_in::Config { details_are_filed: true, ..smtp_in::Config::default() };
    let world = World::with(config).await;
    let mut client = world.connect(Role::Lmtp).await;
    client.ask("LHLO filter.test", "250").await;
    client.ask("MAIL FROM:<a@far.test>", "250").await;
    client.ask("RCPT TO:<alice+lists@example.test>", "250").await;
    client.message(MESSAGE, "250 2.0.0 Queued").await;
    assert_eq!(world.queued().await.len(), 1);
    client.ask("MAIL FROM:<a@far.test>", "250").await;
    client.ask("RCPT TO:<alice@example.test>", "250").await;
    client.message(MESSAGE, "250 2.1.5 Delivered").await;
    assert_eq!(world.inbox("alice").await.len(), 1);
}

#[tokio::test]
async fn full_disk_is_temporary() {
    let world = World::new().await;
    let mut client = world.connect(Role::Mx).await;
    client.ask("HELO far.test", "250").await;
    let blobs_full = |full| {
        let faults = blob::memory::Faults { capacity: full, ..blob::memory::Faults::default() };
        world.blobs.set_faults(faults);
    };
    let engine_full = |full| {
        world.engine.set_faults(engine::memory::Faults { full, ..engine::memory::Faults::default() });
    };
    for fault in ["blobs", "engine", "none"] {
        blobs_full((fault == "blobs").then_some(0));
        client.ask("MAIL FROM:<a@far.test>", "250").await;
        client.ask("RCPT TO:<bob@example.test>", "250").await;
        engine_full(fault == "engine");
        client.message(MESSAGE, if fault == "none" { "250" } else { "45" }).await;
        engine_full(false);
    }
    assert_eq!(world.queued().await.len(), 1);
}

#[tokio::test]
async fn shutdown_lets_a_transaction_end() {
    let world = World::new().await;
    let mut idle = world.connect(Role::Mx).await;
    let mut busy = world.connect(Role::Mx).await;
    for client in [&mut idle, &mut busy] {
        client.ask("HELO far.test", "250").await;
    }
    busy.ask("MAIL FROM:<a@far.test>", "250").await;
    busy.ask("RCPT TO:<bob@example.test>", "250").await;
    busy.ask("DATA", "354").await;
    let shutdown = world.shutdown.clone();
    let finish = tokio::spawn(async move { shutdown.finish(Duration::from_secs(20)).await });
    idle.expect("421 4.3.2").await;
    busy.ask(&format!("{MESSAGE}."), "250").await;
    busy.expect("421 4.3.2").await;
    assert_eq!(finish.await.unwrap().aborted, 0);
    assert_eq!(world.queued().await.len(), 1);
}

#[tokio::test]
async fn half_a_message_leaves_nothing() {
    let world = World::new().await;
    for end in ["", "\r\n.", "\r\n.\r", "\n.\n"] {
        let mut client = world.connect(Role::Mx).await;
        client.ask("HELO far.test", "250").await;
        client.ask("MAIL FROM:<a@far.test>", "250").await;
        client.ask("RCPT TO:<bob@example.test>", "250").await;
        client.ask("DATA", "354").await;
        client.stream.write_all(format!("{MESSAGE}more{end}").as_bytes()).await.unwrap();
        drop(client);
    }
    // One who comes after them is served, and what they left is not there.
    let mut client = world.connect(Role::Mx).await;
    client.ask("HELO far.test", "250").await;
    client.ask("MAIL FROM:<a@far.test>", "250").await;
    client.ask("RCPT TO:<bob@example.test>", "250").await;
    client.message(MESSAGE, "250").await;
    let queued = world.queued().await;
    assert_eq!(queued.iter().map(|(_, _, body)| body.as_str()).collect::<Vec<_>>(), [MESSAGE]);
}

#[tokio::test]
async fn garbage_ends_with_its_own_session() {
    let world = World::new().await;
    let mut innocent = world.connect(Role::Mx).await;
    innocent.ask("HELO far.test", "250").await;
    let mut seed = 1_u32;
    let mut noise = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    let random: Vec<u8> = (0..200_000).map(|_| noise()).collect();
    for garbage in [&random[..], &[0; 16_000], b"NOOP\n", "MAIL FROM:<\r\n".repeat(5000).as_bytes()] {
        let mut client = world.connect(Role::Mx).await;
        // It may be cut off before all of it is written.
        let _ = client.stream.write_all(garbage).await;
        let _ = client.stream.shutdown().await;
        let mut answers = Vec::new();
        let read = client.stream.read_to_end(&mut answers);
        let _ = tokio::time::timeout(Duration::from_secs(60), read).await.expect("the session ends");
        assert!(answers.len() < 100_000);
        innocent.ask("RSET", "250").await;
    }
    assert!(world.queued().await.is_empty());
}
