//! Random verbs by two nodes on one account, beside a naive model of it.
//!
//! Everything that happens seldom is made to happen often: small pages, early snapshots, archiving, accounts that are
//! closed and opened again, nodes that start anew. After each verb its answer, and after some the whole account as the
//! other node sees it, must be what the model says; at the end a fold from the beginning of the archive too.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};

use mail::id::{MailboxId, ModSeq, Uid};
use mail::uid::UidSet;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use storage::{
    Account, AppendError, CheckDepth, Delivered, Delivery, FlagAction, FlagChange, IngestId, MailboxError,
    Storage, Target, Vanished,
};
use uuid::Uuid;

use crate::setup::*;

const NAMES: [&str; 7] = ["\\Seen", "\\Deleted", "\\Flagged", "$Work", "$Junk", "later", "\\Answered"];
const MAILBOXES: [&str; 6] = ["INBOX", "Trash", "Archive", "a", "a/b", "c"];

#[derive(Clone, Debug)]
struct Message {
    number: u32,
    flags: BTreeSet<&'static str>,
    modseq: u64,
}

#[derive(Clone, Debug)]
struct Folder {
    id: MailboxId,
    next_uid: u32,
    messages: BTreeMap<u32, Message>,
    gone: Vec<(u64, UidSet)>,
}

#[derive(Default)]
struct Model {
    folders: BTreeMap<String, Folder>,
    delivered: BTreeMap<u64, Option<bool>>,
    watermark: u64,
    last_modseq: u64,
    next_number: u32,
}

impl Model {
    fn folder(&mut self, name: &str) -> Option<&mut Folder> {
        self.folders.get_mut(name)
    }

    /// A MODSEQ that was answered: greater than all before.
    fn advance(&mut self, modseq: ModSeq) {
        assert!(modseq.0 > self.last_modseq, "{modseq} after {}", self.last_modseq);
        self.last_modseq = modseq.0;
    }
}

struct Nodes {
    disk: Disk,
    nodes: Vec<Option<(Storage, Option<Account>)>>,
}

impl Nodes {
    async fn account(&mut self, node: usize) -> Account {
        if self.nodes[node].is_none() {
            self.nodes[node] = Some((self.disk.start().await, None));
        }
        let (storage, account) = self.nodes[node].as_mut().unwrap();
        if account.is_none() {
            *account = Some(open(storage).await);
        }
        account.clone().unwrap()
    }

    /// The node forgets the account, or everything.
    fn forget(&mut self, node: usize, all: bool) {
        if let Some((storage, account)) = &mut self.nodes[node] {
            *account = None;
            storage.close_idle();
            if all {
                storage.close();
                self.nodes[node] = None;
            }
        }
    }
}

fn some_uids(rng: &mut StdRng, folder: &Folder) -> UidSet {
    match rng.random_range(0..4) {
        0 => UidSet::from_range(Uid::MIN, Uid::MAX),
        1 => (1..folder.next_uid + 2).filter(|_| rng.random_bool(0.3)).filter_map(Uid::new).collect(),
        _ => {
            let first = rng.random_range(1..folder.next_uid + 2);
            UidSet::from_range(uid(first), uid(first + rng.random_range(0..6)))
        }
    }
}

fn some_names(rng: &mut StdRng) -> Vec<&'static str> {
    NAMES.iter().copied().filter(|_| rng.random_bool(0.3)).collect()
}

fn existing(folder: &Folder, uids: &UidSet) -> Vec<u32> {
    folder.messages.keys().copied().filter(|number| uids.contains(uid(*number))).collect()
}

fn set(numbers: &[u32]) -> UidSet {
    numbers.iter().map(|number| uid(*number)).collect()
}

async fn step(rng: &mut StdRng, model: &mut Model, account: &Account) {
    let name = *MAILBOXES.choose(rng).unwrap();
    let other = *MAILBOXES.choose(rng).unwrap();
    match rng.random_range(0..20) {
        0..=5 => append(rng, model, account, name).await,
        6..=7 => deliver(rng, model, account, name).await,
        8..=11 => change_flags(rng, model, account, name).await,
        12 | 13 => transfer(rng, model, account, name, other, false).await,
        14 | 15 => transfer(rng, model, account, name, other, true).await,
        16 | 17 => expunge(rng, model, account, name).await,
        18 => create_or_delete(model, account, name).await,
        _ => rename(model, account, name, other).await,
    }
}

