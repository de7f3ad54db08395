//! Which changes of an item are legal. Pure: builders ask before they commit, and the fold asks again.

use std::sync::Arc;

use crate::entry::Change;
use crate::item::{
    Destination, Expansion, Item, Outcome, Progress, RemoteRecipient, RemoteState, Slice, Targets,
};

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

/// A remote recipient after a change. A success counts from any attempt while the recipient has not ended; whatever else
/// an attempt says counts from the current one alone: so a late failure cannot undo what came after it. Nothing but its
/// result, its lapse or a success ends a lease.
pub fn step(recipient: &RemoteRecipient, change: &Change) -> Result<RemoteRecipient, Illegal> {
    use RemoteState::{Cancelled, Delivered, Expired, Failed, Held, InDoubt, Leased, Pending, Relayed};
    let state = &recipient.state;
    let mut next = recipient.clone();
    // Model queue: Rule::CurrentAttempt.
    let current = |attempt: u32| match state {
        Leased { attempt: now, .. } | InDoubt { attempt: now } if *now == attempt => Ok(()),
        _ => Err(Illegal("the attempt is not the recipient's current one")),
    };
    match change {
        Change::Leased { attempt, boot, seconds } => {
            if !state.is_waiting() {
                return Err(Illegal("the recipient does not wait to be tried"));
            }
            next.state = Leased { attempt: *attempt, boot: *boot, seconds: *seconds };
        }
        Change::Delivered { said, owed } => {
            // Model queue: Rule::SuccessFromAnyAttempt.
            if !matches!(state, Pending | Leased { .. } | InDoubt { .. } | Held) {
                return Err(Illegal("the recipient has ended"));
            }
            next.state = if *owed { Relayed } else { Delivered };
            next.last = Some(said.clone());
        }
        Change::Deferred { said, not_before } => {
            current(said.attempt)?;
            (next.state, next.not_before) = (Pending, *not_before);
            next.deferrals = next.deferrals.saturating_add(1);
            next.last = Some(said.clone());
        }
        Change::Untried { attempt, not_before } => {
            current(*attempt)?;
            (next.state, next.not_before) = (Pending, *not_before);
        }
        Change::Failed { failure, said: Some(said) } => {
            current(said.attempt)?;
            next.state = Failed { failure: failure.clone(), settled: false };
            next.last = Some(said.clone());
        }
        Change::Failed { failure, said: None } => {
            if !state.is_waiting() {
                return Err(Illegal("the recipient does not wait"));
            }
            next.state = Failed { failure: failure.clone(), settled: false };
        }
        Change::Doubted { attempt, said, not_before } => {
            if !matches!(state, Leased { attempt: now, .. } if now == attempt) {
                return Err(Illegal("the attempt holds no lease"));
            }
            (next.state, next.not_before) = (InDoubt { attempt: *attempt }, *not_before);
            next.doubts = next.doubts.saturating_add(1);
            if said.is_some() {
                next.last.clone_from(said);
            }
        }
        Change::Expired => {
            if !state.is_waiting() {
                return Err(Illegal("only what waits expires"));
            }
            next.state = Expired { settled: false };
        }
        Change::Held => {
            if !state.is_waiting() {
                return Err(Illegal("only what waits is held"));
            }
            next.state = Held;
        }
        Change::Retried { not_before } => {
            if !matches!(state, Pending | InDoubt { .. } | Held) {
                return Err(Illegal("the recipient does not wait"));
            }
            if *state == Held {
                next.state = Pending;
            }
            next.not_before = *not_before;
        }
        Change::Cancelled => {
            if !matches!(state, Pending | InDoubt { .. } | Held) {
                return Err(Illegal("the recipient does not wait"));
            }
            next.state = Cancelled;
        }
        Change::Told => {
            next.state = match state {
                Failed { failure, settled: false } => Failed { failure: failure.clone(), settled: true },
                Expired { settled: false } => Expired { settled: true },
                Relayed => Delivered,
                _ => return Err(Illegal("nobody is to be told")),
            };
        }
        Change::DelayTold => {
            if next.delay_told {
                return Err(Illegal("the sender was told already"));
            }
            next.delay_told = true;
        }
    }
    Ok(next)
}

