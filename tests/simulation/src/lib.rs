//! Three nodes of Postrider in one thread, over engines in memory, with everything that goes wrong drawn from a seed.
//!
//! Each node is a host of turmoil that runs the libraries as the server does: membership, the actors of accounts and
//! shards, the keeper of the queue, the delivery agent, and SMTP and IMAP sessions that clients reach over the simulated
//! network. What a node stands on (logs, rows and segments) outlives it. Calls to it are late, refused, lost, answered in
//! vain; nodes are stopped at any step and started again, cut off from the engines, and have a wall clock that is ten
//! minutes wrong; hints are lost, doubled and late. Then faults end, time goes on, and a judge reads everything.
//!
//! **A seed is a run.** Hosts have turmoil's clock, which stands still until everybody waits. Random numbers and the clocks
//! of the C library come from the seed and from turmoil by way of the crate `mad-turmoil`, which puts its own functions in
//! place of the library's. What is left are numbers that count in the whole process, such as the one that tokio begins its
//! dice with; so each run has a process of its own. Threads have no part in it: on a runtime with one thread
//! `engine::aside` works in place. aws-lc draws its own numbers, but here they are salts, which decide nothing. A test
//! compares the hash of all that happened in two runs of one seed.
//!
//! `cargo xtask campaign simulation --minutes N --seed S` runs one seed after the other and ends at the first that finds
//! something wrong. With that seed, `POSTRIDER_SEED=S cargo test -p simulation nothing_is_lost` does it again;
//! `POSTRIDER_SIMULATION_TRACE=1` then says every call and answer, `POSTRIDER_SIMULATION_LOG=1` what the nodes log.
//!
//! A wall clock that is wrong is the queue's alone, since the other libraries take the system's. Nothing is sent to other
//! hosts here, and the engines never lose what they have acknowledged.
//!
//! The runs are in `tests/suite`, because turmoil brings tokio's clock of tests along, which has no place in what is
//! shipped; here is what needs neither: the [`ledger`] of what clients were told, and the judgement of what is found.

pub mod ledger;
