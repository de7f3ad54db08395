//! The command line.

mod queue;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use queue::{QueueChosen, QueueCommand, QueueFilter, QueueKind, QueueState};

/// A mail server: SMTP in, IMAP out, nothing lost between.
#[derive(Debug, Parser)]
#[command(name = "postrider", version, propagate_version = true, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole server on this machine's loopback interface, with two accounts to try things with.
    Dev(Dev),
    /// Run the server.
    Serve {
        /// The configuration file.
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Verify everything that is stored. The server must not be running.
    Check {
        /// How much to read.
        #[arg(long, value_enum, default_value_t = Bodies::Read)]
        bodies: Bodies,
        #[command(flatten)]
        store: Store,
    },
    /// Move everything to the back ends of another configuration, while the server runs: out of this machine's folder into
    /// a cluster, or back.
    Migrate {
        /// The configuration file to move to, as the server finds it.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        #[command(flatten)]
        reach: Reach,
    },
    /// Take text out of an attachment: the server starts this for itself.
    #[command(hide = true)]
    ExtractText {
        /// The format, then octets of memory, seconds, and octets of text.
        arguments: Vec<String>,
    },
    /// Look at configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Domains of this server.
    #[command(subcommand)]
    Domain(DomainCommand),
    /// Accounts.
    #[command(subcommand)]
    Account(AccountCommand),
    /// Other names for addresses.
    #[command(subcommand)]
    Alias(AliasCommand),
    /// Mailing lists.
    #[command(subcommand)]
    List(ListCommand),
    /// Passwords of accounts.
    #[command(subcommand)]
    Password(PasswordCommand),
    /// Passwords for single applications.
    #[command(subcommand)]
    AppPassword(AppPasswordCommand),
    /// Programs and browsers that act for an account, by tokens (OAuth 2).
    #[command(subcommand)]
    Grant(GrantCommand),
    /// Addresses that an account's mail is not sent to, since notifications said that they do not exist.
    #[command(subcommand)]
    Suppression(SuppressionCommand),
    /// Tokens for the admin API over TCP.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Mail that is under way.
    #[command(subcommand)]
    Queue(QueueCommand),
    /// The nodes of a cluster, and what they stand on.
    #[command(subcommand)]
    Cluster(ClusterCommand),
}

pub(crate) const DEFAULT_CONFIG: &str = "/etc/postrider/postrider.toml";

#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Where everything is kept. Made if it is not there.
    #[arg(long, value_name = "DIR", default_value = crate::dev::DEFAULT_DATA)]
    pub(crate) data: PathBuf,
    /// Added to every port, so that several can run side by side.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) port_offset: u16,
    /// A configuration file for everything but hostname, data, certificates and listeners.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Send mail for other domains, to the exchangers that this name server names. They may be on loopback. Without
    /// this and --relay such mail waits in the queue, and nothing leaves this machine.
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "relay")]
    pub(crate) resolver: Option<SocketAddr>,
    /// The port of these exchangers.
    #[arg(long, value_name = "N", requires = "resolver", default_value_t = 25)]
    pub(crate) mx_port: u16,
    /// Send mail for other domains, all of it to this host.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) relay: Option<String>,
}

/// Where the store is.
#[derive(Clone, Debug, Args)]
pub(crate) struct Store {
    /// The configuration file of the server. Without this and --data: /etc/postrider/postrider.toml where that exists,
    /// else the folder of `postrider dev`.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The data folder, for a server without a configuration file.
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "config")]
    pub(crate) data: Option<PathBuf>,
}

/// What a check does about the bytes of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bodies {
    /// Reads all of them and compares them with their hashes.
    Read,
    /// Looks at everything but them.
    Skip,
}

