//! The contract that every protocol language implements.
//!
//! A *machine* decides what is legal: it owns framing, grammar, command order, pipelining, STARTTLS, SASL exchanges,
//! literals and deadlines. It takes bytes and gives events. It does no input or output, knows no clock (`now` is an
//! argument) and is never async. A *service* decides what is true and answers events. The *pump* in `net` moves bytes
//! between a socket and a machine.
//!
//! Start reading at [`Machine`].

use std::time::Instant;

use bytes::Bytes;

/// A sans-I/O state machine for one side of one connection.
///
/// The driver's loop is: call [`Machine::next`] until it returns [`Step::Wait`]; then read from the peer, hand what
/// was read to [`Machine::input`] (or call [`Machine::end_of_input`]), and start again. A driver hands over new input
/// only after `Wait`, so that a machine holds at most one read's worth of unparsed bytes beyond its own limits.
pub trait Machine {
    /// What the service is told: parsed, and legal in the state that the machine is in.
    type Event;

    /// Takes bytes that the peer has sent.
    fn input(&mut self, bytes: &[u8], now: Instant);

    /// The peer has closed its sending side. Nothing more will be given to [`Machine::input`].
    fn end_of_input(&mut self, now: Instant);

    /// Says what is to be done next.
    fn next(&mut self, now: Instant) -> Step<Self::Event>;

    /// The TLS handshake that [`Step::StartTls`] asked for has succeeded; bytes are encrypted from here on.
    fn tls_started(&mut self, now: Instant);
}

/// What the driver of a machine has to do now.
#[derive(Debug)]
pub enum Step<E> {
    /// The service handles this and answers through the machine's own methods.
    Event(E),
    /// These bytes go to the peer, in this order, before anything else is done.
    Write(Bytes),
    /// All output so far is written; then the TLS handshake starts. What the peer pipelined before the handshake has
    /// been discarded by the machine (RFC 3207 §4.2, CVE-2021-33515 and its kin).
    StartTls,
    /// Nothing to do before the peer sends more, or before `until`: then [`Machine::next`] is called again, and the
    /// machine sees by `now` that its deadline has passed. `None` means that there is no deadline.
    Wait {
        /// The machine's next deadline.
        until: Option<Instant>,
    },
    /// The connection ends; all output has been given out.
    Close,
}
