//! What is announced (RFC 9051 §6.1.1). Nothing stands here that does not work.

use crate::service::Inner;
use crate::session::Session;

/// Offered to everybody.
const ALWAYS: &str = "IMAP4rev1 LITERAL+ SASL-IR ID ENABLE";
/// Offered after login.
const LOGGED_IN: &str = "IDLE NAMESPACE UNSELECT UIDPLUS MOVE MULTIAPPEND CHILDREN LIST-EXTENDED LIST-STATUS \
    SPECIAL-USE CREATE-SPECIAL-USE STATUS=SIZE ESEARCH SEARCHRES WITHIN SORT SORT=DISPLAY ESORT THREAD=ORDEREDSUBJECT THREAD=REFERENCES THREAD=REFS \
    CONDSTORE QRESYNC PREVIEW PARTIAL MULTISEARCH";
/// Offered where there is a search index. Without one FUZZY is understood and done exactly, which is nothing to offer.
const INDEXED: &str = " SEARCH=FUZZY";

/// The list after login, without the word CAPABILITY.
pub(crate) fn logged_in(imap: &Inner) -> String {
    let indexed = if imap.search.get().is_some() { INDEXED } else { "" };
    format!("{ALWAYS} {LOGGED_IN}{indexed} APPENDLIMIT={}", imap.config.append_bytes_max)
}

impl Session {
    /// The list for the present state, without the word CAPABILITY.
    pub(crate) fn capabilities(&mut self) -> String {
        if self.user.is_some() {
            return logged_in(&self.imap);
        }
        let mut list = String::from(ALWAYS);
        if self.pump.machine().offers_starttls() {
            list.push_str(" STARTTLS");
        }
        let mechanisms = " AUTH=OAUTHBEARER AUTH=XOAUTH2 AUTH=PLAIN";
        list.push_str(if self.may_send_password() { mechanisms } else { " LOGINDISABLED" });
        list
    }

    /// Whether a password may travel on this connection: encrypted, or never leaving the machine.
    pub(crate) fn may_send_password(&mut self) -> bool {
        self.pump.machine().is_tls() || self.pump.peer().remote.ip().is_none_or(|ip| ip.is_loopback())
    }
}
