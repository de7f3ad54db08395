//! Search, as services ask it.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use mail::id::{AccountId, EmailId};
use parking_lot::{Mutex, RwLock};
use storage::{Account, Storage};
use tokio::sync::Semaphore;

use crate::config::{Config, TextLimits};
use crate::document::Document;
use crate::error::SearchError;
use crate::filter::Wanted;
use crate::follow::Follower;
use crate::generation::Generation;
use crate::gram::Needle;
use crate::query::{self, Hit};
use crate::schema::{Fields, Mark};
use crate::shard::Shard;
use crate::tail;

/// Emails whose records are asked for at one time.
const RECORDS_PER_TURN: usize = 128;

/// The search index of an installation. Cheap to clone.
#[derive(Clone)]
pub struct Search {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) storage: Storage,
    pub(crate) config: Config,
    pub(crate) fields: Arc<Fields>,
    pub(crate) generation: RwLock<Arc<Generation>>,
    pub(crate) follower: Follower,
    pub(crate) rebuilding: tokio::sync::Mutex<()>,
    /// The generation that a rebuild is at.
    pub(crate) building: Mutex<Option<Arc<Generation>>>,
    searching: Semaphore,
}

/// Which emails may hold something. Whoever asks looks at those himself: every email that does is among them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidates {
    /// Of the emails that are in the index.
    pub ids: Ids,
    /// The emails that are not.
    pub unindexed: Unindexed,
}

/// Emails of the index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ids {
    /// All: nothing can be said.
    All,
    /// These, ascending.
    These(Vec<EmailId>),
}

/// Emails above a number: numbers are given in the order of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unindexed {
    /// All up to this one are in the index, or gone.
    pub after: EmailId,
}

/// Emails that words were found in.
#[derive(Clone, PartialEq, Debug)]
pub struct Found {
    /// Ascending by number.
    pub hits: Vec<Hit>,
    /// Whether these are all. Not so while emails are unknown, and beyond `hits_max`.
    pub is_complete: bool,
    /// The emails that nothing is known of: they are neither in the index nor, as the newest `tail_max` are by
    /// [`Search::find`], were they looked at. `None` where hits were left out, so that any other email may be one.
    pub unknown: Option<RangeInclusive<u64>>,
}

/// How far an account is in the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Committed.
    pub mark: Mark,
    /// The last email that there is.
    pub last: EmailId,
}

impl Candidates {
    /// What is known where nothing is.
    pub const UNKNOWN: Self = Self { ids: Ids::All, unindexed: Unindexed { after: EmailId(0) } };

    /// Whether this email has to be looked at.
    pub fn may_hold(&self, email: EmailId) -> bool {
        match &self.ids {
            Ids::All => true,
            Ids::These(ids) => email > self.unindexed.after || ids.binary_search(&email).is_ok(),
        }
    }
}

impl Found {
    /// Whether an email holds what was looked for. `None`: it has to be looked at.
    pub fn holds(&self, email: EmailId) -> Option<bool> {
        if self.hits.binary_search_by_key(&email, |hit| hit.email).is_ok() {
            return Some(true);
        }
        match &self.unknown {
            Some(unknown) if !unknown.contains(&email.0) => Some(false),
            _ => None,
        }
    }
}

impl Unindexed {
    /// The emails, ascending, as far as they are not gone.
    pub fn of(self, account: &Account) -> impl Iterator<Item = EmailId> + use<> {
        (self.after.0 + 1..=account.state().last_email().0).map(EmailId)
    }
}

