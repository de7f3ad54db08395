//! SEARCH (RFC 9051 §6.4.4) with ESEARCH (RFC 4731), SEARCHRES (RFC 5182) and PARTIAL (RFC 9394).

use imap_protocol::command::Tag;
use imap_protocol::response::search::{ExtendedSearch, extended_search, search};
use imap_protocol::search::{Search, SearchReturn};
use mail::uid::UidSet;

use crate::reply::{Answer, Reply, Stop, storage_failure};
use crate::search::{Found, find, relevancy};
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
    let mod_seq = command.key.has_mod_seq();
    match command.returns {
        None => {
            let highest = found.iter().map(|found| found.mod_seq.0).max().filter(|_| mod_seq);
            search(session.out(), &numbers(&found, command.uid), highest);
        }
        Some(returns) => {
            keep(session, returns, &found)?;
            tell(session, tag, Wishes { uid: command.uid, returns, mod_seq, of: None }, &found);
        }
    }
    session.throttle().await?;
    Ok(Reply::ok("Search completed"))
}

/// What a client wants to hear of the messages that are found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes<'a> {
    /// UIDs, not numbers.
    pub(super) uid: bool,
    pub(super) returns: SearchReturn,
    /// The highest MODSEQ.
    pub(super) mod_seq: bool,
    /// Name and UIDVALIDITY of the mailbox, where they are to be told.
    pub(super) of: Option<(&'a str, u32)>,
}

/// Makes it `$` where that is wanted.
pub(super) fn keep(session: &mut Session, returns: SearchReturn, found: &[Found]) -> Result<(), Stop> {
    if returns.save {
        session.selected()?.saved = saved(found, returns);
    }
    Ok(())
}

/// Says what RETURN asks for. SORT says the first and the last of its order as MIN and MAX (RFC 5267 §3).
pub(super) fn tell(session: &mut Session, tag: &Tag, wishes: Wishes<'_>, found: &[Found]) {
    let Wishes { uid, returns, mod_seq, of } = wishes;
    if returns.speaks() {
        let numbers = numbers(found, uid);
        let page = returns.partial.map(|page| (page, page.of(found.len())));
        // RFC 6203 §4: of the messages that are told, in their order.
        let told = page.clone().map_or(0..found.len(), |(_, at)| at);
        let scores = returns.relevancy.then(|| relevancy(found)[told].to_vec());
        let highest = reported(found, returns).map(|found| found.mod_seq.0).max();
        let answer = ExtendedSearch {
            mailbox: of,
            uid,
            min: returns.min.then(|| numbers.first().copied()).flatten(),
            max: returns.max.then(|| numbers.last().copied()).flatten(),
            all: if returns.all { &numbers } else { &[] },
            count: returns.count.then_some(numbers.len() as u32),
            mod_seq: highest.filter(|_| mod_seq),
            partial: page.map(|(page, at)| (page, &numbers[at])),
            relevancy: scores.as_deref(),
        };
        extended_search(session.out(), tag, &answer);
    }
}

/// UIDs or numbers of what was found.
pub(super) fn numbers(found: &[Found], uid: bool) -> Vec<u32> {
    found.iter().map(|found| if uid { found.uid.get() } else { found.number }).collect()
}

/// Of which messages the highest MODSEQ is told (RFC 4731 §3.2): with nothing but MIN, MAX and PARTIAL, of those.
fn reported(found: &[Found], returns: SearchReturn) -> impl Iterator<Item = &Found> {
    let names_some = returns.min || returns.max || returns.partial.is_some();
    let all = returns.all || returns.count || !names_some;
    let last = found.len().saturating_sub(1);
    let page = returns.partial.map(|page| page.of(found.len())).unwrap_or_default();
    found.iter().enumerate().filter_map(move |(at, message)| {
        let wanted = all || (returns.min && at == 0) || (returns.max && at == last) || page.contains(&at);
        wanted.then_some(message)
    })
}

/// What `$` becomes (RFC 5182 §2.4, RFC 9394 §3.2): the same.
fn saved(found: &[Found], returns: SearchReturn) -> UidSet {
    reported(found, returns).map(|found| found.uid).collect()
}
