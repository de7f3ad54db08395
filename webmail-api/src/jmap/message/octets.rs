//! The bytes of a message, or of a message within one, read by range.

use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use mail::mime::Part;
use storage::{BodyError, BodyReader, Decoder, TransferEncoding};

/// Bytes that can be read by range. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Octets {
    /// Those of a stored message, or a range of them.
    Stored { reader: BodyReader, within: Range<u64> },
    /// A message that stood encoded within another one.
    Held(Bytes),
}

impl Octets {
    pub(crate) fn of(reader: BodyReader) -> Self {
        let within = 0..reader.size();
        Self::Stored { reader, within }
    }

    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Stored { within, .. } => within.end - within.start,
            Self::Held(bytes) => bytes.len() as u64,
        }
    }

    /// A range of these, clipped to what there is.
    pub(crate) fn within(&self, range: Range<u64>) -> Self {
        let end = range.end.min(self.size());
        let start = range.start.min(end);
        match self {
            Self::Stored { reader, within } => {
                Self::Stored { reader: reader.clone(), within: within.start + start..within.start + end }
            }
            Self::Held(bytes) => Self::Held(bytes.slice(start as usize..end as usize)),
        }
    }

    /// All of it, in pieces of at most 256 KiB.
    pub(crate) fn stream(&self) -> BoxStream<'static, Result<Bytes, BodyError>> {
        match self {
            Self::Stored { reader, within } => reader.range(within.clone()).boxed(),
            Self::Held(bytes) => stream::iter([Ok(bytes.clone())]).boxed(),
        }
    }

    /// All of it at once, but not more than `most`.
    pub(crate) async fn read(&self, most: u64) -> Result<Vec<u8>, BodyError> {
        let part = self.within(0..most);
        let mut bytes = Vec::with_capacity(part.size() as usize);
        let mut pieces = part.stream();
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece?);
        }
        Ok(bytes)
    }

    /// The body of a part as it is before it is encoded, in pieces.
    pub(crate) fn decoded(&self, part: &Part) -> BoxStream<'static, Result<Bytes, BodyError>> {
        let encoding = encoding(part);
        let pieces = self.within(part.body.clone()).stream();
        if encoding == TransferEncoding::Identity {
            return pieces;
        }
        let state = (pieces, Some(Decoder::new(encoding)));
        stream::unfold(state, |(mut pieces, decoder)| async move {
            let mut decoder = decoder?;
            loop {
                let out = match pieces.next().await {
                    Some(Ok(piece)) => decoder.push(&piece),
                    Some(Err(error)) => return Some((Err(error), (pieces, None))),
                    None => {
                        let out = decoder.finish();
                        return (!out.is_empty()).then(|| (Ok(out.into()), (pieces, None)));
                    }
                };
                if !out.is_empty() {
                    return Some((Ok(out.into()), (pieces, Some(decoder))));
                }
            }
        })
        .boxed()
    }

    /// How many octets [`Self::decoded`] gives. An encoded part is read for it.
    pub(crate) async fn decoded_size(&self, part: &Part) -> Result<u64, BodyError> {
        if encoding(part) == TransferEncoding::Identity {
            return Ok(part.body_len());
        }
        let mut size = 0;
        let mut pieces = self.decoded(part);
        while let Some(piece) = pieces.next().await {
            size += piece?.len() as u64;
        }
        Ok(size)
    }
}

/// How the body of a part is encoded.
pub(crate) fn encoding(part: &Part) -> TransferEncoding {
    let field = part.encoding.as_ref().map(|encoding| encoding.as_bytes()).unwrap_or_default();
    TransferEncoding::of_field(field)
}
