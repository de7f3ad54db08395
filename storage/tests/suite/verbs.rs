//! Each verb once, on one node in memory: what it does, what it answers, what it refuses.

#![allow(clippy::unwrap_used, reason = "a test")]

use bytes::Bytes;
use futures_util::TryStreamExt;
use mail::address::Address;
use mail::id::ModSeq;
use storage::{
    AccountSettings, AppendError, CopyError, Delivered, Delivery, FlagAction, FlagChange, FlagsError,
    IngestId, InternalDate, MailboxError, OpenError, Principal, Role, StorageError, Suppressed, Target,
    Vanished,
};
use uuid::Uuid;

use crate::setup::*;

fn change(action: FlagAction, names: &str) -> FlagChange {
    FlagChange { action, flags: flags(names) }
}

#[tokio::test]
async fn a_new_account_has_the_usual_mailboxes() {
    let (storage, account) = Disk::new().start_with_account().await;
    let state = account.state();
    let names: Vec<_> = state.mailboxes().map(|mailbox| (mailbox.name, mailbox.role.unwrap())).collect();
    let expected = [
        ("INBOX", Role::Inbox),
        ("Drafts", Role::Drafts),
        ("Sent", Role::Sent),
        ("Junk", Role::Junk),
        ("Trash", Role::Trash),
        ("Archive", Role::Archive),
    ];
    assert_eq!(names, expected.map(|(name, role)| (name.to_owned(), role)));
    assert_eq!(state.modseq(), ModSeq(1));
    assert!(state.mailboxes().all(|mailbox| mailbox.highest_modseq == ModSeq(1)));
    let again = storage.create_account(ACCOUNT, AccountSettings::default()).await;
    assert!(matches!(again, Err(storage::CreateError::Exists)));
    let other = Principal::Owner(mail::id::AccountId::random());
    assert!(matches!(storage.account(&other, ACCOUNT).await, Err(OpenError::Storage(StorageError::Denied))));
    let missing = mail::id::AccountId::random();
    assert!(matches!(storage.account(&Principal::Operator, missing).await, Err(OpenError::Missing)));
}

#[tokio::test]
async fn an_appended_message_is_read_as_it_was() {
    let disk = Disk::new();
    let (storage, account) = disk.start_with_account().await;
    let inbox = mailbox(&account, "inbox");
    let text = message(1);
    let mut wanted = request(write(&account, &text).await, inbox, "\\Seen $Work");
    wanted.internal_date = Some(InternalDate::new(1_600_000_000, 90));
    let appended = account.append(wanted).await.unwrap();
    assert_eq!((appended.uid, appended.mailbox, appended.modseq), (uid(1), inbox, ModSeq(3)));
    drop(account);
    storage.close_idle();
    for storage in [storage, disk.start().await] {
        let account = open(&storage).await;
        assert_eq!(listing(&account, inbox).await, "1(\\Seen $Work)");
        let state = account.mailbox(inbox).await.unwrap();
        let row = state.index(inbox).unwrap().by_uid(uid(1)).unwrap();
        assert_eq!((row.email, row.thread, row.modseq), (appended.email, appended.thread, appended.modseq));
        assert_eq!(row.internal_date, InternalDate::new(1_600_000_000, 90));
        assert_eq!(bytes_of(&account, &row).await, text);
        let record = account.email(row.email).await.unwrap().unwrap();
        let summary = record.summary().unwrap();
        assert_eq!(summary.subject.unwrap().as_bytes(), b"number 1");
        let structure = record.structure().unwrap();
        assert_eq!(structure.body, record.header_len..record.size);
        assert_eq!(state.quota().bytes, text.len() as u64);
        let shown = state.mailbox(inbox).unwrap();
        assert_eq!((shown.messages, shown.unseen, shown.size), (1, 0, text.len() as u64));
    }
}

