//! The issuer of tokens, as programs and browsers meet it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use directory::account::Quota;
use directory::admin::{NewAccount, NewPassword};
use directory::config::Argon2Config;
use directory::entry::DomainSettings;
use directory::{AccountStores, Directory, LogKeys, PlainLogin, Service, ServiceSet, Temporary};
use engine::memory::MemoryEngine;
use engine::seal::Unencrypted;
use engine::{LogId, LogOptions, Sealer};
use mail::address::{Address, Domain};
use mail::id::AccountId;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use webmail_api::Remote;
use webmail_api::oauth::{Config, ConfiguredClient, Issuer};

struct NoKeys;

#[async_trait]
impl LogKeys for NoKeys {
    async fn create(&self, _: LogId) -> Result<Arc<dyn Sealer>, Temporary> {
        Ok(Arc::new(Unencrypted))
    }
    async fn open(&self, _: LogId) -> Result<Arc<dyn Sealer>, Temporary> {
        Ok(Arc::new(Unencrypted))
    }
    async fn erase(&self, _: LogId) -> Result<(), Temporary> {
        Ok(())
    }
}

/// Nobody here has mail.
struct NoStores;

#[async_trait]
impl AccountStores for NoStores {
    async fn create(&self, _: AccountId, _: &Address, _: Quota) -> Result<(), Temporary> {
        Ok(())
    }
    async fn set_quota(&self, _: AccountId, _: Quota) -> Result<(), Temporary> {
        Ok(())
    }
    async fn delete(&self, _: AccountId) -> Result<(), Temporary> {
        Ok(())
    }
}

const ORIGIN: &str = "https://mail.example.test";
const REDIRECT: &str = "http://127.0.0.1:4711/done";
// The example of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

struct World {
    directory: Directory,
    router: Router,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Where a browser is sent, and with what.
    fn location(&self) -> (String, Vec<(String, String)>) {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{}", self.body);
        let location = self.headers[header::LOCATION].to_str().unwrap();
        let (to, query) = location.split_once('?').unwrap();
        (to.to_owned(), form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }
}

impl World {
    async fn new(config: Config) -> Self {
        let directory = Directory::open(directory::Parts {
            config: directory::Config {
                argon2: Argon2Config { memory_kib: 64, passes: 1, lanes: 1 },
                scram_iterations: 4096,
                ..directory::Config::default()
            },
            engine: MemoryEngine::new().engine(),
            logs: LogOptions::default(),
            archive: None,
            keys: Arc::new(NoKeys),
            stores: Arc::new(NoStores),
            homes: None,
            on_login_failure: Box::new(|_| {}),
        })
        .await
        .unwrap();
        let domain = Domain::parse("example.test").unwrap();
        directory.create_domain(&domain, DomainSettings::default()).await.unwrap();
        let alice = Address::parse("alice@example.test").unwrap();
        let password = NewPassword::Clear("correct horse".to_owned());
        directory.create_account(&alice, NewAccount { password, ..NewAccount::default() }).await.unwrap();
        let router = Issuer::new(config, directory.clone(), ORIGIN.to_owned()).router();
        Self { directory, router }
    }

