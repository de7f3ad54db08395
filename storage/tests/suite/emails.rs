//! Emails as JMAP sees them, beside brute force: random verbs of both kinds by two nodes, small pages, early snapshots.
//!
//! After each step the view by email must be what all indexes together say. What is said to have changed since any
//! earlier state, taken over piece by piece as a client does it, must lead from what there was to what there is.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mail::flag::Flag;
use mail::id::{EmailId, MailboxId, ThreadId};
use mail::uid::UidSet;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use storage::{
    Account, ChangeSet, ChangesError, CheckDepth, EmailUpdate, EmailUpdateError, FlagAction, FlagChange,
    ImportRequest, InternalDate, KeywordsPatch, MailboxCounts, MailboxPatch, MailboxesPatch, NewMailbox,
    ObjectKind, ObjectWrite, OnDestroy, Since, Storage,
};

use crate::setup::*;

const NAMES: [&str; 6] = ["\\Seen", "\\Flagged", "\\Draft", "$Work", "$Junk", "\\Deleted"];
const MAILBOXES: [&str; 5] = ["INBOX", "Trash", "a", "a/b", "c"];
const KINDS: [ObjectKind; 2] = [ObjectKind::IDENTITY, ObjectKind::EMAIL_SUBMISSION];

#[derive(Clone, PartialEq, Eq, Debug)]
struct Email {
    mailboxes: BTreeSet<MailboxId>,
    keywords: BTreeSet<String>,
    thread: ThreadId,
    size: u32,
    received: InternalDate,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Folder {
    name: String,
    role: Option<storage::Role>,
    sort_order: u32,
    is_subscribed: bool,
    counts: MailboxCounts,
}

/// All that a client can know.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Known {
    emails: BTreeMap<EmailId, Email>,
    threads: BTreeMap<ThreadId, Vec<EmailId>>,
    folders: BTreeMap<MailboxId, Folder>,
    objects: BTreeMap<(ObjectKind, String), Bytes>,
}