impl Search {
    /// The index in `config.dir`. An index that cannot be read is replaced by an empty one; what is in the way are only
    /// directories that cannot be made.
    pub async fn open(storage: Storage, config: Config) -> Result<Self, SearchError> {
        let fields = Arc::new(Fields::new());
        let generation = {
            let (config, fields) = (config.clone(), fields.clone());
            blocking(move || Generation::open(&config, &fields)).await?
        };
        let searching = Semaphore::new(config.searches_max.max(1));
        let follower = Follower::new(&config);
        let generation = RwLock::new(Arc::new(generation));
        let rebuilding = tokio::sync::Mutex::default();
        let building = Mutex::default();
        let inner = Inner { storage, config, fields, generation, follower, rebuilding, building, searching };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Which emails of an account may hold all of the needles. Never fails: where the index does not answer, any may.
    pub async fn candidates(&self, account: AccountId, needles: &[Needle]) -> Candidates {
        let all = self.ask_candidates(account, vec![needles.to_vec()]).await;
        all.into_iter().next().unwrap_or(Candidates::UNKNOWN)
    }

    /// The same for each needle by itself, out of one commit: for questions that are more than "all of these".
    pub async fn candidates_each(&self, account: AccountId, needles: &[Needle]) -> Vec<Candidates> {
        let lists: Vec<Vec<Needle>> = needles.iter().map(|needle| vec![needle.clone()]).collect();
        let mut all = self.ask_candidates(account, lists).await;
        all.resize(needles.len(), Candidates::UNKNOWN);
        all
    }

    async fn ask_candidates(&self, account: AccountId, lists: Vec<Vec<Needle>>) -> Vec<Candidates> {
        self.touch(account);
        let grams_max = self.inner.config.needle_grams_max;
        let asked = self.ask(account, move |searcher, fields| {
            let after = query::mark(searcher, fields, account)?.indexed;
            let unindexed = Unindexed { after };
            let mut all = Vec::with_capacity(lists.len());
            for needles in &lists {
                let found = query::candidates(searcher, fields, account, needles, grams_max)?;
                let ids = found.map_or(Ids::All, |ids| Ids::These(ids.into_iter().map(EmailId).collect()));
                all.push(Candidates { ids, unindexed });
            }
            Ok(all)
        });
        match asked.await {
            Ok(all) => all,
            Err(error) => {
                tracing::warn!(account_id = %account, %error, "search goes on without its index");
                Vec::new()
            }
        }
    }

    /// The emails of an account in which words are found, those that came a moment ago included.
    pub async fn find(&self, account: &Account, wanted: &Wanted) -> Result<Found, SearchError> {
        let (mark, mut hits) = self.ask_words(account, wanted).await;
        let id = account.id();
        let (last, tail_max) = (account.state().last_email(), self.inner.config.tail_max);
        let first = EmailId(mark.indexed.0.max(last.0.saturating_sub(tail_max as u64)) + 1);
        if first <= last {
            let documents = self.documents(account, first, last).await?;
            let (fields, wanted) = (self.inner.fields.clone(), wanted.clone());
            let _turn = self.inner.searching.acquire().await.map_err(|_| SearchError::Closed)?;
            hits.extend(blocking(move || tail::words(&fields, id, &documents, &wanted)).await?);
        }
        Ok(self.bounded(hits, mark.indexed.0 + 1..=first.0 - 1))
    }

    /// The same, of the emails that are in the index alone; whoever asks looks at the others himself (see [`Look`]).
    /// Never fails: where the index does not answer, nothing is known.
    ///
    /// [`Look`]: crate::Look
    pub async fn find_indexed(&self, account: &Account, wanted: &Wanted) -> Found {
        let (mark, hits) = self.ask_words(account, wanted).await;
        self.bounded(hits, mark.indexed.0 + 1..=u64::MAX)
    }

    async fn ask_words(&self, account: &Account, wanted: &Wanted) -> (Mark, Vec<Hit>) {
        let id = account.id();
        self.touch(id);
        let wanted = wanted.clone();
        let asked = self.ask(id, move |searcher, fields| {
            Ok((query::mark(searcher, fields, id)?, query::words(searcher, fields, id, &wanted)?))
        });
        match asked.await {
            // A mark ahead of the account is one of another installation's, and so are the hits.
            Ok((mark, _)) if mark.indexed > account.state().last_email() => (Mark::NONE, Vec::new()),
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(account_id = %id, %error, "search goes on without its index");
                (Mark::NONE, Vec::new())
            }
        }
    }

