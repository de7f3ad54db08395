//! `/oauth/authorize` (RFC 6749 §3.1): somebody logs in and allows a program something, or not.
//!
//! The password is asked for each time and there is no cookie, so no other page can do it in their stead.

use axum::body::Bytes;
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use directory::{Agreed, AuthError, GrantError, NewGrant, PlainLogin, Service, ServiceSet};

use super::Issuer;
use super::client::Client;
use super::page::{Form, Page, trouble};
use super::token::{client_key, no_store};
use crate::request::Remote;

/// What a program can ask for, by name, and what that means to its user.
pub(super) const SCOPES: [(&str, Service); 5] = [
    ("imap", Service::Imap),
    ("pop3", Service::Pop3),
    ("smtp", Service::Smtp),
    ("jmap", Service::Jmap),
    ("sieve", Service::Sieve),
];
/// Parameters that go from the request into the form and back (RFC 6749 §4.1.1, RFC 7636 §4.3).
const CARRIED: [&str; 8] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
    "resource",
];
/// Octets of a `state` that is given back.
const STATE_BYTES_MAX: usize = 2_048;

/// `GET`: the page.
pub(super) async fn ask(
    State(issuer): State<Issuer>,
    uri: Uri,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let origin = issuer.origin(&headers, &uri);
    let query = query.unwrap_or_default();
    if query.len() > issuer.inner.config.body_bytes_max {
        return trouble("The request is too long.");
    }
    match Form::parse(query.as_bytes()) {
        Err(why) => trouble(why),
        Ok(form) => match Asked::of(&issuer, &form) {
            Ok(asked) => {
                asked.page(&form, form.get("login_hint").unwrap_or_default(), None).response(StatusCode::OK)
            }
            Err(refused) => refused.response(&origin),
        },
    }
}

/// `POST`: the form comes back.
pub(super) async fn answer(
    State(issuer): State<Issuer>,
    Extension(remote): Extension<Remote>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let origin = issuer.origin(&headers, &uri);
    if body.len() > issuer.inner.config.body_bytes_max {
        return trouble("The request is too long.");
    }
    let form = match Form::parse(&body) {
        Ok(form) => form,
        Err(why) => return trouble(why),
    };
    let asked = match Asked::of(&issuer, &form) {
        Ok(asked) => asked,
        Err(refused) => return refused.response(&origin),
    };
    if form.get("answer") != Some("allow") {
        return asked.refuse("access_denied", "the user said no").response(&origin);
    }
    let login = form.get("login").unwrap_or_default();
    let plain = PlainLogin {
        login: login.to_owned(),
        password: form.get("password").unwrap_or_default().to_owned(),
        service: Service::Jmap,
    };
    let again = |status, why| asked.page(&form, login, Some(why)).response(status);
    let principal = match issuer.inner.directory.authenticate(&plain, remote.0).await {
        // A program must not make itself others.
        Ok(principal) if principal.by == directory::login::Proof::Password => principal,
        Ok(_) | Err(AuthError::Rejected) => return again(StatusCode::OK, "Address or password is wrong."),
        Err(AuthError::Throttled { .. }) => {
            return again(StatusCode::TOO_MANY_REQUESTS, "Too many failed logins. Try again later.");
        }
        Err(AuthError::Elsewhere(region)) => {
            let why = format!("The account is in another place ({region}); log in there.");
            return asked.page(&form, login, Some(&why)).response(StatusCode::OK);
        }
        Err(error @ (AuthError::Busy | AuthError::Temporary(_))) => {
            tracing::warn!(%error, "login not decided");
            return again(
                StatusCode::SERVICE_UNAVAILABLE,
                "This does not work at the moment. Try again later.",
            );
        }
    };
    let client = client_key(asked.client_id);
    let grant = NewGrant { client: &client, name: &asked.client.name, services: asked.services };
    let agreed = Agreed { grant: &grant, redirect_uri: asked.redirect_uri, challenge: asked.challenge };
    match issuer.inner.directory.authorize(&principal, agreed) {
        Ok(code) => asked.go_back(&origin, &[("code", code.reveal())]),
        Err(error @ GrantError::Temporary(_)) => {
            tracing::warn!(%error, "no code can be made");
            asked.refuse("temporarily_unavailable", "try again later").response(&origin)
        }
        Err(_) => asked.refuse("invalid_request", "code_challenge is none").response(&origin),
    }
}

/// What a program asks for: understood, and allowed to be asked.
struct Asked<'a> {
    client_id: &'a str,
    client: Client,
    redirect_uri: &'a str,
    state: Option<&'a str>,
    services: ServiceSet,
    challenge: &'a str,
}

/// A request that is refused.
enum Refused<'a> {
    /// Nobody knows where an answer would go (RFC 6749 §4.1.2.1): the user is told.
    Here(&'static str),
    /// The program is told.
    There { redirect_uri: &'a str, state: Option<&'a str>, error: &'static str, why: &'static str },
}

