//! The session resource (RFC 8620 §2): who one is, what there is, and where.

use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use jmap_protocol::date;
use jmap_protocol::object::blob::DIGESTS;
use jmap_protocol::object::filter::{COLLATION, SORT_OPTIONS};
use serde_json::{Value, json};

use super::auth::User;
use super::config::Config;
use super::method::blob::lookup::TYPES;
use super::send::Sending;
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

/// RFC 8621 §1.3.3
pub(super) const VACATION: &str = "urn:ietf:params:jmap:vacationresponse";
/// RFC 8621 §1.3.2
pub(super) const SUBMISSION: &str = "urn:ietf:params:jmap:submission";

/// The capabilities that a request may use.
pub(super) fn capabilities(jmap: &Jmap) -> &'static [&'static str] {
    const ALL: [&str; 6] = [CORE, MAIL, BLOB, QUOTA, VACATION, SUBMISSION];
    if jmap.inner.sending.is_some() { &ALL } else { &ALL[..5] }
}

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
    let mut capabilities = json!({CORE: core, MAIL: {}, BLOB: {}, QUOTA: {}, VACATION: {}});
    let mut own = json!({CORE: {}, MAIL: mail, BLOB: blob, QUOTA: {}, VACATION: {}});
    let mut primary = json!({CORE: account, MAIL: account, BLOB: account, QUOTA: account, VACATION: account});
    if let Some(sending) = &jmap.inner.sending {
        capabilities[SUBMISSION] = json!({});
        own[SUBMISSION] = submission(sending);
        primary[SUBMISSION] = json!(account);
    }
    json!({
        "capabilities": capabilities,
        "accounts": {
            account.as_str(): {
                "name": user.principal.address.to_string(),
                "isPersonal": true,
                "isReadOnly": false,
                "accountCapabilities": own,
            },
        },
        "primaryAccounts": primary,
        "username": user.principal.address.to_string(),
        "apiUrl": format!("{base}/jmap/api"),
        "downloadUrl": format!("{base}/jmap/download/{{accountId}}/{{blobId}}/{{name}}?accept={{type}}"),
        "uploadUrl": format!("{base}/jmap/upload/{{accountId}}"),
        "eventSourceUrl":
            format!("{base}/jmap/eventsource?types={{types}}&closeafter={{closeafter}}&ping={{ping}}"),
        "state": state(user),
    })
}

/// What can be asked for when something is sent (RFC 8621 §1.3.2): what SMTP submission announces of it.
fn submission(sending: &Sending) -> Value {
    let rules = &sending.rules;
    let mut extensions = json!({
        "SIZE": [rules.message_bytes_max.to_string()],
        "8BITMIME": [],
        "SMTPUTF8": [],
        "DSN": [],
    });
    if rules.hold_seconds_max > 0 {
        let until = sending.queue.clock().now().saturating_add(rules.hold_seconds_max);
        let until = date::utc(i64::try_from(until).unwrap_or(i64::MAX));
        extensions["FUTURERELEASE"] = json!([rules.hold_seconds_max.to_string(), until]);
    }
    if rules.deliver_by_seconds_min > 0 {
        extensions["DELIVERBY"] = json!([rules.deliver_by_seconds_min.to_string()]);
    }
    if rules.priorities {
        extensions["MT-PRIORITY"] = json!([]);
    }
    json!({"maxDelayedSend": rules.hold_seconds_max, "submissionExtensions": extensions})
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
