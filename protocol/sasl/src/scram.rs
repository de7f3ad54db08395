//! SCRAM-SHA-256: the arithmetic and the messages (RFC 5802 §3 and §7, RFC 7677), the same for both ends.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2, rand};

use crate::server::Failure;
use crate::{Password, wire};

/// What the server keeps instead of a password (RFC 5802 §3).
#[derive(Clone, PartialEq, Eq)]
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

impl ScramVerifier {
    /// Derives a verifier. Takes the time of so many PBKDF2 rounds. The password is taken as it is; whoever sets and
    /// whoever enters it prepare it alike (RFC 4013).
    pub fn derive(password: &Password, salt: Vec<u8>, iterations: NonZeroU32) -> Self {
        let salted = salted_password(password, &salt, iterations);
        Self {
            iterations: iterations.get(),
            stored_key: sha256(&mac(&salted, b"Client Key")),
            server_key: mac(&salted, b"Server Key"),
            salt,
        }
    }

    /// What a user who does not exist seems to have: always the same salt for the same name, so that asking twice
    /// tells nothing (RFC 5802 §5.1 gives the salt away before the proof), and keys that no password has.
    pub fn of_nobody(secret: &[u8; 32], authcid: &str, iterations: u32) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let part = |label: &[u8]| {
            let mut context = hmac::Context::with_key(&key);
            context.update(label);
            context.update(authcid.as_bytes());
            to_32(context.sign().as_ref())
        };
        Self {
            iterations,
            salt: part(b"salt\0")[..16].to_vec(),
            stored_key: part(b"stored key\0"),
            server_key: part(b"server key\0"),
        }
    }
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramVerifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// A fresh nonce: printable and without a comma (RFC 5802 §7).
pub fn nonce() -> String {
    let mut bytes = [0; 18];
    rand::fill(&mut bytes).expect("the system has random numbers");
    wire::encode(&bytes)
}

/// Longest nonce taken from a peer; ours have 24 characters.
const NONCE_BYTES_MAX: usize = 256;

/// What the client says first about channel binding (RFC 5802 §6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BindingFlag {
    /// `n`: it does not support it.
    NotSupported,
    /// `y`: it does, and believes that the server does not.
    NotOffered,
    /// `p=name`: it uses this one.
    Used(String),
}

/// `client-first-message`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientFirst {
    pub(crate) flag: BindingFlag,
    pub(crate) authzid: Option<String>,
    pub(crate) authcid: String,
    pub(crate) nonce: String,
    /// The part before `bare`, to be compared with what the client repeats.
    pub(crate) gs2_header: String,
    /// `client-first-message-bare`, for the signatures.
    pub(crate) bare: String,
}

impl ClientFirst {
    pub(crate) fn parse(message: &[u8]) -> Result<Self, Failure> {
        let message = std::str::from_utf8(message).map_err(|_| Failure::Malformed("not UTF-8"))?;
        let malformed = || Failure::Malformed("not a client-first message");
        let mut parts = message.splitn(3, ',');
        let (Some(flag), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed());
        };
        let gs2_header = message[..message.len() - bare.len()].to_owned();
        let flag = match flag {
            "n" => BindingFlag::NotSupported,
            "y" => BindingFlag::NotOffered,
            flag => BindingFlag::Used(flag.strip_prefix("p=").ok_or_else(malformed)?.to_owned()),
        };
        let authzid = match authzid {
            "" => None,
            authzid => Some(decode_name(authzid.strip_prefix("a=").ok_or_else(malformed)?)?),
        };
        let mut attributes = bare.split(',');
        // `m=` in front would be an extension that we are told not to ignore; it fails here like anything unknown.
        let authcid = attributes.next().and_then(|text| text.strip_prefix("n=")).ok_or_else(malformed)?;
        let nonce = attributes.next().and_then(|text| text.strip_prefix("r=")).ok_or_else(malformed)?;
        if nonce.is_empty()
            || nonce.len() > NONCE_BYTES_MAX
            || !nonce.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(Failure::Malformed("bad nonce"));
        }
        Ok(Self {
            flag,
            authzid,
            authcid: decode_name(authcid)?,
            nonce: nonce.to_owned(),
            gs2_header,
            bare: bare.to_owned(),
        })
    }
}

/// `client-final-message`.
#[derive(Debug)]
pub(crate) struct ClientFinal {
    pub(crate) binding: Vec<u8>,
    pub(crate) nonce: String,
    pub(crate) proof: [u8; 32],
    /// `client-final-message-without-proof`.
    pub(crate) without_proof: String,
}

