//! Running a model: within bounds that are explored to the end, and with one rule removed, which must be noticed.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// Declares the rules of a model: each is followed unless the model is built without it.
macro_rules! rules {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $rule:ident,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$doc])* $rule,)+ }

        impl $name {
            /// All of them, in the order in which they are written down.
            pub(crate) const ALL: &[Self] = &[$(Self::$rule,)+];
        }
    };
}
pub(crate) use rules;

/// A model of which the rules can be removed one at a time.
pub(crate) trait Checked:
    Model<State: Clone + Debug + Hash + PartialEq + Send + Sync, Action: Clone + Debug + PartialEq>
    + Send
    + Sync
    + 'static
{
    /// Its rules.
    type Rule: Copy + Debug + PartialEq + 'static;

    /// What the model is called in the comments of the code that it is about.
    const NAME: &str;
    const RULES: &[Self::Rule];

    /// Bounds that are explored to the end by every run of the tests.
    fn bounds() -> Vec<Bound<Self>>;

    /// Bounds for a campaign. They may be too wide to come to an end.
    fn wide() -> Vec<(&'static str, Self)>;

    /// The model without a rule, in a bound in which that shows, and the property that breaks first or soon.
    fn without(rule: Self::Rule) -> (Self, &'static str);
}

/// A model with all its rules.
pub(crate) struct Bound<M> {
    /// What it has.
    pub(crate) name: &'static str,
    pub(crate) model: M,
    /// States that it has at least: a model that explores nothing proves nothing.
    pub(crate) states_min: usize,
}

/// How far an exploration came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Explored {
    /// Different states.
    pub(crate) states: usize,
    /// Steps on the longest of the shortest ways to a state.
    pub(crate) depth: usize,
}

/// Explores everything. The error is the counterexample, or what was never reached.
pub(crate) fn holds<M: Checked>(model: M) -> Result<Explored, String> {
    judge(&model.checker().threads(1).spawn_bfs().join(), true)
}

/// Explores for so long, on two threads. The error is the counterexample.
pub(crate) fn holds_for<M: Checked>(model: M, time: Duration) -> Result<Explored, String> {
    judge(&model.checker().threads(2).timeout(time).spawn_bfs().join(), false)
}

/// Looks for a way to break a property; gives its steps and how far the search had to go.
pub(crate) fn breaks<M: Checked>(model: M, property: &'static str) -> Option<(Explored, Vec<M::Action>)> {
    let wanted = HasDiscoveries::AllOf(BTreeSet::from([property]));
    let checker = model.checker().threads(1).finish_when(wanted).spawn_bfs().join();
    let explored = Explored { states: checker.unique_state_count(), depth: checker.max_depth() };
    Some((explored, checker.discovery(property)?.into_actions()))
}

fn judge<M: Checked>(checker: &impl Checker<M>, complete: bool) -> Result<Explored, String> {
    let discoveries = checker.discoveries();
    for property in checker.model().properties() {
        let found = discoveries.get(property.name);
        match (property.expectation, found) {
            (Expectation::Always, Some(path)) => {
                let steps = path.clone().into_actions();
                return Err(format!("«{}» is broken by {steps:?}", property.name));
            }
            (Expectation::Sometimes, None) if complete => {
                return Err(format!("«{}» is never reached", property.name));
            }
            _ => {}
        }
    }
    Ok(Explored { states: checker.unique_state_count(), depth: checker.max_depth() })
}

/// All bounds of a model: nothing breaks, everything that should happen does, and enough is seen. Gives the rows of the
/// table.
pub(crate) fn check_bounds<M: Checked>() -> Result<Vec<String>, String> {
    let check = |Bound { name, model, states_min }| {
        let Explored { states, depth } =
            holds::<M>(model).map_err(|error| format!("{}, {name}: {error}", M::NAME))?;
        if states < states_min {
            return Err(format!("{}, {name}: only {states} states", M::NAME));
        }
        let row = format!("| {} | {name} | {states} | {depth} |", M::NAME);
        println!("{row}");
        Ok(row)
    };
    M::bounds().into_iter().map(check).collect()
}

/// Each rule is needed: without it the property that is named for it breaks. Gives the rows of the table.
pub(crate) fn check_rules<M: Checked>() -> Result<Vec<String>, String> {
    let check = |rule: &M::Rule| {
        let (model, property) = M::without(*rule);
        let Some((explored, steps)) = breaks(model, property) else {
            return Err(format!("{}: «{property}» holds without {rule:?}", M::NAME));
        };
        let row =
            format!("| {} | `{rule:?}` | {property} | {} | {} |", M::NAME, explored.states, steps.len());
        println!("{row}");
        Ok(row)
    };
    M::RULES.iter().map(check).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    /// README.md shows what was counted.
    pub(crate) fn shown(rows: Result<Vec<String>, String>) {
        let readme = include_str!("../README.md");
        for row in rows.unwrap_or_else(|fault| panic!("{fault}")) {
            assert!(readme.contains(&row), "README.md has no row «{row}»");
        }
    }
}
