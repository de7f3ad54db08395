//! What `deploy/` holds: example configurations, units, containers, a chart.
//!
//! Each is read by the program that reads it in earnest. A check that takes anything proves nothing, so each of them is
//! also given a copy with a mistake in it, and has to refuse that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};

use crate::go::Program;
use crate::process::{self, command};

const HELM: Program = Program { name: "helm", version: "3.18.6", package: "helm.sh/helm/v3/cmd/helm" };
const KUBECTL_VALIDATE: Program =
    Program { name: "kubectl-validate", version: "0.0.4", package: "sigs.k8s.io/kubectl-validate" };

/// The release of Kubernetes that the chart's objects are held against; its schemas are part of `kubectl-validate`, so no
/// network is needed.
const KUBERNETES: &str = "1.30";
const CHART: &str = "deploy/helm/postrider";

/// Seconds that a process which ends gives to what is being stored, beside `shutdown_seconds`.
const STORING_SECONDS: u64 = 20;

/// Most exposure that `systemd-analyze security` may find, in tenths. The network and the default list of devices make 16.
const EXPOSURE_MAX: &str = "20";

/// The example configurations, by the server itself.
pub(crate) fn settings() -> Result<()> {
    let mut files = Vec::new();
    for folder in ["deploy/config", "deploy/compose"] {
        files.extend(with_extension(folder, "toml")?);
    }
    for file in &files {
        check_settings(file)?;
    }
    let cluster = fs::read_to_string(process::root().join("deploy/config/cluster.toml"))?;
    let planted = scratch("planted.toml", &replaced(&cluster, "bucket = ", "buckets = ")?)?;
    refused("an unknown setting", check_settings(&planted))?;
    println!("{} configurations are sound", files.len());
    Ok(())
}

/// All of it.
pub(crate) fn all() -> Result<()> {
    units()?;
    compose()?;
    settings()?;
    chart()
}

/// The units, by systemd: no setting is unknown or misspelt, and little is left open.
pub(crate) fn units() -> Result<()> {
    let read = |name: &str| fs::read_to_string(process::root().join("deploy/systemd").join(name));
    let (whole, part) = (read("postrider.service")?, read("postrider@.service")?);
    let of_one_kind = |unit: &str| -> Vec<String> {
        let lines = unit.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.map(|line| line.replace("/%i.toml", "/postrider.toml").replace(", %i", "")).collect()
    };
    let same = of_one_kind(&part.replace(" postrider/%i", "")) == of_one_kind(&whole);
    ensure!(same, "postrider@.service and postrider.service differ in more than names and folders");

    // What the unit starts is not installed here.
    let here = |unit: &str| unit.replace("/usr/bin/postrider", "/bin/true");
    let whole = here(&whole);
    let path = scratch("postrider.service", &whole)?;
    scratch("postrider@.service", &here(&part))?;
    verify(&path)?;
    verify(&path.with_file_name("postrider@smtp-in.service"))?;
    expose(&path)?;
    waits_long_enough(&whole, "TimeoutStopSec=")?;

    let planted =
        scratch("planted.service", &replaced(&whole, "NoNewPrivileges=yes", "NoNewPrivilege=yes")?)?;
    refused("a misspelt setting", verify(&planted))?;
    let planted = scratch("planted.service", &replaced(&whole, "CapabilityBoundingSet=", "#")?)?;
    refused("a unit with all of root's rights", expose(&planted))?;
    let planted = replaced(&whole, "TimeoutStopSec=150", "TimeoutStopSec=90")?;
    refused("a unit that cuts off what drains", waits_long_enough(&planted, "TimeoutStopSec="))?;
    println!("the units are sound");
    Ok(())
}

/// The containers, by Compose.
pub(crate) fn compose() -> Result<()> {
    let file = process::root().join("deploy/compose.yaml");
    check_compose(&file)?;
    let text = fs::read_to_string(&file)?;
    let node = text.split_once("x-postrider:").context("compose.yaml has no node")?.1;
    waits_long_enough(node, "stop_grace_period: ")?;
    let planted = replaced(&text, "\n      cassandra-3:\n", "\n      cassandra-4:\n")?;
    refused("a service that waits for none", check_compose(&scratch("compose.yaml", &planted)?))?;
    println!("compose.yaml is sound");
    Ok(())
}

/// The chart, as it is and with everything that can be asked of it: objects by the schemas of Kubernetes, and the
/// configurations in them by the server.
pub(crate) fn chart() -> Result<()> {
    let values = format!("{CHART}/ci/roles-apart-values.yaml");
    process::run(HELM.command()?.args(["lint", "--quiet", "--strict", CHART, "--values", &values]))?;
    for (name, more) in [("chart", &[][..]), ("chart-roles-apart", &["--values", &values])] {
        let objects = render(more)?;
        check_objects(&scratch(&format!("{name}.yaml"), &objects)?)?;
        let configurations = configurations(&objects);
        ensure!(!configurations.is_empty(), "the chart makes no configuration");
        for text in &configurations {
            check_settings(&scratch(&format!("{name}.toml"), text)?)?;
        }
        let planted = replaced(&objects, "readinessProbe:", "readynessProbe:")?;
        refused("an unknown field", check_objects(&scratch("planted.yaml", &planted)?))?;
        let planted = replaced(&objects, "  replicas: ", "  replicas: some-")?;
        refused("a value of another type", check_objects(&scratch("planted.yaml", &planted)?))?;
    }
    refused("a chart without a bucket", render(&["--set", "s3.bucket="]))?;
    println!("the chart is sound");
    Ok(())
}

