//! Every response is read back by imap-codec.

use bytes::BytesMut;
use imap_codec::ResponseCodec;
use imap_codec::decode::Decoder;
use mail::flag::{Flag, Flags};
use mail::header::{HeaderAddress, HeaderSummary, RawText};
use mail::mime::part::EmbeddedMessage;
use mail::mime::{Disposition, Kind, MediaType, Parameter, Part};

use super::list::Listed;
use super::search::ExtendedSearch;
use super::*;
use crate::command::{DateTime, StatusItem, Tag};
use crate::fetch::{Partial, Section, SectionText};
use crate::page::Page;

/// Checks the text, and that the codec reads all of it as one response.
fn check(write: impl FnOnce(&mut BytesMut), expected: &str) {
    let mut out = BytesMut::new();
    write(&mut out);
    assert_eq!(String::from_utf8_lossy(&out), expected);
    match ResponseCodec::default().decode(&out) {
        Ok((rest, _)) => assert!(rest.is_empty(), "codec leaves {:?}", String::from_utf8_lossy(rest)),
        Err(error) => panic!("codec: {error:?} in {expected}"),
    }
}

/// Checks the text of a response that the codec does not know.
fn check_unknown_to_codec(write: impl FnOnce(&mut BytesMut), expected: &str) {
    let mut out = BytesMut::new();
    write(&mut out);
    assert_eq!(String::from_utf8_lossy(&out), expected);
}

fn raw(text: &str) -> RawText {
    RawText::from(text)
}

fn summary() -> HeaderSummary {
    let address = |name: Option<&str>, mailbox: &str, host: &str| HeaderAddress {
        name: name.map(RawText::from),
        route: None,
        mailbox: Some(raw(mailbox)),
        host: Some(raw(host)),
    };
    HeaderSummary {
        date: Some(raw("Mon, 7 Feb 1994 21:52:25 -0800")),
        subject: Some(raw("a \"quoted\\\" subject")),
        from: vec![address(Some("Fred Foobar"), "foobar", "example.com")],
        reply_to: vec![address(None, "x", "y")],
        to: vec![
            HeaderAddress { mailbox: Some(raw("group")), ..HeaderAddress::default() },
            address(Some("M\u{fc}ller"), "a", "b"),
            HeaderAddress::default(),
        ],
        message_id: Some(raw("<B27397-0100000@example.com>")),
        ..HeaderSummary::default()
    }
}

const ENVELOPE: &str = "(\"Mon, 7 Feb 1994 21:52:25 -0800\" \"a \\\"quoted\\\\\\\" subject\" \
    ((\"Fred Foobar\" NIL \"foobar\" \"example.com\")) ((\"Fred Foobar\" NIL \"foobar\" \"example.com\")) \
    ((NIL NIL \"x\" \"y\")) ((NIL NIL \"group\" NIL)({7}\r\nM\u{fc}ller NIL \"a\" \"b\")(NIL NIL NIL NIL)) NIL NIL NIL \
    \"<B27397-0100000@example.com>\")";

#[test]
fn envelopes() {
    check(
        |out| {
            fetch::begin(out, 12);
            out.extend_from_slice(b"ENVELOPE ");
            envelope::envelope(out, &summary());
            fetch::end(out);
        },
        &format!("* 12 FETCH (ENVELOPE {ENVELOPE})\r\n"),
    );
}

fn text_part(size: u64, lines: u64) -> Part {
    Part { body: 10..10 + size, lines, ..Part::default() }
}

fn media(kind: &str, subtype: &str) -> MediaType {
    MediaType { kind: RawText::from(kind), subtype: RawText::from(subtype) }
}

fn parameter(name: &str, value: &str) -> Parameter {
    Parameter { name: RawText::from(name), value: RawText::from(value) }
}

fn check_structure(part: &Part, body: &str, body_structure: &str) {
    for (name, extended, expected) in [("BODY", false, body), ("BODYSTRUCTURE", true, body_structure)] {
        check(
            |out| {
                fetch::begin(out, 1);
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b" ");
                structure::structure(out, part, extended);
                fetch::end(out);
            },
            &format!("* 1 FETCH ({name} {expected})\r\n"),
        );
    }
}

