//! Bad input of every kind, while an innocent session beside it works on. Each kind ends in an error of the protocol at
//! hand or in a stored message; the server lives, its memory stays bounded, and the innocent session never fails.
//!
//! `cargo xtask campaign bad-input` writes the table (docs/bad-input.md): kind, how often, peak RSS, and the
//! innocent session's p99.
#![allow(clippy::print_stdout, reason = "the table is for people")]

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use end_to_end::Scene;
use end_to_end::innocent::{self, Leaves};
use testkit::imap::Imap;
use testkit::message;
use testkit::server::{PASSWORD, Server};
use testkit::smtp::Smtp;

const ALICE: &str = "alice@example.test";
fn beside(scene: &Scene, kind: &str, bad: impl FnOnce() -> Result<usize>) -> Result<()> {
    innocent::beside(&scene.server, kind, Leaves::Working, bad)
}

/// Sends bytes, half-closes, and reads whatever comes until the server closes or says nothing more for a while.
fn throw(address: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    // The server may close before it has taken everything: that is its right.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.take(4 << 20).read_to_end(&mut answer);
    Ok(answer)
}

/// The same bytes at any time: a small generator, so that a failure can be repeated.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    needle.is_empty() || haystack.windows(needle.len()).any(|part| part == needle.as_bytes())
}

/// What the other rows are to be held against: the same session with nobody beside it, on this machine as it is.
#[test]
fn a_session_alone() -> Result<()> {
    let scene = Scene::start()?;
    beside(&scene, "nothing: the session alone", || {
        std::thread::sleep(Duration::from_secs(3));
        Ok(1)
    })
}

#[test]
fn garbage_truncation_and_smuggling() -> Result<()> {
    let scene = Scene::start()?;
    let server = &scene.server;
    let all = [
        server.smtp(),
        server.submission(),
        server.submissions(),
        server.lmtp(),
        server.imap(),
        server.imaps(),
    ];
    beside(&scene, "garbage on every port", || {
        for round in 0..20 {
            for address in all {
                throw(address, &noise(round, 3_000))?;
                let mut lines = noise(round, 3_000);
                lines.iter_mut().skip(40).step_by(60).for_each(|byte| *byte = b'\n');
                throw(address, &lines)?;
            }
        }
        Ok(20 * all.len() * 2)
    })?;
    beside(&scene, "TLS garbage after STARTTLS", || {
        for round in 0..20 {
            let mut smtp = Smtp::hello(server.smtp())?;
            smtp.command("STARTTLS", 220)?;
            smtp.raw(&noise(round, 500))?;
            let mut imap = Imap::connect(server.imap())?;
            imap.ok("STARTTLS")?;
            imap.raw(&noise(round, 500))?;
        }
        Ok(40)
    })?;
    beside(&scene, "transactions cut at every byte", || {
        let script = b"EHLO x\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\nSubject: cut\r\n\r\nbody\r\n.\r";
        for cut in 0..script.len() {
            throw(server.smtp(), &script[..cut])?;
        }
        let script = b"a LOGIN alice@example.test postrider\r\nb APPEND INBOX {10}\r\n12345";
        for cut in 0..script.len() {
            throw(server.imap(), &script[..cut])?;
        }
        Ok(script.len() * 2)
    })?;
    beside(&scene, "NULs in commands and data", || {
        let answer = throw(server.smtp(), b"EHLO x\0y\r\nMAIL FROM:<a\0b@example.net>\r\nQUIT\r\n")?;
        ensure!(contains(&answer, "\r\n50"), "{}", String::from_utf8_lossy(&answer));
        let answer = throw(server.imap(), b"a LOGIN \"al\0ice\" \"x\"\r\nb NOOP\r\n")?;
        ensure!(contains(&answer, "BAD"), "{}", String::from_utf8_lossy(&answer));
        Ok(2)
    })?;
    beside(&scene, "bare CR and LF", || {
        let mut count = 0;
        for end in ["\n", "\r", "\r\r\n", "\n\r\n"] {
            let answer = throw(server.smtp(), format!("EHLO x{end}NOOP{end}").as_bytes())?;
            ensure!(!contains(&answer, "250 2.0.0"), "{end:?}: {}", String::from_utf8_lossy(&answer));
            let mut smtp = Smtp::hello(server.smtp())?;
            smtp.begin("a@example.net", &[ALICE])?;
            smtp.raw(format!("Subject: bare\r\n\r\none{end}two\r\n.\r\n").as_bytes())?;
            let reply = smtp.reply()?;
            ensure!(reply.code >= 500, "{end:?}: {reply:?}");
            // In IMAP a CR or LF alone ends no command, and is part of none (RFC 9051 §9, `CRLF`, `TEXT-CHAR`).
            let answer = throw(server.imap(), format!("a NOOP{end}b NOOP{end}").as_bytes())?;
            ensure!(!contains(&answer, "b OK"), "{end:?}: {}", String::from_utf8_lossy(&answer));
            count += 3;
        }
        Ok(count)
    })?;
    beside(&scene, "commands smuggled before STARTTLS", || {
        for turn in 0..10 {
            let address = if turn % 2 == 0 { server.smtp() } else { server.submission() };
            let answer = throw(address, b"EHLO x\r\nSTARTTLS\r\nMAIL FROM:<evil@example.net>\r\nNOOP\r\n")?;
            ensure!(contains(&answer, "\r\n220 "), "{}", String::from_utf8_lossy(&answer));
            ensure!(!contains(&answer, "250 2."), "{}", String::from_utf8_lossy(&answer));
            let answer = throw(server.imap(), b"a STARTTLS\r\nb LOGIN alice@example.test postrider\r\n")?;
            ensure!(!contains(&answer, "b OK"), "{}", String::from_utf8_lossy(&answer));
        }
        Ok(20)
    })?;
    let messages =
        Imap::login(server.imap(), ALICE, PASSWORD)?.ok("STATUS INBOX (MESSAGES)")?.text().join(" ");
    ensure!(messages.contains("MESSAGES 0"), "something was stored: {messages}");
    scene.log_is_quiet(&[])
}