fn check_settings(file: &Path) -> Result<()> {
    let built = || Ok::<_, anyhow::Error>(process::target()?.join("debug/postrider").into_os_string());
    let program = std::env::var_os("POSTRIDER_BIN").map_or_else(built, Ok)?;
    silent(command(&program.to_string_lossy(), ["config", "check"]).arg(file))
}

fn verify(unit: &Path) -> Result<()> {
    // systemd only warns of what it does not know, and goes on without it.
    silent(command("systemd-analyze", ["verify", "--man=no"]).arg(unit))
}

fn expose(unit: &Path) -> Result<()> {
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    finish(command("systemd-analyze", ["security", "--offline=true", &threshold]).arg(unit)).map(drop)
}

/// Whether a process that was told to end has the time for it that the example configurations give it: for its sessions,
/// as much again for those that were cut off, and for what is being stored.
fn waits_long_enough(text: &str, setting: &str) -> Result<()> {
    let mut files = with_extension("deploy/config", "toml")?;
    files.extend(with_extension("deploy/compose", "toml")?);
    for file in files {
        let shutdown = number(&fs::read_to_string(&file)?, "shutdown_seconds = ")?;
        let (needed, waits) = (2 * shutdown + STORING_SECONDS, number(text, setting)?);
        ensure!(waits > needed, "{setting}{waits} is not above the {needed} s of {}", file.display());
    }
    Ok(())
}

/// The number behind the first `setting` that begins a line.
fn number(text: &str, setting: &str) -> Result<u64> {
    let value = text.lines().find_map(|line| line.trim_start().strip_prefix(setting));
    let value = value.with_context(|| format!("there is no {setting}"))?;
    let digits = value.trim_end_matches(|c: char| !c.is_ascii_digit());
    digits.parse().with_context(|| format!("{setting}{value} is no number"))
}

fn check_compose(file: &Path) -> Result<()> {
    let mut compose = command("docker-compose", ["--project-directory", "deploy", "--file"]);
    silent(compose.arg(file).args(["config", "--quiet"]).env("S3_SECRET_KEY", "any"))
}

fn render(arguments: &[&str]) -> Result<String> {
    let mut helm = HELM.command()?;
    helm.args(["template", "postrider", CHART, "--kube-version", KUBERNETES]).args(arguments);
    String::from_utf8(finish(&mut helm)?.stdout).context("the chart's objects are not UTF-8")
}

fn check_objects(file: &Path) -> Result<()> {
    finish(KUBECTL_VALIDATE.command()?.args(["--version", KUBERNETES]).arg(file)).map(drop)
}

/// The configuration files in rendered `ConfigMap`s, which are blocks of text indented by four.
fn configurations(objects: &str) -> Vec<String> {
    let blocks = objects.split("\n  postrider.toml: |\n").skip(1);
    let lines = |block: &str| {
        let indented = block.lines().map_while(|line| line.strip_prefix("    "));
        indented.flat_map(|line| [line, "\n"]).collect()
    };
    blocks.map(lines).collect()
}

/// Fails where the check has passed.
fn refused<T>(mistake: &str, checked: Result<T>) -> Result<()> {
    match checked {
        Ok(_) => bail!("the check has not noticed {mistake}, so it proves nothing"),
        Err(_) => Ok(()),
    }
}

/// A text with a mistake in it.
fn replaced(text: &str, from: &str, to: &str) -> Result<String> {
    ensure!(text.contains(from), "there is no {from:?} to plant a mistake in");
    Ok(text.replace(from, to))
}

fn scratch(name: &str, text: &str) -> Result<PathBuf> {
    let folder = process::target()?.join("deploy");
    fs::create_dir_all(&folder)?;
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| path.display().to_string())?;
    Ok(path)
}

fn with_extension(folder: &str, extension: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(process::root().join(folder)).with_context(|| folder.to_owned())? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    ensure!(!files.is_empty(), "{folder} holds no .{extension}");
    files.sort();
    Ok(files)
}

/// Runs it; an error, with what it said, when it fails or has anything to say.
fn silent(command: &mut Command) -> Result<()> {
    let output = finish(command)?;
    let said = said(&output);
    ensure!(said.is_empty(), "{command:?}: {said}");
    Ok(())
}

/// Runs it; an error, with all it said, when it fails.
fn finish(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?} ended with {}: {}", output.status, said(&output));
    Ok(output)
}

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_found_in_rendered_objects() {
        let objects =
            "kind: ConfigMap\ndata:\n  postrider.toml: |\n    a = 1\n    \n    [b]\n---\nkind: Service\n";
        assert_eq!(configurations(objects), ["a = 1\n\n[b]\n"]);
        assert!(configurations("kind: Service\n").is_empty());
    }

    #[test]
    fn numbers_have_units_or_none() {
        assert_eq!(number("a = 1\n  wait: 150s\nwait: 2\n", "wait: ").unwrap(), 150);
        assert!(number("# wait: 150s\nwait: long\n", "wait: ").is_err());
        assert!(number("wait = 1", "wait: ").is_err());
    }

    #[test]
    fn a_check_that_passes_a_mistake_fails() {
        assert!(refused("it", Ok(())).is_err());
        assert!(refused::<()>("it", Err(anyhow::anyhow!("seen"))).is_ok());
        assert!(replaced("text", "nothing of it", "").is_err());
    }
}
