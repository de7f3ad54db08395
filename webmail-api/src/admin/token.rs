//! Tokens: who may use the admin API over TCP. Kept as hashes in a file of the data folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{constant_time, digest, rand};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::caller::Scope;

/// Stands in front of every token, so that one that leaked into a log or a repository is recognised.
const PREFIX: &str = "postrider_";

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
    /// The file could not be read or written.
    #[error("cannot use {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system gave no random numbers.
    #[error("no random numbers")]
    Random,
}

/// All tokens.
#[derive(Debug)]
pub struct Tokens {
    path: PathBuf,
    max: usize,
    list: Mutex<Vec<Token>>,
}

impl Tokens {
    /// Reads the file; none is the same as an empty one.
    pub fn open(path: &Path, max: usize) -> Result<Self, TokenError> {
        let failed = |source| TokenError::File { path: path.to_owned(), source };
        let list = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(io::Error::other(error)))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        Ok(Self { path: path.to_owned(), max, list: Mutex::new(list) })
    }

    /// All tokens, without their secrets.
    pub fn list(&self) -> Vec<Token> {
        self.list.lock().clone()
    }

    /// The token with this secret, unless it has expired.
    pub fn find(&self, secret: &str) -> Option<Token> {
        if secret.len() > 256 {
            return None;
        }
        let hash = hash(secret);
        let same = |token: &&Token| {
            constant_time::verify_slices_are_equal(token.hash.as_bytes(), hash.as_bytes()).is_ok()
        };
        let list = self.list.lock();
        list.iter()
            .find(same)
            .filter(|token| token.expires.is_none_or(|expires| unix_now() < expires))
            .cloned()
    }

    /// Makes a token and gives its secret, which is not seen again. Writes a file, so it is called where blocking is
    /// allowed.
    pub fn create(
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
        let mut list = self.list.lock();
        if list.iter().any(|other| other.name == name) {
            return Err(TokenError::Exists(name.to_owned()));
        }
        if list.len() >= self.max {
            return Err(TokenError::TooMany(self.max));
        }
        let mut changed = list.clone();
        changed.push(token.clone());
        self.write(&changed)?;
        *list = changed;
        Ok((token, secret))
    }

    /// Withdraws a token. Writes a file, like [`Tokens::create`].
    pub fn delete(&self, name: &str) -> Result<(), TokenError> {
        let mut list = self.list.lock();
        let changed: Vec<Token> = list.iter().filter(|token| token.name != name).cloned().collect();
        if changed.len() == list.len() {
            return Err(TokenError::Missing(name.to_owned()));
        }
        self.write(&changed)?;
        *list = changed;
        Ok(())
    }

    /// Replaces the file: the new one is durable before it takes the old one's name.
    fn write(&self, list: &[Token]) -> Result<(), TokenError> {
        let failed = |source| TokenError::File { path: self.path.clone(), source };
        let next = self.path.with_extension("next");
        let bytes = serde_json::to_vec_pretty(list).map_err(|error| failed(io::Error::other(error)))?;
        let write = || -> io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&next, &self.path)?;
            match self.path.parent() {
                Some(folder) => File::open(folder)?.sync_all(),
                None => Ok(()),
            }
        };
        write().map_err(failed)
    }
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
    use super::*;

    #[test]
    fn tokens_survive_a_restart_and_secrets_are_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        let tokens = Tokens::open(&path, 2).unwrap();
        let (token, secret) = tokens.create("deploy", vec![Scope::Read], None).unwrap();
        assert!(secret.starts_with(PREFIX) && secret.len() == PREFIX.len() + 64);
        assert!(!fs::read_to_string(&path).unwrap().contains(&secret[PREFIX.len()..]));
        assert!(matches!(tokens.create("deploy", vec![Scope::Read], None), Err(TokenError::Exists(_))));
        assert!(matches!(tokens.create("x", vec![], None), Err(TokenError::Invalid(_))));

        let tokens = Tokens::open(&path, 2).unwrap();
        assert_eq!(tokens.find(&secret), Some(token));
        assert_eq!(tokens.find("postrider_"), None);
        let (_, old) = tokens.create("old", vec![Scope::Write], Some(1)).unwrap();
        assert_eq!(tokens.find(&old), None, "expired");
        assert!(matches!(tokens.create("third", vec![Scope::Read], None), Err(TokenError::TooMany(2))));
        tokens.delete("deploy").unwrap();
        assert_eq!(tokens.find(&secret), None);
        assert!(matches!(tokens.delete("deploy"), Err(TokenError::Missing(_))));
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        fs::write(&path, "[{\"name\":").unwrap();
        assert!(matches!(Tokens::open(&path, 2), Err(TokenError::File { .. })));
    }
}