/// Every way in which a body can look like its own end, with the bytes split at every point.
#[test]
fn false_ends_of_data() -> Result<()> {
    let scene = Scene::start()?;
    let server = &scene.server;
    let mut legal = 0;
    beside(&scene, "false ends of data at every split point", || {
        let mut count = 0;
        for end in [
            "\n.\n",
            "\n.\r\n",
            "\r\n.\n",
            "\r.\r",
            "\r\n.\r",
            "\r.\r\n",
            "\r\n.x\r\n",
            "\r\n..\r\n",
            "\r\n.\r\r\n",
        ] {
            let whole =
                format!("Subject: false end\r\n\r\nfirst{end}MAIL FROM:<smuggled@example.net>\r\n\r\n.\r\n");
            let from = whole.find("first").context("it is there")?;
            for split in from..whole.len() {
                let mut smtp = Smtp::hello(server.smtp())?;
                smtp.begin("a@example.net", &[ALICE])?;
                smtp.raw(&whole.as_bytes()[..split])?;
                smtp.stream().flush()?;
                smtp.raw(&whole.as_bytes()[split..])?;
                let reply = smtp.reply()?;
                if reply.code == 250 {
                    // Only a line that begins with a dot and goes on is legal; its dot is taken away (RFC 5321 §4.5.2).
                    ensure!(
                        ["\r\n.x\r\n", "\r\n..\r\n"].contains(&end),
                        "{end:?} split at {split}: {reply:?}"
                    );
                    legal += 1;
                }
                count += 1;
                // One reply for one message: nothing in the body was taken for a command.
                smtp.raw(b"QUIT\r\n")?;
                ensure!(
                    smtp.reply().is_ok_and(|reply| reply.code == 221) || reply.code >= 400,
                    "{end:?} at {split}"
                );
            }
        }
        Ok(count)
    })?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status =
            Imap::login(server.imap(), ALICE, PASSWORD)?.ok("STATUS INBOX (MESSAGES)")?.text().join(" ");
        if status.contains(&format!("MESSAGES {legal})")) {
            break;
        }
        ensure!(Instant::now() < deadline, "{status}, {legal} were accepted");
        std::thread::sleep(Duration::from_millis(50));
    }
    scene.log_is_quiet(&[])
}

