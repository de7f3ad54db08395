//! What an answer, or the lack of one, says about a statement.

use engine::{EngineError, Outcome};
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::response::query_result::QueryResult;
use scylla::value::{CqlValue, Row};

use crate::call::Failure;

/// What a conditional statement came to.
pub(crate) fn of_conditional(answer: Result<QueryResult, Failure>) -> Result<Outcome, EngineError> {
    match answer {
        Ok(result) => match applied(result) {
            Some(true) => Ok(Outcome::Applied),
            Some(false) => Ok(Outcome::Conflict),
            None => Ok(Outcome::Unknown),
        },
        Err(Failure::Failed(error)) if !is_certainly_not_applied(&error) => {
            tracing::debug!(%error, "outcome of a conditional statement is not known");
            Ok(Outcome::Unknown)
        }
        Err(Failure::TimedOut(_)) => Ok(Outcome::Unknown),
        Err(failure) => Err(failure.into()),
    }
}

/// The column `[applied]`. Back ends differ in what other columns they give, so it is found by its name.
pub(crate) fn applied(result: QueryResult) -> Option<bool> {
    let rows = result.into_rows_result().ok()?;
    let (place, _) = rows.column_specs().get_by_name("[applied]")?;
    let row = rows.rows::<Row>().ok()?.next()?.ok()?;
    match row.columns.get(place)? {
        Some(CqlValue::Boolean(applied)) => Some(*applied),
        _ => None,
    }
}

/// Whether a conditional statement that ended like this has not been applied and will not be.
///
/// Only refusals that come before anything was proposed are certain. With Paxos v2, which a start asks for, a
/// coordinator says *unavailable* before it proposes and at no later time; ScyllaDB likewise. A time-out of any kind, a
/// broken connection and every error that is not listed here may have left a proposal that a later round completes.
pub(crate) fn is_certainly_not_applied(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::BadQuery(_)
        | ExecutionError::EmptyPlan
        | ExecutionError::PrepareError(_)
        | ExecutionError::ConnectionPoolError(_) => true,
        ExecutionError::LastAttemptError(attempt) => match attempt {
            RequestAttemptError::SerializationError(_)
            | RequestAttemptError::CqlRequestSerialization(_)
            | RequestAttemptError::UnableToAllocStreamId => true,
            RequestAttemptError::DbError(error, _) => matches!(
                error,
                DbError::SyntaxError
                    | DbError::Invalid
                    | DbError::Unauthorized
                    | DbError::AuthenticationError
                    | DbError::ConfigError
                    | DbError::Unavailable { .. }
                    | DbError::Overloaded
                    | DbError::IsBootstrapping
                    | DbError::RateLimitReached { .. }
            ),
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use scylla::errors::WriteType;
    use scylla::statement::Consistency;

    use super::*;

    #[test]
    fn only_what_was_refused_before_a_proposal_is_certain() {
        let db = |error| ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, String::new()));
        let consistency = Consistency::LocalQuorum;
        let unavailable = DbError::Unavailable { consistency, required: 2, alive: 1 };
        let write_type = WriteType::Cas;
        let timeout = DbError::WriteTimeout { consistency, received: 1, required: 2, write_type };
        let write_type = WriteType::Cas;
        let failure =
            DbError::WriteFailure { consistency, received: 1, required: 2, numfailures: 1, write_type };
        let read = DbError::ReadTimeout { consistency, received: 1, required: 2, data_present: true };
        for (error, certain) in [
            (db(unavailable), true),
            (db(DbError::Overloaded), true),
            (db(timeout), false),
            (db(failure), false),
            (db(read), false),
            (db(DbError::ServerError), false),
            (ExecutionError::RequestTimeout(Duration::from_secs(1)), false),
            (ExecutionError::EmptyPlan, true),
        ] {
            assert_eq!(is_certainly_not_applied(&error), certain, "{error}");
            let outcome = of_conditional(Err(Failure::Failed(Box::new(error))));
            assert_eq!(outcome.is_err(), certain);
            assert!(certain || matches!(outcome, Ok(Outcome::Unknown)));
        }
    }
}
