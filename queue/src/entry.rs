//! Operations of a shard's log: resolved effects, whose meaning is frozen once released.

use bytes::Bytes;
use engine::FormatError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::item::{Failure, Item, Message, Outcome, Progress, RemoteState, Said, Slice};

/// Where a live item lies: the chunk of its due hour, and its number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Place {
    /// The chunk.
    pub chunk: u32,
    /// The item's number.
    pub number: u64,
}

/// A resolved effect. The order of the variants is part of the stored format: new ones go to the end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Operation {
    /// An item comes; its number is that of this operation.
    Accepted {
        /// The chunk that it goes to.
        chunk: u32,
        /// The hour of that chunk (hours since 1970): makes the chunk, if this is its first item.
        hour: u32,
        /// Not to be worked on before.
        due: u64,
        /// The message.
        message: Box<Message>,
        /// How far it is already.
        progress: Progress,
        /// Delivery may begin with it at once: there is room in its window.
        claimable: bool,
        /// The producer's low watermark, for a derived item.
        watermark: Option<u64>,
    },
    /// More recipients of an ingest item are expanded.
    Expanded {
        /// The item.
        place: Place,
        /// Recipients before this index are expanded now.
        expanded: u32,
        /// Reverse-paths to be added to the item's.
        owners: Vec<mail::address::Address>,
        /// What they became. `None`: nothing.
        slice: Option<Slice>,
    },
    /// Targets of an ingest item are settled.
    Settled {
        /// The item.
        place: Place,
        /// What became of some of them.
        outcomes: Vec<(u32, Outcome)>,
        /// All others so far are where they were to go.
        placed: bool,
        /// The item is done, at this time.
        finished: Option<u64>,
    },
    /// Recipients of an outbound item, by index, are in these states.
    RemoteSettled {
        /// The item.
        place: Place,
        /// The new states.
        states: Vec<(u32, RemoteState)>,
        /// The item is done, at this time.
        finished: Option<u64>,
    },
    /// An item is put off within its hour.
    PutOff {
        /// The item.
        place: Place,
        /// Not to be worked on before.
        due: u64,
    },
    /// An item is put off to another hour. It comes along, since the chunk that it leaves may not be in memory.
    Moved {
        /// Where it was.
        from: Place,
        /// The chunk that it goes to.
        chunk: u32,
        /// The hour of that chunk.
        hour: u32,
        /// The item, as it is from now on.
        item: Box<Item>,
    },
    /// A process begins to work on the shard. What was begun before and is unfinished has seen a crash.
    Booted {
        /// The process.
        boot: Uuid,
        /// When (unix seconds).
        at: u64,
    },
    /// Delivery may begin with items below this number.
    Window {
        /// The first number that it may not begin with.
        below: u64,
    },
    /// Work on an item that has seen a crash, or was put off, begins.
    Began {
        /// The item.
        place: Place,
        /// The process.
        boot: Uuid,
        /// Crashes that the item has been part of.
        crashes: u8,
    },
    /// History goes: these chunks, in which nothing lives.
    Forgotten {
        /// The chunks.
        chunks: Vec<u32>,
    },
    /// A producer's items below its watermark are done: their ids need not be known any more.
    Watermark {
        /// The producer's log.
        producer: Uuid,
        /// Its watermark.
        watermark: u64,
    },
    /// An item leaves the shard with what is left of it.
    Left {
        /// The item.
        place: Place,
        /// When.
        at: u64,
        /// Where it goes.
        departure: Departure,
    },
    /// Entries up to here are in the archive.
    Archived {
        /// The last of them.
        to: u64,
        /// Where the newest chunk lies.
        address: Vec<u8>,
        /// The reference to it.
        nonce: Uuid,
    },
    /// Something happens to recipients of an outbound item, by index.
    Remote {
        /// The item.
        place: Place,
        /// What, in this order.
        changes: Vec<(u32, Change)>,
        /// The item's attempts so far.
        attempts: u32,
        /// Not to be looked at before. `None`: as it was.
        due: Option<u64>,
        /// The item is done, at this time.
        finished: Option<u64>,
    },
    /// An operator sends an outbound item elsewhere, or by its domain again.
    Rerouted {
        /// The item.
        place: Place,
        /// `host`, `host:port`, `[address]:port`; `None`: as its domain says.
        route: Option<String>,
    },
    /// A consumer of the shard has read everything before a number.
    Cursor {
        /// The consumer's name.
        name: String,
        /// The number. Zero: there is no such consumer any more.
        to: u64,
    },
}

