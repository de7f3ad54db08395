//! The key-encryption key, from a file.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rand::RngCore;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::material::Material;

const FIRST_LINE: &str = "postrider key-encryption key v1";
/// Far more than a key file has.
const FILE_BYTES_MAX: u64 = 4096;

/// The key that all other keys are sealed by. It is never in the database; who has neither it nor a running server reads
/// nothing.
pub struct KeyEncryptionKey {
    pub(super) material: Material,
    fingerprint: Fingerprint,
    messages: Zeroizing<[u8; 32]>,
}

impl KeyEncryptionKey {
    /// Reads the key file. It must be the owner's alone (mode 0600 or 0400).
    pub fn read(path: &Path) -> Result<Self, KekError> {
        let failed = |source| KekError::Io { path: path.into(), source };
        let file = fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KekError::Exposed { path: path.into(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        let secret = parse(&text).ok_or_else(|| KekError::Malformed { path: path.into() })?;
        Ok(Self::from_secret(&secret))
    }

    /// Reads the key file, and makes one with a random key when there is none: for a first start. Where it exists but
    /// cannot be read it is left alone.
    pub fn read_or_create(path: &Path) -> Result<Self, KekError> {
        match Self::read(path) {
            Err(KekError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                create(path).map_err(|source| KekError::Io { path: path.into(), source })?;
                tracing::info!(path = %path.display(), "created a key-encryption key; without it nothing stored can be read");
                Self::read(path)
            }
            other => other,
        }
    }

    /// From the secret itself, for tests and key services.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        let hash = blake3::derive_key("postrider key-encryption key fingerprint v1", secret);
        let fingerprint = Fingerprint(*hash.first_chunk().expect("a hash has 32 bytes"));
        let messages = Zeroizing::new(blake3::derive_key("postrider node messages secret v1", secret));
        Self { material: Material::new(secret), fingerprint, messages }
    }

    /// A secret that all nodes with this key have, to tell each other's messages from forged ones. Says nothing about the
    /// key.
    pub fn message_secret(&self) -> &[u8; 32] {
        &self.messages
    }

    /// What tells this key from others and nothing more. A node whose fingerprint differs from the registry's must not
    /// start.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyEncryptionKey({})", self.fingerprint)
    }
}

/// Identifies a key-encryption key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Why there is no key-encryption key.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// The file could not be read or written.
    #[error("key file {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others than the owner may read the file.
    #[error("key file {} has mode {mode:03o}; it must not be readable by group or others (chmod 600)", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file has something else.
    #[error("key file {} does not hold a key-encryption key", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// Written aside, then linked to its name, so that a crash leaves a whole key or none, and of two servers that start at
/// once one finds the other's key.
fn create(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    let mut secret = Zeroizing::new([0u8; 32]);
    rand::rng().fill_bytes(secret.as_mut_slice());
    let mut text = Zeroizing::new(format!("{FIRST_LINE}\n"));
    for byte in secret.iter() {
        text.push(char::from_digit(u32::from(byte >> 4), 16).expect("a digit"));
        text.push(char::from_digit(u32::from(byte & 15), 16).expect("a digit"));
    }
    text.push('\n');
    let aside = parent.join(format!(".key-{}", uuid::Uuid::new_v4().as_simple()));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    let linked = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
        match fs::hard_link(&aside, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    });
    fs::remove_file(&aside)?;
    linked?;
    fs::File::open(parent)?.sync_all()
}

fn parse(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut lines = text.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let digits = lines.next()?.as_bytes();
    if digits.len() != 64 || lines.any(|line| !line.is_empty()) {
        return None;
    }
    let mut secret = Zeroizing::new([0; 32]);
    for (byte, pair) in secret.iter_mut().zip(digits.as_chunks::<2>().0) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high << 4 | low) as u8;
    }
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn created_once_private_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/kek");
        assert!(matches!(KeyEncryptionKey::read(&path), Err(KekError::Io { .. })));
        let first = KeyEncryptionKey::read_or_create(&path).unwrap().fingerprint();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(KeyEncryptionKey::read_or_create(&path).unwrap().fingerprint(), first);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing left aside");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            KeyEncryptionKey::read_or_create(&path),
            Err(KekError::Exposed { mode: 0o640, .. })
        ));
    }

    #[test]
    fn anything_else_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kek");
        let digits = "0f".repeat(32);
        for text in [
            String::new(),
            format!("{FIRST_LINE}\n"),
            format!("{FIRST_LINE}\n{}\n", &digits[1..]),
            format!("{FIRST_LINE}\n{digits}0\n"),
            format!("{FIRST_LINE}\n{digits}\nmore\n"),
            format!("postrider key-encryption key v2\n{digits}\n"),
            format!("{FIRST_LINE}\n{}\n", "zz".repeat(32)),
        ] {
            fs::write(&path, &text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(
                matches!(KeyEncryptionKey::read_or_create(&path), Err(KekError::Malformed { .. })),
                "{text}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, format!("{FIRST_LINE}\n{digits}\n")).unwrap();
        let key = KeyEncryptionKey::read(&path).unwrap();
        assert_eq!(key.fingerprint(), KeyEncryptionKey::from_secret(&[0x0f; 32]).fingerprint());
    }
}
