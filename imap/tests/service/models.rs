//! Clients that believe what they are told, over random histories: each has to end with what is true.
//!
//! Four kinds: one that only ever asks for UIDs above the last (invariant 3 of the design), one with CONDSTORE, one with
//! QRESYNC, and one that counts message numbers from EXISTS and EXPUNGE alone. They disconnect at random and come back.
//! `POSTRIDER_HISTORIES` sets how many histories are run.

use std::collections::{BTreeMap, BTreeSet};

use crate::world::{Reply, Session, World, plain};

/// A small generator with a fixed seed: the history is the seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

type Flags = BTreeSet<String>;

/// `UID` and `FLAGS` and `MODSEQ` of a FETCH response, and its message number.
struct Fetched {
    number: usize,
    uid: Option<u32>,
    flags: Option<Flags>,
    mod_seq: Option<u64>,
}

fn fetched(line: &str) -> Option<Fetched> {
    let (number, rest) = line.strip_prefix("* ")?.split_once(" FETCH (")?;
    let after = |word: &str| rest.split(word).nth(1);
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    Some(Fetched {
        number: number.parse().unwrap(),
        uid: after("UID ").map(|text| digits(text).parse().unwrap()),
        flags: after("FLAGS (").map(|text| {
            text.split(')')
                .next()
                .unwrap()
                .split(' ')
                .filter(|flag| !flag.is_empty())
                .map(str::to_owned)
                .collect()
        }),
        mod_seq: after("MODSEQ (").map(|text| digits(text).parse().unwrap()),
    })
}

fn numbered(line: &str, word: &str) -> Option<usize> {
    line.strip_prefix("* ")?.strip_suffix(word)?.trim_end().parse().ok()
}

fn code(reply: &Reply, name: &str) -> Option<u64> {
    let line =
        reply.untagged.iter().chain([&reply.tagged]).find(|line| line.contains(&format!("[{name} ")))?;
    line.split(&format!("[{name} ")).nth(1)?.split(']').next()?.parse().ok()
}

/// `1:3,7` as numbers.
fn members(set: &str) -> Vec<u32> {
    set.split(',')
        .flat_map(|range| {
            let (first, last) = range.split_once(':').unwrap_or((range, range));
            first.parse::<u32>().unwrap()..=last.parse::<u32>().unwrap()
        })
        .collect()
}

/// What is in the mailbox, asked anew.
async fn truth(world: &World) -> BTreeMap<u32, Flags> {
    let mut session = world.alice().await;
    session.ok("EXAMINE Play").await;
    let reply = session.ok("UID FETCH 1:* (FLAGS)").await;
    let all = reply.untagged.iter().filter_map(|line| fetched(line));
    all.map(|message| (message.uid.unwrap(), message.flags.unwrap())).collect()
}

/// Syncs by `UID > last` only.
#[derive(Default)]
struct ByUid {
    last: u32,
    known: BTreeSet<u32>,
}

impl ByUid {
    async fn sync(&mut self, world: &World) {
        let mut session = world.selected("Play").await;
        let reply = session.ok(&format!("UID FETCH {}:* (UID)", self.last + 1)).await;
        for message in reply.untagged.iter().filter_map(|line| fetched(line)) {
            let uid = message.uid.unwrap();
            // "*" names the last message even when that is known.
            if uid > self.last {
                self.known.insert(uid);
            }
        }
        self.last = self.known.last().copied().unwrap_or(0).max(self.last);
    }
}

/// Keeps flags by CONDSTORE, and finds what is gone by SEARCH.
#[derive(Default)]
struct Condstore {
    mod_seq: u64,
    known: BTreeMap<u32, Flags>,
}

impl Condstore {
    async fn sync(&mut self, world: &World) {
        let mut session = world.alice().await;
        let reply = session.ok("SELECT Play (CONDSTORE)").await;
        let highest = code(&reply, "HIGHESTMODSEQ").unwrap();
        if highest == self.mod_seq {
            return;
        }
        let reply = session.ok(&format!("UID FETCH 1:* (FLAGS) (CHANGEDSINCE {})", self.mod_seq)).await;
        for message in reply.untagged.iter().filter_map(|line| fetched(line)) {
            assert!(message.mod_seq.unwrap() > self.mod_seq);
            self.known.insert(message.uid.unwrap(), message.flags.unwrap());
        }
        let reply = session.ok("UID SEARCH ALL").await;
        let line = reply.untagged.iter().find(|line| line.starts_with("* SEARCH")).unwrap();
        let there: BTreeSet<u32> = line.split(' ').skip(2).map(|uid| uid.parse().unwrap()).collect();
        self.known.retain(|uid, _| there.contains(uid));
        self.mod_seq = highest;
    }
}

