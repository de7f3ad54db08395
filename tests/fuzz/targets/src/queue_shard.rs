//! A queue shard's state: its stored forms, and what its log folds into.

use std::sync::Arc;

use blob::{BlobAddress, BlobId, KeyId, Nonce, SegmentId};
use bytes::Bytes;
use engine::{LogId, PageId, PartPages, State};
use mail::address::{Address, ReversePath};
use mail::envelope::{BodyType, Recipient};
use mail::id::{AccountId, QueueId};
use queue::entry::{Change, Departure, Operation, Place};
use queue::fold::ShardState;
use queue::item::{
    Derivation, Destination, Details, Expansion, Failure, Item, Message, MessageDetails, OutboundRecipient,
    Outcome, Progress, RemoteState, Sender, Slice, Target, Targets,
};
use queue::page::Chunk;
use queue::{Layout, Origin, ShardId};
use uuid::Uuid;

use crate::input::{Input, push_piece};

/// Byte 1: which value, and whether its checksum is put right; then its bytes.
pub fn stored(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if kind & 4 != 0 {
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    }
    match kind & 3 {
        0 => {
            if let Ok(operation) = Operation::decode(&bytes) {
                let mut again = Vec::new();
                operation.encode(&mut again);
                assert_eq!(Operation::decode(&again), Ok(operation));
            }
        }
        1 => {
            if let Ok(chunk) = Chunk::decode(&bytes) {
                assert_eq!(Chunk::decode(&chunk.encode()).as_ref(), Ok(&chunk));
                assert!(chunk.live().zip(chunk.live().skip(1)).all(|(one, next)| one.number < next.number));
            }
        }
        _ => {
            let Ok(state) = ShardState::from_root(log(), &bytes) else { return };
            let _ = (state.weight(), state.live(), state.watermark(), state.remembered());
            let taken = state.snapshot(&mut numbered());
            let again = ShardState::from_root(log(), &taken.root).expect("a root that was written is read");
            assert_eq!(again.digest(), state.digest());
        }
    }
}

/// Pieces: encoded operations, each folded if it can be. What was folded can be stored and read again.
pub fn fold(data: &[u8]) {
    let mut input = Input::new(data);
    let mut state = fresh();
    while !input.is_empty() {
        let Ok(operation) = Operation::decode(input.piece()) else { continue };
        let mut next = state.clone();
        if next.fold(state.seq() + 1, &operation).is_ok() {
            state = next;
        }
    }
    let _ = (state.weight(), state.live(), state.watermark(), state.remembered());
    let taken = state.snapshot(&mut numbered());
    let mut again = ShardState::from_root(log(), &taken.root).expect("a root that was written is read");
    assert_eq!(again.digest(), state.digest());
    for chunk in state.chunks() {
        if let PartPages::Missing(ids) = again.pages_of(&chunk.id) {
            let page = taken.written.iter().find(|(id, _)| *id == ids[0]).expect("the page was written");
            again
                .install(&chunk.id, vec![(page.0, Bytes::from(page.1.clone()))])
                .expect("what was written is read");
        }
        assert_eq!(again.chunk(chunk.id), state.chunk(chunk.id));
    }
    assert_eq!(again.digest(), state.digest());
}

fn fresh() -> ShardState {
    ShardState::new(ShardId::ingest(0), Layout { ingest: 1, outbound: 1 })
}

fn log() -> LogId {
    LogId::shard(ShardId::ingest(0).log_id())
}

fn numbered() -> impl FnMut() -> PageId {
    let mut number = 0;
    move || {
        number += 1;
        PageId { base_seq: 1, attempt: Uuid::nil(), number }
    }
}

/// Every operation, a page and a root.
pub fn stored_samples() -> Vec<Vec<u8>> {
    let mut samples = Vec::new();
    let mut state = fresh();
    for operation in history() {
        let mut sample = vec![0];
        operation.encode(&mut sample);
        samples.push(sample);
        state.fold(state.seq() + 1, &operation).expect("the history is right");
    }
    let taken = state.snapshot(&mut numbered());
    let without_checksum = |bytes: &[u8]| bytes[..bytes.len() - 4].to_vec();
    for (_, page) in taken.written {
        samples.push([&[5], &without_checksum(&page)[..]].concat());
    }
    samples.push([&[6], &without_checksum(&taken.root)[..]].concat());
    samples
}

/// The whole history, and each way to end it.
pub fn fold_samples() -> Vec<Vec<u8>> {
    let history = history();
    let mut samples = Vec::new();
    for length in [1, 3, 6, history.len()] {
        let mut sample = Vec::new();
        for operation in &history[..length] {
            let mut bytes = Vec::new();
            operation.encode(&mut bytes);
            push_piece(&mut sample, &bytes);
        }
        samples.push(sample);
    }
    samples
}

