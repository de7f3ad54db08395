//! What a process does. One process can do all of it, or a part.

use serde::{Deserialize, Serialize};

/// A part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// Takes mail: SMTP, submission, LMTP.
    SmtpIn,
    /// Brings accepted mail to its mailboxes.
    Delivery,
    /// Sends mail to other hosts.
    SmtpOut,
    /// Lets clients read.
    Imap,
    /// Lets programs and web interfaces read, over HTTPS.
    WebmailApi,
}

impl Role {
    /// All of it.
    pub(crate) const ALL: [Self; 5] =
        [Self::SmtpIn, Self::Delivery, Self::SmtpOut, Self::Imap, Self::WebmailApi];

    /// Its name, as the configuration has it and as nodes say it of themselves.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SmtpIn => "smtp-in",
            Self::Delivery => "delivery",
            Self::SmtpOut => "smtp-out",
            Self::Imap => "imap",
            Self::WebmailApi => "webmail-api",
        }
    }
}
