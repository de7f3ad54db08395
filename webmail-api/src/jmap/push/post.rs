//! One push (RFC 8030 §5): a request to a push service, and what its answer means.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use bytes::Bytes;
use directory::Subscription;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use net::stream::Stream;
use net::tls::{TlsError, Trust};
use serde_json::Value;
use tokio::sync::OnceCell;

use super::config::PushConfig;
use super::encrypt::{CODING, encrypt};
use super::endpoint::{Endpoint, NoAddress};
use super::unix_now;
use super::vapid::Vapid;

/// Octets of an answer's header.
const HEADER_BYTES_MAX: usize = 32 << 10;
/// A push service that asks for more patience than this is asked again all the same.
const RETRY_AFTER_SECONDS_MAX: u64 = 86_400;

/// How soon a device should be woken for it (RFC 8030 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Something was done elsewhere, which can wait for power.
    Low,
    /// Somebody has written, or the client waits for it.
    Normal,
}

/// What came of a push.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The push service has it.
    Taken,
    /// It will never take one again.
    Ended(String),
    /// It may take one later; after this long, where it says so.
    Later(Option<Duration>, String),
}

impl Outcome {
    /// As metrics have it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Ended(_) => "ended",
            Self::Later(..) => "later",
        }
    }
}

/// Makes requests.
#[derive(Debug)]
pub(super) struct Poster {
    config: PushConfig,
    vapid: Option<Vapid>,
    /// Read when it is needed first: most servers never push.
    trust: OnceCell<Trust>,
}

impl Poster {
    pub(super) fn new(config: PushConfig, vapid: Option<Vapid>) -> Self {
        Self { config, vapid, trust: OnceCell::new() }
    }

    pub(super) fn vapid(&self) -> Option<&Vapid> {
        self.vapid.as_ref()
    }

    /// Pushes `said` to where a subscription leads.
    pub(super) async fn push(&self, to: &Subscription, said: &Value, urgency: Urgency) -> Outcome {
        let patience = Duration::from_secs(self.config.seconds_max.max(1));
        let outcome = match tokio::time::timeout(patience, self.attempt(to, said, urgency)).await {
            Ok(Ok(outcome) | Err(outcome)) => outcome,
            Err(_) => Outcome::Later(None, "it took too long".to_owned()),
        };
        metrics::counter!("postrider_jmap_pushes_total", "outcome" => outcome.name()).increment(1);
        outcome
    }

    async fn attempt(&self, to: &Subscription, said: &Value, urgency: Urgency) -> Result<Outcome, Outcome> {
        // It was one when it was taken; the configuration may be another now.
        let endpoint =
            Endpoint::parse(&to.url, &self.config).map_err(|why| Outcome::Ended(why.to_owned()))?;
        let request = self.request(&endpoint, to, said, urgency)?;
        let stream = self.connect(&endpoint).await?;
        let (status, headers) = exchange(stream, request).await.map_err(later)?;
        Ok(judge(status, &headers))
    }

    fn request(
        &self,
        endpoint: &Endpoint,
        to: &Subscription,
        said: &Value,
        urgency: Urgency,
    ) -> Result<Request<Full<Bytes>>, Outcome> {
        let mut body = said.to_string().into_bytes();
        // RFC 8620 §7.2: JSON, whatever it is encrypted with.
        let mut request = Request::post(&endpoint.path)
            .header(header::HOST, &endpoint.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header("ttl", self.config.keep_seconds)
            .header("urgency", if urgency == Urgency::Low { "low" } else { "normal" });
        if let Some(keys) = &to.keys {
            body = encrypt(keys, &body).map_err(later)?;
            request = request.header(header::CONTENT_ENCODING, CODING);
        }
        // RFC 9749 §4: every push, since the key is announced.
        if let Some(shown) =
            self.vapid.as_ref().and_then(|vapid| vapid.authorization(&endpoint.origin(), unix_now()))
        {
            let mut shown = HeaderValue::from_str(&shown).map_err(later)?;
            shown.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, shown);
        }
        request.body(Full::new(Bytes::from(body))).map_err(later)
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Stream, Outcome> {
        let addresses = endpoint.addresses(&self.config).await.map_err(|error| match error {
            NoAddress::Unknown(_) => later(error),
            NoAddress::Inner(_) => Outcome::Ended(error.to_string()),
        })?;
        let mut trouble = Outcome::Later(None, "no address".to_owned());
        for address in addresses {
            match Stream::connect(address).await {
                Ok(mut stream) if !endpoint.is_plain => {
                    let trust = self.trust.get_or_try_init(|| read_trust(&self.config.ca)).await;
                    let client = trust.map_err(later)?.client(&endpoint.host).map_err(later)?;
                    stream.connect_tls(&client).await.map_err(later)?;
                    return Ok(stream);
                }
                Ok(stream) => return Ok(stream),
                Err(error) => trouble = later(error),
            }
        }
        Err(trouble)
    }
}

async fn read_trust(ca: &Path) -> Result<Trust, TlsError> {
    let ca = ca.to_owned();
    let read = move || if ca.as_os_str().is_empty() { Trust::system() } else { Trust::file(&ca) };
    tokio::task::spawn_blocking(read).await.unwrap_or(Err(TlsError::NoCertificate))
}

/// Sends a request and waits for the header of the answer, which says all. A redirect is an answer like any other and is
/// not followed: it could lead anywhere.
async fn exchange(
    stream: Stream,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, HeaderMap), hyper::Error> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEADER_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let mut answer = pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // When the connection is at its end, so is what came of the request.
        _ = connection => answer.await,
    };
    let (head, _) = answer?.into_parts();
    Ok((head.status, head.headers))
}

fn judge(status: StatusCode, headers: &HeaderMap) -> Outcome {
    if status.is_success() {
        return Outcome::Taken;
    }
    let said = format!("the push service answered {}", status.as_u16());
    // RFC 8030 §7.3.
    if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
        return Outcome::Ended(said);
    }
    let after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let after = after.map(|seconds: u64| Duration::from_secs(seconds.min(RETRY_AFTER_SECONDS_MAX)));
    Outcome::Later(after, said)
}

fn later(error: impl std::error::Error) -> Outcome {
    Outcome::Later(None, engine::with_causes(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let check = |status: u16, after: &str, expected: &str, seconds: Option<u64>| {
            let mut headers = HeaderMap::new();
            if !after.is_empty() {
                headers.insert(header::RETRY_AFTER, after.parse().unwrap());
            }
            let outcome = judge(StatusCode::from_u16(status).unwrap(), &headers);
            assert_eq!(outcome.name(), expected, "{status}");
            if let Outcome::Later(after, _) = outcome {
                assert_eq!(after.map(|after| after.as_secs()), seconds, "{status}");
            }
        };
        check(201, "", "taken", None);
        check(404, "", "ended", None);
        check(410, "5", "ended", None);
        check(429, "120", "later", Some(120));
        check(503, "Fri, 31 Dec 1999 23:59:59 GMT", "later", None);
        check(429, "99999999999", "later", Some(RETRY_AFTER_SECONDS_MAX));
        check(301, "", "later", None);
        check(500, "", "later", None);
    }
}
