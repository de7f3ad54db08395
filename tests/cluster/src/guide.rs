//! The steps of `docs/guide/cluster.md`, executed as they stand.
//!
//! A step is a block of shell behind a mark, `<!-- step: NAME -->`. What people are to type and nobody executes here says so in the
//! same place, `<!-- not executed: WHY -->`; a block of shell that says neither is a fault of the guide.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use engines::{Identity, Life};

/// The guide, as it was when this was compiled.
pub const GUIDE: &str = include_str!("../../../docs/guide/cluster.md");

/// A block that is executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What its mark calls it.
    pub name: String,
    /// What stands between the fences.
    pub script: String,
}

/// What a mark says of the block behind it.
enum Mark {
    Step(String),
    NotExecuted,
}

/// The steps of a guide, in its order. An error for a block of shell without a mark, a mark without a block of shell, a name that is
/// there twice, and a block that does not end.
pub fn steps(guide: &str) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let mut marked = None;
    let mut lines = guide.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let number = index + 1;
        let fence = line.trim_start().strip_prefix("```");
        let is_shell = fence.is_some_and(|language| SHELLS.contains(&language.trim()));
        if let Some(mark) = marked.take() {
            ensure!(is_shell, "line {number}: no block of shell follows the mark");
            if let Mark::Step(name) = &mark {
                ensure!(steps.iter().all(|step| step.name != *name), "line {number}: a second step «{name}»");
            }
            marked = Some(mark);
        }
        if fence.is_some() {
            let mut script = String::new();
            loop {
                let (_, line) =
                    lines.next().with_context(|| format!("line {number}: the block does not end"))?;
                if line.trim() == "```" {
                    break;
                }
                script.push_str(line);
                script.push('\n');
            }
            match marked.take() {
                Some(Mark::Step(name)) => steps.push(Step { name, script }),
                None if is_shell => bail!("line {number}: a block of shell that is no step"),
                Some(Mark::NotExecuted) | None => {}
            }
        } else {
            marked = mark(line);
        }
    }
    ensure!(marked.is_none(), "no block follows the last mark");
    Ok(steps)
}

/// The languages of blocks that are commands for a shell.
const SHELLS: [&str; 4] = ["sh", "bash", "shell", "console"];

fn mark(line: &str) -> Option<Mark> {
    let (kind, text) = line.trim().strip_prefix("<!--")?.strip_suffix("-->")?.split_once(':')?;
    match (kind.trim(), text.trim()) {
        ("step", name) if !name.is_empty() => Some(Mark::Step(name.to_owned())),
        ("not executed", why) if !why.is_empty() => Some(Mark::NotExecuted),
        _ => None,
    }
}

/// The password of the accounts that the guide makes.
pub const PASSWORD: &str = "a long password";
/// How many nodes of Postrider it starts.
pub const NODES: usize = 3;

/// Where steps are executed: a folder, engines, and addresses.
#[derive(Clone, Debug)]
pub struct Place {
    folder: PathBuf,
    postrider: PathBuf,
    network: String,
    replicas: usize,
    engines: Vec<(String, String)>,
}

impl Place {
    /// In this folder, which has to be there, with this binary, on engines whose environment this is
    /// ([`engines::Engines::environment`]); nodes listen in the block of addresses that the engines have to themselves.
    pub fn new(folder: &Path, postrider: &Path, engines: &[(String, String)]) -> Result<Self> {
        let of = |name: &str| {
            let (_, value) =
                engines.iter().find(|(known, _)| known == name).with_context(|| format!("no {name}"))?;
            Ok::<_, anyhow::Error>(value)
        };
        let nats = of("POSTRIDER_NATS")?.trim_start_matches("nats://");
        let (network, _) = nats.rsplit_once('.').with_context(|| format!("{nats} is no IPv4 address"))?;
        let replicas = of("POSTRIDER_CQL")?.split(',').count().min(3);
        Ok(Self {
            folder: folder.to_path_buf(),
            postrider: postrider.to_path_buf(),
            network: network.to_owned(),
            replicas,
            engines: engines.to_vec(),
        })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The binary.
    pub fn postrider(&self) -> &Path {
        &self.postrider
    }

    /// The address of a node; they are numbered from 1.
    pub fn address(&self, node: usize) -> String {
        format!("{}.{node}", self.network)
    }

    /// What the steps ask for besides what the engines say.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("DIR", self.folder.display().to_string()),
            ("NET", self.network.clone()),
            ("POSTRIDER", self.postrider.display().to_string()),
            ("REPLICAS", self.replicas.to_string()),
        ]
    }

    /// Executes it, and gives what it printed; an error with that when it fails. What it leaves running is in a session of its own
    /// and goes on without us; itself it ends with us.
    pub fn execute(&self, step: &Step) -> Result<String> {
        let mut command = Life::Bound.command(Path::new("setsid"));
        command.args(["sh", "-c", &step.script]).envs(self.engines.iter().cloned()).envs(self.variables());
        let output = command.stdin(Stdio::null()).output().context("sh")?;
        let said =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        ensure!(output.status.success(), "step «{}» ended with {}:\n{said}", step.name, output.status);
        Ok(said)
    }
}

