//! Changes of outbound items that need no dialling. Pure.

use crate::item::{Item, Progress, RemoteState};

/// What an expired item's waiting recipients become.
pub(crate) fn expired(item: &Item) -> Vec<(u32, RemoteState)> {
    waiting(item).map(|index| (index, RemoteState::Expired { settled: false })).collect()
}

/// What the waiting recipients of an item that is taken back become.
pub(crate) fn cancelled(item: &Item) -> Vec<(u32, RemoteState)> {
    waiting(item).map(|index| (index, RemoteState::Cancelled)).collect()
}

fn waiting(item: &Item) -> impl Iterator<Item = u32> {
    let recipients = match &item.progress {
        Progress::Outbound(recipients) => recipients.as_slice(),
        _ => &[],
    };
    (0..)
        .zip(recipients)
        .filter(|(_, recipient)| recipient.state == RemoteState::Pending)
        .map(|(index, _)| index)
}
