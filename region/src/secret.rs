//! What all regions know and nobody else: by it nodes tell each other from strangers.

use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Hexadecimal digits of a secret.
const DIGITS: usize = 64;
/// Far more than the file has.
const FILE_BYTES_MAX: u64 = 4096;

/// The regions' secret, 32 octets.
#[derive(Clone)]
pub struct RegionSecret(Zeroizing<[u8; 32]>);

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others may read it.
    #[error("{} has mode {mode:03o}; it must not be readable by group or others (chmod 600)", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It holds something else.
    #[error("{} does not hold {DIGITS} hexadecimal digits and nothing else", .0.display())]
    Malformed(PathBuf),
}

impl RegionSecret {
    /// Reads the file: 64 hexadecimal digits, mode 0600 or 0400.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let failed = |source| SecretError::Read { path: path.into(), source };
        let metadata = fs::metadata(path).map_err(failed)?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SecretError::Exposed { path: path.into(), mode });
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(SecretError::Malformed(path.into()));
        }
        let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
        Self::parse(text.trim()).ok_or_else(|| SecretError::Malformed(path.into()))
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != DIGITS {
            return None;
        }
        let mut secret = Zeroizing::new([0; 32]);
        for (octet, pair) in secret.iter_mut().zip(digits.chunks(2)) {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            *octet = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        Some(Self(secret))
    }

    /// The secret itself, to derive keys from.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// What tells this secret from others and says nothing more about it.
    pub fn fingerprint(&self) -> String {
        let hash = blake3::derive_key("postrider regions' secret fingerprint v1", &*self.0);
        hash[..16].iter().fold(String::new(), |mut text, octet| {
            write!(text, "{octet:02x}").expect("a string takes all");
            text
        })
    }

    /// The key by which what is said on a link is authenticated.
    pub(crate) fn link_key(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key("postrider links between regions v1", &*self.0))
    }
}

impl fmt::Debug for RegionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegionSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_all_digits_are_a_secret() {
        let check = |text: &str, expected: bool| {
            assert_eq!(RegionSecret::parse(text).is_some(), expected, "{text:?}");
        };
        check(&"0a".repeat(32), true);
        check(&"0A".repeat(32), true);
        check(&"0a".repeat(31), false);
        check(&"0g".repeat(32), false);
        check(&"0a".repeat(33), false);
        check("", false);
        let secret = RegionSecret::parse(&format!("ff{}", "01".repeat(31))).expect("digits");
        assert_eq!(secret.expose()[..2], [255, 1]);
    }
}
