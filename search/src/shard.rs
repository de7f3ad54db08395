//! A shard: one Tantivy index on local disk, read by many and written by one. Everything here blocks.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mail::id::{AccountId, EmailId};
use parking_lot::Mutex;
use tantivy::directory::MmapDirectory;
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy, NoMergePolicy};
use tantivy::query::{BooleanQuery, Query, TermQuery, TermSetQuery};
use tantivy::schema::IndexRecordOption;
use tantivy::{Index, IndexReader, IndexWriter, ReloadPolicy, Searcher, Term};

use crate::config::Config;
use crate::document::Document;
use crate::error::SearchError;
use crate::schema::{FORMAT, Fields, Mark};

/// Segments of which so many documents are deleted are merged.
const DELETED_SHARE_MAX: f32 = 0.3;
/// How long files that were found to be good are taken for good, whatever fails.
const VERIFIED_FOR: Duration = Duration::from_secs(60);

/// A shard. It is opened by whoever comes first, and an index that turns out to be damaged makes way for an empty one.
pub(crate) struct Shard {
    dir: PathBuf,
    /// Where a damaged index goes.
    aside: PathBuf,
    fields: Arc<Fields>,
    writer_bytes: usize,
    verify_bytes_max: u64,
    /// Held while something is written. Taken before the others where several are.
    writer: Mutex<Option<IndexWriter>>,
    /// Never held for long, so that it may be looked at anywhere.
    pending: Mutex<Pending>,
    open: Mutex<Option<Arc<Open>>>,
    verified: Mutex<Option<Instant>>,
    /// Accounts that were erased: who still follows one must not bring it back. Their ids are never given again.
    erased: Mutex<HashSet<AccountId>>,
    /// Another generation counts.
    retired: AtomicBool,
}

/// Erased accounts that are remembered. A follower works on an account for seconds, so the youngest are enough.
const ERASED_MAX: usize = 100_000;

struct Open {
    index: Index,
    reader: IndexReader,
}

/// What the next commit takes with it.
#[derive(Default)]
struct Pending {
    marks: HashMap<AccountId, Mark>,
    /// Emails added.
    added: usize,
    /// When the first change was made.
    since: Option<Instant>,
}

/// What happens to an account in one step.
pub(crate) struct Change<'a> {
    pub(crate) account: AccountId,
    /// Emails that are new.
    pub(crate) added: &'a [Document],
    /// Emails that are gone.
    pub(crate) destroyed: &'a [EmailId],
    /// How far the account was. When the index says otherwise (it was set aside, or somebody else was here) nothing of
    /// the change is made.
    pub(crate) before: Mark,
    /// How far it is with this.
    pub(crate) mark: Mark,
    /// Whether what was there of the account is worth nothing.
    pub(crate) anew: bool,
}

impl Shard {
    /// The shard `number` of the generation that lies in `generation`.
    pub(crate) fn new(generation: &Path, number: u16, config: &Config, fields: Arc<Fields>) -> Self {
        Self {
            dir: generation.join(format!("shard-{number:04}")),
            aside: generation.join(format!("damaged-{number:04}")),
            fields,
            writer_bytes: config.writer_bytes.max(15_000_000),
            verify_bytes_max: config.verify_bytes_max,
            open: Mutex::new(None),
            writer: Mutex::new(None),
            pending: Mutex::default(),
            verified: Mutex::new(None),
            erased: Mutex::default(),
            retired: AtomicBool::new(false),
        }
    }

