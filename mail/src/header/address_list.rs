//! Address lists of header fields, in IMAP's form (RFC 5322 §3.4, RFC 9051 §7.5.2).
//!
//! Nothing is refused. What is missing is filled with `MISSING_MAILBOX`, `MISSING_DOMAIN`, `SYNTAX_ERROR` and
//! `INVALID_ROUTE`, as Dovecot does: an empty string or NIL there would mean a group to the client.

use super::lexer::{Broken, Lexer, Next, Step};
use super::summary::HeaderAddress;
use super::text::{RawText, collapse};

/// Parses the unfolded value of an address field and appends to `list`, which grows to at most `max` elements, and by one
/// more where that closes a group.
pub fn parse_address_list(value: &[u8], max: usize, list: &mut Vec<HeaderAddress>) {
    let mut parser = Parser { lexer: Lexer::new(value), list, max };
    if parser.lexer.skip_space() == Ok(Next::More) {
        parser.address_list();
    }
}

/// An address being read.
#[derive(Default)]
struct Draft {
    name: Option<Vec<u8>>,
    route: Option<Vec<u8>>,
    mailbox: Option<Vec<u8>>,
    host: Option<Vec<u8>>,
    invalid: bool,
}

struct Parser<'a, 'l> {
    lexer: Lexer<'a>,
    list: &'l mut Vec<HeaderAddress>,
    max: usize,
}

impl Parser<'_, '_> {
    fn address_list(&mut self) {
        while self.list.len() < self.max {
            let start = self.lexer.position();
            if self.group().is_err() {
                self.lexer.rewind(start);
                self.mailbox();
            }
            if self.list.len() >= self.max || !self.lexer.eat(b',') {
                return;
            }
            match self.lexer.skip_space() {
                Ok(Next::More) => {}
                Ok(Next::End) => return,
                Err(Broken) => return self.push_filled(Draft::default()),
            }
        }
    }

    /// `name: mailbox, mailbox;`. Broken only when this is no group at all.
    fn group(&mut self) -> Result<(), Broken> {
        let mut name = Vec::new();
        if self.lexer.phrase(&mut name)? == Next::End || !self.lexer.eat(b':') {
            return Err(Broken);
        }
        self.push(Draft { mailbox: Some(name), ..Draft::default() });
        if self.lexer.skip_space() == Ok(Next::More) {
            if self.lexer.peek() != Some(b';') && self.list.len() < self.max {
                self.group_members();
            }
            if self.lexer.eat(b';') {
                // What follows is for the list to judge.
                let _ = self.lexer.skip_space();
            }
        }
        self.push(Draft::default());
        Ok(())
    }

    fn group_members(&mut self) {
        loop {
            self.mailbox();
            if self.list.len() >= self.max
                || !self.lexer.eat(b',')
                || self.lexer.skip_space() != Ok(Next::More)
            {
                return;
            }
        }
    }

    /// `name <local@domain>` or `local@domain (name)`.
    fn mailbox(&mut self) {
        let start = self.lexer.position();
        let mut draft = Draft::default();
        if self.name_address(&mut draft).is_err() {
            self.lexer.rewind(start);
            draft = Draft::default();
            self.address_spec(&mut draft);
            if draft.invalid && draft.name.is_none() && draft.host.is_none() {
                draft.name = draft.mailbox.take();
            }
        }
        self.push_filled(draft);
    }

    fn name_address(&mut self, draft: &mut Draft) -> Result<(), Broken> {
        let mut name = Vec::new();
        if self.lexer.phrase(&mut name)? == Next::End || self.lexer.peek() != Some(b'<') {
            return Err(Broken);
        }
        draft.name = Some(name).filter(|name| !name.is_empty());
        if self.angle_address(draft).is_err() {
            draft.host = Some(b"SYNTAX_ERROR".to_vec());
        }
        Ok(())
    }

