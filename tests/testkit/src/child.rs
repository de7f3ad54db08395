//! Starting processes that end when they should: with this one, or not at all by themselves.

use std::path::Path;
use std::process::{Child, Command};
use std::sync::LazyLock;
use std::sync::mpsc::{SyncSender, sync_channel};

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
