//! The operator's commands. Each is a request to the admin API, whether a server answers it or this process does, on
//! the store that no server has open: so there is one way to do a thing, and one audit log.

mod account_move;
mod client;
mod command;
mod migrate;
mod print;
mod queue;
mod regions;
mod schema;
mod secret;

pub(crate) use account_move::run as account_move;
pub(crate) use command::run;
pub(crate) use migrate::run as migrate;
pub(crate) use regions::register as register_names;
pub(crate) use schema::run as schema;