/// What happens to a remote recipient; `state::step` says when it may. The order of the variants is part of the stored
/// format.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// An attempt begins.
    Leased {
        /// Its number.
        attempt: u32,
        /// The process.
        boot: Uuid,
        /// How long it has.
        seconds: u32,
    },
    /// Another host has taken the message.
    Delivered {
        /// What it said; names the attempt.
        said: Said,
        /// Somebody asked to hear of it, and it is for us to tell.
        owed: bool,
    },
    /// Not now.
    Deferred {
        /// What was said; names the attempt.
        said: Said,
        /// To be tried again then.
        not_before: u64,
    },
    /// The attempt ended before it came to this recipient.
    Untried {
        /// The attempt.
        attempt: u32,
        /// To be tried then.
        not_before: u64,
    },
    /// Not ever.
    Failed {
        /// Why.
        failure: Failure,
        /// What was said; names the attempt. `None`: it was never tried.
        said: Option<Said>,
    },
    /// An attempt lapsed, or lost its connection behind the final dot.
    Doubted {
        /// The attempt.
        attempt: u32,
        /// What was found instead of an answer.
        said: Option<Said>,
        /// To be tried again then.
        not_before: u64,
    },
    /// Too old.
    Expired,
    /// An operator keeps it back.
    Held,
    /// An operator lets it go, or wants it tried at once.
    Retried {
        /// To be tried then.
        not_before: u64,
    },
    /// An operator takes it back.
    Cancelled,
    /// Whoever is to hear of its end has been told, or nobody is.
    Told,
    /// The sender was told that it takes longer.
    DelayTold,
}

/// Where an item goes that leaves its shard unfinished. The order of the variants is part of the stored format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Departure {
    /// To quarantine.
    Quarantined,
    /// From quarantine, back to an ingest shard.
    Released,
    /// Nowhere: an operator gave it up.
    Dropped,
}

/// Version of the encoding of an operation: the first byte.
const VERSION: u8 = 1;

impl Operation {
    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        *out = postcard::to_extend(self, std::mem::take(out))
            .expect("operations have nothing that cannot be encoded");
    }

    /// Reverse of [`Self::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        decode_versioned("queue operation", VERSION, bytes)
    }

    /// The operation that says how far the log is archived.
    pub fn archived(to: u64, address: &Bytes, nonce: Uuid) -> Self {
        Self::Archived { to, address: address.to_vec(), nonce }
    }
}

/// A postcard value behind a version byte, and nothing behind it.
pub(crate) fn decode_versioned<'a, T: Deserialize<'a>>(
    what: &'static str,
    version: u8,
    bytes: &'a [u8],
) -> Result<T, FormatError> {
    let (&first, rest) = bytes.split_first().ok_or_else(|| FormatError::malformed(what, "empty"))?;
    if first != version {
        return Err(FormatError::Unknown { what, number: u64::from(first) });
    }
    let (value, rest) =
        postcard::take_from_bytes(rest).map_err(|error| FormatError::malformed(what, error))?;
    if rest.is_empty() { Ok(value) } else { Err(FormatError::malformed(what, "bytes behind the end")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_survive_their_stored_form() {
        let place = Place { chunk: 3, number: 70_000 };
        let check = |operation: Operation| {
            let mut bytes = Vec::new();
            operation.encode(&mut bytes);
            assert_eq!(Operation::decode(&bytes), Ok(operation));
            assert!(Operation::decode(&bytes[..bytes.len() - 1]).is_err());
            bytes.push(0);
            assert!(Operation::decode(&bytes).is_err());
        };
        check(Operation::Settled {
            place,
            outcomes: vec![(0, Outcome::Delivered)],
            placed: true,
            finished: Some(9),
        });
        check(Operation::Booted { boot: Uuid::from_u128(5), at: 7 });
        check(Operation::Forgotten { chunks: vec![1, 2] });
        check(Operation::archived(9, &Bytes::from_static(b"there"), Uuid::nil()));
        assert!(matches!(Operation::decode(&[9, 0]), Err(FormatError::Unknown { number: 9, .. })));
        assert!(Operation::decode(&[]).is_err());
    }

    /// Reordering variants would change what is stored.
    #[test]
    fn operation_numbers_are_frozen() {
        let number = |operation: Operation| {
            let mut bytes = Vec::new();
            operation.encode(&mut bytes);
            bytes[1]
        };
        assert_eq!(number(Operation::Window { below: 1 }), 7);
        assert_eq!(number(Operation::archived(1, &Bytes::new(), Uuid::nil())), 12);
        let place = Place { chunk: 1, number: 1 };
        assert_eq!(number(Operation::Rerouted { place, route: None }), 14);
        assert_eq!(number(Operation::Cursor { name: "x".to_owned(), to: 1 }), 15);
    }
}
