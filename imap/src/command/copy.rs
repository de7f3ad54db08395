//! COPY and MOVE (RFC 9051 §6.4.7, §6.4.8).

use imap_protocol::command::Copy;
use imap_protocol::response::untagged;
use mail::id::MailboxId;
use mail::uid::UidSet;
use storage::{Account, Copied};

use crate::news::Expunges;
use crate::reply::{Answer, Reply, Stop, copy_failure};
use crate::session::Session;

pub(crate) async fn copy(session: &mut Session, copy: Copy) -> Answer {
    let (account, from, uids, to) = match prepare(session, &copy)? {
        Ok(prepared) => prepared,
        Err(reply) => return Ok(reply),
    };
    match account.copy(from, uids, to).await {
        Ok(copied) if copied.source.is_empty() => Ok(nothing(&copy, "Copy")),
        Ok(copied) => Ok(Reply::ok(format!("{} Copy completed", copy_uid(&copied)))),
        Err(error) => copy_failure(&error),
    }
}

pub(crate) async fn move_messages(session: &mut Session, copy: Copy) -> Answer {
    if session.selected()?.read_only {
        return Ok(Reply::no("[READ-ONLY] The mailbox was opened for reading"));
    }
    let (account, from, uids, to) = match prepare(session, &copy)? {
        Ok(prepared) => prepared,
        Err(reply) => return Ok(reply),
    };
    match account.move_messages(from, uids, to).await {
        Ok(moved) if moved.source.is_empty() => Ok(nothing(&copy, "Move")),
        Ok(moved) => {
            // RFC 6851 §4.3: the new UIDs come before the expunges, in an untagged OK.
            let text = format!("OK {} Moved", copy_uid(&moved));
            untagged(session.out(), &text);
            session.tell_news(Expunges::Tell).await?;
            Ok(Reply::ok("Move completed"))
        }
        Err(error) => copy_failure(&error),
    }
}

type Prepared = (Account, MailboxId, UidSet, MailboxId);

fn prepare(session: &mut Session, copy: &Copy) -> Result<Result<Prepared, Reply>, Stop> {
    let account = session.account()?;
    let selected = session.selected()?;
    let from = selected.mailbox;
    let uids = match selected.resolve_uids(&copy.set, copy.uid) {
        Ok(uids) => uids,
        Err(reply) => return Ok(Err(reply)),
    };
    let Some(to) = account.state().mailbox_by_name(copy.mailbox.as_str()) else {
        return Ok(Err(Reply::no("[TRYCREATE] No such mailbox")));
    };
    Ok(Ok((account, from, uids, to.id)))
}

/// UIDs that do not exist are no error (RFC 9051 §6.4.9); a message that has a number here was expunged elsewhere.
fn nothing(copy: &Copy, verb: &str) -> Reply {
    if copy.uid {
        Reply::ok(format!("{verb} completed, no messages found"))
    } else {
        Reply::no("[EXPUNGEISSUED] The messages have been expunged")
    }
}

/// `[COPYUID v source target]` (RFC 4315 §3). Both sets ascend, so the n-th of one became the n-th of the other.
fn copy_uid(copied: &Copied) -> String {
    format!("[COPYUID {} {} {}]", copied.uid_validity, copied.source, copied.target)
}
