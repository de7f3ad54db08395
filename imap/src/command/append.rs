//! APPEND (RFC 9051 §6.3.12) and MULTIAPPEND (RFC 3502): literals go to storage as they come, and the answer may be put
//! off while the client sends more of them.

use imap_protocol::command::{Append, AppendMessage};
use imap_protocol::server::Event;
use mail::id::MailboxId;
use storage::{Account, MessageWriter, StoredBody};
use tokio::task::JoinHandle;

use crate::appends::{Received, write_failure};
use crate::news::Expunges;
use crate::reply::{Reply, Stop};
use crate::session::Session;

/// Reads the whole command. It is answered when its messages are durable, or here when it is refused.
pub(crate) async fn run(session: &mut Session, append: Append) -> Result<(), Stop> {
    let account = session.account()?;
    // One at least can be under way, whatever is configured.
    while session.appends_owed() >= session.imap.config.append_pipeline_max.max(1) {
        session.answer_some_appends().await?;
    }
    let mut writing = Vec::new();
    match receive(session, &account, append, &mut writing).await {
        Ok(Outcome::Received { mailbox, messages, last }) => {
            // The machine has said that the command has ended, so it has a tag.
            if let Some(tag) = session.pump.machine().defer() {
                let writing = tokio::spawn(finish(account.clone(), writing, *last));
                session.owe_append(account, Received { tag, mailbox, messages, writing });
            }
            Ok(())
        }
        Ok(Outcome::Refused(reply)) => {
            give_up(account, writing);
            session.tell_news(Expunges::Tell).await?;
            session.finish(&reply);
            Ok(())
        }
        Ok(Outcome::Answered) => {
            give_up(account, writing);
            Ok(())
        }
        Err(stop) => {
            give_up(account, writing);
            Err(stop)
        }
    }
}

/// A message that becomes durable while the next one comes.
type Message = JoinHandle<Result<StoredBody, blob::WriteError>>;

enum Outcome {
    /// All octets have come.
    Received { mailbox: MailboxId, messages: Vec<AppendMessage>, last: Box<MessageWriter> },
    /// Not wanted.
    Refused(Reply),
    /// The machine has answered already.
    Answered,
}

async fn receive(
    session: &mut Session,
    account: &Account,
    append: Append,
    writing: &mut Vec<Message>,
) -> Result<Outcome, Stop> {
    let name = append.mailbox;
    let mut message = append.message;
    let mut messages = Vec::new();
    let mut bytes = 0_u64;
    loop {
        let state = account.state();
        let Some(mailbox) = state.mailbox_by_name(name.as_str()).map(|mailbox| mailbox.id) else {
            return Ok(Outcome::Refused(Reply::no("[TRYCREATE] No such mailbox")));
        };
        if message.size == 0 {
            return Ok(Outcome::Refused(Reply::no("[CANNOT] A message of no octets is no message")));
        }
        if messages.len() >= session.imap.config.append_messages_max {
            return Ok(Outcome::Refused(Reply::no("[LIMIT] Too many messages in one command")));
        }
        bytes = bytes.saturating_add(message.size);
        if !state.quota().has_room(messages.len() as u64 + 1, bytes) {
            return Ok(Outcome::Refused(Reply::no("[OVERQUOTA] Not enough room")));
        }
        session.pump.machine().take_message();
        let mut last = account.body_writer();
        if let Some(refusal) = take(session, &mut last, message.size).await? {
            return Ok(Outcome::Refused(refusal));
        }
        messages.push(message);
        match session.next_event().await? {
            Some(Event::AppendNext(next)) => {
                message = next;
                writing.push(tokio::spawn(last.finish()));
            }
            Some(Event::AppendEnd) => {
                return Ok(Outcome::Received { mailbox, messages, last: Box::new(last) });
            }
            Some(_) => return Ok(Outcome::Answered),
            None => return Err(Stop::Disconnected),
        }
    }
}

/// Takes the octets of one message.
async fn take(session: &mut Session, writer: &mut MessageWriter, size: u64) -> Result<Option<Reply>, Stop> {
    while writer.size() < size {
        match session.next_event().await? {
            Some(Event::AppendChunk(chunk)) => {
                if let Err(error) = writer.write(chunk).await {
                    return Ok(Some(write_failure(&error)));
                }
            }
            _ => return Err(Stop::Disconnected),
        }
    }
    Ok(None)
}

/// Makes the messages of a command durable, all of them or none.
async fn finish(
    account: Account,
    earlier: Vec<Message>,
    last: MessageWriter,
) -> Result<Vec<StoredBody>, blob::WriteError> {
    let last = last.finish().await;
    let mut bodies = Vec::with_capacity(earlier.len() + 1);
    let mut failed = None;
    for task in earlier {
        match task.await.unwrap_or(Err(blob::WriteError::Failed)) {
            Ok(body) => bodies.push(body),
            Err(error) => failed = Some(error),
        }
    }
    match last {
        Ok(body) => bodies.push(body),
        Err(error) => failed = Some(error),
    }
    let Some(error) = failed else { return Ok(bodies) };
    for body in bodies {
        account.discard(body).await;
    }
    Err(error)
}

/// Messages of a command that came to nothing are given up once they are written.
fn give_up(account: Account, writing: Vec<Message>) {
    if writing.is_empty() {
        return;
    }
    tokio::spawn(async move {
        for task in writing {
            if let Ok(Ok(body)) = task.await {
                account.discard(body).await;
            }
        }
    });
}
