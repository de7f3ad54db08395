//! One call of the service: attempts, pauses between them, and what an answer means.
//!
//! The SDK's own retries are off, since they end when an answer begins: a body that breaks off half-way is for us to
//! notice, and to ask for again.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use blob::{BlobsError, SegmentId, with_causes};

use crate::Config;

/// What went wrong with an attempt.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// For people. Never has credentials: what was sent is not in it, only what came back.
    text: String,
}

/// What a fault means for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Another attempt can help.
    Passing,
    /// There is no such object. The service said so of the object, not of the bucket or the way to it.
    NoObject,
    /// There is no such upload (any more).
    NoUpload,
    /// The key is in use.
    Taken,
    /// The object has no byte of the range.
    NoRange,
    /// No room.
    Full,
    /// Anything else that will not change by itself.
    Refused,
}

impl Fault {
    pub(crate) fn passing(text: impl Into<String>) -> Self {
        Self { kind: Kind::Passing, text: text.into() }
    }

    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, text: text.into() }
    }

    /// Sorts what the SDK says.
    pub(crate) fn of<E>(error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let (status, code) = match &error {
            SdkError::ServiceError(answer) => {
                (Some(answer.raw().status().as_u16()), answer.err().code().map(str::to_owned))
            }
            SdkError::ResponseError(answer) => (Some(answer.raw().status().as_u16()), None),
            _ => (None, None),
        };
        let kind = match (status, code.as_deref()) {
            (Some(404), Some("NoSuchKey")) => Kind::NoObject,
            (_, Some("NoSuchUpload")) => Kind::NoUpload,
            (Some(412), _) => Kind::Taken,
            (Some(416), _) => Kind::NoRange,
            (Some(507), _) | (_, Some("QuotaExceeded" | "XMinioStorageFull")) => Kind::Full,
            // 409 is how the service says that two conditional writes met; whether ours won shows in the next attempt.
            (Some(408 | 409 | 429 | 500..), _) => Kind::Passing,
            // Passed on the way to us, or broken on the way to the service.
            (Some(400), Some("RequestTimeout" | "BadDigest" | "IncompleteBody" | "ExpiredToken")) => {
                Kind::Passing
            }
            (Some(200..300), _) => Kind::Passing,
            (Some(_), _) => Kind::Refused,
            // No answer: no connection, none in time, or no credentials from where they come from.
            (None, _) => Kind::Passing,
        };
        let mut text = String::new();
        if let Some(status) = status {
            text = format!("status {status} ");
        }
        if let Some(code) = code {
            text = format!("{text}{code} ");
        }
        text.push_str(&with_causes(&error));
        Self { kind, text }
    }

    /// As the contract of segments has it.
    pub(crate) fn about(self, during: &'static str, segment: SegmentId) -> BlobsError {
        match self.kind {
            Kind::NoObject => BlobsError::NotFound(segment),
            Kind::Taken => BlobsError::Exists(segment),
            _ => self.during(during),
        }
    }

    /// The same where it is about no segment.
    pub(crate) fn during(self, during: &'static str) -> BlobsError {
        match self.kind {
            Kind::Passing => BlobsError::Unavailable { during, source: Arc::new(self) },
            Kind::Full => BlobsError::Full(Arc::new(std::io::Error::other(self))),
            _ => BlobsError::Refused { during, source: Arc::new(self) },
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Fault {}

/// How long and how often a call is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    attempt: Duration,
    call: Duration,
    retries: u32,
    pause: Duration,
    pause_max: Duration,
}

impl Patience {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            attempt: Duration::from_secs(config.attempt_seconds_max),
            call: Duration::from_secs(config.call_seconds_max),
            retries: config.retries_max,
            pause: Duration::from_millis(config.retry_pause_ms),
            pause_max: Duration::from_millis(config.retry_pause_ms_max),
        }
    }

    /// Attempts until one succeeds, or says what another cannot change, or there are none left, or no time.
    ///
    /// After an error the service may have done what was asked all the same; so every request that is made this way can
    /// be made twice.
    pub(crate) async fn call<T, F>(
        &self,
        name: &'static str,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let begun = Instant::now();
        let mut retries = 0;
        loop {
            let left = self.call.saturating_sub(begun.elapsed());
            let answer = tokio::time::timeout(self.attempt.min(left), attempt()).await;
            let fault = match answer {
                Ok(Ok(done)) => {
                    metrics::counter!("postrider_s3_calls_total", "call" => name, "outcome" => "done")
                        .increment(1);
                    metrics::histogram!("postrider_s3_call_seconds", "call" => name)
                        .record(begun.elapsed().as_secs_f64());
                    return Ok(done);
                }
                Ok(Err(fault)) => fault,
                Err(_) => Fault::passing("no answer in time"),
            };
            let pause = self.pause(retries);
            if fault.kind != Kind::Passing || retries == self.retries || begun.elapsed() + pause >= self.call
            {
                let outcome = if fault.kind == Kind::Passing { "failed" } else { "refused" };
                metrics::counter!("postrider_s3_calls_total", "call" => name, "outcome" => outcome)
                    .increment(1);
                return Err(fault);
            }
            retries += 1;
            metrics::counter!("postrider_s3_retries_total", "call" => name).increment(1);
            tracing::debug!(call = name, attempt = retries, error = %fault, "the object store is asked again");
            tokio::time::sleep(pause).await;
        }
    }

    /// Random below a bound that doubles: after an outage not everybody comes back in the same instant.
    fn pause(&self, retries: u32) -> Duration {
        let bound = self.pause.saturating_mul(1 << retries.min(16)).min(self.pause_max);
        bound.mul_f64(rand::random::<f64>())
    }
}
