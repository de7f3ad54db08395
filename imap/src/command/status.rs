//! STATUS (RFC 9051 §6.3.11). Everything comes from the account's root.

use imap_protocol::command::StatusItem;
use imap_protocol::mailbox_name::MailboxName;
use imap_protocol::response::status;
use storage::Mailbox;

use crate::reply::{Answer, Reply, storage_failure};
use crate::session::Session;

pub(crate) async fn run(session: &mut Session, name: &MailboxName, items: &[StatusItem]) -> Answer {
    let state = match session.account()?.refresh().await {
        Ok(state) => state,
        Err(error) => return storage_failure(&error),
    };
    let Some(mailbox) = state.mailbox_by_name(name.as_str()) else { return Ok(Reply::no_mailbox()) };
    write(session, name, &mailbox, items);
    Ok(Reply::ok("Status completed"))
}

/// Writes one STATUS response; LIST has them too (RFC 5819).
pub(crate) fn write(session: &mut Session, name: &MailboxName, mailbox: &Mailbox, items: &[StatusItem]) {
    if items.contains(&StatusItem::HighestModSeq) {
        session.enable_condstore();
    }
    let append_limit = session.imap.config.append_bytes_max;
    let values = items.iter().map(|item| {
        let value = match item {
            StatusItem::Messages => u64::from(mailbox.messages),
            StatusItem::Recent => 0,
            StatusItem::UidNext => u64::from(mailbox.uid_next.map_or(u32::MAX, mail::id::Uid::get)),
            StatusItem::UidValidity => u64::from(mailbox.uid_validity.0.get()),
            StatusItem::Unseen => u64::from(mailbox.unseen),
            StatusItem::Deleted => u64::from(mailbox.deleted),
            StatusItem::Size => mailbox.size,
            StatusItem::HighestModSeq => mailbox.highest_modseq.0.max(1),
            StatusItem::AppendLimit => append_limit,
        };
        (*item, Some(value))
    });
    let encoded = name.encode(session.pump.machine().name_form());
    status::status(session.pump.machine().output(), &encoded, values);
}
