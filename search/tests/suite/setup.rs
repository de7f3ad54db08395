//! An installation in memory with an index on disk; mail in many scripts; and looking without an index.

#![allow(unreachable_pub, clippy::format_push_string, reason = "helpers of tests")]

use std::sync::Arc;

use blob::keys::KeyEncryptionKey;
use blob::memory::MemoryBlobs;
use blob::{BlobStore, KeyRing};
use bytes::Bytes;
use engine::LogOptions;
use engine::memory::MemoryEngine;
use futures_util::TryStreamExt;
use mail::flag::FlagSet;
use mail::fold::fold;
use mail::header::Fields;
use mail::header::decode::decode_header_text;
use mail::id::{AccountId, EmailId, MailboxId};
use mail::mime::{Kind, Part, TextDecoder};
use mail::uid::UidSet;
use search::config::TextLimits;
use search::{Candidates, Config, Needle, Place, Search};
use storage::{Account, AccountSettings, AppendRequest, EmailRecord, Principal, Storage, Target};
use tempfile::TempDir;
use uuid::Uuid;

pub struct Installation {
    pub storage: Storage,
    pub dir: TempDir,
    pub config: Config,
}

impl Installation {
    pub async fn new() -> Self {
        Self::with(storage::Config::default(), false).await
    }

    /// `eventful`: what happens seldom happens often.
    pub async fn with(config: storage::Config, eventful: bool) -> Self {
        let engine = MemoryEngine::new().engine();
        let mut options = LogOptions::default();
        if eventful {
            options.snapshot_entries_min = 2;
            options.snapshot_bytes_min = 200;
            options.snapshot_entries_max = 6;
        }
        let blob_config = blob::Config { key_cache_seconds: 3600, ..blob::Config::default() };
        let keys = KeyRing::new(KeyEncryptionKey::from_secret(&[7; 32]), engine.rows.clone(), &blob_config);
        let blobs = MemoryBlobs::new();
        let blobs = BlobStore::new(Arc::new(blobs), engine.rows.clone(), keys, blob_config).await.unwrap();
        let storage = Storage::new(engine, options, None, blobs, config);
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            dir: dir.path().join("search"),
            shards: 2,
            commit_seconds: 0,
            text: TextLimits::default(),
            ..Config::default()
        };
        Self { storage, dir, config }
    }

    pub async fn account(&self, number: u128) -> Account {
        let id = AccountId(Uuid::from_u128(number));
        self.storage.create_account(id, AccountSettings::default()).await.unwrap();
        self.storage.account(&Principal::Owner(id), id).await.unwrap()
    }

    pub async fn search(&self) -> Search {
        Search::open(self.storage.clone(), self.config.clone()).await.unwrap()
    }
}

/// Lets the search work while `act` runs.
pub async fn while_following<R>(search: &Search, act: impl Future<Output = R>) -> R {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let search = search.clone();
        async move {
            search
                .run(async {
                    let _ = stopped.await;
                })
                .await;
        }
    });
    let answer = act.await;
    let _ = stop.send(());
    running.await.unwrap();
    answer
}