async fn append(rng: &mut StdRng, model: &mut Model, account: &Account, name: &str) {
    let Some(id) = model.folder(name).map(|folder| folder.id) else { return };
    let names = some_names(rng);
    let mut requests = Vec::new();
    let mut numbers = Vec::new();
    for _ in 0..rng.random_range(1..4) {
        model.next_number += 1;
        numbers.push(model.next_number);
        requests.push(request(write(account, &message(model.next_number)).await, id, &names.join(" ")));
    }
    let appended = account.append_many(requests).await.unwrap();
    for (appended, number) in appended.into_iter().zip(numbers) {
        model.advance(appended.modseq);
        put(model, name, appended.uid, number, &names, appended.modseq);
    }
}

fn put(model: &mut Model, name: &str, at: Uid, number: u32, names: &[&'static str], modseq: ModSeq) {
    let folder = model.folder(name).unwrap();
    assert_eq!(at.get(), folder.next_uid);
    folder.next_uid += 1;
    let message = Message { number, flags: names.iter().copied().collect(), modseq: modseq.0 };
    folder.messages.insert(at.get(), message);
}

async fn deliver(rng: &mut StdRng, model: &mut Model, account: &Account, name: &str) {
    let Some(id) = model.folder(name).map(|folder| folder.id) else { return };
    let item = rng.random_range(0..12) + model.watermark;
    model.next_number += 1;
    let number = model.next_number;
    let ingest = IngestId { producer: Uuid::from_u128(9), item, part: 0 };
    if rng.random_bool(0.2) {
        let rejected = account.reject_ingest(ingest, model.watermark).await.unwrap();
        match model.delivered.get(&item) {
            Some(Some(true)) => assert_eq!(rejected, Delivered::Already),
            _ => {
                assert_eq!(rejected, Delivered::Rejected);
                model.delivered.insert(item, Some(false));
            }
        }
        return;
    }
    // Now and then the producer is done with some items, and says so.
    if rng.random_bool(0.2) {
        model.watermark += rng.random_range(0..3);
    }
    let body = write(account, &message(number)).await;
    let delivery = Delivery { ingest, watermark: model.watermark, request: request(body, id, "") };
    match (account.deliver(delivery).await.unwrap(), model.delivered.get(&item).copied()) {
        (Delivered::Placed(appended), None) => {
            model.advance(appended.modseq);
            put(model, name, appended.uid, number, &[], appended.modseq);
            model.delivered.insert(item, Some(true));
        }
        (Delivered::Already, Some(Some(true))) | (Delivered::Rejected, Some(Some(false))) => {}
        // Below a watermark that an earlier delivery has brought, all counts as done.
        (Delivered::Already, _) if item < model.watermark => {}
        (answer, known) => panic!("item {item}: {answer:?}, known as {known:?}"),
    }
}

async fn change_flags(rng: &mut StdRng, model: &mut Model, account: &Account, name: &str) {
    let last_modseq = model.last_modseq;
    let Some(folder) = model.folder(name) else { return };
    let uids = some_uids(rng, folder);
    let names = some_names(rng);
    let action = *[FlagAction::Add, FlagAction::Remove, FlagAction::Replace].choose(rng).unwrap();
    let since = rng.random_bool(0.3).then(|| rng.random_range(0..=last_modseq));
    let change = FlagChange { action, flags: flags(&names.join(" ")) };
    let answer = account.set_flags(folder.id, uids.clone(), change, since.map(ModSeq)).await.unwrap();
    let (mut changed, mut modified) = (Vec::new(), Vec::new());
    for number in existing(folder, &uids) {
        let message = folder.messages.get_mut(&number).unwrap();
        if since.is_some_and(|since| message.modseq > since) {
            modified.push(number);
            continue;
        }
        let named: BTreeSet<&str> = names.iter().copied().collect();
        let new: BTreeSet<&'static str> = match action {
            FlagAction::Add => message.flags.union(&named).copied().collect(),
            FlagAction::Remove => message.flags.difference(&named).copied().collect(),
            FlagAction::Replace => named,
        };
        if new != message.flags {
            changed.push(number);
            message.flags = new;
            message.modseq = answer.modseq.unwrap().0;
        }
    }
    assert_eq!((answer.changed, answer.modified), (set(&changed), set(&modified)));
    assert_eq!(answer.modseq.is_some(), !changed.is_empty());
    if let Some(modseq) = answer.modseq {
        model.advance(modseq);
    }
}

