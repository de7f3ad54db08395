//! Group commit: small messages share a segment, and share each sync of it.
//!
//! One task owns the shared segment. While it waits for the medium the next group gathers in its channel; when nothing
//! waits, a message goes at once. A write that fails is never tried again on the same segment, since what the medium
//! holds of it is not known (after a failed `fsync` the kernel may forget the pages): everybody in the group gets the
//! error, the segment stays as far as it was durable, and the next group begins a fresh one.
//!
//! Where segments are taken whole (S3), each group is a segment and a PUT of its own. Some may be on their way at once,
//! and the task spaces them evenly over the time that one takes ([`Puts`]): what comes meanwhile gathers.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::format::frame::FrameHeader;
use crate::format::segment::{HEADER_BYTES, Index, IndexEntry, SegmentHeader};
use crate::frame_builder::FrameFacts;
use crate::{Appender, Blobs, BlobsError, Config, Growth, SegmentId};

/// Messages that may wait for the next group. Each waits with at most `shared_bytes_max`, and all of them within
/// `buffered_bytes_max`.
const WAITING_MAX: usize = 4096;
/// How often the task looks, while nobody writes, whether the back end still grows segments.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Frames in one group: each is a few slices of one vectored write.
const GROUP_FRAMES_MAX: usize = 1024;

/// Where a frame came to lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) segment: SegmentId,
    pub(crate) frame: u32,
    pub(crate) offset: u64,
}

struct Waiting {
    pieces: Vec<Bytes>,
    facts: FrameFacts,
    reply: oneshot::Sender<Result<Placed, BlobsError>>,
}

/// The way to the task. When it is dropped, or told to close, the task writes what waits, seals its segment and ends.
pub(crate) struct Group {
    sender: mpsc::Sender<Waiting>,
    task: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Group {
    pub(crate) fn start(blobs: Arc<dyn Blobs>, config: &Config) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let (close, closing) = oneshot::channel();
        let task = Task { blobs, config: config.clone(), segment: None };
        let task = tokio::spawn(task.run(receiver, closing));
        Self { sender, task: Mutex::new(Some((close, task))) }
    }

    /// Writes what waits, seals the segment and takes no more.
    pub(crate) async fn close(&self) {
        let task = self.task.lock().take();
        if let Some((close, task)) = task {
            // Both fail only when the task is gone.
            let _ = close.send(());
            let _ = task.await;
        }
    }

    /// Writes a frame (all but its header). Durable when it returns.
    pub(crate) async fn write(&self, pieces: Vec<Bytes>, facts: FrameFacts) -> Result<Placed, BlobsError> {
        let (reply, answer) = oneshot::channel();
        self.sender.send(Waiting { pieces, facts, reply }).await.map_err(|_| BlobsError::Closed)?;
        answer.await.unwrap_or(Err(BlobsError::Closed))
    }
}

struct Task {
    blobs: Arc<dyn Blobs>,
    config: Config,
    segment: Option<Shared>,
}

/// The segment that groups are added to.
struct Shared {
    appender: Box<dyn Appender>,
    layout: Layout,
}

/// What a segment under construction holds.
pub(crate) struct Layout {
    pub(crate) segment: SegmentId,
    pub(crate) header: [u8; HEADER_BYTES],
    pub(crate) index: Index,
    pub(crate) length: u64,
    next_frame: u32,
}

impl Layout {
    pub(crate) fn new(flags: u32) -> Self {
        let segment = SegmentId::fresh();
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let header = SegmentHeader { segment, flags, created }.encode();
        Self { segment, header, index: Index::default(), length: HEADER_BYTES as u64, next_frame: 0 }
    }

    /// Gives the frame its place.
    pub(crate) fn place(&mut self, facts: &FrameFacts) -> Placed {
        let placed = Placed { segment: self.segment, frame: self.next_frame, offset: self.length };
        self.index.frames.push(IndexEntry {
            frame: placed.frame,
            offset: placed.offset,
            length: facts.length,
            hash: *facts.hash.first_chunk().expect("a hash has 32 bytes"),
        });
        self.length += facts.length;
        self.next_frame += 1;
        placed
    }

    pub(crate) fn footer(&self) -> Bytes {
        self.index.encode(&self.header, self.length).into()
    }
}

