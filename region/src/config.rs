//! What an operator says of the other regions.

use std::path::PathBuf;

use mail::region::Region;
use serde::{Deserialize, Serialize};

/// Another region: where its nodes are asked about what is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbour {
    /// Its name, as it calls itself in `regions.name`.
    pub name: Region,
    /// Listeners of kind `region` of its nodes, as `host:port`. They are taken in turn; one that does not answer is
    /// passed by.
    pub nodes: Vec<String>,
    /// The name that their certificates are for.
    pub server_name: String,
    /// Certificates (PEM) that theirs must be signed by, or be.
    pub ca_file: PathBuf,
}
