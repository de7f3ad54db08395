//! Bodies as they come: by DATA or in chunks by BDAT, passed on, or passed over when they are refused.

use std::time::{Duration, Instant};

use bytes::Bytes;
use machine::Step;
use mail::envelope::BodyType;

use super::limits::Limits;
use super::session::{Question, too_large};
use super::{Event, Phase, Server};
use crate::data::{DataDecoder, Decoded, TextCheck, Violation};
use crate::reply::{Reply, bad_sequence, ok};
use crate::status::status;

/// A body under way.
#[derive(Debug)]
pub(super) struct BodyState {
    pub(super) carrier: Carrier,
    decoder: DataDecoder,
    /// For chunks: lines are looked at unless the body was declared to be binary.
    check: Option<TextCheck>,
    /// Octets of the message so far.
    bytes: u64,
    /// What is said at the end instead of asking the service.
    refusal: Option<Reply>,
    /// When this body was first waited for.
    started: Option<Instant>,
    /// Octets passed over after the refusal.
    passed_over: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Data,
    Chunk { size: u64, left: u64, last: bool },
}

impl BodyState {
    pub(super) fn data(limits: &Limits) -> Self {
        Self {
            carrier: Carrier::Data,
            decoder: DataDecoder::new(limits.text_line_bytes_max),
            check: None,
            bytes: 0,
            refusal: None,
            started: None,
            passed_over: 0,
        }
    }

    fn chunked(limits: &Limits, body: BodyType) -> Self {
        let lines = body != BodyType::BinaryMime;
        Self {
            carrier: Carrier::Chunk { size: 0, left: 0, last: false },
            check: lines.then(|| TextCheck::new(limits.text_line_bytes_max)),
            ..Self::data(limits)
        }
    }

    pub(super) fn refuse(&mut self, reply: Reply) {
        self.refusal.get_or_insert(reply);
    }

    /// The next piece of the message. `None`: this carrier is at its end.
    fn take(&mut self, input: &mut bytes::BytesMut) -> Decoded {
        match &mut self.carrier {
            Carrier::Data => self.decoder.take(input),
            Carrier::Chunk { left: 0, .. } => Decoded::End,
            Carrier::Chunk { left, .. } => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                if length == 0 {
                    return Decoded::More;
                }
                *left -= length as u64;
                let chunk = input.split_to(length).freeze();
                if let Some(check) = &mut self.check {
                    check.push(&chunk);
                }
                Decoded::Chunk(chunk)
            }
        }
    }

    fn violation(&mut self, at_end: bool) -> Option<Violation> {
        match (self.carrier, &mut self.check) {
            (Carrier::Data, _) => self.decoder.violation(),
            (Carrier::Chunk { last, .. }, Some(check)) => {
                if at_end && last {
                    check.finish();
                }
                check.violation()
            }
            (Carrier::Chunk { .. }, None) => None,
        }
    }
}

impl Server {
    /// Says that the body cannot be taken. What is still to come is passed over; then the client gets this reply, and
    /// the transaction is over.
    pub fn refuse_body(&mut self, reply: &Reply) {
        match &mut self.phase {
            Phase::Body(body) | Phase::Asked(Question::BodyStart(body)) => body.refuse(reply.clone()),
            // Between two chunks.
            Phase::Command => {
                if let Some(chunks) =
                    self.transaction.as_mut().and_then(|transaction| transaction.chunks.as_mut())
                {
                    chunks.refuse(reply.clone());
                }
            }
            // The end has come in the meantime, or the session is closing.
            Phase::Asked(Question::EndOfBody) => self.replies(std::slice::from_ref(reply)),
            _ => {}
        }
    }

    /// BDAT (RFC 3030 §2). Its octets are on their way whatever is answered, so that they are always taken first.
    pub(super) fn bdat(&mut self, size: u64, last: bool) -> Option<Step<Event>> {
        let limits = &self.settings.limits;
        let carrier = Carrier::Chunk { size, left: size, last };
        let passed_over_max = limits.message_bytes_max;
        let Some(transaction) = self.transaction.as_mut().filter(|transaction| transaction.recipients > 0)
        else {
            let reply = match self.transaction {
                Some(_) => Reply::new(554, status(5, 5, 1), "No valid recipients"),
                None => bad_sequence("MAIL first"),
            };
            if size > passed_over_max {
                self.close(&reply);
                return None;
            }
            let mut body = BodyState::chunked(limits, BodyType::BinaryMime);
            body.carrier = carrier;
            body.refuse(reply);
            self.phase = Phase::Body(Box::new(body));
            return None;
        };
        let first = transaction.chunks.is_none();
        let mut body = transaction
            .chunks
            .take()
            .unwrap_or_else(|| Box::new(BodyState::chunked(limits, transaction.body)));
        body.carrier = carrier;
        if body.bytes.saturating_add(size) > limits.message_bytes_max {
            body.refuse(too_large());
            if size > passed_over_max {
                // Reading all of it only to forget it is more than the client can ask for.
                self.close(&too_large());
                return None;
            }
        }
        if first && body.refusal.is_none() {
            return Some(self.ask(Question::BodyStart(body), Event::BodyStart));
        }
        self.phase = Phase::Body(body);
        None
    }

