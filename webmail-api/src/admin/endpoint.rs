//! All endpoints, in one table: the router is made of it, and so is the OpenAPI document.

use axum::routing::{MethodRouter, delete, get, patch, post, put};

use super::api::Api;
use super::caller::Scope;
use super::{
    accounts, aliases, domains, grants, lists, migration, monitor, nodes, openapi, queue, shards,
    suppressions, tokens,
};

/// One endpoint.
pub(crate) struct Endpoint {
    pub(crate) method: &'static str,
    /// As axum and OpenAPI both write it.
    pub(crate) path: &'static str,
    /// What a token needs for it; `None`: anyone may.
    pub(crate) scope: Option<Scope>,
    pub(crate) summary: &'static str,
    /// Name of the schema of the request's body.
    pub(crate) request: Option<&'static str>,
    pub(crate) status: u16,
    /// Name of the schema of the answer's body.
    pub(crate) answer: Answer,
    pub(crate) handler: MethodRouter<Api>,
}

/// What an endpoint answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Nothing,
    Text,
    Json(&'static str),
    JsonList(&'static str),
    AnyJson,
}

pub(crate) fn table() -> Vec<Endpoint> {
    use Answer::{AnyJson, Json, JsonList, Nothing, Text};
    let read = |path, summary, answer, handler: MethodRouter<Api>| Endpoint {
        method: "get",
        path,
        scope: Some(Scope::Read),
        summary,
        request: None,
        status: 200,
        answer,
        handler,
    };
    let open =
        |path, summary, answer, handler| Endpoint { scope: None, ..read(path, summary, answer, handler) };
    let act = |method, path, scope, summary, request, (status, answer), handler: MethodRouter<Api>| {
        Endpoint { method, path, scope: Some(scope), summary, request, status, answer, handler }
    };
    let (write, passwords) = (Scope::Write, Scope::Passwords);
    let gone = (204, Nothing);
    vec![
        open("/healthz", "Whether the process works.", Text, get(monitor::health)),
        open("/readyz", "Whether the process takes work now.", Text, get(monitor::ready)),
        open("/admin/v1/openapi.json", "This document.", AnyJson, get(openapi::show)),
        Endpoint {
            scope: Some(Scope::Metrics),
            ..read("/metrics", "Metrics in the text format of Prometheus.", Text, get(monitor::metrics))
        },
        read("/admin/v1/cluster", "The nodes, as this one sees them.", Json("Cluster"), get(nodes::show)),
        act(
            "post",
            "/admin/v1/cluster/drain",
            write,
            "Ends this server in order: it accepts nothing more, finishes what it has in hand, and others take over.",
            None,
            (202, Nothing),
            post(nodes::drain),
        ),
        read(
            "/admin/v1/migrate",
            "How far the move to other back ends is.",
            Json("Migration"),
            get(migration::show),
        ),
        act(
            "post",
            "/admin/v1/migrate",
            write,
            "Begins to move everything to the back ends of another configuration, or goes on with it.",
            Some("NewMigration"),
            (202, Nothing),
            post(migration::begin),
        ),
        read("/admin/v1/domains", "All domains.", JsonList("Domain"), get(domains::list)),
        act(
            "post",
            "/admin/v1/domains",
            write,
            "Makes a domain, or another name for one.",
            Some("NewDomain"),
            (201, Json("Domain")),
            post(domains::create),
        ),
        read("/admin/v1/domains/{domain}", "One domain.", Json("Domain"), get(domains::show)),
        act(
            "patch",
            "/admin/v1/domains/{domain}",
            write,
            "Changes a domain's settings.",
            Some("DomainPatch"),
            (200, Json("Domain")),
            patch(domains::change),
        ),
        act(
            "delete",
            "/admin/v1/domains/{domain}",
            write,
            "Removes a domain without names.",
            None,
            gone,
            delete(domains::delete),
        ),
        read(
            "/admin/v1/domains/{domain}/names",
            "Accounts, aliases and lists of a domain from the query parameter `from` on, at most `limit`.",
            Json("Names"),
            get(domains::names),
        ),
        act(
            "post",
            "/admin/v1/accounts",
            write,
            "Makes an account.",
            Some("NewAccount"),
            (201, Json("Account")),
            post(accounts::create),
        ),
        read("/admin/v1/accounts/{address}", "One account.", Json("Account"), get(accounts::show)),
        act(
            "patch",
            "/admin/v1/accounts/{address}",
            write,
            "Changes an account.",
            Some("AccountPatch"),
            (200, Json("Account")),
            patch(accounts::change),
        ),
        act(
            "delete",
            "/admin/v1/accounts/{address}",
            write,
            "Deletes an account and all it holds.",
            None,
            gone,
            delete(accounts::delete),
        ),
        act(
            "put",
            "/admin/v1/accounts/{address}/password",
            passwords,
            "Sets an account's password, in clear or as an argon2 PHC string; with neither it has none.",
            Some("NewPassword"),
            gone,
            put(accounts::set_password),
        ),
        act(
            "post",
            "/admin/v1/accounts/{address}/app-passwords",
            passwords,
            "Makes an application password, which is shown in this answer only.",
            Some("NewAppPassword"),
            (201, Json("Secret")),
            post(accounts::create_app_password),
        ),
        act(
            "delete",
            "/admin/v1/accounts/{address}/app-passwords/{name}",
            passwords,
            "Withdraws an application password.",
            None,
            gone,
            delete(accounts::delete_app_password),
        ),
        read(
            "/admin/v1/accounts/{address}/grants",
            "Programs and browsers that act for an account.",
            JsonList("Grant"),
            get(grants::list),
        ),
        act(
            "post",
            "/admin/v1/accounts/{address}/grants",
            passwords,
            "Lets a program act for an account; what it logs in with is shown in this answer only.",
            Some("NewGrant"),
            (201, Json("GrantTokens")),
            post(grants::create),
        ),
        act(
            "delete",
            "/admin/v1/accounts/{address}/grants/{id}",
            passwords,
            "Ends what a program may do: its tokens and its sessions end.",
            None,
            gone,
            delete(grants::remove),
        ),
        read(
            "/admin/v1/accounts/{address}/suppressions",
            "Addresses that the account's mail is not sent to, since notifications said that they do not exist.",
            JsonList("Suppression"),
            get(suppressions::list),
        ),
        act(
            "delete",
            "/admin/v1/accounts/{address}/suppressions/{suppressed}",
            write,
            "Lets mail be sent to an address again.",
            None,
            gone,
            delete(suppressions::remove),
        ),
        act(
            "post",
            "/admin/v1/aliases",
            write,
            "Makes an alias.",
            Some("NewAlias"),
            (201, Json("Alias")),
            post(aliases::create),
        ),
        read("/admin/v1/aliases/{address}", "One alias.", Json("Alias"), get(aliases::show)),
        act(
            "patch",
            "/admin/v1/aliases/{address}",
            write,
            "Changes an alias.",
            Some("AliasPatch"),
            (200, Json("Alias")),
            patch(aliases::change),
        ),
        act(
            "delete",
            "/admin/v1/aliases/{address}",
            write,
            "Removes an alias.",
            None,
            gone,
            delete(aliases::delete),
        ),
        act(
            "post",
            "/admin/v1/lists",
            write,
            "Makes a mailing list.",
            Some("NewList"),
            (201, Json("List")),
            post(lists::create),
        ),
        read(
            "/admin/v1/lists/{address}",
            "One mailing list with its members.",
            Json("List"),
            get(lists::show),
        ),
        act(
            "patch",
            "/admin/v1/lists/{address}",
            write,
            "Changes a mailing list's owner, adds and removes members.",
            Some("ListPatch"),
            (200, Json("List")),
            patch(lists::change),
        ),
        act(
            "delete",
            "/admin/v1/lists/{address}",
            write,
            "Removes a mailing list.",
            None,
            gone,
            delete(lists::delete),
        ),
        Endpoint {
            scope: Some(Scope::Queue),
            ..read(
                "/admin/v1/queue",
                "The queue in numbers; reads all that waits for other hosts.",
                Json("QueueSummary"),
                get(queue::summary),
            )
        },
        Endpoint {
            scope: Some(Scope::Queue),
            ..read(
                "/admin/v1/queue/items",
                "What waits, from the query parameter `from` on, at most `limit`.",
                Json("QueueItems"),
                get(queue::items),
            )
        },
        Endpoint {
            scope: Some(Scope::Queue),
            ..read(
                "/admin/v1/queue/trace",
                "All that is known of a message by its id in the queue or its Message-ID, until two weeks after its end.",
                JsonList("QueueItem"),
                get(queue::trace),
            )
        },
        act(
            "post",
            "/admin/v1/queue/acts",
            Scope::Queue,
            "Acts on what waits for other hosts. What is being sent at this moment is left alone, and counted.",
            Some("QueueAct"),
            (200, Json("QueueActed")),
            post(queue::act),
        ),
        Endpoint {
            scope: Some(Scope::Queue),
            ..read(
                "/admin/v1/queue/shards",
                "The queue's shards, with the cursors of those who follow them.",
                JsonList("QueueShard"),
                get(shards::list),
            )
        },
        Endpoint {
            scope: Some(Scope::Queue),
            ..read(
                "/admin/v1/queue/shards/{shard}/entries",
                "What happened in a shard, from the number `from` on, or from where the cursor `cursor` stands; at most `limit`.",
                Json("QueueEntries"),
                get(shards::entries),
            )
        },
        act(
            "post",
            "/admin/v1/queue/shards/{shard}/cursors",
            Scope::Queue,
            "Notes how far a consumer has read; with `next` zero its cursor goes.",
            Some("QueueCursor"),
            gone,
            post(shards::move_cursor),
        ),
        Endpoint {
            scope: Some(Scope::Queue),
            ..read(
                "/admin/v1/queue/dialogues",
                "What was said to and by other hosts after the line `after`; waits for some seconds. Kept only while somebody asks.",
                Json("QueueDialogues"),
                get(shards::dialogues),
            )
        },
        Endpoint {
            scope: Some(Scope::Tokens),
            ..read(
                "/admin/v1/tokens",
                "All tokens, without their secrets.",
                JsonList("Token"),
                get(tokens::list),
            )
        },
        act(
            "post",
            "/admin/v1/tokens",
            Scope::Tokens,
            "Makes a token, the secret of which is shown in this answer only.",
            Some("NewToken"),
            (201, Json("Secret")),
            post(tokens::create),
        ),
        act(
            "delete",
            "/admin/v1/tokens/{name}",
            Scope::Tokens,
            "Withdraws a token.",
            None,
            gone,
            delete(tokens::delete),
        ),
    ]
}
