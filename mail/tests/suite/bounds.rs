//! Messages made to hurt: time and memory stay bounded, and something sensible comes out.

#![allow(clippy::unwrap_used, reason = "a test")]

use mail::mime::{Facts, Kind, Limits, Part, Splitter};

/// Pushes the pieces until `size` octets have passed.
fn feed<'a>(splitter: &mut Splitter, pieces: impl Iterator<Item = &'a [u8]>, size: usize) {
    let mut passed = 0;
    for piece in pieces {
        if passed >= size {
            break;
        }
        splitter.push(piece);
        passed += piece.len();
    }
}

fn stored_len(facts: &Facts) -> usize {
    postcard::to_stdvec(facts).unwrap().len()
}

fn depth(part: &Part) -> usize {
    match &part.kind {
        Kind::Leaf => 1,
        Kind::Multipart(parts) => 1 + parts.iter().map(depth).max().unwrap_or(0),
        Kind::Message(message) => 1 + depth(&message.part),
    }
}

fn count(part: &Part) -> usize {
    1 + match &part.kind {
        Kind::Leaf => 0,
        Kind::Multipart(parts) => parts.iter().map(count).sum(),
        Kind::Message(message) => count(&message.part),
    }
}

#[test]
fn ten_thousand_levels_of_multiparts() {
    let mut splitter = Splitter::new(Limits::default());
    splitter.push(b"MIME-Version: 1.0\r\n");
    for level in 0..10_000 {
        splitter.push(
            format!("Content-Type: multipart/mixed; boundary=b{level}x\r\n\r\n--b{level}x\r\n").as_bytes(),
        );
    }
    for level in (0..10_000).rev() {
        splitter.push(format!("\r\n--b{level}x--\r\n").as_bytes());
    }
    let facts = splitter.finish();
    assert_eq!(depth(&facts.structure), 100);
    assert!(stored_len(&facts) < 10_000);
}

#[test]
fn ten_thousand_levels_of_messages() {
    let mut splitter = Splitter::new(Limits::default());
    for _ in 0..10_000 {
        splitter.push(b"Content-Type: message/rfc822\r\nSubject: deeper\r\n\r\n");
    }
    let facts = splitter.finish();
    assert_eq!(depth(&facts.structure), 100);
    let mut innermost = &facts.structure;
    while let Kind::Message(message) = &innermost.kind {
        innermost = &message.part;
    }
    assert_eq!(innermost.shown_type().kind, b"application");
}

#[test]
fn hundred_thousand_parts() {
    let mut splitter = Splitter::new(Limits::default());
    splitter.push(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n");
    for _ in 0..100_000 {
        splitter.push(b"--b\r\n\r\nx\r\n");
    }
    splitter.push(b"--b--\r\n");
    let facts = splitter.finish();
    assert_eq!(count(&facts.structure), 10_000);
    assert!(stored_len(&facts) < 400_000);
}

#[test]
fn hundred_megabytes_of_header() {
    const SIZE: usize = 100 << 20;
    let field = format!("Subject: {}\r\nTo: {}\r\n", "s".repeat(900), "a@b.test, ".repeat(90));
    let fold = format!(" {}\r\n", "folded ".repeat(100));
    let chunk = vec![b'x'; 1 << 16];
    for (start, pieces) in
        [("", field.as_bytes()), ("Subject: a\r\n", fold.as_bytes()), ("From: ", &chunk[..])]
    {
        let mut splitter = Splitter::new(Limits::default());
        splitter.push(start.as_bytes());
        feed(&mut splitter, std::iter::repeat(pieces), SIZE);
        splitter.push(b"\r\nX: y\r\n\r\nbody\r\n");
        let facts = splitter.finish();
        assert!(facts.size as usize > SIZE && facts.structure.body_len() < 20);
        assert!(stored_len(&facts) < 1 << 20, "{start}");
    }
}

#[test]
fn lines_that_look_like_boundaries_without_end() {
    let mut splitter = Splitter::new(Limits::default());
    splitter.push(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n");
    let hyphens = vec![b'-'; 1 << 16];
    feed(&mut splitter, std::iter::repeat(&hyphens[..]), 20 << 20);
    feed(&mut splitter, std::iter::repeat(&b"\n--a"[..]), 10 << 20);
    splitter.push(b"\r\n--b--\r\n");
    let facts = splitter.finish();
    let Kind::Multipart(parts) = &facts.structure.kind else { panic!("no multipart") };
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].body_len(), 30 << 20);
}

#[test]
fn hundreds_of_open_boundaries_and_lines_that_nearly_match() {
    let mut splitter = Splitter::new(Limits::default());
    splitter.push(b"MIME-Version: 1.0\r\n");
    let boundary = "x".repeat(900);
    for level in 0..99 {
        let text = format!(
            "Content-Type: multipart/mixed; boundary={boundary}{level}\r\n\r\n--{boundary}{level}\r\n"
        );
        splitter.push(text.as_bytes());
    }
    let nearly = format!("\r\n\r\n--{boundary}y\r\n");
    feed(&mut splitter, std::iter::repeat(nearly.as_bytes()), 5 << 20);
    assert_eq!(depth(&splitter.finish().structure), 100);
}

#[test]
fn a_usual_message_is_a_small_record() {
    let message = "Return-Path: <exmh-workers-admin@example.test>\r\n\
        Received: from a by b; Thu, 22 Aug 2002 12:36:16 +0100\r\n\
        From: Robert Example <robert@example.test>\r\n\
        To: Chris Example <chris.example@elsewhere.test>\r\n\
        Cc: exmh-workers@lists.example.test\r\n\
        Subject: Re: New Sequences Window\r\n\
        In-Reply-To: <1029945287.4797.TMDA@elsewhere.test>\r\n\
        References: <1029945287.4797.TMDA@elsewhere.test> <1029882468.3116.TMDA@elsewhere.test>\r\n\
        Message-ID: <13258.1030015585@example.test>\r\n\
        Date: Thu, 22 Aug 2002 18:26:25 +0700\r\n\
        MIME-Version: 1.0\r\n\
        Content-Type: multipart/alternative; boundary=\"=-=-=_0123456789abcdef_=-=-=\"\r\n\r\n\
        --=-=-=_0123456789abcdef_=-=-=\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello there. \r\n\
        --=-=-=_0123456789abcdef_=-=-=\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>Hello there.\r\n\
        --=-=-=_0123456789abcdef_=-=-=--\r\n";
    let mut splitter = Splitter::new(Limits::default());
    splitter.push(message.as_bytes());
    let facts = splitter.finish();
    assert_eq!(facts.received_count, 1);
    assert_eq!(facts.references.len(), 2);
    assert_eq!(facts.base_subject, "New Sequences Window");
    assert!(facts.is_reply_or_forward && !facts.has_attachment);
    assert_eq!(facts.preview, "Hello there.");
    assert!(stored_len(&facts) < 1024, "{}", stored_len(&facts));
}