#[test]
fn structures() {
    check_structure(
        &text_part(2279, 48),
        "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 2279 48)",
        "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 2279 48 NIL NIL NIL NIL)",
    );
    let image = Part {
        media: Some(media("IMAGE", "png")),
        parameters: vec![parameter("name", "x\"y.png")],
        encoding: Some(raw("base64")),
        id: Some(raw("<1>")),
        description: Some(raw("a picture")),
        md5: Some(raw("Q2hlY2s=")),
        disposition: Some(Disposition {
            kind: RawText::from("attachment"),
            parameters: vec![parameter("filename", "x.png")],
        }),
        language: vec![RawText::from("de"), RawText::from("en")],
        location: Some(raw("http://example.com/")),
        body: 100..400,
        ..Part::default()
    };
    let image_body = "(\"IMAGE\" \"png\" (\"name\" \"x\\\"y.png\") \"<1>\" \"a picture\" \"base64\" 300";
    let image_extension =
        " \"Q2hlY2s=\" (\"attachment\" (\"filename\" \"x.png\")) (\"de\" \"en\") \"http://example.com/\")";
    check_structure(&image, &format!("{image_body})"), &format!("{image_body}{image_extension}"));

    let html = Part {
        media: Some(media("text", "html")),
        parameters: vec![parameter("format", "flowed")],
        ..text_part(5, 1)
    };
    let embedded = Part {
        media: Some(media("message", "rfc822")),
        body: 0..500,
        lines: 20,
        kind: Kind::Message(Box::new(EmbeddedMessage { summary: summary(), part: text_part(7, 2) })),
        ..Part::default()
    };
    let mixed = Part {
        media: Some(media("multipart", "mixed")),
        parameters: vec![parameter("boundary", "b")],
        kind: Kind::Multipart(vec![html, embedded, image]),
        ..Part::default()
    };
    let html = "(\"text\" \"html\" (\"format\" \"flowed\" \"charset\" \"us-ascii\") NIL NIL \"7bit\" 5 1";
    let message = format!("(\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 500 {ENVELOPE} ");
    let inner = "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 7 2";
    check_structure(
        &mixed,
        &format!("({html}){message}{inner}) 20){image_body}) \"mixed\")"),
        &format!(
            "({html} NIL NIL NIL NIL){message}{inner} NIL NIL NIL NIL) 20 NIL NIL NIL NIL){image_body}{image_extension} \
             \"mixed\" (\"boundary\" \"b\") NIL NIL NIL)"
        ),
    );
    let empty = Part {
        media: Some(media("multipart", "alternative")),
        kind: Kind::Multipart(Vec::new()),
        ..Part::default()
    };
    check_structure(
        &empty,
        "((\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0) \"alternative\")",
        "((\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0 NIL NIL NIL NIL) \"alternative\" NIL NIL NIL NIL)",
    );
}

#[test]
fn fetch_items() {
    check(
        |out| {
            fetch::begin(out, 4_294_967_295);
            let mut first = true;
            fetch::separate(out, &mut first);
            fetch::uid(out, 7);
            fetch::separate(out, &mut first);
            fetch::flags(out, Flags::from_iter([Flag::Seen, Flag::Draft]), ["$Forwarded", "x"]);
            fetch::separate(out, &mut first);
            fetch::size(out, 44827);
            fetch::separate(out, &mut first);
            fetch::mod_seq(out, 65402);
            fetch::separate(out, &mut first);
            fetch::internal_date(out, DateTime { unix_seconds: 837_596_665, zone_minutes: -420 });
            fetch::end(out);
        },
        "* 4294967295 FETCH (UID 7 FLAGS (\\Seen \\Draft $Forwarded x) RFC822.SIZE 44827 MODSEQ (65402) \
         INTERNALDATE \"17-Jul-1996 02:44:25 -0700\")\r\n",
    );
}

#[test]
fn internal_dates() {
    let check_date = |unix_seconds: i64, zone_minutes: i16, expected: &str| {
        check(
            |out| {
                fetch::begin(out, 1);
                fetch::internal_date(out, DateTime { unix_seconds, zone_minutes });
                fetch::end(out);
            },
            &format!("* 1 FETCH (INTERNALDATE \"{expected}\")\r\n"),
        );
    };
    check_date(0, 0, "01-Jan-1970 00:00:00 +0000");
    check_date(-1, 0, "31-Dec-1969 23:59:59 +0000");
    check_date(951_782_400, 90, "29-Feb-2000 01:30:00 +0130");
    check_date(4_102_444_799, 0, "31-Dec-2099 23:59:59 +0000");
    check_date(1_709_164_800, -30, "28-Feb-2024 23:30:00 -0030");
}

