//! One transaction: a message to some recipients over one connection, with an answer for each of them.
//!
//! Two things decide what a broken connection means. Before the end of the message has left us, nothing has been taken
//! over by the host, whatever it had answered. From then on until the answer is here we cannot know: the recipients are
//! *in doubt*.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use mail::envelope::{BodyType, Notify, Recipient};
use queue::PassedOn;
use smtp_protocol::client::Sent;
use smtp_protocol::data::TextCheck;
use smtp_protocol::parameter::{MailParameters, RcptParameters};
use smtp_protocol::reply::Reply;
use smtp_protocol::status::{Status, status};
use tokio::time::Instant;

use crate::connect::{Connection, Lost};
use crate::message::Message;
use crate::outcome::{Hint, Stage, Verdict, judge, status_of};

/// What became of one recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// The host has it.
    Delivered {
        /// What it said.
        reply: String,
        /// What it was told of the sender's wishes.
        passed_on: PassedOn,
    },
    /// Not now.
    Deferred { status: Status, text: String, hint: Hint },
    /// Never.
    Failed { status: Status, text: String },
    /// The host takes no more in one transaction: the next one has it.
    NextTransaction,
    /// Nothing is known from this host: another one may do better.
    NextHost { text: String },
    /// The message had been sent whole when the connection broke.
    InDoubt { text: String },
}

/// How far a transaction has come; kept outside of it, so that it is known when the time is over.
#[derive(Debug)]
pub(crate) struct Progress {
    /// One for each recipient; `None`: accepted at RCPT, or not heard of yet.
    pub(crate) fates: Vec<Option<Fate>>,
    accepted: Vec<usize>,
    /// The end of the message was given to the pump.
    ended: bool,
    /// Some answer has come, other than that the session is over: the connection was alive.
    pub(crate) heard: bool,
}

impl Progress {
    pub(crate) fn new(recipients: usize) -> Self {
        Self { fates: vec![None; recipients], accepted: Vec::new(), ended: false, heard: false }
    }

    /// All that have no fate yet get this one.
    fn rest(&mut self, fate: &Fate) {
        for open in self.fates.iter_mut().filter(|fate| fate.is_none()) {
            *open = Some(fate.clone());
        }
    }

    /// The connection is gone, or the time over.
    fn lost(&mut self, connection: &Connection, text: &str) {
        // What the pump still has did not leave: without its end the host cannot have taken the message.
        if self.ended && connection.pump.output_bytes() == 0 {
            let doubt = Fate::InDoubt { text: text.to_owned() };
            for index in std::mem::take(&mut self.accepted) {
                self.fates[index].get_or_insert_with(|| doubt.clone());
            }
        }
        self.rest(&Fate::NextHost { text: text.to_owned() });
    }
}

/// Sends the message to recipients of which there are no more than the host takes. `false`: the connection is of no use
/// any more. Every recipient has a fate afterwards.
pub(crate) async fn send(
    connection: &mut Connection,
    message: &Message<'_>,
    recipients: &[&Recipient],
    deadline: Instant,
    progress: &mut Progress,
) -> bool {
    let work = Box::pin(converse(connection, message, recipients, deadline, progress));
    let result = match tokio::time::timeout_at(deadline, work).await {
        Ok(result) => result,
        Err(_) => Err(Lost("the time for this attempt is over".to_owned())),
    };
    match result {
        Ok(()) => !connection.pump.machine().is_closing(),
        Err(lost) => {
            progress.lost(connection, &lost.0);
            false
        }
    }
}