fn names(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// From the indexes alone.
async fn brute_force(account: &Account) -> (u64, Known) {
    loop {
        let ids: Vec<MailboxId> = account.state().mailboxes().map(|mailbox| mailbox.id).collect();
        for id in ids {
            account.mailbox(id).await.unwrap();
        }
        let state = account.state();
        if state.mailboxes().any(|mailbox| state.index(mailbox.id).is_none()) {
            continue;
        }
        let mut known = Known::default();
        let mut all_seen: BTreeMap<EmailId, bool> = BTreeMap::new();
        for mailbox in state.mailboxes() {
            for row in state.index(mailbox.id).unwrap().iter() {
                let email = known.emails.entry(row.email).or_insert_with(|| Email {
                    mailboxes: BTreeSet::new(),
                    keywords: BTreeSet::new(),
                    thread: row.thread,
                    size: row.size,
                    received: row.internal_date,
                });
                assert!(email.mailboxes.insert(mailbox.id), "an email is in a mailbox once");
                assert_eq!(
                    (email.thread, email.size, email.received),
                    (row.thread, row.size, row.internal_date)
                );
                email.keywords.extend(names(&state.flag_set(row.marks).to_string()));
                *all_seen.entry(row.email).or_insert(true) &= row.marks.has(Flag::Seen);
            }
        }
        for (id, email) in &mut known.emails {
            if !all_seen[id] {
                email.keywords.remove("\\Seen");
            }
            known.threads.entry(email.thread).or_default().push(*id);
        }
        let emails = &known.emails;
        for thread in known.threads.values_mut() {
            thread.sort_by_key(|id| (emails[id].received.unix_seconds(), *id));
        }
        let unread = |id: &EmailId| {
            !emails[id].keywords.contains("\\Seen") && !emails[id].keywords.contains("\\Draft")
        };
        for mailbox in state.mailboxes() {
            let here = |id: &&EmailId| emails[*id].mailboxes.contains(&mailbox.id);
            let threads: Vec<_> =
                known.threads.values().filter(|ids| ids.iter().any(|id| here(&id))).collect();
            let counts = MailboxCounts {
                total_emails: emails.keys().filter(here).count() as u32,
                unread_emails: emails.keys().filter(here).filter(|id| unread(id)).count() as u32,
                total_threads: threads.len() as u32,
                unread_threads: threads.iter().filter(|ids| ids.iter().any(unread)).count() as u32,
            };
            let folder = Folder {
                is_subscribed: state.is_subscribed(&mailbox.name),
                role: mailbox.role,
                sort_order: mailbox.sort_order,
                name: mailbox.name,
                counts,
            };
            known.folders.insert(mailbox.id, folder);
        }
        for kind in KINDS {
            for (id, object) in state.objects(kind) {
                known.objects.insert((kind, id.to_owned()), object.value.clone());
            }
        }
        return (state.modseq().0, known);
    }
}

/// The view says the same, in every order that it knows.
async fn compare_view(account: &Account, known: &Known) {
    let view = account.view().await.unwrap();
    let state = view.state();
    assert_eq!(view.len(), known.emails.len());
    assert_eq!(view.emails().collect::<Vec<_>>(), known.emails.keys().copied().collect::<Vec<_>>());
    for (id, email) in &known.emails {
        let shown = view.email(*id).unwrap();
        assert_eq!(shown.mailboxes().collect::<BTreeSet<_>>(), email.mailboxes);
        assert_eq!(names(&state.flag_set(shown.marks).to_string()), email.keywords, "{id}");
        assert_eq!((shown.thread, shown.size, shown.received), (email.thread, email.size, email.received));
    }
    for (id, emails) in &known.threads {
        assert_eq!(view.thread(*id).as_ref(), Some(emails));
    }
    let by_date = |id: &EmailId| (known.emails[id].received.unix_seconds(), *id);
    let mut all: Vec<EmailId> = known.emails.keys().copied().collect();
    all.sort_by_key(by_date);
    assert_eq!(view.received_first().collect::<Vec<_>>(), all);
    all.reverse();
    assert_eq!(view.received_last().collect::<Vec<_>>(), all);
    for (id, folder) in &known.folders {
        assert_eq!(view.counts(*id), Some(folder.counts), "{}", folder.name);
        let here: Vec<EmailId> =
            all.iter().rev().copied().filter(|email| known.emails[email].mailboxes.contains(id)).collect();
        assert_eq!(view.received_in(*id).collect::<Vec<_>>(), here);
    }
    assert!(view.email(EmailId(u64::MAX)).is_none() && view.thread(ThreadId(u64::MAX)).is_none());
}

/// Takes over what has changed, as a client does: what it fetches is as it is now, or no longer there.
fn take_over<I: Ord + Clone + std::fmt::Debug, V: Clone>(
    known: &mut BTreeMap<I, Option<V>>,
    now: &BTreeMap<I, V>,
    changes: &ChangeSet<I>,
    at_most: usize,
    mut change: impl FnMut(&mut V, &V),
) {
    let told = changes.created.len() + changes.updated.len() + changes.destroyed.len();
    assert!(told <= at_most, "{told} of {at_most}");
    for id in &changes.created {
        assert!(known.insert(id.clone(), now.get(id).cloned()).is_none(), "{id:?} was created before");
    }
    for id in &changes.updated {
        let known = known.get_mut(id).unwrap_or_else(|| panic!("{id:?} is updated and was not there"));
        match (known.as_mut(), now.get(id)) {
            (Some(known), Some(now)) => change(known, now),
            (_, now) => *known = now.cloned(),
        }
    }
    for id in &changes.destroyed {
        assert!(known.remove(id).is_some(), "{id:?} is destroyed and was not there");
    }
}

fn begin<I: Ord + Clone, V: Clone>(known: &BTreeMap<I, V>) -> BTreeMap<I, Option<V>> {
    known.iter().map(|(id, value)| (id.clone(), Some(value.clone()))).collect()
}

/// What came of following changes: all of them, or it was too long ago.
#[derive(Default)]
struct Followed {
    whole: u32,
    forgotten: u32,
    pieces: u32,
}

/// Follows one kind from a state to now. With each answer of `changes` comes whether all of a thing is to be fetched, and
/// `change` takes that over.
async fn follow<I: Ord + Clone + std::fmt::Debug, V: Clone + PartialEq + std::fmt::Debug>(
    rng: &mut StdRng,
    followed: &mut Followed,
    (from, horizon): (u64, u64),
    (old, now): (&BTreeMap<I, V>, &BTreeMap<I, V>),
    changes: impl AsyncFn(Since, usize) -> Result<(ChangeSet<I>, bool), ChangesError>,
    change: impl Fn(&mut V, &V, bool),
) {
    let mut known = begin(old);
    let mut since = Since::operation(from);
    loop {
        let at_most = rng.random_range(1..5);
        let (set, all) = match changes(since, at_most).await {
            Ok(answer) => answer,
            Err(ChangesError::Forgotten) => {
                assert!(since.seq() <= horizon, "{since} is not remembered, the horizon is {horizon}");
                followed.forgotten += 1;
                return;
            }
            Err(error) => panic!("{error}"),
        };
        take_over(&mut known, now, &set, at_most, |known, now| change(known, now, all));
        followed.pieces += 1;
        assert!(set.new_state > since || !set.has_more, "no way forward from {since}");
        since = set.new_state.to_string().parse().unwrap();
        if !set.has_more {
            let known: BTreeMap<I, V> =
                known.into_iter().map(|(id, value)| (id, value.expect("it is there"))).collect();
            assert_eq!(&known, now, "since {from}");
            followed.whole += 1;
            return;
        }
    }
}

async fn compare_changes(
    rng: &mut StdRng,
    account: &Account,
    followed: &mut Followed,
    (from, old): (u64, &Known),
    now: &Known,
) {
    let ends = (from, account.state().history_horizon().0);
    let changes = async |since, at_most| Ok((account.email_changes(since, at_most).await?, true));
    let emails = (&old.emails, &now.emails);
    follow(rng, followed, ends, emails, changes, |known, now, _| known.clone_from(now)).await;
    let changes = async |since, at_most| Ok((account.thread_changes(since, at_most).await?, true));
    let threads = (&old.threads, &now.threads);
    follow(rng, followed, ends, threads, changes, |known, now, _| known.clone_from(now)).await;
    let changes = async |since, at_most| {
        let changes = account.mailbox_changes(since, at_most).await?;
        Ok((changes.changes, !changes.only_counts))
    };
    let change = |known: &mut Folder, now: &Folder, all| {
        known.counts = now.counts;
        if all {
            known.clone_from(now);
        }
    };
    follow(rng, followed, ends, (&old.folders, &now.folders), changes, change).await;
    for kind in KINDS {
        let of = |known: &Known| -> BTreeMap<String, Bytes> {
            let all = known.objects.iter().filter(|((found, _), _)| *found == kind);
            all.map(|((_, id), value)| (id.clone(), value.clone())).collect()
        };
        let changes = async |since, at_most| Ok((account.object_changes(kind, since, at_most).await?, true));
        let objects = (&of(old), &of(now));
        follow(rng, followed, ends, objects, changes, |known, now, _| known.clone_from(now)).await;
    }
}

fn some_flags(rng: &mut StdRng) -> String {
    NAMES.iter().copied().filter(|_| rng.random_bool(0.3)).collect::<Vec<_>>().join(" ")
}

fn some_uids(rng: &mut StdRng) -> UidSet {
    let first = rng.random_range(1..12);
    UidSet::from_range(uid(first), uid(first + rng.random_range(0..6)))
}

fn some_mailboxes(rng: &mut StdRng, known: &Known) -> BTreeSet<MailboxId> {
    let mut some: BTreeSet<MailboxId> =
        known.folders.keys().copied().filter(|_| rng.random_bool(0.2)).collect();
    if rng.random_bool(0.05) {
        some.insert(MailboxId(9_999));
    }
    some
}

fn id_of(known: &Known, name: &str) -> Option<MailboxId> {
    known.folders.iter().find(|(_, folder)| folder.name == name).map(|(id, _)| *id)
}

/// A message that answers others now and then.
fn some_message(rng: &mut StdRng, number: u32) -> Vec<u8> {
    let answered = rng.random_range(1..=number.max(2));
    let header =
        if rng.random_bool(0.6) { format!("In-Reply-To: <{answered}@x>\r\n") } else { String::new() };
    format!("Message-ID: <{number}@x>\r\n{header}Subject: Re: s\r\n\r\nmessage {number}\r\n").into_bytes()
}

struct Steps {
    rng: StdRng,
    number: u32,
}

impl Steps {
    async fn step(&mut self, account: &Account, known: &Known) {
        let name = *MAILBOXES.choose(&mut self.rng).unwrap();
        let other = *MAILBOXES.choose(&mut self.rng).unwrap();
        let (from, to) = (id_of(known, name), id_of(known, other));
        let uids = some_uids(&mut self.rng);
        match (self.rng.random_range(0..24), from, to) {
            (0..=3, Some(id), _) => {
                let mut requests = Vec::new();
                for _ in 0..self.rng.random_range(1..4) {
                    self.number += 1;
                    let body = write(account, &some_message(&mut self.rng, self.number)).await;
                    let mut request = request(body, id, &some_flags(&mut self.rng));
                    request.internal_date = Some(InternalDate::utc(self.rng.random_range(0..50)));
                    requests.push(request);
                }
                account.append_many(requests).await.unwrap();
            }
            (4, Some(from), Some(to)) => drop(account.copy(from, uids, to).await.unwrap()),
            (5, Some(from), Some(to)) => drop(account.move_messages(from, uids, to).await.unwrap()),
            (6, Some(id), _) => drop(account.remove(id, uids).await.unwrap()),
            (7 | 8, Some(id), _) => {
                let flags = flags(&some_flags(&mut self.rng));
                let action = [FlagAction::Add, FlagAction::Remove, FlagAction::Replace];
                let action = *action.choose(&mut self.rng).unwrap();
                account.set_flags(id, uids, FlagChange { action, flags }, None).await.unwrap();
            }
            (9, Some(_), None) => drop(account.rename_mailbox(name, other).await),
            (10, None, _) => drop(account.create_mailbox(name, None).await.unwrap()),
            (11, Some(_), _) if self.rng.random_bool(0.4) => drop(account.delete_mailbox(name).await),
            (12, ..) => account.subscribe(name, self.rng.random_bool(0.5)).await.unwrap(),
            (13..=16, ..) => self.update(account, known).await,
            (17, ..) => self.destroy(account, known).await,
            (18 | 19, ..) => self.import(account, known).await,
            (20 | 21, ..) => self.set_mailbox(account, known).await,
            _ => self.write_objects(account, known).await,
        }
    }

    fn some_emails(&mut self, known: &Known) -> Vec<EmailId> {
        let share = self.rng.random_range(0.05..0.4);
        let mut some: Vec<EmailId> =
            known.emails.keys().copied().filter(|_| self.rng.random_bool(share)).collect();
        if self.rng.random_bool(0.1) {
            some.push(EmailId(10_000));
        }
        some
    }

    async fn update(&mut self, account: &Account, known: &Known) {
        let rng = &mut self.rng;
        let patch = |rng: &mut StdRng| {
            let keywords = match rng.random_range(0..3) {
                0 => None,
                1 => Some(KeywordsPatch::Replace(flags(&some_flags(rng).replace("\\Deleted", "")))),
                _ => Some(KeywordsPatch::Change {
                    add: flags(&some_flags(rng).replace("\\Deleted", "")),
                    remove: flags(&some_flags(rng).replace("\\Deleted", "")),
                }),
            };
            let mailboxes = match rng.random_range(0..3) {
                0 => None,
                1 => Some(MailboxesPatch::Replace(some_mailboxes(rng, known))),
                _ => Some(MailboxesPatch::Change {
                    add: some_mailboxes(rng, known),
                    remove: some_mailboxes(rng, known),
                }),
            };
            (keywords, mailboxes)
        };
        // Many alike, as when a client marks what was chosen, or each its own way.
        let alike = rng.random_bool(0.5).then(|| patch(rng));
        let emails = self.some_emails(known);
        let rng = &mut self.rng;
        let updates: Vec<EmailUpdate> = emails
            .iter()
            .map(|email| {
                let (keywords, mailboxes) = alike.clone().unwrap_or_else(|| patch(rng));
                EmailUpdate { email: *email, keywords, mailboxes }
            })
            .collect();
        let old_state = account.refresh().await.unwrap().emails_state();
        let stale = Since::operation(old_state.seq() + 1);
        let refused = account.update_emails(updates.clone(), Some(stale)).await;
        assert!(matches!(refused, Err(storage::ChangeEmailsError::StateMismatch)));
        let answer = account.update_emails(updates.clone(), Some(old_state)).await.unwrap();
        let (_, after) = brute_force(account).await;
        assert_eq!(answer.old_state, old_state);
        assert_eq!(answer.new_state, account.state().emails_state());
        for (update, result) in updates.iter().zip(&answer.results) {
            let before = known.emails.get(&update.email);
            match (result, before.map(|before| expected(known, before, update))) {
                (Ok(()), Some(Ok(mut email))) => {
                    // `\Deleted` belongs to a message in its mailbox, and does not go with it.
                    let mut found = after.emails[&update.email].clone();
                    found.keywords.remove("\\Deleted");
                    email.keywords.remove("\\Deleted");
                    assert_eq!(found, email, "{update:?} of {before:?}");
                }
                (Err(EmailUpdateError::NotFound), None) => {}
                (Err(EmailUpdateError::NoMailbox(_)), Some(Err("no mailbox")))
                | (Err(EmailUpdateError::Nowhere), Some(Err("nowhere"))) => {
                    assert_eq!(after.emails.get(&update.email), before);
                }
                (result, expected) => panic!("{update:?}: {result:?}, not {expected:?}"),
            }
        }
        assert_eq!(after.emails.len(), known.emails.len(), "no email comes or goes by this");
    }

    async fn destroy(&mut self, account: &Account, known: &Known) {
        let emails = self.some_emails(known);
        let answer = account.destroy_emails(emails.clone(), None).await.unwrap();
        let (_, after) = brute_force(account).await;
        for (email, result) in emails.iter().zip(answer.results) {
            assert_eq!(result.is_ok(), known.emails.contains_key(email));
            assert!(!after.emails.contains_key(email));
        }
        let left = known.emails.keys().filter(|email| !emails.contains(email));
        assert!(left.eq(after.emails.keys()));
    }

    async fn import(&mut self, account: &Account, known: &Known) {
        let mut requests = Vec::new();
        for _ in 0..self.rng.random_range(1..4) {
            self.number += 1;
            let mut body = write(account, &some_message(&mut self.rng, self.number)).await;
            if self.rng.random_bool(0.3) {
                let upload = account.keep_upload(body).await.unwrap();
                body = account.upload_as_message(upload).await.unwrap().unwrap();
                if self.rng.random_bool(0.5) {
                    assert!(account.remove_upload(upload).await.unwrap());
                }
            }
            let mailboxes = some_mailboxes(&mut self.rng, known);
            let flags = flags(&some_flags(&mut self.rng));
            let received = Some(InternalDate::utc(self.rng.random_range(0..50)));
            requests.push(ImportRequest { mailboxes, body, flags, received });
        }
        let answer = account.import_emails(requests.clone(), None).await.unwrap();
        let (_, after) = brute_force(account).await;
        for (request, result) in requests.iter().zip(answer.results) {
            let all_known = request.mailboxes.iter().all(|id| known.folders.contains_key(id));
            assert_eq!(result.is_ok(), all_known && !request.mailboxes.is_empty());
            let Ok(imported) = result else { continue };
            let email = &after.emails[&imported.email];
            assert_eq!((&email.mailboxes, email.thread), (&request.mailboxes, imported.thread));
            assert_eq!(Some(email.received), request.received);
            assert_eq!(email.keywords, names(&request.flags.to_string()));
        }
    }

    async fn set_mailbox(&mut self, account: &Account, known: &Known) {
        let rng = &mut self.rng;
        let ids: Vec<MailboxId> = known.folders.keys().copied().collect();
        let id = *ids.choose(rng).unwrap();
        let parent = rng.random_bool(0.5).then(|| *ids.choose(rng).unwrap());
        let name = (*["a", "b", "c", "Trash"].choose(rng).unwrap()).to_owned();
        let roles = [None, Some(storage::Role::Archive), Some(storage::Role::Junk)];
        let role = *roles.choose(rng).unwrap();
        let (sort_order, is_subscribed) = (rng.random_range(0..3), rng.random_bool(0.5));
        let same = known.folders[&id].clone();
        match rng.random_range(0..5) {
            0 => {
                let new = NewMailbox { parent, name: name.clone(), role, sort_order, is_subscribed };
                if let Ok(set) = account.create_mailbox_in(new, None).await {
                    assert_eq!((set.answer.own_name(), set.answer.role), (name.as_str(), role));
                    assert_eq!(set.answer.sort_order, sort_order);
                    assert_eq!(account.state().parent(set.answer.id), parent);
                    assert_eq!(account.state().is_subscribed(&set.answer.name), is_subscribed);
                    assert_eq!(account.state().mailboxes_state(), set.new_state);
                }
            }
            1 | 2 => {
                let patch = MailboxPatch {
                    parent: rng.random_bool(0.4).then_some(parent),
                    name: rng.random_bool(0.4).then_some(name),
                    role: rng.random_bool(0.3).then_some(role),
                    sort_order: rng.random_bool(0.4).then_some(sort_order),
                    is_subscribed: rng.random_bool(0.4).then_some(is_subscribed),
                };
                let answer = account.update_mailbox(id, patch.clone(), None).await;
                let now = account.state().mailbox(id).unwrap();
                if answer.is_err() {
                    assert_eq!((now.name, now.role, now.sort_order), (same.name, same.role, same.sort_order));
                    return;
                }
                assert_eq!(now.role, patch.role.unwrap_or(same.role));
                assert_eq!(now.sort_order, patch.sort_order.unwrap_or(same.sort_order));
                assert_eq!(now.own_name(), patch.name.as_deref().unwrap_or(now.own_name()));
                if let Some(parent) = patch.parent {
                    assert_eq!(account.state().parent(id), parent);
                }
                let is_subscribed = account.state().is_subscribed(&now.name);
                assert_eq!(is_subscribed, patch.is_subscribed.unwrap_or(same.is_subscribed));
            }
            3 if same.counts.total_emails > 0 && same.name != "INBOX" => {
                let refused = account.destroy_mailbox(id, OnDestroy::Refuse, None).await;
                assert!(refused.is_err());
            }
            _ => {
                let destroys = rng.random_bool(0.3);
                if destroys && account.destroy_mailbox(id, OnDestroy::RemoveEmails, None).await.is_ok() {
                    assert!(account.state().mailbox(id).is_none());
                    assert!(!account.state().is_subscribed(&same.name));
                }
            }
        }
    }

    async fn write_objects(&mut self, account: &Account, known: &Known) {
        let rng = &mut self.rng;
        let kind = *KINDS.choose(rng).unwrap();
        let ids: Vec<String> =
            known.objects.keys().filter(|(found, _)| *found == kind).map(|(_, id)| id.clone()).collect();
        let value = Bytes::from(format!("{{\"n\":{}}}", rng.random_range(0..100)));
        let write = match (rng.random_range(0..4), ids.choose(rng)) {
            (0, Some(id)) => ObjectWrite::Remove { id: id.clone() },
            (1, Some(id)) => ObjectWrite::Replace { id: id.clone(), value, unchanged_since: None },
            (2, _) if !ids.contains(&"singleton".to_owned()) => {
                ObjectWrite::Create { id: Some("singleton".to_owned()), value }
            }
            _ => ObjectWrite::Create { id: None, value },
        };
        let state = account.refresh().await.unwrap().objects_state(kind);
        let answer = account.write_objects(kind, vec![write.clone()], Some(state)).await.unwrap();
        let id = answer.results[0].clone().unwrap();
        assert_eq!(account.state().objects_state(kind), answer.new_state);
        let object = account.state().object(kind, &id).map(|object| object.value.clone());
        match write {
            ObjectWrite::Remove { .. } => assert_eq!(object, None),
            ObjectWrite::Create { value, .. } | ObjectWrite::Replace { value, .. } => {
                assert_eq!(object, Some(value));
            }
        }
    }
}

/// What an email should be after an update.
fn expected(known: &Known, before: &Email, update: &EmailUpdate) -> Result<Email, &'static str> {
    let mut email = before.clone();
    match &update.mailboxes {
        None => {}
        Some(MailboxesPatch::Replace(mailboxes)) => email.mailboxes.clone_from(mailboxes),
        Some(MailboxesPatch::Change { add, remove }) => {
            email.mailboxes.retain(|id| !remove.contains(id));
            email.mailboxes.extend(add);
        }
    }
    if email.mailboxes.iter().any(|id| !known.folders.contains_key(id)) {
        return Err("no mailbox");
    }
    if email.mailboxes.is_empty() {
        return Err("nowhere");
    }
    match &update.keywords {
        None => {}
        Some(KeywordsPatch::Replace(flags)) => {
            let kept = email.keywords.contains("\\Deleted");
            email.keywords = names(&flags.to_string());
            email.keywords.extend(kept.then(|| "\\Deleted".to_owned()));
        }
        Some(KeywordsPatch::Change { add, remove }) => {
            for name in names(&remove.to_string()) {
                email.keywords.remove(&name);
            }
            email.keywords.extend(names(&add.to_string()));
        }
    }
    Ok(email)
}

