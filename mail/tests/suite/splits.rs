//! Where a message is cut into pieces makes no difference to its facts.

#![allow(clippy::unwrap_used, reason = "a test")]

use mail::mime::{Facts, Kind, Limits, Part, Splitter};
use proptest::prelude::*;

fn whole(message: &[u8], limits: &Limits) -> Facts {
    let mut splitter = Splitter::new(limits.clone());
    splitter.push(message);
    splitter.finish()
}

fn pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Facts {
    let mut splitter = Splitter::new(limits.clone());
    for piece in pieces {
        splitter.push(piece);
    }
    splitter.finish()
}

/// What must hold of any structure.
fn check_ranges(part: &Part, message: &[u8]) {
    assert!(part.header.start <= part.header.end && part.header.end == part.body.start);
    assert!(part.body.start <= part.body.end && part.body.end <= message.len() as u64);
    let body = &message[part.body.start as usize..part.body.end as usize];
    assert_eq!(part.lines, memchr::memchr_iter(b'\n', body).count() as u64);
    let inner: Vec<&Part> = match &part.kind {
        Kind::Leaf => Vec::new(),
        Kind::Multipart(parts) => parts.iter().collect(),
        Kind::Message(message) => vec![&message.part],
    };
    let mut end = part.body.start;
    for inner in inner {
        assert!(end <= inner.header.start && inner.body.end <= part.body.end);
        end = inner.body.end;
        check_ranges(inner, message);
    }
}

fn edges() -> Vec<(String, Vec<u8>)> {
    let folder = "../tests/conformance/edges";
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut edges: Vec<(String, Vec<u8>)> = files
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap()))
        .collect();
    edges.sort();
    edges
}

#[test]
fn edges_cut_once_anywhere_and_into_octets() {
    let limits = Limits::default();
    let edges = edges();
    assert!(edges.len() > 40);
    for (name, message) in edges {
        let expected = whole(&message, &limits);
        check_ranges(&expected.structure, &message);
        assert_eq!(expected.size, message.len() as u64, "{name}");
        for cut in 0..=message.len() {
            let (before, after) = message.split_at(cut);
            assert_eq!(pieces([before, after], &limits), expected, "{name} cut at {cut}");
        }
        assert_eq!(pieces(message.chunks(1), &limits), expected, "{name} in octets");
    }
}

/// Pieces of syntax that make trouble when they meet.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "\r\n",
        "\r\n",
        "\n",
        "\r",
        "--",
        "-",
        "--a",
        "--a--",
        "\r\n--a\r\n",
        "\r\n--a--\r\n",
        "\r\n--ab\r\n",
        "\r\n--ab--\r\n",
        "\r\n\r\n",
        "MIME-Version: 1.0\r\n",
        "Content-Type: multipart/mixed; boundary=a\r\n",
        "Content-Type: multipart/digest; boundary=\"ab\"\r\n",
        "Content-Type: multipart/mixed;\r\n boundary=a\r\n\r\n--a\r\n",
        "Content-Type: message/rfc822\r\n\r\n",
        "Content-Type: text/html\r\n\r\n",
        "Content-Transfer-Encoding: base64\r\n",
        "Content-Disposition: attachment; filename=x\r\n",
        "Subject: s\r\n",
        "From: a@b, (\r\n c) d: e;\r\n",
        "References: <a@b>\r\n <c@d>\r\n",
        "Date: Thu, 1 Jan 1970 00:00:00 +0000\r\n",
        "text",
        " ",
        "\t",
        ":",
        "\0",
        "\u{e4}",
    ]);
    prop::collection::vec(words, 0..40).prop_map(|words| words.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, rng_seed: prop::test_runner::RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_equals_the_whole(
        message in soup(),
        mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        small in any::<bool>(),
    ) {
        let limits = if small {
            Limits { depth_max: 3, parts_max: 4, field_bytes_max: 40, header_bytes_max: 100, boundary_bytes_max: 1,
                addresses_max: 1, parameters_max: 1, references_max: 1, preview_source_bytes: 7, ..Limits::default() }
        } else {
            Limits::default()
        };
        let expected = whole(&message, &limits);
        check_ranges(&expected.structure, &message);
        let mut cuts: Vec<usize> = cuts.drain(..).map(|cut| cut.index(message.len() + 1)).collect();
        cuts.extend([0, message.len()]);
        cuts.sort_unstable();
        let got = pieces(cuts.windows(2).map(|pair| &message[pair[0]..pair[1]]), &limits);
        prop_assert_eq!(&got, &expected);
        let stored = postcard::to_stdvec(&expected).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Facts>(&stored).unwrap(), expected);
    }

    #[test]
    fn any_octets_are_a_message(message in prop::collection::vec(any::<u8>(), 0..300), cut in any::<prop::sample::Index>()) {
        let limits = Limits::default();
        let expected = whole(&message, &limits);
        check_ranges(&expected.structure, &message);
        let (before, after) = message.split_at(cut.index(message.len() + 1));
        prop_assert_eq!(pieces([before, after], &limits), expected);
    }
}
