//! `postrider queue`: its commands, and what they choose by.

use clap::{Args, Subcommand, ValueEnum};

use super::Reach;

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// The queue in numbers.
    Summary {
        #[command(flatten)]
        reach: Reach,
    },
    /// What waits, and for what.
    List {
        #[command(flatten)]
        filter: QueueFilter,
        /// Show so many messages at most.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u64,
        #[command(flatten)]
        reach: Reach,
    },
    /// Where is my mail? All that is known of a message, until two weeks after its end.
    #[command(visible_alias = "show")]
    Trace {
        /// Its id in the queue, or its Message-ID.
        id: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Try now, whatever it waits for.
    Retry {
        #[command(flatten)]
        chosen: QueueChosen,
        #[command(flatten)]
        reach: Reach,
    },
    /// Keep back.
    Hold {
        #[command(flatten)]
        chosen: QueueChosen,
        #[command(flatten)]
        reach: Reach,
    },
    /// Let go what was kept back, or lies in quarantine.
    Release {
        #[command(flatten)]
        chosen: QueueChosen,
        #[command(flatten)]
        reach: Reach,
    },
    /// Take back; nobody is told.
    Cancel {
        #[command(flatten)]
        chosen: QueueChosen,
        #[command(flatten)]
        reach: Reach,
    },
    /// Give up; senders are told.
    Expire {
        #[command(flatten)]
        chosen: QueueChosen,
        #[command(flatten)]
        reach: Reach,
    },
    /// Send to another host than the domain says, and now.
    Reroute {
        /// The host, as `host`, `host:port`, `[address]` or `[address]:port`. Without: where the domain says.
        #[arg(long, value_name = "HOST")]
        to: Option<String>,
        #[command(flatten)]
        chosen: QueueChosen,
        #[command(flatten)]
        reach: Reach,
    },
    /// What happened in a shard, a line of JSON each: from a number on, or from where a cursor stands, which is then
    /// moved. Without a shard: which there are.
    Replay {
        /// The shard, such as `outbound-3`.
        #[arg(long)]
        shard: Option<String>,
        /// The first number.
        #[arg(long, value_name = "SEQ", requires = "shard")]
        from: Option<u64>,
        /// A consumer's name: it goes on where it was, and the shard remembers how far it has come.
        #[arg(long, value_name = "NAME", requires = "shard")]
        cursor: Option<String>,
        /// The cursor is no longer needed.
        #[arg(long, requires = "cursor", conflicts_with = "from")]
        forget: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// Watch what is said to and by other hosts, as it happens.
    Watch {
        /// This host only.
        #[arg(long)]
        host: Option<String>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Give up what is left of a message in quarantine; nobody is told.
    Drop {
        /// Its id in the queue.
        id: String,
        #[command(flatten)]
        reach: Reach,
    },
}

/// Which messages.
#[derive(Debug, Args)]
pub(crate) struct QueueFilter {
    /// In this part of the queue.
    #[arg(long, value_enum)]
    pub(crate) kind: Option<QueueKind>,
    /// To this domain elsewhere.
    #[arg(long)]
    pub(crate) domain: Option<String>,
    /// Spoken to this host last.
    #[arg(long, value_name = "HOST")]
    pub(crate) site: Option<String>,
    /// From this address, `@domain`, or `<>`.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) sender: Option<String>,
    /// With a recipient in this state.
    #[arg(long, value_enum)]
    pub(crate) state: Option<QueueState>,
    /// Accepted longer ago than this: `90s`, `30m`, `6h`, `2d`.
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) older_than: Option<u64>,
    /// Accepted less long ago than this.
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) newer_than: Option<u64>,
}

/// What is acted on: one message, those that options choose, or all.
#[derive(Debug, Args)]
pub(crate) struct QueueChosen {
    /// The message's id in the queue.
    pub(crate) id: Option<String>,
    /// Everything, where no option chooses.
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) filter: QueueFilter,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum QueueKind {
    /// Is being delivered here.
    Ingest,
    /// Waits for other hosts.
    Outbound,
    /// Lies in quarantine.
    Quarantine,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum QueueState {
    /// Waits to be tried, for the first time or again.
    Pending,
    /// Waits to be tried again.
    Deferred,
    /// Is being tried.
    Leased,
    /// May have been delivered.
    InDoubt,
    /// Is kept back.
    Held,
    /// Has ended, and its sender is to be told.
    Telling,
}

/// Seconds, from a number with a unit.
fn age(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        unit => return Err(format!("{unit:?} is not s, m, h, d or w")),
    };
    let number: u64 = digits.parse().map_err(|_| "not a number".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "too large".to_owned())
}
