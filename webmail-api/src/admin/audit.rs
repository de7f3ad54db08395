//! What is written down about administrative acts.

use std::io;

use async_trait::async_trait;

use super::caller::Caller;

/// An administrative act.
#[derive(Clone, Debug)]
pub struct Act<'a> {
    /// Tells the two records of one act from those of others.
    pub number: u64,
    /// Who does it.
    pub caller: &'a Caller,
    /// The HTTP method.
    pub method: &'a str,
    /// The path, with what is acted on.
    pub path: &'a str,
    /// What was acted on where the path does not say it.
    pub object: Option<&'a str>,
    /// The HTTP status; `None`: it is about to be done.
    pub status: Option<u16>,
}

/// Where acts are written down.
#[async_trait]
pub trait Audit: Send + Sync + 'static {
    /// Writes an act down; durable when it returns.
    async fn act(&self, act: &Act<'_>) -> io::Result<()>;
}