    /// Takes what there is of a body. `None`: look again.
    pub(super) fn body(&mut self, now: Instant) -> Option<Step<Event>> {
        let Phase::Body(body) = &mut self.phase else { unreachable!("called in this phase only") };
        match body.take(&mut self.input) {
            Decoded::Chunk(chunk) => self.chunk(chunk),
            Decoded::End => self.end_of_carrier(),
            Decoded::More => Some(self.wait_for_body(now)),
        }
    }

    fn chunk(&mut self, chunk: Bytes) -> Option<Step<Event>> {
        self.waiting_since = None;
        let size_max = self.settings.limits.message_bytes_max;
        let Phase::Body(body) = &mut self.phase else { unreachable!("called in this phase only") };
        body.bytes += chunk.len() as u64;
        if body.refusal.is_some() {
            body.passed_over += chunk.len() as u64;
            if body.passed_over > size_max
                && let Some(reply) = body.refusal.clone()
            {
                self.transaction = None;
                self.close(&reply);
            }
            return None;
        }
        if body.bytes > size_max {
            body.refuse(too_large());
        } else if let Some(violation) = body.violation(false) {
            body.refuse(unfit(violation));
        } else {
            return Some(Step::Event(Event::Body(chunk)));
        }
        Some(Step::Event(Event::BodyRefused))
    }

    fn end_of_carrier(&mut self) -> Option<Step<Event>> {
        let Phase::Body(mut body) = std::mem::replace(&mut self.phase, Phase::Command) else {
            unreachable!("called in this phase only")
        };
        let mut newly_refused = false;
        if body.refusal.is_none()
            && let Some(violation) = body.violation(true)
        {
            body.refuse(unfit(violation));
            newly_refused = true;
        }
        let (size, last) = match body.carrier {
            Carrier::Data => (0, true),
            Carrier::Chunk { size, last, .. } => (size, last),
        };
        match (&body.refusal, last) {
            (None, true) => return Some(self.ask(Question::EndOfBody, Event::EndOfBody)),
            (None, false) => {
                self.write(&ok(status(2, 0, 0), format!("{size} octets received")));
                self.keep(body);
            }
            (Some(reply), true) => {
                let reply = reply.clone();
                self.answer_body(&[reply]);
            }
            // RFC 3030 §2: after a failed chunk the rest of the message fails too, until its last or RSET.
            (Some(reply), false) => {
                let reply = reply.clone();
                self.keep(body);
                self.answer(&reply);
            }
        }
        newly_refused.then_some(Step::Event(Event::BodyRefused))
    }

    fn keep(&mut self, body: Box<BodyState>) {
        if let Some(transaction) = self.transaction.as_mut().filter(|transaction| transaction.recipients > 0)
        {
            transaction.chunks = Some(body);
        }
    }

    fn wait_for_body(&mut self, now: Instant) -> Step<Event> {
        let limits = &self.settings.limits;
        let pause = Duration::from_secs(limits.body_pause_seconds_max);
        let slowest = limits.body_bytes_per_second_min.max(1);
        let Phase::Body(body) = &mut self.phase else { unreachable!("called in this phase only") };
        let started = *body.started.get_or_insert(now);
        // The body as a whole has its time too, or a byte a minute would hold a session for days.
        let whole = started + pause + Duration::from_secs(body.bytes / slowest);
        let since = *self.waiting_since.get_or_insert(now);
        self.wait(pause.min(whole.saturating_duration_since(since)), now)
    }
}

fn unfit(violation: Violation) -> Reply {
    // RFC 3463 §3.7: 6.0 is about the content, and no detail fits better.
    Reply::new(554, status(5, 6, 0), format!("Message refused: {violation}"))
}
