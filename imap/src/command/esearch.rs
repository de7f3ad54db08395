//! ESEARCH (RFC 7377): one search in many mailboxes, selected or not.

use std::collections::BTreeSet;

use imap_protocol::command::Tag;
use imap_protocol::mailbox_name::{DELIMITER, MailboxName};
use imap_protocol::search::{MultiSearch, Source};
use mail::id::MailboxId;
use mail::uid::UidSet;
use storage::AccountState;

use super::list::superiors;
use super::search::{Wishes, keep, tell};
use crate::reply::{Answer, Reply, storage_failure};
use crate::search::{Ground, Question};
use crate::session::Session;
use crate::view::View;

pub(crate) async fn run(session: &mut Session, tag: &Tag, command: MultiSearch) -> Answer {
    let MultiSearch { sources, returns, key } = command;
    let selected = session.selected.as_ref().map(|selected| selected.mailbox);
    // RFC 7377 §2.2: "selected" needs a mailbox that is, and SAVE one whose `$` it can become.
    if selected.is_none() && sources.contains(&Source::Selected) {
        return Ok(Reply::bad("No mailbox is selected"));
    }
    if returns.save && sources.iter().any(|source| *source != Source::Selected) {
        return Ok(Reply::bad("SAVE goes only with the selected mailbox"));
    }
    if key.has_mod_seq() {
        session.enable_condstore();
    }
    let account = session.account()?;
    let state = match account.refresh().await {
        Ok(state) => state,
        Err(error) => return storage_failure(&error),
    };
    let mailboxes = Named::by(&sources, selected).of(&state);
    if mailboxes.len() > session.imap.config.multisearch_mailboxes_max {
        return Ok(Reply::no("[LIMIT] Too many mailboxes in one search"));
    }
    if key.has_saved() && mailboxes.iter().any(|id| Some(*id) != selected) {
        return Ok(Reply::no("[CANNOT] What is saved is of the selected mailbox"));
    }
    let question = Question::new(session, &account, &key).await;
    for id in mailboxes {
        let state = match account.mailbox(id).await {
            Ok(state) => state,
            Err(error) => return storage_failure(&error),
        };
        // One that has gone meanwhile is one that does not exist.
        let (Some(mailbox), Some(index)) = (state.mailbox(id), state.index(id)) else { continue };
        let found = if Some(id) == selected {
            // As the client sees it, so that `$` and numbers mean what they mean elsewhere.
            question.find(&account, &state, Ground::selected(session.selected()?)).await?
        } else {
            let view = View::new(index.uids(), mailbox.highest_modseq);
            let nothing = UidSet::default();
            question.find(&account, &state, Ground { mailbox: id, view: &view, saved: &nothing }).await?
        };
        let found = match found {
            Ok(found) => found,
            Err(reply) => {
                // RFC 5182 §2.1: a search that fails leaves an empty result.
                keep(session, returns, &[])?;
                return Ok(reply);
            }
        };
        keep(session, returns, &found)?;
        // RFC 7377 §2.1: nothing is said of a mailbox without matches; UIDs, since numbers are the selected one's.
        if !found.is_empty() {
            let name = MailboxName::new(mailbox.name).encode(session.pump.machine().name_form());
            let of = Some((name.as_str(), mailbox.uid_validity.0.get()));
            tell(session, tag, Wishes { uid: true, returns, mod_seq: key.has_mod_seq(), of }, &found);
        }
        session.throttle().await?;
    }
    Ok(Reply::ok("Search completed"))
}

/// Which mailboxes the sources name (RFC 5465 §6, RFC 7377 §2.2).
#[derive(Debug, Default)]
struct Named<'a> {
    /// All of them.
    personal: bool,
    subscribed: bool,
    selected: Option<MailboxId>,
    mailboxes: BTreeSet<&'a str>,
    /// These and all below.
    trees: BTreeSet<&'a str>,
    /// These and those one level below.
    families: BTreeSet<&'a str>,
}

impl<'a> Named<'a> {
    fn by(sources: &'a [Source], selected: Option<MailboxId>) -> Self {
        let mut named = Self::default();
        for source in sources {
            let (names, set) = match source {
                Source::Selected => {
                    named.selected = selected;
                    continue;
                }
                // Mail is filed by subaddress and by rule into whatever mailbox they name; and where these cannot be
                // told from the others they are all (RFC 5465 §6.3).
                Source::Inboxes | Source::Personal => {
                    named.personal = true;
                    continue;
                }
                Source::Subscribed => {
                    named.subscribed = true;
                    continue;
                }
                Source::Mailboxes(names) => (names, &mut named.mailboxes),
                Source::Subtree(names) => (names, &mut named.trees),
                Source::SubtreeOne(names) => (names, &mut named.families),
            };
            set.extend(names.iter().map(MailboxName::as_str));
        }
        named
    }

    /// Each once, however often it is named. What does not exist is left out.
    fn of(&self, state: &AccountState) -> Vec<MailboxId> {
        let wanted = |id: MailboxId, name: &str| {
            Some(id) == self.selected || (self.subscribed && state.is_subscribed(name)) || self.names(name)
        };
        state
            .mailboxes()
            .filter(|mailbox| wanted(mailbox.id, &mailbox.name))
            .map(|mailbox| mailbox.id)
            .collect()
    }

    fn names(&self, name: &str) -> bool {
        let parent = name.rsplit_once(DELIMITER).map(|(parent, _)| parent);
        self.personal
            || self.mailboxes.contains(name)
            || self.trees.contains(name)
            || superiors(name).any(|superior| self.trees.contains(superior))
            || self.families.contains(name)
            || parent.is_some_and(|parent| self.families.contains(parent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_name_mailboxes_rfc7377_2_2() {
        let list = |names: &[&str]| names.iter().map(|name| MailboxName::new(*name)).collect::<Vec<_>>();
        let check = |source: Source, expected: &[&str]| {
            let sources = [source];
            let named = Named::by(&sources, None);
            let names = ["INBOX", "a", "a/b", "a/b/c", "ab", "ab/c"];
            let found: Vec<&str> = names.into_iter().filter(|name| named.names(name)).collect();
            assert_eq!(found, expected, "{sources:?}");
        };
        check(Source::Mailboxes(list(&["inbox", "a/b", "x"])), &["INBOX", "a/b"]);
        check(Source::Subtree(list(&["a"])), &["a", "a/b", "a/b/c"]);
        check(Source::Subtree(list(&["a/b", "ab"])), &["a/b", "a/b/c", "ab", "ab/c"]);
        check(Source::SubtreeOne(list(&["a"])), &["a", "a/b"]);
        check(Source::Personal, &["INBOX", "a", "a/b", "a/b/c", "ab", "ab/c"]);
        check(Source::Inboxes, &["INBOX", "a", "a/b", "a/b/c", "ab", "ab/c"]);
        check(Source::Subscribed, &[]);
    }
}