async fn converse(
    connection: &mut Connection,
    message: &Message<'_>,
    recipients: &[&Recipient],
    deadline: Instant,
    progress: &mut Progress,
) -> Result<(), Lost> {
    let host = connection.extensions().clone();
    let parameters = match message.parameters(&host).await {
        Ok(Ok(parameters)) => parameters,
        Ok(Err(unfit)) => {
            progress.rest(&Fate::Failed { status: unfit.status, text: unfit.text });
            return Ok(());
        }
        Err(error) => {
            progress.rest(&unreadable(&error));
            return Ok(());
        }
    };
    if !host.smtputf8 {
        // RFC 6531 §3.5: such an address cannot even be named here.
        for (fate, recipient) in progress.fates.iter_mut().zip(recipients) {
            if recipient.address.needs_smtputf8() {
                let text = "the recipient's address needs SMTPUTF8, which the host lacks".to_owned();
                *fate = Some(Fate::Failed { status: status(5, 6, 7), text });
            }
        }
    }
    let asked: Vec<usize> = (0..recipients.len()).filter(|index| progress.fates[*index].is_none()).collect();
    if asked.is_empty() {
        return Ok(());
    }
    let utf8 = host.smtputf8 && asked.iter().any(|index| recipients[*index].address.needs_smtputf8());
    let parameters = MailParameters { smtputf8: parameters.smtputf8 || utf8, ..parameters };
    if connection.needs_reset {
        connection.reset().await?;
        progress.heard = true;
    }
    connection.needs_reset = true;
    // BDAT needs no answer before its bytes, so there is nothing to be won by asking for it together with the rest.
    let data_at_once = host.pipelining && !host.chunking;
    let data = envelope(connection, message, &parameters, recipients, &asked, data_at_once, progress).await?;
    if connection.pump.machine().is_closing() {
        // 421 to a recipient: nothing more is heard.
        return Err(Lost("the host closed the connection after the recipients".to_owned()));
    }
    if progress.accepted.is_empty() {
        if data.is_some_and(|reply| reply.code == 354) {
            // RFC 2920 §3.1: a host may ask for the data of nobody's message. It gets an empty one.
            let end = connection.pump.machine().end_body().unwrap_or_default();
            send_on(connection, end).await?;
            connection.reply().await?;
        }
        return Ok(());
    }
    let reply = if host.chunking {
        match by_chunk(connection, message, parameters.body, deadline, progress).await? {
            Sending::Answered(reply) => reply,
            Sending::GivenUp(fate) => return give_up(progress, &fate),
        }
    } else {
        let leave = match data {
            Some(reply) => reply,
            None => {
                connection.say("DATA");
                connection.pump.machine().data();
                connection.reply().await?.1
            }
        };
        if judge(Stage::Data, &leave) != Verdict::Accepted {
            let fate = fate(Stage::Data, &leave, PassedOn::default());
            progress.rest(&fate);
            return Ok(());
        }
        match by_data(connection, message, deadline, progress).await? {
            Sending::Answered(reply) => reply,
            Sending::GivenUp(fate) => return give_up(progress, &fate),
        }
    };
    if reply.is_positive() {
        connection.messages += 1;
        connection.needs_reset = false;
    }
    for index in std::mem::take(&mut progress.accepted) {
        let passed_on = PassedOn {
            dsn: host.dsn && recipients[index].notify != Notify::UNSPECIFIED,
            deliver_by: parameters.by.is_some(),
        };
        progress.fates[index] = Some(fate(Stage::Message, &reply, passed_on));
    }
    Ok(())
}