/// A remote recipient goes from one state to another, as operations said it before attempts were recorded.
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

    fn recipient(state: RemoteState) -> RemoteRecipient {
        let address = mail::address::Address::parse("bob@example.org").unwrap();
        let recipient = mail::envelope::Recipient::new(address);
        let mut remote = RemoteRecipient::from(crate::item::OutboundRecipient {
            target: 0,
            recipient,
            state: RemoteState::Pending,
        });
        remote.state = state;
        remote
    }

    /// Every state and every change: what comes out, and everything else is refused. Attempt 7 is under way.
    #[test]
    fn transitions_of_remote_recipients() {
        let boot = uuid::Uuid::nil();
        let failure = || Failure::new("5.1.1", "no");
        let said = |attempt| crate::item::Said { attempt, ..crate::item::Said::new(1, "250 ok") };
        let leased = |attempt| RemoteState::Leased { attempt, boot, seconds: 60 };
        let states = [
            ("pending", RemoteState::Pending),
            ("leased", leased(7)),
            ("in doubt", RemoteState::InDoubt { attempt: 7 }),
            ("held", RemoteState::Held),
            ("relayed", RemoteState::Relayed),
            ("delivered", RemoteState::Delivered),
            ("failed", RemoteState::Failed { failure: failure(), settled: false }),
            ("failed, told", RemoteState::Failed { failure: failure(), settled: true }),
            ("expired", RemoteState::Expired { settled: false }),
            ("expired, told", RemoteState::Expired { settled: true }),
            ("cancelled", RemoteState::Cancelled),
        ];
        let name = |state: &RemoteState| {
            let same = |known: &RemoteState| std::mem::discriminant(known) == std::mem::discriminant(state);
            let told = matches!(
                state,
                RemoteState::Failed { settled: true, .. } | RemoteState::Expired { settled: true }
            );
            let mut names =
                states.iter().filter(|(name, known)| same(known) && name.ends_with("told") == told);
            names.next().unwrap().0
        };
        let check = |change: Change, expected: &[(&str, &str)]| {
            let legal: Vec<(&str, &str)> = states
                .iter()
                .filter_map(|(from, state)| {
                    let next = step(&recipient(state.clone()), &change).ok()?;
                    Some((*from, name(&next.state)))
                })
                .collect();
            assert_eq!(legal, expected, "{change:?}");
        };
        let lease = Change::Leased { attempt: 8, boot, seconds: 60 };
        check(lease, &[("pending", "leased"), ("in doubt", "leased")]);
        // A success counts from any attempt.
        for attempt in [6, 7, 8] {
            let delivered = [
                ("pending", "delivered"),
                ("leased", "delivered"),
                ("in doubt", "delivered"),
                ("held", "delivered"),
            ];
            check(Change::Delivered { said: said(attempt), owed: false }, &delivered);
            let relayed = delivered.map(|(from, _)| (from, "relayed"));
            check(Change::Delivered { said: said(attempt), owed: true }, &relayed);
        }
        // Everything else from the current one.
        let current = |to: &'static str| [("leased", to), ("in doubt", to)];
        check(Change::Deferred { said: said(7), not_before: 9 }, &current("pending"));
        check(Change::Untried { attempt: 7, not_before: 9 }, &current("pending"));
        check(Change::Failed { failure: failure(), said: Some(said(7)) }, &current("failed"));
        check(Change::Doubted { attempt: 7, said: None, not_before: 9 }, &[("leased", "in doubt")]);
        for attempt in [6, 8] {
            check(Change::Deferred { said: said(attempt), not_before: 9 }, &[]);
            check(Change::Untried { attempt, not_before: 9 }, &[]);
            check(Change::Failed { failure: failure(), said: Some(said(attempt)) }, &[]);
            check(Change::Doubted { attempt, said: None, not_before: 9 }, &[]);
        }
        // Nothing happens under a lease but what its attempt says.
        let waiting = |to: &'static str| [("pending", to), ("in doubt", to)];
        check(Change::Failed { failure: failure(), said: None }, &waiting("failed"));
        check(Change::Expired, &waiting("expired"));
        check(Change::Held, &waiting("held"));
        let retried = [("pending", "pending"), ("in doubt", "in doubt"), ("held", "pending")];
        check(Change::Retried { not_before: 9 }, &retried);
        let cancelled = [("pending", "cancelled"), ("in doubt", "cancelled"), ("held", "cancelled")];
        check(Change::Cancelled, &cancelled);
        let told = [("relayed", "delivered"), ("failed", "failed, told"), ("expired", "expired, told")];
        check(Change::Told, &told);
    }

    #[test]
    fn a_delay_is_told_once() {
        let once = step(&recipient(RemoteState::Pending), &Change::DelayTold).unwrap();
        assert!(once.delay_told && step(&once, &Change::DelayTold).is_err());
    }

    #[test]
    fn doubts_and_deferrals_are_counted() {
        let said = crate::item::Said { attempt: 7, ..crate::item::Said::new(1, "451 later") };
        let leased = RemoteState::Leased { attempt: 7, boot: uuid::Uuid::nil(), seconds: 60 };
        let doubted =
            step(&recipient(leased), &Change::Doubted { attempt: 7, said: None, not_before: 9 }).unwrap();
        assert_eq!((doubted.doubts, doubted.deferrals, doubted.not_before), (1, 0, 9));
        let deferred = step(&doubted, &Change::Deferred { said: said.clone(), not_before: 50 }).unwrap();
        assert_eq!((deferred.doubts, deferred.deferrals, deferred.not_before), (1, 1, 50));
        assert_eq!(deferred.last, Some(said));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let failure = Failure::new("5.0.0", "ä".repeat(400));
        assert_eq!(failure.text.len(), 512);
    }
}