/// Waits until all of an account is in the index.
pub async fn caught_up(search: &Search, account: &Account) {
    for _ in 0..2_000 {
        search.touch(account.id());
        let standing = search.standing(account).await.unwrap();
        if standing.mark.indexed == standing.last {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the account was not followed: {:?}", search.standing(account).await);
}

pub async fn follow(search: &Search, account: &Account) {
    while_following(search, caught_up(search, account)).await;
}

pub fn inbox(account: &Account) -> MailboxId {
    account.state().mailbox_by_name("INBOX").unwrap().id
}

pub async fn append(account: &Account, message: &[u8]) {
    let mut writer = account.body_writer();
    for piece in message.chunks(700) {
        writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    let body = writer.finish().await.unwrap();
    let target = Target::Mailbox(inbox(account));
    let request = AppendRequest { target, body, flags: FlagSet::new(), internal_date: None };
    account.append_many(vec![request]).await.unwrap();
}

/// Takes messages out of INBOX by position.
pub async fn remove(account: &Account, positions: &[usize]) -> Vec<EmailId> {
    let state = account.mailbox(inbox(account)).await.unwrap();
    let index = state.index(inbox(account)).unwrap();
    let rows: Vec<_> = positions.iter().filter_map(|at| index.get(*at)).collect();
    let uids: UidSet = rows.iter().map(|row| row.uid).collect();
    account.remove(inbox(account), uids).await.unwrap();
    rows.iter().map(|row| row.email).collect()
}

pub async fn emails(account: &Account) -> Vec<EmailId> {
    account.emails_present().await.unwrap().unwrap()
}

/// All texts of a message that IMAP's SEARCH looks into, folded.
pub struct Looked {
    pub email: EmailId,
    /// Name and value of fields of the message.
    fields: Vec<(String, String)>,
    /// Fields of parts.
    part_fields: Vec<(String, String)>,
    /// Text parts, and names and values of fields of messages within.
    body: Vec<String>,
}

impl Looked {
    pub async fn at(account: &Account, record: &EmailRecord) -> Self {
        let body = account.body(record).await.unwrap();
        let pieces: Vec<Bytes> = body.range(0..u64::MAX).try_collect().await.unwrap();
        let bytes = pieces.concat();
        let mut looked =
            Self { email: record.id, fields: Vec::new(), part_fields: Vec::new(), body: Vec::new() };
        looked.fields = fields(&bytes[..record.header_len as usize]);
        let structure = record.structure().unwrap();
        looked.part(&bytes, &structure, true);
        looked
    }

    fn part(&mut self, bytes: &[u8], part: &Part, is_root: bool) {
        let of = |range: &std::ops::Range<u64>| &bytes[range.start as usize..range.end as usize];
        if !is_root {
            self.part_fields.extend(fields(of(&part.header)));
        }
        match &part.kind {
            Kind::Multipart(parts) => {
                for part in parts {
                    self.part(bytes, part, false);
                }
            }
            Kind::Message(embedded) => {
                let fields = fields(of(&embedded.part.header));
                self.body.extend(fields.into_iter().flat_map(|(name, value)| [name, value]));
                self.part(bytes, &embedded.part, true);
            }
            Kind::Leaf if part.is_text() => {
                let mut decoder = TextDecoder::new(part);
                let mut text = decoder.push(of(&part.body)).to_owned();
                text.push_str(decoder.finish());
                self.body.push(fold(&text));
            }
            Kind::Leaf => {}
        }
    }

    pub fn holds(&self, needle: &Needle) -> bool {
        let text = fold(&needle.text);
        let in_fields = |fields: &[(String, String)]| {
            fields.iter().any(|(name, value)| name.contains(&text) || value.contains(&text))
        };
        let in_body = || text.is_empty() || self.body.iter().any(|part| part.contains(&text));
        match &needle.place {
            Place::Anywhere => in_body() || in_fields(&self.fields) || in_fields(&self.part_fields),
            Place::Body => in_body(),
            Place::Field(wanted) => {
                let wanted = fold(wanted);
                self.fields.iter().any(|(name, value)| *name == wanted && value.contains(&text))
            }
        }
    }

    /// Some text of the message, not folded again.
    pub fn texts(&self) -> Vec<&str> {
        let fields = self.fields.iter().chain(&self.part_fields).map(|(_, value)| &**value);
        fields.chain(self.body.iter().map(|text| &**text)).filter(|text| !text.is_empty()).collect()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| &**value)
    }
}

fn fields(header: &[u8]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut take = |name: &[u8], value: &[u8]| {
        found.push((fold(&String::from_utf8_lossy(name)), fold(&decode_header_text(value))));
    };
    let mut fields = Fields::default();
    fields.push(header, &mut take);
    fields.finish(&mut take);
    found
}

pub async fn look_at_all(account: &Account) -> Vec<Looked> {
    let ids = emails(account).await;
    let mut all = Vec::new();
    for record in account.emails(&ids).await.unwrap().into_iter().flatten() {
        all.push(Looked::at(account, &record).await);
    }
    all
}

/// What a needle is found in: by looking at candidates, and by looking at everything. And how many were looked at.
pub fn compare(
    all: &[Looked],
    candidates: &Candidates,
    needle: &Needle,
) -> (Vec<EmailId>, Vec<EmailId>, usize) {
    let brute = all.iter().filter(|looked| looked.holds(needle)).map(|looked| looked.email).collect();
    let mut looked_at = 0;
    let found = all
        .iter()
        .filter(|looked| candidates.may_hold(looked.email))
        .inspect(|_| looked_at += 1)
        .filter(|looked| looked.holds(needle))
        .map(|looked| looked.email)
        .collect();
    (brute, found, looked_at)
}

/// Numbers that are the same in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound.max(1)
    }

    pub fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }
}

