//! APPENDs that have been received and are not answered yet.
//!
//! A client that sends many in a row need not wait for each to be durable: while the octets of one are written, the
//! next one comes, and those that are complete when a commit ends go together into the next one.

use std::collections::VecDeque;

use futures_util::future::FutureExt;
use imap_protocol::command::{AppendMessage, Tag};
use imap_protocol::sequence::SetWriter;
use mail::id::MailboxId;
use storage::{
    Account, AppendError, AppendRequest, Appended, InternalDate, StorageError, StoredBody, Target,
};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::reply::{Answer, Reply, append_failure};

/// The messages of one command as they become durable.
pub(crate) type Writing = JoinHandle<Result<Vec<StoredBody>, blob::WriteError>>;

/// A command whose octets have all come.
pub(crate) struct Received {
    pub(crate) tag: Tag,
    pub(crate) mailbox: MailboxId,
    pub(crate) messages: Vec<AppendMessage>,
    pub(crate) writing: Writing,
}

/// A command whose messages are durable, or could not be made so.
struct Written {
    tag: Tag,
    outcome: Result<Vec<AppendRequest>, blob::WriteError>,
}

/// Answers, each with the tag of its command.
pub(crate) type Answers = Vec<(Tag, Answer)>;

/// The commands of one session that wait for their answers, in the order in which they came.
pub(crate) struct Appends {
    account: Account,
    receiving: VecDeque<Received>,
    written: Vec<Written>,
    committing: Option<(Vec<Tag>, JoinHandle<Answers>)>,
    /// Commands under way in all.
    count: usize,
}

impl Appends {
    pub(crate) fn new(account: Account) -> Self {
        Self { account, receiving: VecDeque::new(), written: Vec::new(), committing: None, count: 0 }
    }

    /// Commands that wait for their answers.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn push(&mut self, received: Received) {
        self.count += 1;
        self.receiving.push_back(received);
    }

    /// The next answers; waits for ever when none are owed. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Answers {
        loop {
            // What is durable already goes together.
            while let Some(first) = self.receiving.front_mut() {
                match (&mut first.writing).now_or_never() {
                    Some(outcome) => self.written(outcome),
                    None => break,
                }
            }
            if self.committing.is_none() && !self.written.is_empty() {
                let written = std::mem::take(&mut self.written);
                let tags = written.iter().map(|command| command.tag.clone()).collect();
                self.committing = Some((tags, tokio::spawn(commit(self.account.clone(), written))));
            }
            tokio::select! {
                committed = ended(self.committing.as_mut().map(|(_, task)| task)) => {
                    let tags = self.committing.take().map(|(tags, _)| tags).unwrap_or_default();
                    self.count -= tags.len();
                    // A commit whose task has gone may have happened.
                    let lost = |tag| (tag, append_failure(&AppendError::Storage(StorageError::Undecided)));
                    return committed.unwrap_or_else(|_| tags.into_iter().map(lost).collect());
                }
                outcome = ended(self.receiving.front_mut().map(|first| &mut first.writing)) => {
                    self.written(outcome);
                }
            }
        }
    }

    /// The first command's messages are durable or have failed.
    fn written(
        &mut self,
        outcome: Result<Result<Vec<StoredBody>, blob::WriteError>, tokio::task::JoinError>,
    ) {
        let Some(Received { tag, mailbox, messages, .. }) = self.receiving.pop_front() else { return };
        let outcome = outcome.unwrap_or(Err(blob::WriteError::Failed)).map(|bodies| {
            let request = |(body, message): (StoredBody, AppendMessage)| AppendRequest {
                target: Target::Mailbox(mailbox),
                body,
                flags: message.flags,
                internal_date: message
                    .internal_date
                    .map(|date| InternalDate::new(date.unix_seconds, date.zone_minutes)),
            };
            bodies.into_iter().zip(messages).map(request).collect()
        });
        self.written.push(Written { tag, outcome });
    }
}

/// Waits for a task, for ever when there is none.
async fn ended<T>(task: Option<&mut JoinHandle<T>>) -> Result<T, tokio::task::JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// Commits commands together; what could not be written is answered before them.
async fn commit(account: Account, commands: Vec<Written>) -> Answers {
    let (mut sets, mut tags, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for Written { tag, outcome } in commands {
        match outcome {
            Ok(set) => {
                sets.push(set);
                tags.push(tag);
            }
            Err(error) => answers.push((tag, Ok(write_failure(&error)))),
        }
    }
    let results = account.append_sets(sets).await;
    answers.extend(tags.into_iter().zip(results).map(|(tag, result)| {
        let answer = match result {
            Ok(appended) => Ok(Reply::ok(append_uid(&appended))),
            Err(error) => append_failure(&error),
        };
        (tag, answer)
    }));
    answers
}

/// A message that could not be written, as an answer.
pub(crate) fn write_failure(error: &blob::WriteError) -> Reply {
    warn!(%error, "a message could not be written");
    if error.is_temporary() {
        Reply::no("[UNAVAILABLE] The message could not be stored, try again later")
    } else {
        Reply::no("[TOOBIG] The message is too large")
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
