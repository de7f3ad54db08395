//! What JMAP needs of an account, each verb once: limits, refusals, bytes by name.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::TryStreamExt;
use mail::flag::FlagSet;
use mail::id::{AccountId, EmailId, MailboxId};
use storage::MailboxSetError::Mailbox;
use storage::ObjectError::{Changed, Exists, InvalidId, Missing, TooLarge, TooMany};
use storage::{
    Account, AccountSettings, AppendError, BlobName, ChangesError, CheckDepth, EmailUpdate, EmailUpdateError,
    ImportRequest, KeywordsPatch, MailboxError, MailboxPatch, MailboxSetError, MailboxesPatch, NewMailbox,
    ObjectKind, ObjectWrite, OnDestroy, Principal, Role, Since, TransferEncoding, UploadError,
    WriteObjectsError,
};

use crate::setup::*;

fn mark(email: EmailId, add: &str) -> EmailUpdate {
    let keywords = KeywordsPatch::Change { add: flags(add), remove: FlagSet::new() };
    EmailUpdate { email, keywords: Some(keywords), mailboxes: None }
}

fn put_into(email: EmailId, mailboxes: impl IntoIterator<Item = MailboxId>) -> EmailUpdate {
    let mailboxes = Some(MailboxesPatch::Replace(mailboxes.into_iter().collect()));
    EmailUpdate { email, keywords: None, mailboxes }
}

async fn emails_in(account: &Account, mailbox: MailboxId) -> Vec<EmailId> {
    account.view().await.unwrap().received_in(mailbox).collect()
}

#[tokio::test]
async fn one_that_is_refused_does_not_hold_back_the_others() {
    let (_storage, account) = Disk::new().start_with_account().await;
    let (inbox, archive) = (mailbox(&account, "INBOX"), mailbox(&account, "Archive"));
    fill(&account, inbox, 1..=3).await;
    let emails = emails_in(&account, inbox).await;
    let many: Vec<String> = (0..119).map(|number| format!("k{number}")).collect();
    let updates = vec![
        mark(emails[0], &many.join(" ")),
        mark(emails[1], "one two"),
        mark(emails[2], "last k5"),
        mark(emails[2], "\\Seen"),
        mark(EmailId(99), "\\Seen"),
    ];
    let results = account.update_emails(updates, None).await.unwrap().results;
    assert!(matches!(
        &results[..],
        [
            Ok(()),
            Err(EmailUpdateError::TooManyKeywords),
            Ok(()),
            Err(EmailUpdateError::Twice),
            Err(EmailUpdateError::NotFound)
        ]
    ));
    let settings = AccountSettings { quota_messages: Some(4), ..AccountSettings::default() };
    account.set_quota(settings).await.unwrap();
    let updates = emails.iter().map(|email| put_into(*email, [inbox, archive])).collect();
    let results = account.update_emails(updates, None).await.unwrap().results;
    assert!(matches!(
        &results[..],
        [Ok(()), Err(EmailUpdateError::OverQuota), Err(EmailUpdateError::OverQuota)]
    ));
    // Moving needs no room.
    let results = account.update_emails(vec![put_into(emails[1], [archive])], None).await.unwrap().results;
    assert!(results[0].is_ok());
    assert_eq!(account.state().mailbox(archive).unwrap().messages, 2);
    assert_eq!(account.state().mailbox(inbox).unwrap().messages, 2);
}