/// MAIL and RCPT, with all answers. With PIPELINING in one flight (RFC 2920). The answer to DATA where that was part of
/// it.
async fn envelope(
    connection: &mut Connection,
    message: &Message<'_>,
    parameters: &MailParameters,
    recipients: &[&Recipient],
    asked: &[usize],
    data_at_once: bool,
    progress: &mut Progress,
) -> Result<Option<Reply>, Lost> {
    let host = connection.extensions().clone();
    let path = &message.sender.reverse_path;
    let mail = |connection: &mut Connection| {
        connection.say(&format!("MAIL FROM:{path}{parameters}"));
        connection.pump.machine().mail(path, parameters);
    };
    let rcpt = |connection: &mut Connection, recipient: &Recipient| {
        let wishes = if host.dsn {
            RcptParameters { notify: recipient.notify, orcpt: recipient.orcpt.clone() }
        } else {
            RcptParameters::default()
        };
        connection.say(&format!("RCPT TO:<{}>{wishes}", recipient.address));
        connection.pump.machine().rcpt(&recipient.address, &wishes);
    };
    mail(connection);
    if host.pipelining {
        for index in asked {
            rcpt(connection, recipients[*index]);
        }
        if data_at_once {
            connection.say("DATA");
            connection.pump.machine().data();
        }
    }
    let reply = answer(connection, Sent::Mail, progress).await?;
    let verdict = judge(Stage::Mail, &reply);
    if verdict != Verdict::Accepted {
        progress.rest(&fate(Stage::Mail, &reply, PassedOn::default()));
        if !host.pipelining {
            return Ok(None);
        }
    }
    for index in asked {
        if !host.pipelining {
            rcpt(connection, recipients[*index]);
        }
        let reply = answer(connection, Sent::Rcpt, progress).await?;
        if verdict != Verdict::Accepted {
            continue;
        }
        let stage = Stage::Rcpt { accepted: progress.accepted.len() };
        match judge(stage, &reply) {
            Verdict::Accepted => progress.accepted.push(*index),
            _ => progress.fates[*index] = Some(fate(stage, &reply, PassedOn::default())),
        }
    }
    if data_at_once {
        return answer(connection, Sent::Data, progress).await.map(Some);
    }
    Ok(None)
}

async fn answer(connection: &mut Connection, expected: Sent, progress: &mut Progress) -> Result<Reply, Lost> {
    let (to, reply) = connection.reply().await?;
    // 421 may have been said long ago, to a connection that had been kept for too long.
    progress.heard |= reply.code != 421;
    if to == expected { Ok(reply) } else { Err(Lost(format!("the host said unasked: {reply}"))) }
}

/// What came of sending the bytes.
enum Sending {
    Answered(Reply),
    /// The message cannot be sent to its end; the connection has to be broken off, since what the host has is a part.
    GivenUp(Fate),
}

fn give_up(progress: &mut Progress, fate: &Fate) -> Result<(), Lost> {
    progress.rest(fate);
    Err(Lost("broken off by us".to_owned()))
}

fn unreadable(error: &std::io::Error) -> Fate {
    // It is ours to read it; it may be readable again.
    let text = format!("the message cannot be read: {error}");
    Fate::Deferred { status: status(4, 3, 0), text, hint: Hint::None }
}

fn not_text(violation: &dyn std::fmt::Display) -> Fate {
    // RFC 5321 §2.3.8: what is not lines of text is not sent as such.
    Fate::Failed { status: status(5, 6, 0), text: format!("the message is not text: {violation}") }
}

fn too_late() -> Fate {
    Fate::NextHost { text: "the time for this attempt is over".to_owned() }
}

/// The message after 354, with dots doubled and a dot at its end.
async fn by_data(
    connection: &mut Connection,
    message: &Message<'_>,
    deadline: Instant,
    progress: &mut Progress,
) -> Result<Sending, Lost> {
    let mut pieces = (message.open)();
    // One piece is held back, so that the end leaves together with it.
    let mut held: Option<Bytes> = None;
    while let Some(piece) = pieces.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => return Ok(Sending::GivenUp(unreadable(&error))),
        };
        let encoded = match connection.pump.machine().encode_body(&piece) {
            Ok(encoded) => encoded,
            Err(violation) => return Ok(Sending::GivenUp(not_text(&violation))),
        };
        if let Some(before) = held.replace(encoded)
            && let Err(lost) = send_on(connection, before).await
        {
            return last_words(connection, progress, lost).await;
        }
    }
    // Nobody else may begin to send the same while the answer is waited for.
    if Instant::now() + connection.answer_time >= deadline {
        return Ok(Sending::GivenUp(too_late()));
    }
    let end = match connection.pump.machine().end_body() {
        Ok(end) => end,
        Err(violation) => return Ok(Sending::GivenUp(not_text(&violation))),
    };
    let mut last = BytesMut::from(held.unwrap_or_default());
    last.extend_from_slice(&end);
    progress.ended = true;
    finish(connection, last.freeze(), progress).await
}

