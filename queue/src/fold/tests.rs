//! The rules, entry by entry; and messages and items for the tests of others.

use blob::{BlobAddress, BlobId, KeyId, Nonce, SegmentId};
use mail::envelope::{BodyType, Recipient};
use mail::id::{AccountId, QueueId};

use super::*;
use crate::item::{
    Destination, Details, Expansion, Message, MessageDetails, Outcome, Progress, Sender, Slice, Target,
    Targets,
};
use crate::submission::Origin;

/// A message to one account.
pub(crate) fn message(id: u128, accepted: u64) -> Message {
    let recipient = Recipient::new(mail::address::Address::parse("alice@example.test").unwrap());
    Message {
        queue_id: QueueId(Uuid::from_u128(id)),
        accepted,
        expires: accepted + 100_000,
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
            reverse_path: mail::address::ReversePath::NULL,
            body: BodyType::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
            require_tls: false,
        },
        details: Details::Here(MessageDetails { recipients: vec![recipient], prefix: Vec::new() }),
        origin: Origin::default(),
        derived: None,
    }
}

pub(crate) fn expansion() -> Expansion {
    let to = Destination::Local { account: AccountId(Uuid::nil()), detail: None };
    let slice = Slice {
        first: 0,
        count: 1,
        targets: Targets::Here(Arc::new(vec![Target { recipient: 0, owner: None, to }])),
        outcomes: Vec::new(),
        placed: false,
    };
    Expansion { expanded: 1, owners: Vec::new(), slices: vec![slice] }
}

pub(crate) fn item(number: u64) -> Item {
    Item {
        number,
        message: Arc::new(message(u128::from(number), 1_000)),
        due: 0,
        attempts: 0,
        began: None,
        crashes: 0,
        progress: Progress::Ingest(expansion()),
    }
}

/// A shard that was opened again while items below this number could have been under way.
pub(crate) fn state_with_suspects(below: u64) -> ShardState {
    let mut state = ShardState::new(ShardId::ingest(0), Layout { ingest: 1, outbound: 1 });
    state.fold(1, &Operation::Window { below }).unwrap();
    state.fold(2, &Operation::Booted { boot: Uuid::from_u128(1), at: 0 }).unwrap();
    state
}

fn accepted(state: &ShardState, at: u64, derived: Option<(Derivation, u64)>) -> Operation {
    let hour = crate::schedule::hour_of(at);
    let mut message = message(u128::from(state.seq() + 1), at);
    message.derived = derived.map(|(derived, _)| derived);
    Operation::Accepted {
        chunk: state.chunk_for(hour),
        hour,
        due: at,
        message: Box::new(message),
        progress: Progress::Ingest(expansion()),
        claimable: true,
        watermark: derived.map(|(_, watermark)| watermark),
    }
}

struct Shard {
    /// Folds everything and never lets go of anything.
    whole: ShardState,
    /// Takes snapshots, is opened from them, and sheds what is clean.
    paged: ShardState,
    pages: BTreeMap<PageId, Vec<u8>>,
    snapshots: u64,
}

impl Shard {
    fn new() -> Self {
        let state = ShardState::new(ShardId::ingest(0), Layout { ingest: 1, outbound: 1 });
        Self { whole: state.clone(), paged: state, pages: BTreeMap::new(), snapshots: 0 }
    }

    fn fold(&mut self, operation: &Operation) {
        let seq = self.whole.seq() + 1;
        let mut bytes = Vec::new();
        operation.encode(&mut bytes);
        let operation = Operation::decode(&bytes).unwrap();
        self.whole.fold(seq, &operation).unwrap();
        self.paged.fold(seq, &operation).unwrap();
    }

    fn load_all(&mut self, parts: Vec<u32>) {
        for part in parts {
            if let PartPages::Missing(ids) = self.paged.pages_of(&part) {
                let pages = ids.into_iter().map(|id| (id, Bytes::from(self.pages[&id].clone()))).collect();
                self.paged.install(&part, pages).unwrap();
                assert_eq!(self.paged.pages_of(&part), PartPages::Loaded);
            }
        }
    }

    /// A snapshot; every other one with more folded before it becomes current.
    fn snapshot(&mut self, between: &[Operation]) {
        self.load_all(self.paged.parts_dirty());
        self.snapshots += 1;
        let (base_seq, mut number) = (self.snapshots, 0);
        let seq = self.paged.seq();
        let taken = self.paged.snapshot(&mut || {
            number += 1;
            PageId { base_seq, attempt: Uuid::nil(), number }
        });
        for (id, page) in &taken.written {
            self.pages.insert(*id, page.clone());
        }
        self.pages.retain(|id, _| taken.listed.contains(id));
        for operation in between {
            self.fold(operation);
        }
        self.paged.snapshotted(seq, &taken);
        if between.is_empty() {
            assert!(self.paged.parts_dirty().is_empty());
            self.paged =
                ShardState::from_root(LogId::shard(ShardId::ingest(0).log_id()), &taken.root).unwrap();
        }
    }

    fn check(&mut self) {
        self.load_all(self.paged.parts_dirty());
        assert_eq!(self.paged.digest(), self.whole.digest());
        assert_eq!(self.paged.watermark(), self.whole.watermark());
    }
}

