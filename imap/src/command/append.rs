//! APPEND (RFC 9051 §6.3.12) and MULTIAPPEND (RFC 3502): literals go to storage as they come.

use imap_protocol::command::{Append, AppendMessage};
use imap_protocol::sequence::SetWriter;
use imap_protocol::server::Event;
use storage::{Account, AppendRequest, Appended, InternalDate, MessageWriter, StoredBody, Target};
use tracing::warn;

use crate::news::Expunges;
use crate::reply::{Answer, Reply, Stop, append_failure};
use crate::session::Session;

/// Reads the whole command and answers it.
pub(crate) async fn run(session: &mut Session, append: Append) -> Result<(), Stop> {
    let account = session.account()?;
    let mut stored = Vec::new();
    let outcome = receive(session, &account, append, &mut stored).await;
    // What was not appended is given up, whatever the reason.
    for (body, _) in stored.drain(..) {
        account.discard(body).await;
    }
    if let Some(reply) = outcome? {
        session.tell_news(Expunges::Tell).await?;
        session.finish(&reply);
    }
    Ok(())
}

type Stored = Vec<(StoredBody, AppendMessage)>;

/// Without a reply the machine has answered already.
async fn receive(
    session: &mut Session,
    account: &Account,
    append: Append,
    stored: &mut Stored,
) -> Result<Option<Reply>, Stop> {
    let name = append.mailbox;
    let mut message = append.message;
    let mut bytes = 0_u64;
    loop {
        let state = account.state();
        if state.mailbox_by_name(name.as_str()).is_none() {
            return Ok(Some(Reply::no("[TRYCREATE] No such mailbox")));
        }
        if message.size == 0 {
            return Ok(Some(Reply::no("[CANNOT] A message of no octets is no message")));
        }
        if stored.len() >= session.imap.config.append_messages_max {
            return Ok(Some(Reply::no("[LIMIT] Too many messages in one command")));
        }
        bytes = bytes.saturating_add(message.size);
        if !state.quota().has_room(stored.len() as u64 + 1, bytes) {
            return Ok(Some(Reply::no("[OVERQUOTA] Not enough room")));
        }
        session.pump.machine().take_message();
        let body = match take(session, account.body_writer(), message.size).await? {
            Ok(body) => body,
            Err(reply) => return Ok(Some(reply)),
        };
        stored.push((body, message));
        match session.pump.next().await? {
            Some(Event::AppendNext(next)) => message = next,
            Some(Event::AppendEnd) => return commit(account, name.as_str(), stored).await.map(Some),
            Some(_) => return Ok(None),
            None => return Err(Stop::Disconnected),
        }
    }
}

/// Takes the octets of one message and makes them durable.
async fn take(
    session: &mut Session,
    mut writer: MessageWriter,
    size: u64,
) -> Result<Result<StoredBody, Reply>, Stop> {
    let failed = |error: blob::WriteError| {
        warn!(%error, "a message could not be written");
        if error.is_temporary() {
            Reply::no("[UNAVAILABLE] The message could not be stored, try again later")
        } else {
            Reply::no("[TOOBIG] The message is too large")
        }
    };
    while writer.size() < size {
        match session.pump.next().await? {
            Some(Event::AppendChunk(chunk)) => {
                if let Err(error) = writer.write(chunk).await {
                    return Ok(Err(failed(error)));
                }
            }
            _ => return Err(Stop::Disconnected),
        }
    }
    Ok(writer.finish().await.map_err(failed))
}

async fn commit(account: &Account, name: &str, stored: &mut Stored) -> Answer {
    let Some(mailbox) = account.state().mailbox_by_name(name) else {
        return Ok(Reply::no("[TRYCREATE] No such mailbox"));
    };
    let mut requests: Vec<AppendRequest> = stored
        .iter()
        .map(|(body, message)| AppendRequest {
            target: Target::Mailbox(mailbox.id),
            body: body.clone(),
            flags: message.flags.clone(),
            internal_date: message
                .internal_date
                .map(|date| InternalDate::new(date.unix_seconds, date.zone_minutes)),
        })
        .collect();
    let appended = match requests.len() {
        1 => account.append(requests.remove(0)).await.map(|appended| vec![appended]),
        _ => account.append_many(requests).await,
    };
    match appended {
        Ok(appended) => {
            stored.clear();
            Ok(Reply::ok(append_uid(&appended)))
        }
        Err(error) => {
            if let storage::AppendError::Storage(storage::StorageError::Undecided) = &error {
                // The commit may yet happen: the bodies must stay.
                stored.clear();
            }
            append_failure(&error)
        }
    }
}

/// `[APPENDUID v uids]` (RFC 4315 §3).
fn append_uid(appended: &[Appended]) -> String {
    let Some(first) = appended.first() else { return "Append completed".into() };
    let mut uids = SetWriter::default();
    for appended in appended {
        uids.push(appended.uid.get());
    }
    format!("[APPENDUID {} {}] Append completed", first.uid_validity, uids.finish())
}
