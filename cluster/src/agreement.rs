//! What all nodes of an installation must have the same, and the first one to start writes down.

use bytes::Bytes;
use engine::{EngineError, Row, RowKey, Rows, Table};

/// The partition of table `Mark` in which it stands.
const PARTITION: &[u8] = b"cluster";

/// Why a node must not take part.
#[derive(Debug, thiserror::Error)]
pub enum AgreementError {
    /// This node has something else than the others.
    #[error("this node has {own} as its {what}, the cluster has {agreed}")]
    Differs {
        /// Of what.
        what: &'static str,
        /// Ours.
        own: String,
        /// The one that was written down.
        agreed: String,
    },
    /// The engine did not answer.
    #[error("the engine did not say what the nodes have agreed on")]
    Engine(#[source] EngineError),
}

/// What was written down. `None`: nothing yet.
pub async fn agreed(rows: &dyn Rows, what: &'static str) -> Result<Option<String>, AgreementError> {
    let value = rows.get(key(what)).await.map_err(AgreementError::Engine)?;
    Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
}

/// Writes down what this node has, if it is the first to say so; refuses when others have something else.
pub async fn agree(rows: &dyn Rows, what: &'static str, own: &str) -> Result<(), AgreementError> {
    let row = Row { key: key(what), value: Bytes::copy_from_slice(own.as_bytes()) };
    match rows.put_new(row).await {
        Ok(true) => return Ok(()),
        // Whoever wrote it, it is read below.
        Ok(false) | Err(EngineError::Undecided { .. }) => {}
        Err(error) => return Err(AgreementError::Engine(error)),
    }
    match agreed(rows, what).await? {
        Some(agreed) if agreed == own => Ok(()),
        Some(agreed) => Err(AgreementError::Differs { what, own: own.to_owned(), agreed }),
        None => Err(AgreementError::Engine(EngineError::Undecided {
            reason: format!("it is not known whether the {what} was written down"),
        })),
    }
}

/// Writes down something else than what was agreed on until now, if that is still so. Who may do that, and when, is up to
/// whoever calls it. `false`: it was not so any more.
pub(crate) async fn change(
    rows: &dyn Rows,
    what: &'static str,
    from: &str,
    to: &str,
) -> Result<bool, AgreementError> {
    let value = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
    match rows.replace_if(key(what), value(from), value(to)).await {
        Ok(changed) => Ok(changed),
        Err(EngineError::Undecided { .. }) => Ok(agreed(rows, what).await?.as_deref() == Some(to)),
        Err(error) => Err(AgreementError::Engine(error)),
    }
}

fn key(what: &'static str) -> RowKey {
    RowKey::new(Table::Mark, PARTITION, what.as_bytes())
}

#[cfg(test)]
mod tests {
    use engine::memory::MemoryEngine;

    use super::*;

    #[tokio::test]
    async fn the_first_one_says_it_and_the_others_must_have_it() {
        let engine = MemoryEngine::new().engine();
        assert_eq!(agreed(&*engine.rows, "key").await.unwrap(), None);
        agree(&*engine.rows, "key", "one").await.unwrap();
        agree(&*engine.rows, "key", "one").await.unwrap();
        let refused = agree(&*engine.rows, "key", "two").await.unwrap_err();
        assert_eq!(refused.to_string(), "this node has two as its key, the cluster has one");
        assert_eq!(agreed(&*engine.rows, "key").await.unwrap().as_deref(), Some("one"));
    }
}
