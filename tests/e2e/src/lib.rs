//! End to end: a started server and clients that nobody here wrote. One scenario per file under `tests/`.
//!
//! They run by `cargo xtask ci --only build,end-to-end`, which names the binary in `POSTRIDER_BIN` and the test mail in
//! `POSTRIDER_CORPUS`.

#![allow(clippy::print_stdout, reason = "what was counted is for people")]

pub mod innocent;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use testkit::dns::Dns;
use testkit::message;
use testkit::server::{Options, Server, is_quiet};
use testkit::smtp::Smtp;

/// A server on a data folder that goes away with it.
#[derive(Debug)]
pub struct Scene {
    /// The running server.
    pub server: Server,
    /// Where scenario files may lie; the server's data is in `data` below it.
    pub folder: tempfile::TempDir,
}

impl Scene {
    /// Starts `postrider dev` on a fresh folder.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// The same with more arguments.
    pub fn start_with(arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut options = Options::new(&folder.path().join("data"));
        options.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Ok(Self { server: Server::start(&options)?, folder })
    }

    /// The same with settings other than the defaults, as a configuration file has them.
    pub fn configured(settings: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("postrider.toml");
        std::fs::write(&file, settings)?;
        let mut options = Options::new(&folder.path().join("data"));
        options.arguments = vec!["--config".to_owned(), file.to_string_lossy().into_owned()];
        Ok(Self { server: Server::start(&options)?, folder })
    }

    /// A file of the scenario.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The log holds no WARN and no ERROR but those that contain one of `expected`.
    pub fn log_is_quiet(&self, expected: &[&str]) -> Result<()> {
        is_quiet(&self.server.log(), expected)
    }
}

/// How to start a server that sends to the exchangers that a name server names, at this port, and that comes back to what
/// was put off within seconds. Its settings lie beside its data.
pub fn sending(data: &Path, dns: &Dns, port: u16) -> Result<Options> {
    let settings = data.with_extension("toml");
    std::fs::write(
        &settings,
        "[smtp_in]\nsubmission_without_tls = true\n\n[queue]\npoll_seconds = 1\n\n\
         [queue.retry]\nseconds_min = 1\nseconds_max = 2\n\n\
         [smtp_out.limits]\nsuspend_seconds_min = 1\nsuspend_seconds_max = 1\n",
    )?;
    let (config, resolver, port) = (settings.to_string_lossy(), dns.address().to_string(), port.to_string());
    let mut options = Options::new(data);
    options.arguments =
        ["--config", &config, "--resolver", &resolver, "--mx-port", &port].map(str::to_owned).to_vec();
    Ok(options)
}

/// Submits a message as alice: the code of the answer.
pub fn submit_as_alice(server: &Server, id: u64, to: &str, bytes: usize) -> Result<u16> {
    let mut smtp = Smtp::hello(server.submission())?;
    smtp.command("AUTH PLAIN AGFsaWNlQGV4YW1wbGUudGVzdABwb3N0cmlkZXI=", 235)?;
    Ok(smtp.send("alice@example.test", &[to], message::numbered(id, bytes).as_bytes())?.code)
}

/// The recipients of a message, in every shard that knows of it, as the admin API tells.
pub fn traced(server: &Server, id: u64) -> Result<Vec<Value>> {
    let text = server.get(&format!("/admin/v1/queue/trace?id={}", message::message_id(id)))?;
    let items: Value = serde_json::from_str(&text)?;
    let items = items.as_array().into_iter().flatten();
    Ok(items.flat_map(|item| item["recipients"].as_array().into_iter().flatten()).cloned().collect())
}

/// Runs a program and returns what it printed; an error with all of it when it fails.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    run_in(Path::new("."), program, arguments)
}

/// The same in a folder, which is also its HOME.
pub fn run_in(folder: &Path, program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    if folder != Path::new(".") {
        command.current_dir(folder).env("HOME", folder);
    }
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("{program} {}: {}\n{text}", arguments.join(" "), output.status);
    }
    Ok(text)
}

/// A script of this package, in whose folder tests run.
pub fn script(name: &str) -> String {
    let path = std::path::absolute(Path::new("scripts").join(name));
    path.expect("there is a current folder").to_string_lossy().into_owned()
}
