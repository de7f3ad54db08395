//! Passwords for single applications: made here, shown once, limited to some services, withdrawn one by one.

use std::fmt;

use aws_lc_rs::{hmac, rand};
use serde::{Deserialize, Serialize};

use crate::credential::PasswordRefused;

/// Letters and digits that are not mistaken for one another when read aloud or copied by hand; 32 of them, so that
/// each carries five bits.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// 25 characters carry 125 random bits.
const LENGTH: usize = 25;
const GROUP: usize = 5;

/// What is kept of an application password.
///
/// It has 125 random bits, so that a fast hash protects it as well as a slow one would.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppPassword {
    /// What the owner calls it; unique within the account.
    pub name: String,
    /// Where it is good for a login.
    pub services: ServiceSet,
    /// The key of the hash.
    pub salt: [u8; 16],
    /// `HMAC-SHA-256(salt, password)`.
    pub hash: [u8; 32],
    /// Unix seconds.
    pub created: u64,
}

impl fmt::Debug for AppPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppPassword")
            .field("name", &self.name)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

/// A new application password in clear, to be shown once.
#[derive(Clone, PartialEq, Eq)]
pub struct AppSecret(String);

impl AppSecret {
    /// The password, in groups of five.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AppSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppSecret(…)")
    }
}

impl AppPassword {
    /// Makes one.
    pub fn generate(
        name: &str,
        services: ServiceSet,
        now: u64,
    ) -> Result<(Self, AppSecret), PasswordRefused> {
        let mut random = [0; LENGTH + 16];
        rand::fill(&mut random).map_err(|_| PasswordRefused::Computation)?;
        let (characters, salt) = random.split_at(LENGTH);
        let bare: String =
            characters.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect();
        let salt: [u8; 16] = salt.try_into().expect("the array has 16 octets left");
        let shown = bare
            .as_bytes()
            .chunks(GROUP)
            .map(|group| String::from_utf8_lossy(group).into_owned())
            .collect::<Vec<_>>()
            .join("-");
        let this = Self { name: name.to_owned(), services, salt, hash: hash(&salt, &bare), created: now };
        Ok((this, AppSecret(shown)))
    }

    /// Whether this is the password; case, spaces and hyphens do not matter.
    pub fn verify(&self, password: &str) -> bool {
        let Some(bare) = bare(password) else { return false };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.salt);
        hmac::verify(&key, bare.as_bytes(), &self.hash).is_ok()
    }
}

fn hash(salt: &[u8; 16], bare: &str) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), bare.as_bytes());
    tag.as_ref().try_into().expect("SHA-256 gives 32 octets")
}

/// What was typed, without its decoration; `None` if it cannot be an application password.
fn bare(password: &str) -> Option<String> {
    if password.len() > 2 * LENGTH {
        return None;
    }
    let bare: String =
        password.chars().filter(|c| !matches!(c, ' ' | '-')).map(|c| c.to_ascii_lowercase()).collect();
    (bare.len() == LENGTH && bare.bytes().all(|byte| ALPHABET.contains(&byte))).then_some(bare)
}

/// A service that takes logins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// Submission over SMTP.
    Smtp,
    /// IMAP.
    Imap,
    /// POP3.
    Pop3,
    /// JMAP and the web interface.
    Jmap,
    /// ManageSieve.
    Sieve,
}

impl Service {
    /// All of them, in the order of their bits in [`ServiceSet`].
    pub const ALL: [Self; 5] = [Self::Smtp, Self::Imap, Self::Pop3, Self::Jmap, Self::Sieve];

    /// The name in configuration and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Imap => "imap",
            Self::Pop3 => "pop3",
            Self::Jmap => "jmap",
            Self::Sieve => "sieve",
        }
    }

    fn bit(self) -> u16 {
        1 << (self as u16)
    }
}

/// Some services. Stored as bits: bit n is the n-th of [`Service::ALL`], which only grows at its end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct ServiceSet(u16);

impl ServiceSet {
    /// Every service, later ones too.
    pub const ALL: Self = Self(u16::MAX);

    /// Whether the service is one of them.
    pub fn contains(self, service: Service) -> bool {
        self.0 & service.bit() != 0
    }

    /// Those in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    pub(crate) fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// None of them.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those known today.
    pub fn iter(self) -> impl Iterator<Item = Service> {
        Service::ALL.into_iter().filter(move |service| self.contains(*service))
    }
}

impl FromIterator<Service> for ServiceSet {
    fn from_iter<I: IntoIterator<Item = Service>>(services: I) -> Self {
        Self(services.into_iter().fold(0, |bits, service| bits | service.bit()))
    }
}

impl fmt::Debug for ServiceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_verifies_however_it_is_typed() {
        let (kept, secret) = AppPassword::generate("phone", ServiceSet::ALL, 1).unwrap();
        let shown = secret.reveal();
        assert_eq!(shown.len(), LENGTH + 4);
        assert!(kept.verify(shown));
        assert!(kept.verify(&shown.to_uppercase()));
        assert!(kept.verify(&shown.replace('-', "")));
        assert!(kept.verify(&shown.replace('-', " ")));
        assert!(!kept.verify(&shown[..LENGTH]));
        assert!(!kept.verify(""));
        assert!(!kept.verify(&"-".repeat(100_000)));
        let (_, other) = AppPassword::generate("phone", ServiceSet::ALL, 1).unwrap();
        assert!(!kept.verify(other.reveal()));
    }

    #[test]
    fn sets_hold_what_they_were_made_of() {
        let set: ServiceSet = [Service::Imap, Service::Smtp].into_iter().collect();
        assert!(set.contains(Service::Imap) && set.contains(Service::Smtp) && !set.contains(Service::Jmap));
        assert_eq!(set.iter().collect::<Vec<_>>(), [Service::Smtp, Service::Imap]);
        assert!(ServiceSet::default().is_empty());
    }
}
