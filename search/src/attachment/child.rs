//! The other side: a process that has a pipe in, a pipe out, and limits.

use std::io::{Read, Write};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};

use super::{Format, office, pdf};

/// Octets that are taken in. Whoever sends counts as well.
const INPUT_BYTES_MAX: u64 = 64 << 20;

/// Reads an attachment from standard input and writes its text to standard output. The arguments are the format, octets
/// of memory, seconds of the processor, and octets of text.
pub fn serve(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    match try_serve(arguments) {
        Some(()) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

fn try_serve(arguments: impl IntoIterator<Item = String>) -> Option<()> {
    let mut arguments = arguments.into_iter();
    let format = Format::named(&arguments.next()?)?;
    let mut number = || arguments.next()?.parse::<u64>().ok();
    let (memory, seconds, text_bytes_max) = (number()?, number()?, number()?);
    // Before the first octet from outside is looked at.
    limit(memory, seconds)?;
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(INPUT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let text_bytes_max = usize::try_from(text_bytes_max).ok()?;
    let text = match format {
        Format::Pdf => pdf::text(&bytes, text_bytes_max)?,
        format => office::text(format, &bytes, text_bytes_max).ok()?,
    };
    std::io::stdout().lock().write_all(text.as_bytes()).ok()
}

/// No more memory, no more time, no file to be written or opened.
fn limit(memory: u64, seconds: u64) -> Option<()> {
    // Should the server be gone already, its end of the pipes is closed, which ends this as well.
    set_parent_process_death_signal(Some(Signal::KILL)).ok()?;
    let limits = [
        (Resource::As, memory),
        (Resource::Cpu, seconds),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
        // What is open stays so: three.
        (Resource::Nofile, 3),
    ];
    for (resource, most) in limits {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).ok()?;
    }
    Some(())
}