impl<'a> Asked<'a> {
    fn of(issuer: &Issuer, form: &'a Form<'a>) -> Result<Self, Refused<'a>> {
        let here = |why| Refused::Here(why);
        let client_id = form.get("client_id").ok_or(here("The program does not say who it is."))?;
        let client = issuer.client(client_id).ok_or(here("The program is not known here."))?;
        let redirect_uri =
            form.get("redirect_uri").ok_or(here("The program does not say where the answer goes."))?;
        if !client.may_redirect_to(redirect_uri) {
            return Err(here("The answer would go where this program's answers do not go."));
        }
        let state = form.get("state");
        if state.is_some_and(|state| state.len() > STATE_BYTES_MAX) {
            return Err(here("The request is too long."));
        }
        let there = |error, why| Refused::There { redirect_uri, state, error, why };
        if form.get("response_type") != Some("code") {
            return Err(there("unsupported_response_type", "response_type has to be code"));
        }
        // RFC 9700 §2.1.1: without it a code that is caught is as good as a password.
        if form.get("code_challenge_method") != Some("S256") {
            return Err(there("invalid_request", "code_challenge_method has to be S256"));
        }
        let challenge =
            form.get("code_challenge").ok_or(there("invalid_request", "code_challenge is missing"))?;
        let services = services_of(form.get("scope").unwrap_or_default());
        let services = services.ok_or(there("invalid_scope", "nothing of this scope is known"))?;
        Ok(Self { client_id, client, redirect_uri, state, services, challenge })
    }

    fn page<'b>(&'b self, form: &'b Form<'_>, login: &'b str, trouble: Option<&'b str>) -> Shown<'b> {
        Shown { asked: self, form, login, trouble }
    }

    fn refuse(&self, error: &'static str, why: &'static str) -> Refused<'a> {
        Refused::There { redirect_uri: self.redirect_uri, state: self.state, error, why }
    }

    fn go_back(&self, origin: &str, parameters: &[(&str, &str)]) -> Response {
        redirect(origin, self.redirect_uri, self.state, parameters)
    }
}

/// The page for a request.
struct Shown<'a> {
    asked: &'a Asked<'a>,
    form: &'a Form<'a>,
    login: &'a str,
    trouble: Option<&'a str>,
}

impl Shown<'_> {
    fn response(&self, status: StatusCode) -> Response {
        let hidden: Vec<(&str, &str)> =
            CARRIED.iter().filter_map(|name| Some((*name, self.form.get(name)?))).collect();
        let rights: Vec<&str> = self.asked.services.iter().map(right).collect();
        let page = Page {
            client: &self.asked.client.name,
            redirect_uri: self.asked.redirect_uri,
            rights: &rights,
            hidden: &hidden,
            login: self.login,
            trouble: self.trouble,
        };
        page.response(status)
    }
}

impl Refused<'_> {
    fn response(self, origin: &str) -> Response {
        match self {
            Self::Here(why) => trouble(why),
            Self::There { redirect_uri, state, error, why } => {
                redirect(origin, redirect_uri, state, &[("error", error), ("error_description", why)])
            }
        }
    }
}

/// Back to the program, which also hears who answers (RFC 9207).
fn redirect(origin: &str, uri: &str, state: Option<&str>, parameters: &[(&str, &str)]) -> Response {
    let separator = if uri.contains('?') { '&' } else { '?' };
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters);
    query.extend_pairs(state.map(|state| ("state", state)));
    query.append_pair("iss", origin);
    let location = format!("{uri}{separator}{}", query.finish());
    // 303: the form's password is not sent along (RFC 9700 §2.6).
    let mut response = StatusCode::SEE_OTHER.into_response();
    match HeaderValue::try_from(location) {
        Ok(location) => {
            response.headers_mut().insert(header::LOCATION, location);
            response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            no_store(response)
        }
        Err(_) => trouble("The answer cannot be sent."),
    }
}

/// What a scope asks for; without one, mail. `None`: nothing of it is known here. What else stands in it is left out, which
/// the answer to the program says (RFC 6749 §3.3).
fn services_of(scope: &str) -> Option<ServiceSet> {
    let words: Vec<&str> = scope.split(' ').filter(|word| !word.is_empty()).collect();
    let services: ServiceSet = if words.is_empty() {
        [Service::Imap, Service::Smtp, Service::Jmap].into_iter().collect()
    } else {
        SCOPES.iter().filter(|(name, _)| words.contains(name)).map(|(_, service)| *service).collect()
    };
    (!services.is_empty()).then_some(services)
}

/// The scope that services are.
pub(super) fn scope_of(services: ServiceSet) -> String {
    let words: Vec<&str> =
        SCOPES.iter().filter(|(_, service)| services.contains(*service)).map(|(name, _)| *name).collect();
    words.join(" ")
}

fn right(service: Service) -> &'static str {
    match service {
        Service::Smtp => "send mail in your name",
        Service::Imap => "read and change all your mail, over IMAP",
        Service::Pop3 => "read and delete all your mail, over POP3",
        Service::Jmap => "read and change all your mail and send in your name, over JMAP",
        Service::Sieve => "change your mail filters",
    }
}
