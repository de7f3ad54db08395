//! A password at rest: an argon2id PHC string for protocols that send the password, and a SCRAM-SHA-256 verifier
//! (RFC 5802 §3, RFC 7677) for those that do not.
//!
//! A hash that was brought along from another server has no verifier, since that needs the password itself; SCRAM is
//! not offered to such an account until its password is set anew.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use aws_lc_rs::{digest, hmac, pbkdf2, rand};
use serde::{Deserialize, Serialize};

use crate::config::{Argon2Config, Config};

/// The most memory that an imported hash can ask for. Verification costs what the hash says, so that one made
/// elsewhere must not say anything it likes.
const IMPORTED_MEMORY_KIB_MAX: u32 = 256 * 1024;
/// The most passes that an imported hash can ask for.
const IMPORTED_PASSES_MAX: u32 = 16;
/// The most lanes that an imported hash can ask for.
const IMPORTED_LANES_MAX: u32 = 16;
const SALT_LEN: usize = 16;

/// What is kept of a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// The hash as a PHC string.
    pub phc: String,
    /// Absent for imported hashes.
    pub scram: Option<ScramVerifier>,
    /// When it was set, in Unix seconds.
    pub changed: u64,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("scram", &self.scram.is_some()).finish_non_exhaustive()
    }
}

/// A SCRAM-SHA-256 verifier (RFC 5802 §3).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScramVerifier {
    /// PBKDF2 iterations.
    pub iterations: u32,
    /// The salt.
    pub salt: Vec<u8>,
    /// `H(ClientKey)`.
    pub stored_key: [u8; 32],
    /// `HMAC(SaltedPassword, "Server Key")`.
    pub server_key: [u8; 32],
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramVerifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// Why a password was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PasswordRefused {
    /// Shorter than the configured minimum.
    #[error("password shorter than {min} characters")]
    TooShort {
        /// The minimum.
        min: usize,
    },
    /// Longer than the configured maximum.
    #[error("password longer than {max} octets")]
    TooLong {
        /// The maximum.
        max: usize,
    },
    /// Control characters or code points without a meaning (RFC 4013 §2.3): a client could not send it again.
    #[error("password holds characters that cannot be used in one")]
    Characters,
    /// An imported hash of a kind that is not understood, or out of bounds.
    #[error("not a usable password hash: {0}")]
    Hash(String),
    /// The system gave no random numbers, or there was no memory to compute the hash.
    #[error("the password hash could not be computed")]
    Computation,
}

impl Credential {
    /// Hashes a new password. This takes the time that argon2 and PBKDF2 take, so it is called off the async threads.
    pub fn new(password: &str, config: &Config, now: u64) -> Result<Self, PasswordRefused> {
        let prepared = acceptable(password, config)?;
        let hasher = argon2(&config.argon2).ok_or(PasswordRefused::Computation)?;
        let phc = hasher.hash_password(prepared.as_bytes()).map_err(|_| PasswordRefused::Computation)?;
        let scram = ScramVerifier::new(&prepared, config.scram_iterations)?;
        Ok(Self { phc: phc.to_string(), scram: Some(scram), changed: now })
    }

    /// Takes over an argon2 hash that another server made.
    pub fn import(phc: &str, now: u64) -> Result<Self, PasswordRefused> {
        let refused = |why: &str| PasswordRefused::Hash(why.to_owned());
        if phc.len() > 512 {
            return Err(refused("longer than 512 octets"));
        }
        // Dovecot writes its scheme in front.
        let phc = phc.strip_prefix("{ARGON2ID}").or_else(|| phc.strip_prefix("{ARGON2I}")).unwrap_or(phc);
        let parsed = PasswordHash::new(phc).map_err(|_| refused("not a PHC string"))?;
        Algorithm::try_from(parsed.algorithm.as_str())
            .map_err(|_| refused("only argon2id, argon2i and argon2d are known"))?;
        if parsed.salt.is_none() || parsed.hash.is_none() {
            return Err(refused("salt or hash is missing"));
        }
        let params = Params::try_from(&parsed).map_err(|_| refused("bad parameters"))?;
        if params.m_cost() > IMPORTED_MEMORY_KIB_MAX
            || params.t_cost() > IMPORTED_PASSES_MAX
            || params.p_cost() > IMPORTED_LANES_MAX
        {
            return Err(refused("it asks for more memory or time than is given to one login"));
        }
        Ok(Self { phc: phc.to_owned(), scram: None, changed: now })
    }

