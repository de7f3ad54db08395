//! The session resource (RFC 8620 §2): who one is, what there is, and where.

use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use jmap_protocol::object::blob::DIGESTS;
use jmap_protocol::object::filter::{COLLATION, SORT_OPTIONS};
use serde_json::{Value, json};

use super::auth::User;
use super::config::Config;
use super::method::blob::lookup::TYPES;
use super::service::Jmap;
use crate::request;

/// RFC 8620
pub(super) const CORE: &str = "urn:ietf:params:jmap:core";
/// RFC 8621
pub(super) const MAIL: &str = "urn:ietf:params:jmap:mail";
/// RFC 9404
pub(super) const BLOB: &str = "urn:ietf:params:jmap:blob";
/// RFC 9425
pub(super) const QUOTA: &str = "urn:ietf:params:jmap:quota";
/// RFC 8887
pub(super) const WEB_SOCKET: &str = "urn:ietf:params:jmap:websocket";

/// RFC 9749
pub(super) const VAPID: &str = "urn:ietf:params:jmap:webpush-vapid";

/// The capabilities that a request may use.
pub(super) const CAPABILITIES: [&str; 6] = [CORE, MAIL, BLOB, QUOTA, WEB_SOCKET, VAPID];

/// Changes when anything in a session does. What it tells follows from the configuration and this release alone.
pub(super) fn state(user: &User) -> String {
    format!("3-{}", user.principal.account)
}

pub(super) async fn show(State(jmap): State<Jmap>, user: User, parts: Parts) -> Response {
    let base = base_url(&jmap.inner.config, &parts);
    let session = describe(&jmap, &user, &base);
    let mut response = session.to_string().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // RFC 8620 §2.2.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    response
}

fn describe(jmap: &Jmap, user: &User, base: &str) -> Value {
    let account = user.account_id();
    let storage = jmap.inner.storage.config();
    let core = core(&jmap.inner.config);
    let mail = json!({
        // An email is in one mailbox, or where it was copied to; there is no bound to that.
        "maxMailboxesPerEmail": null,
        "maxMailboxDepth": storage.mailbox_depth_max,
        "maxSizeMailboxName": storage.mailbox_name_bytes_max.max(100),
        "maxSizeAttachmentsPerEmail": jmap.inner.config.upload_bytes_max,
        "emailQuerySortOptions": SORT_OPTIONS,
        "mayCreateTopLevelMailbox": true,
    });
    // RFC 9404 §3.1
    let blob = json!({
        "maxSizeBlobSet": jmap.inner.config.upload_bytes_max,
        "maxDataSources": jmap.inner.config.blob_sources_max,
        "supportedTypeNames": TYPES,
        "supportedDigestAlgorithms": DIGESTS,
    });
    // RFC 8887 §3.
    let web_socket = json!({"url": format!("{}/jmap/ws", web_socket_base(base)), "supportsPush": true});
    // RFC 9749 §3.
    let vapid = json!({"applicationServerKey": jmap.inner.push.vapid_key()});
    json!({
        "capabilities":
            {CORE: core, MAIL: {}, BLOB: {}, QUOTA: {}, WEB_SOCKET: web_socket, VAPID: vapid},
        "accounts": {
            account.as_str(): {
                "name": user.principal.address.to_string(),
                "isPersonal": true,
                "isReadOnly": false,
                "accountCapabilities": {CORE: {}, MAIL: mail, BLOB: blob, QUOTA: {}},
            },
        },
        "primaryAccounts": {CORE: account, MAIL: account, BLOB: account, QUOTA: account},
        "username": user.principal.address.to_string(),
        "apiUrl": format!("{base}/jmap/api"),
        "downloadUrl": format!("{base}/jmap/download/{{accountId}}/{{blobId}}/{{name}}?accept={{type}}"),
        "uploadUrl": format!("{base}/jmap/upload/{{accountId}}"),
        "eventSourceUrl":
            format!("{base}/jmap/eventsource?types={{types}}&closeafter={{closeafter}}&ping={{ping}}"),
        "state": state(user),
    })
}

/// The same place with the scheme that WebSockets have (RFC 6455 §3).
fn web_socket_base(base: &str) -> String {
    base.strip_prefix("http").map_or_else(|| base.to_owned(), |rest| format!("ws{rest}"))
}

/// The limits, as they are kept.
fn core(config: &Config) -> Value {
    json!({
        "maxSizeUpload": config.upload_bytes_max,
        "maxConcurrentUpload": config.uploads_at_once_max,
        "maxSizeRequest": config.request_bytes_max,
        "maxConcurrentRequests": config.requests_at_once_max,
        "maxCallsInRequest": config.calls_max,
        "maxObjectsInGet": config.objects_in_get_max,
        "maxObjectsInSet": config.objects_in_set_max,
        "collationAlgorithms": [COLLATION],
    })
}

/// Where the client found this server.
pub(super) fn base_url(config: &Config, parts: &Parts) -> String {
    request::base_url(&config.base_url, &parts.headers, &parts.uri)
}