#[tokio::test]
async fn an_email_keeps_its_id_wherever_it_goes() {
    let (storage, account) = Disk::new().start_with_account().await;
    let inbox = mailbox(&account, "INBOX");
    let others = ["Archive", "Sent", "Junk"].map(|name| mailbox(&account, name));
    fill(&account, inbox, 1..=2).await;
    let email = emails_in(&account, inbox).await[0];
    let since = account.state().emails_state();
    for wanted in
        [vec![others[0]], vec![others[1], others[2]], vec![inbox, others[0], others[2]], vec![inbox]]
    {
        let answer = account.update_emails(vec![put_into(email, wanted.clone())], None).await.unwrap();
        assert!(answer.results[0].is_ok());
        let shown = account.view().await.unwrap().email(email).unwrap();
        assert_eq!(shown.mailboxes().collect::<BTreeSet<_>>(), wanted.into_iter().collect());
        let changes = account.email_changes(since, 10).await.unwrap();
        assert_eq!((changes.created, changes.updated, changes.destroyed), (vec![], vec![email], vec![]));
    }
    assert_eq!(account.state().mailbox(inbox).unwrap().uid_next, Some(uid(4)), "it has come back once");
    account.destroy_emails(vec![email], None).await.unwrap();
    assert!(!account.view().await.unwrap().contains(email));
    let changes = account.email_changes(since, 10).await.unwrap();
    assert_eq!((changes.updated, changes.destroyed), (vec![], vec![email]));
    assert_eq!(storage.check(ACCOUNT, CheckDepth::Bodies).await.unwrap().problems, Vec::<String>::new());
}

#[tokio::test]
async fn one_operation_is_told_in_parts() {
    let (_storage, account) = Disk::new().start_with_account().await;
    let inbox = mailbox(&account, "INBOX");
    for hundred in 0..10 {
        fill(&account, inbox, hundred * 100..hundred * 100 + 100).await;
    }
    let mut since = account.state().emails_state();
    let emails = emails_in(&account, inbox).await;
    let updates: Vec<EmailUpdate> = emails.iter().map(|email| mark(*email, "\\Flagged")).collect();
    account.update_emails(updates, None).await.unwrap();
    let mut told = Vec::new();
    let mut parts = 0;
    loop {
        let changes = account.email_changes(since, 64).await.unwrap();
        told.extend(changes.updated);
        (since, parts) = (changes.new_state, parts + 1);
        if parts == 3 {
            assert!(since.to_string().contains('.'), "{since}");
            // One that was told and one that was not change once more.
            account.update_emails(vec![mark(told[0], "$a"), mark(emails[900], "$a")], None).await.unwrap();
        }
        if !changes.has_more {
            break;
        }
    }
    assert_eq!(told.len(), 1001, "each once, and the one that changed again twice");
    assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), 1000);
    assert_eq!(since, account.state().emails_state());
    let ahead = Since::operation(account.state().modseq().0 + 1);
    assert!(matches!(account.email_changes(ahead, 5).await, Err(ChangesError::Forgotten)));
}

#[tokio::test]
async fn a_state_is_of_its_kind() {
    let (_storage, account) = Disk::new().start_with_account().await;
    let inbox = mailbox(&account, "INBOX");
    fill(&account, inbox, 1..=1).await;
    let email = emails_in(&account, inbox).await[0];
    let before = account.state();
    account.update_emails(vec![mark(email, "$Work")], None).await.unwrap();
    let after = account.state();
    assert!(after.emails_state() > before.emails_state());
    assert_eq!(after.mailboxes_state(), before.mailboxes_state(), "a keyword is not counted");
    assert_eq!(after.threads_state(), before.threads_state());
    account.update_emails(vec![mark(email, "\\Seen")], None).await.unwrap();
    assert!(account.state().mailboxes_state() > after.mailboxes_state());
    let write = ObjectWrite::Create { id: None, value: Bytes::from_static(b"{}") };
    let before = account.state();
    account.write_objects(ObjectKind::IDENTITY, vec![write], None).await.unwrap();
    let after = account.state();
    assert_eq!(after.latest(), before.latest());
    assert!(after.objects_state(ObjectKind::IDENTITY).seq() > before.modseq().0);
    assert_eq!(after.objects_state(ObjectKind::VACATION_RESPONSE), Since::operation(0));
    assert_eq!(after.object_kinds_since(before.modseq()), BTreeSet::from([ObjectKind::IDENTITY]));
}

