//! All that is tested of the queue from outside the crate. One program, since each one is linked with everything.

mod clock;
mod crash;
mod damage;
mod five_days;
mod operate;
mod outbound;
mod quarantine;
mod setup;
mod submitter;
