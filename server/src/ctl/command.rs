//! From the command line to requests.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::bail;
use axum::http::Method;
use serde_json::{Value, json};

use super::client::{Client, Needs};
use super::{print, queue, secret};
use crate::args::{
    AccountCommand, AliasCommand, AppPasswordCommand, ClusterCommand, Command, DomainCommand, DomainOptions,
    GrantCommand, Limit, ListCommand, PasswordCommand, QuotaOptions, Reach, StatusArgument,
    SuppressionCommand, TokenCommand,
};

/// A request to be made, and how to reach whom.
pub(super) struct Request {
    pub(super) reach: Reach,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<Value>,
    pub(super) show: Show,
}

/// How the answer is shown.
pub(super) enum Show {
    Answer,
    /// A sentence instead of an empty answer.
    Done(String),
    /// The secret in it, alone, so that it can be piped on.
    Secret,
    /// The nodes of a cluster.
    Cluster,
    /// One kind of the names of a domain, page by page.
    Names(&'static str),
    /// One member of the answer.
    Member(&'static str),
    /// What waits in the queue, page by page, at most so many.
    QueueItems {
        limit: u64,
    },
    /// What happened in a shard, to its end.
    QueueReplay {
        from: Option<u64>,
        cursor: Option<String>,
    },
    /// What is said to other hosts, until interrupted.
    QueueDialogues,
    /// What is known of a message.
    QueueTrace,
    /// The queue in numbers.
    QueueSummary,
    /// What was done to it.
    QueueActed,
}

/// Carries out one of the operator's commands.
pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    let Some(request) = request(command)? else { return Ok(()) };
    let needs = if request.path.starts_with("/admin/v1/queue") { Needs::Queue } else { Needs::Directory };
    let client = Client::connect(&request.reach, needs).await?;
    let result = exchange(&client, &request).await;
    client.close().await;
    result
}

async fn exchange(client: &Client, request: &Request) -> anyhow::Result<()> {
    let json = request.reach.json;
    match &request.show {
        Show::Names(kind) => return names(client, &request.path, kind, json).await,
        Show::QueueItems { limit } => return queue::list(client, &request.path, *limit, json).await,
        Show::QueueReplay { from, cursor } => {
            return queue::replay(client, &request.path, *from, cursor.as_deref()).await;
        }
        Show::QueueDialogues => return queue::watch(client, &request.path, json).await,
        Show::Answer
        | Show::Cluster
        | Show::Done(_)
        | Show::Secret
        | Show::Member(_)
        | Show::QueueTrace
        | Show::QueueSummary
        | Show::QueueActed => {}
    }
    let answer = client.send(request.method.clone(), &request.path, request.body.as_ref()).await?;
    match (&request.show, &answer) {
        (Show::Done(text), _) if !json => print::line(text),
        (Show::Secret, Some(answer)) if !json => print::line(answer["secret"].as_str().unwrap_or_default()),
        (Show::Member(name), Some(answer)) => print::answer(Some(&answer[*name]), json),
        (Show::Cluster, Some(answer)) if !json => print::cluster(answer),
        (Show::QueueTrace, Some(answer)) if !json => queue::trace(answer),
        (Show::QueueSummary, Some(answer)) if !json => queue::summary(answer),
        (Show::QueueActed, Some(answer)) if !json => queue::acted(answer),
        _ => print::answer(answer.as_ref(), json),
    }
    Ok(())
}

async fn names(client: &Client, path: &str, kind: &str, json: bool) -> anyhow::Result<()> {
    let mut from = String::new();
    loop {
        let page = format!("{path}?limit=1000&from={}", escape(&from));
        let Some(answer) = client.send(Method::GET, &page, None).await? else { return Ok(()) };
        let of_kind: Vec<Value> = answer["names"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|name| name.get(kind))
            .cloned()
            .collect();
        if json {
            for name in &of_kind {
                print::line(&name.to_string());
            }
        } else {
            print::answer(Some(&Value::Array(of_kind)), false);
        }
        match answer["next"].as_str() {
            Some(next) => next.clone_into(&mut from),
            None => return Ok(()),
        }
    }
}

fn request(command: Command) -> anyhow::Result<Option<Request>> {
    Ok(match command {
        Command::Domain(command) => Some(domain(command)),
        Command::Account(command) => account(command)?,
        Command::Alias(command) => Some(alias(command)),
        Command::List(command) => Some(list(command)),
        Command::Password(command) => Some(password(command)?),
        Command::AppPassword(command) => Some(app_password(command)),
        Command::Grant(command) => Some(grant(command)),
        Command::Suppression(command) => Some(suppression(command)),
        Command::Token(command) => Some(token(command)),
        Command::Queue(command) => Some(queue::request(command)),
        Command::Cluster(ClusterCommand::Status { reach }) => {
            Some(get(reach, "/admin/v1/cluster".to_owned(), Show::Cluster))
        }
        Command::Cluster(ClusterCommand::Drain { reach }) => {
            let show = Show::Done("the node ends; what it owns goes to others".to_owned());
            let path = "/admin/v1/cluster/drain".to_owned();
            Some(Request { reach, method: Method::POST, path, body: None, show })
        }
        Command::Dev(_)
        | Command::Serve { .. }
        | Command::Check { .. }
        | Command::ExtractText { .. }
        | Command::Migrate { .. }
        | Command::Config(_)
        | Command::Cluster(ClusterCommand::Schema(_) | ClusterCommand::Regions(_)) => {
            bail!("not a command for the admin API")
        }
    })
}

pub(super) fn get(reach: Reach, path: String, show: Show) -> Request {
    Request { reach, method: Method::GET, path, body: None, show }
}

fn delete(reach: Reach, path: String, gone: String) -> Request {
    Request { reach, method: Method::DELETE, path, body: None, show: Show::Done(gone) }
}

pub(super) fn send(reach: Reach, method: Method, path: String, body: Value) -> Request {
    Request { reach, method, path, body: Some(without_null(body)), show: Show::Answer }
}

fn domain(command: DomainCommand) -> Request {
    const PATH: &str = "/admin/v1/domains";
    let one = |name: &str| format!("{PATH}/{}", escape(name));
    match command {
        DomainCommand::List { reach } => get(reach, PATH.to_owned(), Show::Answer),
        DomainCommand::Show { name, reach } => get(reach, one(&name), Show::Answer),
        DomainCommand::Remove { name, reach } => delete(reach, one(&name), format!("{name} removed")),
        DomainCommand::Add { name, alias_of, settings, reach } => {
            let mut body = domain_settings(&settings);
            body["name"] = json!(name);
            body["alias_of"] = json!(alias_of);
            send(reach, Method::POST, PATH.to_owned(), body)
        }
        DomainCommand::Set { name, settings, no_catch_all, disabled, reach } => {
            let mut body = without_null(domain_settings(&settings));
            if let Some(disabled) = disabled {
                body["disabled"] = json!(disabled);
            }
            if no_catch_all {
                body["catch_all"] = Value::Null;
            }
            Request { reach, method: Method::PATCH, path: one(&name), body: Some(body), show: Show::Answer }
        }
    }
}

fn domain_settings(settings: &DomainOptions) -> Value {
    json!({
        "catch_all": settings.catch_all,
        "subaddress_delimiters": settings.delimiters,
        "description": settings.description,
        "quota": quota(&settings.quota),
    })
}

/// What was said about a quota; `none` is null, which is no limit.
fn quota(options: &QuotaOptions) -> Value {
    let mut quota = serde_json::Map::new();
    for (name, limit) in [("bytes", options.quota), ("messages", options.quota_messages)] {
        if let Some(Limit(number)) = limit {
            quota.insert(name.to_owned(), json!(number));
        }
    }
    if quota.is_empty() { Value::Null } else { quota.into() }
}

fn account(command: AccountCommand) -> anyhow::Result<Option<Request>> {
    const PATH: &str = "/admin/v1/accounts";
    let one = |address: &str| format!("{PATH}/{}", escape(address));
    Ok(Some(match command {
        AccountCommand::List { domain, reach } => get(reach, names_of(&domain), Show::Names("account")),
        AccountCommand::Show { address, reach } => get(reach, one(&address), Show::Answer),
        AccountCommand::Add { address, name, quota: options, no_password, reach } => {
            let password = if no_password { None } else { Some(secret::new_password()?) };
            let body = json!({
                "address": address, "display_name": name, "password": password, "quota": quota(&options),
            });
            send(reach, Method::POST, PATH.to_owned(), body)
        }
        AccountCommand::Set { address, name, quota: options, status, reach } => {
            let status = status.map(|status| match status {
                StatusArgument::Active => "active",
                StatusArgument::LoginDisabled => "login-disabled",
                StatusArgument::Disabled => "disabled",
            });
            let body = json!({ "display_name": name, "status": status, "quota": quota(&options) });
            send(reach, Method::PATCH, one(&address), body)
        }
        AccountCommand::Move { .. } => bail!("not a command for the admin API"),
        AccountCommand::Remove { address, yes, reach } => {
            if !yes && !secret::confirm(&format!("Delete {address} and all its mail?"))? {
                return Ok(None);
            }
            delete(reach, one(&address), format!("{address} removed"))
        }
    }))
}

fn alias(command: AliasCommand) -> Request {
    const PATH: &str = "/admin/v1/aliases";
    let one = |address: &str| format!("{PATH}/{}", escape(address));
    match command {
        AliasCommand::List { domain, reach } => get(reach, names_of(&domain), Show::Names("alias")),
        AliasCommand::Show { address, reach } => get(reach, one(&address), Show::Answer),
        AliasCommand::Add { address, targets, send_as, reach } => {
            let body = json!({ "address": address, "targets": targets, "send_as": send_as });
            send(reach, Method::POST, PATH.to_owned(), body)
        }
        AliasCommand::Set { address, targets, send_as, reach } => {
            let targets = if targets.is_empty() { Value::Null } else { json!(targets) };
            send(reach, Method::PATCH, one(&address), json!({ "targets": targets, "send_as": send_as }))
        }
        AliasCommand::Remove { address, reach } => delete(reach, one(&address), format!("{address} removed")),
    }
}

fn list(command: ListCommand) -> Request {
    const PATH: &str = "/admin/v1/lists";
    let one = |address: &str| format!("{PATH}/{}", escape(address));
    match command {
        ListCommand::List { domain, reach } => get(reach, names_of(&domain), Show::Names("list")),
        ListCommand::Show { address, reach } => get(reach, one(&address), Show::Answer),
        ListCommand::Add { address, owner, members, reach } => {
            let body = json!({ "address": address, "owner": owner, "members": members });
            send(reach, Method::POST, PATH.to_owned(), body)
        }
        ListCommand::Set { address, owner, add, remove, reach } => {
            send(reach, Method::PATCH, one(&address), json!({ "owner": owner, "add": add, "remove": remove }))
        }
        ListCommand::Remove { address, reach } => delete(reach, one(&address), format!("{address} removed")),
    }
}

fn password(command: PasswordCommand) -> anyhow::Result<Request> {
    let (address, reach, body, done) = match command {
        PasswordCommand::Set { address, reach } => {
            (address, reach, json!({ "password": secret::new_password()? }), "password set")
        }
        PasswordCommand::Import { address, reach } => {
            (address, reach, json!({ "password_hash": secret::line()? }), "password hash taken over")
        }
        PasswordCommand::Clear { address, reach } => (address, reach, json!({}), "password cleared"),
    };
    let path = format!("/admin/v1/accounts/{}/password", escape(&address));
    let show = Show::Done(format!("{address}: {done}"));
    Ok(Request { show, ..send(reach, Method::PUT, path, body) })
}

fn app_password(command: AppPasswordCommand) -> Request {
    let of = |address: &str| format!("/admin/v1/accounts/{}", escape(address));
    match command {
        AppPasswordCommand::List { address, reach } => {
            get(reach, of(&address), Show::Member("app_passwords"))
        }
        AppPasswordCommand::Add { address, name, services, reach } => {
            let path = format!("{}/app-passwords", of(&address));
            let body = json!({ "name": name, "services": services });
            Request { show: Show::Secret, ..send(reach, Method::POST, path, body) }
        }
        AppPasswordCommand::Remove { address, name, reach } => {
            let path = format!("{}/app-passwords/{}", of(&address), escape(&name));
            delete(reach, path, format!("{address}: application password {name:?} withdrawn"))
        }
    }
}

fn grant(command: GrantCommand) -> Request {
    let of = |address: &str| format!("/admin/v1/accounts/{}/grants", escape(address));
    match command {
        GrantCommand::List { address, reach } => get(reach, of(&address), Show::Answer),
        GrantCommand::Add { address, client, name, services, reach } => {
            let body = json!({ "client": client, "name": name, "services": services });
            Request { show: Show::Answer, ..send(reach, Method::POST, of(&address), body) }
        }
        GrantCommand::Remove { address, id, reach } => {
            let path = format!("{}/{}", of(&address), escape(&id));
            delete(reach, path, format!("{address}: grant {id} ended"))
        }
    }
}

fn suppression(command: SuppressionCommand) -> Request {
    let of = |address: &str| format!("/admin/v1/accounts/{}/suppressions", escape(address));
    match command {
        SuppressionCommand::List { address, reach } => get(reach, of(&address), Show::Answer),
        SuppressionCommand::Remove { address, suppressed, reach } => {
            let path = format!("{}/{}", of(&address), escape(&suppressed));
            delete(reach, path, format!("{address}: mail is sent to {suppressed} again"))
        }
    }
}

fn token(command: TokenCommand) -> Request {
    const PATH: &str = "/admin/v1/tokens";
    match command {
        TokenCommand::List { reach } => get(reach, PATH.to_owned(), Show::Answer),
        TokenCommand::Add { name, scopes, days, reach } => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let expires = days.map(|days| now.saturating_add(days.saturating_mul(86_400)));
            let body = json!({ "name": name, "scopes": scopes, "expires": expires });
            Request { show: Show::Secret, ..send(reach, Method::POST, PATH.to_owned(), body) }
        }
        TokenCommand::Remove { name, reach } => {
            delete(reach, format!("{PATH}/{}", escape(&name)), format!("token {name:?} withdrawn"))
        }
    }
}

fn names_of(domain: &str) -> String {
    format!("/admin/v1/domains/{}/names", escape(domain))
}

/// What was not said is left out, so that it stays as it is.
pub(super) fn without_null(mut body: Value) -> Value {
    if let Some(members) = body.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    body
}

/// Percent-encoding of one segment of a path, or of a query value (RFC 3986 §2.1).
pub(super) fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'@') {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_one_segment() {
        assert_eq!(escape("alice@example.test"), "alice@example.test");
        assert_eq!(escape("\"a/b?\"+x@ü"), "%22a%2Fb%3F%22%2Bx@%C3%BC");
    }
}