#[tokio::test]
async fn mailboxes_are_set() {
    let (_storage, account) = Disk::new().start_with_account().await;
    let new = |parent, name: &str, role| NewMailbox {
        parent,
        name: name.to_owned(),
        role,
        sort_order: 3,
        is_subscribed: true,
    };
    let state = account.state().mailboxes_state();
    let a = account.create_mailbox_in(new(None, "a", None), Some(state)).await.unwrap().answer;
    let b = account.create_mailbox_in(new(Some(a.id), "b", None), None).await.unwrap().answer;
    assert_eq!((b.name.as_str(), b.own_name(), b.sort_order), ("a/b", "b", 3));
    let stale = account.create_mailbox_in(new(None, "c", None), Some(state)).await;
    assert!(matches!(stale, Err(MailboxSetError::StateMismatch)));
    let refusal = async |new| account.create_mailbox_in(new, None).await.unwrap_err();
    assert!(matches!(refusal(new(Some(MailboxId(99)), "c", None)).await, MailboxSetError::NoParent));
    assert!(matches!(refusal(new(None, "x/y", None)).await, Mailbox(MailboxError::InvalidName(_))));
    assert!(matches!(refusal(new(None, "inbox", None)).await, Mailbox(MailboxError::Exists)));
    assert!(matches!(refusal(new(None, "c", Some(Role::Sent))).await, Mailbox(MailboxError::RoleTaken)));
    let patch = MailboxPatch { parent: Some(Some(b.id)), ..MailboxPatch::default() };
    let circle = account.update_mailbox(a.id, patch, None).await;
    assert!(matches!(circle, Err(Mailbox(MailboxError::NotPossible(_)))));
    let patch = MailboxPatch { parent: Some(None), name: Some("d".into()), ..MailboxPatch::default() };
    account.update_mailbox(b.id, patch, None).await.unwrap();
    assert!(account.state().is_subscribed("d") && !account.state().is_subscribed("a/b"));
    fill(&account, b.id, 1..=2).await;
    let refused = account.destroy_mailbox(b.id, OnDestroy::Refuse, None).await;
    assert!(matches!(refused, Err(MailboxSetError::HasEmail)));
    let since = account.state().emails_state();
    account.destroy_mailbox(b.id, OnDestroy::RemoveEmails, None).await.unwrap();
    assert_eq!(account.email_changes(since, 5).await.unwrap().destroyed.len(), 2);
    let inbox = mailbox(&account, "INBOX");
    assert!(account.destroy_mailbox(inbox, OnDestroy::RemoveEmails, None).await.is_err());
}

#[tokio::test]
async fn objects_have_limits() {
    let mut disk = Disk::new();
    (disk.config.objects_max, disk.config.objects_bytes_max, disk.config.object_bytes_max) = (3, 500, 200);
    let (_storage, account) = disk.start_with_account().await;
    let kind = ObjectKind::EMAIL_SUBMISSION;
    let create = |id: &str, bytes: usize| ObjectWrite::Create {
        id: (!id.is_empty()).then(|| id.to_owned()),
        value: vec![b'x'; bytes].into(),
    };
    let replace = |id: &str, unchanged_since| ObjectWrite::Replace {
        id: id.to_owned(),
        value: Bytes::from_static(b"new"),
        unchanged_since,
    };
    let writes = vec![
        create("a", 150),
        create("a", 1),
        create("a b", 1),
        create("", 201),
        create("", 150),
        create("", 150),
        create("b", 1),
        create("c", 1),
        replace("zz", None),
        ObjectWrite::Remove { id: "zz".into() },
    ];
    let written = account.write_objects(kind, writes, None).await.unwrap();
    let id = written.results[4].clone().unwrap();
    let expected = [
        Ok("a".to_owned()),
        Err(Exists),
        Err(InvalidId),
        Err(TooLarge),
        Ok(id.clone()),
        Err(TooMany),
        Ok("b".to_owned()),
        Err(TooMany),
        Err(Missing),
        Err(Missing),
    ];
    assert_eq!(written.results, expected);
    let changed = account.state().object(kind, &id).unwrap().changed;
    let results = account
        .write_objects(kind, vec![replace(&id, Some(changed)), replace(&id, Some(changed))], None)
        .await
        .unwrap()
        .results;
    assert_eq!(results, [Ok(id.clone()), Err(Changed)]);
    let stale = account.write_objects(kind, vec![create("", 1)], Some(written.old_state)).await;
    assert!(matches!(stale, Err(WriteObjectsError::StateMismatch)));
    let huge = account.write_objects(kind, vec![create("", 300 << 10)], None).await;
    assert!(matches!(huge, Err(WriteObjectsError::TooLarge)));
    let changes = account.object_changes(kind, written.old_state, 100).await.unwrap();
    assert_eq!(changes.created, ["a", "b", id.as_str()].map(str::to_owned));
    let ids: Vec<&str> = vec!["a", "b", &id];
    assert_eq!(account.state().objects(kind).map(|(id, _)| id.to_owned()).collect::<Vec<_>>(), ids);
}