#[test]
fn sections() {
    let check_section = |section: Section, partial: Option<Partial>, expected: &str| {
        check(
            |out| {
                fetch::begin(out, 1);
                fetch::section_name(out, &section, partial);
                fetch::literal_head(out, 3);
                out.extend_from_slice(b"abc");
                fetch::end(out);
            },
            &format!("* 1 FETCH ({expected} {{3}}\r\nabc)\r\n"),
        );
    };
    let names = vec![b"Date".to_vec(), b"X-{y}".to_vec()];
    check_section(Section::default(), None, "BODY[]");
    check_section(Section::default(), Some(Partial { offset: 5, length: 10 }), "BODY[]<5>");
    check_section(Section { part: vec![1, 2], text: SectionText::Whole }, None, "BODY[1.2]");
    check_section(Section { part: vec![1, 2], text: SectionText::Mime }, None, "BODY[1.2.MIME]");
    check_section(Section { part: vec![], text: SectionText::Text }, None, "BODY[TEXT]");
    check_section(Section { part: vec![3], text: SectionText::Header }, None, "BODY[3.HEADER]");
    check_section(
        Section { part: vec![], text: SectionText::HeaderFields(names.clone()) },
        None,
        "BODY[HEADER.FIELDS (Date \"X-{y}\")]",
    );
    check_section(
        Section { part: vec![1], text: SectionText::HeaderFieldsNot(names) },
        None,
        "BODY[1.HEADER.FIELDS.NOT (Date \"X-{y}\")]",
    );
}

#[test]
fn lists() {
    let listed = |name, attributes, child_info| Listed { lsub: false, attributes, name, child_info };
    check(
        |out| list::list(out, &listed("INBOX", &["\\HasNoChildren"], &[])),
        "* LIST (\\HasNoChildren) \"/\" INBOX\r\n",
    );
    check(|out| list::list(out, &listed("a \"b", &[], &[])), "* LIST () \"/\" \"a \\\"b\"\r\n");
    check(|out| list::list(out, &listed("nil", &[], &[])), "* LIST () \"/\" \"nil\"\r\n");
    check(|out| list::list(out, &listed("100%", &[], &[])), "* LIST () \"/\" \"100%\"\r\n");
    check(
        |out| list::list(out, &Listed { lsub: true, ..listed("&U,BTFw-", &["\\Noselect"], &[]) }),
        "* LSUB (\\Noselect) \"/\" &U,BTFw-\r\n",
    );
    check_unknown_to_codec(
        |out| list::list(out, &listed("Foo", &["\\NonExistent"], &["SUBSCRIBED"])),
        "* LIST (\\NonExistent) \"/\" Foo (\"CHILDINFO\" (\"SUBSCRIBED\"))\r\n",
    );
    check(|out| list::root(out, false), "* LIST (\\Noselect) \"/\" \"\"\r\n");
    check(|out| list::root(out, true), "* LSUB (\\Noselect) \"/\" \"\"\r\n");
    check(list::namespace, "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n");
}

#[test]
fn statuses() {
    check(
        |out| {
            status::status(
                out,
                "a b",
                [
                    (StatusItem::Messages, Some(231)),
                    (StatusItem::UidNext, Some(44292)),
                    (StatusItem::Deleted, Some(0)),
                ],
            );
        },
        "* STATUS \"a b\" (MESSAGES 231 UIDNEXT 44292 DELETED 0)\r\n",
    );
    check(
        |out| status::status(out, "x", [(StatusItem::HighestModSeq, Some(7))]),
        "* STATUS x (HIGHESTMODSEQ 7)\r\n",
    );
    // SIZE (RFC 8438) and APPENDLIMIT (RFC 7889) are behind features of the codec, or missing.
    check_unknown_to_codec(
        |out| status::status(out, "x", [(StatusItem::Size, Some(7)), (StatusItem::AppendLimit, None)]),
        "* STATUS x (SIZE 7 APPENDLIMIT NIL)\r\n",
    );
}

