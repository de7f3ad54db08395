//! EXPUNGE and UID EXPUNGE (RFC 9051 §6.4.3, §6.4.9).

use imap_protocol::sequence::SequenceSet;

use crate::news::Expunges;
use crate::reply::{Answer, Reply, expunge_failure};
use crate::session::Session;

pub(crate) async fn run(session: &mut Session, set: Option<SequenceSet>) -> Answer {
    let account = session.account()?;
    let selected = session.selected()?;
    if selected.read_only {
        return Ok(Reply::no("[READ-ONLY] The mailbox was opened for reading"));
    }
    let mailbox = selected.mailbox;
    let uids = match set.map(|set| selected.resolve_uids(&set, true)).transpose() {
        Ok(uids) => uids,
        Err(reply) => return Ok(reply),
    };
    let expunged = match account.expunge(mailbox, uids).await {
        Ok(expunged) => expunged,
        Err(error) => return expunge_failure(&error),
    };
    session.tell_news(Expunges::Tell).await?;
    // RFC 7162 §3.2.7: where the client stands now.
    match expunged.modseq {
        Some(_) if session.condstore => {
            let synced = session.selected()?.view.synced();
            Ok(Reply::ok(format!("[HIGHESTMODSEQ {synced}] Expunge completed")))
        }
        _ => Ok(Reply::ok("Expunge completed")),
    }
}
