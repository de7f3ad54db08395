//! Runs of three simulated nodes.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests, and what they count is for people")]

mod bug;
mod clients;
mod counts;
mod follow;
mod hints;
mod judge;
mod load;
mod node;
mod reach;
mod run;
mod storm;
mod world;

mod seeds;
