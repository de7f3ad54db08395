//! A live view of the dialogues with other hosts: what was said lately, kept only while somebody looks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Lines that are kept for whoever is slow to fetch them.
const LINES_MAX: usize = 10_000;
/// Octets of a line; what is longer is cut.
const LINE_BYTES_MAX: usize = 500;
/// Whoever has not asked for so long has gone.
const WATCH: Duration = Duration::from_secs(60);

/// Something that was said.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Line {
    /// Grows with each line.
    pub number: u64,
    /// When (unix seconds).
    pub at: u64,
    /// Which connection.
    pub connection: u64,
    /// The host's name.
    pub host: String,
    /// The words: `C: ` ours, `S: ` theirs. Never a secret, never a message.
    pub text: String,
}

/// The view. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Dialogues {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    kept: Mutex<Kept>,
    connections: AtomicU64,
    said: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    watched_until: Option<Instant>,
    lines: VecDeque<Line>,
    next: u64,
}

impl Dialogues {
    /// A number for a connection, never used twice by this process.
    pub fn connection(&self) -> u64 {
        self.shared.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Adds a line, if somebody looks; `text` is only made then. `at` in unix seconds.
    pub fn say(&self, at: u64, connection: u64, host: &str, text: impl FnOnce() -> String) {
        let mut kept = self.shared.kept.lock();
        if kept.watched_until.is_none_or(|until| until < Instant::now()) {
            if kept.watched_until.take().is_some() {
                kept.lines = VecDeque::new();
            }
            return;
        }
        let mut text = text();
        let mut end = LINE_BYTES_MAX.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        kept.next += 1;
        let line = Line { number: kept.next, at, connection, host: host.to_owned(), text };
        if kept.lines.len() == LINES_MAX {
            kept.lines.pop_front();
        }
        kept.lines.push_back(line);
        drop(kept);
        self.shared.said.notify_waiters();
    }

    /// Lines with numbers above `after`, at most `limit`; waits for the first of them so long. From now on somebody looks.
    pub async fn after(&self, after: u64, limit: usize, patience: Duration) -> Vec<Line> {
        let deadline = Instant::now() + patience;
        loop {
            let said = self.shared.said.notified();
            tokio::pin!(said);
            said.as_mut().enable();
            let lines: Vec<Line> = {
                let mut kept = self.shared.kept.lock();
                kept.watched_until = Some(Instant::now() + WATCH);
                let from = kept.lines.partition_point(|line| line.number <= after);
                kept.lines.range(from..).take(limit).cloned().collect()
            };
            if !lines.is_empty() || tokio::time::timeout_at(deadline, said).await.is_err() {
                return lines;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[tokio::test(start_paused = true)]
    async fn kept_only_while_somebody_looks() {
        let view = Dialogues::default();
        let say = |text: &str| view.say(7, 1, "mx.test", || text.to_owned());
        say("C: before");
        assert!(view.after(0, 9, NOW).await.is_empty());
        say("C: EHLO us.test");
        say("S: 250 mx.test");
        let lines = view.after(0, 9, NOW).await;
        assert_eq!(
            lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(),
            ["C: EHLO us.test", "S: 250 mx.test"]
        );
        assert_eq!(view.after(lines[0].number, 9, NOW).await, lines[1..]);
        assert_eq!(view.after(0, 1, NOW).await, lines[..1]);
        tokio::time::advance(WATCH + Duration::from_secs(1)).await;
        view.say(7, 1, "mx.test", || panic!("nobody looks"));
        assert!(view.after(0, 9, NOW).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_told_and_memory_is_bounded() {
        let view = Dialogues::default();
        let waiting = tokio::spawn({
            let view = view.clone();
            async move { view.after(0, 9, Duration::from_secs(20)).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        view.say(7, 1, "mx.test", || "ä".repeat(1_000));
        assert_eq!(waiting.await.unwrap()[0].text.len(), LINE_BYTES_MAX);
        for number in 0..LINES_MAX + 5 {
            view.say(7, 1, "mx.test", || number.to_string());
        }
        let lines = view.after(0, usize::MAX, NOW).await;
        assert_eq!((lines.len(), lines[0].text.as_str()), (LINES_MAX, "5"));
    }
}
