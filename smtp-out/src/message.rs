//! A message on its way out: what is said about it, and its bytes, which are read as often as they are sent and never
//! held whole.

use std::io;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use mail::envelope::{BodyType, ByMode, DeliverBy};
use queue::item::Sender;
use smtp_protocol::data::TextCheck;
use smtp_protocol::extension::Extensions;
use smtp_protocol::parameter::MailParameters;
use smtp_protocol::status::{Status, status};
use smtp_protocol::wish::By;
use tokio::sync::OnceCell;

/// Longest line of text with its CRLF (RFC 5321 §4.5.3.1.6).
const LINE_BYTES_MAX: usize = 1_000;

/// Reads a message from its beginning.
pub(crate) type Open = Box<dyn Fn() -> BoxStream<'static, io::Result<Bytes>> + Send + Sync>;

/// One message.
pub(crate) struct Message<'a> {
    pub(crate) sender: &'a Sender,
    wishes: Wishes,
    /// The time at the beginning of the attempt (unix seconds).
    now: u64,
    /// Octets, with the header fields that we add.
    pub(crate) size: u64,
    pub(crate) open: Open,
    found: OnceCell<Found>,
}

/// What the sender wishes of when it is delivered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wishes {
    /// MT-PRIORITY (RFC 6710).
    pub(crate) priority: i8,
    /// DELIVERBY (RFC 2852).
    pub(crate) deliver_by: Option<DeliverBy>,
}

/// What a look at the bytes has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Found {
    /// An octet above 127 somewhere.
    eight_bit: bool,
    /// One in the header.
    eight_bit_header: bool,
    /// Not lines of text: too long, bare CR or LF, NUL.
    binary: bool,
}

/// Why a message cannot be sent to a host as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unfit {
    pub(crate) status: Status,
    pub(crate) text: String,
}

fn unfit(code: Status, text: &str) -> Result<MailParameters, Unfit> {
    Err(Unfit { status: code, text: text.to_owned() })
}

impl<'a> Message<'a> {
    pub(crate) fn new(sender: &'a Sender, wishes: Wishes, now: u64, size: u64, open: Open) -> Self {
        Self { sender, wishes, now, size, open, found: OnceCell::new() }
    }

    /// What MAIL has to say at a host with these extensions, or why the message cannot go there. The bytes are never
    /// changed, so what would need a conversion fails (RFC 6152 §3); only where a message was announced as more than it
    /// is does it go as what it is.
    pub(crate) async fn parameters(&self, host: &Extensions) -> io::Result<Result<MailParameters, Unfit>> {
        let sender = self.sender;
        let mut parameters = MailParameters::default();
        if sender.require_tls {
            // RFC 8689 §4.2.1: never to a host that does not offer it, and we do not ask for it yet.
            return Ok(unfit(status(5, 7, 30), "REQUIRETLS is asked for and cannot be kept"));
        }
        match host.size {
            Some(limit) if limit > 0 && self.size > limit => {
                let text = format!("the message has {} octets, and the host takes {limit}", self.size);
                return Ok(unfit(status(5, 3, 4), &text));
            }
            // RFC 1870 §6.
            Some(_) => parameters.size = Some(self.size),
            None => {}
        }
        let utf8_path = sender.reverse_path.address().is_some_and(|address| address.needs_smtputf8());
        if host.smtputf8 {
            parameters.smtputf8 = sender.smtputf8 || utf8_path;
        } else if utf8_path {
            return Ok(unfit(status(5, 6, 7), "the sender's address needs SMTPUTF8, which the host lacks"));
        } else if sender.smtputf8 && self.found().await?.eight_bit_header {
            return Ok(unfit(status(5, 6, 9), "the message's header needs SMTPUTF8, which the host lacks"));
        }
        match sender.body {
            BodyType::SevenBit => {}
            BodyType::EightBitMime if host.eight_bit_mime => parameters.body = BodyType::EightBitMime,
            BodyType::EightBitMime if !self.found().await?.eight_bit => {}
            BodyType::EightBitMime => {
                return Ok(unfit(status(5, 6, 3), "the message needs 8BITMIME, which the host lacks"));
            }
            BodyType::BinaryMime if host.binary_mime && host.chunking => {
                parameters.body = BodyType::BinaryMime;
            }
            BodyType::BinaryMime => match self.found().await? {
                Found { binary: true, .. } => {
                    return Ok(unfit(status(5, 6, 3), "the message needs BINARYMIME, which the host lacks"));
                }
                Found { eight_bit: true, .. } if !host.eight_bit_mime => {
                    return Ok(unfit(status(5, 6, 3), "the message needs 8BITMIME, which the host lacks"));
                }
                Found { eight_bit: true, .. } => parameters.body = BodyType::EightBitMime,
                Found { .. } => {}
            },
        }
        // RFC 6710 §4.3: passed on to hosts that know it.
        let priority = self.wishes.priority;
        parameters.priority = (host.mt_priority && priority != 0).then_some(priority);
        match self.by(host) {
            Ok(by) => parameters.by = by,
            Err(unfit) => return Ok(Err(unfit)),
        }
        if host.dsn {
            parameters.ret = sender.ret;
            parameters.envid.clone_from(&sender.envid);
        }
        Ok(Ok(parameters))
    }