async fn transfer(rng: &mut StdRng, model: &mut Model, account: &Account, from: &str, to: &str, moves: bool) {
    let (Some(source), Some(target)) = (model.folders.get(from).cloned(), model.folders.get(to).cloned())
    else {
        return;
    };
    let uids = some_uids(rng, &source);
    let numbers = existing(&source, &uids);
    let answer = if moves {
        account.move_messages(source.id, uids, target.id).await.unwrap()
    } else {
        account.copy(source.id, uids, target.id).await.unwrap()
    };
    let given: Vec<u32> = (target.next_uid..).take(numbers.len()).collect();
    assert_eq!((answer.source, answer.target), (set(&numbers), set(&given)));
    assert_eq!(answer.modseq.is_some(), !numbers.is_empty());
    let Some(modseq) = answer.modseq else { return };
    model.advance(modseq);
    if moves {
        let folder = model.folder(from).unwrap();
        folder.messages.retain(|number, _| !numbers.contains(number));
        folder.gone.push((modseq.0, set(&numbers)));
    }
    let folder = model.folder(to).unwrap();
    folder.next_uid += numbers.len() as u32;
    for (number, given) in numbers.iter().zip(given) {
        let message = Message { modseq: modseq.0, ..source.messages[number].clone() };
        folder.messages.insert(given, message);
    }
}

async fn expunge(rng: &mut StdRng, model: &mut Model, account: &Account, name: &str) {
    let Some(folder) = model.folder(name) else { return };
    let uids = some_uids(rng, folder);
    let is_deleted = |folder: &Folder, number: &u32| folder.messages[number].flags.contains("\\Deleted");
    let (answer, numbers) = if rng.random_bool(0.5) {
        let answer = account.expunge(folder.id, Some(uids.clone())).await.unwrap();
        (answer, existing(folder, &uids).into_iter().filter(|number| is_deleted(folder, number)).collect())
    } else {
        (account.remove(folder.id, uids.clone()).await.unwrap(), existing(folder, &uids))
    };
    assert_eq!(answer.uids, set(&numbers));
    if let Some(modseq) = answer.modseq {
        folder.messages.retain(|number, _| !numbers.contains(number));
        folder.gone.push((modseq.0, set(&numbers)));
        model.advance(modseq);
    }
}

async fn create_or_delete(model: &mut Model, account: &Account, name: &str) {
    if model.folders.contains_key(name) {
        let inferior = format!("{name}/");
        let has_children = model.folders.keys().any(|other| other.starts_with(&inferior));
        match account.delete_mailbox(name).await {
            Ok(()) => {
                assert!(name != "INBOX" && !has_children);
                model.folders.remove(name);
            }
            Err(MailboxError::NotPossible(_)) => assert_eq!(name, "INBOX"),
            Err(MailboxError::HasChildren) => assert!(has_children),
            Err(error) => panic!("{error}"),
        }
    } else {
        account.create_mailbox(name, None).await.unwrap();
        learn(model, account);
    }
}

async fn rename(model: &mut Model, account: &Account, from: &str, to: &str) {
    match account.rename_mailbox(from, to).await {
        Ok(()) if from == "INBOX" => {
            learn(model, account);
            let modseq = account.state().mailbox_by_name(to).unwrap().highest_modseq.0;
            let inbox = model.folder("INBOX").unwrap();
            let messages = std::mem::take(&mut inbox.messages);
            if !messages.is_empty() {
                inbox.gone.push((modseq, messages.keys().map(|number| uid(*number)).collect()));
                let target = model.folder(to).unwrap();
                for message in messages.into_values() {
                    target.messages.insert(target.next_uid, Message { modseq, ..message });
                    target.next_uid += 1;
                }
            }
        }
        Ok(()) => {
            let moved: Vec<String> = model
                .folders
                .keys()
                .filter(|name| {
                    *name == from || name.strip_prefix(from).is_some_and(|rest| rest.starts_with('/'))
                })
                .cloned()
                .collect();
            for name in moved {
                let folder = model.folders.remove(&name).unwrap();
                model.folders.insert(name.replacen(from, to, 1), folder);
            }
            learn(model, account);
        }
        Err(MailboxError::Missing) => assert!(!model.folders.contains_key(from)),
        Err(MailboxError::Exists) => assert!(model.folders.contains_key(to)),
        Err(MailboxError::NotPossible(_)) => assert!(to.starts_with(from)),
        Err(error) => panic!("{error}"),
    }
}

/// Takes mailboxes that were created into the model.
fn learn(model: &mut Model, account: &Account) {
    for mailbox in account.state().mailboxes() {
        assert!(mailbox.uid_validity.0.get() > 0);
        let folder = Folder { id: mailbox.id, next_uid: 1, messages: BTreeMap::new(), gone: Vec::new() };
        model.folders.entry(mailbox.name).or_insert(folder);
    }
    model.last_modseq = model.last_modseq.max(account.state().modseq().0);
}

