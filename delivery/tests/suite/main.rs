//! All that is tested of local delivery from outside the crate. One program, since each one is linked with everything.

mod crash;
mod delivery;
mod regions;
mod remote;
mod world;
