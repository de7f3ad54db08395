//! A short run of faults over three nodes, some minutes: `cargo test -p cluster-tests --test faults`, with the server's binary in
//! `POSTRIDER_BIN`. Campaigns have all of them, and for longer.
#![allow(clippy::print_stdout, reason = "what was counted is for people")]

use std::time::Duration;

use anyhow::Result;
use cluster_tests::faults::{Fault, Kind};
use cluster_tests::rounds::Rounds;

const SEED: u64 = 20_261_127;
const FAULTS: [(Kind, usize, u64); 6] = [
    (Kind::KillNode, 1, 6),
    (Kind::PauseNode, 2, 6),
    (Kind::KillCassandra, 1, 5),
    (Kind::PauseTwoCassandras, 0, 8),
    (Kind::KillNats, 0, 6),
    (Kind::RefuseS3, 0, 6),
];

#[test]
fn nothing_acknowledged_is_lost_and_nodes_agree() -> Result<()> {
    let mut rounds = Rounds::start(SEED)?;
    rounds.after = Duration::from_secs(6);
    for (number, (kind, whom, seconds)) in FAULTS.into_iter().enumerate() {
        let report = rounds.round(&Fault { kind, whom, seconds }, SEED + number as u64)?;
        println!("{}: {report}", kind.name());
    }
    rounds.check()
}
