//! All that is tested of messages from outside the crate. One program, since each one is linked with everything.

mod bounds;
mod octets;
mod oracle;
mod splits;
