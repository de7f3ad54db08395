//! A client that keeps an account by email, as JMAP clients do, with a connection that may break at any point.

use std::collections::{BTreeMap, BTreeSet};

use mail::id::{EmailId, MailboxId};
use storage::{Account, ChangesError, EmailView, Marks, Since};

use super::client::is_late;

type Shown = (BTreeSet<MailboxId>, Marks);

#[derive(Clone, Debug, Default)]
pub struct JmapClient {
    state: Option<Since>,
    known: BTreeMap<EmailId, Shown>,
    /// How often it had to begin anew.
    pub full_sets: u32,
}

fn shown(view: &EmailView, email: EmailId) -> Option<Shown> {
    view.email(email).map(|email| (email.mailboxes().collect(), email.marks))
}

impl JmapClient {
    /// Catches up, asking for some changes at a time and so many times at most.
    pub async fn sync(&mut self, account: &Account, at_most: usize, rounds: usize) {
        match account.refresh().await {
            Err(error) if is_late(&error) => return,
            refreshed => drop(refreshed.unwrap()),
        }
        for _ in 0..rounds {
            let Some(since) = self.state else {
                let view = match account.view().await {
                    Err(error) if is_late(&error) => return,
                    view => view.unwrap(),
                };
                self.known = view.emails().filter_map(|email| Some((email, shown(&view, email)?))).collect();
                self.state = Some(view.state().emails_state());
                self.full_sets += 1;
                continue;
            };
            let changes = match account.email_changes(since, at_most).await {
                Err(ChangesError::Forgotten) => {
                    self.state = None;
                    continue;
                }
                Err(ChangesError::Storage(error)) if is_late(&error) => return,
                changes => changes.unwrap(),
            };
            // What it fetches may be newer than what it was told of; what is gone by then it is told later.
            let view = match account.view().await {
                Err(error) if is_late(&error) => return,
                view => view.unwrap(),
            };
            for email in changes.created.into_iter().chain(changes.updated) {
                match shown(&view, email) {
                    Some(shown) => drop(self.known.insert(email, shown)),
                    None => drop(self.known.remove(&email)),
                }
            }
            for email in changes.destroyed {
                self.known.remove(&email);
            }
            self.state = Some(changes.new_state);
            if !changes.has_more {
                return;
            }
        }
    }

    /// Compares what it knows with what is there.
    pub async fn check(&self, account: &Account) -> Result<(), String> {
        let view = account.view().await.unwrap();
        let there: BTreeMap<_, _> =
            view.emails().filter_map(|email| Some((email, shown(&view, email)?))).collect();
        if self.known == there { Ok(()) } else { Err(format!("{:?} and {there:?}", self.known)) }
    }
}