impl ClientFinal {
    pub(crate) fn parse(message: &[u8]) -> Result<Self, Failure> {
        let message = std::str::from_utf8(message).map_err(|_| Failure::Malformed("not UTF-8"))?;
        let malformed = || Failure::Malformed("not a client-final message");
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or_else(malformed)?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|text| text.strip_prefix("c=")).ok_or_else(malformed)?;
        let nonce = attributes.next().and_then(|text| text.strip_prefix("r=")).ok_or_else(malformed)?;
        Ok(Self {
            binding: wire::decode(binding.as_bytes()).map_err(|_| malformed())?,
            nonce: nonce.to_owned(),
            proof: wire::decode(proof.as_bytes())
                .ok()
                .and_then(|proof| proof.try_into().ok())
                .ok_or_else(malformed)?,
            without_proof: without_proof.to_owned(),
        })
    }
}

/// `saslname` decoded: `=2C` is a comma and `=3D` an equals sign (RFC 5802 §5.1).
pub(crate) fn decode_name(encoded: &str) -> Result<String, Failure> {
    let mut name = String::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((before, after)) = rest.split_once('=') {
        name.push_str(before);
        let (code, after) = after.split_at_checked(2).ok_or(Failure::Malformed("bad escape in a name"))?;
        name.push(match code {
            "2C" => ',',
            "3D" => '=',
            _ => return Err(Failure::Malformed("bad escape in a name")),
        });
        rest = after;
    }
    name.push_str(rest);
    if name.is_empty() || name.len() > crate::plain::NAME_BYTES_MAX || name.contains('\0') {
        return Err(Failure::Malformed("name is empty or too long"));
    }
    Ok(name)
}

pub(crate) fn encode_name(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

pub(crate) fn auth_message(client_first_bare: &str, server_first: &str, without_proof: &str) -> Vec<u8> {
    format!("{client_first_bare},{server_first},{without_proof}").into_bytes()
}

/// Whether the proof shows the key that `stored_key` is the hash of.
pub(crate) fn proof_is_right(verifier: &ScramVerifier, auth_message: &[u8], proof: &[u8; 32]) -> bool {
    let signature = mac(&verifier.stored_key, auth_message);
    let client_key = xor(&signature, proof);
    constant_time::verify_slices_are_equal(&sha256(&client_key), &verifier.stored_key).is_ok()
}

/// `ClientProof` and `ServerSignature`, by somebody who has the password.
pub(crate) fn prove(
    password: &Password,
    salt: &[u8],
    iterations: NonZeroU32,
    auth_message: &[u8],
) -> ([u8; 32], [u8; 32]) {
    let salted = salted_password(password, salt, iterations);
    let client_key = mac(&salted, b"Client Key");
    let signature = mac(&sha256(&client_key), auth_message);
    let server_key = mac(&salted, b"Server Key");
    (xor(&client_key, &signature), mac(&server_key, auth_message))
}

pub(crate) fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    to_32(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref())
}

fn salted_password(password: &Password, salt: &[u8], iterations: NonZeroU32) -> [u8; 32] {
    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password.expose().as_bytes(), &mut salted);
    salted
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    to_32(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn xor(one: &[u8; 32], other: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|at| one[at] ^ other[at])
}

fn to_32(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_first() {
        let check = |message: &str, expected: Option<(BindingFlag, Option<&str>, &str)>| {
            let parsed = ClientFirst::parse(message.as_bytes()).ok();
            let parts =
                parsed.map(|first| (first.flag, first.authzid.as_deref().map(str::to_owned), first.authcid));
            let expected =
                expected.map(|(flag, authzid, name)| (flag, authzid.map(str::to_owned), name.to_owned()));
            assert_eq!(parts, expected, "{message}");
        };
        check("n,,n=user,r=abc", Some((BindingFlag::NotSupported, None, "user")));
        check("y,a=a=2Cb,n==3D=2C,r=abc", Some((BindingFlag::NotOffered, Some("a,b"), "=,")));
        check("p=tls-exporter,,n=u,r=abc", Some((BindingFlag::Used("tls-exporter".into()), None, "u")));
        check("n,,n=user,r=abc,x=1", Some((BindingFlag::NotSupported, None, "user")));
        for bad in [
            "",
            "n",
            "n,,",
            "n,,n=,r=a",
            "n,,n=u",
            "n,,n=u,r=",
            "n,,m=x,n=u,r=a",
            "q,,n=u,r=a",
            "n,x,n=u,r=a",
            "n,,n=u=2,r=a",
            "n,,n=u=2X,r=a",
            "n,,n=u=é,r=a",
            "n,,n=u,r=a b",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn of_nobody_is_steady() {
        let one = ScramVerifier::of_nobody(&[7; 32], "x@example.test", 4096);
        assert_eq!(one, ScramVerifier::of_nobody(&[7; 32], "x@example.test", 4096));
        assert_ne!(one.salt, ScramVerifier::of_nobody(&[7; 32], "y@example.test", 4096).salt);
        assert_ne!(one.salt, ScramVerifier::of_nobody(&[8; 32], "x@example.test", 4096).salt);
    }
}
