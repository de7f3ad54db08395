//! Tests of the whole actor, on a small state and the engine in memory.

mod hints;
mod nodes;
mod power;
mod rounds;
mod single;

use std::sync::Arc;

use uuid::Uuid;

use crate::id::LogId;
use crate::seal::{Sealer, Unencrypted};

pub(crate) fn sealer() -> Arc<dyn Sealer> {
    Arc::new(Unencrypted)
}

pub(crate) fn log_id(number: u128) -> LogId {
    LogId::account(Uuid::from_u128(number))
}