async fn read(account: &Account, name: &str, range: std::ops::Range<u64>) -> Option<Vec<u8>> {
    let blob = account.named_blob(&name.parse::<BlobName>().unwrap()).await.unwrap()?;
    let pieces: Vec<Bytes> = blob.read(range).try_collect().await.unwrap();
    Some(pieces.concat())
}

#[tokio::test]
async fn bytes_have_names() {
    let (_storage, account) = Disk::new().start_with_account().await;
    let inbox = mailbox(&account, "INBOX");
    let text = b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: image/png\r\n\
        Content-Transfer-Encoding: base64\r\n\r\nSGVsbG8s\r\nIHdvcmxk\r\n";
    let appended = account.append(request(write(&account, text).await, inbox, "")).await.unwrap();
    let record = account.email(appended.email).await.unwrap().unwrap();
    let body = record.structure().unwrap().body;
    let whole = BlobName::Email(appended.email).to_string();
    assert_eq!(read(&account, &whole, 0..u64::MAX).await.unwrap(), text);
    assert_eq!(read(&account, &whole, 9..12).await.unwrap(), b"x\r\n");
    let part =
        BlobName::Part { email: appended.email, range: body.clone(), encoding: TransferEncoding::Base64 };
    let name = part.to_string();
    for (range, expected) in
        [(0..u64::MAX, "Hello, world"), (4..8, "o, w"), (7..9, "wo"), (12..20, ""), (5..5, "")]
    {
        assert_eq!(read(&account, &name, range).await.unwrap(), expected.as_bytes());
    }
    let blob = account.named_blob(&part).await.unwrap().unwrap();
    assert_eq!((blob.size(), blob.decoded_size().await.unwrap()), (None, 12));
    let beyond = format!("p{}-0-{}-i", appended.email.0, text.len() + 1);
    assert_eq!(read(&account, &beyond, 0..9).await, None);
    account.destroy_emails(vec![appended.email], None).await.unwrap();
    assert_eq!(read(&account, &whole, 0..9).await, None);
    assert_eq!(read(&account, &name, 0..9).await, None);
    assert_eq!(read(&account, "u1", 0..9).await, None);
}

