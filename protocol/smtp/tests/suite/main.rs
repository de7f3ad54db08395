//! All that is tested of the SMTP machines from outside the crate. One program, since each one is linked with everything.

mod both_ends;
mod cuts;
mod policy;
mod transcripts;
