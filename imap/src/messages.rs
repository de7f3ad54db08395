//! From message numbers to rows of the mailbox's index.

use storage::{MailboxIndex, MessageRow};

use crate::view::View;

/// The rows of ranges of message numbers, ascending. A message that the index no longer has is left out; the client
/// will be told of it when it may be.
pub(crate) fn rows<'a>(
    view: &'a View,
    index: &'a MailboxIndex,
    numbers: &'a [(u32, u32)],
) -> impl Iterator<Item = (u32, MessageRow)> + 'a {
    // Nearly always number n is the n-th row; then the columns are read in order, without a search for each message.
    let aligned = view.len() as usize <= index.len()
        && view.uid(view.len()) == (view.len() as usize).checked_sub(1).and_then(|last| index.uid_at(last));
    numbers.iter().flat_map(move |&(first, last)| {
        let in_order = aligned.then(|| (first..=last).zip(index.range(first as usize - 1..last as usize)));
        let searched = (!aligned)
            .then(|| (first..=last).filter_map(|number| Some((number, index.by_uid(view.uid(number)?)?))));
        in_order.into_iter().flatten().chain(searched.into_iter().flatten())
    })
}