#[test]
fn snapshots_and_pages_change_nothing() {
    use rand::{Rng, SeedableRng};
    for seed in 0..12 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut shard = Shard::new();
        let mut now = 1_000_000;
        let mut places: Vec<Place> = Vec::new();
        for step in 0..600 {
            now += random.random_range(0..20);
            let pick =
                |random: &mut rand::rngs::StdRng, places: &Vec<Place>| random.random_range(0..places.len());
            match random.random_range(0..10) {
                0..4 => {
                    let due = now + if random.random_bool(0.3) { random.random_range(0..40_000) } else { 0 };
                    let operation = accepted(&shard.whole, due, None);
                    let Operation::Accepted { chunk, .. } = operation else { unreachable!() };
                    places.push(Place { chunk, number: shard.whole.seq() + 1 });
                    shard.fold(&operation);
                }
                4..7 if !places.is_empty() => {
                    let place = places.swap_remove(pick(&mut random, &places));
                    let outcomes = vec![(0, Outcome::Delivered)];
                    shard.fold(&Operation::Settled { place, outcomes, placed: false, finished: Some(now) });
                }
                7 if !places.is_empty() => {
                    let at = pick(&mut random, &places);
                    let from = places[at];
                    let due = now + random.random_range(0..90_000);
                    let hour = crate::schedule::hour_of(due);
                    let chunk = shard.whole.chunk_for(hour);
                    let item = Item { due, attempts: 1, ..(**shard.whole.item(from).unwrap()).clone() };
                    places[at].chunk = chunk;
                    shard.fold(&Operation::Moved { from, chunk, hour, item: Box::new(item) });
                }
                8 if !places.is_empty() => {
                    let place = places[pick(&mut random, &places)];
                    shard.fold(&Operation::Began { place, boot: Uuid::from_u128(step), crashes: 1 });
                }
                9 => {
                    let operation = accepted(&shard.whole, now, None);
                    let Operation::Accepted { chunk, .. } = operation else { unreachable!() };
                    let between = if random.random() { vec![operation] } else { Vec::new() };
                    if !between.is_empty() {
                        places.push(Place { chunk, number: shard.whole.seq() + 1 });
                    }
                    shard.snapshot(&between);
                    if random.random() {
                        shard.paged.shed(usize::MAX);
                    }
                    let old = crate::sweep::forgettable_chunks(&shard.whole, now, 2_000);
                    if !old.is_empty() {
                        shard.fold(&Operation::Forgotten { chunks: old });
                    }
                }
                _ => {}
            }
            if step % 50 == 0 {
                shard.check();
            }
        }
        shard.check();
        let live: Vec<u64> = places.iter().map(|place| place.number).collect();
        assert_eq!(shard.whole.live(), live.len() as u64);
        assert!(shard.whole.watermark() <= live.iter().copied().min().unwrap_or(u64::MAX));
        for place in &places {
            assert_eq!(shard.whole.item(*place).unwrap().number, place.number);
        }
        assert!(shard.snapshots > 20);
    }
}

#[test]
fn derived_items_come_once() {
    let mut shard = Shard::new();
    let producer = Uuid::from_u128(9);
    let derived = |number, part| Derivation { producer, number, part };
    let check = |shard: &Shard, derived: Derivation, expected: Seen| {
        assert_eq!(shard.whole.seen(&derived), expected, "{derived:?}");
    };
    check(&shard, derived(5, 0), Seen::New);
    let operation = accepted(&shard.whole, 4_000, Some((derived(5, 0), 3)));
    shard.fold(&operation);
    check(&shard, derived(5, 0), Seen::Already);
    check(&shard, derived(5, 1), Seen::New);
    check(&shard, derived(2, 0), Seen::Below);
    shard.snapshot(&[]);
    shard.check();
    shard.fold(&Operation::Watermark { producer, watermark: 6 });
    check(&shard, derived(5, 0), Seen::Below);
    check(&shard, derived(6, 0), Seen::New);
    assert_eq!(shard.whole.remembered(), 0);
    // An older watermark that comes late takes nothing back.
    shard.fold(&Operation::Watermark { producer, watermark: 4 });
    check(&shard, derived(5, 0), Seen::Below);
}

#[test]
fn the_watermark_is_below_all_that_lives() {
    let mut shard = Shard::new();
    assert_eq!(shard.whole.watermark(), 1);
    let operations = [accepted(&shard.whole, 4_000, None)];
    shard.fold(&operations[0]);
    assert_eq!(shard.whole.watermark(), 1);
    let place = Place { chunk: 0, number: 1 };
    shard.fold(&Operation::Settled { place, outcomes: Vec::new(), placed: true, finished: Some(5_000) });
    assert_eq!(shard.whole.watermark(), 3);
    assert_eq!(shard.whole.totals(), (1, 1));
}

#[test]
fn what_does_not_fit_stops_the_fold() {
    let check = |operation: Operation| {
        let mut state = ShardState::new(ShardId::ingest(0), Layout { ingest: 1, outbound: 1 });
        let first = accepted(&state, 4_000, None);
        state.fold(1, &first).unwrap();
        assert!(state.fold(2, &operation).is_err(), "{operation:?}");
    };
    let place = Place { chunk: 0, number: 1 };
    let nobody = Place { chunk: 0, number: 9 };
    let nowhere = Place { chunk: 4, number: 1 };
    check(Operation::PutOff { place: nobody, due: 1 });
    check(Operation::PutOff { place: nowhere, due: 1 });
    check(Operation::Forgotten { chunks: vec![0] });
    check(Operation::Settled { place, outcomes: Vec::new(), placed: false, finished: Some(1) });
    check(Operation::RemoteSettled { place, states: Vec::new(), finished: None });
    check(Operation::Expanded { place, expanded: 2, owners: Vec::new(), slice: None });
}