impl Task {
    async fn run(mut self, mut receiver: mpsc::Receiver<Waiting>, mut closing: oneshot::Receiver<()>) {
        let mut puts = Puts::new(self.config.puts_in_flight_max);
        let mut open = true;
        loop {
            let first = tokio::select! {
                biased;
                first = receiver.recv() => first,
                _ = &mut closing, if open => {
                    open = false;
                    receiver.close();
                    continue;
                }
                () = tokio::time::sleep(LOOK_PAUSE), if self.segment.is_some() => {
                    // Mail moves to another back end, and this segment is waited for.
                    if self.blobs.growth() == Growth::Whole {
                        self.seal().await;
                    }
                    continue;
                }
            };
            let Some(first) = first else { break };
            let mut gathered = Gathered::new(&self.config, first);
            if self.blobs.growth() == Growth::Whole {
                puts.gather(&mut gathered, &mut receiver).await;
            }
            while !gathered.is_full()
                && let Ok(next) = receiver.try_recv()
            {
                gathered.push(next);
            }
            let mut group = gathered.group;
            // Those who gave up meanwhile need no room.
            group.retain(|waiting| !waiting.reply.is_closed());
            if group.is_empty() {
                continue;
            }
            metrics::histogram!("postrider_blob_group_frames").record(group.len() as f64);
            match self.blobs.growth() {
                Growth::Durable => match self.add(&mut group).await.transpose() {
                    Some(outcome) => answer(group, outcome),
                    None => puts.begin(Arc::clone(&self.blobs), group),
                },
                Growth::Whole => {
                    // What was begun before the back end became another one ends here.
                    self.seal().await;
                    puts.begin(Arc::clone(&self.blobs), group);
                }
            }
        }
        puts.end().await;
        self.seal().await;
    }

    /// Adds a group to the shared segment. `None`: there is none, and the back end no longer grows one.
    async fn add(&mut self, group: &mut [Waiting]) -> Result<Option<Vec<Placed>>, BlobsError> {
        let begun = self.segment.is_some();
        let mut shared = match self.segment.take() {
            Some(shared) => shared,
            None => {
                let layout = Layout::new(0);
                let appender = self.blobs.begin(layout.segment, self.config.segment_bytes).await?;
                // Mail that moves to another back end goes there from one call to the next, and never back: asked
                // after the segment was begun, this says what kind of segment it is.
                if self.blobs.growth() == Growth::Whole {
                    appender.abort().await;
                    return Ok(None);
                }
                Shared { appender, layout }
            }
        };
        let mut pieces = Vec::with_capacity(group.len() * 3 + 1);
        if !begun {
            pieces.push(Bytes::copy_from_slice(&shared.layout.header));
        }
        let placed = frames(&mut shared.layout, group, &mut pieces);
        match shared.appender.commit(pieces).await {
            Ok(()) => {
                let full = shared.layout.length >= self.config.segment_bytes;
                self.segment = Some(shared);
                if full {
                    self.seal().await;
                }
                Ok(Some(placed))
            }
            Err(error) => {
                let segment = shared.layout.segment;
                tracing::error!(%segment, %error, source = ?std::error::Error::source(&error), "writing messages failed; a fresh segment follows");
                // Nothing in it was ever acknowledged, so it need not wait for the next start.
                if !begun {
                    shared.appender.abort().await;
                }
                Err(error)
            }
        }
    }

    /// Seals the shared segment. When that fails it stays unsealed, readable all the same, until the next start.
    async fn seal(&mut self) {
        let Some(shared) = self.segment.take() else { return };
        let footer = shared.layout.footer();
        if let Err(error) = shared.appender.seal(vec![footer]).await {
            let segment = shared.layout.segment;
            tracing::warn!(%segment, %error, "a segment could not be sealed; the next start will");
        }
    }
}

/// Tells everybody in a group what became of it.
fn answer(group: Vec<Waiting>, outcome: Result<Vec<Placed>, BlobsError>) {
    match outcome {
        Ok(placed) => {
            for (waiting, placed) in group.into_iter().zip(placed) {
                // Nobody there any more: the frame has no reference and compaction will drop it.
                let _ = waiting.reply.send(Ok(placed));
            }
        }
        Err(error) => {
            metrics::counter!("postrider_blob_group_failures_total").increment(1);
            for waiting in group {
                let _ = waiting.reply.send(Err(error.clone()));
            }
        }
    }
}

/// Messages that will be written together.
struct Gathered {
    group: Vec<Waiting>,
    bytes: u64,
    bytes_max: u64,
}

