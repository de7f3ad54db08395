//! The grammar against examples, and against imap-codec where that covers it.

use imap_codec::CommandCodec;
use imap_codec::decode::Decoder;

use super::*;
use crate::fetch::FetchItem;

fn parse(text: &[u8]) -> Result<(Tag, Command), Refusal> {
    let mut cursor = Cursor::new(text);
    let tag = tag(&mut cursor)?;
    let verb = verb(&mut cursor)?;
    Ok((tag, arguments(&mut cursor, verb, NameForm::Utf7)?))
}

/// Commands that both parsers must take.
const COMMON: &[&str] = &[
    "a CAPABILITY",
    "a NOOP",
    "A.1 LOGIN joe secret",
    "a LOGIN \"joe\\\\\" \"se\\\"cret\"",
    "a LOGIN joe] s]cret",
    "a SELECT inbox",
    "a EXAMINE \"a b\"",
    "a SELECT x (CONDSTORE)",
    "a SELECT x (QRESYNC (67890007 20050715194045000 41,43:211,214:541))",
    "a SELECT x (QRESYNC (67890007 90060115194045000 41:211,214:541 (1,3,5 41,43,45)))",
    "a CREATE x",
    "a DELETE x",
    "a RENAME x y",
    "a SUBSCRIBE x",
    "a UNSUBSCRIBE x",
    "a LIST \"\" *",
    "a LIST \"\" \"%\"",
    "a LIST a/ b/%/c*",
    "a LSUB \"\" \"*\"",
    "a NAMESPACE",
    "a STATUS x (MESSAGES UIDNEXT UIDVALIDITY UNSEEN RECENT HIGHESTMODSEQ DELETED)",
    "a CHECK",
    "a CLOSE",
    "a UNSELECT",
    "a EXPUNGE",
    "a UID EXPUNGE 3000:3002",
    "a ENABLE CONDSTORE QRESYNC",
    "a ID NIL",
    "a ID (\"name\" \"x\" \"version\" NIL)",
    "a FETCH 1:*,2 ALL",
    "a FETCH 1 FAST",
    "a FETCH 1 FULL",
    "a FETCH 1 BODY",
    "a FETCH 1 (FLAGS UID INTERNALDATE RFC822.SIZE ENVELOPE BODY BODYSTRUCTURE)",
    "a FETCH 1 (RFC822 RFC822.HEADER RFC822.TEXT)",
    "a FETCH 1 BODY[]",
    "a FETCH 1 BODY.PEEK[]<0.2048>",
    "a FETCH 1 BODY[1.2.3]",
    "a FETCH 1 BODY[1.2.MIME]",
    "a FETCH 1 BODY[1.HEADER]",
    "a FETCH 1 BODY[TEXT]",
    "a FETCH 1 (BODY.PEEK[HEADER.FIELDS (DATE \"From\")] BODY[4.1.HEADER.FIELDS.NOT (x)])",
    "a UID FETCH 1:* (FLAGS) (CHANGEDSINCE 12345)",
    "a UID FETCH 300:500 (FLAGS) (CHANGEDSINCE 12345 VANISHED)",
    "a FETCH 1 MODSEQ",
    "a STORE 1 FLAGS (\\Seen x)",
    "a STORE 1 +FLAGS.SILENT (\\Deleted)",
    "a UID STORE 1 -FLAGS ()",
    "a STORE 1 (UNCHANGEDSINCE 320162338) +FLAGS.SILENT (\\Deleted)",
    "a COPY 2:4 x",
    "a UID COPY 2:4 x",
    "a MOVE 2:4 x",
    "a UID MOVE * x",
    "a SEARCH ALL",
    "a SEARCH CHARSET UTF-8 TEXT x",
    "a SEARCH FLAGGED SINCE 1-Feb-1994 NOT FROM \"Smith\"",
    "a SEARCH OR (1:3 UNSEEN) (UID 5:* (NOT DRAFT))",
    "a UID SEARCH HEADER Message-ID <x> LARGER 5 SMALLER 7 KEYWORD x UNKEYWORD y",
    "a SEARCH SENTBEFORE 1-Jan-2000 SENTON 1-Jan-2000 SENTSINCE 1-Jan-2000 BEFORE 1-Jan-2000 ON 1-Jan-2000",
    "a SEARCH NEW OLD RECENT UNANSWERED UNDELETED UNDRAFT UNFLAGGED ANSWERED DELETED DRAFT SEEN BCC x CC x TO x SUBJECT x BODY x",
    "a SEARCH MODSEQ 620162338",
    "a SEARCH MODSEQ \"/flags/\\\\draft\" all 620162338",
];

