//! The audit log: administrative acts and failed logins, one JSON object a line, appended and synced.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use async_trait::async_trait;
use directory::login::LoginFailure;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::oneshot;
use webmail_api::admin::audit::{Act, Audit};

/// Records that can wait to be written. An attacker who fails to log in faster than the disk syncs fills this; what
/// does not fit is counted instead, and the count is written.
const WAITING_MAX: usize = 1024;

/// Cheap to clone; all clones write to one file, in one thread.
#[derive(Clone)]
pub(crate) struct AuditLog {
    sender: SyncSender<Record>,
    dropped: Arc<AtomicU64>,
}

struct Record {
    line: Value,
    /// Told when the line is durable.
    done: Option<oneshot::Sender<io::Result<()>>>,
}

impl AuditLog {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("cannot open the audit log {}", path.display()))?;
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer { file, dropped: Arc::clone(&dropped) };
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run(&receiver))
            .context("cannot start the audit thread")?;
        Ok(Self { sender, dropped })
    }

    /// Notes a failed login, without waiting.
    pub(crate) fn login_failed(&self, failure: &LoginFailure<'_>) {
        let line = json!({
            "time": now(),
            "event": "login failed",
            "login": failure.login,
            "remote_ip": failure.remote.to_string(),
            "service": failure.service.name(),
            "reason": failure.reason,
        });
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Record { line, done: None }) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[async_trait]
impl Audit for AuditLog {
    async fn act(&self, act: &Act<'_>) -> io::Result<()> {
        let line = json!({
            "time": now(),
            "event": if act.status.is_some() { "act done" } else { "act begins" },
            "number": act.number,
            "pid": std::process::id(),
            "caller": act.caller.to_string(),
            "method": act.method,
            "path": act.path,
            "object": act.object,
            "status": act.status,
        });
        let (done, outcome) = oneshot::channel();
        let (sender, record) = (self.sender.clone(), Record { line, done: Some(done) });
        let gone = || io::Error::other("the audit thread has ended");
        tokio::task::spawn_blocking(move || sender.send(record))
            .await
            .map_err(io::Error::other)?
            .map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }
}

struct Writer {
    file: File,
    dropped: Arc<AtomicU64>,
}

impl Writer {
    /// Writes what has come, syncs once, tells everybody, and waits for more.
    fn run(mut self, receiver: &Receiver<Record>) {
        while let Ok(first) = receiver.recv() {
            let mut lines = Vec::new();
            let mut waiting = Vec::new();
            for record in std::iter::once(first).chain(receiver.try_iter().take(WAITING_MAX)) {
                append(&mut lines, &record.line);
                waiting.extend(record.done);
            }
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                append(
                    &mut lines,
                    &json!({ "time": now(), "event": "login failures not noted", "count": dropped }),
                );
            }
            let written = self.file.write_all(&lines).and_then(|()| self.file.sync_data());
            if let Err(error) = &written {
                tracing::error!(%error, "audit log cannot be written");
            }
            for done in waiting {
                let outcome = match &written {
                    Ok(()) => Ok(()),
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                };
                // Whoever asked may have gone.
                let _ = done.send(outcome);
            }
        }
    }
}

fn append(lines: &mut Vec<u8>, line: &Value) {
    lines.extend_from_slice(line.to_string().as_bytes());
    lines.push(b'\n');
}

fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use webmail_api::admin::caller::Caller;

    use super::*;

    #[tokio::test]
    async fn acts_are_in_the_file_when_they_return() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let audit = AuditLog::open(&path).unwrap();
        audit.login_failed(&LoginFailure {
            login: "eve@example.test",
            remote: [192, 0, 2, 1].into(),
            service: directory::Service::Imap,
            reason: "rejected",
        });
        let caller = Caller::User(1000);
        let act = Act {
            number: 7,
            caller: &caller,
            method: "POST",
            path: "/x",
            object: Some("o"),
            status: Some(201),
        };
        audit.act(&act).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["login"], "eve@example.test");
        assert_eq!(lines[1]["caller"], "uid 1000");
        assert_eq!(lines[1]["status"], 201);
    }
}