/// Keeps everything by QRESYNC, in a session that may live on.
#[derive(Default)]
struct Qresync {
    session: Option<Session>,
    validity: u64,
    /// Up to where everything is known: set only when expunges could be told too.
    mod_seq: u64,
    seen_mod_seq: u64,
    known: BTreeMap<u32, Flags>,
}

impl Qresync {
    async fn sync(&mut self, world: &World, random: &mut Random) {
        if self.session.is_none() {
            let mut session = world.alice().await;
            session.ok("ENABLE QRESYNC").await;
            let reply = if self.mod_seq == 0 {
                let reply = session.ok("SELECT Play").await;
                let all = session.ok("UID FETCH 1:* (FLAGS)").await;
                self.apply(&all);
                reply
            } else {
                let known = match (random.below(3), self.known.first_key_value(), self.known.last_key_value())
                {
                    (0, Some((first, _)), Some((last, _))) => format!(" {first}:{last}"),
                    _ => String::new(),
                };
                session
                    .ok(&format!("SELECT Play (QRESYNC ({} {}{known}))", self.validity, self.mod_seq))
                    .await
            };
            self.apply(&reply);
            self.validity = code(&reply, "UIDVALIDITY").unwrap();
            self.session = Some(session);
            self.fetch_new().await;
        }
        let mut session = self.session.take().unwrap();
        // Commands in which expunges are held back, and then one in which they are told.
        if random.one_in(2) {
            let reply = session.run("FETCH 1:* (FLAGS)").await;
            self.apply(&reply);
        }
        let reply = session.ok("NOOP").await;
        self.apply(&reply);
        self.session = Some(session);
        self.fetch_new().await;
        self.mod_seq = self.seen_mod_seq;
        if random.one_in(2) {
            self.session = None;
        }
    }

    /// New messages are found by their UIDs.
    async fn fetch_new(&mut self) {
        let mut session = self.session.take().unwrap();
        let from = self.known.last_key_value().map_or(1, |(uid, _)| uid + 1);
        let reply = session.ok(&format!("UID FETCH {from}:* (FLAGS MODSEQ)")).await;
        self.apply(&reply);
        let reply = session.ok("NOOP").await;
        self.apply(&reply);
        self.session = Some(session);
    }

    fn apply(&mut self, reply: &Reply) {
        for line in &reply.untagged {
            let vanished = line.strip_prefix("* VANISHED ");
            if let Some(set) = vanished {
                for uid in members(set.trim_start_matches("(EARLIER) ")) {
                    self.known.remove(&uid);
                }
            } else if let Some(message) = fetched(line) {
                // With QRESYNC every FETCH response that is not asked for has its UID.
                if let (Some(uid), Some(flags)) = (message.uid, message.flags) {
                    self.known.insert(uid, flags);
                }
                self.seen_mod_seq = self.seen_mod_seq.max(message.mod_seq.unwrap_or(0));
            }
        }
        self.seen_mod_seq = self.seen_mod_seq.max(code(reply, "HIGHESTMODSEQ").unwrap_or(0));
    }
}

/// Counts message numbers, as clients of 1996 do.
struct Counting {
    session: Session,
    messages: Vec<(Option<u32>, Option<Flags>)>,
}

impl Counting {
    async fn new(world: &World) -> Self {
        let mut session = world.alice().await;
        let reply = session.ok("SELECT Play").await;
        let mut counting = Self { session, messages: Vec::new() };
        counting.apply(&reply, true);
        counting
    }

    async fn sync(&mut self, random: &mut Random) {
        let (command, may_expunge) = match random.below(6) {
            0 => ("SEARCH ALL", false),
            1 if !self.messages.is_empty() => ("FETCH 1:* (FLAGS)", false),
            2 if !self.messages.is_empty() => ("STORE 1 +FLAGS (counted)", false),
            3 if !self.messages.is_empty() => ("STORE 1 -FLAGS.SILENT (counted)", false),
            4 => ("UID FETCH 1:* (FLAGS)", true),
            _ => ("NOOP", true),
        };
        let before = self.messages.len();
        let reply = self.session.run(command).await;
        if command.contains("SILENT") && reply.tagged.starts_with("OK") {
            // A message that is no longer there keeps its number, and its flags do not matter any more.
            if let Some(flags) = &mut self.messages[0].1 {
                flags.remove("counted");
            }
        }
        self.apply(&reply, may_expunge);
        if may_expunge {
            return;
        }
        assert!(self.messages.len() >= before, "{command} took messages away");
    }

