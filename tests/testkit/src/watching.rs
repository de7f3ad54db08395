//! Clients that look on while others work: one reads bodies and holds them against what was sent, one waits to be told.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::Rng;

use crate::imap;
use crate::ledger::{self, Subject};
use crate::load::Worker;
use crate::message;
use crate::observe::holds_text_of;

/// How long a client waits before it ends IDLE by itself.
const IDLE_SECONDS: u64 = 2;

/// Reads messages at random; what has other bytes than were sent is told to the run.
pub fn read(worker: &mut Worker) -> Result<()> {
    let account = worker.any_account();
    let mut client = worker.imap(&account)?;
    let examined = client.ok("EXAMINE INBOX")?.text();
    let count = examined
        .iter()
        .find_map(|line| line.strip_prefix("* ")?.strip_suffix(" EXISTS")?.parse::<u64>().ok());
    let count = count.context("EXAMINE without EXISTS")?;
    for _ in 0..10 {
        if worker.stopped() || count == 0 {
            break;
        }
        let number = worker.random.random_range(1..=count);
        let answer = client.ok(&format!("FETCH {number} (BODY.PEEK[])"))?;
        // It may have been expunged meanwhile.
        let fetched = answer
            .untagged
            .iter()
            .find(|line| String::from_utf8_lossy(&line[..line.len().min(80)]).contains(" FETCH (BODY[] {"));
        if let Some(line) = fetched {
            let text = String::from_utf8_lossy(line);
            if !message::id_of(&text).is_some_and(|id| holds_text_of(line, id)) {
                let begin: String = text.chars().take(300).collect();
                worker
                    .run
                    .shown_wrong(format!("{account} INBOX {number}: other bytes than were sent: {begin}"));
            }
        }
        worker.succeeded();
    }
    Ok(())
}

/// Waits in IDLE for mail, and notes how many seconds after its acknowledgement it heard of each message.
pub fn wait(worker: &mut Worker, heard: &Mutex<Vec<f64>>) -> Result<()> {
    let account = worker.any_account();
    let mut client = worker.imap(&account)?;
    let examined = client.ok("EXAMINE INBOX")?.text().join("\n");
    let mut next = imap::number_after(&examined, "UIDNEXT").context("EXAMINE without UIDNEXT")?;
    let began = Instant::now();
    while !worker.stopped() && began.elapsed() < Duration::from_secs(30) {
        let tag = client.send("IDLE")?;
        client.stream().set_read_timeout(Some(Duration::from_secs(IDLE_SECONDS)))?;
        let mut told = false;
        // Whatever is told ends it; and so does the end of patience, which shows as an error.
        while let Ok(line) = client.response() {
            told = line.ends_with(b" EXISTS");
            if told {
                break;
            }
        }
        let at = ledger::now();
        client.stream().set_read_timeout(Some(worker.plan.patience))?;
        client.raw(b"DONE\r\n")?;
        client.finish(&tag)?;
        if told {
            let command = format!("UID FETCH {next}:* (UID BODY.PEEK[HEADER.FIELDS (X-Test-Id)])");
            for text in client.ok(&command)?.text() {
                let (Some(uid), Some(id)) = (imap::number_after(&text, "UID"), message::id_of(&text)) else {
                    continue;
                };
                if uid < next {
                    continue;
                }
                next = uid + 1;
                let subject = Subject { account: account.clone(), id };
                if let Some(acknowledged) = worker.run.ledger.acknowledged_at(&subject)
                    && acknowledged < at
                {
                    heard.lock().expect("nobody panics with the lock").push(at - acknowledged);
                }
            }
        }
        worker.succeeded();
    }
    Ok(())
}