    fn angle_address(&mut self, draft: &mut Draft) -> Step {
        self.lexer.advance();
        self.more_space()?;
        if self.lexer.peek() == Some(b'@') {
            if self.route(draft) != Ok(Next::More) || !self.lexer.eat(b':') {
                draft.route = Some(b"INVALID_ROUTE".to_vec());
                self.lexer.peek().ok_or(Broken)?;
            }
            self.more_space()?;
        }
        if self.lexer.peek() != Some(b'>') {
            let mut local = Vec::new();
            let next = self.local_part(&mut local)?;
            draft.mailbox = Some(local);
            if next == Next::End {
                return Err(Broken);
            }
            if self.lexer.peek() == Some(b'@') {
                let mut host = Vec::new();
                let next = self.lexer.at_domain(&mut host)?;
                draft.host = Some(host);
                if next == Next::End {
                    return Err(Broken);
                }
            }
        }
        if !self.lexer.eat(b'>') {
            return Err(Broken);
        }
        self.lexer.skip_space()
    }

    /// `@one,@two` before the colon (RFC 822).
    fn route(&mut self, draft: &mut Draft) -> Step {
        let mut route = Vec::new();
        while self.lexer.peek() == Some(b'@') {
            if !route.is_empty() {
                route.push(b',');
            }
            route.push(b'@');
            if self.lexer.at_domain(&mut route)? == Next::End {
                return Ok(Next::End);
            }
            while self.lexer.skip_space()? == Next::More && self.lexer.eat(b',') {}
        }
        if self.lexer.peek().is_none() {
            return Ok(Next::End);
        }
        draft.route = Some(route);
        Ok(Next::More)
    }

    fn address_spec(&mut self, draft: &mut Draft) {
        self.lexer.comment.clear();
        let quoted = self.lexer.peek() == Some(b'"');
        let mut local = Vec::new();
        let parsed = self.local_part(&mut local);
        draft.invalid = parsed != Ok(Next::More);
        if parsed.is_ok() {
            draft.mailbox = Some(local.clone());
        }
        let mut has_domain = false;
        if parsed != Ok(Next::End) && self.lexer.peek() == Some(b'@') {
            has_domain = true;
            let mut host = Vec::new();
            if self.lexer.at_domain(&mut host).is_ok() {
                draft.host = Some(host);
            }
        }
        if !self.lexer.comment.is_empty() {
            draft.name = Some(std::mem::take(&mut self.lexer.comment));
        } else if !has_domain {
            // A word alone is taken for a mailbox; words are taken for a name.
            let mut words = local;
            words.push(b' ');
            let length = words.len();
            let _ = self.lexer.phrase(&mut words);
            if words.len() > length {
                draft.mailbox = None;
                draft.name = Some(words);
            } else if !quoted {
                draft.host = Some(Vec::new());
            }
            draft.invalid = true;
        }
    }

    fn local_part(&mut self, out: &mut Vec<u8>) -> Step {
        if self.lexer.peek() == Some(b'"') {
            return self.lexer.quoted_string(out);
        }
        // Dots may stand anywhere: carriers have given out addresses such as `a..b@` and `a.@`.
        let mut next = Err(Broken);
        loop {
            while self.lexer.eat(b'.') {
                out.push(b'.');
                if self.lexer.peek().is_none() {
                    return Ok(Next::End);
                }
                next = Ok(Next::More);
            }
            if self.lexer.peek() == Some(b'@') {
                return next;
            }
            next = self.lexer.atom(out);
            if next != Ok(Next::More) || self.lexer.peek() != Some(b'.') {
                return next;
            }
        }
    }

    fn more_space(&mut self) -> Result<(), Broken> {
        if self.lexer.skip_space()? == Next::End { Err(Broken) } else { Ok(()) }
    }

    fn push_filled(&mut self, mut draft: Draft) {
        draft.mailbox.get_or_insert_with(|| b"MISSING_MAILBOX".to_vec());
        if draft.host.as_ref().is_none_or(Vec::is_empty) {
            draft.host = Some(b"MISSING_DOMAIN".to_vec());
        }
        self.push(draft);
    }

