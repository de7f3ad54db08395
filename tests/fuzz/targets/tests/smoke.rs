//! Every target over its seeds, its samples and some thousand mutations of them: the same ones every time.

mod mutate;

use std::path::PathBuf;

use fuzz_targets::{TARGETS, Target};
use mutate::Mutator;

/// Mutations of each target. All of them together take some seconds.
const MUTATIONS: usize = 10_000;

fn seeds_folder() -> PathBuf {
    PathBuf::from("../seeds")
}

fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let folder = seeds_folder().join(target.name);
    let mut paths: Vec<PathBuf> = match folder.read_dir() {
        Ok(entries) => entries.map(|entry| entry.expect("the folder can be read").path()).collect(),
        Err(_) => Vec::new(),
    };
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a seed can be read")).collect()
}

fn smoke(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    let mut inputs = seeds(target);
    inputs.extend((target.samples)());
    assert!(!inputs.is_empty(), "{name} has no seeds");
    inputs.push(Vec::new());
    for input in &inputs {
        let _shown = Shown(input);
        (target.run)(input);
    }
    let mut mutator = Mutator::new(name);
    for _ in 0..MUTATIONS {
        let input = mutator.mutate(&inputs);
        let _shown = Shown(&input);
        (target.run)(&input);
    }
}

/// Shows the input when the target panics, so that it can become a seed.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input was: b\"{}\"", self.0.escape_ascii());
        }
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { smoke(stringify!($name)); })*

        /// No target is left out here or among the programs of cargo-fuzz, and no seed belongs to none.
        #[test]
        fn every_target_is_run() {
            let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(known, [$(stringify!($name)),*]);
            let manifest = include_str!("../../cargo-fuzz/Cargo.toml");
            for name in &known {
                assert!(manifest.contains(&format!("name = \"{name}\"")), "cargo-fuzz has no {name}");
            }
            let mut bytes = 0;
            for folder in seeds_folder().read_dir().expect("there are seeds") {
                let folder = folder.expect("the folder can be read");
                assert!(known.iter().any(|name| *name == folder.file_name()), "{folder:?}");
                for seed in folder.path().read_dir().expect("a folder of seeds") {
                    bytes += seed.and_then(|seed| seed.metadata()).expect("a seed can be read").len();
                }
            }
            assert!(bytes <= 50 << 10, "{bytes} octets of seeds");
        }
    };
}

targets! {
    account_fold account_stored address archive_chunk directory_table header imap_client imap_ends imap_names
    imap_response imap_server jmap_request log_entry mime proxy queue_fold queue_stored sasl_exchange segment smtp_client
    smtp_command smtp_data smtp_ends smtp_server
}
