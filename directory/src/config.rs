//! What an operator can set, each with its default and the reason for it.

use serde::{Deserialize, Serialize};

/// Limits and defaults of the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The domain that a login name without `@` belongs to. Empty: such a login is refused, because one name could
    /// mean several people.
    pub login_domain: String,
    /// Where mail for `<Postmaster>` without a domain goes, and for the postmaster of a domain that has no such name
    /// (RFC 5321 §4.5.1 wants somebody to read it). Empty: such mail is refused.
    pub postmaster: String,
    /// What separates a name from its detail in an address (`alice+lists@…`), for domains that say nothing else.
    /// Several characters: any of them separates. Empty: no subaddressing. Plus is what nearly everyone expects.
    pub subaddress_delimiters: String,
    /// Members that one mailing list can have. A list is one record; this keeps it below a quarter megabyte.
    pub list_members_max: usize,
    /// Targets that one alias can have. What needs more is a list.
    pub alias_targets_max: usize,
    /// Addresses that one recipient can become through aliases and lists. More than this fails for the sender: the
    /// fan-out of one message has to be bounded somewhere.
    pub expansion_targets_max: usize,
    /// How many aliases and lists can point to one another in a chain. Real set-ups stay below four.
    pub expansion_depth_max: usize,
    /// Application passwords that one account can have.
    pub app_passwords_max: usize,
    /// Programs and browsers that one account can have allowed at one time to act for it.
    pub grants_max: usize,
    /// For how long such a permission stays without being used.
    pub grant_idle_seconds: u64,
    /// For how long an access token is good: what a program logs in with, made anew by itself from its permission.
    pub access_token_seconds: u64,
    /// For how long a program may take to come for what its user has agreed to (RFC 6749 §4.1.2 wants ten minutes at most).
    pub authorization_code_seconds: u64,
    /// For how long a refresh token is taken once more, since an answer can be lost. After that it counts as stolen, and what
    /// it came of ends.
    pub refresh_again_seconds: u64,
    /// Seconds between two looks whether those who are logged in still may be. What is changed on this machine ends their
    /// sessions at once; this is for what another node has changed.
    pub logins_checked_seconds: u64,
    /// The shortest password that can be set (NIST SP 800-63B asks for eight).
    pub password_length_min: usize,
    /// The longest password, in octets, that is set or tried. It bounds the work on what strangers send.
    pub password_length_max: usize,
    /// The cost of a password hash.
    pub argon2: Argon2Config,
    /// PBKDF2 iterations of a new SCRAM-SHA-256 verifier. The client pays for them at each login; RFC 7677 asks for at
    /// least 4 096, and phones manage this number in well under a second.
    pub scram_iterations: u32,
    /// Password hashes computed at one time. Zero: one per core.
    pub hashing_concurrent_max: usize,
    /// Logins that can wait for a hash to be computed. Beyond this a login is answered with a temporary failure.
    pub hashing_waiting_max: usize,
    /// For how long a password that was right is taken again without computing the slow hash. Mail clients open many
    /// connections at once. Zero: always compute.
    pub verified_seconds: u64,
    /// Failed logins of one account, from wherever they come and at whichever node: nodes tell each other over NATS. While they
    /// cannot, each node has its share of the limits.
    pub throttle_account: ThrottleConfig,
    /// Failed logins from one network (IPv4 address, IPv6 /64), whatever the account.
    pub throttle_network: ThrottleConfig,
    /// Accounts and networks that are remembered for throttling, each; the one heard of longest ago is forgotten
    /// first. An entry takes about a hundred octets.
    pub throttle_entries_max: usize,
    /// Domains whose directory this node keeps open, with what it has read of them.
    pub domains_open_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            login_domain: String::new(),
            postmaster: String::new(),
            subaddress_delimiters: "+".to_owned(),
            list_members_max: 5_000,
            alias_targets_max: 100,
            expansion_targets_max: 10_000,
            expansion_depth_max: 10,
            app_passwords_max: 50,
            grants_max: 100,
            grant_idle_seconds: 90 * 24 * 3_600,
            access_token_seconds: 3_600,
            authorization_code_seconds: 60,
            refresh_again_seconds: 60,
            logins_checked_seconds: 25,
            password_length_min: 8,
            password_length_max: 1_024,
            argon2: Argon2Config::default(),
            scram_iterations: 100_000,
            hashing_concurrent_max: 0,
            hashing_waiting_max: 256,
            verified_seconds: 60,
            throttle_account: ThrottleConfig { failures_burst: 20, refill_seconds: 60 },
            throttle_network: ThrottleConfig { failures_burst: 30, refill_seconds: 20 },
            throttle_entries_max: 65_536,
            domains_open_max: 1_024,
        }
    }
}

/// The cost of an argon2id password hash. The defaults are the OWASP recommendation with the least memory: about
/// 20 ms on one core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Argon2Config {
    /// Memory that one hash fills.
    pub memory_kib: u32,
    /// Passes over that memory.
    pub passes: u32,
    /// Lanes, which change the result but are not computed in parallel here.
    pub lanes: u32,
}

impl Default for Argon2Config {
    fn default() -> Self {
        Self { memory_kib: 19_456, passes: 2, lanes: 1 }
    }
}

/// A bucket of failures that refills with time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThrottleConfig {
    /// Failures in a row before logins are refused unseen.
    pub failures_burst: u32,
    /// Seconds after which one more is allowed.
    pub refill_seconds: u64,
}
