//! Tokens: who may use the admin API over TCP. Kept as hashes in rows of the engine, so that a token is good at every node
//! of an installation, whichever made it.
//!
//! Rows of table `Mark`, partition `admin tokens`, key: the name; value: `version 1 · the token in JSON`; written by
//! conditions alone. A node reads them all at once, and again when what it knows is older than the configured time: so
//! long a token that was withdrawn at another node can go on being good here. A token that is not known has them read again,
//! once in a second.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{constant_time, digest, rand};
use bytes::Bytes;
use engine::rows::successor;
use engine::{EngineError, RowKey, Rows, Table, with_causes};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::caller::Scope;
use super::config::Config;

/// Stands in front of every token, so that one that leaked into a log or a repository is recognised.
const PREFIX: &str = "postrider_";

const PARTITION: &[u8] = b"admin tokens";
/// The first byte of a row.
const VERSION: u8 = 1;
/// Rows read at once.
const SCAN: usize = 256;
/// How often a token is put until somebody says what became of it.
const PUTS_MAX: u32 = 4;
/// How often a token that is not known has the rows read again.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// A token as it is kept: the secret itself is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// What it is called.
    pub name: String,
    /// What it is good for.
    pub scopes: Vec<Scope>,
    /// When it was made, in Unix seconds.
    pub created: u64,
    /// When it ceases to be good, in Unix seconds; `None`: never.
    pub expires: Option<u64>,
    /// SHA-256 of the secret, in hexadecimal. The secret has 256 random bits, which no slow hash could protect better.
    hash: String,
}

/// Why a token was not made or withdrawn.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// There is one of this name.
    #[error("token {0:?} exists already")]
    Exists(String),
    /// There is none of this name.
    #[error("no such token: {0:?}")]
    Missing(String),
    /// The name or the scopes cannot be used.
    #[error("{0}")]
    Invalid(&'static str),
    /// The configured number of tokens exists.
    #[error("more than {0} tokens")]
    TooMany(usize),
    /// The file of an earlier release could not be read, or not be put away.
    #[error("cannot use {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The rows could not be read or written. After a change it may have been made or not.
    #[error("tokens cannot be read or written: {0}")]
    Rows(String),
    /// The system gave no random numbers.
    #[error("no random numbers")]
    Random,
}

/// All tokens of an installation, as one node sees them.
pub struct Tokens {
    rows: Arc<dyn Rows>,
    max: usize,
    read_every: Duration,
    known: Mutex<Option<Known>>,
}

#[derive(Clone)]
struct Known {
    tokens: Arc<[Token]>,
    read: Instant,
}

impl Tokens {
    /// Those in these rows; nothing is read yet.
    pub fn new(rows: Arc<dyn Rows>, config: &Config) -> Self {
        let read_every = Duration::from_secs(config.tokens_read_seconds);
        Self { rows, max: config.tokens_max, read_every, known: Mutex::default() }
    }

