//! NATS, without JetStream: Postrider sends hints over it and keeps nothing there.

use std::path::Path;

use anyhow::Result;
use testkit::child::Life;

use crate::engine::{Engine, Plan};
use crate::fetch;
use crate::greeting::Greeting;
use crate::loopback::Block;

pub(crate) fn start(block: Block, folder: &Path, life: Life) -> Result<Engine> {
    let address = block.nats();
    Engine::begin(Plan {
        name: "nats".to_owned(),
        address,
        folder: folder.join("nats"),
        life,
        program: fetch::nats()?,
        arguments: ["-a", &address.ip().to_string(), "-p", &address.port().to_string()]
            .map(Into::into)
            .into(),
        environment: Vec::new(),
        greeting: Greeting::Nats,
        peers: Vec::new(),
    })
}
