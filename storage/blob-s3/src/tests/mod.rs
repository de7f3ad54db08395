//! The back end against a service in the process, whose answers can be spoilt, and against a real one.

#![allow(clippy::unwrap_used, reason = "functions that tests share are tests too")]

mod cache;
mod connect;
mod contract;
mod faults;
mod store;
mod uploads;
