//! Starting processes that end when they should: with this one, or not at all by themselves.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How long a process lives that a test starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Life {
    /// It ends with whatever holds it, and with the process that started it, though that be killed.
    #[default]
    Bound,
    /// In a session of their own, until somebody stops them.
    Detached,
}

impl Life {
    /// A command for the program. Both wrappers become the program, so it has the number of the process that is started.
    pub fn command(self, program: &Path) -> Command {
        let mut command = match self {
            Self::Detached => Command::new("setsid"),
            Self::Bound if Path::new(SETPRIV).exists() => {
                let mut command = Command::new(SETPRIV);
                command.args(["--pdeathsig", "KILL", "--"]);
                command
            }
            // Without util-linux a process that is killed leaves behind what it started.
            Self::Bound => return Command::new(program),
        };
        command.arg(program);
        command
    }
}

const SETPRIV: &str = "/usr/bin/setpriv";

type Request = (Command, SyncSender<std::io::Result<Child>>);

/// Starts it from a thread that never ends: Linux sends the signal of `--pdeathsig` when the *thread* that started a
/// process ends, and a test's thread may end before what it has started for others.
pub fn spawn(command: Command) -> std::io::Result<Child> {
    static STARTER: LazyLock<SyncSender<Request>> = LazyLock::new(|| {
        let (requests, received) = sync_channel::<Request>(0);
        std::thread::spawn(move || {
            for (mut command, answer) in received {
                // Whoever asked may be gone; then nobody wants the child.
                if let Err(unwanted) = answer.send(command.spawn())
                    && let Ok(mut child) = unwanted.0
                {
                    let _ = child.kill();
                }
            }
        });
        requests
    });
    let (answer, answered) = sync_channel(1);
    STARTER.send((command, answer)).expect("the thread never ends");
    answered.recv().expect("the thread answers every request")
}

/// What [`wait_to_be_killed`] says before the number.
const STARTED: &str = "started process ";

/// Runs an ignored test of the same program, with these variables, until it is in [`wait_to_be_killed`]; kills it, which
/// drops nothing, and waits until what it has started has ended.
pub fn ends_with_its_starter<V: AsRef<OsStr>>(other_half: &str, variables: &[(&str, V)]) -> Result<()> {
    let mut starter = Command::new(std::env::current_exe()?)
        .args(["--exact", other_half, "--ignored", "--nocapture"])
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(starter.stdout.take().context("its output")?).lines();
    let process = lines.find_map(|line| Some(line.ok()?.strip_prefix(STARTED)?.parse::<u32>()));
    starter.kill()?;
    starter.wait()?;
    let process = process.context("it started nothing")??;
    for _ in 0..500 {
        if !is_running(process) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("process {process} runs on");
}

/// The other half: names what was started, and waits until it is killed, or whoever would do that has gone.
pub fn wait_to_be_killed(started: u32) -> Result<()> {
    // On a line of its own, behind what the test program says of its tests.
    writeln!(std::io::stdout(), "\n{STARTED}{started}")?;
    let _ = std::io::stdin().read(&mut [0])?;
    Ok(())
}

/// Whether there is such a process, other than one whose exit status nobody has fetched.
pub fn is_running(process: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}
