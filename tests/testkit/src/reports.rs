//! Delivery status notifications in a mailbox, as a stranger reads them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::imap::Imap;
use crate::server::PASSWORD;

/// How often each recipient is reported with each action, of all notifications in an account's INBOX.
pub fn reported(imap: SocketAddr, account: &str) -> Result<BTreeMap<(String, String), u32>> {
    let mut client = Imap::login(imap, account, PASSWORD)?;
    client.ok("EXAMINE INBOX")?;
    let mut found = BTreeMap::new();
    for line in client.ok("UID FETCH 1:* (BODY.PEEK[TEXT])")?.untagged {
        let text = String::from_utf8_lossy(&line);
        let mut recipient = None;
        for line in text.lines() {
            if let Some(address) = line.strip_prefix("Final-Recipient: rfc822; ") {
                recipient = Some(address.trim().to_owned());
            } else if let Some(action) = line.strip_prefix("Action: ") {
                let recipient = recipient.take().context("an action without a recipient")?;
                *found.entry((recipient, action.trim().to_owned())).or_default() += 1;
            }
        }
    }
    Ok(found)
}