    async fn ask(&self, request: Request<Body>) -> Answer {
        let mut request = request;
        request.extensions_mut().insert(Remote(home()));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Answer {
        let query = form(query);
        self.ask(Request::get(format!("{path}?{query}")).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, pairs: &[(&str, &str)]) -> Answer {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.ask(request.body(Body::from(form(pairs))).unwrap()).await
    }

    async fn register(&self, document: &Value) -> Answer {
        let request = Request::post("/oauth/register").header(header::CONTENT_TYPE, "application/json");
        self.ask(request.body(Body::from(document.to_string())).unwrap()).await
    }

    async fn client(&self) -> String {
        let document =
            json!({ "client_name": "A <b>program</b>", "redirect_uris": ["http://127.0.0.1/done"] });
        let answer = self.register(&document).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        answer.json()["client_id"].as_str().unwrap().to_owned()
    }

    async fn login(&self, token: &str, service: Service) -> bool {
        let login = PlainLogin { login: String::new(), password: token.to_owned(), service };
        self.directory.authenticate(&login, home()).await.is_ok()
    }
}

fn home() -> IpAddr {
    IpAddr::from([127, 0, 0, 1])
}

fn form(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

fn request(client: &str) -> Vec<(&str, &str)> {
    vec![
        ("response_type", "code"),
        ("client_id", client),
        ("redirect_uri", REDIRECT),
        ("scope", "imap smtp openid"),
        ("state", "a&b"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ]
}

fn with<'a>(pairs: &[(&'a str, &'a str)], more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let kept = pairs.iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name));
    kept.chain(more).copied().collect()
}

fn value<'a>(pairs: &'a [(String, String)], name: &str) -> &'a str {
    pairs.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str()).unwrap_or_default()
}

#[tokio::test]
async fn a_program_gets_tokens_and_never_the_password() {
    let world = World::new(Config::default()).await;
    let metadata = world.get("/.well-known/oauth-authorization-server", &[]).await.json();
    assert_eq!(metadata["issuer"], ORIGIN);
    assert_eq!(metadata["code_challenge_methods_supported"], json!(["S256"]));
    let client = world.client().await;
    let request = request(&client);
    let page = world.get("/oauth/authorize", &with(&request, &[("login_hint", "alice@example.test")])).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(
        page.body.contains("A &lt;b&gt;program&lt;/b&gt;") && !page.body.contains("<b>"),
        "{}",
        page.body
    );
    assert!(page.body.contains("value=\"alice@example.test\"") && page.body.contains("value=\"a&amp;b\""));
    assert_eq!(page.headers[header::X_FRAME_OPTIONS], "DENY");
    assert!(
        page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("frame-ancestors 'none'")
    );

    let allow = [("answer", "allow"), ("login", "alice@example.test"), ("password", "correct horse")];
    let wrong = with(&allow, &[("password", "wrong")]);
    let again = world.post("/oauth/authorize", &with(&request, &wrong)).await;
    assert!(again.status == StatusCode::OK && again.body.contains("is wrong"), "{}", again.body);
    assert!(!again.body.contains("value=\"wrong\""));
    let (to, answer) = world.post("/oauth/authorize", &with(&request, &allow)).await.location();
    assert_eq!((to.as_str(), value(&answer, "state"), value(&answer, "iss")), (REDIRECT, "a&b", ORIGIN));
    let code = value(&answer, "code").to_owned();

    let exchange = [
        ("grant_type", "authorization_code"),
        ("client_id", client.as_str()),
        ("redirect_uri", REDIRECT),
        ("code", code.as_str()),
        ("code_verifier", VERIFIER),
    ];
    for (name, wrong, error) in [
        ("code_verifier", "another-verifier-that-is-as-long-as-the-right-one", "invalid_grant"),
        ("redirect_uri", "http://127.0.0.1:4712/done", "invalid_grant"),
        ("client_id", "nobody", "invalid_client"),
        ("code", "postrider-code-x", "invalid_grant"),
        ("code", "", "invalid_request"),
        ("grant_type", "password", "unsupported_grant_type"),
    ] {
        let refused = world.post("/oauth/token", &with(&exchange, &[(name, wrong)])).await;
        assert_eq!((refused.status, &refused.json()["error"]), (StatusCode::BAD_REQUEST, &json!(error)));
        assert_eq!(refused.headers[header::CACHE_CONTROL], "no-store");
    }
    let tokens = world.post("/oauth/token", &exchange).await;
    assert_eq!(tokens.status, StatusCode::OK, "{}", tokens.body);
    assert_eq!(tokens.headers[header::CACHE_CONTROL], "no-store");
    let tokens = tokens.json();
    assert_eq!((&tokens["token_type"], &tokens["scope"]), (&json!("Bearer"), &json!("imap smtp")));
    let access = tokens["access_token"].as_str().unwrap();
    assert!(world.login(access, Service::Imap).await && world.login(access, Service::Smtp).await);
    assert!(!world.login(access, Service::Jmap).await, "it did not ask for that");

    let refresh = [
        ("grant_type", "refresh_token"),
        ("client_id", client.as_str()),
        ("refresh_token", tokens["refresh_token"].as_str().unwrap()),
    ];
    let refreshed = world.post("/oauth/token", &refresh).await.json();
    assert!(world.login(refreshed["access_token"].as_str().unwrap(), Service::Imap).await);
    let given_back = [("token", refreshed["refresh_token"].as_str().unwrap())];
    assert_eq!(world.post("/oauth/revoke", &given_back).await.status, StatusCode::OK);
    assert_eq!(world.post("/oauth/revoke", &[("token", "nonsense")]).await.status, StatusCode::OK);
    assert!(!world.login(access, Service::Imap).await, "all of it has ended");
    assert_eq!(world.post("/oauth/token", &refresh).await.json()["error"], "invalid_grant");
}

#[tokio::test]
async fn who_cannot_be_answered_is_not_sent_anywhere() {
    let world = World::new(Config::default()).await;
    let client = world.client().await;
    let good = request(&client);
    let changed = client.replace("client-", "client-x");
    for wrong in [
        ("client_id", "nobody"),
        ("client_id", changed.as_str()),
        ("client_id", ""),
        ("redirect_uri", "https://evil.example/"),
        ("redirect_uri", "http://127.0.0.1:4711/other"),
        ("redirect_uri", ""),
    ] {
        let page = world.get("/oauth/authorize", &with(&good, &[wrong])).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{wrong:?}");
        assert!(!page.headers.contains_key(header::LOCATION), "{wrong:?}");
    }
    let twice: Vec<_> = good.iter().copied().chain([("state", "x")]).collect();
    assert_eq!(world.get("/oauth/authorize", &twice).await.status, StatusCode::BAD_REQUEST);
    for (wrong, error) in [
        (("response_type", "token"), "unsupported_response_type"),
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("scope", "everything"), "invalid_scope"),
    ] {
        let (to, answer) = world.get("/oauth/authorize", &with(&good, &[wrong])).await.location();
        assert_eq!((to.as_str(), value(&answer, "error")), (REDIRECT, error));
        assert_eq!(value(&answer, "state"), "a&b");
    }
    let deny = [("answer", "deny"), ("login", ""), ("password", "")];
    let (_, answer) = world.post("/oauth/authorize", &with(&good, &deny)).await.location();
    assert_eq!(value(&answer, "error"), "access_denied");
    let malformed = [("answer", "allow"), ("login", "alice@example.test"), ("password", "correct horse")];
    let malformed = with(&malformed, &[("code_challenge", "abc")]);
    let (_, answer) = world.post("/oauth/authorize", &with(&good, &malformed)).await.location();
    assert_eq!(value(&answer, "error"), "invalid_request");
}