    /// The time that is left. What is to be returned when it is late goes to no host that cannot promise that it will
    /// be (RFC 2852 §4.2).
    fn by(&self, host: &Extensions) -> Result<Option<By>, Unfit> {
        let Some(DeliverBy { until, mode, trace }) = self.wishes.deliver_by else { return Ok(None) };
        let seconds = until as i64 - self.now as i64;
        match (host.deliver_by, mode) {
            (Some(_), ByMode::Notify) => Ok(Some(By { seconds, mode, trace })),
            (None, ByMode::Notify) => Ok(None),
            (Some(least), ByMode::Return) if seconds > 0 && seconds.unsigned_abs() >= least => {
                Ok(Some(By { seconds, mode, trace }))
            }
            (_, ByMode::Return) => {
                let text = format!(
                    "the host does not promise to return the message unless it is delivered in {seconds} seconds"
                );
                Err(Unfit { status: status(5, 3, 3), text })
            }
        }
    }

    /// Reads the message once, when what was announced is more than a host can take.
    async fn found(&self) -> io::Result<Found> {
        self.found.get_or_try_init(|| look((self.open)())).await.copied()
    }
}

async fn look(mut bytes: BoxStream<'static, io::Result<Bytes>>) -> io::Result<Found> {
    let mut found = Found::default();
    let mut text = TextCheck::new(LINE_BYTES_MAX);
    // The header ends with an empty line; what is remembered of it are its last bytes.
    let mut in_header = true;
    let mut tail = [0_u8; 4];
    while let Some(piece) = bytes.next().await {
        let piece = piece?;
        text.push(&piece);
        found.binary |= memchr::memchr(0, &piece).is_some();
        if !in_header {
            found.eight_bit |= !piece.is_ascii();
            continue;
        }
        for byte in &piece {
            if in_header {
                found.eight_bit_header |= !byte.is_ascii();
                tail.rotate_left(1);
                tail[3] = *byte;
                in_header = tail != *b"\r\n\r\n";
            }
            found.eight_bit |= !byte.is_ascii();
        }
    }
    text.finish();
    found.binary |= text.violation().is_some();
    Ok(found)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use mail::address::{Address, ReversePath};
    use mail::envelope::Envelope;

    /// Bytes that come in pieces.
    pub(crate) fn in_pieces(bytes: &[u8], cut: usize) -> Open {
        let pieces: Vec<Bytes> = bytes.chunks(cut).map(Bytes::copy_from_slice).collect();
        Box::new(move || futures_util::stream::iter(pieces.clone().into_iter().map(Ok)).boxed())
    }

    pub(crate) fn sender(body: BodyType, smtputf8: bool) -> Sender {
        let mut envelope = Envelope::new(ReversePath(Some(Address::parse("a@x.test").unwrap())));
        envelope.body = body;
        envelope.smtputf8 = smtputf8;
        Sender::of(&envelope)
    }

    #[tokio::test]
    async fn a_look_finds_the_same_at_every_cut() {
        let plain = Found::default();
        let eight = Found { eight_bit: true, ..plain };
        for (text, expected) in [
            ("A: b\r\n\r\nbody\r\n", plain),
            ("A: b\r\n\r\nbödy\r\n", eight),
            ("A: ü\r\n\r\nbody\r\n", Found { eight_bit_header: true, ..eight }),
            ("A: b\r\n\r\nbare\nlf\r\n", Found { binary: true, ..plain }),
            ("A: b\r\n\r\nnul\0\r\n", Found { binary: true, ..plain }),
        ] {
            for cut in 1..text.len() {
                assert_eq!(look(in_pieces(text.as_bytes(), cut)()).await.unwrap(), expected, "{text:?}");
            }
        }
        let long = format!("A: b\r\n\r\n{}\r\n", "x".repeat(999));
        assert!(look(in_pieces(long.as_bytes(), 100)()).await.unwrap().binary);
    }

    #[tokio::test]
    async fn nothing_is_converted() {
        let all = Extensions {
            eight_bit_mime: true,
            binary_mime: true,
            chunking: true,
            smtputf8: true,
            size: Some(0),
            ..Extensions::default()
        };
        let none = Extensions::default();
        let only8 = Extensions { eight_bit_mime: true, ..none.clone() };
        let check = async |sender: Sender, text: &str, host: &Extensions, expected: Result<&str, &str>| {
            let size = text.len() as u64;
            let message = Message::new(&sender, Wishes::default(), 0, size, in_pieces(text.as_bytes(), 7));
            let said = message.parameters(host).await.unwrap();
            let said = said.map(|said| said.to_string()).map_err(|unfit| unfit.status.to_string());
            assert_eq!(said, expected.map(str::to_owned).map_err(str::to_owned), "{text:?} {host:?}");
        };
        let (seven, eight) = ("A: b\r\n\r\nbody\r\n", "A: b\r\n\r\nbödy\r\n");
        let (header, long) = ("A: ü\r\n\r\nbody\r\n", "A: b\r\n\r\nbare\nlf\r\n");
        use BodyType::{BinaryMime, EightBitMime, SevenBit};
        check(sender(SevenBit, false), seven, &none, Ok("")).await;
        check(sender(EightBitMime, false), eight, &all, Ok(" SIZE=15 BODY=8BITMIME")).await;
        check(sender(EightBitMime, false), eight, &none, Err("5.6.3")).await;
        check(sender(EightBitMime, false), seven, &none, Ok("")).await;
        check(sender(BinaryMime, false), long, &all, Ok(" SIZE=17 BODY=BINARYMIME")).await;
        check(sender(BinaryMime, false), long, &only8, Err("5.6.3")).await;
        check(sender(BinaryMime, false), eight, &only8, Ok(" BODY=8BITMIME")).await;
        check(sender(BinaryMime, false), eight, &none, Err("5.6.3")).await;
        check(sender(BinaryMime, false), seven, &none, Ok("")).await;
        check(sender(EightBitMime, true), header, &all, Ok(" SIZE=15 BODY=8BITMIME SMTPUTF8")).await;
        check(sender(EightBitMime, true), header, &only8, Err("5.6.9")).await;
        check(sender(EightBitMime, true), eight, &only8, Ok(" BODY=8BITMIME")).await;
        let mut utf8 = sender(SevenBit, true);
        utf8.reverse_path = ReversePath(Some(Address::parse("ü@x.test").unwrap()));
        check(utf8, seven, &only8, Err("5.6.7")).await;
        let small = Extensions { size: Some(10), ..none.clone() };
        check(sender(SevenBit, false), seven, &small, Err("5.3.4")).await;
        let tls = Sender { require_tls: true, ..sender(SevenBit, false) };
        check(tls, seven, &all, Err("5.7.30")).await;
    }

    #[test]
    fn the_time_that_is_left_is_passed_on_or_the_message_returned() {
        let sender = sender(BodyType::SevenBit, false);
        let check = |until, mode, offered: Option<u64>, expected: Result<Option<&str>, &str>| {
            let wishes = Wishes { deliver_by: Some(DeliverBy { until, mode, trace: true }), priority: 0 };
            let message = Message::new(&sender, wishes, 1_000, 9, in_pieces(b"x", 1));
            let host = Extensions { deliver_by: offered, ..Extensions::default() };
            let said = message.by(&host).map(|by| by.map(|by| by.to_string()));
            let said = said.map_err(|unfit| unfit.status.to_string());
            let expected = expected.map(|by| by.map(str::to_owned)).map_err(str::to_owned);
            assert_eq!(said, expected, "{until} {mode:?} {offered:?}");
        };
        check(1_120, ByMode::Return, Some(60), Ok(Some("BY=120;RT")));
        check(1_120, ByMode::Return, Some(0), Ok(Some("BY=120;RT")));
        check(1_120, ByMode::Return, Some(121), Err("5.3.3"));
        check(1_000, ByMode::Return, Some(0), Err("5.3.3"));
        check(1_120, ByMode::Return, None, Err("5.3.3"));
        check(1_120, ByMode::Notify, Some(121), Ok(Some("BY=120;NT")));
        check(960, ByMode::Notify, Some(0), Ok(Some("BY=-40;NT")));
        check(1_120, ByMode::Notify, None, Ok(None));
    }
}