/// Commands that neither may take.
const BROKEN: &[&str] = &[
    "a",
    "a ",
    " NOOP",
    "+ NOOP",
    "a+ NOOP",
    "a NOOP x",
    "a LOGIN joe",
    "a LOGIN joe \"secret",
    "a LOGIN joe \"se\\cret\"",
    "a LOGIN (joe) secret",
    "a SELECT",
    "a SELECT a b",
    "a SELECT x (",
    "a SELECT x (QRESYNC (0 1))",
    "a RENAME x",
    "a LIST \"\"",
    "a STATUS x",
    "a STATUS x MESSAGES",
    "a STATUS x (FOO)",
    "a UID NOOP",
    "a UID EXPUNGE",
    "a FETCH 1",
    "a FETCH 0 FLAGS",
    "a FETCH 4294967296 FLAGS",
    "a FETCH 1: FLAGS",
    "a FETCH 1,,2 FLAGS",
    "a FETCH 1 (FLAGS",
    "a FETCH 1 (FLAGS ALL)",
    "a FETCH 1 BODY[",
    "a FETCH 1 BODY[FOO]",
    "a FETCH 1 BODY[MIME]",
    "a FETCH 1 BODY[HEADER.FIELDS ()]",
    "a FETCH 1 BODY[]<0.0>",
    "a STORE 1 FLAGS",
    "a STORE 1 FOO (x)",
    "a COPY 1",
    "a SEARCH",
    "a SEARCH FOO",
    "a SEARCH OR ALL",
    "a SEARCH (ALL",
    "a SEARCH ON x",
    "a ENABLE",
];

#[test]
fn both_parsers_take_the_same() {
    let codec = CommandCodec::default();
    for command in COMMON {
        let line = format!("{command}\r\n");
        let (tag, _) = parse(line.as_bytes()).unwrap_or_else(|refusal| panic!("{command}: {}", refusal.text));
        let (rest, theirs) = codec.decode(line.as_bytes()).unwrap_or_else(|_| panic!("codec: {command}"));
        assert!(rest.is_empty());
        assert_eq!(tag.as_str(), theirs.tag.as_ref());
    }
    for command in BROKEN {
        let line = format!("{command}\r\n");
        assert!(parse(line.as_bytes()).is_err(), "{command}");
        assert!(codec.decode(line.as_bytes()).is_err(), "codec: {command}");
    }
}

fn accepted(command: &str) -> Command {
    parse(format!("{command}\r\n").as_bytes())
        .unwrap_or_else(|refusal| panic!("{command}: {}", refusal.text))
        .1
}

fn refused(command: &str) -> String {
    match parse(format!("{command}\r\n").as_bytes()) {
        Ok((_, command)) => panic!("{command:?}"),
        Err(refusal) => format!("{} {}", if refusal.no { "NO" } else { "BAD" }, refusal.text),
    }
}

