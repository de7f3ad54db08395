//! `postrider queue …`: from the command line to requests, and what of the answers people get to see.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::Method;
use mail::date::SentDate;
use serde_json::{Value, json};

use super::client::Client;
use super::command::{Request, Show, escape, get, send, without_null};
use super::print;
use crate::args::{QueueChosen, QueueCommand, QueueFilter, QueueKind, QueueState, Reach};

const PATH: &str = "/admin/v1/queue";
/// Entries that are asked for at a time.
const PAGE: u64 = 500;

/// The request for a command.
pub(super) fn request(command: QueueCommand) -> Request {
    match command {
        QueueCommand::Summary { reach } => get(reach, PATH.to_owned(), Show::QueueSummary),
        QueueCommand::List { filter, limit, reach } => get(
            reach,
            format!("{PATH}/items?{}", query(&members(&filter, now()))),
            Show::QueueItems { limit },
        ),
        QueueCommand::Trace { id, reach } => {
            get(reach, format!("{PATH}/trace?id={}", escape(&id)), Show::QueueTrace)
        }
        QueueCommand::Retry { chosen, reach } => act(reach, "retry", &chosen, None),
        QueueCommand::Hold { chosen, reach } => act(reach, "hold", &chosen, None),
        QueueCommand::Release { chosen, reach } => act(reach, "release", &chosen, None),
        QueueCommand::Cancel { chosen, reach } => act(reach, "cancel", &chosen, None),
        QueueCommand::Expire { chosen, reach } => act(reach, "expire", &chosen, None),
        QueueCommand::Reroute { to, chosen, reach } => act(reach, "reroute", &chosen, to.as_deref()),
        QueueCommand::Replay { shard: None, reach, .. } => get(reach, format!("{PATH}/shards"), Show::Answer),
        QueueCommand::Replay { shard: Some(shard), from: _, cursor: Some(cursor), forget: true, reach } => {
            let path = format!("{PATH}/shards/{}/cursors", escape(&shard));
            let forgotten = format!("{shard}: cursor {cursor} forgotten");
            let body = json!({ "name": cursor, "next": 0 });
            Request { show: Show::Done(forgotten), ..send(reach, Method::POST, path, body) }
        }
        QueueCommand::Replay { shard: Some(shard), from, cursor, forget: _, reach } => {
            let path = format!("{PATH}/shards/{}", escape(&shard));
            get(reach, path, Show::QueueReplay { from, cursor })
        }
        QueueCommand::Watch { host, reach } => {
            let host = host.map(|host| format!("&host={}", escape(&host))).unwrap_or_default();
            get(reach, format!("{PATH}/dialogues?{host}"), Show::QueueDialogues)
        }
        QueueCommand::Drop { id, reach } => {
            let body = json!({ "action": "drop", "filter": { "queue_id": id } });
            acting(reach, body)
        }
    }
}

fn act(reach: Reach, action: &str, chosen: &QueueChosen, route: Option<&str>) -> Request {
    let mut filter = members(&chosen.filter, now());
    filter["queue_id"] = json!(chosen.id);
    let filter = without_null(filter);
    acting(reach, json!({ "action": action, "filter": filter, "all": chosen.all, "route": route }))
}

fn acting(reach: Reach, body: Value) -> Request {
    Request { show: Show::QueueActed, ..send(reach, Method::POST, format!("{PATH}/acts"), body) }
}

/// A filter as the API has it. Ages become moments.
fn members(filter: &QueueFilter, now: u64) -> Value {
    let kind = filter.kind.map(|kind| match kind {
        QueueKind::Ingest => "ingest",
        QueueKind::Outbound => "outbound",
        QueueKind::Quarantine => "quarantine",
    });
    let state = filter.state.map(|state| match state {
        QueueState::Pending => "pending",
        QueueState::Deferred => "deferred",
        QueueState::Leased => "leased",
        QueueState::InDoubt => "in-doubt",
        QueueState::Held => "held",
        QueueState::Telling => "telling",
    });
    without_null(json!({
        "kind": kind,
        "domain": filter.domain,
        "site": filter.site,
        "sender": filter.sender,
        "state": state,
        "accepted_before": filter.older_than.map(|age| now.saturating_sub(age)),
        "accepted_since": filter.newer_than.map(|age| now.saturating_sub(age)),
    }))
}

fn query(members: &Value) -> String {
    let members = members.as_object().into_iter().flatten();
    let members = members.map(|(name, value)| match value {
        Value::String(text) => format!("{name}={}", escape(text)),
        other => format!("{name}={other}"),
    });
    let mut members: Vec<String> = members.collect();
    members.sort();
    members.join("&")
}

