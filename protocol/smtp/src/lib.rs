//! smtp-protocol
