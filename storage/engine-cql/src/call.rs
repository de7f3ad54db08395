//! Calls to the nodes: each under a deadline, so many at a time, counted and timed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::EngineError;
use scylla::client::session::Session;
use scylla::errors::ExecutionError;
use scylla::response::query_result::{QueryResult, QueryRowsResult};
use scylla::serialize::batch::BatchValues;
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchType};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout_at;

use crate::config::Config;
use crate::outcome;
use crate::second_ask::SecondAsk;
use crate::statement::{Kind, Prepared, PreparedBatch};

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Too many were under way until its time was over: it was not sent.
    Busy,
    /// Its time was over before the answer came.
    TimedOut(Duration),
    /// What driver or node said.
    Failed(Box<ExecutionError>),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Busy => f.write_str("too many calls are under way"),
            Self::TimedOut(after) => write!(f, "no answer within {} ms", after.as_millis()),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl From<Failure> for EngineError {
    fn from(failure: Failure) -> Self {
        Self::unavailable(failure.to_string())
    }
}

/// The session, with its limits.
pub(crate) struct Calls {
    pub(crate) session: Session,
    second_ask: Arc<SecondAsk>,
    conditional: Semaphore,
    others: Semaphore,
    timeout: Duration,
    conditional_timeout: Duration,
}

impl Calls {
    pub(crate) fn new(session: Session, second_ask: Arc<SecondAsk>, config: &Config) -> Self {
        Self {
            session,
            second_ask,
            conditional: Semaphore::new(config.conditional_in_flight_max),
            others: Semaphore::new(config.in_flight_max),
            timeout: config.request_timeout(),
            conditional_timeout: config.conditional_timeout(),
        }
    }

    /// The answer to one statement.
    pub(crate) async fn run(
        &self,
        prepared: &Prepared,
        values: impl SerializeRow,
    ) -> Result<QueryResult, Failure> {
        let call = self.session.execute_unpaged(&prepared.statement, values);
        self.limited(prepared.kind, &prepared.table, call).await
    }

    /// The same statement for all of these values, which are about one partition, by one request.
    pub(crate) async fn run_batch<V: SerializeRow>(
        &self,
        prepared: &Prepared,
        values: Vec<V>,
    ) -> Result<QueryResult, Failure> {
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_consistency(prepared.kind.consistency());
        batch.set_is_idempotent(prepared.kind.is_repeated());
        batch.set_retry_policy(Some(prepared.kind.retries()));
        for _ in &values {
            batch.append_statement(prepared.statement.clone());
        }
        let call = self.session.batch(&batch, values);
        self.limited(prepared.kind, &prepared.table, call).await
    }

    /// The rows that a query gives.
    pub(crate) async fn rows(
        &self,
        prepared: &Prepared,
        values: impl SerializeRow,
    ) -> Result<QueryRowsResult, EngineError> {
        let result = self.run(prepared, values).await?;
        result.into_rows_result().map_err(|error| EngineError::unavailable(error.to_string()))
    }

    /// What a conditional statement came to.
    pub(crate) async fn decide(
        &self,
        prepared: &Prepared,
        values: impl SerializeRow,
    ) -> Result<engine::Outcome, EngineError> {
        outcome::of_conditional(self.run(prepared, values).await)
    }

    /// What a conditional batch came to.
    pub(crate) async fn decide_batch(
        &self,
        prepared: &PreparedBatch,
        values: impl BatchValues,
    ) -> Result<engine::Outcome, EngineError> {
        let call = self.session.batch(&prepared.batch, values);
        outcome::of_conditional(self.limited(Kind::Conditional, &prepared.table, call).await)
    }

    async fn limited(
        &self,
        kind: Kind,
        table: &Arc<str>,
        call: impl Future<Output = Result<QueryResult, ExecutionError>>,
    ) -> Result<QueryResult, Failure> {
        let started = Instant::now();
        let until = tokio::time::Instant::now() + self.timeout;
        let limit = if kind == Kind::Conditional { &self.conditional } else { &self.others };
        let permit: Option<SemaphorePermit<'_>> =
            timeout_at(until, limit.acquire()).await.ok().and_then(Result::ok);
        let answer = match permit {
            None => Err(Failure::Busy),
            Some(_permit) => {
                // A coordinator that says nothing must not use up the time in which another could answer.
                let patience =
                    if kind == Kind::Conditional { self.conditional_timeout } else { self.timeout };
                let sent = tokio::time::Instant::now();
                let answer = timeout_at(until.min(sent + patience), call).await;
                if kind.is_repeated() {
                    self.second_ask.took(sent.elapsed());
                }
                match answer {
                    Ok(answer) => answer.map_err(|error| Failure::Failed(Box::new(error))),
                    Err(_) => Err(Failure::TimedOut(patience)),
                }
            }
        };
        let ended = match &answer {
            Ok(_) => "ok",
            Err(Failure::Busy) => "busy",
            Err(Failure::TimedOut(_)) => "timeout",
            Err(Failure::Failed(_)) => "error",
        };
        metrics::counter!("postrider_cql_calls_total", "kind" => kind.name(), "table" => table.clone(), "result" => ended)
            .increment(1);
        metrics::histogram!("postrider_cql_call_seconds", "kind" => kind.name())
            .record(started.elapsed().as_secs_f64());
        answer
    }
}
