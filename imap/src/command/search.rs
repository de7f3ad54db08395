//! SEARCH (RFC 9051 §6.4.4) with ESEARCH (RFC 4731) and SEARCHRES (RFC 5182).

use imap_protocol::command::Tag;
use imap_protocol::response::search::{ExtendedSearch, extended_search, search};
use imap_protocol::search::{Search, SearchReturn};
use mail::id::Uid;
use mail::uid::UidSet;

use crate::reply::{Answer, Reply, storage_failure};
use crate::search::{Found, find};
use crate::session::Session;

pub(crate) async fn run(session: &mut Session, tag: &Tag, command: Search) -> Answer {
    if command.key.has_mod_seq() {
        session.enable_condstore();
    }
    let saves = command.returns.is_some_and(|returns| returns.save);
    let account = session.account()?;
    let state = match account.mailbox(session.selected()?.mailbox).await {
        Ok(state) => state,
        Err(error) => return storage_failure(&error),
    };
    let found = match find(session, &account, &state, &command.key).await? {
        Ok(found) => found,
        Err(reply) => {
            if saves {
                // RFC 5182 §2.1: a search that fails leaves an empty result.
                session.selected()?.saved = UidSet::default();
            }
            return Ok(reply);
        }
    };
    let numbers: Vec<u32> =
        found.iter().map(|found| if command.uid { found.uid.get() } else { found.number }).collect();
    let mod_seq = command.key.has_mod_seq();
    match command.returns {
        None => {
            let highest = found.iter().map(|found| found.mod_seq.0).max().filter(|_| mod_seq);
            search(session.out(), &numbers, highest);
        }
        Some(returns) => {
            if returns.save {
                session.selected()?.saved = saved(&found, returns);
            }
            let says = returns.min || returns.max || returns.all || returns.count;
            if says {
                let reported = reported(&found, returns);
                let answer = ExtendedSearch {
                    uid: command.uid,
                    min: returns.min.then(|| numbers.first().copied()).flatten(),
                    max: returns.max.then(|| numbers.last().copied()).flatten(),
                    all: if returns.all { &numbers } else { &[] },
                    count: returns.count.then_some(numbers.len() as u32),
                    mod_seq: reported.map(|found| found.mod_seq.0).max().filter(|_| mod_seq),
                };
                extended_search(session.out(), tag, &answer);
            }
        }
    }
    session.throttle().await?;
    Ok(Reply::ok("Search completed"))
}

/// Of which messages the highest MODSEQ is told (RFC 4731 §3.2): with nothing but MIN and MAX, of those.
fn reported(found: &[Found], returns: SearchReturn) -> impl Iterator<Item = &Found> {
    let ends_only = !returns.all && !returns.count;
    let last = found.len().saturating_sub(1);
    found.iter().enumerate().filter_map(move |(at, message)| {
        let wanted = !ends_only || (returns.min && at == 0) || (returns.max && at == last);
        wanted.then_some(message)
    })
}

/// What `$` becomes (RFC 5182 §2.4): with nothing but MIN and MAX, those.
fn saved(found: &[Found], returns: SearchReturn) -> UidSet {
    let uids: Vec<Uid> = if returns.min || returns.max {
        reported(found, returns).map(|found| found.uid).collect()
    } else {
        found.iter().map(|found| found.uid).collect()
    };
    uids.into_iter().collect()
}
