//! What a blob id leads to: the bytes of an email, or of one of its parts.

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _};
use jmap_protocol::Id;
use mail::mime::{Facts, Kind, Limits, Part, Splitter, TransferDecoder};
use storage::{Account, BodyError, StorageError};

use super::ids::{BlobName, BlobRoot};
use super::message::octets::Octets;
use super::message::parameter;
use super::message::parts::Node;

/// Octets of a message that stands encoded within another one, which is held in memory while it is looked at. Nobody may
/// encode messages (RFC 2046 §5.2.1), and hardly anybody does.
const ENCODED_MESSAGE_MAX: u64 = 32 << 20;

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
    let BlobRoot::Email(email) = name.root;
    // Numbers of records that were never given out lead nowhere, and neither do those of emails that are gone.
    let Some(record) = account.email(email).await? else { return Ok(None) };
    let octets = Octets::of(account.body(&record).await?);
    let structure = record.structure().map_err(StorageError::from)?;
    let Some((last, above)) = name.path.split_last() else {
        let media = "message/rfc822".to_owned();
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
    pub(crate) fn stream(&self) -> BoxStream<'static, Result<Bytes, BodyError>> {
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

    /// A range of them, where they can be had without reading what is before.
    pub(crate) fn direct(&self) -> Option<Octets> {
        match &self.part {
            None => Some(self.octets.clone()),
            Some(part) if TransferDecoder::of(part).is_identity() => {
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
        if !matches!(self.media.as_str(), "message/rfc822" | "message/global") {
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
        let mut splitter = Splitter::new(limits);
        let mut pieces = octets.stream();
        while let Some(piece) = pieces.next().await {
            splitter.push(&piece?);
            tokio::task::yield_now().await;
        }
        let facts = splitter.finish();
        Ok(Some((octets, facts)))
    }
}
