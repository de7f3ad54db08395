//! Every parser takes any octets: an answer or an error, never a panic.

use mail::address::{Address, Path};
use mail::date::{SentDate, parse_search_day};
use mail::flag::FlagSet;
use mail::header::address_list::parse_address_list;
use mail::header::decode::{decode_charset, decode_header_text};
use mail::header::select::{FieldSelector, Keep};
use mail::mime::{Limits, Section, Splitter};
use mail::thread::{base_subject, message_id, message_ids};
use mail::uid::UidSet;
use proptest::prelude::*;

/// Octets with much punctuation, which is where parsers turn.
fn octets() -> impl Strategy<Value = Vec<u8>> {
    let punctuation = prop::sample::select(&b"()<>[]@,;:\\\".=?*_+-'% \t\r\n\0&#/0123Aazq\xc3\xa4\xff"[..]);
    let words = prop::sample::select(vec![
        "=?utf-8?q?",
        "=?x?b?",
        "?=",
        "<a@b>",
        "Re:",
        "<style>",
        "<!--",
        "&#x",
        "*0*=",
        "Jan",
    ]);
    let piece = prop_oneof![8 => punctuation.prop_map(|byte| vec![byte]), 1 => any::<u8>().prop_map(|byte| vec![byte]),
        2 => words.prop_map(|word| word.as_bytes().to_vec())];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, rng_seed: prop::test_runner::RngSeed::Fixed(2), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn header_values(value in octets()) {
        let mut list = Vec::new();
        parse_address_list(&value, 50, &mut list);
        prop_assert!(list.len() <= 51);
        let _ = SentDate::parse(&value);
        let _ = message_id(&value, 998);
        prop_assert!(message_ids(&value, 998).iter().all(|id| !id.is_empty()));
        let _ = base_subject(&decode_header_text(&value));
        for charset in [&b""[..], b"utf-7", b"utf-16", b"iso-2022-jp", b"gb18030", &value] {
            let _ = decode_charset(charset, &value);
        }
    }

    #[test]
    fn messages_around_them(value in octets(), which in 0..6_usize) {
        let before = ["Content-Type: ", "Content-Disposition: ", "MIME-Version: 1.0\r\nContent-Transfer-Encoding: ",
            "Content-Type: text/html; charset=", "Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n",
            "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"][which];
        let mut splitter = Splitter::new(Limits::default());
        splitter.push(before.as_bytes());
        splitter.push(&value);
        splitter.push(b"\r\n\r\n<p>");
        splitter.push(&value);
        let facts = splitter.finish();
        prop_assert!(facts.preview.chars().count() <= 200);
        let mut out = Vec::new();
        let mut selector = FieldSelector::new(["A"], Keep::Others);
        selector.push(&value, &mut out);
        selector.finish(&mut out);
        prop_assert!(out.ends_with(b"\r\n"));
    }

    #[test]
    fn protocol_words(value in octets()) {
        if let Ok((Path::Address(address), rest)) = Path::take(&value) {
            prop_assert!(value.ends_with(rest));
            prop_assert_eq!(Address::parse(&address.to_string()), Ok(address));
        }
        let text = String::from_utf8_lossy(&value);
        if let Ok(address) = Address::parse(&text) {
            prop_assert_eq!(Address::parse(&address.to_string()), Ok(address));
        }
        let _ = UidSet::parse(&text);
        let _ = SentDate::parse_internal(&text);
        let _ = parse_search_day(&text);
        let _ = Section::parse(&text);
        let _ = FlagSet::new().insert_name(&text);
        let _ = mail::xtext::decode(&text);
        prop_assert_eq!(mail::xtext::decode(&mail::xtext::encode(&text)), Some(text.into_owned()));
    }
}
