//! What a blob id leads to: the bytes of an email or of an upload, or of a part of one.

use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use jmap_protocol::Id;
use mail::mime::{Facts, Kind, Limits, Part, Splitter};
use storage::{Account, BodyError, StorageError, TransferEncoding};

use super::ids::{BlobName, BlobRoot};
use super::message::octets::{Octets, encoding};
use super::message::parameter;
use super::message::parts::Node;

/// Octets of a message that stands encoded within another one, which is held in memory while it is looked at. Nobody may
/// encode messages (RFC 2046 §5.2.1), and hardly anybody does.
const ENCODED_MESSAGE_MAX: u64 = 32 << 20;

type Pieces = BoxStream<'static, Result<Bytes, BodyError>>;

/// A blob.
pub(crate) struct Blob {
    pub(crate) name: BlobName,
    /// What the part's ranges count in.
    octets: Octets,
    /// `None`: all of it.
    part: Option<Part>,
    /// The media type that it is of.
    pub(crate) media: String,
}

/// Finds a blob of an account. `None`: there is none of this id, or it is another's.
pub(crate) async fn find(account: &Account, id: &Id) -> Result<Option<Blob>, BodyError> {
    let Some(name) = BlobName::parse(id) else { return Ok(None) };
    let (octets, structure, media) = match name.root {
        BlobRoot::Email(email) => {
            // Numbers that were never given out lead nowhere, and neither do those of emails that are gone.
            let Some(record) = account.email(email).await? else { return Ok(None) };
            let octets = Octets::of(account.body(&record).await?);
            (octets, record.structure().map_err(StorageError::from)?, "message/rfc822")
        }
        BlobRoot::Upload(upload) => {
            let Some(reader) = account.upload(upload).await? else { return Ok(None) };
            let octets = Octets::of(reader);
            let structure = if name.path.is_empty() {
                Part::default()
            } else {
                split(&octets, Limits::default()).await?.structure
            };
            (octets, structure, "application/octet-stream")
        }
    };
    let Some((last, above)) = name.path.split_last() else {
        let media = media.to_owned();
        return Ok(Some(Blob { name, octets, part: None, media }));
    };
    let mut within = &structure;
    for number in above {
        let tree = Node::of(within);
        let Some(Kind::Message(message)) = tree.find(*number).map(|node| &node.part.kind) else {
            return Ok(None);
        };
        within = &message.part;
    }
    let tree = Node::of(within);
    let Some(node) = tree.find(*last).filter(|node| !node.is_multipart()) else { return Ok(None) };
    let (part, media) = (node.part.clone(), node.media.clone());
    Ok(Some(Blob { name, octets, part: Some(part), media }))
}

impl Blob {
    /// Its octets as they are before they are encoded for mail.
    pub(crate) fn stream(&self) -> Pieces {
        match &self.part {
            None => self.octets.stream(),
            Some(part) => self.octets.decoded(part),
        }
    }

    /// How many these are.
    pub(crate) async fn size(&self) -> Result<u64, BodyError> {
        match &self.part {
            None => Ok(self.octets.size()),
            Some(part) => self.octets.decoded_size(part).await,
        }
    }

    /// A range of them.
    pub(crate) fn range(&self, range: Range<u64>) -> Pieces {
        match self.direct() {
            Some(octets) => octets.within(range).stream(),
            None => clip(self.stream(), range),
        }
    }

    /// All of them, where a range can be had without reading what is before.
    pub(crate) fn direct(&self) -> Option<Octets> {
        match &self.part {
            None => Some(self.octets.clone()),
            Some(part) if encoding(part) == TransferEncoding::Identity => {
                Some(self.octets.within(part.body.clone()))
            }
            Some(_) => None,
        }
    }

    /// The name of the file that it is.
    pub(crate) fn file_name(&self) -> Option<String> {
        self.part.as_ref().and_then(parameter::file_name)
    }

    /// It as a message of its own. `None`: it is none.
    pub(crate) async fn as_message(&self, limits: Limits) -> Result<Option<(Octets, Facts)>, BodyError> {
        // Of what was uploaded nobody has said what it is.
        let may_be = matches!(self.media.as_str(), "message/rfc822" | "message/global")
            || matches!(self.name.root, BlobRoot::Upload(_)) && self.name.path.is_empty();
        if !may_be {
            return Ok(None);
        }
        let octets = match self.direct() {
            Some(octets) => octets,
            None if self.size().await? > ENCODED_MESSAGE_MAX => return Ok(None),
            None => {
                let mut held = Vec::new();
                let mut pieces = self.stream();
                while let Some(piece) = pieces.next().await {
                    held.extend_from_slice(&piece?);
                }
                Octets::Held(held.into())
            }
        };
        let facts = split(&octets, limits).await?;
        Ok(Some((octets, facts)).filter(|(_, facts)| is_message(facts)))
    }
}

/// A range of what can only be read from its beginning.
fn clip(pieces: Pieces, range: Range<u64>) -> Pieces {
    let state = (pieces, 0_u64, range);
    stream::unfold(state, |(mut pieces, mut at, range)| async move {
        loop {
            if at >= range.end {
                return None;
            }
            let piece = match pieces.next().await? {
                Ok(piece) => piece,
                Err(error) => return Some((Err(error), (pieces, range.end, range))),
            };
            let start = range.start.saturating_sub(at).min(piece.len() as u64) as usize;
            let end = (range.end - at).min(piece.len() as u64) as usize;
            at += piece.len() as u64;
            if start < end {
                return Some((Ok(piece.slice(start..end)), (pieces, at, range)));
            }
        }
    })
    .boxed()
}

/// What a message is made of.
async fn split(octets: &Octets, limits: Limits) -> Result<Facts, BodyError> {
    let mut splitter = Splitter::new(limits);
    let mut pieces = octets.stream();
    while let Some(piece) = pieces.next().await {
        splitter.push(&piece?);
        tokio::task::yield_now().await;
    }
    Ok(splitter.finish())
}

/// Whether it has any header field that says something, as RFC 5322 §3.6 wants at least two. A picture has none.
pub(crate) fn is_message(facts: &Facts) -> bool {
    let summary = &facts.summary;
    summary.date.is_some()
        || summary.subject.is_some()
        || summary.message_id.is_some()
        || ![&summary.from, &summary.sender, &summary.to, &summary.cc, &summary.bcc]
            .iter()
            .all(|list| list.is_empty())
}
