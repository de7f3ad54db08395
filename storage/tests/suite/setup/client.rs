//! A client that synchronises a mailbox as mail clients do, with a connection that may break at any point.

use std::collections::BTreeMap;

use mail::id::{EmailId, MailboxId, ModSeq, Uid, UidValidity};
use storage::{Account, Marks, MessageRow, StorageError, Vanished};

/// Whether a deadline has passed, which is no trouble where reads and writes take long.
pub fn is_late(error: &StorageError) -> bool {
    matches!(error, StorageError::Unavailable(why) if why.contains("deadline"))
}

/// How a client finds out what is new.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// Messages above the highest UID seen. Flags of older ones are not followed.
    UidAboveLast,
    /// CHANGEDSINCE (RFC 7162 §3.1), and a list of all UIDs for what has gone.
    CondStore,
    /// QRESYNC (RFC 7162 §3.2): changes and VANISHED.
    QResync,
}

#[derive(Clone, Debug)]
pub struct Client {
    pub method: Method,
    validity: Option<UidValidity>,
    known: BTreeMap<Uid, (EmailId, Marks)>,
    last_uid: u32,
    modseq: ModSeq,
    /// How often it was given the full set.
    pub full_sets: u32,
}

impl Client {
    pub fn new(method: Method) -> Self {
        let modseq = ModSeq(0);
        Self { method, validity: None, known: BTreeMap::new(), last_uid: 0, modseq, full_sets: 0 }
    }

    /// Selects the mailbox and catches up. Of what the server says, the first `cut` responses arrive.
    pub async fn sync(&mut self, account: &Account, mailbox: MailboxId, cut: usize) {
        // A server that is late is a connection that broke before anything came.
        match account.refresh().await {
            Err(error) if is_late(&error) => return,
            refreshed => drop(refreshed.unwrap()),
        }
        let (state, changes) = match account.changes(mailbox, self.modseq).await {
            Err(error) if is_late(&error) => return,
            answer => answer.unwrap(),
        };
        let (shown, changes) = (state.mailbox(mailbox).unwrap(), changes.unwrap());
        if self.validity.is_some_and(|validity| validity != shown.uid_validity) {
            *self = Self::new(self.method);
        }
        self.validity = Some(shown.uid_validity);
        let index = state.index(mailbox).unwrap();
        assert!(shown.highest_modseq >= self.modseq, "MODSEQ never sinks for who looks at the head");
        let mut left = cut;
        let mut arrives = || {
            let arrives = left > 0;
            left = left.saturating_sub(1);
            arrives
        };
        let news = |row: MessageRow| (row.uid, (row.email, row.marks.visible()));
        match self.method {
            Method::UidAboveLast => {
                let last = self.last_uid;
                for row in index.iter().filter(|row| row.uid.get() > last) {
                    if !arrives() {
                        return;
                    }
                    self.last_uid = row.uid.get();
                    self.known.extend([news(row)]);
                }
            }
            Method::CondStore => {
                for row in index.select(&changes.changed) {
                    if !arrives() {
                        return;
                    }
                    self.known.extend([news(row)]);
                }
                if !arrives() {
                    return;
                }
                self.known.retain(|uid, _| index.find(*uid).is_ok());
                self.modseq = shown.highest_modseq;
            }
            Method::QResync => {
                if !arrives() {
                    return;
                }
                match &changes.vanished {
                    Vanished::Known(gone) => self.known.retain(|uid, _| !gone.contains(*uid)),
                    Vanished::Forgotten => {
                        self.full_sets += 1;
                        self.known.retain(|uid, _| index.find(*uid).is_ok());
                    }
                }
                for row in index.select(&changes.changed) {
                    if !arrives() {
                        return;
                    }
                    self.known.extend([news(row)]);
                }
                if arrives() {
                    self.modseq = shown.highest_modseq;
                }
            }
        }
    }

    /// Compares what it knows with what is there.
    pub async fn check(&self, account: &Account, mailbox: MailboxId) -> Result<(), String> {
        let state = account.mailbox(mailbox).await.unwrap();
        let index = state.index(mailbox).unwrap();
        let there: BTreeMap<_, _> =
            index.iter().map(|row| (row.uid, (row.email, row.marks.visible()))).collect();
        if self.method != Method::UidAboveLast {
            return if self.known == there { Ok(()) } else { Err(format!("{:?} and {there:?}", self.known)) };
        }
        // This one does not notice what has gone or changed; but it has seen all that is there, as what it is.
        let missed =
            there.iter().find(|(uid, (email, _))| self.known.get(*uid).is_none_or(|known| known.0 != *email));
        missed.map_or(Ok(()), |(uid, _)| Err(format!("UID {uid} was never seen or is another message")))
    }
}