/// Operations that fit one another.
fn history() -> Vec<Operation> {
    let accepted = |progress: Progress, hour, chunk, derived| Operation::Accepted {
        chunk,
        hour,
        due: 3600,
        message: Box::new(message(derived)),
        progress,
        claimable: true,
        watermark: None,
    };
    let expansion = |to: Vec<Destination>| {
        let targets = to.into_iter().map(|to| Target { recipient: 0, owner: None, to }).collect::<Vec<_>>();
        let slice = Slice {
            first: 0,
            count: targets.len() as u32,
            targets: Targets::Here(Arc::new(targets)),
            outcomes: Vec::new(),
            placed: false,
        };
        Expansion { expanded: 1, owners: vec![address("owner")], slices: vec![slice] }
    };
    let local = Destination::Local { account: AccountId(Uuid::nil()), detail: Some("tag".into()) };
    let remote = Destination::Remote { address: address("bob"), shard: 3 };
    let failure = Failure::new("5.1.1", "nobody");
    let lost = Destination::Unreachable { address: None, failure: failure.clone() };
    let derived = Derivation { producer: Uuid::from_u128(9), number: 4, part: 1 };
    let outbound = OutboundRecipient {
        target: 0,
        recipient: Recipient::new(address("bob")),
        state: RemoteState::Pending,
    };
    let place = |number| Place { chunk: 0, number };
    let moved = Item {
        number: 5,
        message: Arc::new(message(Some(derived))),
        due: 9000,
        attempts: 2,
        began: None,
        crashes: 0,
        progress: Progress::Outbound(vec![outbound.clone()]),
    };
    vec![
        accepted(Progress::Ingest(expansion(vec![local.clone(), remote])), 1, 0, None),
        Operation::Settled {
            place: place(1),
            outcomes: vec![(0, Outcome::Delivered)],
            placed: false,
            finished: None,
        },
        Operation::Settled { place: place(1), outcomes: Vec::new(), placed: true, finished: Some(4000) },
        accepted(Progress::Ingest(Expansion::default()), 1, 0, None),
        accepted(Progress::Outbound(vec![outbound.clone()]), 1, 0, Some(derived)),
        Operation::Expanded {
            place: place(4),
            expanded: 1,
            owners: vec![address("list")],
            slice: expansion(vec![lost, local]).slices.pop(),
        },
        Operation::PutOff { place: place(4), due: 5000 },
        Operation::Booted { boot: Uuid::from_u128(3), at: 77 },
        Operation::Began { place: place(4), boot: Uuid::from_u128(3), crashes: 1 },
        Operation::Moved { from: place(5), chunk: 1, hour: 2, item: Box::new(moved) },
        Operation::RemoteSettled {
            place: Place { chunk: 1, number: 5 },
            states: vec![(0, RemoteState::Failed { failure, settled: true })],
            finished: Some(9001),
        },
        accepted(Progress::Outbound(vec![outbound]), 3, 2, Some(Derivation { part: 2, ..derived })),
        Operation::Remote {
            place: Place { chunk: 2, number: 12 },
            changes: vec![(0, Change::Leased { attempt: 1, boot: Uuid::from_u128(3), seconds: 60 })],
            attempts: 1,
            due: None,
            finished: None,
        },
        Operation::Remote {
            place: Place { chunk: 2, number: 12 },
            changes: vec![
                (0, Change::Doubted { attempt: 1, said: None, not_before: 9 }),
                (0, Change::Expired),
            ],
            attempts: 1,
            due: Some(9),
            finished: None,
        },
        Operation::Rerouted { place: Place { chunk: 2, number: 12 }, route: Some("mx.test:25".into()) },
        Operation::Remote {
            place: Place { chunk: 2, number: 12 },
            changes: vec![(0, Change::Told)],
            attempts: 1,
            due: None,
            finished: Some(9001),
        },
        Operation::Window { below: 8 },
        Operation::Watermark { producer: Uuid::from_u128(9), watermark: 5 },
        Operation::Left { place: place(4), at: 9002, departure: Departure::Dropped },
        Operation::Archived { to: 6, address: vec![1, 2], nonce: Uuid::nil() },
        Operation::Forgotten { chunks: vec![1] },
    ]
}

fn address(local: &str) -> Address {
    Address::parse(&format!("{local}@example.test")).unwrap()
}

fn message(derived: Option<Derivation>) -> Message {
    Message {
        queue_id: QueueId(Uuid::from_u128(1)),
        accepted: 3600,
        expires: 100_000,
        body: BlobAddress {
            segment: SegmentId(Uuid::nil()),
            frame: 0,
            offset: 0,
            length: 10,
            size: 10,
            blob_id: BlobId([0; 32]),
            key: KeyId::Queue(1),
            wrapped: postcard::from_bytes(&[0; 40]).unwrap(),
        },
        reference: Nonce([0; 16]),
        sender: Sender {
            reverse_path: ReversePath::NULL,
            body: BodyType::EightBitMime,
            smtputf8: false,
            ret: None,
            envid: None,
            require_tls: false,
        },
        details: Details::Here(MessageDetails {
            recipients: vec![Recipient::new(address("alice"))],
            prefix: b"Received: x\r\n".to_vec(),
        }),
        origin: Origin::default(),
        derived,
    }
}