    /// Whether the hash can be understood.
    pub(crate) fn is_readable(&self) -> bool {
        PasswordHash::new(&self.phc).is_ok()
    }

    /// Whether this is the password. As slow as the hash.
    pub fn verify(&self, password: &str) -> bool {
        let Ok(parsed) = PasswordHash::new(&self.phc) else { return false };
        let verifier = Argon2::default();
        if verifier.verify_password(prepare(password).as_bytes(), &parsed).is_ok() {
            return true;
        }
        // An imported hash was made of whatever the other server took for the password.
        self.scram.is_none()
            && matches!(prepare(password), Cow::Owned(_))
            && verifier.verify_password(password.as_bytes(), &parsed).is_ok()
    }
}

impl ScramVerifier {
    fn new(prepared: &str, iterations: u32) -> Result<Self, PasswordRefused> {
        let mut salt = [0; SALT_LEN];
        rand::fill(&mut salt).map_err(|_| PasswordRefused::Computation)?;
        Ok(Self::derive(prepared, &salt, iterations))
    }

    fn derive(prepared: &str, salt: &[u8], iterations: u32) -> Self {
        let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, prepared.as_bytes(), &mut salted);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        let client_key = hmac::sign(&key, b"Client Key");
        let server_key = hmac::sign(&key, b"Server Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        Self {
            iterations: iterations.get(),
            salt: salt.to_vec(),
            stored_key: array(stored_key.as_ref()),
            server_key: array(server_key.as_ref()),
        }
    }

    /// A verifier for a name that does not exist, the same at each asking, so that SCRAM does not tell who exists
    /// (RFC 5802 §9). Nobody can log in with it.
    pub fn decoy(secret: &[u8; 32], name: &str, iterations: u32) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let part = |what: &str| {
            let mut context = hmac::Context::with_key(&key);
            context.update(what.as_bytes());
            context.update(name.as_bytes());
            array(context.sign().as_ref())
        };
        let salt: [u8; 32] = part("salt\0");
        Self {
            iterations,
            salt: salt[..SALT_LEN].to_vec(),
            stored_key: part("stored\0"),
            server_key: part("server\0"),
        }
    }
}

/// The password as it is hashed: SASLprep (RFC 4013), so that two keyboards that compose an accent differently give
/// the same one; unprepared where SASLprep refuses it, which then matches nothing that was set here.
pub fn prepare(password: &str) -> Cow<'_, str> {
    stringprep::saslprep(password).unwrap_or(Cow::Borrowed(password))
}

/// Whether argon2 allows these parameters.
pub(crate) fn is_possible(cost: &Argon2Config) -> bool {
    argon2(cost).is_some()
}

/// Does the work of [`Credential::verify`] for somebody who has no password.
pub(crate) fn waste(password: &str, cost: &Argon2Config) {
    let mut out = [0; 32];
    if let Some(hasher) = argon2(cost) {
        // What comes out is thrown away; that it fails would only make it faster.
        let _ = hasher.hash_password_into(prepare(password).as_bytes(), b"no account is so", &mut out);
    }
    std::hint::black_box(&out);
}

fn acceptable<'p>(password: &'p str, config: &Config) -> Result<Cow<'p, str>, PasswordRefused> {
    if password.len() > config.password_length_max {
        return Err(PasswordRefused::TooLong { max: config.password_length_max });
    }
    let prepared = stringprep::saslprep(password).map_err(|_| PasswordRefused::Characters)?;
    if prepared.chars().count() < config.password_length_min {
        return Err(PasswordRefused::TooShort { min: config.password_length_min });
    }
    Ok(prepared)
}