impl Gathered {
    fn new(config: &Config, first: Waiting) -> Self {
        let mut gathered = Self { group: Vec::new(), bytes: 0, bytes_max: config.group_bytes_max as u64 };
        gathered.push(first);
        gathered
    }

    fn push(&mut self, waiting: Waiting) {
        self.bytes += waiting.facts.length;
        self.group.push(waiting);
    }

    fn is_worth_it(&self) -> bool {
        self.bytes >= self.bytes_max / 2 || self.group.len() >= WORTH_FRAMES
    }

    fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max || self.group.len() >= GROUP_FRAMES_MAX
    }
}

/// Groups on their way, each as a segment of its own.
///
/// When none is on its way a group goes at once. While some are, another begins only when it carries enough to be worth
/// a request, and not before that share of the time of a PUT has passed that spaces them evenly: without it the first
/// few of a burst would go in small groups and all others wait for one of those to end. So a server that is not busy
/// makes one request after the other, and a busy one waits for a quarter of a request.
struct Puts {
    running: JoinSet<Option<Duration>>,
    most: usize,
    /// How long a PUT takes, smoothed.
    usual: Duration,
    last_begun: Instant,
}

/// Messages that are worth a request of their own while others are on their way; so are half the bytes of a group.
const WORTH_FRAMES: usize = 64;
/// A group that is worth it never waits longer than this for its turn because PUTs are slow.
const SPACING_MAX: Duration = Duration::from_millis(100);

impl Puts {
    fn new(most: usize) -> Self {
        Self { running: JoinSet::new(), most: most.max(1), usual: SPACING_MAX, last_begun: Instant::now() }
    }

    /// Adds to the group what comes until it is its turn.
    async fn gather(&mut self, gathered: &mut Gathered, receiver: &mut mpsc::Receiver<Waiting>) {
        let due = self.last_begun + (self.usual / self.most as u32).min(SPACING_MAX);
        let mut open = true;
        loop {
            while let Some(ended) = self.running.try_join_next() {
                self.note(ended);
            }
            let busy = self.running.len() >= self.most;
            let due_now = gathered.is_full() || gathered.is_worth_it() && Instant::now() >= due;
            if self.running.is_empty() || !busy && due_now {
                return;
            }
            tokio::select! {
                Some(ended) = self.running.join_next() => self.note(ended),
                next = receiver.recv(), if open && !gathered.is_full() => match next {
                    Some(next) => gathered.push(next),
                    None => open = false,
                },
                () = tokio::time::sleep_until(due), if !busy && gathered.is_worth_it() => {}
            }
        }
    }

    fn begin(&mut self, blobs: Arc<dyn Blobs>, mut group: Vec<Waiting>) {
        self.last_begun = Instant::now();
        self.running.spawn(async move {
            let begun = Instant::now();
            let outcome = put(blobs, &mut group).await;
            let took = outcome.is_ok().then(|| begun.elapsed());
            answer(group, outcome);
            took
        });
    }

    fn note(&mut self, ended: Result<Option<Duration>, JoinError>) {
        // One that failed took as long as its patience, which says nothing about the next.
        if let Ok(Some(took)) = ended {
            self.usual = (self.usual * 3 + took) / 4;
        }
    }

    async fn end(&mut self) {
        while let Some(ended) = self.running.join_next().await {
            self.note(ended);
        }
    }
}

/// Puts a group as a segment of its own.
async fn put(blobs: Arc<dyn Blobs>, group: &mut [Waiting]) -> Result<Vec<Placed>, BlobsError> {
    let mut layout = Layout::new(0);
    let mut pieces = vec![Bytes::copy_from_slice(&layout.header)];
    let placed = frames(&mut layout, group, &mut pieces);
    pieces.push(layout.footer());
    let segment = layout.segment;
    blobs.put(segment, pieces).await.inspect_err(|error| {
        tracing::error!(%segment, frames = placed.len(), %error, source = ?std::error::Error::source(error), "writing messages failed");
    })?;
    Ok(placed)
}

fn frames(layout: &mut Layout, group: &mut [Waiting], pieces: &mut Vec<Bytes>) -> Vec<Placed> {
    let placed = group.iter_mut().map(|waiting| {
        let placed = layout.place(&waiting.facts);
        let header = FrameHeader {
            dictionary: waiting.facts.dictionary,
            frame: placed.frame,
            length: waiting.facts.length,
        };
        pieces.push(Bytes::copy_from_slice(&header.encode()));
        pieces.append(&mut waiting.pieces);
        placed
    });
    placed.collect()
}
