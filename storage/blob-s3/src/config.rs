//! How the S3 back end works.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};

/// Least bytes of a part but the last: S3 refuses smaller ones when an upload is completed.
pub(crate) const PART_BYTES_MIN: usize = 5 << 20;
/// Most parts of an upload.
pub(crate) const PARTS_MAX: i32 = 10_000;

/// Where segments lie in S3, and limits, each with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// URL of the service, `http://` or `https://`. Not given: Amazon's own of the region.
    pub endpoint: Option<String>,
    /// Certificates (PEM) that are trusted instead of the system's, for a service of one's own. They then hold for whatever
    /// gives out credentials too.
    pub ca_file: Option<PathBuf>,
    /// Region, which also goes into signatures. Services other than Amazon's mostly take any.
    pub region: String,
    /// Bucket. It has to be there.
    pub bucket: String,
    /// What all keys begin with; a slash is added where it does not end in one. Empty: nothing.
    pub prefix: String,
    /// Whether the bucket stands in the path instead of the host name. Most services other than Amazon's need it.
    pub path_style: bool,
    /// Credentials. Not given: what the environment, the shared credentials file or the role of the instance say, in
    /// the order of Amazon's own tools.
    pub access_key_id: Option<String>,
    /// The secret that belongs to `access_key_id`.
    pub secret_access_key: Option<Secret>,
    /// The token that belongs to them, where they are temporary.
    pub session_token: Option<Secret>,
    /// Shared credentials file, in the format of Amazon's tools, in place of the usual one.
    pub credentials_file: Option<PathBuf>,
    /// Section of the shared credentials file.
    pub credentials_profile: Option<String>,
    /// Encryption that the service applies, besides ours: some organisations ask for it.
    pub encryption: Encryption,
    /// Key of the service for `aws:kms`. Not given: the account's default key.
    pub encryption_key_id: Option<String>,
    /// An attempt that takes longer is given up and made again: time for a part at ten megabits a second, twice over.
    pub attempt_seconds_max: u64,
    /// A call fails when it has taken this long with all its attempts. Well below the ten minutes that SMTP senders wait
    /// for the answer to their message (RFC 5321 §4.5.3.2.6).
    pub call_seconds_max: u64,
    /// Attempts after the first, when the service is not reached, is busy or fails.
    pub retries_max: u32,
    /// The pause before an attempt is random up to a bound, which begins here and doubles.
    pub retry_pause_ms: u64,
    /// Where the doubling ends.
    pub retry_pause_ms_max: u64,
    /// Bytes of a part of a large segment; a smaller segment goes in one piece. At least 5 MiB, which S3 asks for. Ten
    /// thousand parts must hold the largest blob.
    pub part_bytes: usize,
    /// Parts of one segment on their way at once. Two keep the way busy while the next one fills.
    pub parts_in_flight_max: usize,
    /// Parts of all segments on their way at once; bounds memory (times `part_bytes`) and leaves room for small messages.
    pub uploads_in_flight_max: usize,
    /// Bytes of unfinished parts in memory, of all segments together. Beyond it they wait in temporary files, so that
    /// many slow senders of large messages need no memory and wait for nobody.
    pub waiting_bytes_max: usize,
    /// Folder for those temporary files. Not given: the system's. They have no name and are gone with the process.
    pub waiting_folder: Option<PathBuf>,
    /// Reads at once. Each is a connection.
    pub reads_in_flight_max: usize,
    /// Largest single read. A frame is read whole up to half a megabyte, an index is larger.
    pub read_bytes_max: u64,
    /// Folder of the cache on disk, of one process alone. Not given: no cache.
    pub cache_folder: Option<PathBuf>,
    /// Bytes that the cache may use. Mail is read within days of its coming or never.
    pub cache_bytes_max: u64,
    /// The cache keeps blocks of this size; a read of less fetches as much. One chunk of a message: smaller ones would
    /// make more requests, and a request costs more than the bytes.
    pub cache_block_bytes: u64,
    /// Reads of more than this go past the cache: checks and compaction, which read everything once.
    pub cached_read_bytes_max: u64,
    /// How far each range that a reader announces is fetched ahead. At fifty milliseconds a request, 2 MiB make forty
    /// megabytes a second of one reader.
    pub read_ahead_bytes: u64,
    /// Blocks fetched ahead at once, of all readers together. What is announced beyond them is not fetched ahead.
    pub read_ahead_in_flight_max: usize,
    /// Takes an id that is in use for another's, although a lost answer may have been to our own write. A defect to be
    /// planted, to see that a test notices it; never in a server.
    #[cfg(any(test, feature = "sabotage"))]
    #[serde(skip)]
    pub believe_every_conflict: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: None,
            ca_file: None,
            region: "us-east-1".into(),
            bucket: String::new(),
            prefix: "segments/".into(),
            path_style: false,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            credentials_file: None,
            credentials_profile: None,
            encryption: Encryption::None,
            encryption_key_id: None,
            attempt_seconds_max: 15,
            call_seconds_max: 60,
            retries_max: 8,
            retry_pause_ms: 50,
            retry_pause_ms_max: 5_000,
            part_bytes: 8 << 20,
            parts_in_flight_max: 2,
            uploads_in_flight_max: 8,
            waiting_bytes_max: 64 << 20,
            waiting_folder: None,
            reads_in_flight_max: 64,
            read_bytes_max: 64 << 20,
            cache_folder: None,
            cache_bytes_max: 10 << 30,
            cache_block_bytes: 256 << 10,
            cached_read_bytes_max: 1 << 20,
            read_ahead_bytes: 2 << 20,
            read_ahead_in_flight_max: 16,
            #[cfg(any(test, feature = "sabotage"))]
            believe_every_conflict: false,
        }
    }
}

