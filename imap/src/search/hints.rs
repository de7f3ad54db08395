//! What the search index says of each content, before any message is looked at.

use mail::id::EmailId;
use search::{Candidates, Search};
use storage::Account;

use super::content::Contents;

/// One for each content; none where there is no index.
#[derive(Debug, Default)]
pub(super) struct Hints(Vec<Hint>);

#[derive(Debug)]
enum Hint {
    /// Nothing can be said.
    Nothing,
    /// The messages that it can be in.
    Candidates(Candidates),
    /// The messages that its words were found in, and how well they fit. Of those above the last one nothing is known:
    /// they came later.
    Words(search::Found, EmailId),
}

impl Hints {
    pub(super) async fn about(search: &Search, account: &Account, contents: &Contents) -> Self {
        let mut hints = Vec::new();
        // Nothing is asked where nothing can be said.
        let needles: Vec<_> = contents.needles().collect();
        let asked: Vec<_> = needles.iter().flatten().cloned().collect();
        let answers = match asked.as_slice() {
            [] => Vec::new(),
            asked => search.candidates_each(account.id(), asked).await,
        };
        let mut answers = answers.into_iter();
        for (needle, wanted) in needles.into_iter().zip(contents.wanted()) {
            let hint = match (needle.and_then(|_| answers.next()), wanted) {
                (Some(candidates), _) => Hint::Candidates(candidates),
                (None, Some(wanted)) => {
                    let last = account.state().last_email();
                    match search.find(account, wanted).await {
                        Ok(found) => Hint::Words(found, last),
                        // What came lately cannot be read now: it is looked at with the others, and fails there if it
                        // still does.
                        Err(error) => {
                            tracing::warn!(%error, "fuzzy search goes on without the newest messages");
                            Hint::Words(search.find_indexed(account, wanted).await, last)
                        }
                    }
                }
                (None, None) => Hint::Nothing,
            };
            hints.push(hint);
        }
        Self(hints)
    }

    /// What is known of an email without looking at it.
    pub(super) fn of(&self, email: EmailId) -> Vec<Option<bool>> {
        let known = |hint: &Hint| match hint {
            Hint::Candidates(candidates) if !candidates.may_hold(email) => Some(false),
            Hint::Words(found, last) if email <= *last => found.holds(email),
            _ => None,
        };
        self.0.iter().map(known).collect()
    }

    /// How well an email fits all words that were looked for.
    pub(super) fn score(&self, email: EmailId) -> f32 {
        let score = |hint: &Hint| {
            let Hint::Words(found, _) = hint else { return None };
            let at = found.hits.binary_search_by_key(&email, |hit| hit.email).ok()?;
            Some(found.hits[at].score)
        };
        self.0.iter().filter_map(score).sum()
    }
}