#[tokio::test]
async fn a_delivered_message_has_a_prefix_and_comes_once() {
    let (storage, account) = Disk::new().start_with_account().await;
    let text = message(1);
    let queue_key = storage.blobs().keys().queue_key(1_700_000_000).await.unwrap();
    let shard = Uuid::from_u128(3);
    let limits = storage.config().mime.clone();
    let mut writer =
        storage::MessageWriter::new(storage.blobs(), blob::Holder::Shard(shard), queue_key, limits);
    writer.write(Bytes::from(text.clone())).await.unwrap();
    let queued = writer.finish().await.unwrap();
    let prefix = Bytes::from_static(b"Return-Path: <a@b>\r\nReceived: from x\r\n\tby y\r\n");
    let ingest = IngestId { producer: shard, item: 4, part: 0 };
    let deliver = async |ingest: IngestId, watermark: u64| {
        let body =
            account.adopt(&queued.address, queue_key, queued.facts.clone(), prefix.clone()).await.unwrap();
        let target = Target::Name { name: "Lists/rust".into(), create: true };
        let request = storage::AppendRequest { target, body, flags: flags(""), internal_date: None };
        account.deliver(Delivery { ingest, watermark, request }).await
    };
    assert_eq!(account.delivered(ingest).await.unwrap(), None);
    let Delivered::Placed(appended) = deliver(ingest, 0).await.unwrap() else { panic!("not placed") };
    assert_eq!(account.delivered(ingest).await.unwrap(), Some(Delivered::Already));
    assert_eq!(deliver(ingest, 0).await.unwrap(), Delivered::Already);
    assert_eq!(account.reject_ingest(ingest, 0).await.unwrap(), Delivered::Already);
    let rejected = IngestId { part: 1, ..ingest };
    assert_eq!(account.reject_ingest(rejected, 0).await.unwrap(), Delivered::Rejected);
    assert_eq!(deliver(rejected, 0).await.unwrap(), Delivered::Rejected);
    let late = IngestId { item: 6, ..ingest };
    assert!(matches!(deliver(late, 5).await.unwrap(), Delivered::Placed(_)));
    let below = IngestId { item: 4, part: 9, ..ingest };
    assert_eq!(deliver(below, 5).await.unwrap(), Delivered::Already, "below the watermark all is done");

    let lists = mailbox(&account, "Lists/rust");
    assert_eq!(appended.mailbox, lists);
    let state = account.mailbox(lists).await.unwrap();
    assert_eq!(state.index(lists).unwrap().len(), 2);
    let row = state.index(lists).unwrap().get(0).unwrap();
    assert_eq!(bytes_of(&account, &row).await, [&prefix[..], &text].concat());
    let record = account.email(row.email).await.unwrap().unwrap();
    let structure = record.structure().unwrap();
    assert_eq!((structure.header, structure.body), (0..record.header_len, record.header_len..record.size));
    let body = account.body(&record).await.unwrap();
    let across = body.range(prefix.len() as u64 - 4..prefix.len() as u64 + 5);
    let pieces: Vec<Bytes> = across.try_collect().await.unwrap();
    assert_eq!(pieces.concat(), b" y\r\nFrom:");
}

#[tokio::test]
async fn answers_join_their_thread() {
    let (_storage, account) = Disk::new().start_with_account().await;
    let inbox = mailbox(&account, "INBOX");
    // Which values the splitter finds is its own affair; here is what follows from them.
    let put = async |id: &str, answered: &str, references: &[&str], subject: &str| {
        let mut body = write(&account, b"\r\n").await;
        let some = |id: &str| (!id.is_empty()).then(|| id.to_owned());
        body.facts.message_id = some(id);
        body.facts.in_reply_to = some(answered).into_iter().collect();
        body.facts.references = references.iter().copied().filter_map(some).collect();
        subject.clone_into(&mut body.facts.base_subject);
        account.append(request(body, inbox, "")).await.unwrap()
    };
    let first = put("a@x", "", &[], "lunch").await;
    let answer = put("b@x", "a@x", &[], "Lunch").await;
    let other = put("c@x", "", &["a@x", "b@x"], "dinner").await;
    let alone = put("", "", &[], "").await;
    let twice = put("a@x", "", &[], "lunch").await;
    let deep = put("d@x", "", &["unknown@x", "b@x"], "lunch").await;
    assert_eq!([answer, twice, deep].map(|appended| appended.thread), [first.thread; 3]);
    assert!(other.thread != first.thread && alone.thread != first.thread && alone.thread != other.thread);
}

