//! What has changed since a client was last told (RFC 8620 §7.1): what goes over event sources and WebSockets.

use std::collections::BTreeMap;

use jmap_protocol::{Id, Object};
use serde_json::{Value, json};
use storage::AccountState;

use super::view;

/// What a client wants to hear of, and what it knows.
#[derive(Debug)]
pub(super) struct News {
    account: Id,
    /// `None`: of everything.
    types: Option<Vec<String>>,
    /// The states that the client was told.
    told: BTreeMap<&'static str, String>,
}

impl News {
    /// For a client that knew the account at a moment, named by what [`moment`] gave then. `None`: it knows what is so now.
    pub(super) fn since(
        known: Option<&str>,
        account: Id,
        types: Option<Vec<String>>,
        state: &AccountState,
    ) -> Self {
        let mut news = Self { account, types, told: BTreeMap::new() };
        // Whoever comes back is told at once what happened meanwhile.
        if known.is_none_or(|known| known == moment(state)) {
            news.told = news.states(state);
        }
        news
    }

    /// A StateChange, where something has changed.
    pub(super) fn next(&mut self, state: &AccountState) -> Option<Value> {
        let now = self.states(state);
        let changed: Object = now
            .iter()
            .filter(|(name, state)| self.told.get(*name) != Some(*state))
            .map(|(name, state)| ((*name).to_owned(), json!(state)))
            .collect();
        if changed.is_empty() {
            return None;
        }
        self.told = now;
        let mut accounts = Object::new();
        accounts.insert(self.account.to_string(), changed.into());
        Some(json!({"@type": "StateChange", "changed": accounts}))
    }

    /// The states of the types that are asked for.
    fn states(&self, state: &AccountState) -> BTreeMap<&'static str, String> {
        let mut states = view::states(state);
        let types = self.types.as_deref();
        states.retain(|name, _| types.is_none_or(|types| types.iter().any(|wanted| wanted == name)));
        states
    }
}

/// The name of what an account is like now.
pub(super) fn moment(state: &AccountState) -> String {
    state.modseq().to_string()
}
