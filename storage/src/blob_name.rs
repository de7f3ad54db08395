//! Names of bytes that a client can ask for: a whole email, a part of one, an upload (RFC 8620 §6, RFC 8621 §4.1).
//!
//! A name says where the bytes are and nothing else, and is looked up in the account that it is asked of, so what it
//! names in another account cannot be had with it.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use blob::KeyId;
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use mail::id::EmailId;

use crate::account::Account;
use crate::body::{BodyError, BodyReader, StoredBody, decode_facts};
use crate::error::StorageError;
use crate::transfer::{Decoder, TransferEncoding};
use crate::upload::UploadId;

/// The name of some bytes of an account. Written `e5`, `p5-120-4000-b`, `u77`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum BlobName {
    /// An email, as it would be sent.
    Email(EmailId),
    /// A part of an email, without its header, and decoded.
    Part {
        /// The email.
        email: EmailId,
        /// Its octets within the email, as they stand there; see [`mail::mime::Part::body`].
        range: Range<u64>,
        /// How they are encoded.
        encoding: TransferEncoding,
    },
    /// An upload.
    Upload(UploadId),
}

/// Not the name of any bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not the name of a blob")]
pub struct NotABlobName;

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Email(email) => write!(f, "e{}", email.0),
            Self::Part { email, range, encoding } => {
                write!(f, "p{}-{}-{}-{}", email.0, range.start, range.end, encoding.letter())
            }
            Self::Upload(upload) => write!(f, "u{}", upload.0),
        }
    }
}

impl FromStr for BlobName {
    type Err = NotABlobName;

    fn from_str(text: &str) -> Result<Self, NotABlobName> {
        let number = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u64>().ok().filter(|_| is_number).ok_or(NotABlobName)
        };
        let (kind, rest) = text.split_at_checked(1).ok_or(NotABlobName)?;
        match kind {
            "e" => Ok(Self::Email(EmailId(number(rest)?))),
            "u" => Ok(Self::Upload(UploadId(number(rest)?))),
            "p" => {
                let mut pieces = rest.split('-');
                let mut piece = || pieces.next().ok_or(NotABlobName);
                let (email, start, end, letter) = (piece()?, piece()?, piece()?, piece()?);
                let range = number(start)?..number(end)?;
                let encoding = TransferEncoding::of_letter(letter).ok_or(NotABlobName)?;
                if pieces.next().is_some() || range.start > range.end {
                    return Err(NotABlobName);
                }
                Ok(Self::Part { email: EmailId(number(email)?), range, encoding })
            }
            _ => Err(NotABlobName),
        }
    }
}

/// Bytes that a name stands for. Cheap to clone.
#[derive(Clone)]
pub struct NamedBlob {
    body: BodyReader,
    /// Where they lie within the body.
    range: Range<u64>,
    encoding: TransferEncoding,
}

impl NamedBlob {
    /// How many octets, where that is known without decoding them.
    pub fn size(&self) -> Option<u64> {
        (self.encoding == TransferEncoding::Identity).then(|| self.range.end - self.range.start)
    }

    /// How many octets. What is encoded is decoded for it.
    pub async fn decoded_size(&self) -> Result<u64, BodyError> {
        if let Some(size) = self.size() {
            return Ok(size);
        }
        let mut all = self.read(0..u64::MAX);
        let mut size = 0;
        while let Some(piece) = all.next().await {
            size += piece?.len() as u64;
        }
        Ok(size)
    }

    /// The octets of the range, clipped to what there is, in pieces. Nothing is read ahead; of what is encoded all
    /// before the range is decoded too.
    pub fn read(
        &self,
        wanted: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + Unpin + 'static {
        if self.encoding == TransferEncoding::Identity {
            let end = self.range.start.saturating_add(wanted.end).min(self.range.end);
            let start = self.range.start.saturating_add(wanted.start).min(end);
            return self.body.range(start..end).left_stream();
        }
        let encoded = self.body.range(self.range.clone());
        let state = (encoded, Some(Decoder::new(self.encoding)), 0u64);
        let pieces = stream::unfold(state, move |(mut encoded, decoder, mut at)| {
            let wanted = wanted.clone();
            async move {
                let mut decoder = decoder?;
                while at < wanted.end {
                    let (decoded, is_last) = match encoded.next().await {
                        Some(Ok(piece)) => (decoder.push(&piece), false),
                        Some(Err(error)) => return Some((Err(error), (encoded, None, at))),
                        None => (decoder.finish(), true),
                    };
                    let length = decoded.len() as u64;
                    let from = wanted.start.saturating_sub(at).min(length);
                    let to = (wanted.end - at).min(length);
                    at += length;
                    let decoder_left = (!is_last).then_some(decoder);
                    if from < to {
                        let piece = Bytes::from(decoded).slice(from as usize..to as usize);
                        return Some((Ok(piece), (encoded, decoder_left, at)));
                    }
                    decoder = decoder_left?;
                }
                None
            }
        });
        pieces.boxed().right_stream()
    }
}

