//! SEARCH (RFC 3501 §7.2.5), ESEARCH (RFC 9051 §7.3.4), SORT and THREAD (RFC 5256 §4).

use bytes::{BufMut, BytesMut};

use super::number;
use crate::command::Tag;
use crate::page::Page;
use crate::sequence::SetWriter;

/// Writes `* SEARCH 2 3 6 (MODSEQ 917162500)`.
pub fn search(out: &mut BytesMut, found: &[u32], mod_seq: Option<u64>) {
    out.reserve(found.len() * 7 + 32);
    out.put_slice(b"* SEARCH");
    for &found in found {
        out.put_u8(b' ');
        number(out, u64::from(found));
    }
    if let Some(mod_seq) = mod_seq {
        out.put_slice(b" (MODSEQ ");
        number(out, mod_seq);
        out.put_u8(b')');
    }
    out.put_slice(b"\r\n");
}

/// Writes `* SORT 2 84 882`.
pub fn sort(out: &mut BytesMut, found: &[u32]) {
    out.reserve(found.len() * 7 + 16);
    out.put_slice(b"* SORT");
    for &found in found {
        out.put_u8(b' ');
        number(out, u64::from(found));
    }
    out.put_slice(b"\r\n");
}

/// A THREAD response in pieces, as they are written: threads are as deep as their mail, so they are no tree of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadToken {
    /// A thread, or one of several answers, begins.
    Open,
    /// A message; it answers the one before it in the same parentheses.
    Number(u32),
    /// It ends.
    Close,
}

/// Writes `* THREAD (166)(167)(168)(169)(172)((170)(179))` (RFC 5256 §4).
pub fn thread(out: &mut BytesMut, tokens: &[ThreadToken]) {
    out.put_slice(b"* THREAD");
    let mut depth = 0_u32;
    let mut before = None;
    for token in tokens {
        match token {
            ThreadToken::Open => {
                if before.is_none() || matches!(before, Some(ThreadToken::Number(_))) {
                    out.put_u8(b' ');
                }
                out.put_u8(b'(');
                depth += 1;
            }
            ThreadToken::Number(found) => {
                if !matches!(before, Some(ThreadToken::Open)) {
                    out.put_u8(b' ');
                }
                number(out, u64::from(*found));
            }
            ThreadToken::Close => {
                out.put_u8(b')');
                depth -= 1;
            }
        }
        before = Some(*token);
    }
    debug_assert_eq!(depth, 0, "what was opened was closed");
    out.put_slice(b"\r\n");
}

/// What an ESEARCH response holds.
#[derive(Clone, Debug, Default)]
pub struct ExtendedSearch<'a> {
    /// Of which mailbox, where it need not be the selected one: its name as it goes on the wire, and its UIDVALIDITY
    /// (RFC 7377 §2.1).
    pub mailbox: Option<(&'a str, u32)>,
    /// Numbers are UIDs.
    pub uid: bool,
    /// MIN
    pub min: Option<u32>,
    /// MAX
    pub max: Option<u32>,
    /// ALL, ascending, or in the order of a SORT (RFC 5267 §3); empty: not said (RFC 4731 §3.1).
    pub all: &'a [u32],
    /// COUNT
    pub count: Option<u32>,
    /// MODSEQ
    pub mod_seq: Option<u64>,
    /// PARTIAL (RFC 9394): the page asked for and what is on it, in the order of ALL.
    pub partial: Option<(Page, &'a [u32])>,
    /// RELEVANCY (RFC 6203 §4): how well each fits, from 1 to 100, in the order of ALL or PARTIAL.
    pub relevancy: Option<&'a [u8]>,
}

/// Writes `* ESEARCH (TAG "a") UID MIN 2 …`.
pub fn extended_search(out: &mut BytesMut, tag: &Tag, found: &ExtendedSearch<'_>) {
    out.put_slice(b"* ESEARCH (TAG ");
    super::string::string(out, tag.as_str().as_bytes());
    if let Some((mailbox, uid_validity)) = found.mailbox {
        out.put_slice(b" MAILBOX ");
        super::string::mailbox(out, mailbox);
        out.put_slice(b" UIDVALIDITY ");
        number(out, u64::from(uid_validity));
    }
    out.put_u8(b')');
    if found.uid {
        out.put_slice(b" UID");
    }
    let mut item = |name: &[u8], value: Option<u64>| {
        if let Some(value) = value {
            out.put_u8(b' ');
            out.put_slice(name);
            out.put_u8(b' ');
            number(out, value);
        }
    };
    item(b"MIN", found.min.map(u64::from));
    item(b"MAX", found.max.map(u64::from));
    item(b"COUNT", found.count.map(u64::from));
    item(b"MODSEQ", found.mod_seq);
    if let Some((page, found)) = found.partial {
        out.put_slice(b" PARTIAL (");
        page.write(out);
        out.put_u8(b' ');
        // RFC 9394 §4: NIL where the page is beyond the results.
        if found.is_empty() {
            out.put_slice(b"NIL");
        } else {
            set(out, found);
        }
        out.put_u8(b')');
    }
    if !found.all.is_empty() {
        out.put_slice(b" ALL ");
        set(out, found.all);
    }
    if let Some(scores) = found.relevancy {
        out.put_slice(b" RELEVANCY (");
        for (at, score) in scores.iter().enumerate() {
            if at > 0 {
                out.put_u8(b' ');
            }
            number(out, u64::from(*score));
        }
        out.put_u8(b')');
    }
    out.put_slice(b"\r\n");
}

fn set(out: &mut BytesMut, numbers: &[u32]) {
    let mut set = SetWriter::default();
    for &number in numbers {
        set.push(number);
    }
    out.put_slice(set.finish().as_bytes());
}
