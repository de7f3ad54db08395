//! Which changes of an item are legal. Pure: builders ask before they commit, and the fold asks again.

use std::sync::Arc;

use crate::item::{Destination, Expansion, Item, Outcome, Progress, RemoteState, Slice, Targets};

/// A change that an item does not allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Illegal(pub &'static str);

/// Recipients up to `expanded` became `slice`. The targets before it must all be settled: so redelivery replays the
/// last slice and goes on behind it, and memory holds one slice at a time.
pub fn expand(item: &Item, expanded: u32, slice: Option<&Slice>) -> Result<Expansion, Illegal> {
    let Progress::Ingest(expansion) = &item.progress else {
        return Err(Illegal("only ingest items are expanded"));
    };
    if expansion.pending() > 0 {
        return Err(Illegal("targets of the slice before are not settled"));
    }
    if expanded <= expansion.expanded || expanded > item.message.details.recipients() {
        return Err(Illegal("expansion does not go forward within the recipients"));
    }
    let mut next = expansion.clone();
    next.expanded = expanded;
    if let Some(slice) = slice {
        if slice.first != expansion.targets()
            || slice.count == 0
            || !slice.outcomes.is_empty()
            || slice.placed
        {
            return Err(Illegal("slice does not follow the one before"));
        }
        if let Targets::Here(targets) = &slice.targets
            && targets.len() != slice.count as usize
        {
            return Err(Illegal("slice counts other than it holds"));
        }
        // What is settled needs its targets for the trace alone; a long list keeps only the outcomes.
        for before in &mut next.slices {
            if matches!(&before.targets, Targets::Here(targets) if targets.len() > crate::item::FATES_MAX) {
                before.targets = Targets::Here(Arc::new(Vec::new()));
            }
        }
        next.slices.push(slice.clone());
    }
    Ok(next)
}

/// Targets get outcomes. An outcome is final: the first one stays, and a second one is not legal.
pub fn settle(
    expansion: &Expansion,
    outcomes: &[(u32, Outcome)],
    placed: bool,
) -> Result<Expansion, Illegal> {
    let mut next = expansion.clone();
    for (target, outcome) in outcomes {
        let slice = next
            .slices
            .iter_mut()
            .find(|slice| (slice.first..slice.first + slice.count).contains(target))
            .ok_or(Illegal("no such target"))?;
        if slice.placed {
            return Err(Illegal("the target is settled"));
        }
        match slice.outcomes.binary_search_by_key(target, |(number, _)| *number) {
            Ok(_) => return Err(Illegal("the target is settled")),
            Err(at) => slice.outcomes.insert(at, (*target, outcome.clone())),
        }
    }
    if placed {
        for slice in &mut next.slices {
            if slice.pending() == 0 {
                continue;
            }
            if let Targets::Here(targets) = &slice.targets {
                let lost = targets.iter().enumerate().any(|(at, target)| {
                    matches!(target.to, Destination::Unreachable { .. })
                        && !slice.is_settled(slice.first + at as u32)
                });
                if lost {
                    return Err(Illegal("what is unreachable cannot be placed"));
                }
            }
            slice.placed = true;
        }
    }
    Ok(next)
}

/// Whether an ingest item is done: everything expanded, everything settled.
pub fn is_done(expansion: &Expansion, recipients: u32) -> bool {
    expansion.expanded == recipients && expansion.pending() == 0
}

/// A remote recipient goes from one state to another.
pub fn advance(from: &RemoteState, to: &RemoteState) -> Result<(), Illegal> {
    use RemoteState::{Cancelled, Delivered, Expired, Failed, Pending};
    match (from, to) {
        (Pending, Delivered | Failed { .. } | Expired { .. } | Cancelled) => Ok(()),
        (Failed { failure, settled: false }, Failed { failure: same, settled: true }) if failure == same => {
            Ok(())
        }
        (Expired { settled: false }, Expired { settled: true }) => Ok(()),
        (Pending, Pending) => Err(Illegal("nothing changes")),
        _ if from.is_final() => Err(Illegal("the recipient is settled")),
        _ => Err(Illegal("the recipient has failed and only its notification is open")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Failure, Target};

    fn slice(first: u32, to: Vec<Destination>) -> Slice {
        let targets: Vec<_> = to.into_iter().map(|to| Target { recipient: 0, owner: None, to }).collect();
        Slice {
            first,
            count: targets.len() as u32,
            targets: Targets::Here(Arc::new(targets)),
            outcomes: Vec::new(),
            placed: false,
        }
    }

    fn local() -> Destination {
        Destination::Local { account: mail::id::AccountId(uuid::Uuid::nil()), detail: None }
    }

    fn unreachable() -> Destination {
        Destination::Unreachable { address: None, failure: Failure::new("5.1.1", "no such user") }
    }

    #[test]
    fn outcomes_are_final() {
        let expansion =
            Expansion { expanded: 1, owners: vec![], slices: vec![slice(0, vec![local(), local()])] };
        assert_eq!(expansion.pending(), 2);
        let one = settle(&expansion, &[(1, Outcome::Cancelled)], false).unwrap();
        assert_eq!(one.pending(), 1);
        assert!(!is_done(&one, 1));
        assert!(settle(&one, &[(1, Outcome::Delivered)], false).is_err());
        assert!(settle(&one, &[(2, Outcome::Delivered)], false).is_err());
        let all = settle(&one, &[], true).unwrap();
        assert!(is_done(&all, 1) && !is_done(&all, 2));
        assert!(settle(&all, &[(0, Outcome::Delivered)], false).is_err());
    }

    /// Conservation: a target that could not be resolved does not vanish among those that were placed.
    #[test]
    fn what_is_unreachable_has_to_be_named() {
        let expansion =
            Expansion { expanded: 1, owners: vec![], slices: vec![slice(0, vec![local(), unreachable()])] };
        assert!(settle(&expansion, &[], true).is_err());
        let failed = Outcome::Failed { failure: Failure::new("5.1.1", "no such user"), notified: true };
        assert!(is_done(&settle(&expansion, &[(1, failed)], true).unwrap(), 1));
    }

    #[test]
    fn remote_states() {
        let failure = || Failure::new("5.1.1", "no");
        let all = [
            RemoteState::Pending,
            RemoteState::Delivered,
            RemoteState::Failed { failure: failure(), settled: false },
            RemoteState::Failed { failure: failure(), settled: true },
            RemoteState::Expired { settled: false },
            RemoteState::Expired { settled: true },
            RemoteState::Cancelled,
        ];
        let legal: Vec<(usize, usize)> = (0..all.len())
            .flat_map(|from| (0..all.len()).map(move |to| (from, to)))
            .filter(|(from, to)| advance(&all[*from], &all[*to]).is_ok())
            .collect();
        assert_eq!(legal, [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (0, 6), (2, 3), (4, 5)]);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let failure = Failure::new("5.0.0", "ä".repeat(400));
        assert_eq!(failure.text.len(), 512);
    }
}