    /// Takes over the file in which an earlier release kept a node's own tokens, if there is one, and puts it away. One
    /// whose name another token has gets another.
    pub async fn take_over(&self, path: &Path) -> Result<(), TokenError> {
        let failed = |source| TokenError::File { path: path.to_owned(), source };
        let tokens: Vec<Token> = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(io::Error::other(error)))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        for token in tokens {
            let name = format!("{} {}", token.name, token.hash.get(..8).unwrap_or_default());
            if self.list().await?.iter().any(|known| known.has(&token.hash)) {
                continue;
            }
            match self.put(&token).await {
                Err(TokenError::Exists(_)) => self.put(&Token { name, ..token }).await?,
                put => put?,
            }
        }
        fs::rename(path, path.with_extension("json.taken-over")).map_err(failed)
    }

    /// All tokens, without their secrets.
    pub async fn list(&self) -> Result<Vec<Token>, TokenError> {
        Ok(self.read().await?.to_vec())
    }

    /// The token with this secret, unless it has expired. While the rows cannot be read, what was known goes on being
    /// good: whoever looks why needs it.
    pub async fn find(&self, secret: &str) -> Result<Option<Token>, TokenError> {
        if secret.len() > 256 {
            return Ok(None);
        }
        let hash = hash(secret);
        for age_max in [self.read_every, READ_AGAIN.min(self.read_every)] {
            if let Some(token) = self.read_within(age_max).await?.iter().find(|token| token.has(&hash)) {
                return Ok(Some(token.clone()).filter(Token::is_good));
            }
        }
        Ok(None)
    }

    /// Makes a token and gives its secret, which is not seen again.
    pub async fn create(
        &self,
        name: &str,
        scopes: Vec<Scope>,
        expires: Option<u64>,
    ) -> Result<(Token, String), TokenError> {
        if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
            return Err(TokenError::Invalid("the name is empty, too long, or holds control characters"));
        }
        if scopes.is_empty() {
            return Err(TokenError::Invalid("a token without scopes is good for nothing"));
        }
        let mut random = [0; 32];
        rand::fill(&mut random).map_err(|_| TokenError::Random)?;
        let secret = format!("{PREFIX}{}", hex(&random));
        let token =
            Token { name: name.to_owned(), scopes, created: unix_now(), expires, hash: hash(&secret) };
        let tokens = self.read().await?;
        if tokens.iter().any(|other| other.name == name) {
            return Err(TokenError::Exists(name.to_owned()));
        }
        if tokens.len() >= self.max {
            return Err(TokenError::TooMany(self.max));
        }
        self.put(&token).await?;
        Ok((token, secret))
    }

    /// Withdraws a token: here at once, at other nodes when they read again.
    pub async fn delete(&self, name: &str) -> Result<(), TokenError> {
        let key = key(name);
        let missing = || TokenError::Missing(name.to_owned());
        let row = self.rows.get(key.clone()).await.map_err(rows_failed)?.ok_or_else(missing)?;
        let deleted = self.rows.replace_if(key.clone(), Some(row), None).await;
        self.known.lock().take();
        match deleted {
            Ok(true) => Ok(()),
            // Somebody else was faster.
            Ok(false) => Err(missing()),
            Err(error) => match self.rows.get(key).await {
                Ok(None) => Ok(()),
                _ => Err(rows_failed(error)),
            },
        }
    }

    /// Nodes that start at once put theirs at once, into one partition: one that is not told what became of its own asks
    /// again.
    async fn put(&self, token: &Token) -> Result<(), TokenError> {
        let value = write(token)?;
        let mut tries = 1;
        loop {
            let put = self.rows.replace_if(key(&token.name), None, Some(value.clone())).await;
            self.known.lock().take();
            let failure = match put {
                Ok(true) => return Ok(()),
                Ok(false) => None,
                Err(error) => Some(error),
            };
            // It may have been put all the same, now or by the try before: no other token has this hash.
            match (self.rows.get(key(&token.name)).await, failure) {
                (Ok(Some(row)), _) if row == value => return Ok(()),
                (Ok(Some(_)), _) | (Ok(None), None) => return Err(TokenError::Exists(token.name.clone())),
                (Err(error), None) => return Err(rows_failed(error)),
                (_, Some(EngineError::Undecided { .. })) if tries < PUTS_MAX => tries += 1,
                (_, Some(error)) => return Err(rows_failed(error)),
            }
        }
    }

    async fn read_within(&self, age_max: Duration) -> Result<Arc<[Token]>, TokenError> {
        let known = self.known.lock().clone();
        match known {
            Some(known) if known.read.elapsed() < age_max => Ok(known.tokens),
            None => self.read().await,
            Some(known) => self.read().await.or_else(|error| {
                tracing::warn!(%error, "tokens are those that were known");
                Ok(known.tokens)
            }),
        }
    }

    async fn read(&self) -> Result<Arc<[Token]>, TokenError> {
        // From before they are read: what is withdrawn meanwhile may be in them.
        let read = Instant::now();
        let (mut tokens, mut from) = (Vec::new(), Bytes::new());
        loop {
            let scan = self.rows.scan(Table::Mark, Bytes::from_static(PARTITION), from, SCAN);
            let rows = scan.await.map_err(rows_failed)?;
            for (_, row) in &rows {
                tokens.push(understand(row)?);
            }
            match rows.last() {
                Some((last, _)) if rows.len() == SCAN => from = successor(last),
                _ => break,
            }
        }
        let tokens: Arc<[Token]> = tokens.into();
        *self.known.lock() = Some(Known { tokens: Arc::clone(&tokens), read });
        Ok(tokens)
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(..)")
    }
}

impl Token {
    fn has(&self, hash: &str) -> bool {
        constant_time::verify_slices_are_equal(self.hash.as_bytes(), hash.as_bytes()).is_ok()
    }

    fn is_good(&self) -> bool {
        self.expires.is_none_or(|expires| unix_now() < expires)
    }
}

fn key(name: &str) -> RowKey {
    RowKey::new(Table::Mark, PARTITION, name.as_bytes().to_vec())
}

fn write(token: &Token) -> Result<Bytes, TokenError> {
    let mut row = vec![VERSION];
    serde_json::to_writer(&mut row, token).map_err(|error| TokenError::Rows(error.to_string()))?;
    Ok(row.into())
}

fn understand(row: &[u8]) -> Result<Token, TokenError> {
    let text = row.strip_prefix(&[VERSION]).ok_or("another release wrote one".to_owned());
    let token = text.and_then(|text| serde_json::from_slice(text).map_err(|error| error.to_string()));
    token.map_err(TokenError::Rows)
}

fn rows_failed(error: EngineError) -> TokenError {
    TokenError::Rows(with_causes(&error))
}

