//! imap-protocol
