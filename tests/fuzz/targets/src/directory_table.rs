//! The directory's tables: their stored forms, and what their logs fold into.

use bytes::Bytes;
use directory::entry::{AliasEntry, Amendment, DomainEntry, DomainSettings, Entry, ListEntry};
use directory::look::{Domains, Names};
use directory::table::{Operation, Table, TableState};
use engine::{LogId, PageId, PartPages, State};
use uuid::Uuid;

use crate::input::{Input, push_piece};

/// Byte 1: which table and which value; then its bytes, for operations in pieces.
pub fn run(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    if kind & 1 == 0 { table::<Names>(kind, bytes) } else { table::<Domains>(kind, bytes) }
}

fn table<T: Table + PartialEq>(kind: u8, bytes: &[u8]) {
    match kind >> 1 & 3 {
        0 => fold::<T>(bytes),
        1 => {
            let Ok(state) = TableState::<T>::from_root(log(), bytes) else { return };
            let _ = state.weight();
            let taken = state.snapshot(&mut numbered());
            let again =
                TableState::<T>::from_root(log(), &taken.root).expect("a root that was written is read");
            assert_eq!(again.digest(), state.digest());
        }
        _ => {
            let Ok(operation) = TableState::<T>::decode_operation(bytes) else { return };
            let mut again = Vec::new();
            TableState::<T>::encode_operation(&operation, &mut again);
            assert_eq!(TableState::<T>::decode_operation(&again), Ok(operation));
        }
    }
}

/// What was folded can be stored and read again, and a page that is not what was written is refused or read.
fn fold<T: Table>(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut state = TableState::<T>::new(log(), T::Settings::default());
    let mut page: &[u8] = &[];
    let mut seq = 0;
    while !input.is_empty() {
        let piece = input.piece();
        let Ok(operation) = TableState::<T>::decode_operation(piece) else {
            page = piece;
            continue;
        };
        let mut next = state.clone();
        seq += 1;
        if next.fold(seq, &operation).is_ok() {
            state = next;
        }
    }
    let _ = state.weight();
    let taken = state.snapshot(&mut numbered());
    let again = TableState::<T>::from_root(log(), &taken.root).expect("a root that was written is read");
    assert_eq!(again.digest(), state.digest());
    let part = String::new();
    if let PartPages::Missing(ids) = again.pages_of(&part) {
        let mut broken = again.clone();
        if broken.install(&part, vec![(ids[0], Bytes::copy_from_slice(page))]).is_ok() {
            let _ = (broken.weight(), broken.dirty_bytes());
        }
        let written = taken.written.iter().find(|(id, _)| *id == ids[0]).expect("the page was written");
        let mut whole = again;
        whole
            .install(&part, vec![(ids[0], Bytes::from(written.1.clone()))])
            .expect("what was written is read");
        assert_eq!(whole.digest(), state.digest());
        assert_eq!(whole.count(), state.count());
    }
}

fn log() -> LogId {
    LogId::domain(Uuid::from_u128(4))
}

fn numbered() -> impl FnMut() -> PageId {
    let mut number = 0;
    move || {
        number += 1;
        PageId { base_seq: 1, attempt: Uuid::nil(), number }
    }
}

/// Histories of both tables, and their operations, roots and pages.
pub fn samples() -> Vec<Vec<u8>> {
    let list = |members: &[&str]| {
        Entry::List(ListEntry {
            name: "All".into(),
            owner: "root@x.test".into(),
            members: members.iter().map(|member| (*member).to_owned()).collect(),
            created: 5,
        })
    };
    let alias = Entry::Alias(AliasEntry {
        name: "Info".into(),
        targets: vec!["amy@x.test".into()],
        send_as: true,
        created: 6,
    });
    let mut names = Recorder::<Names>::new(0);
    names.fold(Operation::Settings(DomainSettings {
        catch_all: Some("a@x.test".into()),
        ..DomainSettings::default()
    }));
    names.fold(names.state.put("all", list(&["a@x.test", "c@x.test"])));
    names.fold(names.state.put("info", alias));
    let members = Amendment::Members { add: vec!["b@x.test".into()], remove: vec!["a@x.test".into()] };
    names.fold(names.state.amend("all", members).expect("the members fit"));
    names.fold(names.state.remove("info").expect("it is there"));
    names.fold(TableState::<Names>::archived_operation(3, Bytes::from_static(b"here"), Uuid::nil()));
    let mut domains = Recorder::<Domains>::new(1);
    domains.fold(domains.state.put("x.test", DomainEntry::Own { log: Uuid::from_u128(8), created: 7 }));
    domains.fold(domains.state.put("y.test", DomainEntry::AliasOf { domain: "x.test".into(), created: 8 }));
    [names.samples(), domains.samples()].concat()
}

struct Recorder<T: Table> {
    table: u8,
    state: TableState<T>,
    operations: Vec<Vec<u8>>,
}

impl<T: Table> Recorder<T> {
    fn new(table: u8) -> Self {
        Self { table, state: TableState::new(log(), T::Settings::default()), operations: Vec::new() }
    }

    fn fold(&mut self, operation: Operation<T>) {
        self.state.fold(self.operations.len() as u64 + 1, &operation).expect("the history is right");
        let mut bytes = Vec::new();
        TableState::<T>::encode_operation(&operation, &mut bytes);
        self.operations.push(bytes);
    }

    fn samples(self) -> Vec<Vec<u8>> {
        let taken = self.state.snapshot(&mut numbered());
        let mut history = vec![self.table];
        let mut samples = Vec::new();
        for operation in &self.operations {
            push_piece(&mut history, operation);
            samples.push([&[self.table | 4], &operation[..]].concat());
        }
        for (_, page) in &taken.written {
            push_piece(&mut history, page);
        }
        samples.push(history);
        samples.push([&[self.table | 2], &taken.root[..]].concat());
        samples
    }
}