#[tokio::test]
async fn programs_that_make_themselves_known() {
    let world = World::new(Config::default()).await;
    for (document, error) in [
        (json!({ "redirect_uris": ["javascript:alert(1)"] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": ["http://evil.example/"] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": [] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": vec!["https://a.example/"; 9] }), "invalid_redirect_uri"),
        (
            json!({ "redirect_uris": ["https://a.example/"], "client_name": "a\nb" }),
            "invalid_client_metadata",
        ),
        (
            json!({ "redirect_uris": ["https://a.example/"], "token_endpoint_auth_method": "client_secret_basic" }),
            "invalid_client_metadata",
        ),
        (json!("x"), "invalid_client_metadata"),
        (
            json!({ "redirect_uris": ["https://a.example/"], "x": "y".repeat(20_000) }),
            "invalid_client_metadata",
        ),
    ] {
        let refused = world.register(&document).await;
        assert_eq!((refused.status, &refused.json()["error"]), (StatusCode::BAD_REQUEST, &json!(error)));
    }

    let known = ConfiguredClient {
        id: "webmail".to_owned(),
        name: "Webmail".to_owned(),
        redirect_uris: vec!["https://webmail.example/done".to_owned()],
    };
    let closed = Config { registration: false, clients: vec![known], ..Config::default() };
    let closed = World::new(closed).await;
    let refused = closed.register(&json!({ "redirect_uris": ["https://a.example/"] })).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let registered = world.client().await;
    assert_eq!(
        closed.get("/oauth/authorize", &request(&registered)).await.status,
        StatusCode::BAD_REQUEST,
        "one of before, or of somewhere else"
    );
    let known = with(&request("webmail"), &[("redirect_uri", "https://webmail.example/done")]);
    assert_eq!(closed.get("/oauth/authorize", &known).await.status, StatusCode::OK);
}

/// A token and an application password are for programs: neither makes more of them.
#[tokio::test]
async fn only_the_account_s_own_password_allows_anything() {
    let world = World::new(Config::default()).await;
    let alice = Address::parse("alice@example.test").unwrap();
    let app = world.directory.create_app_password(&alice, "phone", ServiceSet::ALL).await.unwrap();
    let client = world.client().await;
    let login = [("answer", "allow"), ("login", "alice@example.test"), ("password", app.reveal())];
    let page = world.post("/oauth/authorize", &with(&request(&client), &login)).await;
    assert!(page.status == StatusCode::OK && page.body.contains("is wrong"), "{}", page.body);
    for _ in 0..30 {
        let wrong = with(&login, &[("password", "wrong")]);
        world.post("/oauth/authorize", &with(&request(&client), &wrong)).await;
    }
    let right = with(&login, &[("password", "correct horse")]);
    let throttled = world.post("/oauth/authorize", &with(&request(&client), &right)).await;
    assert_eq!(throttled.status, StatusCode::TOO_MANY_REQUESTS);
}