/// How to reach the server.
#[derive(Clone, Debug, Args)]
pub(crate) struct Reach {
    #[command(flatten)]
    pub(crate) store: Store,
    /// The admin API of a server elsewhere, as https://HOST:PORT. Needs --token-file.
    #[arg(long, global = true, value_name = "URL", requires = "token_file")]
    pub(crate) url: Option<String>,
    /// A file that holds a token of that server.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates (PEM) that the server's certificate is trusted by.
    #[arg(long, global = true, value_name = "FILE", requires = "url")]
    pub(crate) ca: Option<PathBuf>,
    /// Print what the server answers, as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Show the nodes, as the one that is asked sees them.
    Status {
        #[command(flatten)]
        reach: Reach,
    },
    /// End a node in order: it accepts nothing more, finishes what it has in hand, and others take over.
    Drain {
        #[command(flatten)]
        reach: Reach,
    },
    /// The tables in Cassandra or ScyllaDB; of a region also the table that it shares with the others.
    #[command(subcommand)]
    Schema(SchemaCommand),
    /// The table that says which region has a name.
    #[command(subcommand)]
    Regions(RegionsCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum RegionsCommand {
    /// Put all names of this region into it: those that were made before this was one of several regions. Done again it
    /// does nothing.
    Register {
        #[command(flatten)]
        store: Store,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SchemaCommand {
    /// Print the statements that make them.
    Print {
        /// The configuration file of a node.
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Make them, or bring them to the version of this release.
    Apply {
        /// The configuration file of a node.
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Say which version is there, and what in the settings of the engine's nodes would lose mail.
    Check {
        /// The configuration file of a node.
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting with its default and what it means.
    PrintDefaults,
    /// Read a configuration file and say what is wrong with it.
    Check {
        /// The file.
        #[arg(default_value = DEFAULT_CONFIG)]
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DomainCommand {
    /// All domains.
    List {
        #[command(flatten)]
        reach: Reach,
    },
    /// Make a domain.
    Add {
        name: String,
        /// Make it another name for this domain.
        #[arg(long, value_name = "DOMAIN")]
        alias_of: Option<String>,
        #[command(flatten)]
        settings: DomainOptions,
        #[command(flatten)]
        reach: Reach,
    },
    /// Show a domain.
    Show {
        name: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Change a domain.
    Set {
        name: String,
        #[command(flatten)]
        settings: DomainOptions,
        /// Refuse mail for names that do not exist.
        #[arg(long, conflicts_with = "catch_all")]
        no_catch_all: bool,
        /// Take mail for it, or not.
        #[arg(long, value_name = "true|false")]
        disabled: Option<bool>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Remove a domain that has no names left.
    Remove {
        name: String,
        #[command(flatten)]
        reach: Reach,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DomainOptions {
    /// Where mail for names that do not exist goes.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) catch_all: Option<String>,
    /// What separates a name from its detail, each character by itself.
    #[arg(long, value_name = "CHARACTERS")]
    pub(crate) delimiters: Option<String>,
    /// A note for other administrators.
    #[arg(long)]
    pub(crate) description: Option<String>,
    #[command(flatten)]
    pub(crate) quota: QuotaOptions,
}

#[derive(Debug, Args)]
pub(crate) struct QuotaOptions {
    /// Octets an account may hold, with K, M, G or T; `none` for no limit.
    #[arg(long, value_name = "SIZE", value_parser = limit)]
    pub(crate) quota: Option<Limit>,
    /// Messages an account may hold; `none` for no limit.
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(crate) quota_messages: Option<Limit>,
}

/// A number, or no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<u64>);

fn limit(text: &str) -> Result<Limit, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Limit(None));
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        "T" | "TB" | "TIB" => 1 << 40,
        unit => return Err(format!("{unit:?} is not K, M, G or T")),
    };
    let number: u64 = digits.parse().map_err(|_| "not a number".to_owned())?;
    number.checked_mul(factor).map(|number| Limit(Some(number))).ok_or_else(|| "too large".to_owned())
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// Accounts of a domain.
    List {
        domain: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Make an account. The password is asked for, or read from standard input.
    Add {
        address: String,
        /// The name that people see.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        quota: QuotaOptions,
        /// Make it without a password: only application passwords can log in.
        #[arg(long)]
        no_password: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// Show an account.
    Show {
        address: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Change an account.
    Set {
        address: String,
        /// The name that people see.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        quota: QuotaOptions,
        /// What it may do.
        #[arg(long)]
        status: Option<StatusArgument>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Take an account to another region, where it goes on as it is. Whoever uses it has to wait meanwhile. Cut short, it is
    /// finished by giving the command again.
    Move {
        address: String,
        /// The region.
        #[arg(long)]
        region: String,
        /// The configuration file of a node of that region.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        #[command(flatten)]
        store: Store,
    },
    /// Delete an account and all it holds.
    Remove {
        address: String,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        reach: Reach,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum StatusArgument {
    /// Receives mail and logs in.
    Active,
    /// Receives mail; logins are refused.
    LoginDisabled,
    /// Receives nothing and cannot log in.
    Disabled,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AliasCommand {
    /// Aliases of a domain.
    List {
        domain: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Make an alias.
    Add {
        address: String,
        #[arg(required = true)]
        targets: Vec<String>,
        /// Let accounts among the targets send under this address.
        #[arg(long)]
        send_as: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// Show an alias.
    Show {
        address: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Change an alias: give all its targets, or none to leave them as they are.
    Set {
        address: String,
        targets: Vec<String>,
        /// Whether accounts among the targets may send under this address.
        #[arg(long, value_name = "true|false")]
        send_as: Option<bool>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Remove an alias.
    Remove {
        address: String,
        #[command(flatten)]
        reach: Reach,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ListCommand {
    /// Mailing lists of a domain.
    List {
        domain: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Make a mailing list.
    Add {
        address: String,
        /// Who hears of mail that does not reach a member.
        #[arg(long, value_name = "ADDRESS")]
        owner: String,
        members: Vec<String>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Show a mailing list and its members.
    Show {
        address: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Change the owner of a mailing list, add and remove members.
    Set {
        address: String,
        /// Who hears of mail that does not reach a member.
        #[arg(long, value_name = "ADDRESS")]
        owner: Option<String>,
        /// A member to add.
        #[arg(long, value_name = "ADDRESS")]
        add: Vec<String>,
        /// A member to remove.
        #[arg(long, value_name = "ADDRESS")]
        remove: Vec<String>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Remove a mailing list.
    Remove {
        address: String,
        #[command(flatten)]
        reach: Reach,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PasswordCommand {
    /// Set an account's password. It is asked for, or read from standard input.
    Set {
        address: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Take over an argon2 hash from another server. It is read from standard input.
    Import {
        address: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Leave an account without a password: only application passwords can log in.
    Clear {
        address: String,
        #[command(flatten)]
        reach: Reach,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SuppressionCommand {
    /// Suppressed addresses of an account, with what was said of them.
    List {
        address: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Let the account's mail be sent to an address again.
    Remove {
        address: String,
        suppressed: String,
        #[command(flatten)]
        reach: Reach,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum GrantCommand {
    /// Programs and browsers that act for an account.
    List {
        address: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Let a program act for an account, and print its tokens (OAuth 2), this once.
    Add {
        address: String,
        /// What the program calls itself.
        client: String,
        /// What its owner calls it.
        name: String,
        /// A service that it is good for: smtp, imap, pop3, jmap, sieve. Without one: all.
        #[arg(long = "service", value_name = "SERVICE")]
        services: Vec<String>,
        #[command(flatten)]
        reach: Reach,
    },
    /// End what a program may do; its sessions end too.
    Remove {
        address: String,
        id: String,
        #[command(flatten)]
        reach: Reach,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AppPasswordCommand {
    /// Application passwords of an account.
    List {
        address: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Make an application password and print it, this once.
    Add {
        address: String,
        /// What it is for.
        name: String,
        /// A service that it is good for: smtp, imap, pop3, jmap, sieve. Without one: all.
        #[arg(long = "service", value_name = "SERVICE")]
        services: Vec<String>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Withdraw an application password.
    Remove {
        address: String,
        name: String,
        #[command(flatten)]
        reach: Reach,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// All tokens.
    List {
        #[command(flatten)]
        reach: Reach,
    },
    /// Make a token and print it, this once.
    Add {
        /// What it is for.
        name: String,
        /// What it is good for: read, write, passwords, metrics, tokens, queue.
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// When it ceases to be good, in days from now.
        #[arg(long, value_name = "DAYS")]
        days: Option<u64>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Withdraw a token.
    Remove {
        name: String,
        #[command(flatten)]
        reach: Reach,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn limits_are_read() {
        #[track_caller]
        fn check(text: &str, expected: Option<Limit>) {
            assert_eq!(limit(text).ok(), expected);
        }
        check("0", Some(Limit(Some(0))));
        check("10G", Some(Limit(Some(10 << 30))));
        check("1kib", Some(Limit(Some(1024))));
        check("None", Some(Limit(None)));
        check("", None);
        check("-1", None);
        check("5 X", None);
        check("99999999T", None);
    }
}