/// The message as one chunk (RFC 3030), whose size is known beforehand.
async fn by_chunk(
    connection: &mut Connection,
    message: &Message<'_>,
    body: BodyType,
    deadline: Instant,
    progress: &mut Progress,
) -> Result<Sending, Lost> {
    let mut pieces = (message.open)();
    // BODY=BINARYMIME alone may be anything; the rest has to be lines, or it could not go on by DATA behind the host.
    let mut text = (body != BodyType::BinaryMime).then(|| TextCheck::new(usize::MAX));
    let mut left = message.size;
    connection.say(&format!("BDAT {left} LAST"));
    let mut held = connection.pump.machine().begin_chunk(left, true);
    while let Some(piece) = pieces.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => return Ok(Sending::GivenUp(unreadable(&error))),
        };
        if piece.is_empty() {
            continue;
        }
        if let Some(text) = &mut text {
            text.push(&piece);
            if let Some(violation) = text.violation() {
                return Ok(Sending::GivenUp(not_text(&violation)));
            }
        }
        let Some(after) = left.checked_sub(piece.len() as u64) else {
            return Ok(Sending::GivenUp(other_size()));
        };
        left = after;
        let before = std::mem::replace(&mut held, piece);
        if let Err(lost) = send_on(connection, before).await {
            return last_words(connection, progress, lost).await;
        }
    }
    if left > 0 {
        return Ok(Sending::GivenUp(other_size()));
    }
    if let Some(text) = &mut text {
        text.finish();
        if let Some(violation) = text.violation() {
            return Ok(Sending::GivenUp(not_text(&violation)));
        }
    }
    if Instant::now() + connection.answer_time >= deadline {
        return Ok(Sending::GivenUp(too_late()));
    }
    connection.pump.machine().end_chunk(true);
    progress.ended = true;
    finish(connection, held, progress).await
}

fn other_size() -> Fate {
    let text = "the message has another size than it was said to have".to_owned();
    Fate::Deferred { status: status(4, 3, 0), text, hint: Hint::None }
}

/// Sends the last bytes and waits for the answer.
async fn finish(connection: &mut Connection, last: Bytes, progress: &mut Progress) -> Result<Sending, Lost> {
    if let Err(lost) = send_on(connection, last).await {
        return last_words(connection, progress, lost).await;
    }
    match connection.pump.flush().await {
        Ok(()) => Ok(Sending::Answered(connection.reply().await?.1)),
        Err(error) => last_words(connection, progress, Lost(error.to_string())).await,
    }
}

async fn send_on(connection: &mut Connection, bytes: Bytes) -> Result<(), Lost> {
    connection.pump.send(bytes).await.map_err(|error| Lost(error.to_string()))
}

/// A host that wants no more of a message may say why before it goes (RFC 5321 §3.8, RFC 1870 §6.3).
async fn last_words(
    connection: &mut Connection,
    progress: &mut Progress,
    lost: Lost,
) -> Result<Sending, Lost> {
    let unsent = connection.pump.output_bytes() > 0;
    connection.pump.abandon_output();
    let patience = std::time::Duration::from_secs(1);
    let said = tokio::time::timeout(patience, connection.reply()).await;
    if unsent {
        // Without its end the message has not been taken, and an acceptance now would be of something else.
        progress.ended = false;
    }
    match said {
        Ok(Ok((Sent::Body, reply))) if !reply.is_positive() => Ok(Sending::Answered(reply)),
        _ => Err(lost),
    }
}

/// The fate that an answer means.
fn fate(stage: Stage, reply: &Reply, passed_on: PassedOn) -> Fate {
    let text = reply.to_string();
    let code = status_of(stage, reply);
    match judge(stage, reply) {
        Verdict::Accepted => Fate::Delivered { reply: text, passed_on },
        Verdict::TooManyRecipients => Fate::NextTransaction,
        Verdict::NextHost | Verdict::TryHelo => Fate::NextHost { text },
        Verdict::Defer(hint) => Fate::Deferred { status: Status { class: 4, ..code }, text, hint },
        Verdict::Fail => Fate::Failed { status: code, text },
    }
}