#[tokio::test]
async fn flags_change_where_they_differ() {
    let (_storage, account) = Disk::new().start_with_account().await;
    let inbox = mailbox(&account, "INBOX");
    fill(&account, inbox, 1..=4).await;
    let before = account.state().mailbox(inbox).unwrap().highest_modseq;
    let set =
        account.set_flags(inbox, uids("2:3,9"), change(FlagAction::Add, "\\Seen $A"), None).await.unwrap();
    assert_eq!((set.changed, set.modified), (uids("2:3"), uids("")));
    let set =
        account.set_flags(inbox, uids("1:4"), change(FlagAction::Add, "\\Seen"), Some(before)).await.unwrap();
    assert_eq!((set.changed, set.modified), (uids("1,4"), uids("2:3")));
    assert_eq!(listing(&account, inbox).await, "1(\\Seen) 2(\\Seen $A) 3(\\Seen $A) 4(\\Seen)");
    let again = account.set_flags(inbox, uids("1:4"), change(FlagAction::Add, "\\Seen"), None).await.unwrap();
    assert_eq!((again.changed, again.modseq), (uids(""), None));
    account.set_flags(inbox, uids("3"), change(FlagAction::Replace, "\\Deleted"), None).await.unwrap();
    account.set_flags(inbox, uids("1:2"), change(FlagAction::Remove, "\\Seen $a $none"), None).await.unwrap();
    assert_eq!(listing(&account, inbox).await, "1() 2() 3(\\Deleted) 4(\\Seen)");
    let shown = account.state().mailbox(inbox).unwrap();
    assert_eq!((shown.unseen, shown.deleted), (3, 1));
    assert_eq!(account.state().keywords().len(), 1, "removing a keyword that nobody has names none");
    let many = (0..125).map(|number| format!("k{number}")).collect::<Vec<_>>().join(" ");
    let refused = account.set_flags(inbox, uids("1"), change(FlagAction::Add, &many), None).await;
    assert!(matches!(refused, Err(FlagsError::TooManyKeywords)));
    let nowhere =
        account.set_flags(mail::id::MailboxId(99), uids("1"), change(FlagAction::Add, ""), None).await;
    assert!(matches!(nowhere, Err(FlagsError::NoMailbox)));
}

#[tokio::test]
async fn copies_are_the_same_email_once_per_mailbox() {
    let (_storage, account) = Disk::new().start_with_account().await;
    let (inbox, trash) = (mailbox(&account, "INBOX"), mailbox(&account, "Trash"));
    fill(&account, inbox, 1..=3).await;
    account.set_flags(inbox, uids("2"), change(FlagAction::Add, "\\Flagged"), None).await.unwrap();
    let copied = account.copy(inbox, uids("2:9"), trash).await.unwrap();
    assert_eq!((copied.source, copied.target), (uids("2:3"), uids("1:2")));
    let again = account.copy(inbox, uids("2"), trash).await.unwrap();
    assert_eq!(again.target, uids("3"));
    let beside = account.copy(inbox, uids("1"), inbox).await.unwrap();
    assert_eq!(beside.target, uids("4"));
    assert_eq!(listing(&account, trash).await, "1(\\Flagged) 2() 3(\\Flagged)");
    let state = account.mailbox(trash).await.unwrap();
    let inbox_rows: Vec<_> = account.mailbox(inbox).await.unwrap().index(inbox).unwrap().iter().collect();
    let trash_rows: Vec<_> = state.index(trash).unwrap().iter().collect();
    assert_eq!(trash_rows[0].email, inbox_rows[1].email);
    assert_ne!(trash_rows[2].email, inbox_rows[1].email, "JMAP: an email is in a mailbox once");
    assert_eq!(trash_rows[2].thread, inbox_rows[1].thread);
    assert_ne!(inbox_rows[3].email, inbox_rows[0].email);
    for (row, number) in [(&trash_rows[0], 2), (&trash_rows[2], 2), (&inbox_rows[3], 1)] {
        assert_eq!(bytes_of(&account, row).await, message(number));
    }
    // The copy in the trash outlives the original, and then a copy of it.
    account.remove(inbox, uids("2")).await.unwrap();
    assert_eq!(bytes_of(&account, &trash_rows[0]).await, message(2));
    let nothing = account.copy(inbox, uids("77"), trash).await.unwrap();
    assert!(nothing.source.is_empty() && nothing.modseq.is_none());
    let nowhere = account.copy(inbox, uids("1"), mail::id::MailboxId(99)).await;
    assert!(matches!(nowhere, Err(CopyError::NoTarget)));
}

