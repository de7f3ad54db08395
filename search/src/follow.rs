//! Following accounts: what has come since the mark goes into the index, what is gone goes out of it.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mail::id::{AccountId, EmailId};
use parking_lot::Mutex;
use storage::{Account, Destroyed, OpenError, Principal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::document::Document;
use crate::error::SearchError;
use crate::query::all_emails;
use crate::schema::Mark;
use crate::search::{Search, blocking};
use crate::shard::{Change, Shard};

/// How long a shard is worked on while others wait.
const TURN: Duration = Duration::from_secs(20);
/// How long an account is worked on while others of its shard wait.
const ACCOUNT_TURN: Duration = Duration::from_secs(2);
/// Pauses after failures.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Deletions that are one question.
const DESTROYED_PER_CHANGE: usize = 1_000;
/// How far the mark of what was swept may be behind when nothing was; so that the trail is never lost for idleness.
const SWEPT_BEHIND_MAX: u64 = 1_000;
/// Days by which the day of the last reading may be wrong.
const READ_DAYS_STEP: u32 = 7;

/// The accounts that have news.
pub(crate) struct Follower {
    queue: Mutex<Queue>,
    /// Changes whenever an account has come.
    news: watch::Sender<u64>,
    /// Accounts that were read since the start, as far as they are remembered.
    touched: Mutex<HashSet<AccountId>>,
    /// Accounts that are to be indexed whoever reads them.
    wanted: Mutex<HashSet<AccountId>>,
    queue_max: usize,
}

#[derive(Default)]
struct Queue {
    shards: BTreeMap<usize, VecDeque<AccountId>>,
    waiting: HashSet<AccountId>,
    /// Shards that somebody works on.
    busy: HashSet<usize>,
}

impl Follower {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            queue: Mutex::default(),
            news: watch::Sender::new(0),
            touched: Mutex::default(),
            wanted: Mutex::default(),
            queue_max: config.queue_max.max(1),
        }
    }

    pub(crate) fn note(&self, shard: usize, account: AccountId) {
        let mut queue = self.queue.lock();
        if queue.waiting.len() >= self.queue_max {
            metrics::counter!("search_news_dropped_total").increment(1);
            return;
        }
        if queue.waiting.insert(account) {
            queue.shards.entry(shard).or_default().push_back(account);
            drop(queue);
            self.news.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    pub(crate) fn touch(&self, account: AccountId) {
        let mut touched = self.touched.lock();
        if touched.len() >= self.queue_max {
            // Who goes on reading comes again; of the others the mark knows the day.
            touched.clear();
        }
        touched.insert(account);
    }

    pub(crate) fn want(&self, account: AccountId) -> bool {
        let mut wanted = self.wanted.lock();
        let has_room = wanted.len() < self.queue_max;
        if has_room {
            wanted.insert(account);
        }
        has_room
    }

    fn is_wanted(&self, account: AccountId) -> bool {
        self.wanted.lock().contains(&account)
    }

    fn is_touched(&self, account: AccountId) -> bool {
        self.touched.lock().contains(&account)
    }

    /// A shard with waiting accounts that nobody works on.
    fn take_shard(&self) -> Option<usize> {
        let mut queue = self.queue.lock();
        let free =
            queue.shards.iter().find(|(shard, accounts)| !accounts.is_empty() && !queue.busy.contains(shard));
        let shard = *free?.0;
        queue.busy.insert(shard);
        Some(shard)
    }

    fn release(&self, shard: usize) {
        let mut queue = self.queue.lock();
        queue.busy.remove(&shard);
        if queue.shards.get(&shard).is_some_and(VecDeque::is_empty) {
            queue.shards.remove(&shard);
        }
        drop(queue);
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn next(&self, shard: usize) -> Option<AccountId> {
        let mut queue = self.queue.lock();
        let account = queue.shards.get_mut(&shard)?.pop_front()?;
        queue.waiting.remove(&account);
        Some(account)
    }

    fn has_others(&self, shard: usize) -> bool {
        let queue = self.queue.lock();
        queue.shards.iter().any(|(other, accounts)| *other != shard && !accounts.is_empty())
    }

    fn waiting(&self) -> usize {
        self.queue.lock().waiting.len()
    }
}

/// What one look at an account has led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// It is up to date, or not worth it.
    Done,
    /// There is more.
    More,
}

impl Search {
    /// Follows accounts until `stop`; then commits what it has.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(false);
        let mut workers = JoinSet::new();
        for _ in 0..self.inner.config.writers_max.max(1) {
            workers.spawn(self.clone().work(stopped.clone()));
        }
        if self.inner.generation.read().shards().iter().any(|shard| shard.is_large()) {
            let search = self.clone();
            // Ends with the last of what it looks through; nothing waits for it.
            tokio::spawn(async move {
                if let Err(error) = search.verify().await {
                    tracing::warn!(%error, "search index could not be verified");
                }
            });
        }
        stop.await;
        let _ = stopping.send(true);
        while let Some(ended) = workers.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a follower ended");
            }
        }
    }

    async fn work(self, mut stopped: watch::Receiver<bool>) {
        let follower = &self.inner.follower;
        let mut news = follower.news.subscribe();
        while !*stopped.borrow() {
            news.mark_unchanged();
            let Some(number) = follower.take_shard() else {
                tokio::select! {
                    _ = news.changed() => {}
                    _ = stopped.changed() => {}
                }
                continue;
            };
            let shard = self.inner.generation.read().shards().get(number).cloned();
            if let Some(shard) = shard {
                self.serve(&shard, number, &mut stopped).await;
            } else {
                // A generation with fewer shards: they are noted where they are now.
                while let Some(account) = follower.next(number) {
                    self.note(account);
                }
            }
            follower.release(number);
        }
    }

    /// Works on a shard until there is nothing to do, or others have waited long.
    async fn serve(&self, shard: &Arc<Shard>, number: usize, stopped: &mut watch::Receiver<bool>) {
        let follower = &self.inner.follower;
        let mut news = follower.news.subscribe();
        let began = Instant::now();
        let mut pause = PAUSE_MIN;
        while !*stopped.borrow() {
            if began.elapsed() > TURN && follower.has_others(number) || shard.is_retired() {
                break;
            }
            news.mark_unchanged();
            let done = match follower.next(number) {
                Some(account) if !Arc::ptr_eq(shard, &self.shard(account)) => {
                    // Another generation counts since it was noted, and it is in another shard now.
                    self.note(account);
                    break;
                }
                Some(account) => {
                    match self.follow(shard, account, ACCOUNT_TURN, follower.is_wanted(account)).await {
                        Ok(Step::Done) => {
                            follower.wanted.lock().remove(&account);
                            Ok(())
                        }
                        Ok(Step::More) => {
                            self.note(account);
                            Ok(())
                        }
                        Err(error) => {
                            if is_worth_repeating(&error) {
                                self.note(account);
                            }
                            Err((Some(account), error))
                        }
                    }
                }
                None => match shard.pending() {
                    None => break,
                    Some((_, since)) => {
                        let due = Duration::from_secs(self.inner.config.commit_seconds).saturating_sub(since);
                        if due.is_zero() {
                            self.commit(shard).await.map_err(|error| (None, error))
                        } else {
                            tokio::select! {
                                _ = news.changed() => {}
                                _ = stopped.changed() => {}
                                () = tokio::time::sleep(due) => {}
                            }
                            Ok(())
                        }
                    }
                },
            };
            let done = match done {
                Ok(()) => self.commit_when_due(shard).await.map_err(|error| (None, error)),
                failed => failed,
            };
            match done {
                Ok(()) => pause = PAUSE_MIN,
                Err((account, error)) => {
                    metrics::counter!("search_follow_failures_total").increment(1);
                    let account = account.map(|account| account.to_string()).unwrap_or_default();
                    tracing::warn!(account_id = %account, %error, "account not followed");
                    tokio::select! {
                        _ = stopped.changed() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
        if let Err(error) = self.commit(shard).await {
            tracing::warn!(%error, "search index not committed");
        }
        let shard = shard.clone();
        let rested = blocking(move || {
            shard.rest();
            Ok(())
        });
        // It cannot fail but by a panic, which says so itself.
        let _ = rested.await;
        metrics::gauge!("search_accounts_waiting").set(follower.waiting() as f64);
    }

    async fn commit(&self, shard: &Arc<Shard>) -> Result<(), SearchError> {
        let accounts = shard.pending_accounts();
        let committing = shard.clone();
        let done = blocking(move || committing.commit()).await;
        if done.as_ref().is_err_and(is_worth_repeating) {
            // What they had brought is gone with the commit.
            for account in accounts {
                self.note(account);
            }
        }
        done
    }

    pub(crate) async fn commit_when_due(&self, shard: &Arc<Shard>) -> Result<(), SearchError> {
        let config = &self.inner.config;
        match shard.pending() {
            Some((added, since))
                if added >= config.commit_emails || since >= Duration::from_secs(config.commit_seconds) =>
            {
                self.commit(shard).await
            }
            _ => Ok(()),
        }
    }

    /// Takes an account further, for so long. An account that was not read lately is left alone unless `is_wanted`.
    pub(crate) async fn follow(
        &self,
        shard: &Arc<Shard>,
        id: AccountId,
        turn: Duration,
        is_wanted: bool,
    ) -> Result<Step, SearchError> {
        let began = Instant::now();
        let config = &self.inner.config;
        let account = match self.inner.storage.account(&Principal::Operator, id).await {
            Ok(account) => account,
            Err(OpenError::Missing) => {
                let shard = shard.clone();
                // Deleted, and the index may still have what it held.
                let erase = move || match shard.progress(id)? {
                    Mark::NONE => Ok(()),
                    _ => shard.erase(id),
                };
                return blocking(erase).await.map(|()| Step::Done);
            }
            Err(error) => return Err(error.into()),
        };
        let before = {
            let shard = shard.clone();
            blocking(move || shard.progress(id)).await?
        };
        let today = today();
        let is_read = self.inner.follower.is_touched(id);
        if !is_wanted && !is_read && today.saturating_sub(before.read_day) > config.lazy_days {
            return Ok(Step::Done);
        }

        let (state, destroyed) = account.destroyed_since(before.swept).await?;
        let (last, seq) = (state.last_email(), state.modseq());
        // What is ahead of the account is not of this account: it was restored, or the index is another's.
        let anew = before.indexed > last || before.swept > seq;
        let mut mark = if anew { Mark::NONE } else { before };
        mark.read_day = if is_read { today } else { before.read_day };
        let gone = match destroyed {
            Destroyed::Known(gone) if !anew => Gone::These(gone),
            _ => self.present(shard, &account, anew).await?,
        };
        let is_idle = !anew
            && mark.indexed == last
            && gone.in_index().is_empty()
            && seq.0 - mark.swept.0 < SWEPT_BEHIND_MAX
            && mark.read_day.saturating_sub(before.read_day) < READ_DAYS_STEP;
        if is_idle {
            return Ok(Step::Done);
        }

        let mut steps = Steps { shard: shard.clone(), account: id, before, anew };
        while mark.indexed < last {
            let (documents, to) = self.batch(&account, mark.indexed, last, &gone).await?;
            mark.indexed = to;
            steps.make(documents, Vec::new(), mark).await?;
            if began.elapsed() > turn && mark.indexed < last {
                return Ok(Step::More);
            }
            self.commit_when_due(shard).await?;
        }
        // Only now, since emails that came later may be among those destroyed since.
        let mut parts: Vec<Vec<EmailId>> =
            gone.in_index().chunks(DESTROYED_PER_CHANGE).map(<[EmailId]>::to_vec).collect();
        let rest = parts.pop().unwrap_or_default();
        for part in parts {
            steps.make(Vec::new(), part, mark).await?;
        }
        mark.swept = seq;
        steps.make(Vec::new(), rest, mark).await?;
        Ok(Step::Done)
    }

    /// The next emails above `after`, and the last that was looked at.
    async fn batch(
        &self,
        account: &Account,
        after: EmailId,
        last: EmailId,
        gone: &Gone,
    ) -> Result<(Vec<Document>, EmailId), SearchError> {
        let config = &self.inner.config;
        let to = EmailId(last.0.min(after.0 + config.batch_emails.max(1) as u64));
        let ids: Vec<EmailId> =
            (after.0 + 1..=to.0).map(EmailId).filter(|email| !gone.contains(*email)).collect();
        let mut documents = Vec::with_capacity(ids.len());
        let (mut bytes, began) = (0, Instant::now());
        for record in account.emails(&ids).await?.into_iter().flatten() {
            let document = Document::of(account, &record, &config.text, Some(&self.inner.extractor)).await?;
            bytes += document.weight();
            documents.push(document);
            // Attachments may take long, and other accounts wait.
            if bytes >= config.batch_bytes || began.elapsed() > ACCOUNT_TURN {
                return Ok((documents, record.id));
            }
        }
        metrics::counter!("search_emails_indexed_total").increment(documents.len() as u64);
        Ok((documents, to))
    }

    /// What is gone where nobody remembers: what is in the index and not in the account.
    async fn present(&self, shard: &Arc<Shard>, account: &Account, anew: bool) -> Result<Gone, SearchError> {
        let Some(present) = account.emails_present().await? else {
            return Err(SearchError::Unavailable("the account changes too fast".to_owned()));
        };
        if anew {
            return Ok(Gone::AllBut { present, in_index: Vec::new() });
        }
        let (shard, id) = (shard.clone(), account.id());
        let indexed =
            blocking(move || shard.read(|searcher, fields| all_emails(searcher, fields, id))).await?;
        let in_index =
            indexed.into_iter().map(EmailId).filter(|email| present.binary_search(email).is_err()).collect();
        Ok(Gone::AllBut { present, in_index })
    }
}

/// Emails that are gone.
enum Gone {
    /// These, ascending.
    These(Vec<EmailId>),
    /// All but these, ascending; and which of them the index has.
    AllBut { present: Vec<EmailId>, in_index: Vec<EmailId> },
}

impl Gone {
    fn contains(&self, email: EmailId) -> bool {
        match self {
            Self::These(gone) => gone.binary_search(&email).is_ok(),
            Self::AllBut { present, .. } => present.binary_search(&email).is_err(),
        }
    }

    /// What may have to be taken out.
    fn in_index(&self) -> &[EmailId] {
        match self {
            Self::These(gone) | Self::AllBut { in_index: gone, .. } => gone,
        }
    }
}

/// Changes to one account, each of which begins where the one before has ended.
struct Steps {
    shard: Arc<Shard>,
    account: AccountId,
    before: Mark,
    anew: bool,
}

impl Steps {
    async fn make(
        &mut self,
        added: Vec<Document>,
        destroyed: Vec<EmailId>,
        mark: Mark,
    ) -> Result<(), SearchError> {
        let (shard, account) = (self.shard.clone(), self.account);
        let before = std::mem::replace(&mut self.before, mark);
        let anew = std::mem::take(&mut self.anew);
        blocking(move || {
            shard.change(&Change { account, added: &added, destroyed: &destroyed, before, mark, anew })
        })
        .await
    }
}

fn is_worth_repeating(error: &SearchError) -> bool {
    use storage::StorageError;
    match error {
        SearchError::Unavailable(_) | SearchError::Damaged(_) => true,
        SearchError::Storage(error) => {
            matches!(error, StorageError::Unavailable(_) | StorageError::Full | StorageError::Undecided)
        }
        SearchError::Closed => false,
    }
}

/// Days since 1970.
fn today() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs() / 86_400) as u32
}