async fn compare(rng: &mut StdRng, model: &Model, account: &Account) {
    let state = account.refresh().await.unwrap();
    let names: BTreeSet<String> = state.mailboxes().map(|mailbox| mailbox.name).collect();
    assert_eq!(names, model.folders.keys().cloned().collect());
    for (name, folder) in &model.folders {
        let shown = state.mailbox_by_name(name).unwrap();
        assert_eq!((shown.id, shown.messages as usize), (folder.id, folder.messages.len()));
        assert_eq!(shown.uid_next, Uid::new(folder.next_uid));
        let count =
            |flag: &str| folder.messages.values().filter(|message| message.flags.contains(flag)).count();
        assert_eq!(shown.unseen as usize, folder.messages.len() - count("\\Seen"));
        assert_eq!(shown.deleted as usize, count("\\Deleted"));
        let since = rng.random_range(0..=model.last_modseq);
        let (state, changes) = account.changes(folder.id, ModSeq(since)).await.unwrap();
        let changes = changes.unwrap();
        let changed = folder.messages.iter().filter(|(_, message)| message.modseq > since);
        assert_eq!(changes.changed, changed.map(|(number, _)| uid(*number)).collect());
        let gone = folder.gone.iter().filter(|(modseq, _)| *modseq > since);
        let gone = gone.fold(UidSet::new(), |all, (_, uids)| all.union(uids));
        match changes.vanished {
            Vanished::Known(known) => assert_eq!(known, gone),
            // Too long ago: the client is given the full set.
            Vanished::Forgotten => assert!(since < model.last_modseq),
        }
        let rows: Vec<_> = state.index(folder.id).unwrap().iter().collect();
        for (row, (number, message)) in rows.iter().zip(&folder.messages) {
            assert_eq!((row.uid.get(), row.modseq.0), (*number, message.modseq), "{name}");
            let shown: BTreeSet<String> = state
                .flag_set(row.marks)
                .to_string()
                .split(' ')
                .filter(|s| !s.is_empty())
                .map(str::to_owned)
                .collect();
            assert_eq!(shown, message.flags.iter().map(|flag| (*flag).to_owned()).collect());
        }
    }
}

async fn compare_bodies(model: &Model, account: &Account) {
    for folder in model.folders.values() {
        let state = account.mailbox(folder.id).await.unwrap();
        let rows: Vec<_> = state.index(folder.id).unwrap().iter().collect();
        let ids: Vec<_> = rows.iter().map(|row| row.email).collect();
        let records = account.emails(&ids).await.unwrap();
        for ((record, row), expected) in records.iter().zip(&rows).zip(folder.messages.values()) {
            let record = record.as_ref().expect("every message has its record");
            assert_eq!(record.size, u64::from(row.size));
            assert_eq!(bytes_of(account, row).await, message(expected.number));
        }
    }
}

async fn history(seed: u64, steps: usize) -> (u64, u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let disk = Disk::eventful();
    let (storage, account) = disk.start_with_account().await;
    let mut model = Model::default();
    learn(&mut model, &account);
    let mut nodes = Nodes { disk, nodes: vec![Some((storage, Some(account))), None] };
    for _ in 0..steps {
        let node = rng.random_range(0..2);
        let account = nodes.account(node).await;
        step(&mut rng, &mut model, &account).await;
        if rng.random_bool(0.3) {
            let account = nodes.account(1 - node).await;
            compare(&mut rng, &model, &account).await;
        }
        drop(account);
        if rng.random_bool(0.15) {
            nodes.forget(node, rng.random_bool(0.5));
        }
    }
    let account = nodes.account(0).await;
    compare(&mut rng, &model, &account).await;
    compare_bodies(&model, &account).await;
    let storage = nodes.nodes[0].as_ref().unwrap().0.clone();
    let report = storage.check(ACCOUNT, CheckDepth::Bodies).await.unwrap();
    assert_eq!(report.problems, Vec::<String>::new(), "seed {seed}");
    let stats = storage.log_stats();
    (stats.swings, report.operations)
}

#[tokio::test]
async fn two_nodes_are_one_account() {
    let (mut swings, mut operations) = (0, 0);
    for seed in 0..60 {
        let (swung, folded) = Box::pin(history(seed, 60)).await;
        swings += swung;
        operations += folded;
    }
    assert!(swings > 100, "{swings} snapshots became current");
    assert!(operations > 1500, "{operations} operations were folded again");
}

#[tokio::test]
async fn a_watermark_refuses_what_is_late() {
    let (_storage, account) = Disk::eventful().start_with_account().await;
    let inbox = mailbox(&account, "INBOX");
    let ingest = IngestId { producer: Uuid::from_u128(1), item: 3, part: 0 };
    let request = request(write(&account, &message(1)).await, inbox, "");
    let target = Target::Mailbox(MailboxId(99));
    let nowhere = storage::AppendRequest { target, ..request.clone() };
    let refused = account.deliver(Delivery { ingest, watermark: 0, request: nowhere }).await;
    assert!(matches!(refused, Err(AppendError::NoMailbox)));
}