struct Nodes {
    disk: Disk,
    nodes: [Option<(Storage, Account)>; 2],
}

impl Nodes {
    async fn account(&mut self, node: usize) -> Account {
        if self.nodes[node].is_none() {
            let storage = self.disk.start().await;
            let account = open(&storage).await;
            self.nodes[node] = Some((storage, account));
        }
        self.nodes[node].as_ref().unwrap().1.clone()
    }
}

async fn history(seed: u64, steps: usize, history_bytes_max: usize) -> Followed {
    let mut disk = Disk::eventful();
    disk.config.history_bytes_max = history_bytes_max;
    let (storage, account) = disk.start_with_account().await;
    let mut nodes = Nodes { disk, nodes: [Some((storage, account)), None] };
    let mut steps_of = Steps { rng: StdRng::seed_from_u64(seed), number: 0 };
    let mut rng = StdRng::seed_from_u64(seed + 1_000_000);
    let mut followed = Followed::default();
    let mut states: Vec<(u64, Known)> = vec![brute_force(&nodes.account(0).await).await];
    for _ in 0..steps {
        let node = rng.random_range(0..2);
        let account = nodes.account(node).await;
        account.refresh().await.unwrap();
        let (_, known) = brute_force(&account).await;
        steps_of.step(&account, &known).await;
        states.push(brute_force(&account).await);
        // The other node follows from where it was, however long ago.
        let other = nodes.account(if rng.random_bool(0.7) { node } else { 1 - node }).await;
        other.refresh().await.unwrap();
        // In between the log may have been archived, which is an operation too.
        let (_, known) = brute_force(&other).await;
        assert!(states.last().is_some_and(|(_, last)| *last == known), "seed {seed}: the nodes differ");
        compare_view(&other, &known).await;
        let (from, old) = states.choose(&mut rng).unwrap();
        compare_changes(&mut rng, &other, &mut followed, (*from, old), &known).await;
        if rng.random_bool(0.1) {
            let (storage, account) = nodes.nodes[node].take().unwrap();
            drop(account);
            storage.close_idle();
            storage.close();
        }
    }
    let account = nodes.account(0).await;
    account.refresh().await.unwrap();
    let (_, known) = brute_force(&account).await;
    for (from, old) in &states {
        compare_changes(&mut rng, &account, &mut followed, (*from, old), &known).await;
    }
    let storage = nodes.nodes[0].as_ref().unwrap().0.clone();
    let report = storage.check(ACCOUNT, CheckDepth::Bodies).await.unwrap();
    assert_eq!(report.problems, Vec::<String>::new(), "seed {seed}");
    followed
}

#[tokio::test]
async fn changes_lead_from_any_state_to_now() {
    let mut pieces = 0;
    for seed in 0..40 {
        let followed = Box::pin(history(seed, 40, 1 << 20)).await;
        assert_eq!(followed.forgotten, 0, "seed {seed}");
        pieces += followed.pieces;
    }
    assert!(pieces > 20_000, "{pieces} pieces");
}

#[tokio::test]
async fn what_is_forgotten_is_said_to_be() {
    let (mut whole, mut forgotten) = (0, 0);
    for seed in 0..10 {
        let followed = Box::pin(history(100 + seed, 50, 100)).await;
        whole += followed.whole;
        forgotten += followed.forgotten;
    }
    assert!(whole > 500 && forgotten > 500, "{whole} followed, {forgotten} forgotten");
}