    fn apply(&mut self, reply: &Reply, may_expunge: bool) {
        for line in &reply.untagged {
            if let Some(count) = numbered(line, "EXISTS") {
                assert!(count >= self.messages.len(), "{line}");
                self.messages.resize(count, (None, None));
            } else if let Some(number) = numbered(line, "EXPUNGE") {
                assert!(may_expunge, "{line}");
                self.messages.remove(number - 1);
            } else if let Some(message) = fetched(line) {
                let entry = &mut self.messages[message.number - 1];
                if let Some(uid) = message.uid {
                    assert_eq!(*entry.0.get_or_insert(uid), uid, "{line}");
                }
                if let Some(flags) = message.flags {
                    entry.1 = Some(flags);
                }
            }
        }
    }

    /// Compares what was counted with what the server says now.
    async fn check(&mut self) {
        let reply = self.session.ok("NOOP").await;
        self.apply(&reply, true);
        if self.messages.is_empty() {
            return;
        }
        let reply = self.session.ok("FETCH 1:* (UID FLAGS)").await;
        assert_eq!(reply.untagged.len(), self.messages.len());
        for (line, (uid, flags)) in reply.untagged.iter().zip(&self.messages) {
            let message = fetched(line).unwrap();
            if uid.is_some() {
                assert_eq!(*uid, message.uid, "{line}");
            }
            if flags.is_some() {
                assert_eq!(*flags, message.flags, "{line}");
            }
        }
        self.apply(&reply, true);
    }
}

/// Changes something, as other sessions and deliveries do.
async fn change(writer: &mut Session, random: &mut Random) {
    let flag = ["\\Seen", "\\Flagged", "\\Deleted", "$one", "two"][random.below(5) as usize];
    let first = random.below(30) + 1;
    let last = first + random.below(3);
    match random.below(10) {
        0..=2 => {
            writer.append("Play", if random.one_in(2) { flag } else { "" }, &plain("x", "x")).await;
        }
        3 => {
            writer.ok(&format!("UID STORE {first}:{last} +FLAGS.SILENT ({flag})")).await;
        }
        4 => {
            writer.ok(&format!("UID STORE {first}:{last} -FLAGS.SILENT ({flag})")).await;
        }
        5 => {
            writer.ok(&format!("UID STORE {first}:{last} FLAGS.SILENT ({flag} \\Answered)")).await;
        }
        6 => {
            writer.ok("EXPUNGE").await;
        }
        7 => {
            writer.ok(&format!("UID MOVE {first}:{last} Elsewhere")).await;
        }
        8 => {
            writer.ok(&format!("UID COPY {first}:{last} Play")).await;
        }
        _ => {
            writer.ok(&format!("UID STORE {first} +FLAGS.SILENT (\\Deleted)")).await;
            writer.ok(&format!("UID EXPUNGE {first}:{last}")).await;
        }
    }
}

async fn history(seed: u64) {
    let mut random = Random(seed);
    let world = World::new().await;
    let mut writers = Vec::new();
    for _ in 0..2 {
        let mut writer = world.alice().await;
        writer.run("CREATE Play").await;
        writer.run("CREATE Elsewhere").await;
        writer.ok("SELECT Play").await;
        writers.push(writer);
    }
    let (mut by_uid, mut condstore, mut qresync) =
        (ByUid::default(), Condstore::default(), Qresync::default());
    let mut counting = Counting::new(&world).await;
    for _ in 0..40 {
        let at = random.below(2) as usize;
        change(&mut writers[at], &mut random).await;
        match random.below(8) {
            0 => by_uid.sync(&world).await,
            1 => condstore.sync(&world).await,
            2 | 3 => qresync.sync(&world, &mut random).await,
            4..=6 => counting.sync(&mut random).await,
            _ => counting.check().await,
        }
    }
    by_uid.sync(&world).await;
    condstore.sync(&world).await;
    qresync.sync(&world, &mut random).await;
    counting.check().await;
    let truth = truth(&world).await;
    for uid in truth.keys() {
        assert!(by_uid.known.contains(uid), "UID {uid} was never seen");
    }
    assert_eq!(condstore.known, truth, "CONDSTORE");
    assert_eq!(qresync.known, truth, "QRESYNC");
    let counted: Vec<u32> = counting.messages.iter().filter_map(|(uid, _)| *uid).collect();
    assert_eq!(counted, truth.keys().copied().collect::<Vec<_>>(), "counting");
}

#[tokio::test]
async fn clients_converge() {
    let histories =
        std::env::var("POSTRIDER_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    for seed in 0..histories {
        println!("history {seed}");
        history(seed).await;
    }
}
