//! FETCH (RFC 9051 §6.4.5) with CHANGEDSINCE and VANISHED (RFC 7162), and by pages (RFC 9394).

use std::sync::Arc;

use imap_protocol::command::Fetch;
use imap_protocol::fetch::FetchItem;
use imap_protocol::page::Page;
use imap_protocol::response::select;
use mail::flag::{Flag, FlagSet};
use mail::id::ModSeq;
use mail::uid::UidSet;
use storage::{AccountState, Changes, FlagAction, FlagChange, MailboxIndex, MessageRow, Vanished};

use crate::fetch::{Plan, write_messages};
use crate::messages::rows;
use crate::news::{Expunges, Telling};
use crate::reply::{Answer, MAILBOX_GONE, Reply, Stop, flags_failure, storage_failure};
use crate::selected::uid_set;
use crate::session::Session;

pub(crate) async fn run(session: &mut Session, fetch: Fetch) -> Answer {
    let account = session.account()?;
    if fetch.changed_since.is_some() || fetch.items.contains(&FetchItem::ModSeq) {
        session.enable_condstore();
    }
    if fetch.vanished {
        if !session.qresync {
            return Ok(Reply::bad("QRESYNC is not enabled"));
        }
        // What vanished is told from one state, and what is new with it.
        session.tell_news(Expunges::Tell).await?;
    }
    let selected = session.selected()?;
    let mailbox = selected.mailbox;
    let mut numbers = match selected.resolve(&fetch.set, fetch.uid) {
        Ok(numbers) => numbers,
        Err(reply) => return Ok(reply),
    };
    let sets_seen = !selected.read_only && fetch.items.iter().any(FetchItem::sets_seen);
    let mut state = match account.mailbox(mailbox).await {
        Ok(state) => state,
        Err(error) => return storage_failure(&error),
    };
    if let Some(page) = fetch.partial {
        numbers = on_page(session, &state, &fetch, page, &numbers)?;
    }

    // RFC 9051 §6.4.5: \Seen is set by the FETCH, and what changed is shown in its responses. One commit for all.
    let mut seen = UidSet::default();
    if sets_seen {
        let uids = unseen(session, &state, &numbers, &fetch)?;
        if !uids.is_empty() {
            let mut flags = FlagSet::new();
            flags.flags.insert(Flag::Seen);
            let change = FlagChange { action: FlagAction::Add, flags };
            match account.set_flags(mailbox, uids, change, None).await {
                Ok(set) => seen = set.changed,
                Err(error) => return flags_failure(&error),
            }
            state = match account.mailbox(mailbox).await {
                Ok(state) => state,
                Err(error) => return storage_failure(&error),
            };
        }
    }
    if fetch.vanished
        && let Some(since) = fetch.changed_since
    {
        let changes = match account.changes(mailbox, ModSeq(since)).await {
            Ok((newer, changes)) => {
                state = newer;
                changes
            }
            Err(error) => return storage_failure(&error),
        };
        let Some(changes) = changes else { return Err(Stop::Bye(MAILBOX_GONE)) };
        tell_vanished(session, &state, &fetch, changes)?;
    }
    let plan = Plan::new(&fetch, session.condstore, seen);
    let reply = write_messages(session, &account, &state, &numbers, &plan).await?;
    if !plan.seen.is_empty() {
        // These have been shown with their messages, unless somebody has changed them once more.
        let index = index_of(session, &state)?;
        let shown = |row: &MessageRow| {
            plan.seen.contains(row.uid)
                && index.by_uid(row.uid).is_some_and(|shown| shown.modseq == row.modseq)
        };
        let telling = |row: &MessageRow| if shown(row) { Telling::Nothing } else { Telling::All };
        session.tell_news_but(Expunges::Hold, telling).await?;
    }
    Ok(reply)
}

/// The index of the selected mailbox in a state that has it loaded.
pub(crate) fn index_of<'a>(session: &mut Session, state: &'a AccountState) -> Result<&'a MailboxIndex, Stop> {
    let mailbox = session.selected()?.mailbox;
    state.index(mailbox).ok_or(Stop::Bye(MAILBOX_GONE))
}

/// Of the messages that would be told of, those on a page (RFC 9394 §3.3): with CHANGEDSINCE, of those that have changed
/// (§3.4).
fn on_page(
    session: &mut Session,
    state: &Arc<AccountState>,
    fetch: &Fetch,
    page: Page,
    numbers: &[(u32, u32)],
) -> Result<Vec<(u32, u32)>, Stop> {
    let Some(since) = fetch.changed_since else { return Ok(cut(numbers, page)) };
    let index = index_of(session, state)?;
    let mut changed: Vec<(u32, u32)> = Vec::new();
    for (number, row) in rows(&session.selected()?.view, index, numbers) {
        match changed.last_mut() {
            _ if row.modseq.0 <= since => {}
            Some(open) if open.1 + 1 == number => open.1 = number,
            _ => changed.push((number, number)),
        }
    }
    Ok(cut(&changed, page))
}

/// What of ranges lies on a page.
fn cut(ranges: &[(u32, u32)], page: Page) -> Vec<(u32, u32)> {
    let length = |(first, last): &(u32, u32)| (last - first + 1) as usize;
    let wanted = page.of(ranges.iter().map(length).sum());
    let mut before = 0;
    let mut on_page = Vec::new();
    for range in ranges {
        let length = length(range);
        let from = wanted.start.clamp(before, before + length) - before;
        let to = wanted.end.clamp(before, before + length) - before;
        if from < to {
            on_page.push((range.0 + from as u32, range.0 + to as u32 - 1));
        }
        before += length;
    }
    on_page
}

/// The messages that are about to be seen.
fn unseen(
    session: &mut Session,
    state: &Arc<AccountState>,
    numbers: &[(u32, u32)],
    fetch: &Fetch,
) -> Result<UidSet, Stop> {
    let index = index_of(session, state)?;
    let since = ModSeq(fetch.changed_since.unwrap_or(0));
    Ok(rows(&session.selected()?.view, index, numbers)
        .filter(|(_, row)| !row.marks.has(Flag::Seen) && row.modseq > since)
        .map(|(_, row)| row.uid)
        .collect())
}

/// `* VANISHED (EARLIER) …` (RFC 7162 §3.2.6): of the UIDs asked about, those that have left since.
fn tell_vanished(
    session: &mut Session,
    state: &Arc<AccountState>,
    fetch: &Fetch,
    changes: Changes,
) -> Result<(), Stop> {
    let index = index_of(session, state)?;
    let mailbox = session.selected()?.mailbox;
    let next = state.mailbox(mailbox).and_then(|mailbox| mailbox.uid_next);
    let last_given = next.map_or(u32::MAX, |next| next.get() - 1);
    let asked = match fetch.set.resolve(session.selected()?.view.last_uid()) {
        Some(ranges) => uid_set(&ranges),
        None => session.selected()?.saved.clone(),
    };
    let vanished = match changes.vanished {
        Vanished::Known(uids) => uids.intersection(&asked),
        Vanished::Forgotten => {
            let given = uid_set(&[(1, last_given)]).intersection(&asked);
            given.difference(&index.existing(&given))
        }
    };
    if !vanished.is_empty() {
        select::vanished(session.out(), true, &vanished.to_string());
    }
    Ok(())
}