impl Config {
    /// Says what of it cannot be.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |what| Err(ConfigError(what));
        if self.bucket.is_empty() {
            return wrong("bucket is missing");
        }
        if self.access_key_id.is_some() != self.secret_access_key.is_some() {
            return wrong("access_key_id and secret_access_key belong together");
        }
        if self.part_bytes < PART_BYTES_MIN {
            return wrong("part_bytes is less than 5 MiB, which S3 refuses");
        }
        if self.encryption != Encryption::Kms && self.encryption_key_id.is_some() {
            return wrong("encryption_key_id is for encryption = \"aws:kms\"");
        }
        if !(4 << 10..=64 << 20).contains(&self.cache_block_bytes) {
            return wrong("cache_block_bytes is not within 4 KiB and 64 MiB");
        }
        let none = self.attempt_seconds_max == 0
            || self.call_seconds_max == 0
            || self.parts_in_flight_max == 0
            || self.uploads_in_flight_max == 0
            || self.reads_in_flight_max == 0;
        if none {
            return wrong("a limit of zero lets nothing through");
        }
        Ok(())
    }

    /// The prefix as keys have it.
    pub(crate) fn key_prefix(&self) -> String {
        let prefix = self.prefix.trim_start_matches('/');
        if prefix.is_empty() || prefix.ends_with('/') { prefix.into() } else { format!("{prefix}/") }
    }
}

/// A setting that cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(&'static str);

/// What the service encrypts with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Encryption {
    /// Nothing is asked for; the bucket's own default holds.
    #[default]
    #[serde(rename = "none")]
    None,
    /// Keys of the service (SSE-S3).
    #[serde(rename = "AES256")]
    Aes256,
    /// A key of Amazon's key service (SSE-KMS).
    #[serde(rename = "aws:kms")]
    Kms,
}

/// Text that is shown to nobody: neither logs nor a written-out configuration have it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_shown_to_nobody() {
        let config = Config {
            access_key_id: Some("id".into()),
            secret_access_key: Some(Secret::new("hidden")),
            session_token: Some(Secret::new("hidden")),
            ..Config::default()
        };
        let shown = format!("{config:?} {}", toml::to_string(&config).unwrap());
        assert!(!shown.contains("hidden") && shown.contains("(not shown)"), "{shown}");
        let read: Config =
            toml::from_str("secret_access_key = \"hidden\"\nencryption = \"aws:kms\"").unwrap();
        assert_eq!(read.secret_access_key.unwrap().expose(), "hidden");
        assert_eq!(read.encryption, Encryption::Kms);
        assert!(toml::from_str::<Config>("buckets = \"x\"").is_err());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let good = Config { bucket: "mail".into(), ..Config::default() };
        assert_eq!(good.check(), Ok(()));
        assert_eq!(good.key_prefix(), "segments/");
        assert_eq!(Config { prefix: "/a/b".into(), ..good.clone() }.key_prefix(), "a/b/");
        assert_eq!(Config { prefix: String::new(), ..good.clone() }.key_prefix(), "");
        for bad in [
            Config::default(),
            Config { access_key_id: Some("id".into()), ..good.clone() },
            Config { part_bytes: PART_BYTES_MIN - 1, ..good.clone() },
            Config { encryption_key_id: Some("key".into()), ..good.clone() },
            Config { cache_block_bytes: 1, ..good.clone() },
            Config { call_seconds_max: 0, ..good.clone() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
