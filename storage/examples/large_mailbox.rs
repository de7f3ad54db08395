//! Measures verbs on a mailbox of 50 000 messages on the engine in memory: what the state itself costs, without disk,
//! protocol or network. Run it with `cargo run --release -p storage --example large_mailbox`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement for the terminal")]

use std::sync::Arc;
use std::time::Instant;

use blob::keys::KeyEncryptionKey;
use blob::memory::MemoryBlobs;
use blob::{BlobArchive, BlobStore, KeyRing};
use bytes::Bytes;
use engine::memory::MemoryEngine;
use engine::{LogOptions, State};
use mail::flag::{Flag, FlagSet, Flags};
use mail::id::{AccountId, EmailId, MailboxId, Uid};
use mail::uid::UidSet;
use storage::{
    Account, AccountSettings, AppendRequest, Config, EmailUpdate, FlagAction, FlagChange, KeywordsPatch,
    MailboxesPatch, Principal, Storage, StoredBody, Target,
};

const MESSAGES: u32 = 50_000;

async fn storage(engine: &MemoryEngine, blobs: &MemoryBlobs) -> Storage {
    let config = blob::Config::default();
    let engine = engine.engine();
    let keys = KeyRing::new(KeyEncryptionKey::from_secret(&[1; 32]), engine.rows.clone(), &config);
    let blobs = BlobStore::new(Arc::new(blobs.clone()), engine.rows.clone(), keys, config).await.unwrap();
    let archive = Arc::new(BlobArchive::new(blobs.clone()));
    Storage::new(engine, LogOptions::default(), Some(archive), blobs, Config::default())
}

async fn body(account: &Account, number: u32) -> StoredBody {
    let text = format!(
        "From: Ann Example <ann{number}@example.test>\r\nTo: Bob <bob@example.test>\r\nSubject: Message {number}\r\n\
         Message-ID: <{number}.{}@mail.example.test>\r\nIn-Reply-To: <{}.x@mail.example.test>\r\n\
         Date: Mon, 2 Mar 2026 10:00:00 +0100\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
         Hello Bob,\r\n\r\nthis is number {number}.\r\n",
        number * 7,
        number / 3,
    );
    let mut writer = account.body_writer();
    writer.write(Bytes::from(text)).await.unwrap();
    writer.finish().await.unwrap()
}

async fn request(account: &Account, target: Target, number: u32) -> AppendRequest {
    AppendRequest { target, body: body(account, number).await, flags: FlagSet::new(), internal_date: None }
}

struct Clock(Instant);

impl Clock {
    fn lap(&mut self, what: &str, count: u32) {
        let elapsed = self.0.elapsed();
        println!("{what:<46} {elapsed:>12.2?} {:>10.2?} each", elapsed / count.max(1));
        self.0 = Instant::now();
    }
}

fn set(first: u32, last: u32) -> UidSet {
    UidSet::from_range(Uid::new(first).unwrap(), Uid::new(last).unwrap())
}

