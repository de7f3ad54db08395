//! All that is tested of accounts from outside the crate. One program, since each one is linked with everything.

mod by_email;
mod clients;
mod crash;
mod emails;
mod model;
mod setup;
mod two_actors;
mod verbs;
