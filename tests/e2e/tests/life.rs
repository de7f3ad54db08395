//! What a test starts ends with it, also where nothing is dropped: a campaign can be ended by a signal.

use anyhow::{Context, Result};
use testkit::child;
use testkit::server::{Options, Server};

const FOLDER: &str = "POSTRIDER_LIFE_FOLDER";

#[test]
fn a_server_ends_with_a_process_that_is_killed() -> Result<()> {
    // Ours, since the one that is killed leaves what it made.
    let folder = tempfile::tempdir()?;
    child::ends_with_its_starter("uses_a_server_until_it_is_killed", &[(FOLDER, folder.path())])
}

#[test]
#[ignore = "the other half of a_server_ends_with_a_process_that_is_killed"]
fn uses_a_server_until_it_is_killed() -> Result<()> {
    let folder = std::env::var_os(FOLDER).context(FOLDER)?;
    // Started in a thread that ends, which must not end the server.
    let start = move || Server::start(&Options::new(&std::path::Path::new(&folder).join("data")));
    let server = std::thread::spawn(start).join().expect("starting does not panic")?;
    server.metrics()?;
    child::wait_to_be_killed(server.pid())
}