fn hash(secret: &str) -> String {
    hex(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use engine::memory::{Faults, MemoryEngine};

    use super::*;

    fn node(engine: &MemoryEngine, tokens_max: usize) -> Tokens {
        let config = Config { tokens_max, tokens_read_seconds: 10, ..Config::default() };
        Tokens::new(engine.engine().rows, &config)
    }

    #[tokio::test]
    async fn tokens_survive_a_restart_and_secrets_are_not_kept() {
        let engine = MemoryEngine::new();
        let tokens = node(&engine, 2);
        let (token, secret) = tokens.create("deploy", vec![Scope::Read], None).await.unwrap();
        assert!(secret.starts_with(PREFIX) && secret.len() == PREFIX.len() + 64);
        let row = engine.engine().rows.get(key("deploy")).await.unwrap().unwrap();
        assert!(!String::from_utf8_lossy(&row).contains(&secret[PREFIX.len()..]));
        let again = tokens.create("deploy", vec![Scope::Read], None).await;
        assert!(matches!(again, Err(TokenError::Exists(_))));
        assert!(matches!(tokens.create("x", vec![], None).await, Err(TokenError::Invalid(_))));

        let tokens = node(&engine, 2);
        assert_eq!(tokens.find(&secret).await.unwrap(), Some(token));
        assert_eq!(tokens.find("postrider_").await.unwrap(), None);
        let (_, old) = tokens.create("old", vec![Scope::Write], Some(1)).await.unwrap();
        assert_eq!(tokens.find(&old).await.unwrap(), None, "expired");
        let third = tokens.create("third", vec![Scope::Read], None).await;
        assert!(matches!(third, Err(TokenError::TooMany(2))));
        tokens.delete("deploy").await.unwrap();
        assert_eq!(tokens.find(&secret).await.unwrap(), None);
        assert!(matches!(tokens.delete("deploy").await, Err(TokenError::Missing(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_at_every_node_and_withdrawn_at_all() {
        let engine = MemoryEngine::new();
        let [here, there] = [(); 2].map(|()| node(&engine, 9));
        assert_eq!(there.find("postrider_").await.unwrap(), None, "it has read them");
        let (token, secret) = here.create("deploy", vec![Scope::Read], None).await.unwrap();
        tokio::time::advance(READ_AGAIN).await;
        assert_eq!(there.find(&secret).await.unwrap(), Some(token));
        here.delete("deploy").await.unwrap();
        assert_eq!(here.find(&secret).await.unwrap(), None, "here at once");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(there.find(&secret).await.unwrap(), None);
        assert!(there.list().await.unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_good_while_nothing_can_be_read() {
        let engine = MemoryEngine::new();
        let tokens = node(&engine, 9);
        let (_, secret) = tokens.create("metrics", vec![Scope::Metrics], None).await.unwrap();
        assert!(tokens.find(&secret).await.unwrap().is_some());
        engine.set_faults(Faults { unavailable: 1.0, ..Faults::default() });
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(tokens.find(&secret).await.unwrap().is_some());
        assert!(tokens.list().await.is_err() && tokens.delete("metrics").await.is_err());
        assert!(node(&engine, 9).find(&secret).await.is_err(), "unknown is not wrong");
    }

    #[tokio::test]
    async fn a_token_is_made_though_nobody_says_so() {
        for seed in 0..50 {
            let faults = Faults { seed, unknown_applied: 0.2, unknown_not_applied: 0.2, ..Faults::default() };
            let engine = MemoryEngine::with_faults(faults);
            let tokens = node(&engine, 9);
            let (_, secret) = tokens.create("metrics", vec![Scope::Metrics], None).await.unwrap();
            assert!(tokens.find(&secret).await.unwrap().is_some(), "seed {seed}");
            let again = tokens.create("metrics", vec![Scope::Metrics], None).await;
            assert!(matches!(again, Err(TokenError::Exists(_))), "seed {seed}");
        }
    }

    #[tokio::test]
    async fn files_of_an_earlier_release_are_taken_over() {
        let (engine, folder) = (MemoryEngine::new(), tempfile::tempdir().unwrap());
        for number in [1, 2] {
            let path = folder.path().join(format!("{number}.json"));
            let hash = hash(&format!("secret {number}"));
            let file = format!(
                r#"[{{"name": "metrics", "scopes": ["metrics"], "created": 7, "expires": null, "hash": "{hash}"}}]"#
            );
            fs::write(&path, file).unwrap();
            // As often as it is tried.
            for _ in 0..2 {
                node(&engine, 9).take_over(&path).await.unwrap();
            }
            assert!(!path.exists());
        }
        let tokens = node(&engine, 9);
        for secret in ["secret 1", "secret 2"] {
            assert!(tokens.find(secret).await.unwrap().is_some(), "{secret}");
        }
        assert_eq!(tokens.list().await.unwrap().len(), 2);
        let damaged = folder.path().join("damaged.json");
        fs::write(&damaged, "[{\"name\":").unwrap();
        assert!(matches!(tokens.take_over(&damaged).await, Err(TokenError::File { .. })));
    }
}
