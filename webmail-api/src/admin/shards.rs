//! `/admin/v1/queue/shards`: the queue's logs, for those who follow what happens in it; and the live view of dialogues.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use mail::id::QueueId;
use queue::entry::Operation;
use queue::{Line, ShardId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::Api;
use super::body::{Body, done};
use super::problem::Problem;
use super::queue::open;

/// How long a request waits for something to be said.
const PATIENCE: Duration = Duration::from_secs(10);
/// Lines of dialogues in one answer.
const LINES_MAX: usize = 1_000;

/// A shard.
#[derive(Debug, Serialize)]
pub(crate) struct ShardBody {
    shard: String,
    /// Its last operation.
    seq: u64,
    /// Unfinished items in it.
    items: u64,
    cursors: Vec<CursorBody>,
}

/// How far a consumer has read.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CursorBody {
    name: String,
    /// The next operation that it will read; zero, in a request: it goes.
    next: u64,
}

/// A part of a shard's operations.
#[derive(Debug, Serialize)]
pub(crate) struct EntriesBody {
    entries: Vec<EntryBody>,
    /// Where the next part begins.
    next: u64,
    /// One behind the last operation that there was. Whoever reads on beyond it follows what happens, the moves of
    /// their own cursor too.
    end: u64,
}

/// An operation.
#[derive(Debug, Serialize)]
pub(crate) struct EntryBody {
    seq: u64,
    /// What kind it is of.
    what: &'static str,
    /// The item that it is about, by its number in the shard.
    item: Option<u64>,
    /// The message that it brings.
    queue_id: Option<String>,
    details: Value,
}

/// A part that is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntriesQuery {
    from: Option<u64>,
    cursor: Option<String>,
    limit: Option<usize>,
}

/// Lines that are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DialoguesQuery {
    after: u64,
    host: Option<String>,
}

/// Lines of dialogues.
#[derive(Debug, Serialize)]
pub(crate) struct DialoguesBody {
    lines: Vec<Line>,
    /// The `after` of the next request.
    next: u64,
}

impl EntryBody {
    fn new(seq: u64, operation: &Operation) -> Self {
        let (what, item, queue_id, details) = describe(seq, operation);
        Self { seq, what, item, queue_id: queue_id.map(|id| id.to_string()), details }
    }
}

/// An operation in the words of the API. What is large is counted and not shown: a trace shows the message.
fn describe(seq: u64, operation: &Operation) -> (&'static str, Option<u64>, Option<QueueId>, Value) {
    match operation {
        Operation::Accepted { due, message, progress, .. } => {
            let details = json!({
                "sender": message.sender.reverse_path.to_string(),
                "recipients": message.details.recipients().max(progress.recipients()),
                "size": message.body.size,
                "due": due,
                "expires": message.expires,
                "derived_from": message.derived.map(|derived| derived.number),
            });
            ("accepted", Some(seq), Some(message.queue_id), details)
        }
        Operation::Expanded { place, expanded, slice, .. } => {
            let targets = slice.as_ref().map_or(0, |slice| slice.count);
            ("expanded", Some(place.number), None, json!({ "recipients": expanded, "targets": targets }))
        }
        Operation::Settled { place, outcomes, placed, finished } => {
            let outcomes: Vec<Value> = outcomes
                .iter()
                .map(|(target, outcome)| json!({ "target": target, "outcome": outcome.as_str() }))
                .collect();
            let details = json!({ "outcomes": outcomes, "placed": placed, "finished": finished });
            ("settled", Some(place.number), None, details)
        }
        Operation::RemoteSettled { place, states, finished } => {
            let details = json!({ "recipients": states.len(), "finished": finished });
            ("remote-settled", Some(place.number), None, details)
        }
        Operation::Remote { place, changes, attempts, due, finished } => {
            let changes: Vec<Value> = changes
                .iter()
                .map(|(recipient, change)| json!({ "recipient": recipient, "change": shown(change) }))
                .collect();
            let details =
                json!({ "changes": changes, "attempts": attempts, "due": due, "finished": finished });
            ("remote", Some(place.number), None, details)
        }
        Operation::Rerouted { place, route } => {
            ("rerouted", Some(place.number), None, json!({ "route": route }))
        }
        Operation::PutOff { place, due } => ("put-off", Some(place.number), None, json!({ "due": due })),
        Operation::Moved { from, hour, item, .. } => {
            let details = json!({ "hour": hour, "due": item.due, "attempts": item.attempts });
            ("moved", Some(from.number), Some(item.message.queue_id), details)
        }
        Operation::Booted { at, .. } => ("booted", None, None, json!({ "at": at })),
        Operation::Window { below } => ("window", None, None, json!({ "below": below })),
        Operation::Began { place, crashes, .. } => {
            ("began", Some(place.number), None, json!({ "crashes": crashes }))
        }
        Operation::Forgotten { chunks } => ("forgotten", None, None, json!({ "chunks": chunks })),
        Operation::Watermark { producer, watermark } => {
            ("watermark", None, None, json!({ "producer": producer, "watermark": watermark }))
        }
        Operation::Left { place, at, departure } => {
            ("left", Some(place.number), None, json!({ "at": at, "departure": shown(departure) }))
        }
        Operation::Archived { to, .. } => ("archived", None, None, json!({ "to": to })),
        Operation::Cursor { name, to } => ("cursor", None, None, json!({ "name": name, "next": to })),
    }
}

