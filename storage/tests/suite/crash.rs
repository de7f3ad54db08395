//! The power fails after every sync in turn. What comes up again is a state that the log leads to, with all that was
//! acknowledged; a fold from the beginning gives the same.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use engine::memory::{Faults, MemoryEngine};
use mail::id::{EmailId, MailboxId, Uid};
use storage::{
    Account, AccountSettings, CheckDepth, CreateError, Delivered, Delivery, EmailUpdate, FlagAction,
    FlagChange, ImportRequest, IngestId, KeywordsPatch, MailboxPatch, MailboxesPatch, ObjectKind,
    ObjectWrite, Principal, StoredBody, UploadId,
};
use uuid::Uuid;

use crate::setup::*;

/// What was acknowledged before the power failed, and what was asked for and not answered.
#[derive(Default)]
struct Acknowledged {
    created: bool,
    appended: Vec<Uid>,
    asked: u32,
    removed: BTreeSet<Uid>,
    delivered: u64,
    moved: u32,
    last_modseq: u64,
    /// Emails that were imported, and where they are; those whose destruction was asked for.
    imported: BTreeMap<EmailId, BTreeSet<MailboxId>>,
    destroyed: BTreeSet<EmailId>,
    objects: BTreeMap<String, Bytes>,
    uploads: Vec<UploadId>,
}

const INBOX: MailboxId = MailboxId(1);
const DRAFTS: MailboxId = MailboxId(2);
const SENT: MailboxId = MailboxId(3);
const JUNK: MailboxId = MailboxId(4);
const TRASH: MailboxId = MailboxId(5);
const KIND: ObjectKind = ObjectKind::IDENTITY;

/// Some of everything, one after the other, until something fails.
async fn work(disk: &Disk, done: &mut Acknowledged) -> Option<()> {
    let storage = disk.start().await;
    match storage.create_account(ACCOUNT, AccountSettings::default()).await {
        Ok(()) | Err(CreateError::Exists) => done.created = true,
        Err(_) => return None,
    }
    let account = storage.account(&Principal::Owner(ACCOUNT), ACCOUNT).await.ok()?;
    for round in 0..9u32 {
        for _ in 0..2 {
            done.asked += 1;
            let body = try_write(&account, done.asked).await?;
            let appended = account.append(request(body, INBOX, "$x")).await.ok()?;
            done.appended.push(appended.uid);
            done.last_modseq = appended.modseq.0;
        }
        let ingest = IngestId { producer: Uuid::from_u128(1), item: u64::from(round), part: 0 };
        let request = request(try_write(&account, round).await?, TRASH, "");
        let watermark = u64::from(round).saturating_sub(2);
        done.delivered += 1;
        let delivered = account.deliver(Delivery { ingest, watermark, request }).await.ok()?;
        assert!(matches!(delivered, Delivered::Placed(_)));
        let change = FlagChange { action: FlagAction::Add, flags: flags("\\Seen") };
        account.set_flags(INBOX, uids("1:4"), change, None).await.ok()?;
        let gone = uid(round + 1);
        // Whether it is gone is not known until there is an answer.
        done.removed.insert(gone);
        account.remove(INBOX, gone.into()).await.ok()?;
        if round == 3 {
            done.moved = 2;
            account.move_messages(INBOX, uids("6:7"), TRASH).await.ok()?;
        }
        account.copy(TRASH, uids("1"), MailboxId(6)).await.ok()?;
        work_by_email(&account, round, done).await?;
        account.create_mailbox(&format!("box{round}"), None).await.ok()?;
        if round > 1 {
            account.delete_mailbox(&format!("box{}", round - 2)).await.ok()?;
        }
    }
    Some(())
}

