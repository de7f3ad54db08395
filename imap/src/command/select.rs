//! SELECT and EXAMINE (RFC 9051 §6.3.2) with CONDSTORE and QRESYNC (RFC 7162).

use imap_protocol::command::{Qresync, Select};
use imap_protocol::response::{self, fetch, select};
use imap_protocol::server::State;
use mail::id::ModSeq;
use mail::uid::UidSet;
use storage::{AccountState, Changes, Mailbox, MailboxIndex, Vanished};

use crate::news::{keyword_names, permanent, write_flags};
use crate::reply::{Answer, Reply, Stop, storage_failure};
use crate::selected::{Selected, uid_set};
use crate::session::Session;
use crate::view::View;

pub(crate) async fn run(session: &mut Session, select: Select) -> Answer {
    // RFC 9051 §6.3.2: whatever comes of it, the mailbox selected before is left.
    if session.selected.is_some() {
        response::untagged(session.out(), "OK [CLOSED] Previous mailbox is closed");
        session.deselect();
    }
    if select.qresync.is_some() && !session.qresync {
        return Ok(Reply::bad("QRESYNC is not enabled"));
    }
    if select.condstore || select.qresync.is_some() {
        session.enable_condstore();
    }
    let account = session.account()?;
    let state = match account.refresh().await {
        Ok(state) => state,
        Err(error) => return storage_failure(&error),
    };
    let Some(id) = state.mailbox_by_name(select.mailbox.as_str()).map(|mailbox| mailbox.id) else {
        return Ok(Reply::no_mailbox());
    };
    let opened = match &select.qresync {
        Some(qresync) => account.changes(id, ModSeq(qresync.mod_seq)).await,
        None => account.mailbox(id).await.map(|state| (state, None)),
    };
    let (state, changes) = match opened {
        Ok(opened) => opened,
        Err(error) => return storage_failure(&error),
    };
    let (Some(mailbox), Some(index)) = (state.mailbox(id), state.index(id)) else {
        return Ok(Reply::no_mailbox());
    };

    let selected = Selected {
        mailbox: id,
        read_only: select.read_only,
        view: View::new(index.uids(), mailbox.highest_modseq),
        keywords: mailbox.keywords,
        saved: UidSet::default(),
    };
    write_summary(session, &state, &mailbox, index, select.read_only);
    if let (Some(qresync), Some(changes)) = (&select.qresync, changes)
        && qresync.uid_validity == mailbox.uid_validity.0.get()
    {
        resynchronise(session, &state, index, &selected, qresync, changes).await?;
    }
    session.selected = Some(Box::new(selected));
    session.pump.machine().set_state(State::Selected);
    Ok(Reply::ok(if select.read_only {
        "[READ-ONLY] Examine completed"
    } else {
        "[READ-WRITE] Select completed"
    }))
}

fn write_summary(
    session: &mut Session,
    state: &AccountState,
    mailbox: &Mailbox,
    index: &MailboxIndex,
    read_only: bool,
) {
    let names = keyword_names(state, mailbox.keywords);
    let out = session.out();
    select::flags(out, names.iter().copied());
    select::permanent_flags(out, permanent(read_only, state), names);
    response::numbered(out, index.len() as u32, "EXISTS");
    // `\Recent` would need a session to own each message; no client has use for it, and rev2 has none.
    response::numbered(out, 0, "RECENT");
    if let Some(position) = index.first_unseen() {
        select::code_number(out, "UNSEEN", position as u64 + 1, "First unseen");
    }
    select::code_number(out, "UIDVALIDITY", u64::from(mailbox.uid_validity.0.get()), "UIDs valid");
    let uid_next = mailbox.uid_next.map_or(u32::MAX, mail::id::Uid::get);
    select::code_number(out, "UIDNEXT", u64::from(uid_next), "Predicted next UID");
    select::code_number(out, "HIGHESTMODSEQ", mailbox.highest_modseq.0.max(1), "Highest");
}

/// Tells what has happened since the client was last here (RFC 7162 §3.2.5).
async fn resynchronise(
    session: &mut Session,
    state: &AccountState,
    index: &MailboxIndex,
    selected: &Selected,
    qresync: &Qresync,
    changes: Changes,
) -> Result<(), Stop> {
    // A sequence set without "*" needs no largest number.
    let known =
        qresync.known_uids.as_ref().and_then(|set| set.resolve(u32::MAX)).map(|ranges| uid_set(&ranges));
    let vanished = match changes.vanished {
        Vanished::Known(uids) => match &known {
            Some(known) => uids.intersection(known),
            None => uids,
        },
        Vanished::Forgotten => {
            // All that the client can know and is not there: what it says it knows, or everything below the new.
            let known = known.clone().unwrap_or_else(|| uid_set(&[(1, last_given(state, selected))]));
            let unsure = match &qresync.match_data {
                Some((numbers, uids)) => known.difference(&matched(selected, numbers, uids)),
                None => known,
            };
            unsure.difference(&index.existing(&unsure))
        }
    };
    if !vanished.is_empty() {
        select::vanished(session.out(), true, &vanished.to_string());
    }
    let changed = match &known {
        Some(known) => changes.changed.intersection(known),
        None => changes.changed,
    };
    for row in index.select(&changed) {
        let Some(number) = selected.view.number(row.uid) else { continue };
        let out = session.out();
        fetch::begin(out, number);
        fetch::uid(out, row.uid.get());
        out.extend_from_slice(b" ");
        write_flags(out, state, row.marks);
        out.extend_from_slice(b" ");
        fetch::mod_seq(out, row.modseq.0);
        fetch::end(out);
        session.throttle().await?;
    }
    Ok(())
}

/// The highest UID that was ever given out in the mailbox.
fn last_given(state: &AccountState, selected: &Selected) -> u32 {
    let next = state.mailbox(selected.mailbox).and_then(|mailbox| mailbox.uid_next);
    next.map_or(u32::MAX, |next| next.get() - 1)
}

/// RFC 7162 §3.2.5.2: as long as the client's numbers and UIDs are those of the mailbox, nothing below has vanished.
fn matched(
    selected: &Selected,
    numbers: &imap_protocol::sequence::SequenceSet,
    uids: &imap_protocol::sequence::SequenceSet,
) -> UidSet {
    let flat = |set: &imap_protocol::sequence::SequenceSet| {
        set.resolve(u32::MAX).unwrap_or_default().into_iter().flat_map(|(first, last)| first..=last)
    };
    let agreed = flat(numbers)
        .zip(flat(uids))
        .take_while(|(number, uid)| selected.view.uid(*number).is_some_and(|shown| shown.get() == *uid))
        .last();
    match agreed {
        Some((_, uid)) => uid_set(&[(1, uid)]),
        None => UidSet::default(),
    }
}