/// Lists what waits, page by page.
pub(super) async fn list(client: &Client, path: &str, limit: u64, json: bool) -> anyhow::Result<()> {
    let mut left = limit;
    let mut from = String::new();
    let now = now();
    while left > 0 {
        let mut page = format!("{path}&limit={}", left.min(PAGE));
        if !from.is_empty() {
            page = format!("{page}&from={}", escape(&from));
        }
        let Some(answer) = client.send(Method::GET, &page, None).await? else { break };
        for item in answer["items"].as_array().into_iter().flatten() {
            left = left.saturating_sub(1);
            print::line(&if json { item.to_string() } else { item_lines(item, now) });
        }
        match answer["next"].as_str() {
            Some(next) => next.clone_into(&mut from),
            None => return Ok(()),
        }
    }
    if !json && !from.is_empty() {
        print::line(&format!("(the first {limit}; --limit shows more)"));
    }
    Ok(())
}

/// Prints what happened in a shard to its end, and moves the cursor behind what was printed.
pub(super) async fn replay(
    client: &Client,
    shard: &str,
    from: Option<u64>,
    cursor: Option<&str>,
) -> anyhow::Result<()> {
    let mut from = from;
    // What comes while we read is for the next time: a cursor that is moved is itself an operation.
    let mut end = None;
    loop {
        let mut path = format!("{shard}/entries?limit={PAGE}");
        if let Some(from) = from {
            let _ = write!(path, "&from={from}");
        } else if let Some(cursor) = cursor {
            let _ = write!(path, "&cursor={}", escape(cursor));
        }
        let Some(answer) = client.send(Method::GET, &path, None).await? else { return Ok(()) };
        let entries = answer["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
        for entry in entries {
            print::line(&entry.to_string());
        }
        if entries.is_empty() {
            return Ok(());
        }
        from = answer["next"].as_u64();
        if let (Some(cursor), Some(next)) = (cursor, from) {
            let body = json!({ "name": cursor, "next": next });
            client.send(Method::POST, &format!("{shard}/cursors"), Some(&body)).await?;
        }
        let end = *end.get_or_insert(answer["end"].as_u64().unwrap_or_default());
        if from.is_none_or(|next| next >= end) {
            return Ok(());
        }
    }
}

/// Prints what is said, until it is interrupted.
pub(super) async fn watch(client: &Client, path: &str, json: bool) -> anyhow::Result<()> {
    if !client.is_server() {
        anyhow::bail!("no server runs, so nothing is said");
    }
    let mut after = 0;
    loop {
        let Some(answer) = client.send(Method::GET, &format!("{path}&after={after}"), None).await? else {
            return Ok(());
        };
        for line in answer["lines"].as_array().into_iter().flatten() {
            print::line(&if json { line.to_string() } else { dialogue_line(line) });
        }
        after = answer["next"].as_u64().unwrap_or(after);
    }
}

fn dialogue_line(line: &Value) -> String {
    let at = line["at"].as_u64().unwrap_or_default();
    let said = visible(text(&line["text"]));
    format!("{} #{} {} {said}", moment(at), line["connection"], text(&line["host"]))
}

/// What a host said, as one line, without anything that a terminal would obey.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Shows what is known of a message.
pub(super) fn trace(answer: &Value) {
    let items = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        print::line("nothing is known of it, or no more");
    }
    let now = now();
    for item in items {
        print::line(&item_lines(item, now));
    }
}

/// Shows the queue in numbers.
pub(super) fn summary(answer: &Value) {
    let number = |name: &str| answer[name].as_u64().unwrap_or_default();
    print::line(&format!(
        "{} delivered here, {} waiting for other hosts ({} recipients), {} in quarantine, {} worked on now",
        number("ingest"),
        number("outbound"),
        number("recipients"),
        number("quarantined"),
        number("in_flight"),
    ));
    for counts in ["states", "ages"] {
        for count in answer[counts].as_array().into_iter().flatten() {
            print::line(&format!("  {:>9}  {}", count["recipients"], text(&count["name"])));
        }
    }
    let now = now();
    for domain in answer["domains"].as_array().into_iter().flatten() {
        let mut line = format!(
            "  {:>9}  {}, {} deferred, oldest {}",
            domain["recipients"],
            text(&domain["domain"]),
            domain["deferred"],
            ago(&domain["oldest"], now),
        );
        push_said(&mut line, &domain["last"], now);
        print::line(&line);
    }
}

/// Shows what was done.
pub(super) fn acted(answer: &Value) {
    let number = |name: &str| answer[name].as_u64().unwrap_or_default();
    let mut line = format!("{} recipients of {} messages changed", number("recipients"), number("items"));
    if number("in_flight") > 0 {
        let _ =
            write!(line, "; {} are being sent to at this moment and were left alone", number("in_flight"));
    }
    print::line(&line);
}

