//! Moving everything from one back end to another while it is in use: out of the folder of a single machine into a
//! cluster, and back.
//!
//! What moves are stored bytes. Entries and pages are sealed for their log and their place, and both sides have the same
//! keys, so nothing is opened, folded or numbered anew: UIDs, MODSEQs and ids stay what they were. The crate knows
//! neither accounts nor messages.
//!
//! [`Moving`] is an engine over two: a *source*, and a *target* once a move has begun. Each log lies in one of them, and
//! which one is decided in one instant (`flip`). Rows are written to both and read from the source until everything
//! is there. [`MovingBlobs`] is the same for segments. [`Relocation`] does the work. `storage/DESIGN.md`, "Moving to
//! another back end", has the rules and what a crash leaves.

mod blobs;
mod carry;
mod error;
mod flip;
mod gate;
mod log;
mod marks;
mod moving;
mod progress;
mod reconcile;
mod relocation;
mod rows;
mod segments;
mod standing;
#[cfg(test)]
mod tests;

pub use blobs::MovingBlobs;
pub use carry::{carry_log, discard_log};
pub use error::MoveError;
pub use moving::Moving;
pub use progress::{Progress, Stage};
pub use relocation::{Relocation, complete};
pub use standing::{Standing, StandingError};