#[tokio::test]
async fn moved_messages_are_in_one_place() {
    let (_storage, account) = Disk::new().start_with_account().await;
    let (inbox, trash) = (mailbox(&account, "INBOX"), mailbox(&account, "Trash"));
    fill(&account, inbox, 1..=4).await;
    let since = account.state().mailbox(inbox).unwrap().highest_modseq;
    let moved = account.move_messages(inbox, uids("1,3"), trash).await.unwrap();
    assert_eq!((moved.source, moved.target), (uids("1,3"), uids("1:2")));
    assert_eq!(
        (listing(&account, inbox).await, listing(&account, trash).await),
        ("2() 4()".into(), "1() 2()".into())
    );
    let (_, changes) = account.changes(inbox, since).await.unwrap();
    assert_eq!(changes.unwrap().vanished, Vanished::Known(uids("1,3")));
    account.copy(inbox, uids("2"), trash).await.unwrap();
    let onto = account.move_messages(inbox, uids("2"), trash).await.unwrap();
    assert_eq!(onto.target, uids("4"));
    let state = account.mailbox(trash).await.unwrap();
    let rows: Vec<_> = state.index(trash).unwrap().iter().collect();
    assert_ne!(rows[2].email, rows[3].email);
    assert_eq!(bytes_of(&account, &rows[3]).await, message(2));
    let same = account.move_messages(trash, uids("1"), trash).await.unwrap();
    assert_eq!(same.target, uids("5"));
    assert_eq!(listing(&account, trash).await, "2() 3() 4() 5()");
    assert_eq!(account.state().quota().messages, 5);
}

#[tokio::test]
async fn expunged_messages_vanish_and_uids_never_return() {
    let disk = Disk::new();
    let (storage, account) = disk.start_with_account().await;
    let inbox = mailbox(&account, "INBOX");
    fill(&account, inbox, 1..=5).await;
    let since = account.state().mailbox(inbox).unwrap().highest_modseq;
    account.set_flags(inbox, uids("2,4:5"), change(FlagAction::Add, "\\Deleted"), None).await.unwrap();
    let gone = account.expunge(inbox, Some(uids("1:4"))).await.unwrap();
    assert_eq!(gone.uids, uids("2,4"));
    let gone = account.expunge(inbox, None).await.unwrap();
    assert_eq!(gone.uids, uids("5"));
    assert_eq!(account.expunge(inbox, None).await.unwrap().modseq, None);
    fill(&account, inbox, [6]).await;
    drop(account);
    storage.close_idle();
    let account = open(&disk.start().await).await;
    assert_eq!(listing(&account, inbox).await, "1() 3() 6()");
    let (state, changes) = account.changes(inbox, since).await.unwrap();
    let changes = changes.unwrap();
    assert_eq!((changes.changed, changes.vanished), (uids("6"), Vanished::Known(uids("2,4:5"))));
    assert_eq!(changes.highest_modseq, state.modseq());
}

#[tokio::test]
async fn mailboxes_are_created_renamed_and_deleted() {
    let (_storage, account) = Disk::new().start_with_account().await;
    let names = |account: &storage::Account| {
        let mut names: Vec<_> = account.state().mailboxes().skip(6).map(|mailbox| mailbox.name).collect();
        names.sort();
        names.join(" ")
    };
    let created = account.create_mailbox("a/b/c/", None).await.unwrap();
    assert_eq!((created.name.as_str(), names(&account).as_str()), ("a/b/c", "a a/b a/b/c"));
    assert!(matches!(account.create_mailbox("a/b", None).await, Err(MailboxError::Exists)));
    assert!(matches!(account.create_mailbox("Inbox", None).await, Err(MailboxError::Exists)));
    assert!(matches!(account.create_mailbox("x", Some(Role::Sent)).await, Err(MailboxError::RoleTaken)));
    account.subscribe("a/b/c", true).await.unwrap();
    fill(&account, created.id, 1..=2).await;
    account.rename_mailbox("a/b", "z/y").await.unwrap();
    assert_eq!(names(&account), "a z z/y z/y/c");
    assert!(account.state().is_subscribed("z/y/c") && !account.state().is_subscribed("a/b/c"));
    let renamed = account.state().mailbox_by_name("z/y/c").unwrap();
    assert_eq!((renamed.id, renamed.uid_validity, renamed.messages), (created.id, created.uid_validity, 2));
    assert!(matches!(account.rename_mailbox("z", "z/y/x").await, Err(MailboxError::NotPossible(_))));
    assert!(matches!(account.rename_mailbox("z", "a").await, Err(MailboxError::Exists)));
    assert!(matches!(account.rename_mailbox("none", "b").await, Err(MailboxError::Missing)));
    assert!(matches!(account.delete_mailbox("z/y").await, Err(MailboxError::HasChildren)));
    assert!(matches!(account.delete_mailbox("INBOX").await, Err(MailboxError::NotPossible(_))));
    account.delete_mailbox("z/y/c").await.unwrap();
    assert_eq!(account.state().quota().messages, 0);
    assert!(account.mailbox(created.id).await.unwrap().index(created.id).is_none());
    let again = account.create_mailbox("z/y/c", None).await.unwrap();
    assert!(again.uid_validity > created.uid_validity && again.id != created.id);

    let inbox = mailbox(&account, "INBOX");
    account.create_mailbox("INBOX/sub", None).await.unwrap();
    fill(&account, inbox, 3..=4).await;
    account.rename_mailbox("inbox", "old").await.unwrap();
    assert_eq!(listing(&account, inbox).await, "");
    assert_eq!(listing(&account, mailbox(&account, "old")).await, "1() 2()");
    assert!(account.state().mailbox_by_name("INBOX/sub").is_some());
}