const WORDS: [&[&str]; 8] = [
    &[
        "the",
        "beautiful",
        "world",
        "report",
        "Quarterly",
        "invoice",
        "meeting",
        "Don't",
        "e-mail",
        "2026",
        "agenda",
    ],
    &["Grüße", "Straße", "schöner", "Käse", "Übermut", "Rechnung", "für", "ÄRGER"],
    &["отчёт", "Привет", "мир", "счёт", "ВСТРЕЧА", "йод"],
    &["日本語", "会議", "報告書", "東京", "お知らせ", "カタカナ", "明日"],
    &["한국어", "회의", "보고서", "서울", "안녕하세요"],
    &["中文", "报告", "会议", "北京", "发票"],
    &["ภาษาไทย", "รายงาน", "ประชุม", "กรุงเทพ", "ที่"],
    &["Ωμέγα", "ΣΊΣΥΦΟΣ", "שלום", "مرحبا", "हिन्दी", "ﬁne", "naïve", "İstanbul"],
];

pub fn sentence(random: &mut Random) -> String {
    let words = WORDS[random.below(WORDS.len())];
    let count = 2 + random.below(10);
    let mut out = String::new();
    for at in 0..count {
        let mixed = WORDS[random.below(WORDS.len())];
        let words = if random.below(8) == 0 { mixed } else { words };
        if at > 0 {
            out.push_str(random.pick(&[" ", " ", ", ", "", ". "]));
        }
        out.push_str(random.pick(words));
    }
    out
}

fn encoded_word(text: &str) -> String {
    let mut out = String::new();
    for piece in text.chars().collect::<Vec<_>>().chunks(10) {
        if !out.is_empty() {
            out.push_str("\r\n ");
        }
        out.push_str("=?utf-8?q?");
        for byte in piece.iter().collect::<String>().bytes() {
            out.push_str(&format!("={byte:02X}"));
        }
        out.push_str("?=");
    }
    out
}

fn quoted_printable(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        if at % 20 == 19 {
            out.push_str("=\r\n");
        }
        out.push_str(&format!("={byte:02X}"));
    }
    out
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for (at, group) in bytes.chunks(3).enumerate() {
        if at % 19 == 18 {
            out.push_str("\r\n");
        }
        let bits =
            group.iter().enumerate().fold(0_u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        for digit in 0..4 {
            let digit =
                if digit <= group.len() { DIGITS[(bits >> (18 - 6 * digit)) as usize & 63] } else { b'=' };
            out.push(char::from(digit));
        }
    }
    out
}