#[tokio::test]
async fn what_has_a_name_becomes_a_message() {
    let (storage, account) = Disk::new().start_with_account().await;
    let other = AccountId(uuid::Uuid::from_u128(5));
    storage.create_account(other, AccountSettings::default()).await.unwrap();
    let other = storage.account(&Principal::Operator, other).await.unwrap();
    let (inbox, there) = (mailbox(&account, "INBOX"), mailbox(&other, "INBOX"));
    fill(&account, inbox, 1..=1).await;
    let upload = account.keep_upload(write(&account, &message(2)).await).await.unwrap();
    let email = emails_in(&account, inbox).await[0];
    let length = message(1).len() as u64;
    let part = BlobName::Part { email, range: 0..length, encoding: TransferEncoding::Identity };
    for (name, expected) in
        [(BlobName::Email(email), message(1)), (BlobName::Upload(upload), message(2)), (part, message(1))]
    {
        for (into, mailbox) in [(&account, inbox), (&other, there)] {
            let body = into.message_of(&account, &name).await.unwrap().unwrap();
            let requests = vec![ImportRequest {
                mailboxes: [mailbox].into(),
                body,
                flags: FlagSet::new(),
                received: None,
            }];
            let imported = into.import_emails(requests, None).await.unwrap().results.remove(0).unwrap();
            let name = BlobName::Email(imported.email).to_string();
            assert_eq!(read(into, &name, 0..u64::MAX).await.unwrap(), expected);
        }
    }
    assert!(other.message_of(&account, &BlobName::Email(EmailId(99))).await.unwrap().is_none());
    for account in [account.id(), other.id()] {
        let report = storage.check(account, CheckDepth::Bodies).await.unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
    }
}

#[tokio::test]
async fn uploads_end() {
    let mut disk = Disk::new();
    disk.config.uploads_max = 2;
    let (storage, account) = disk.start_with_account().await;
    let mut ids = Vec::new();
    for number in 0..2 {
        ids.push(account.keep_upload(write(&account, &message(number)).await).await.unwrap());
    }
    let refused = account.keep_upload(write(&account, b"x").await).await;
    assert!(matches!(refused, Err(UploadError::OverQuota)));
    assert_eq!(account.expire_uploads().await.unwrap(), 0);
    let name = BlobName::Upload(ids[0]).to_string();
    assert_eq!(read(&account, &name, 0..u64::MAX).await.unwrap(), message(0));
    let check = async || storage.check(ACCOUNT, CheckDepth::Bodies).await.unwrap();
    assert_eq!((check().await.problems.len(), check().await.bodies), (0, 2));
    let body = account.upload_as_message(ids[0]).await.unwrap().unwrap();
    assert!(account.remove_upload(ids[0]).await.unwrap());
    assert!(!account.remove_upload(ids[0]).await.unwrap());
    assert_eq!(read(&account, &name, 0..9).await, None);
    let (inbox, sent) = (mailbox(&account, "INBOX"), mailbox(&account, "Sent"));
    let import = |mailboxes: &[MailboxId], body| ImportRequest {
        mailboxes: mailboxes.iter().copied().collect(),
        body,
        flags: flags("\\Draft"),
        received: None,
    };
    let requests = vec![import(&[], write(&account, b"x").await), import(&[inbox, sent], body)];
    let results = account.import_emails(requests, None).await.unwrap().results;
    assert!(matches!(results[0], Err(AppendError::NoMailbox)));
    let email = results[1].as_ref().unwrap().email;
    assert_eq!(account.view().await.unwrap().email(email).unwrap().places.len(), 2);
    assert_eq!(read(&account, &format!("e{}", email.0), 0..u64::MAX).await.unwrap(), message(0));
    assert_eq!(check().await.problems, Vec::<String>::new());
}

#[tokio::test]
async fn uploads_whose_time_is_over_go() {
    let mut disk = Disk::new();
    (disk.config.uploads_max, disk.config.upload_seconds) = (1, 0);
    let (storage, account) = disk.start_with_account().await;
    let first = account.keep_upload(write(&account, b"one").await).await.unwrap();
    let second = account.keep_upload(write(&account, b"two").await).await.unwrap();
    assert!(account.state().upload(first).is_none() && account.state().upload(second).is_some());
    assert_eq!(account.expire_uploads().await.unwrap(), 1);
    assert_eq!(account.state().uploads().count(), 0);
    assert_eq!(storage.check(ACCOUNT, CheckDepth::Bodies).await.unwrap().problems, Vec::<String>::new());
}
