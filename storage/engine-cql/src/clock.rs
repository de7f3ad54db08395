//! Clocks of the engine's nodes, held against ours.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use scylla::client::session::Session;
use scylla::cluster::Node;

use crate::config::Config;
use crate::session::{OpenError, asked_of};

/// By how many milliseconds our clock is ahead of a node's, at least; below zero: behind. `None`: it cannot be asked.
pub(crate) async fn ahead_ms(session: &Session, node: &Arc<Node>) -> Option<i64> {
    let question = asked_of(node, "SELECT toUnixTimestamp(now()) FROM system.local");
    let before = now_ms();
    let answer = session.query_unpaged(question, ()).await.ok()?;
    let after = now_ms();
    let (theirs,) = answer.into_rows_result().ok()?.first_row::<(i64,)>().ok()?;
    Some(between(before, theirs, after))
}

/// A start with a clock that most nodes find wrong is refused: nodes of Postrider date mail, and the rows that they write
/// plainly, with it. Where it is a node of the engine that is wrong, a start only says so.
pub(crate) async fn refuse_a_wrong_one(session: &Session, config: &Config) -> Result<(), OpenError> {
    if config.clock_difference_ms_refused == 0 {
        return Ok(());
    }
    let state = session.get_cluster_state();
    let mut ahead = Vec::new();
    for node in state.get_nodes_info() {
        ahead.extend(ahead_ms(session, node).await);
    }
    match most_say(ahead) {
        Some(ahead_ms) if ahead_ms.unsigned_abs() > config.clock_difference_ms_refused => {
            Err(OpenError::Clock { ahead_ms, ms_refused: config.clock_difference_ms_refused })
        }
        _ => Ok(()),
    }
}

/// They said it somewhere between question and answer.
fn between(before: i64, theirs: i64, after: i64) -> i64 {
    if theirs < before {
        before - theirs
    } else if theirs > after {
        after - theirs
    } else {
        0
    }
}

/// The middle of what nodes say; of two middles the one that is better for us.
fn most_say(mut ahead: Vec<i64>) -> Option<i64> {
    ahead.sort_unstable();
    let upper = *ahead.get(ahead.len() / 2)?;
    let lower = ahead[(ahead.len() - 1) / 2];
    Some(if lower.unsigned_abs() < upper.unsigned_abs() { lower } else { upper })
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_took_long_is_no_difference() {
        for (theirs, expected) in [(1_000, 0), (1_500, 0), (9_000, 0), (400, 600), (9_300, -300)] {
            assert_eq!(between(1_000, theirs, 9_000), expected, "{theirs}");
        }
    }

    #[test]
    fn one_wrong_node_does_not_make_us_wrong() {
        for (ahead, expected) in [
            (vec![], None),
            (vec![600_000], Some(600_000)),
            (vec![0, 600_000], Some(0)),
            (vec![-600_000, 3], Some(3)),
            (vec![0, 600_000, 1], Some(1)),
            (vec![-600_000, 5, -600_001], Some(-600_000)),
        ] {
            assert_eq!(most_say(ahead.clone()), expected, "{ahead:?}");
        }
    }
}