#[test]
fn what_the_codec_lacks() {
    use crate::command::*;
    assert_eq!(
        accepted("a CREATE Gesendet/ (USE (\\Sent \\junk))"),
        Command::Create {
            mailbox: MailboxName::new("Gesendet"),
            parent_only: true,
            uses: vec![SpecialUse::Sent, SpecialUse::Junk]
        }
    );
    assert_eq!(refused("a CREATE x (USE (\\Foo))"), "NO [USEATTR] Unknown special use");
    let Command::List(list) = accepted(
        "a LIST (SUBSCRIBED RECURSIVEMATCH SPECIAL-USE) \"\" (INBOX \"&U,BTFw-/%\") RETURN (CHILDREN STATUS (MESSAGES SIZE) SPECIAL-USE SUBSCRIBED)",
    ) else {
        panic!()
    };
    assert_eq!(list.patterns, ["INBOX", "台北/%"]);
    assert!(
        list.extended && list.select.subscribed && list.select.recursive_match && list.select.special_use
    );
    assert!(list.returns.children && list.returns.subscribed && list.returns.special_use);
    assert_eq!(list.returns.status, Some(vec![StatusItem::Messages, StatusItem::Size]));
    assert_eq!(
        refused("a LIST (RECURSIVEMATCH) \"\" *"),
        "BAD RECURSIVEMATCH needs another selection option"
    );
    assert_eq!(refused("a LIST () \"\" * RETURN (FOO)"), "BAD Unknown LIST return option");
    let Command::Search(search) =
        accepted("a UID SEARCH RETURN (MIN COUNT) CHARSET utf-8 1:3 SUBJECT {6+}\r\nB\u{fc}che")
    else {
        panic!()
    };
    assert_eq!(
        search.returns,
        Some(crate::search::SearchReturn { min: true, count: true, ..Default::default() })
    );
    let Command::Search(search) = accepted("a SEARCH RETURN () $") else { panic!() };
    assert!(search.returns.unwrap().all);
    assert_eq!(refused("a SEARCH CHARSET KOI8-R TEXT x"), "NO [BADCHARSET (US-ASCII UTF-8)] Unknown charset");
    assert_eq!(refused("a SELECT &AB"), "NO [CANNOT] Invalid mailbox name");
    // Found by fuzzing: the refusal named the line end that was expected, and so ended its own line.
    assert_eq!(refused("a LOGIN joe {5} "), "BAD Literal not at the end of a line");
    assert_eq!(refused("a LOGIN joe {5}\rx"), "BAD Literal not at the end of a line");
    assert_eq!(
        accepted("a STATUS x (APPENDLIMIT SIZE)"),
        Command::Status {
            mailbox: MailboxName::new("x"),
            items: vec![StatusItem::AppendLimit, StatusItem::Size]
        }
    );
}

#[test]
fn previews_rfc8970_6() {
    let items = |command: &str| match accepted(command) {
        Command::Fetch(fetch) => (fetch.items, fetch.changed_since),
        other => panic!("{other:?}"),
    };
    assert_eq!(items("a FETCH 1 PREVIEW"), (vec![FetchItem::Preview], None));
    assert_eq!(items("a FETCH 1 preview (lazy)"), (vec![FetchItem::Preview], None));
    assert_eq!(items("a FETCH 1 PREVIEW (LAZY) (CHANGEDSINCE 7)"), (vec![FetchItem::Preview], Some(7)));
    assert_eq!(items("a FETCH 1 PREVIEW (CHANGEDSINCE 7)"), (vec![FetchItem::Preview], Some(7)));
    assert_eq!(
        items("a FETCH 1 (UID PREVIEW (LAZY LAZY) FLAGS PREVIEW)").0,
        [FetchItem::Uid, FetchItem::Preview, FetchItem::Flags]
    );
    for wrong in [
        "a FETCH 1 PREVIEW (FUZZY)",
        "a FETCH 1 PREVIEW (LAZY",
        "a FETCH 1 PREVIEW (LAZY )",
        "a FETCH 1 PREVIEW ()",
        "a FETCH 1 PREVIEW=LAZY",
        "a FETCH 1 (PREVIEW (LAZIER))",
        "a FETCH 1 (PREVIEW ())",
    ] {
        assert!(refused(wrong).starts_with("BAD "), "{wrong}");
    }
}