fn argon2(cost: &Argon2Config) -> Option<Argon2<'static>> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, None).ok()?;
    Some(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn array(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().expect("SHA-256 gives 32 octets")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap() -> Config {
        Config {
            argon2: Argon2Config { memory_kib: 64, passes: 1, lanes: 1 },
            scram_iterations: 4096,
            ..Config::default()
        }
    }

    #[test]
    fn a_password_verifies_and_another_does_not() {
        let credential = Credential::new("correct horse", &cheap(), 7).unwrap();
        assert!(credential.phc.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{}", credential.phc);
        assert!(credential.verify("correct horse"));
        assert!(!credential.verify("correct horsf"));
        assert!(!credential.verify(""));
        // SASLprep: non-ASCII space and a composed accent mean the same.
        assert!(credential.verify("correct\u{a0}horse"));
        let accent = Credential::new("pass\u{e9}word", &cheap(), 7).unwrap();
        assert!(accent.verify("passe\u{301}word"));
    }

    #[test]
    fn bad_passwords_are_refused() {
        #[track_caller]
        fn check(password: &str, expected: PasswordRefused) {
            assert_eq!(Credential::new(password, &cheap(), 0).unwrap_err(), expected);
        }
        check("short", PasswordRefused::TooShort { min: 8 });
        check("пароль7", PasswordRefused::TooShort { min: 8 });
        check(&"x".repeat(1025), PasswordRefused::TooLong { max: 1024 });
        check("with\0zero and more", PasswordRefused::Characters);
    }

    /// The example of RFC 7677 §3: user "user", password "pencil".
    #[test]
    fn scram_keys_are_those_of_the_rfc() {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = ScramVerifier::derive("pencil", &salt, 4096);
        let auth_message = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let sign = |key: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), auth_message.as_bytes());
        assert_eq!(
            STANDARD.encode(sign(&verifier.server_key)),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
        let proof = STANDARD.decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").unwrap();
        let signature = sign(&verifier.stored_key);
        let client_key: Vec<u8> = proof.iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        assert_eq!(digest::digest(&digest::SHA256, &client_key).as_ref(), verifier.stored_key);
    }

    #[test]
    fn imported_hashes_verify_and_offer_no_scram() {
        let phc = Credential::new("correct horse", &cheap(), 0).unwrap().phc;
        let imported = Credential::import(&format!("{{ARGON2ID}}{phc}"), 1).unwrap();
        assert!(imported.scram.is_none());
        assert!(imported.verify("correct horse"));
        assert!(!imported.verify("wrong horse"));
        for bad in [
            "",
            "plain",
            "$6$rounds=5000$salt$hash",
            "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzYWx0",
            "$argon2id$v=19$m=4000000,t=2,p=1$c29tZXNhbHRzYWx0$0bKm8iTRlmCjIzw0pqwFYtKrGFnmqCXMUMdxgzYPPbc",
            "$argon2id$v=19$m=19456,t=200,p=1$c29tZXNhbHRzYWx0$0bKm8iTRlmCjIzw0pqwFYtKrGFnmqCXMUMdxgzYPPbc",
        ] {
            assert!(matches!(Credential::import(bad, 0), Err(PasswordRefused::Hash(_))), "{bad}");
        }
    }

    #[test]
    fn a_decoy_is_the_same_each_time_and_differs_by_name() {
        let decoy = |name| ScramVerifier::decoy(&[7; 32], name, 4096);
        assert_eq!(decoy("a@example.test"), decoy("a@example.test"));
        assert_ne!(decoy("a@example.test").salt, decoy("b@example.test").salt);
        assert_ne!(decoy("a@example.test").stored_key, decoy("a@example.test").server_key);
    }
}