    /// Asks the newest commit something. A failure, or a panic on bytes that make no sense, leads to a look at all of
    /// the files.
    pub(crate) fn read<R>(
        &self,
        ask: impl FnOnce(&Searcher, &Fields) -> tantivy::Result<R>,
    ) -> Result<R, SearchError> {
        let open = self.opened()?;
        let answer = catch_unwind(AssertUnwindSafe(|| ask(&open.reader.searcher(), &self.fields)));
        let error = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => SearchError::from(error),
            Err(_) => SearchError::Damaged("reading it panicked".to_owned()),
        };
        Err(self.suspect(error))
    }

    /// How far an account is, as the newest commit has it.
    pub(crate) fn mark(&self, account: AccountId) -> Result<Mark, SearchError> {
        self.read(|searcher, fields| crate::query::mark(searcher, fields, account))
    }

    /// How far an account is, with what is not committed yet.
    pub(crate) fn progress(&self, account: AccountId) -> Result<Mark, SearchError> {
        let pending = self.pending.lock().marks.get(&account).copied();
        match pending {
            Some(mark) => Ok(mark),
            // What was pending a moment ago is in what readers see before it is not pending any more.
            None => self.mark(account),
        }
    }

    /// Hands a change to the writer. It is there with the next commit.
    pub(crate) fn change(&self, change: &Change<'_>) -> Result<(), SearchError> {
        let done = self.with_writer(|writer, open, fields| {
            if self.erased.lock().contains(&change.account) {
                return Ok(true);
            }
            let pending = self.pending.lock().marks.get(&change.account).copied();
            let before = match pending {
                Some(mark) => mark,
                None => crate::query::mark(&open.reader.searcher(), fields, change.account)?,
            };
            if before != change.before {
                return Ok(false);
            }
            let account = fields.account_term(change.account);
            if change.anew {
                writer.delete_term(account.clone());
            }
            if !change.destroyed.is_empty() {
                let of_account: Box<dyn Query> = Box::new(TermQuery::new(account, IndexRecordOption::Basic));
                let emails = change.destroyed.iter().map(|email| Term::from_field_u64(fields.email, email.0));
                let both = vec![of_account, Box::new(TermSetQuery::new(emails))];
                writer.delete_query(Box::new(BooleanQuery::intersection(both)))?;
            }
            for document in change.added {
                writer.add_document(fields.document(change.account, document))?;
            }
            writer.delete_term(fields.mark_term(change.account));
            writer.add_document(fields.mark(change.account, change.mark))?;
            let mut pending = self.pending.lock();
            pending.marks.insert(change.account, change.mark);
            pending.added += change.added.len();
            pending.since.get_or_insert_with(Instant::now);
            Ok(true)
        });
        match done {
            Ok(true) => Ok(()),
            Ok(false) => Err(SearchError::Unavailable("the index has changed meanwhile".to_owned())),
            Err(error) => Err(self.write_failed(error)),
        }
    }

    /// Whether there is something to commit, and since when and how much.
    pub(crate) fn pending(&self) -> Option<(usize, Duration)> {
        let pending = self.pending.lock();
        Some((pending.added, pending.since?.elapsed()))
    }

    /// The accounts that the next commit is about.
    pub(crate) fn pending_accounts(&self) -> Vec<AccountId> {
        self.pending.lock().marks.keys().copied().collect()
    }

    /// Commits what was handed over.
    pub(crate) fn commit(&self) -> Result<(), SearchError> {
        if self.pending().is_none() {
            return Ok(());
        }
        let done = self.with_writer(|writer, open, _| {
            let mut prepared = writer.prepare_commit()?;
            prepared.set_payload(&FORMAT.to_string());
            prepared.commit()?;
            open.reader.reload()?;
            *self.pending.lock() = Pending::default();
            Ok(())
        });
        done.map_err(|error| self.write_failed(error))
    }

    /// Ends the writer, its threads and its memory. What was not committed is gone.
    pub(crate) fn rest(&self) {
        let mut writer = self.writer.lock();
        *self.pending.lock() = Pending::default();
        if let Some(writer) = writer.take()
            && let Err(error) = writer.wait_merging_threads()
        {
            tracing::debug!(%error, "merge given up");
        }
    }

    /// It is not written any more.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.rest();
    }

    /// Whether it is not written any more.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Takes an account out, so that no file has anything of it.
    pub(crate) fn erase(&self, account: AccountId) -> Result<(), SearchError> {
        {
            let mut erased = self.erased.lock();
            if erased.len() >= ERASED_MAX {
                erased.clear();
            }
            erased.insert(account);
        }
        self.commit()?;
        // Segments that are being merged could not be rewritten.
        self.rest();
        let done = self.with_writer(|writer, open, fields| {
            writer.set_merge_policy(Box::new(NoMergePolicy));
            writer.delete_term(fields.account_term(account));
            writer.delete_term(fields.mark_term(account));
            writer.commit()?;
            let metas = writer.index().searchable_segment_metas()?;
            for meta in metas.iter().filter(|meta| meta.has_deletes()) {
                writer.merge(&[meta.id()]).wait()?;
            }
            // Readers let go of the files first.
            open.reader.reload()?;
            writer.garbage_collect_files().wait()?;
            Ok(())
        });
        self.rest();
        done.map_err(|error| self.write_failed(error))
    }

    /// Looks through all files. Those that are damaged make way.
    pub(crate) fn verify(&self) -> Result<(), SearchError> {
        self.opened()?;
        *self.verified.lock() = None;
        match self.suspect(SearchError::Unavailable(String::new())) {
            SearchError::Unavailable(_) => Ok(()),
            error => Err(error),
        }
    }

    /// Octets of its files.
    pub(crate) fn bytes(&self) -> u64 {
        bytes_in(&self.dir)
    }

    /// Whether it is so large that its files are to be verified behind the first answers.
    pub(crate) fn is_large(&self) -> bool {
        self.bytes() > self.verify_bytes_max
    }

    fn opened(&self) -> Result<Arc<Open>, SearchError> {
        let mut open = self.open.lock();
        if let Some(open) = &*open {
            return Ok(open.clone());
        }
        let is_new = !self.dir.join("meta.json").exists();
        let opened = match self.open_or_create(!is_new && !self.is_large()) {
            Err(error) if error.is_damage() => {
                self.set_aside(&error)?;
                self.open_or_create(false)?
            }
            opened => opened?,
        };
        let opened = Arc::new(opened);
        *open = Some(opened.clone());
        Ok(opened)
    }

    fn open_or_create(&self, verify: bool) -> Result<Open, SearchError> {
        fs::create_dir_all(&self.dir)?;
        let opened = catch_unwind(AssertUnwindSafe(|| -> Result<Open, SearchError> {
            let directory = MmapDirectory::open(&self.dir).map_err(tantivy::TantivyError::from)?;
            let mut index = Index::open_or_create(directory, self.fields.schema())?;
            if index.schema() != self.fields.schema() {
                return Err(SearchError::Damaged("its fields are others".to_owned()));
            }
            Fields::register(&mut index);
            if verify {
                check(&index)?;
                *self.verified.lock() = Some(Instant::now());
            }
            let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
            Ok(Open { index, reader })
        }));
        opened.unwrap_or_else(|_| Err(SearchError::Damaged("opening it panicked".to_owned())))
    }

    fn with_writer<R>(
        &self,
        act: impl FnOnce(&mut IndexWriter, &Open, &Fields) -> tantivy::Result<R>,
    ) -> Result<R, SearchError> {
        let mut writer = self.writer.lock();
        if self.is_retired() {
            return Err(SearchError::Closed);
        }
        let open = self.opened()?;
        let acted = catch_unwind(AssertUnwindSafe(|| {
            let writer = match &mut *writer {
                Some(writer) => writer,
                none => none.insert(self.new_writer(&open.index)?),
            };
            act(writer, &open, &self.fields)
        }));
        match acted {
            Ok(acted) => Ok(acted?),
            Err(_) => Err(SearchError::Damaged("writing it panicked".to_owned())),
        }
    }

    fn new_writer(&self, index: &Index) -> tantivy::Result<IndexWriter> {
        let options = IndexWriterOptions::builder()
            .num_worker_threads(1)
            .num_merge_threads(1)
            .memory_budget_per_thread(self.writer_bytes)
            .build();
        let writer = index.writer_with_options(options)?;
        let mut merges = LogMergePolicy::default();
        merges.set_del_docs_ratio_before_merge(DELETED_SHARE_MAX);
        writer.set_merge_policy(Box::new(merges));
        Ok(writer)
    }

    /// A write failed: nothing of it counts, and the writer is of no use any more. That may be for want of space, so
    /// the files decide whether it is damage.
    fn write_failed(&self, error: SearchError) -> SearchError {
        if matches!(error, SearchError::Closed) {
            return error;
        }
        let mut writer = self.writer.lock();
        *writer = None;
        *self.pending.lock() = Pending::default();
        drop(writer);
        let error = match error {
            SearchError::Damaged(why) => SearchError::Unavailable(why),
            error => error,
        };
        self.suspect(error)
    }

    /// Something failed. Where the files are damaged they make way for an empty index.
    fn suspect(&self, error: SearchError) -> SearchError {
        if !self.dir.join("meta.json").exists() {
            // Somebody else has found it out already.
            *self.open.lock() = None;
            return SearchError::Unavailable(error.to_string());
        }
        let mut verified = self.verified.lock();
        if verified.is_some_and(|verified| verified.elapsed() < VERIFIED_FOR) {
            return SearchError::Unavailable(error.to_string());
        }
        let checked = catch_unwind(AssertUnwindSafe(|| -> Result<(), SearchError> {
            let index = Index::open_in_dir(&self.dir)?;
            check(&index)?;
            drop(index.reader()?);
            Ok(())
        }));
        let damage = match checked {
            Ok(Ok(())) => {
                *verified = Some(Instant::now());
                return SearchError::Unavailable(error.to_string());
            }
            Ok(Err(damage)) if !damage.is_damage() => return damage,
            Ok(Err(damage)) => damage,
            Err(_) => SearchError::Damaged("looking through it panicked".to_owned()),
        };
        drop(verified);
        let mut writer = self.writer.lock();
        let mut open = self.open.lock();
        *writer = None;
        *self.pending.lock() = Pending::default();
        *open = None;
        match self.set_aside(&damage) {
            Ok(()) => damage,
            Err(error) => error,
        }
    }

    fn set_aside(&self, why: &SearchError) -> Result<(), SearchError> {
        tracing::error!(shard = %self.dir.display(), error = %why, "search index is damaged and will be made anew");
        metrics::counter!("search_shards_damaged_total").increment(1);
        match fs::remove_dir_all(&self.aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        match fs::rename(&self.dir, &self.aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Looks through the files that the newest commit consists of.
fn check(index: &Index) -> Result<(), SearchError> {
    let damaged = index.validate_checksum()?;
    match damaged.iter().min() {
        Some(file) => Err(SearchError::Damaged(format!("{} has a wrong checksum", file.display()))),
        None => Ok(()),
    }
}

fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum()
}
