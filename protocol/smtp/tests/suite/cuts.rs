//! However the input is cut, the same is heard and the same is said; and no input makes the machine misbehave.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::policy::{Session, settings};

/// What the service heard, what the client was told, and whether the session is over.
fn run(kind: &str, input: &[u8], cuts: &[usize]) -> (Vec<String>, String, bool) {
    let mut session = Session::new(settings(kind));
    let mut rest = input;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let cut = cuts.next().copied().unwrap_or(usize::MAX).clamp(1, rest.len());
        let (piece, after) = rest.split_at(cut);
        session.send(piece);
        rest = after;
        if session.wants_tls {
            // What follows in the same write is discarded, so a cut here is no cut but another input.
            break;
        }
        // Late replies are waited for, as a client would.
        session.pass(1);
    }
    session.pass(1);
    session.end_of_input();
    assert!(session.closed || session.wants_tls);
    (session.events, String::from_utf8(session.output).unwrap(), session.closed)
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let lines = [
        "EHLO a.example\r\n",
        "MAIL FROM:<a@x.test>\r\n",
        "MAIL FROM:<a@x.test> BODY=BINARYMIME SIZE=10\r\n",
        "RCPT TO:<b@x.test>\r\n",
        "RCPT TO:<nobody@x.test>\r\n",
        "DATA\r\n",
        "hello\r\n.\r\n",
        "..\r\n.x\r\n.\r\n",
        ".\r\n",
        "BDAT 4\r\na\r\nb",
        "BDAT 2\r\n\r",
        "BDAT 3 LAST\r\n\nxy",
        "BDAT 0 LAST\r\n",
        "BDAT x\r\n",
        "RSET\r\n",
        "NOOP\r\n",
        "QUIT\r\n",
        "AUTH PLAIN\r\n",
        "AUTH LOGIN YWxpY2U=\r\n",
        "*\r\n",
        "c2VjcmV0\r\n",
        "\r",
        "\n",
        ".",
        "a",
    ];
    prop_oneof![
        9 => proptest::sample::select(lines.to_vec()).prop_map(|line| line.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..6),
    ]
}

fn conversation() -> impl Strategy<Value = Vec<u8>> {
    let start = "EHLO a.example\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\n";
    (
        proptest::sample::select(vec!["", start, "EHLO a.example\r\n"]),
        proptest::collection::vec(piece(), 0..14),
    )
        .prop_map(|(start, pieces)| [start.as_bytes().to_vec(), pieces.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn same_at_every_cut(
        input in conversation(),
        cuts in proptest::collection::vec(1_usize..20, 1..6),
        kind in proptest::sample::select(vec!["mx", "lmtp", "submission"]),
    ) {
        let input = if kind == "lmtp" {
            String::from_utf8_lossy(&input).replace("EHLO", "LHLO").into_bytes()
        } else {
            input
        };
        prop_assert_eq!(run(kind, &input, &cuts), run(kind, &input, &[]));
    }

    #[test]
    fn any_bytes(input in proptest::collection::vec(any::<u8>(), 0..300), cut in 1_usize..50) {
        prop_assert_eq!(run("mx", &input, &[cut]), run("mx", &input, &[]));
    }
}