impl Account {
    /// The bytes that a name stands for. `None`: none; the email is in no mailbox, has no such octets, or the upload is
    /// not held.
    pub async fn named_blob(&self, name: &BlobName) -> Result<Option<NamedBlob>, BodyError> {
        let (email, part) = match name {
            BlobName::Upload(id) => {
                let body = self.upload(*id).await?;
                return Ok(body.map(whole));
            }
            BlobName::Email(email) => (*email, None),
            BlobName::Part { email, range, encoding } => (*email, Some((range.clone(), *encoding))),
        };
        // What was expunged is kept for a while and is nobody's to read.
        if !self.view().await?.contains(email) {
            return Ok(None);
        }
        let Some(record) = self.email(email).await? else { return Ok(None) };
        let body = self.body(&record).await?;
        Ok(match part {
            None => Some(whole(body)),
            Some((range, _)) if range.end > body.size() => None,
            Some((range, encoding)) => Some(NamedBlob { body, range, encoding }),
        })
    }
}

impl Account {
    /// The bytes that a name of an account stands for, as a message that can be put into mailboxes of this one: what was
    /// written as a message is not written again, a part is. `None`: no such bytes. What is not put is to be given up
    /// ([`Account::discard`]).
    pub async fn message_of(
        &self,
        from: &Account,
        name: &BlobName,
    ) -> Result<Option<StoredBody>, MessageOfError> {
        match name {
            BlobName::Upload(id) if from.id() == self.id() => Ok(self.upload_as_message(*id).await?),
            BlobName::Email(email) => Ok(self.email_as_message(from, *email).await?),
            BlobName::Upload(_) | BlobName::Part { .. } => {
                let Some(blob) = from.named_blob(name).await? else { return Ok(None) };
                let mut writer = self.body_writer();
                let mut pieces = blob.read(0..u64::MAX);
                while let Some(piece) = pieces.next().await {
                    writer.write(piece?).await?;
                }
                Ok(Some(writer.finish().await?))
            }
        }
    }

    async fn email_as_message(
        &self,
        from: &Account,
        email: EmailId,
    ) -> Result<Option<StoredBody>, BodyError> {
        if !from.view().await?.contains(email) {
            return Ok(None);
        }
        let Some(record) = from.email(email).await? else { return Ok(None) };
        let key = KeyId::Account(from.id().0);
        let original = self.storage.blobs().open(&record.address, key).await?;
        let facts = decode_facts(&original.facts().await?).map_err(StorageError::from)?;
        Ok(Some(self.adopt(&record.address, key, facts, record.prefix.clone()).await?))
    }
}

/// Why bytes did not become a message.
#[derive(Debug, thiserror::Error)]
pub enum MessageOfError {
    /// They could not be read.
    #[error("the bytes could not be read")]
    Read(#[from] BodyError),
    /// They could not be written.
    #[error("the message could not be written")]
    Write(#[from] blob::WriteError),
}

fn whole(body: BodyReader) -> NamedBlob {
    NamedBlob { range: 0..body.size(), body, encoding: TransferEncoding::Identity }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_and_read() {
        for text in ["e5", "u77", "p5-120-4000-b", "p5-0-0-i", "p18446744073709551615-1-2-q"] {
            assert_eq!(text.parse::<BlobName>().unwrap().to_string(), text);
        }
        for text in ["", "e", "x5", "e-5", "e+5", "p5-2-1-b", "p5-1-2", "p5-1-2-z", "p5-1-2-b-", "é5", "5"] {
            assert!(text.parse::<BlobName>().is_err(), "{text:?}");
        }
    }
}