/// Something as serde writes it.
fn shown(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

fn shard(text: &str) -> Result<ShardId, Problem> {
    text.parse().map_err(|()| Problem::unprocessable(format!("{text:?} is no shard, such as outbound-3")))
}

pub(crate) async fn list(State(api): State<Api>) -> Result<Json<Vec<ShardBody>>, Problem> {
    let views = open(&api)?.shard_views().await?;
    let body = |view: queue::ShardView| ShardBody {
        shard: view.shard.to_string(),
        seq: view.seq,
        items: view.items,
        cursors: view.cursors.into_iter().map(|(name, next)| CursorBody { name, next }).collect(),
    };
    Ok(Json(views.into_iter().map(body).collect()))
}

pub(crate) async fn entries(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Result<Query<EntriesQuery>, QueryRejection>,
) -> Result<Json<EntriesBody>, Problem> {
    let Query(EntriesQuery { from, cursor, limit }) =
        query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let limit = limit.unwrap_or(100).clamp(1, api.config().page_entries_max.max(1));
    let replay = open(&api)?.replay(shard(&name)?, from, cursor.as_deref(), limit).await?;
    let entries = replay.operations.iter().map(|(seq, operation)| EntryBody::new(*seq, operation));
    Ok(Json(EntriesBody { entries: entries.collect(), next: replay.next, end: replay.end }))
}

pub(crate) async fn move_cursor(
    State(api): State<Api>,
    Path(name): Path<String>,
    Body(cursor): Body<CursorBody>,
) -> Result<Response, Problem> {
    open(&api)?.move_cursor(shard(&name)?, &cursor.name, cursor.next).await?;
    Ok(done(format!("{name} {} {}", cursor.name, cursor.next)))
}

pub(crate) async fn dialogues(
    State(api): State<Api>,
    query: Result<Query<DialoguesQuery>, QueryRejection>,
) -> Result<Json<DialoguesBody>, Problem> {
    let Query(DialoguesQuery { after, host }) =
        query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let patience = PATIENCE.min(Duration::from_secs(api.config().request_seconds_max.max(2) / 2));
    let mut lines = open(&api)?.dialogues().after(after, LINES_MAX, patience).await;
    let next = lines.last().map_or(after, |line| line.number);
    if let Some(host) = host {
        lines.retain(|line| line.host.eq_ignore_ascii_case(&host));
    }
    Ok(Json(DialoguesBody { lines, next }))
}
