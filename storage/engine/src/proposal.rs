//! Deciding a proposal: from the first attempt to the certainty that it was applied, or never will be.
//!
//! A compare-and-swap that timed out may have been applied, or may still be, when a later round completes it. So the
//! *same bytes with the same nonce* are proposed again until the place is taken: if by the own nonce, the proposal was
//! applied; if by another's, it is lost. If the entry at that place has been trimmed away meanwhile nobody can tell,
//! and it is never acknowledged.

use crate::context::Context;
use crate::error::EngineError;
use crate::log::{EntryRow, Outcome};
use crate::options::Sabotage;

/// What became of a proposal.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Applied, and the head was ours when it was.
    Applied,
    /// Applied by an attempt whose outcome was unknown; there may be entries of others behind it.
    AppliedEarlier,
    /// Another proposal took the place; this one never was applied and never will be.
    Lost,
    /// The place was trimmed away: it may have been applied or not.
    Trimmed,
    /// The log was deleted; applied before or not is not known when `undecided`.
    Deleted { undecided: bool },
    /// The back end refused the first attempt: not applied.
    Refused(EngineError),
    /// The back end has stopped for good while the outcome was not known.
    Broken(EngineError),
}

enum Place {
    Free,
    Ours,
    Anothers,
    Trimmed,
    LogDeleted,
}

/// Proposes until it is decided. Never gives up while the outcome is unknown and the back end may still answer.
pub(crate) async fn decide(context: &Context, row: &EntryRow, trim_to: Option<u64>) -> Decision {
    let mut undecided = false;
    let mut attempt = 0;
    loop {
        attempt += 1;
        match context.engine.log.append(context.log, row, trim_to).await {
            Ok(Outcome::Applied) => {
                if undecided {
                    context.counters.unknowns_applied.add(1);
                }
                return Decision::Applied;
            }
            Ok(Outcome::Unknown) => {
                // Model commit: Rule::SameNonce.
                undecided = true;
                context.counters.unknowns.add(1);
                tracing::debug!(log = %context.log, seq = row.last_seq, attempt, "commit undecided");
                if context.options.sabotaged(Sabotage::NewNonceAfterUnknown) {
                    return Decision::Lost;
                }
            }
            Ok(Outcome::Conflict) => {
                if context.options.sabotaged(Sabotage::ConflictTakenAsLost) {
                    return Decision::Lost;
                }
                // Model commit: Rule::ConflictLooksAtThePlace.
                match place(context, row).await {
                    Ok(Place::Ours) => {
                        context.counters.unknowns_applied.add(1);
                        return Decision::AppliedEarlier;
                    }
                    Ok(Place::Anothers) => return Decision::Lost,
                    // A conflict says that this call was not applied. Without an earlier unknown one nothing was.
                    Ok(Place::Trimmed) if !undecided => return Decision::Lost,
                    // Model commit: Rule::TrimmedStaysUnknown.
                    Ok(Place::Trimmed) => {
                        context.counters.unknowns_trimmed.add(1);
                        return Decision::Trimmed;
                    }
                    Ok(Place::LogDeleted) => return Decision::Deleted { undecided },
                    // The read was older than the conflict, or failed: nothing is decided by it.
                    Ok(Place::Free) | Err(_) => {}
                }
            }
            Err(error) if !undecided => return Decision::Refused(error),
            Err(error @ EngineError::Poisoned { .. }) => return Decision::Broken(error),
            Err(error) => {
                tracing::debug!(log = %context.log, seq = row.last_seq, attempt, %error, "commit undecided");
            }
        }
        tokio::time::sleep(context.options.backoff(attempt)).await;
    }
}

/// Who has the place of this proposal: the entry whose first number is exactly the expected head plus one.
async fn place(context: &Context, row: &EntryRow) -> Result<Place, EngineError> {
    let expected = row.first_seq - 1;
    let Some(tail) = context.engine.log.tail_after(context.log, expected, 1).await? else {
        return Ok(Place::LogDeleted);
    };
    Ok(match tail.rows.first() {
        // Model commit: Rule::ExactPlace.
        Some(taken) if taken.first_seq == row.first_seq && taken.nonce == row.nonce => Place::Ours,
        Some(taken) if taken.first_seq == row.first_seq => Place::Anothers,
        None if tail.head.seq == expected => Place::Free,
        _ => Place::Trimmed,
    })
}