/// What JMAP does.
async fn work_by_email(account: &Account, round: u32, done: &mut Acknowledged) -> Option<()> {
    let body = try_write(account, 100 + round).await?;
    let upload = account.keep_upload(body).await.ok()?;
    done.uploads.push(upload);
    let body = account.upload_as_message(upload).await.ok()??;
    let mailboxes = BTreeSet::from([DRAFTS, SENT]);
    let request = ImportRequest { mailboxes: mailboxes.clone(), body, flags: flags("$y"), received: None };
    let imported = account.import_emails(vec![request], None).await.ok()?;
    let imported = imported.results.into_iter().next()?.ok()?;
    done.imported.insert(imported.email, mailboxes);
    let patch = MailboxesPatch::Change { add: [JUNK].into(), remove: [DRAFTS].into() };
    let keywords = Some(KeywordsPatch::Replace(flags("$z")));
    let update = EmailUpdate { email: imported.email, keywords, mailboxes: Some(patch) };
    // Where it is is not known until there is an answer.
    let before = done.imported.remove(&imported.email)?;
    let is_ok = account.update_emails(vec![update], None).await.ok()?.results[0].is_ok();
    done.imported.insert(imported.email, if is_ok { [JUNK, SENT].into() } else { before });
    if round % 3 == 2 {
        done.destroyed.insert(imported.email);
        account.destroy_emails(vec![imported.email], None).await.ok()?;
        let upload = done.uploads.remove(0);
        account.remove_upload(upload).await.ok()?;
    }
    let value = Bytes::from(format!("value {round}"));
    let write = ObjectWrite::Create { id: None, value: value.clone() };
    let written = account.write_objects(KIND, vec![write], None).await.ok()?;
    done.objects.insert(written.results.into_iter().next()?.ok()?, value);
    let patch = MailboxPatch { sort_order: Some(round + 1), ..MailboxPatch::default() };
    account.update_mailbox(SENT, patch, None).await.ok()?;
    Some(())
}

async fn check_by_email(account: &Account, done: &Acknowledged) {
    let view = account.view().await.unwrap();
    for (email, mailboxes) in done.imported.iter().filter(|(email, _)| !done.destroyed.contains(email)) {
        let shown = view.email(*email).expect("an acknowledged import is there");
        assert_eq!(shown.mailboxes().collect::<BTreeSet<_>>(), *mailboxes);
    }
    for (id, value) in &done.objects {
        assert_eq!(&account.state().object(KIND, id).expect("an acknowledged object is there").value, value);
    }
    for upload in &done.uploads {
        assert!(account.upload(*upload).await.unwrap().is_some(), "an acknowledged upload is there");
    }
}

async fn try_write(account: &Account, number: u32) -> Option<StoredBody> {
    let mut writer = account.body_writer();
    writer.write(message(number).into()).await.ok()?;
    writer.finish().await.ok()
}

async fn check_after(disk: &Disk, done: &Acknowledged) {
    let storage = disk.start().await;
    let account = match storage.account(&Principal::Owner(ACCOUNT), ACCOUNT).await {
        Ok(account) => account,
        Err(error) => {
            assert!(!done.created, "{error}");
            return;
        }
    };
    let state = account.mailbox(INBOX).await.unwrap();
    let there: BTreeSet<Uid> = state.index(INBOX).unwrap().uids().collect();
    let shown = state.mailbox(INBOX).unwrap();
    assert!(state.modseq().0 >= done.last_modseq);
    for uid in &done.appended {
        let may_be_gone = done.removed.contains(uid) || done.moved > 0 && (6..=7).contains(&uid.get());
        assert!(there.contains(uid) || may_be_gone, "acknowledged UID {uid} is lost");
    }
    assert!(shown.uid_next.unwrap().get() <= done.asked + 1, "something was appended twice");
    assert!(u64::from(state.mailbox(TRASH).unwrap().messages) <= done.delivered + u64::from(done.moved));
    // Deliveries that were not answered are tried again, and those that had happened do nothing.
    for item in 0..done.delivered {
        let ingest = IngestId { producer: Uuid::from_u128(1), item, part: 0 };
        let body = try_write(&account, 2).await.unwrap();
        account.deliver(Delivery { ingest, watermark: 0, request: request(body, TRASH, "") }).await.unwrap();
    }
    let trash = account.state().mailbox(TRASH).unwrap();
    let moved = u64::from(trash.messages) - done.delivered;
    assert!(moved == 0 || moved == u64::from(done.moved), "a delivery is missing or doubled");
    check_by_email(&account, done).await;
    let report = storage.check(ACCOUNT, CheckDepth::Bodies).await.unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
}

#[tokio::test]
async fn every_sync_may_be_the_last() {
    let mut cuts = 0;
    let mut swings = 0;
    for sync in 0.. {
        let faults = Faults { seed: sync, power_cut_after_sync: Some(sync), ..Faults::default() };
        let mut disk = Disk::eventful();
        disk.engine = MemoryEngine::with_faults(faults);
        disk.options.deadline_seconds = 1;
        let mut done = Acknowledged::default();
        let finished = Box::pin(work(&disk, &mut done)).await;
        let engine = disk.engine.after_power_cut(Faults::default());
        swings += engine.snapshots(engine::LogId::account(ACCOUNT.0)).len();
        Box::pin(check_after(&disk.rebooted(engine), &done)).await;
        if finished.is_some() {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 60, "{cuts} power cuts");
    assert!(swings > cuts, "{swings} snapshots had become current");
}
