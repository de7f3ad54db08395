//! SORT (RFC 5256), with DISPLAYFROM and DISPLAYTO (RFC 5957) and RETURN (RFC 5267 §3).

use imap_protocol::command::Tag;
use imap_protocol::response::search::{ExtendedSearch, extended_search, sort as write};
use imap_protocol::search::Sort;

use crate::reply::{Answer, Reply, storage_failure};
use crate::search::find;
use crate::session::Session;
use crate::sort::sort;

pub(crate) async fn run(session: &mut Session, tag: &Tag, command: Sort) -> Answer {
    let mod_seq = command.key.has_mod_seq();
    if mod_seq {
        session.enable_condstore();
    }
    let account = session.account()?;
    let state = match account.mailbox(session.selected()?.mailbox).await {
        Ok(state) => state,
        Err(error) => return storage_failure(&error),
    };
    let found = match find(session, &account, &state, &command.key).await? {
        Ok(found) => found,
        Err(reply) => return Ok(reply),
    };
    let found = match sort(&account, &command.order, found).await {
        Ok(found) => found,
        Err(error) => return storage_failure(&error),
    };
    let numbers: Vec<u32> =
        found.iter().map(|found| if command.uid { found.uid.get() } else { found.number }).collect();
    match command.returns {
        None => write(session.out(), &numbers),
        Some(returns) => {
            if returns.save {
                session.selected()?.saved = found.iter().map(|found| found.uid).collect();
            }
            if returns.min || returns.max || returns.all || returns.count {
                let highest = found.iter().map(|found| found.mod_seq.0).max();
                let answer = ExtendedSearch {
                    uid: command.uid,
                    // RFC 5267 §3: the first and the last of the order.
                    min: returns.min.then(|| numbers.first().copied()).flatten(),
                    max: returns.max.then(|| numbers.last().copied()).flatten(),
                    all: if returns.all { &numbers } else { &[] },
                    count: returns.count.then_some(numbers.len() as u32),
                    mod_seq: highest.filter(|_| mod_seq),
                };
                extended_search(session.out(), tag, &answer);
            }
        }
    }
    session.throttle().await?;
    Ok(Reply::ok("Sort completed"))
}