#[test]
fn oversize_everything() -> Result<()> {
    let scene = Scene::start()?;
    let server = &scene.server;
    beside(&scene, "command lines of 8 MB", || {
        let mut line = b"EHLO ".to_vec();
        line.extend(std::iter::repeat_n(b'x', 8 << 20));
        line.extend_from_slice(b"\r\nQUIT\r\n");
        let answer = throw(server.smtp(), &line)?;
        ensure!(
            contains(&answer, "\r\n5") || contains(&answer, "\r\n421"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        line[..5].copy_from_slice(b"a NO ");
        let answer = throw(server.imap(), &line)?;
        ensure!(contains(&answer, "BAD") || contains(&answer, "BYE"), "{}", String::from_utf8_lossy(&answer));
        Ok(2)
    })?;
    beside(&scene, "100 000 recipients", || {
        let mut smtp = Smtp::hello(server.smtp())?;
        smtp.command("MAIL FROM:<a@example.net>", 250)?;
        let mut refused = 0;
        for block in 0..100 {
            let lines = format!("RCPT TO:<{ALICE}>\r\n").repeat(1_000);
            smtp.raw(lines.as_bytes())?;
            for _ in 0..1_000 {
                match smtp.reply() {
                    Ok(reply) if reply.code == 250 => {}
                    Ok(reply) if reply.code == 421 => return Ok(block * 1_000),
                    Ok(reply) if reply.code == 452 => refused += 1,
                    Ok(reply) => bail!("{reply:?}"),
                    Err(_) => return Ok(block * 1_000 + 1),
                }
            }
        }
        ensure!(refused > 0, "all were taken");
        Ok(100_000)
    })?;
    beside(&scene, "sizes announced too large", || {
        let mut smtp = Smtp::hello(server.smtp())?;
        smtp.command("MAIL FROM:<a@example.net> SIZE=99999999999", 552)?;
        smtp.raw(b"MAIL FROM:<a@example.net>\r\nRCPT TO:<alice@example.test>\r\nBDAT 99999999999999999999 LAST\r\n")?;
        smtp.expect(250)?;
        smtp.expect(250)?;
        ensure!(smtp.reply()?.code >= 500);
        let answer = throw(server.imap(), b"a LOGIN alice@example.test {99999999999}\r\n")?;
        ensure!(contains(&answer, "BAD") || contains(&answer, "BYE"), "{}", String::from_utf8_lossy(&answer));
        let mut imap = Imap::login(server.imap(), ALICE, PASSWORD)?;
        let tag = imap.send("APPEND INBOX {999999999999}")?;
        let answer = imap.finish(&tag)?;
        ensure!(!answer.ok(), "{}", answer.tagged);
        Ok(4)
    })?;
    beside(&scene, "1 000 000 pipelined commands", || {
        let mut stream = TcpStream::connect(server.smtp())?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut reader = stream.try_clone()?;
        let drain = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        let block = b"NOOP\r\n".repeat(10_000);
        for _ in 0..100 {
            if stream.write_all(&block).is_err() {
                break;
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
        let answered = drain.join().expect("it does not panic").unwrap_or_default();
        ensure!(answered > 0);
        Ok(1_000_000)
    })?;
    scene.log_is_quiet(&[])
}

/// Messages beyond the limit that come all the same, and NULs in them: refused or stored, and the session goes on.
#[test]
fn oversize_messages_and_nul() -> Result<()> {
    let scene = Scene::configured(
        "[smtp_in.limits]\nmessage_bytes_max = 1000000\n[imap]\nappend_bytes_max = 1000000\n",
    )?;
    let server = &scene.server;
    let larger = message::numbered(1, 1_500_000);
    beside(&scene, "messages of 1.5 MB where 1 MB is the limit", || {
        let mut smtp = Smtp::hello(server.smtp())?;
        for _ in 0..3 {
            smtp.begin("a@example.net", &[ALICE])?;
            smtp.raw(larger.as_bytes())?;
            smtp.raw(b"\r\n.\r\n")?;
            smtp.expect(552)?;
        }
        smtp.command("MAIL FROM:<a@example.net>", 250)?;
        smtp.command(&format!("RCPT TO:<{ALICE}>"), 250)?;
        let half = &larger.as_bytes()[..750_000];
        for code in [250, 552] {
            smtp.raw(format!("BDAT {}\r\n", half.len()).as_bytes())?;
            smtp.raw(half)?;
            smtp.expect(code)?;
        }
        smtp.command("RSET", 250)?;
        // A literal that waits is refused before it is sent, and the session goes on.
        let mut imap = Imap::login(server.imap(), ALICE, PASSWORD)?;
        let tag = imap.send(&format!("APPEND INBOX {{{}}}", larger.len()))?;
        ensure!(!imap.finish(&tag)?.ok());
        imap.ok("NOOP")?;
        Ok(5)
    })?;
    // What goes on and on is not read to its end: the client is told why, and the connection is closed. For a literal
    // that does not wait that is what RFC 7888 §4 has.
    beside(&scene, "messages of 20 MB where 1 MB is the limit", || {
        let flood = message::numbered(1, 20_000_000);
        let begin = format!("EHLO x\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<{ALICE}>\r\n");
        let login = format!("a LOGIN {ALICE} {PASSWORD}\r\n");
        let cases = [
            (server.smtp(), format!("{begin}DATA\r\n"), "\r\n552 5.3.4"),
            (server.smtp(), format!("{begin}BDAT {} LAST\r\n", flood.len()), "\r\n552 5.3.4"),
            (server.imap(), format!("{login}x APPEND INBOX {{{}+}}\r\n", flood.len()), "x NO [TOOBIG]"),
        ];
        let count = cases.len();
        for (address, before, expected) in cases {
            let answer = throw(address, format!("{before}{flood}").as_bytes())?;
            ensure!(contains(&answer, expected), "{before}: {}", String::from_utf8_lossy(&answer));
        }
        Ok(count)
    })?;
    beside(&scene, "NULs in messages", || {
        // RFC 5322 §2.2 forbids them and old mail has them: such a message is stored, or refused at the end of data.
        let text = b"Subject: nul\0nul\r\n\r\n\0\0body\0\r\n";
        let mut smtp = Smtp::hello(server.smtp())?;
        let mut stored = 0;
        for _ in 0..10 {
            let reply = smtp.send("a@example.net", &[ALICE], text)?;
            ensure!(reply.code == 250 || reply.code / 100 == 5, "{reply:?}");
            let binary = smtp.send_binary("a@example.net", &[ALICE], text)?;
            ensure!(binary.code == 250 || binary.code / 100 == 5, "{binary:?}");
            stored += usize::from(reply.code == 250) + usize::from(binary.code == 250);
        }
        if stored > 0 {
            describe(server, stored, text.len())?;
        }
        Ok(20)
    })?;
    scene.log_is_quiet(&[])
}

/// Opens the connections of a case.
type Begin<'a> = &'a dyn Fn() -> Result<Vec<TcpStream>>;

/// Clients that take longer than they may are sent away, each in the words of its protocol.
#[test]
fn slow_senders() -> Result<()> {
    let scene = Scene::configured(
        "[smtp_in.limits]\ncommand_seconds_max = 2\nbody_pause_seconds_max = 2\nbody_bytes_per_second_min = 1000\n\
         [imap]\nlogin_seconds_max = 2\nstall_seconds_max = 2\n[net]\nhandshake_seconds_max = 2\n",
    )?;
    let server = &scene.server;
    let bodies = || -> Result<Vec<TcpStream>> {
        (0..40)
            .map(|_| {
                let mut smtp = Smtp::hello(server.smtp())?;
                smtp.begin("a@example.net", &[ALICE])?;
                Ok(smtp.stream().try_clone()?)
            })
            .collect()
    };
    let plain = |address: SocketAddr| -> Result<Vec<TcpStream>> {
        (0..40).map(|_| Ok(TcpStream::connect(address)?)).collect()
    };
    let cases: [(&str, Begin<'_>, &str); 4] = [
        ("slow commands, a byte at a time", &|| plain(server.smtp()), "421 "),
        ("slow bodies, a byte at a time", &bodies, "421 "),
        ("slow logins, a byte at a time", &|| plain(server.imap()), "* BYE"),
        ("TLS handshakes that never end", &|| plain(server.submissions()), ""),
    ];
    for (kind, begin, farewell) in cases {
        beside(&scene, kind, || {
            let slow = begin()?;
            let started = Instant::now();
            let count = slow.len();
            let mut open: Vec<(TcpStream, Vec<u8>)> =
                slow.into_iter().map(|stream| (stream, Vec::new())).collect();
            while !open.is_empty() {
                ensure!(started.elapsed() < Duration::from_secs(60), "{} are still open", open.len());
                let mut left = Vec::new();
                for (mut stream, mut answer) in open {
                    let _ = stream.write_all(b"x");
                    stream.set_read_timeout(Some(Duration::from_millis(1)))?;
                    let mut bytes = [0; 512];
                    let ended = match stream.read(&mut bytes) {
                        Ok(0) => true,
                        Ok(read) => {
                            answer.extend_from_slice(&bytes[..read]);
                            false
                        }
                        Err(error) => !matches!(
                            error.kind(),
                            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                        ),
                    };
                    if !ended {
                        left.push((stream, answer));
                        continue;
                    }
                    ensure!(contains(&answer, farewell), "{:?}", String::from_utf8_lossy(&answer));
                }
                open = left;
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(count)
        })?;
    }
    scene.log_is_quiet(&[])
}

#[test]
fn slow_and_half_closed() -> Result<()> {
    let scene = Scene::start()?;
    let server = &scene.server;
    beside(&scene, "readers that do not read", || {
        let text = message::numbered(1, 2_000_000);
        let mut imap = Imap::login(server.imap(), ALICE, PASSWORD)?;
        ensure!(imap.append("INBOX", "", text.as_bytes())?.ok());
        let mut stuck = Vec::new();
        for _ in 0..30 {
            let mut client = Imap::login(server.imap(), ALICE, PASSWORD)?;
            client.ok("SELECT INBOX")?;
            for turn in 0..20 {
                client.raw(format!("s{turn} FETCH 1 BODY.PEEK[]\r\n").as_bytes())?;
            }
            stuck.push(client);
        }
        std::thread::sleep(Duration::from_secs(2));
        Ok(stuck.len())
    })?;
    beside(&scene, "half-closed sockets", || {
        for _ in 0..50 {
            let answer = throw(server.smtp(), b"EHLO x\r\nNOOP\r\n")?;
            ensure!(contains(&answer, "250"), "what was asked before the end of input is answered");
            throw(server.imap(), b"a CAPABILITY\r\n")?;
        }
        Ok(100)
    })?;
    scene.log_is_quiet(&[])
}

/// Messages whose structure is an attack: they are stored, and their structure is told in bounded time.
#[test]
fn hostile_messages() -> Result<()> {
    let scene = Scene::start()?;
    let server = &scene.server;
    let head = "From: a@example.net\r\nSubject: hostile\r\nMIME-Version: 1.0\r\n";
    let mut deep = head.to_owned();
    for level in 0..10_000 {
        write!(deep, "Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n")?;
    }
    deep.push_str("\r\nend\r\n");
    let mut wide = format!("{head}Content-Type: multipart/mixed; boundary=b\r\n\r\n");
    wide.push_str(&"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n".repeat(100_000));
    wide.push_str("--b--\r\n");
    let mut rfc822 = head.to_owned();
    rfc822.push_str(&"Content-Type: message/rfc822\r\n\r\n".repeat(10_000));
    let charsets = format!(
        "{head}Subject: =?no-such-charset?B?////?= =?utf-8?Q?=FF=FE?= =?iso-2022-jp?B?GyRC?=\r\n\
         Content-Type: text/plain; charset=\"no such\"; boundary=\"\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!!\r\n"
    );
    let cases = [
        ("MIME 10 000 levels deep", deep),
        ("message/rfc822 10 000 levels deep", rfc822),
        ("100 000 parts", wide),
        ("wrong charsets and encodings", charsets),
    ];
    let mut stored = 0;
    for (kind, text) in &cases {
        stored += 1;
        beside(&scene, kind, || {
            let reply = Smtp::hello(server.smtp())?.send("a@example.net", &[ALICE], text.as_bytes())?;
            ensure!(reply.code == 250, "{reply:?}");
            describe(server, stored, text.len())?;
            Ok(1)
        })?;
    }
    beside(&scene, "a header of 100 MB", || {
        let mut smtp = Smtp::hello(server.smtp())?;
        smtp.begin("a@example.net", &[ALICE])?;
        let line = format!("X-Filler: {}\r\n", "y".repeat(900));
        let block = line.repeat(1_000);
        let mut sent = 0;
        while sent < 100_000_000 {
            smtp.raw(block.as_bytes())?;
            sent += block.len();
        }
        smtp.raw(b"\r\nbody\r\n.\r\n")?;
        let reply = smtp.reply()?;
        // Accepted or refused for its size, either is an answer.
        ensure!(reply.code == 250 || reply.code / 100 == 5, "{reply:?}");
        if reply.code == 250 {
            stored += 1;
            describe(server, stored, sent)?;
        }
        Ok(1)
    })?;
    scene.log_is_quiet(&[])
}

/// Waits for the message and asks for everything that depends on its structure.
fn describe(server: &Server, number: usize, size: usize) -> Result<()> {
    let mut imap = Imap::login(server.imap(), ALICE, PASSWORD)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !imap.ok("SELECT INBOX")?.text().contains(&format!("* {number} EXISTS")) {
        ensure!(Instant::now() < deadline, "the message did not arrive");
        std::thread::sleep(Duration::from_millis(20));
    }
    for items in
        ["(RFC822.SIZE ENVELOPE)", "BODYSTRUCTURE", "BODY.PEEK[1]", "BODY.PEEK[HEADER.FIELDS (SUBJECT)]"]
    {
        let answer = imap.ok(&format!("FETCH {number} {items}"))?;
        ensure!(answer.untagged.len() == 1, "{items}: {} responses", answer.untagged.len());
        ensure!(answer.untagged[0].len() < size + (16 << 20), "{items}: {} bytes", answer.untagged[0].len());
    }
    Ok(())
}
