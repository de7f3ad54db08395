//! The page on which somebody logs in for a program, and what its forms bring back. No script, nothing from elsewhere, never
//! in a frame.

use std::borrow::Cow;
use std::fmt::Write as _;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::token::OAuthError;

/// Nothing runs, nothing is loaded, and the form goes to where it came from. `form-action` also covers what an answer
/// redirects to, in some browsers, so it cannot be narrower than where codes go.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";
/// More pairs than any of the forms has.
const PAIRS_MAX: usize = 32;

/// Pairs of names and values, each name once (RFC 6749 §3.1, §3.2).
#[derive(Debug)]
pub(super) struct Form<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Form<'a> {
    pub(super) fn parse(octets: &'a [u8]) -> Result<Self, &'static str> {
        let mut pairs: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(octets) {
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err("a parameter is there twice");
            }
            if pairs.len() == PAIRS_MAX {
                return Err("too many parameters");
            }
            pairs.push((name, value));
        }
        // RFC 6749 §3.1: a parameter without a value is as if it were not there.
        pairs.retain(|(_, value)| !value.is_empty());
        Ok(Self { pairs })
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    pub(super) fn one(&self, name: &str) -> Result<&str, OAuthError> {
        self.get(name).ok_or_else(|| OAuthError::new("invalid_request", &format!("{name} is missing")))
    }
}

/// What the page says.
#[derive(Debug)]
pub(super) struct Page<'a> {
    /// The program.
    pub(super) client: &'a str,
    /// Where the code goes.
    pub(super) redirect_uri: &'a str,
    /// What it will be able to do, in words.
    pub(super) rights: &'a [&'a str],
    /// What goes along with the form.
    pub(super) hidden: &'a [(&'a str, &'a str)],
    /// The name that was entered before, or that the program gave.
    pub(super) login: &'a str,
    /// Why it did not work.
    pub(super) trouble: Option<&'a str>,
}

impl Page<'_> {
    pub(super) fn response(&self, status: StatusCode) -> Response {
        let mut html = String::from(HEAD);
        let (client, to) = (escape(self.client), escape(self.redirect_uri));
        let _ = write!(
            html,
            "<h1>Log in for {client}</h1>\n<p>The program says that it is called so. It will be able to:</p>\n<ul>\n"
        );
        for right in self.rights {
            let _ = writeln!(html, "<li>{}</li>", escape(right));
        }
        let _ = write!(
            html,
            "</ul>\n<p>It does not see your password. Your browser goes on to <code>{to}</code>.</p>\n"
        );
        if let Some(trouble) = self.trouble {
            let _ = writeln!(html, "<p class=\"trouble\" role=\"alert\">{}</p>", escape(trouble));
        }
        html.push_str("<form method=\"post\" action=\"/oauth/authorize\">\n");
        for (name, value) in self.hidden {
            let _ = writeln!(
                html,
                "<input type=\"hidden\" name=\"{}\" value=\"{}\">",
                escape(name),
                escape(value)
            );
        }
        let _ = write!(
            html,
            "<label>Address <input name=\"login\" value=\"{}\" autocomplete=\"username\" autocapitalize=\"none\" required></label>\n\
             <label>Password <input name=\"password\" type=\"password\" autocomplete=\"current-password\" required></label>\n\
             <p><button name=\"answer\" value=\"allow\">Allow</button> \
             <button name=\"answer\" value=\"deny\" formnovalidate>Cancel</button></p>\n</form>\n",
            escape(self.login)
        );
        html.push_str("</main>\n</body>\n</html>\n");
        guarded(status, html)
    }
}

/// A request that cannot be answered by going back to who made it.
pub(super) fn trouble(why: &str) -> Response {
    let html = format!(
        "{HEAD}<h1>This cannot go on</h1>\n<p>{}</p>\n<p>The program that sent you here has made a mistake, or somebody has \
         changed what it asked for. Nothing was allowed.</p>\n</main>\n</body>\n</html>\n",
        escape(why)
    );
    guarded(StatusCode::BAD_REQUEST, html)
}

fn guarded(status: StatusCode, html: String) -> Response {
    let mut response = (status, Html(html)).into_response();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With less a browser would not say that the form comes from here.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Text between tags, and in attributes with double quotes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

const HEAD: &str = "<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>Log in</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0; background: Canvas; color: CanvasText; color-scheme: light dark }
main { max-width: 26rem; margin: 4rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem }
label { display: block; margin: 1rem 0 }
input { display: block; width: 100%; box-sizing: border-box; font: inherit; padding: .5rem }
button { font: inherit; padding: .5rem 1.5rem }
code { word-break: break-all }
.trouble { border-left: .3rem solid #c33; padding-left: .7rem }
</style>
</head>
<body>
<main>
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_have_each_name_once() {
        let form = Form::parse(b"a=1&b=%C3%A4+%26&c=").unwrap();
        assert_eq!((form.get("a"), form.get("b"), form.get("c")), (Some("1"), Some("ä &"), None));
        assert!(form.one("d").is_err());
        assert!(Form::parse(b"a=1&a=1").is_err());
        let many: Vec<String> = (0..33).map(|number| format!("n{number}=1")).collect();
        assert!(Form::parse(many.join("&").as_bytes()).is_err());
    }

    #[test]
    fn nothing_that_is_said_becomes_markup() {
        let evil = "\"><script>alert('x')</script>&";
        let page = Page {
            client: evil,
            redirect_uri: evil,
            rights: &[evil],
            hidden: &[(evil, evil)],
            login: evil,
            trouble: Some(evil),
        };
        let response = page.response(StatusCode::OK);
        assert_eq!(response.headers()[header::X_FRAME_OPTIONS], "DENY");
        assert!(!escape(evil).contains(['<', '>', '"', '\'']));
    }
}