    fn push(&mut self, draft: Draft) {
        self.list.push(HeaderAddress {
            name: draft.name.map(|name| RawText::from(collapse(&name))),
            route: draft.route.map(RawText::from),
            mailbox: draft.mailbox.map(RawText::from),
            host: draft.host.map(RawText::from),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name|route|mailbox|host`, `-` for what is missing.
    fn shown(value: &str) -> Vec<String> {
        let mut list = Vec::new();
        parse_address_list(value.as_bytes(), 1000, &mut list);
        let field = |field: &Option<RawText>| {
            field
                .as_ref()
                .map_or("-".to_owned(), |text| String::from_utf8_lossy(text.as_bytes()).into_owned())
        };
        list.iter()
            .map(|a| {
                format!("{}|{}|{}|{}", field(&a.name), field(&a.route), field(&a.mailbox), field(&a.host))
            })
            .collect()
    }

    fn check(value: &str, expected: &[&str]) {
        assert_eq!(shown(value), expected, "{value}");
    }

    #[test]
    fn mailboxes_rfc5322_3_4() {
        check("", &[]);
        check("a@b", &["-|-|a|b"]);
        check("<a@b>", &["-|-|a|b"]);
        check(
            "Joe Q. Public <joe@x.test>, \"B, A\" <b@[192.0.2.1]>",
            &["Joe Q. Public|-|joe|x.test", "B, A|-|b|[192.0.2.1]"],
        );
        check("a.b @ c . d (Some One)", &["Some One|-|a.b|c.d"]);
        check("\"a b\"@c", &["-|-|a b|c"]);
        check("=?utf-8?q?J=C3=B6rg?= <a@b>", &["=?utf-8?q?J=C3=B6rg?=|-|a|b"]);
        check("x <@r,@s:a@b>", &["x|@r,@s|a|b"]);
        check("a@b (\\(nested (comment)\\))", &["(nested (comment))|-|a|b"]);
    }

    #[test]
    fn groups_rfc5322_3_4() {
        check("Group: a@b, C <c@d>;", &["-|-|Group|-", "-|-|a|b", "C|-|c|d", "-|-|-|-"]);
        check("undisclosed-recipients:;", &["-|-|undisclosed-recipients|-", "-|-|-|-"]);
        check("a@b, Empty: ;, c@d", &["-|-|a|b", "-|-|Empty|-", "-|-|-|-", "-|-|c|d"]);
        check("Open: a@b", &["-|-|Open|-", "-|-|a|b", "-|-|-|-"]);
    }

    #[test]
    fn broken_addresses_are_filled() {
        check("joe", &["-|-|joe|MISSING_DOMAIN"]);
        check("joe public", &["joe public|-|MISSING_MAILBOX|MISSING_DOMAIN"]);
        check("<>", &["-|-|MISSING_MAILBOX|MISSING_DOMAIN"]);
        check("Joe <joe@x", &["Joe|-|joe|SYNTAX_ERROR"]);
        check("joe@x., a@b", &["-|-|joe|MISSING_DOMAIN", "-|-|a|b"]);
        check("joe@x.", &["-|-|joe|MISSING_DOMAIN"]);
        check("joe@x (y", &["-|-|joe|MISSING_DOMAIN"]);
        check("<joe>", &["-|-|joe|MISSING_DOMAIN"]);
        check("a@b c@d", &["-|-|a|b"]);
        check("(a@b", &[]);
        check("a@b, (c", &["-|-|a|b", "-|-|MISSING_MAILBOX|MISSING_DOMAIN"]);
        check("<@r a@b>", &["-|INVALID_ROUTE|a|b"]);
        check("<@r:a@b", &["-|@r|a|SYNTAX_ERROR"]);
        check("x <@:a@b>", &["x|INVALID_ROUTE|MISSING_MAILBOX|SYNTAX_ERROR"]);
        check(
            ".a@b, a.@b, a..b@c, a . b@c",
            &["-|-|.a|b", "-|-|a.|b", "-|-|a..b|c", "a. b|-|MISSING_MAILBOX|MISSING_DOMAIN"],
        );
    }

    #[test]
    fn lists_are_bounded() {
        let mut list = Vec::new();
        parse_address_list("a@b,".repeat(5000).as_bytes(), 100, &mut list);
        assert_eq!(list.len(), 100);
    }
}
