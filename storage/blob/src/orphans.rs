//! Segments that nobody refers to: what a write leaves whose answer was lost, or a process that ended in between.
//!
//! The scan can only err on the side of keeping. A segment is an orphan when it is old enough by its own id, its footer
//! can be read, and no reference row stands under it or under any frame that was copied into it. Whatever cannot be found
//! out makes it no orphan. The scan changes nothing: what is to go is marked as dying first, and its references are read
//! once more, as in every sweep.

use std::time::{Duration, SystemTime};

use crate::{BlobStore, BlobsError, CheckError, ReferenceError, SegmentId};

/// A segment that nobody refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Orphan {
    /// The segment.
    pub segment: SegmentId,
    /// Its bytes.
    pub length: u64,
    /// Since when it is there, as its id has it.
    pub created: SystemTime,
}

/// A part of a scan.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OrphanPage {
    /// What nobody refers to.
    pub orphans: Vec<Orphan>,
    /// Segments that somebody refers to.
    pub referenced: usize,
    /// Segments that are too young to tell, or still written.
    pub young: usize,
    /// Segments of which something could not be found out.
    pub unclear: usize,
    /// Where the next part begins; nothing when this was the last.
    pub next: Option<SegmentId>,
}

enum Verdict {
    Referenced,
    Young,
    Unclear,
    Orphan(SystemTime),
}

impl BlobStore {
    /// Looks through up to `limit` segments after `after` for those that nobody refers to, and that were begun more than
    /// `age` before `now`. `age` has to be longer than any write takes from its first byte to its reference; a day is.
    pub async fn orphans(
        &self,
        age: Duration,
        now: SystemTime,
        after: Option<SegmentId>,
        limit: usize,
    ) -> Result<OrphanPage, BlobsError> {
        let listed = self.blobs().list(after, limit).await?;
        // A short part is the last one only if it is empty: a back end may give fewer than it was asked for.
        let mut page = OrphanPage { next: listed.last().map(|info| info.segment), ..OrphanPage::default() };
        for info in listed {
            let verdict =
                if info.sealed { self.verdict(info.segment, age, now).await } else { Verdict::Young };
            match verdict {
                Verdict::Referenced => page.referenced += 1,
                Verdict::Young => page.young += 1,
                Verdict::Unclear => page.unclear += 1,
                Verdict::Orphan(created) => {
                    page.orphans.push(Orphan { segment: info.segment, length: info.length, created });
                }
            }
        }
        Ok(page)
    }

    async fn verdict(&self, segment: SegmentId, age: Duration, now: SystemTime) -> Verdict {
        let Some(created) = created(segment) else { return Verdict::Unclear };
        match now.duration_since(created) {
            Ok(since) if since > age => {}
            // Or begun in the future, where clocks differ.
            _ => return Verdict::Young,
        }
        match self.is_held(segment).await {
            Ok(true) => Verdict::Referenced,
            Ok(false) => Verdict::Orphan(created),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(%segment, error, source = error.source(), "not known whether a segment is an orphan");
                Verdict::Unclear
            }
        }
    }

    async fn is_held(&self, segment: SegmentId) -> Result<bool, Unclear> {
        if self.references().holds(segment).await? {
            return Ok(true);
        }
        for origin in self.index(segment).await?.origins {
            if self.references().holds(origin.segment).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[derive(Debug, thiserror::Error)]
enum Unclear {
    #[error("its references could not be read")]
    References(#[from] ReferenceError),
    #[error("its footer could not be read")]
    Footer(#[from] CheckError),
}

/// When an id was made. Nothing for one that does not say.
fn created(segment: SegmentId) -> Option<SystemTime> {
    let time = segment.0.get_timestamp().filter(|_| segment.0.get_version_num() == 7)?;
    let (seconds, nanoseconds) = time.to_unix();
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
}