/// What is a node's own, below the folder of the steps.
pub fn node_folder(folder: &Path, node: usize) -> PathBuf {
    folder.join(format!("node-{node}"))
}

/// What a node has logged since its last start; nothing before the first.
pub fn log(folder: &Path, node: usize) -> String {
    let text = std::fs::read(node_folder(folder, node).join("log")).unwrap_or_default();
    String::from_utf8_lossy(&text).into_owned()
}

/// The process of a node; none while it is down.
pub fn process(folder: &Path, node: usize) -> Result<Option<Identity>> {
    let folder = node_folder(folder, node);
    Ok(Identity::find(|arguments| is_about(arguments, &folder) && arguments.contains(&"serve"))?.pop())
}

/// Stops what runs on behalf of nodes: their processes, and what a step that was cut off has left waiting for one.
pub fn stop(folder: &Path) -> Result<()> {
    let ours = |arguments: &[&str]| (1..=NODES).any(|node| is_about(arguments, &node_folder(folder, node)));
    // Again, since what is stopped may just have been starting another.
    loop {
        let processes = Identity::find(ours)?;
        if processes.is_empty() {
            return Ok(());
        }
        Identity::stop(&processes, TERM_PATIENCE)?;
    }
}

/// What a node may take to end: the guide's `shutdown_seconds` twice, and a little.
const TERM_PATIENCE: Duration = Duration::from_secs(60);

/// Whether it was started on something in this folder by one of the options that the steps use. An editor with a file of
/// the folder was not.
fn is_about(arguments: &[&str], folder: &Path) -> bool {
    arguments.windows(2).any(|pair| {
        ["--config", "--unix-socket"].contains(&pair[0]) && Path::new(pair[1]).starts_with(folder)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guide: &str, expected: &str) {
        let found = match steps(guide) {
            Ok(steps) => steps.iter().map(|step| format!("{}={}", step.name, step.script.trim())).collect(),
            Err(error) => vec![error.to_string()],
        };
        assert_eq!(found.join(" "), expected, "{guide}");
    }

    #[test]
    fn takes_marked_blocks_and_refuses_guides_with_others() {
        check(
            "text\n<!-- step: one -->\n```sh\ntrue\n```\n<!-- step: two -->\n```sh\n:\n```\n",
            "one=true two=:",
        );
        check("```toml\na = 1\n```\n<!-- a remark: of the author -->\n", "");
        check("<!-- not executed: needs a moon -->\n```sh\nland\n```\n", "");
        check("a\n```sh\ntrue\n```\n", "line 2: a block of shell that is no step");
        check("<!-- step: -->\n```sh\ntrue\n```\n", "line 2: a block of shell that is no step");
        check("<!-- Step: one -->\n```sh\ntrue\n```\n", "line 2: a block of shell that is no step");
        check("<!-- not executed: -->\n```console\ntrue\n```\n", "line 2: a block of shell that is no step");
        check("<!-- step: one -->\n\n```sh\ntrue\n```\n", "line 2: no block of shell follows the mark");
        check("<!-- step: one -->\n```toml\na = 1\n```\n", "line 2: no block of shell follows the mark");
        check("<!-- step: one -->", "no block follows the last mark");
        check("<!-- step: one -->\n```sh\ntrue\n", "line 2: the block does not end");
        let twice = "<!-- step: one -->\n```sh\ntrue\n```\n".repeat(2);
        check(&twice, "line 6: a second step «one»");
    }

    #[test]
    fn a_step_that_fails_is_an_error_and_says_what_it_said() -> Result<()> {
        let engines = [("POSTRIDER_NATS", "nats://127.1.2.1:4222"), ("POSTRIDER_CQL", "127.1.2.11:9042")];
        let engines = engines.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let place = Place::new(Path::new("/tmp"), Path::new("/bin/true"), &engines)?;
        let step = |script: &str| Step { name: "planted".to_owned(), script: script.to_owned() };
        assert_eq!(place.execute(&step("set -eu\necho $NET.1 $REPLICAS\n"))?, "127.1.2.1 1\n");
        for script in ["set -eu\necho before\nfalse\necho behind\n", "set -eu\necho before\n\"$UNKNOWN\"\n"] {
            let error = place.execute(&step(script)).expect_err("it fails").to_string();
            assert!(
                error.contains("«planted»") && error.contains("before") && !error.contains("behind"),
                "{error}"
            );
        }
        Ok(())
    }

    #[test]
    fn nodes_are_known_by_the_folder_that_they_were_started_on() {
        let folder = Path::new("/tmp/a/node-1");
        let about = |line: &str| is_about(&line.split(' ').collect::<Vec<_>>(), folder);
        assert!(about("postrider serve --config /tmp/a/node-1/postrider.toml"));
        assert!(about("curl --fail --unix-socket /tmp/a/node-1/data/admin.sock http://localhost/readyz"));
        assert!(!about("postrider serve --config /tmp/a/node-10/postrider.toml"));
        assert!(!about("postrider serve --config /tmp/b/node-1/postrider.toml"));
        assert!(!about("less /tmp/a/node-1/log"));
        assert!(!about("--config"));
    }
}