#[test]
fn pages_rfc9394_4() {
    use crate::page::Page;
    let returns = |command: &str| match accepted(command) {
        Command::Search(search) => search.returns.unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(returns("a SEARCH RETURN (PARTIAL 1:500) ALL").partial, Some(Page::first(1, 500)));
    let both = returns("a UID SEARCH RETURN (COUNT partial -7:-3 SAVE) ALL");
    assert_eq!((both.partial, both.count, both.save, both.all), (Some(Page::last(7, 3)), true, true, false));
    let fetched = |command: &str| match accepted(command) {
        Command::Fetch(fetch) => (fetch.partial, fetch.changed_since),
        other => panic!("{other:?}"),
    };
    assert_eq!(fetched("a UID FETCH 1:* FLAGS (PARTIAL -1:-30)"), (Some(Page::last(1, 30)), None));
    let with = (Some(Page::first(1, 4294967295)), Some(98305));
    assert_eq!(fetched("a UID FETCH 1:* (UID FLAGS) (PARTIAL 1:4294967295 CHANGEDSINCE 98305)"), with);
    assert_eq!(fetched("a UID FETCH 1:* (UID FLAGS) (CHANGEDSINCE 98305 PARTIAL 1:4294967295)"), with);
    for page in [
        "",
        " ",
        " 5",
        " 0:5",
        " 5:0",
        " 1:*",
        " *:1",
        " -1:5",
        " 1:-5",
        " -0:-1",
        " 1:4294967296",
        " \"1:5\"",
        " 1:5:6",
        " 1,5",
        " --1:-5",
        " (1:5)",
    ] {
        for wrong in
            [format!("a SEARCH RETURN (PARTIAL{page}) ALL"), format!("a UID FETCH 1:* FLAGS (PARTIAL{page})")]
        {
            assert!(refused(&wrong).starts_with("BAD "), "{wrong}");
        }
    }
    assert_eq!(refused("a SEARCH RETURN (PARTIAL 1:5 ALL) ALL"), "BAD PARTIAL does not go with ALL");
    assert_eq!(refused("a SEARCH RETURN (ALL PARTIAL 1:5) ALL"), "BAD PARTIAL does not go with ALL");
    assert_eq!(refused("a SEARCH RETURN (PARTIAL 1:5 PARTIAL 1:5) ALL"), "BAD More than one PARTIAL");
    assert_eq!(refused("a UID FETCH 1 FLAGS (PARTIAL 1:5 PARTIAL 1:5)"), "BAD More than one PARTIAL");
    assert_eq!(refused("a FETCH 1 FLAGS (PARTIAL 1:5)"), "BAD PARTIAL goes only with UID FETCH");
}

#[test]
fn fuzzy_keys_rfc6203_7() {
    use crate::search::{SearchKey, SortKey};
    let Command::Search(search) = accepted("a SEARCH RETURN (RELEVANCY ALL) FUZZY SUBJECT work FROM user")
    else {
        panic!()
    };
    assert!(search.returns.unwrap().relevancy);
    let header = |name: &str, text: &str| SearchKey::Header { name: name.to_owned(), text: text.to_owned() };
    let fuzzy = SearchKey::Fuzzy(Box::new(header("SUBJECT", "work")));
    assert_eq!(search.key, SearchKey::And(vec![fuzzy, header("FROM", "user")]));
    accepted("a SEARCH FUZZY (SUBJECT \"IMAP break\" LARGER 5) NOT FUZZY ANSWERED");
    accepted("a UID SEARCH RETURN (RELEVANCY PARTIAL 1:5) OR SEEN NOT (FUZZY TEXT x)");
    let Command::Sort(sort) =
        accepted("a SORT RETURN (RELEVANCY ALL) (REVERSE RELEVANCY DATE) UTF-8 FUZZY TEXT x")
    else {
        panic!()
    };
    assert!(sort.order[0].reverse && sort.order[0].by == SortKey::Relevancy);
    for wrong in [
        "a SEARCH RETURN (RELEVANCY) TEXT x",
        "a SORT (RELEVANCY) UTF-8 TEXT x",
        "a SORT RETURN (RELEVANCY) (DATE) UTF-8 NOT TEXT x",
    ] {
        assert_eq!(refused(wrong), "BAD RELEVANCY needs a FUZZY key", "{wrong}");
    }
    for wrong in ["a SEARCH FUZZY", "a SEARCH FUZZY ", "a SEARCH FUZZY FUZZ", "a SEARCH FUZZY (TEXT x"] {
        assert!(refused(wrong).starts_with("BAD "), "{wrong}");
    }
}

#[test]
fn many_mailboxes_rfc7377_4() {
    use crate::search::Source;
    let sources = |command: &str| match accepted(command) {
        Command::MultiSearch(search) => (search.sources, search.returns),
        other => panic!("{other:?}"),
    };
    let names = |names: &[&str]| names.iter().map(|name| MailboxName::new(*name)).collect::<Vec<_>>();
    let (none, returns) = sources("a ESEARCH SUBJECT x");
    assert!(none == [Source::Selected] && returns.all);
    let (all, returns) = sources(
        "a ESEARCH IN (selected Inboxes PERSONAL subscribed subtree a subtree-one (\"b c\" inbox) mailboxes {1+}\r\nd) RETURN (COUNT) CHARSET UTF-8 UNSEEN UID 1",
    );
    assert_eq!(
        all,
        [
            Source::Selected,
            Source::Inboxes,
            Source::Personal,
            Source::Subscribed,
            Source::Subtree(names(&["a"])),
            Source::SubtreeOne(names(&["b c", "INBOX"])),
            Source::Mailboxes(names(&["d"])),
        ]
    );
    assert!(returns.count && !returns.all);
    assert_eq!(refused("a ESEARCH IN (selected-delayed) ALL"), "BAD Unknown mailbox specifier");
    assert_eq!(refused("a ESEARCH IN (personal (depth 1)) ALL"), "BAD Unknown scope option");
    assert_eq!(refused("a ESEARCH IN (mailboxes &AB) ALL"), "NO [CANNOT] Invalid mailbox name");
    let many = |count| format!("a ESEARCH IN (mailboxes ({})) ALL", vec!["x"; count].join(" "));
    accepted(&many(1000));
    assert_eq!(refused(&many(1001)), "BAD Too many mailboxes");
    assert_eq!(
        refused(&format!("a ESEARCH IN ({}) ALL", vec!["personal"; 1001].join(" "))),
        "BAD Too many mailboxes"
    );
    for wrong in [
        "a ESEARCH",
        "a ESEARCH IN",
        "a ESEARCH IN (personal)",
        "a ESEARCH IN(personal) ALL",
        "a ESEARCH IN () ALL",
        "a ESEARCH IN ( personal) ALL",
        "a ESEARCH IN (personal ) ALL",
        "a ESEARCH IN (personal ALL",
        "a ESEARCH IN (subtree) ALL",
        "a ESEARCH IN (subtree ()) ALL",
        "a ESEARCH IN (subtree (a) ) ALL",
        "a ESEARCH RETURN (ALL) IN (personal) ALL",
        "a UID ESEARCH IN (personal) ALL",
    ] {
        assert!(refused(wrong).starts_with("BAD "), "{wrong}");
    }
}

#[test]
fn nesting_is_bounded() {
    let deep = format!("a SEARCH {}ALL{}", "(".repeat(5000), ")".repeat(5000));
    assert_eq!(refused(&deep), "BAD Search is too complex");
    assert_eq!(refused(&format!("a SEARCH {}ALL", "NOT ".repeat(5000))), "BAD Search is too complex");
    assert_eq!(refused(&format!("a SEARCH {}ALL", "FUZZY ".repeat(5000))), "BAD Search is too complex");
    assert_eq!(refused(&format!("a SEARCH {}ALL", "ALL ".repeat(5000))), "BAD Search is too complex");
    assert_eq!(refused(&format!("a FETCH 1 BODY[{}1]", "1.".repeat(5000))), "BAD Section is too deep");
}

#[test]
fn spaces_before_the_end_are_let_pass() {
    for command in ["a NOOP ", "a FETCH 1 FLAGS ", "a SEARCH ALL ", "a LIST \"\" * ", "a SELECT x "] {
        accepted(command);
    }
}
