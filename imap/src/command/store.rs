//! STORE (RFC 9051 §6.4.6) with UNCHANGEDSINCE (RFC 7162 §3.1.3).

use std::collections::HashMap;

use imap_protocol::command::{Store, StoreAction};
use mail::flag::FlagSet;
use mail::id::{ModSeq, Uid};
use mail::uid::UidSet;
use storage::{AccountState, FlagAction, FlagChange, Marks};

use crate::news::{Expunges, Telling, write_flags};
use crate::reply::{Answer, MAILBOX_GONE, Reply, Stop, flags_failure, storage_failure};
use crate::session::Session;

pub(crate) async fn run(session: &mut Session, store: Store) -> Answer {
    let account = session.account()?;
    if session.selected()?.read_only {
        return Ok(Reply::no("[READ-ONLY] The mailbox was opened for reading"));
    }
    let uids = match session.selected()?.resolve_uids(&store.set, store.uid) {
        Ok(uids) => uids,
        Err(reply) => return Ok(reply),
    };
    if store.unchanged_since.is_some() {
        session.enable_condstore();
    }
    let mailbox = session.selected()?.mailbox;
    // What others have changed and the client has not heard of. It is told behind the change, not before: a client
    // takes any flags that it is shown for those that its own change has led to.
    let (before, untold) = match account.changes(mailbox, session.selected()?.view.synced()).await {
        Ok((before, Some(changes))) => (before, changes.changed),
        Ok((_, None)) => return Err(Stop::Bye(MAILBOX_GONE)),
        Err(error) => return storage_failure(&error),
    };
    let action = match store.action {
        StoreAction::Replace => FlagAction::Replace,
        StoreAction::Add => FlagAction::Add,
        StoreAction::Remove => FlagAction::Remove,
    };
    let change = FlagChange { action, flags: store.flags.clone() };
    let set = match account.set_flags(mailbox, uids.clone(), change, store.unchanged_since.map(ModSeq)).await
    {
        Ok(set) => set,
        Err(error) => return flags_failure(&error),
    };

    let known = set.changed.difference(&untold);
    tell_result(session, &store, &before, &set.changed, &known).await?;
    if !store.silent {
        let same = uids.difference(&set.changed).difference(&set.modified);
        tell_unchanged(session, &store, &same).await?;
    }
    if !set.modified.is_empty() {
        // RFC 7162 §3.1.3: a set of what the command used, numbers or UIDs.
        let modified = if store.uid {
            set.modified.to_string()
        } else {
            let view = &session.selected()?.view;
            let mut writer = imap_protocol::sequence::SetWriter::default();
            for number in set.modified.iter().filter_map(|uid| view.number(uid)) {
                writer.push(number);
            }
            writer.finish()
        };
        return Ok(Reply::ok(format!("[MODIFIED {modified}] Conditional store failed for some")));
    }
    Ok(Reply::ok("Store completed"))
}

/// Tells the new flags. With `.SILENT` the client assumes what its own change makes of what it knew (`known` are the
/// messages of which it knew everything); where that is what happened, it hears the MODSEQ at most, else the flags
/// after all.
async fn tell_result(
    session: &mut Session,
    store: &Store,
    before: &AccountState,
    changed: &UidSet,
    known: &UidSet,
) -> Result<(), Stop> {
    let mailbox = session.selected()?.mailbox;
    let after = session.account()?.state();
    let named = marks_of(&after, &store.flags);
    let known = match (store.silent, before.index(mailbox)) {
        (true, Some(index)) => index.select(known).map(|row| (row.uid, row.marks)).collect(),
        _ => HashMap::<Uid, Marks>::new(),
    };
    let assumed = |uid: Uid| {
        let known = *known.get(&uid)?;
        Some(match store.action {
            StoreAction::Replace => named,
            StoreAction::Add => known.union(named),
            StoreAction::Remove => known.difference(named),
        })
    };
    let uid = store.uid;
    session
        .tell_news_but(Expunges::Hold, |row| {
            let own = changed.contains(row.uid);
            if own
                && store.silent
                && assumed(row.uid).is_some_and(|assumed| assumed.visible() == row.marks.visible())
            {
                return if uid { Telling::ModSeqWithUid } else { Telling::ModSeq };
            }
            if own && uid { Telling::AllWithUid } else { Telling::All }
        })
        .await
}

/// Without `.SILENT` the flags are told as if they had been fetched, whether they changed or not.
async fn tell_unchanged(session: &mut Session, store: &Store, uids: &UidSet) -> Result<(), Stop> {
    use imap_protocol::response::fetch;
    if uids.is_empty() {
        return Ok(());
    }
    let account = session.account()?;
    let mailbox = session.selected()?.mailbox;
    let Ok(state) = account.mailbox(mailbox).await else { return Ok(()) };
    let Some(index) = state.index(mailbox) else { return Ok(()) };
    for row in index.select(uids) {
        let Some(number) = session.selected()?.view.number(row.uid) else { continue };
        let with_mod_seq = session.condstore;
        let with_uid = store.uid || session.qresync;
        let out = session.out();
        fetch::begin(out, number);
        let mut first = true;
        if with_uid {
            fetch::separate(out, &mut first);
            fetch::uid(out, row.uid.get());
        }
        fetch::separate(out, &mut first);
        write_flags(out, &state, row.marks);
        if with_mod_seq {
            fetch::separate(out, &mut first);
            fetch::mod_seq(out, row.modseq.0);
        }
        fetch::end(out);
        session.throttle().await?;
    }
    Ok(())
}

/// Flags by name as marks. Keywords that the account does not know were not set on anything.
fn marks_of(state: &AccountState, flags: &FlagSet) -> Marks {
    let names = state.keywords();
    flags
        .keywords
        .iter()
        .filter_map(|keyword| names.iter().position(|name| name == keyword))
        .fold(Marks::from_flags(flags.flags), |marks, number| marks.union(Marks::from_keyword(number)))
}
