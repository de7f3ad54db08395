//! LSUB (RFC 3501 §6.3.9): LIST of subscriptions as it was before there were options.

use std::collections::BTreeMap;

use imap_protocol::mailbox_name::MailboxName;
use imap_protocol::response::list::{self, Listed};

use super::list::{matches, superiors};
use crate::reply::{Answer, Reply, storage_failure};
use crate::session::Session;

pub(crate) async fn run(session: &mut Session, reference: &str, pattern: &str) -> Answer {
    if pattern.is_empty() {
        list::root(session.out(), true);
        return Ok(Reply::ok("Lsub completed"));
    }
    let state = match session.account()?.refresh().await {
        Ok(state) => state,
        Err(error) => return storage_failure(&error),
    };
    let pattern = format!("{reference}{pattern}");
    if pattern.len() > 2000 {
        return Ok(Reply::no("[LIMIT] Pattern is too long"));
    }
    // Name → whether it is subscribed to itself.
    let mut found: BTreeMap<&str, bool> = BTreeMap::new();
    for name in state.subscriptions() {
        if matches(&pattern, name) {
            found.insert(name, true);
        } else if pattern.contains('%') {
            // With "%", a superior stands for subscriptions below it that the pattern does not reach.
            for superior in superiors(name).filter(|superior| matches(&pattern, superior)) {
                found.entry(superior).or_insert(false);
            }
        }
    }
    for (name, subscribed) in found {
        let encoded = MailboxName::new(name).encode(session.pump.machine().name_form());
        let attributes: &[&str] = if subscribed { &[] } else { &["\\Noselect"] };
        let listed = Listed { lsub: true, attributes, name: &encoded, child_info: &[] };
        list::list(session.out(), &listed);
        session.throttle().await?;
    }
    Ok(Reply::ok("Lsub completed"))
}