#[tokio::main]
async fn main() {
    let (engine, blobs) = (MemoryEngine::new(), MemoryBlobs::new());
    let storage_then = storage(&engine, &blobs).await;
    let id = AccountId(uuid::Uuid::from_u128(1));
    storage_then.create_account(id, AccountSettings::default()).await.unwrap();
    let account = storage_then.account(&Principal::Operator, id).await.unwrap();
    let inbox = account.state().mailbox_by_name("INBOX").unwrap().id;
    let trash = account.state().mailbox_by_name("Trash").unwrap().id;
    let target = Target::Mailbox(inbox);

    let mut clock = Clock(Instant::now());
    let mut number = 0;
    while number < MESSAGES {
        let mut requests = Vec::new();
        for _ in 0..100 {
            requests.push(request(&account, target.clone(), number).await);
            number += 1;
        }
        account.append_many(requests).await.unwrap();
    }
    clock.lap("bodies and appends, 100 in a commit", MESSAGES);

    let stats = storage_then.log_stats();
    let sessions = (0..10).map(|session| {
        let (account, target) = (account.clone(), target.clone());
        tokio::spawn(async move {
            for number in 0..500 {
                let request = request(&account, target.clone(), session * 500 + number).await;
                account.append(request).await.unwrap();
            }
        })
    });
    for session in sessions.collect::<Vec<_>>() {
        session.await.unwrap();
    }
    clock.lap("appends by 10 sessions", 5_000);
    println!("    in {} groups", storage_then.log_stats().groups - stats.groups);
    for number in 0..500 {
        account.append(request(&account, target.clone(), number).await).await.unwrap();
    }
    clock.lap("appends by one session", 500);
    println!("    {} bytes in memory", account.state().weight());
    drop(account);
    storage_then.close();

    let storage_now = storage(&engine, &blobs).await;
    clock = Clock(Instant::now());
    let account = storage_now.account(&Principal::Operator, id).await.unwrap();
    clock.lap("cold: open", 1);
    let state = account.mailbox(inbox).await.unwrap();
    clock.lap("cold: load the index", MESSAGES);
    let index = state.index(inbox).unwrap();
    let unseen = index.iter().filter(|row| !row.marks.has(Flag::Seen)).count();
    clock.lap("FLAGS: all rows", unseen as u32);
    println!("    {} bytes in memory", state.weight());
    let emails: Vec<_> = index.iter().map(|row| row.email).collect();
    clock.lap("rows to email ids", emails.len() as u32);
    for what in ["cold", "warm"] {
        let mut bytes = 0;
        for some in emails.chunks(500) {
            for record in account.emails(some).await.unwrap().into_iter().flatten() {
                bytes += record.summary().unwrap().subject.unwrap().as_bytes().len();
            }
        }
        assert!(bytes > 0);
        clock.lap(&format!("ENVELOPE {what}"), emails.len() as u32);
    }
    for some in emails.chunks(500) {
        for record in account.emails(some).await.unwrap().into_iter().flatten() {
            assert!(record.structure().unwrap().body.end > 0);
        }
    }
    clock.lap("BODYSTRUCTURE warm", emails.len() as u32);

    by_email(&account, &mut clock, inbox, trash).await;
    for (what, action) in [("set", FlagAction::Add), ("clear", FlagAction::Remove)] {
        let change = FlagChange { action, flags: Flags::from(Flag::Seen).into() };
        let set = account.set_flags(inbox, set(1, MESSAGES), change, None).await.unwrap();
        clock.lap(&format!("STORE {what} \\Seen on all"), set.changed.len() as u32);
    }
    let odd: UidSet = (1..MESSAGES).step_by(2).filter_map(Uid::new).collect();
    let change = FlagChange { action: FlagAction::Add, flags: Flags::from(Flag::Flagged).into() };
    account.set_flags(inbox, odd, change, None).await.unwrap();
    clock.lap("STORE on every second", MESSAGES / 2);
    account.copy(inbox, set(1, 1000), trash).await.unwrap();
    clock.lap("COPY 1 000", 1000);
    account.move_messages(inbox, set(2001, 3000), trash).await.unwrap();
    clock.lap("MOVE 1 000", 1000);
    account.copy(inbox, set(1, 1000), trash).await.unwrap();
    clock.lap("COPY 1 000 to where they are already", 1000);
    account.copy(inbox, set(1, MESSAGES), trash).await.unwrap();
    clock.lap("COPY all", MESSAGES);
    account.remove(inbox, set(3001, MESSAGES)).await.unwrap();
    clock.lap("EXPUNGE nearly all", MESSAGES - 3000);
    let report = storage_now.check(id, storage::CheckDepth::Metadata).await.unwrap();
    clock.lap("check", report.operations as u32);
    println!("    {} problems", report.problems.len());
    storage_now.close();
}

/// What JMAP asks.
async fn by_email(account: &Account, clock: &mut Clock, inbox: MailboxId, trash: MailboxId) {
    let view = account.view().await.unwrap();
    clock.lap("view by email, made anew", view.len() as u32);
    println!("    {} bytes, index pages included", view.weight());
    let since = account.state().emails_state();
    let rounds = 200;
    for round in 0..rounds {
        let change = FlagChange { action: FlagAction::Add, flags: Flags::from(Flag::Answered).into() };
        account.set_flags(inbox, set(round * 200 + 1, round * 200 + 1), change, None).await.unwrap();
    }
    clock.lap("STORE on one, without the view", rounds);
    account.view().await.unwrap();
    clock.lap("view followed over these", 1);
    for round in 0..rounds {
        let change = FlagChange { action: FlagAction::Remove, flags: Flags::from(Flag::Answered).into() };
        account.set_flags(inbox, set(round * 200 + 1, round * 200 + 1), change, None).await.unwrap();
        account.view().await.unwrap();
    }
    clock.lap("STORE on one, and the view followed", rounds);
    for _ in 0..rounds {
        let changes = account.email_changes(since, 500).await.unwrap();
        assert_eq!(changes.updated.len() as u32, rounds);
    }
    clock.lap("email changes: 200 of them", rounds);
    for _ in 0..rounds {
        account.mailbox_changes(since, 500).await.unwrap();
    }
    clock.lap("mailbox changes after the same", rounds);
    let view = account.view().await.unwrap();
    for _ in 0..rounds {
        let first: Vec<_> = view.received_in(inbox).rev().take(50).filter_map(|id| view.email(id)).collect();
        assert_eq!(first.len(), 50);
    }
    clock.lap("newest 50 of the mailbox", rounds);
    let some: Vec<_> = view.received_in(inbox).take(1_000).collect();
    let update = |add: MailboxId, remove: MailboxId| {
        let update = |email: &EmailId| EmailUpdate {
            email: *email,
            keywords: Some(KeywordsPatch::Change {
                add: Flags::from(Flag::Seen).into(),
                remove: FlagSet::new(),
            }),
            mailboxes: Some(MailboxesPatch::Change { add: [add].into(), remove: [remove].into() }),
        };
        some.iter().map(update).collect::<Vec<_>>()
    };
    account.update_emails(update(trash, inbox), None).await.unwrap();
    clock.lap("update 1 000 emails: seen, and moved", 1_000);
    account.update_emails(update(inbox, trash), None).await.unwrap();
    clock.lap("and moved back", 1_000);
}
