//! Telling the client what has changed in the selected mailbox.

use imap_protocol::response::select::Permanent;
use imap_protocol::response::{self, fetch, select};
use imap_protocol::sequence::SetWriter;
use storage::{AccountState, MailboxIndex, Marks, MessageRow, Vanished};

use crate::reply::{self, MAILBOX_GONE, Stop};
use crate::session::Session;
use crate::view::News;

/// What may be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expunges {
    /// EXPUNGE and VANISHED may be said.
    Tell,
    /// Message numbers must not shift: FETCH, STORE or SEARCH is being answered (RFC 9051 §7.5.1).
    Hold,
}

impl Session {
    /// Writes what has changed in the selected mailbox since it was last told. Reads nothing when nothing has.
    pub(crate) async fn tell_news(&mut self, expunges: Expunges) -> Result<(), Stop> {
        self.tell_news_but(expunges, |_| Telling::All).await
    }

    /// The same, where `telling` says of each changed message how much the client has to hear.
    pub(crate) async fn tell_news_but(
        &mut self,
        expunges: Expunges,
        telling: impl Fn(&MessageRow) -> Telling,
    ) -> Result<(), Stop> {
        let (Some(user), Some(selected)) = (&self.user, &mut self.selected) else { return Ok(()) };
        let account = user.account.clone();
        let Some(mailbox) = account.state().mailbox(selected.mailbox) else {
            return Err(Stop::Bye(MAILBOX_GONE));
        };
        let may_expunge = expunges == Expunges::Tell;
        if mailbox.highest_modseq <= selected.view.synced()
            && !(may_expunge && selected.view.has_untold_expunges())
        {
            return Ok(());
        }
        // Not from the state at hand: what was expunged longer ago than it remembers has to be fetched.
        let (state, changes) = match account.changes(selected.mailbox, selected.view.synced()).await {
            Ok(changes) => changes,
            Err(error) => {
                // The news can wait; what ends the session still ends it.
                return reply::storage_failure(&error).map(|_| ());
            }
        };
        let id = selected.mailbox;
        let (Some(mailbox), Some(index)) = (state.mailbox(id), state.index(id)) else {
            return Err(Stop::Bye(MAILBOX_GONE));
        };
        let Some(changes) = changes else { return Err(Stop::Bye(MAILBOX_GONE)) };
        let vanished = match changes.vanished {
            Vanished::Known(uids) => uids,
            Vanished::Forgotten => {
                let shown = selected.view.all_uids();
                shown.difference(&index.existing(&shown))
            }
        };
        let news = selected.view.advance(&changes.changed, &vanished, changes.highest_modseq, may_expunge);
        if mailbox.keywords.difference(selected.keywords).has_keywords() {
            selected.keywords = selected.keywords.union(mailbox.keywords);
            let names = keyword_names(&state, selected.keywords);
            let permanent = permanent(selected.read_only, &state);
            let out = self.pump.machine().output();
            select::flags(out, names.iter().copied());
            select::permanent_flags(out, permanent, names);
        }
        self.write_news(&state, index, &news, telling).await
    }

    async fn write_news(
        &mut self,
        state: &AccountState,
        index: &MailboxIndex,
        news: &News,
        telling: impl Fn(&MessageRow) -> Telling,
    ) -> Result<(), Stop> {
        self.write_expunged(news).await?;
        if let Some(exists) = news.exists {
            response::numbered(self.out(), exists, "EXISTS");
        }
        for (number, uid) in &news.changed {
            let Some(row) = index.by_uid(*uid) else { continue };
            let telling = telling(&row);
            let (with_uid, with_mod_seq) = (self.qresync, self.condstore);
            let out = self.pump.machine().output();
            let begin = |out: &mut bytes::BytesMut| {
                fetch::begin(out, *number);
                let mut first = true;
                if with_uid || telling == Telling::AllWithUid || telling == Telling::ModSeqWithUid {
                    fetch::separate(out, &mut first);
                    fetch::uid(out, uid.get());
                }
                first
            };
            match telling {
                Telling::Nothing => continue,
                Telling::ModSeq | Telling::ModSeqWithUid if !with_mod_seq => continue,
                Telling::ModSeq | Telling::ModSeqWithUid => {
                    let mut first = begin(out);
                    fetch::separate(out, &mut first);
                    fetch::mod_seq(out, row.modseq.0);
                }
                Telling::All | Telling::AllWithUid => {
                    let mut first = begin(out);
                    fetch::separate(out, &mut first);
                    write_flags(out, state, row.marks);
                    if with_mod_seq {
                        fetch::separate(out, &mut first);
                        fetch::mod_seq(out, row.modseq.0);
                    }
                }
            }
            fetch::end(out);
            self.throttle().await?;
        }
        Ok(())
    }

    async fn write_expunged(&mut self, news: &News) -> Result<(), Stop> {
        if self.qresync && !news.expunged.is_empty() {
            let mut set = SetWriter::default();
            for (_, uid) in news.expunged.iter().rev() {
                set.push(uid.get());
            }
            select::vanished(self.out(), false, &set.finish());
            return Ok(());
        }
        for (number, _) in &news.expunged {
            response::numbered(self.out(), *number, "EXPUNGE");
            self.throttle().await?;
        }
        Ok(())
    }
}

/// How much the client hears of a message that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Telling {
    /// It knows already.
    Nothing,
    /// It knows the flags, but not their MODSEQ.
    ModSeq,
    /// The same, in answer to a UID command.
    ModSeqWithUid,
    /// Everything.
    All,
    /// Everything, in answer to a UID command.
    AllWithUid,
}

/// Which flags can be changed in a mailbox opened like this.
pub(crate) fn permanent(read_only: bool, state: &AccountState) -> Permanent {
    match (read_only, state.can_add_keyword()) {
        (true, _) => Permanent::Nothing,
        (false, true) => Permanent::Anything,
        (false, false) => Permanent::Existing,
    }
}

/// The names of keywords.
pub(crate) fn keyword_names(state: &AccountState, marks: Marks) -> Vec<&str> {
    let names = state.keywords();
    marks.keywords().filter_map(|number| names.get(number).map(|keyword| keyword.as_str())).collect()
}

/// Writes `FLAGS (…)` of a message.
pub(crate) fn write_flags(out: &mut bytes::BytesMut, state: &AccountState, marks: Marks) {
    if marks.has_keywords() {
        let names = state.keywords();
        let keywords =
            marks.keywords().filter_map(|number| names.get(number).map(|keyword| keyword.as_str()));
        fetch::flags(out, marks.flags(), keywords);
    } else {
        fetch::flags(out, marks.flags(), []);
    }
}