    /// The best hits, as many as may be told.
    fn bounded(&self, mut hits: Vec<Hit>, unknown: RangeInclusive<u64>) -> Found {
        let hits_max = self.inner.config.hits_max;
        if hits.len() <= hits_max {
            return Found { hits, is_complete: unknown.is_empty(), unknown: Some(unknown) };
        }
        hits.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(b.email.cmp(&a.email)));
        hits.truncate(hits_max);
        hits.sort_unstable_by_key(|hit| hit.email);
        Found { hits, is_complete: false, unknown: None }
    }

    /// How much of a message is looked at: whoever looks at messages himself has to know, to find the same in them.
    pub fn text_limits(&self) -> TextLimits {
        self.inner.config.text
    }

    /// How far an account is.
    pub async fn standing(&self, account: &Account) -> Result<Standing, SearchError> {
        let id = account.id();
        let mark = self.ask(id, move |searcher, fields| query::mark(searcher, fields, id)).await?;
        Ok(Standing { mark, last: account.state().last_email() })
    }

    /// Something has happened in an account. Costs nothing; it is followed when there is time.
    pub fn note(&self, account: AccountId) {
        self.inner.follower.note(self.shard_number(account), account);
    }

    /// The owner reads the account, so it is worth being indexed.
    pub fn touch(&self, account: AccountId) {
        self.inner.follower.touch(account);
        self.note(account);
    }

    /// The account is to be indexed though nobody has read it lately: maintenance says so, after damage or an import.
    /// Says whether it is remembered; else say it again later.
    pub fn want(&self, account: AccountId) -> bool {
        let is_remembered = self.inner.follower.want(account);
        self.note(account);
        is_remembered
    }

    /// An account is deleted: nothing of it stays in any file.
    pub async fn erase(&self, account: AccountId) -> Result<(), SearchError> {
        let mut shards = vec![self.shard(account)];
        shards.extend(self.inner.building.lock().as_ref().map(|building| building.shard(account).clone()));
        // A rebuild that ends at this moment has made the second the first.
        shards.push(self.shard(account));
        shards.dedup_by(|a, b| Arc::ptr_eq(a, b));
        for shard in shards {
            match blocking(move || shard.erase(account)).await {
                Ok(()) | Err(SearchError::Closed) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Looks through the files of all shards; those that are damaged make way. Says how many were.
    pub async fn verify(&self) -> Result<usize, SearchError> {
        let shards = self.inner.generation.read().shards().to_vec();
        let mut damaged = 0;
        for shard in shards {
            match blocking(move || shard.verify()).await {
                Ok(()) => {}
                Err(error) if error.is_damage() => damaged += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(damaged)
    }

    /// Octets that the index takes.
    pub async fn bytes(&self) -> u64 {
        let shards = self.inner.generation.read().shards().to_vec();
        blocking(move || Ok(shards.iter().map(|shard| shard.bytes()).sum())).await.unwrap_or(0)
    }

    pub(crate) fn shard(&self, account: AccountId) -> Arc<Shard> {
        self.inner.generation.read().shard(account).clone()
    }

    fn shard_number(&self, account: AccountId) -> usize {
        self.inner.generation.read().place(account)
    }

    async fn ask<R: Send + 'static>(
        &self,
        account: AccountId,
        question: impl FnOnce(&tantivy::Searcher, &Fields) -> tantivy::Result<R> + Send + 'static,
    ) -> Result<R, SearchError> {
        let shard = self.shard(account);
        let _turn = self.inner.searching.acquire().await.map_err(|_| SearchError::Closed)?;
        blocking(move || shard.read(question)).await
    }

    /// What would be indexed of these emails.
    async fn documents(
        &self,
        account: &Account,
        first: EmailId,
        last: EmailId,
    ) -> Result<Vec<Document>, SearchError> {
        let mut documents = Vec::new();
        let ids: Vec<EmailId> = (first.0..=last.0).map(EmailId).collect();
        for ids in ids.chunks(RECORDS_PER_TURN) {
            for record in account.emails(ids).await?.into_iter().flatten() {
                documents.push(Document::of(account, &record, &self.inner.config.text).await?);
            }
        }
        Ok(documents)
    }
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Search(generation {})", self.inner.generation.read().number)
    }
}

/// Runs what blocks where that is allowed.
pub(crate) async fn blocking<R: Send + 'static>(
    act: impl FnOnce() -> Result<R, SearchError> + Send + 'static,
) -> Result<R, SearchError> {
    match tokio::task::spawn_blocking(act).await {
        Ok(done) => done,
        Err(error) => Err(SearchError::Unavailable(error.to_string())),
    }
}