#[test]
fn searches() {
    check(|out| search::search(out, &[], None), "* SEARCH\r\n");
    check(|out| search::search(out, &[2, 84, 882], None), "* SEARCH 2 84 882\r\n");
    check(|out| search::search(out, &[2, 3], Some(917)), "* SEARCH 2 3 (MODSEQ 917)\r\n");
    let tag = Tag("a\"1".into());
    // The codec knows ESEARCH only as a name.
    check_unknown_to_codec(
        |out| {
            let found = ExtendedSearch {
                uid: true,
                min: Some(2),
                max: Some(9),
                all: &[2, 3, 4, 9],
                count: Some(4),
                mod_seq: Some(12),
                ..ExtendedSearch::default()
            };
            search::extended_search(out, &tag, &found);
        },
        "* ESEARCH (TAG \"a\\\"1\") UID MIN 2 MAX 9 COUNT 4 MODSEQ 12 ALL 2:4,9\r\n",
    );
    check_unknown_to_codec(
        |out| search::extended_search(out, &tag, &ExtendedSearch::default()),
        "* ESEARCH (TAG \"a\\\"1\")\r\n",
    );
    check_unknown_to_codec(
        |out| {
            let found = ExtendedSearch {
                all: &[1, 5, 10],
                relevancy: Some(&[4, 99, 42]),
                ..ExtendedSearch::default()
            };
            search::extended_search(out, &tag, &found);
        },
        "* ESEARCH (TAG \"a\\\"1\") ALL 1,5,10 RELEVANCY (4 99 42)\r\n",
    );
    check_unknown_to_codec(
        |out| {
            let mailbox = Some(("folder 1", 7));
            let found =
                ExtendedSearch { mailbox, uid: true, all: &[4001, 4003], ..ExtendedSearch::default() };
            search::extended_search(out, &tag, &found);
        },
        "* ESEARCH (TAG \"a\\\"1\" MAILBOX \"folder 1\" UIDVALIDITY 7) UID ALL 4001,4003\r\n",
    );
    for (page, found, expected) in [
        (Page::last(1, 3), &[2, 3, 9][..], "(-1:-3 2:3,9)"),
        (Page::first(3, 1), &[2], "(3:1 2)"),
        (Page::first(7, 9), &[], "(7:9 NIL)"),
    ] {
        let found = ExtendedSearch { partial: Some((page, found)), ..ExtendedSearch::default() };
        check_unknown_to_codec(
            |out| search::extended_search(out, &tag, &found),
            &format!("* ESEARCH (TAG \"a\\\"1\") PARTIAL {expected}\r\n"),
        );
    }
}

#[test]
fn selections() {
    check(
        |out| select::flags(out, ["$Forwarded"]),
        "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Forwarded)\r\n",
    );
    check(
        |out| select::permanent_flags(out, select::Permanent::Anything, ["x"]),
        "* OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft x \\*)] Flags permitted\r\n",
    );
    check(
        |out| select::permanent_flags(out, select::Permanent::Nothing, []),
        "* OK [PERMANENTFLAGS ()] Read-only mailbox\r\n",
    );
    for (code, value) in [("UIDVALIDITY", 1), ("UIDNEXT", 2), ("HIGHESTMODSEQ", 3), ("UNSEEN", 4)] {
        check(|out| select::code_number(out, code, value, "x"), &format!("* OK [{code} {value}] x\r\n"));
    }
    check(|out| numbered(out, 172, "EXISTS"), "* 172 EXISTS\r\n");
    check(|out| numbered(out, 1, "EXPUNGE"), "* 1 EXPUNGE\r\n");
    check(|out| select::vanished(out, true, "41,43:116"), "* VANISHED (EARLIER) 41,43:116\r\n");
    check(|out| select::vanished(out, false, "405"), "* VANISHED 405\r\n");
    check(|out| untagged(out, "CAPABILITY IMAP4rev1 IDLE"), "* CAPABILITY IMAP4rev1 IDLE\r\n");
    check(|out| untagged(out, "ENABLED QRESYNC"), "* ENABLED QRESYNC\r\n");
    check(|out| untagged(out, "ID NIL"), "* ID NIL\r\n");
}

#[test]
fn strings() {
    let check_string = |text: &[u8], expected: &[u8]| {
        let mut out = BytesMut::new();
        string::string(&mut out, text);
        assert_eq!(&out[..], expected);
    };
    check_string(b"", b"\"\"");
    check_string(b"a\\\"b", b"\"a\\\\\\\"b\"");
    check_string(b"a\r\nb", b"{4}\r\na\r\nb");
    check_string("ü".as_bytes(), b"{2}\r\n\xc3\xbc");
    check_string(b"\x80", b"{1}\r\n\x80");
    let long = [b'x'; 1001];
    check_string(&long, &[b"{1001}\r\n", &long[..]].concat());
}
