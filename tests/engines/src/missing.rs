//! What this machine lacks for the engines, found without starting any.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Options, fetch};

/// The tools that are missing for what the options ask for: none when [`crate::Engines::start`] can fetch and start it.
/// What has been fetched before needs no tool to fetch it.
pub fn missing(options: &Options) -> Vec<&'static str> {
    let [cassandra, versitygw, nats] = fetch::present();
    let mut missing = Vec::new();
    if options.cassandra_nodes > 0 {
        if java().is_none() {
            missing.push("a JDK 17 for Cassandra (named by JAVA17, or below /usr/lib/jvm)");
        }
        if !cassandra && !runs("mvn", &["-v"]) {
            missing.push("mvn, which fetches Cassandra");
        }
    }
    if options.s3 && !versitygw && !runs("go", &["version"]) {
        missing.push("go, which fetches versitygw");
    }
    if options.nats && !nats && !runs("python3", &["-m", "pip", "--version"]) {
        missing.push("python3 with pip, which fetches nats-server");
    }
    missing
}

/// The `java` of a JDK 17: Cassandra 5 runs on no newer one. `$JAVA17` names the program or the folder of the JDK.
pub(crate) fn java() -> Option<PathBuf> {
    let named = std::env::var_os("JAVA17").map(PathBuf::from);
    let named = named.into_iter().flat_map(|path| [path.join("bin/java"), path]);
    let debian = ["/usr/lib/jvm/java-17-openjdk-amd64/bin/java".into()];
    let home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    let installed = std::fs::read_dir("/usr/lib/jvm").into_iter().flatten();
    let installed = installed.filter_map(|entry| Some(entry.ok()?.path().join("bin/java")));
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&on_path).map(|folder| folder.join("java")).collect();
    named.chain(debian).chain(home).chain(installed).chain(on_path).find(|java| is_17(java))
}

fn is_17(java: &Path) -> bool {
    java.is_file()
        && Command::new(java)
            .arg("-version")
            .stdin(Stdio::null())
            .output()
            .is_ok_and(|output| String::from_utf8_lossy(&output.stderr).contains("version \"17."))
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