/// A message of one of many forms.
pub fn message(random: &mut Random, number: usize) -> Vec<u8> {
    let subject = sentence(random);
    let subject = if random.below(3) == 0 { subject } else { encoded_word(&subject) };
    let names = ["Ann Archer", "=?utf-8?q?J=C3=B6rg_M=C3=BCller?=", "山田", "\"B, Bob\""];
    let mut out = format!(
        "From: {} <ann{}@example.test>\r\nTo: {} <bob@xn--ls8h.test>, carol{}@example.org\r\nSubject: {subject}\r\n\
         Message-ID: <{number}@example.test>\r\nX-Mailer: {}\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n",
        random.pick(&names),
        random.below(5),
        random.pick(&names),
        random.below(5),
        random.pick(&["Pine", "mutt 2", "Outlook"]),
    );
    if random.below(3) == 0 {
        out.push_str("Cc: dave@example.net\r\n");
    }
    let lines: Vec<String> = (0..=random.below(6)).map(|_| sentence(random)).collect();
    let text = lines.join("\r\n");
    out.push_str("MIME-Version: 1.0\r\n");
    match random.below(6) {
        0 => out.push_str(&format!("Content-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n")),
        1 => out.push_str(&format!(
            "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n{}\r\n",
            quoted_printable(text.as_bytes())
        )),
        2 => out.push_str(&format!(
            "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n",
            base64(format!("<html><body><p>{}</p>beau<b>ti</b>ful</body></html>", lines.join("<br>")).as_bytes())
        )),
        3 => {
            out.push_str(&format!(
                "Content-Type: text/plain; charset=koi8-r\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n{}\r\n",
                quoted_printable(&koi8(&text))
            ));
        }
        4 => out.push_str(&format!(
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n\
             --b\r\nContent-Type: application/pdf; name=\"{number} scan.pdf\"\r\n\
             Content-Disposition: attachment; filename=\"{number} scan.pdf\"\r\n\r\nbinary report\r\n--b--\r\n"
        )),
        _ => out.push_str(&format!(
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nsee below\r\n\
             --b\r\nContent-Type: message/rfc822\r\n\r\nFrom: Eve <eve@inner.test>\r\nSubject: {}\r\n\
             MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n--b--\r\n",
            encoded_word(&sentence(random))
        )),
    }
    out.into_bytes()
}

/// KOI8-R, as far as it goes.
fn koi8(text: &str) -> Vec<u8> {
    const LOWER: &str = "юабцдефгхийклмнопярстужвьызшэщчъ";
    let lower: Vec<char> = LOWER.chars().collect();
    let byte = |character: char| -> u8 {
        if character.is_ascii() {
            return character as u8;
        }
        let one = character.to_lowercase().next().unwrap();
        match lower.iter().position(|known| *known == one) {
            Some(at) if character == one => 0xc0 + at as u8,
            Some(at) => 0xe0 + at as u8,
            None => b'?',
        }
    };
    text.chars().map(byte).collect()
}

/// Something to look for.
pub fn needle(random: &mut Random, all: &[Looked]) -> Needle {
    let looked = &all[random.below(all.len())];
    let named = ["Subject", "From", "To", "Cc", "X-Mailer", "Message-ID", "Bcc"];
    let kind = random.below(10);
    let place = match kind {
        0..4 => Place::Anywhere,
        4..7 => Place::Body,
        _ => Place::Field(random.pick(&named).to_owned()),
    };
    let source = match &place {
        Place::Field(name) => looked.field(name).unwrap_or("ann").to_owned(),
        _ => {
            let texts = looked.texts();
            texts[random.below(texts.len())].to_owned()
        }
    };
    let characters: Vec<char> = source.chars().collect();
    let from = random.below(characters.len());
    let longest = if random.below(3) == 0 { 30 } else { 6 };
    let length = 1 + random.below(longest);
    let mut text: String = characters.iter().skip(from).take(length).collect();
    match random.below(6) {
        0 => text = text.to_uppercase(),
        1 if random.below(3) == 0 => text.push('q'),
        2 if random.below(6) == 0 => text.clear(),
        _ => {}
    }
    Needle { place, text }
}
