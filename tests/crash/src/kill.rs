//! kill -9 while commits are in flight, again and again over one data folder.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use testkit::ledger;
use testkit::server::{Options, Server};

use crate::counts::{self, Counts};
use testkit::load::{Load, Run};
use testkit::observe::{self, Damage};

const ROUNDS_PER_FOLDER: usize = 10;

/// How much of it.
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) limit: Option<Duration>,
    pub(crate) seed: u64,
    /// Acknowledged operations between two kills, in the mean.
    pub(crate) between: usize,
}

/// Runs the rounds; an error is a loss.
pub(crate) fn run(plan: Plan) -> Result<()> {
    let mut folder = tempfile::tempdir()?;
    let mut run = Arc::new(Run::default());
    let mut random = StdRng::seed_from_u64(plan.seed);
    let started = Instant::now();
    let (mut rounds, mut acknowledged, mut counts) = (0, 0, Counts::default());
    while rounds < plan.rounds && plan.limit.is_none_or(|limit| started.elapsed() < limit) {
        // Every byte is read again after each kill, so the folder is kept to a size that a round can read.
        if rounds % ROUNDS_PER_FOLDER == 0 {
            folder = tempfile::tempdir()?;
            run = Arc::new(Run::default());
        }
        let options = counts::options(&folder.path().join("data"))?;
        let server = Server::start(&options)?;
        let before = run.ledger.acknowledged();
        let load = Load::start(&run, &server, plan.seed.wrapping_add(rounds as u64));
        let aim = random.random_range(plan.between / 2..plan.between * 3 / 2);
        let deadline = Instant::now() + Duration::from_secs(60);
        while run.ledger.acknowledged() < before + aim && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        // The load goes on meanwhile: what happens between this look and the kill is not counted.
        counts.add(&server)?;
        server.kill()?;
        load.stop();
        let instant = ledger::now();
        let this_round = run.ledger.acknowledged() - before;
        acknowledged += this_round;
        if this_round == 0 {
            bail!("round {rounds}: nothing was acknowledged, so nothing was tested");
        }
        let server = Server::start(&options)?;
        let found = observe::until(&server, Duration::from_secs(30), |found| {
            run.ledger.judge(found, instant).clean()
        });
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                let kept = folder.keep();
                return Err(error.context(format!(
                    "round {rounds}, seed {}, kept in {}",
                    plan.seed,
                    kept.display()
                )));
            }
        };
        let verdict = run.ledger.judge(&found, instant);
        if !verdict.clean() {
            let kept = folder.keep();
            bail!("round {rounds}, seed {}: {verdict}\nkept in {}", plan.seed, kept.display());
        }
        run.ledger.settle(&found);
        counts.add(&server)?;
        server.stop(Duration::from_secs(30))?;
        check(&options)?;
        rounds += 1;
    }
    let mean = acknowledged / rounds.max(1);
    counts.require()?;
    println!(
        "result\tkill -9\trounds={rounds} acknowledged={acknowledged} mean_between={mean} lost=0 doubled=0 check=clean {counts}"
    );
    Ok(())
}

/// `postrider check` over the stopped server's folder finds nothing wrong.
pub(crate) fn check(options: &Options) -> Result<()> {
    let output = std::process::Command::new(testkit::server::binary()?)
        .arg("check")
        .arg("--data")
        .arg(&options.data)
        .output()?;
    if !output.status.success() {
        let [told, also] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        bail!(Damage(format!("postrider check: {}\n{told}{also}", output.status)));
    }
    Ok(())
}