/// One message in a few lines: itself, and each recipient.
fn item_lines(item: &Value, now: u64) -> String {
    let sender = text(&item["sender"]);
    let standing = text(&item["standing"]);
    let mut lines = format!(
        "{}  {}  from <{sender}>, {} octets, accepted {}, {}",
        text(&item["queue_id"]),
        text(&item["shard"]),
        item["size"],
        ago(&item["accepted"], now),
        match standing {
            "finished" => format!("done {}", ago(&item["since"], now)),
            "quarantined" => format!("in quarantine: {}", text(&item["reason"])),
            _ => format!("attempt {}, next {}", item["attempts"], until(&item["due"], now)),
        }
    );
    if let Some(id) = item["message_id"].as_str() {
        let _ = write!(lines, "\n    Message-ID <{id}>");
    }
    if let Some(route) = item["route"].as_str() {
        let _ = write!(lines, "\n    goes to {route} instead");
    }
    for recipient in item["recipients"].as_array().into_iter().flatten() {
        let address = recipient["address"].as_str().or(recipient["account"].as_str()).unwrap_or("?");
        let _ = write!(lines, "\n    <{address}>  {}", text(&recipient["state"]));
        if let Some(status) = recipient["status"].as_str() {
            let _ = write!(lines, " {status} {}", text(&recipient["text"]));
        }
        match recipient["notified"].as_bool() {
            Some(true) => lines.push_str(", its sender was told"),
            Some(false) => lines.push_str(", nobody was told"),
            None => {}
        }
        if recipient["doubts"].as_u64().is_some_and(|doubts| doubts > 0) {
            let _ = write!(lines, ", {} attempts in doubt", recipient["doubts"]);
        }
        push_said(&mut lines, &recipient["last"], now);
    }
    lines
}

fn push_said(line: &mut String, said: &Value, now: u64) {
    let Some(reply) = said["reply"].as_str() else { return };
    let _ = write!(line, "\n        {}", ago(&said["at"], now));
    if let Some(host) = said["host"].as_str() {
        let _ = write!(line, " {host}");
    }
    if let Some(address) = said["address"].as_str() {
        let _ = write!(line, " [{address}]");
    }
    if let Some(tls) = said["tls"].as_str() {
        let _ = write!(line, " {tls}");
    }
    let _ = write!(line, ": {}", visible(reply));
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn ago(at: &Value, now: u64) -> String {
    let Some(at) = at.as_u64() else { return "at an unknown time".to_owned() };
    format!("{} ({} ago)", moment(at), span(now.saturating_sub(at)))
}

fn until(at: &Value, now: u64) -> String {
    match at.as_u64() {
        Some(at) if at > now => format!("{} (in {})", moment(at), span(at - now)),
        Some(_) => "now".to_owned(),
        None => "at an unknown time".to_owned(),
    }
}

fn moment(at: u64) -> String {
    SentDate::utc(i64::try_from(at).unwrap_or(i64::MAX)).rfc3339().to_string()
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_become_members_of_a_query() {
        let filter = QueueFilter {
            kind: Some(QueueKind::Outbound),
            domain: None,
            site: None,
            sender: Some("<>".to_owned()),
            state: Some(QueueState::InDoubt),
            older_than: Some(60),
            newer_than: None,
        };
        let members = members(&filter, 1_000);
        assert_eq!(query(&members), "accepted_before=940&kind=outbound&sender=%3C%3E&state=in-doubt");
    }

    #[test]
    fn a_message_in_words() {
        let item = json!({
            "queue_id": "0198", "message_id": "a@b", "shard": "outbound-3", "sender": "alice@example.test", "size": 120,
            "accepted": 1_000, "standing": "waiting", "attempts": 2, "due": 2_000, "route": null,
            "recipients": [{
                "address": "bob@example.org", "state": "pending", "doubts": 1, "notified": null,
                "last": { "at": 1_100, "host": "mx.example.org", "address": "192.0.2.1", "tls": null, "reply": "451 later\n" },
            }],
        });
        assert_eq!(
            item_lines(&item, 1_130),
            "0198  outbound-3  from <alice@example.test>, 120 octets, accepted 1970-01-01T00:16:40Z (2 min ago), \
             attempt 2, next 1970-01-01T00:33:20Z (in 14 min)\n    Message-ID <a@b>\n    <bob@example.org>  pending, \
             1 attempts in doubt\n        1970-01-01T00:18:20Z (30 s ago) mx.example.org [192.0.2.1]: 451 later "
        );
    }
}
