//! Generations: all shards under one format and one number of shards, and the file that says which generation counts.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mail::id::AccountId;

use crate::config::Config;
use crate::error::SearchError;
use crate::schema::{FORMAT, Fields};
use crate::shard::Shard;

const CURRENT: &str = "current";

/// A generation.
pub(crate) struct Generation {
    pub(crate) number: u32,
    dir: PathBuf,
    shards: Vec<Arc<Shard>>,
}

/// What `current` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Current {
    number: u32,
    shards: u16,
    format: u32,
}

impl Generation {
    /// The generation that counts; an empty one when there is none that this release can read. Whatever else lies there
    /// was left by a crash, and goes.
    pub(crate) fn open(config: &Config, fields: &Arc<Fields>) -> Result<Self, SearchError> {
        fs::create_dir_all(&config.dir)?;
        let current = read_current(&config.dir)?.filter(|current| {
            current.format == FORMAT
                && current.shards > 0
                && generation_dir(&config.dir, current.number).is_dir()
        });
        let generation = match current {
            Some(current) => Self::of(config, current.number, current.shards, fields),
            None => {
                let generation = Self::begin(config, fields)?;
                generation.make_current(config)?;
                generation
            }
        };
        for (number, dir) in generations(&config.dir)? {
            if number != generation.number {
                fs::remove_dir_all(dir)?;
            }
        }
        Ok(generation)
    }

    /// A new, empty generation, which does not count yet.
    pub(crate) fn begin(config: &Config, fields: &Arc<Fields>) -> Result<Self, SearchError> {
        let last = generations(&config.dir)?.into_iter().map(|(number, _)| number).max();
        let generation = Self::of(config, last.unwrap_or(0) + 1, config.shards.max(1), fields);
        fs::create_dir_all(&generation.dir)?;
        Ok(generation)
    }

    /// This one counts from now on.
    pub(crate) fn make_current(&self, config: &Config) -> Result<(), SearchError> {
        let current = Current { number: self.number, shards: self.shards.len() as u16, format: FORMAT };
        let fresh = config.dir.join("current.new");
        let mut file = fs::File::create(&fresh)?;
        file.write_all(current.encode().as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, config.dir.join(CURRENT))?;
        fs::File::open(&config.dir)?.sync_all()?;
        Ok(())
    }

    /// Its files go.
    pub(crate) fn remove(&self) -> Result<(), SearchError> {
        for shard in &self.shards {
            shard.retire();
        }
        Ok(fs::remove_dir_all(&self.dir)?)
    }

    /// The shards.
    pub(crate) fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// The number of the shard that an account is in.
    pub(crate) fn place(&self, account: AccountId) -> usize {
        let (high, low) = account.0.as_u64_pair();
        let mixed = (high ^ low).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        mixed as usize % self.shards.len()
    }

    /// The shard that an account is in.
    pub(crate) fn shard(&self, account: AccountId) -> &Arc<Shard> {
        &self.shards[self.place(account)]
    }

    fn of(config: &Config, number: u32, shards: u16, fields: &Arc<Fields>) -> Self {
        let dir = generation_dir(&config.dir, number);
        let shards =
            (0..shards).map(|shard| Arc::new(Shard::new(&dir, shard, config, fields.clone()))).collect();
        Self { number, dir, shards }
    }
}

impl Current {
    fn encode(self) -> String {
        let text = format!("{} {} {}", self.number, self.shards, self.format);
        format!("{text} {:08x}\n", crc32c::crc32c(text.as_bytes()))
    }

    fn decode(line: &str) -> Option<Self> {
        let (text, checksum) = line.trim_end().rsplit_once(' ')?;
        if u32::from_str_radix(checksum, 16) != Ok(crc32c::crc32c(text.as_bytes())) {
            return None;
        }
        let mut numbers = text.split(' ');
        let current = Self {
            number: numbers.next()?.parse().ok()?,
            shards: numbers.next()?.parse().ok()?,
            format: numbers.next()?.parse().ok()?,
        };
        numbers.next().is_none().then_some(current)
    }
}

fn read_current(dir: &Path) -> Result<Option<Current>, SearchError> {
    match fs::read(dir.join(CURRENT)) {
        Ok(bytes) => {
            let current = std::str::from_utf8(&bytes).ok().and_then(Current::decode);
            if current.is_none() {
                tracing::error!(dir = %dir.display(), "the file that names the search index is damaged");
            }
            Ok(current)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn generation_dir(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("g-{number:08}"))
}

fn generations(dir: &Path) -> Result<Vec<(u32, PathBuf)>, SearchError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.strip_prefix("g-")?.parse().ok());
        found.extend(number.map(|number| (number, entry.path())));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_current_says_is_checked() {
        let current = Current { number: 7, shards: 4, format: 1 };
        let line = current.encode();
        assert_eq!(Current::decode(&line), Some(current));
        for at in 0..line.len() - 1 {
            let mut bytes = line.clone().into_bytes();
            bytes[at] ^= 1;
            let damaged = String::from_utf8(bytes).expect("ASCII stays ASCII");
            assert_eq!(Current::decode(&damaged), None, "{damaged}");
        }
        assert_eq!(Current::decode(""), None);
    }

    #[test]
    fn a_generation_that_does_not_count_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config { dir: dir.path().to_owned(), shards: 3, ..Config::default() };
        let fields = Arc::new(Fields::new());
        let first = Generation::open(&config, &fields).expect("it opens");
        assert_eq!((first.number, first.shards.len()), (1, 3));
        let second = Generation::begin(&config, &fields).expect("it begins");
        assert_eq!(second.number, 2);
        let again = Generation::open(&config, &fields).expect("it opens");
        assert!(again.number == 1 && !second.dir.exists());
        // Another number of shards waits for the next generation.
        let config = Config { shards: 5, ..config };
        assert_eq!(Generation::open(&config, &fields).expect("it opens").shards.len(), 3);
        let third = Generation::begin(&config, &fields).expect("it begins");
        third.make_current(&config).expect("it counts");
        let again = Generation::open(&config, &fields).expect("it opens");
        assert!(again.number == 2 && again.shards.len() == 5 && !first.dir.exists());
        fs::write(dir.path().join(CURRENT), "2 5 1 00000000").expect("damaged");
        assert_eq!(Generation::open(&config, &fields).expect("it opens").number, 3);
    }
}
