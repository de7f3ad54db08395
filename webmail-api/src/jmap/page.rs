//! The page at `/`: what runs here, for whoever opens it in a browser.

use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};

use super::service::Jmap;
use super::session::base_url;

pub(super) async fn show(State(jmap): State<Jmap>, parts: Parts) -> Response {
    let base = escape(&base_url(&jmap.inner.config, &parts));
    let password = if jmap.inner.config.account_passwords {
        "your password, or an application password"
    } else {
        "an application password"
    };
    let page = format!(
        r##"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Postrider</title>
<style>body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 50rem; margin: 3rem auto; padding: 0 1rem }}
pre {{ background: #f4f4f4; padding: 1rem; overflow: auto }}</style></head><body>
<h1>Postrider</h1>
<p>A mail server runs here. Programs reach the mail in it by JMAP
(<a href="https://www.rfc-editor.org/rfc/rfc8620">RFC 8620</a>,
<a href="https://www.rfc-editor.org/rfc/rfc8621">RFC 8621</a>), beginning at
<a href="/.well-known/jmap">/.well-known/jmap</a>. The password is {password}.</p>
<p>Who am I, and what is there?</p>
<pre>curl --user NAME@DOMAIN {base}/.well-known/jmap</pre>
<p>The ten newest messages. ACCOUNT is the id that stands under <code>primaryAccounts</code> in the answer above:</p>
<pre>curl --user NAME@DOMAIN --header 'Content-Type: application/json' {base}/jmap/api --data '{{
  "using": ["urn:ietf:params:jmap:core", "urn:ietf:params:jmap:mail"],
  "methodCalls": [
    ["Email/query", {{"accountId": "ACCOUNT", "limit": 10,
                     "sort": [{{"property": "receivedAt", "isAscending": false}}]}}, "0"],
    ["Email/get", {{"accountId": "ACCOUNT", "properties": ["from", "subject", "receivedAt", "preview"],
                   "#ids": {{"resultOf": "0", "name": "Email/query", "path": "/ids"}}}}, "1"]]}}'</pre>
</body></html>
"##
    );
    let mut response = Html(page).into_response();
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'");
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
