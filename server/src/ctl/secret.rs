//! Passwords from the terminal, without echo, or from a pipe.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Longest line taken.
const LINE_BYTES_MAX: u64 = 4096;

/// Reads a new password: twice from a terminal, once from a pipe.
pub(crate) fn new_password() -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() {
        return line();
    }
    let first = hidden("New password: ")?;
    if first != hidden("Again: ")? {
        bail!("the two do not match");
    }
    Ok(first)
}

/// Reads one line from standard input.
pub(crate) fn line() -> anyhow::Result<String> {
    let mut text = String::new();
    let mut input = std::io::Read::take(std::io::stdin().lock(), LINE_BYTES_MAX);
    input.read_line(&mut text).context("standard input")?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        bail!("nothing on standard input");
    }
    Ok(text.to_owned())
}

/// Asks a question that is answered by yes or no.
pub(crate) fn confirm(question: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("not asked, since there is no terminal: say --yes");
    }
    eprint!("{question} [y/N] ");
    std::io::stderr().flush().context("terminal")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("terminal")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn hidden(prompt: &str) -> anyhow::Result<String> {
    let _quiet = Quiet::begin()?;
    eprint!("{prompt}");
    std::io::stderr().flush().context("terminal")?;
    let text = line();
    eprintln!();
    text
}

/// While this lives the terminal does not show what is typed.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> anyhow::Result<Self> {
        let before = tcgetattr(std::io::stdin()).context("terminal")?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet).context("terminal")?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}