#[tokio::test]
async fn suppressed_addresses_are_remembered_until_they_are_taken_off() {
    let mut disk = Disk::eventful();
    disk.config.suppressions_max = 2;
    let (storage, account) = disk.start_with_account().await;
    let address = |text: &str| Address::parse(text).unwrap();
    let why = |since| Suppressed::new(since, "5.1.1", "no such user");
    assert!(account.suppress(&address("Bob@where.test"), why(7)).await.unwrap());
    assert!(!account.suppress(&address("bob@WHERE.test"), why(9)).await.unwrap(), "it stays as it was");
    assert!(account.suppress(&address("carol@where.test"), why(5)).await.unwrap());
    // The oldest goes.
    assert!(account.suppress(&address("dave@where.test"), why(8)).await.unwrap());
    assert!(!account.unsuppress(&address("carol@where.test")).await.unwrap());
    let inbox = mailbox(&account, "inbox");
    for number in 0..8 {
        let body = write(&account, &message(number)).await;
        account.append(request(body, inbox, "")).await.unwrap();
    }
    drop(account);
    storage.close_idle();
    for storage in [storage, disk.start().await] {
        let account = open(&storage).await;
        let state = account.state();
        let listed: Vec<_> = state.suppressions().map(|(address, why)| (address, why.since)).collect();
        assert_eq!(listed, [("bob@where.test", 7), ("dave@where.test", 8)]);
        assert_eq!(state.suppressed(&address("BOB@where.test")), Some(&why(7)));
        assert_eq!(state.suppressed(&address("carol@where.test")), None);
    }
    let account = open(&disk.start().await).await;
    assert!(account.unsuppress(&address("bob@where.test")).await.unwrap());
    assert!(account.unsuppress(&address("dave@where.test")).await.unwrap());
    assert_eq!(account.state().suppressions().count(), 0);
}

#[tokio::test]
async fn quota_is_kept_in_the_commit() {
    let disk = Disk::new();
    let storage = disk.start().await;
    let settings = AccountSettings { quota_bytes: None, quota_messages: Some(10) };
    storage.create_account(ACCOUNT, settings).await.unwrap();
    let account = open(&storage).await;
    let (inbox, trash) = (mailbox(&account, "INBOX"), mailbox(&account, "Trash"));
    fill(&account, inbox, 1..=9).await;
    let refused = account.copy(inbox, uids("1:2"), trash).await;
    assert!(matches!(refused, Err(CopyError::OverQuota)));
    account.copy(inbox, uids("1"), trash).await.unwrap();
    let body = write(&account, &message(10)).await;
    let refused = account.append(request(body, inbox, "")).await;
    assert!(matches!(refused, Err(AppendError::OverQuota)));
    account.move_messages(inbox, uids("1:9"), trash).await.unwrap();
    let deliver = async |item: u64| {
        let ingest = IngestId { producer: Uuid::nil(), item, part: 0 };
        let request = request(write(&account, &message(11)).await, inbox, "");
        account.deliver(Delivery { ingest, watermark: 0, request }).await
    };
    assert!(matches!(deliver(1).await, Ok(Delivered::Placed(_))), "a tenth more for what was accepted");
    assert!(matches!(deliver(2).await, Err(AppendError::OverQuota)));
    account.set_quota(AccountSettings::default()).await.unwrap();
    assert!(matches!(deliver(2).await, Ok(Delivered::Placed(_))));
}

#[tokio::test]
async fn a_deleted_account_stays_deleted() {
    let (storage, account) = Disk::new().start_with_account().await;
    let inbox = mailbox(&account, "INBOX");
    fill(&account, inbox, [1]).await;
    let body = write(&account, &message(2)).await;
    storage.delete_account(ACCOUNT).await.unwrap();
    let late = account.append(request(body, inbox, "")).await;
    assert!(matches!(late, Err(AppendError::Storage(StorageError::Closed))), "{late:?}");
    assert!(matches!(storage.account(&Principal::Operator, ACCOUNT).await, Err(OpenError::Missing)));
}
