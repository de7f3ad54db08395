//! Logins, both ends: whatever the other side says.

use std::num::NonZeroU32;
use std::sync::LazyLock;

use sasl::Mechanism;
use sasl::client::Client;
use sasl::scram::ScramVerifier;
use sasl::server::{Binding, Failure, Server, ServerStep};

use crate::input::Input;

static VERIFIER: LazyLock<ScramVerifier> =
    LazyLock::new(|| ScramVerifier::derive(&"secret".into(), vec![1; 16], NonZeroU32::new(4096).unwrap()));

/// Byte 1: mechanism, channel binding and side; then pieces: the messages of the other side.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    let mechanism = Mechanism::ALL[usize::from(kind & 3)];
    let binding = if kind & 4 == 0 { Binding::None } else { Binding::Exporter([7; 32]) };
    if kind & 8 == 0 { serve(mechanism, binding, &mut input) } else { ask(mechanism, binding, &mut input) }
}

fn serve(mechanism: Mechanism, binding: Binding, input: &mut Input<'_>) {
    let initial = input.piece();
    let (mut server, mut step) = Server::start(mechanism, binding, (!initial.is_empty()).then_some(initial));
    for round in 0.. {
        assert!(round < 10, "the exchange does not end");
        step = match step {
            ServerStep::Challenge(challenge) => {
                assert!(!challenge.contains(&b'\n') && challenge.len() < 8192);
                server.respond(input.piece())
            }
            ServerStep::LookUp { authcid } => {
                assert!(!authcid.contains('\0'));
                server.verifier(VERIFIER.clone())
            }
            // The nonce is ours, so nothing that was written before it can prove a password.
            ServerStep::Proved { .. } => panic!("proved without the nonce"),
            ServerStep::Verify(login) => {
                assert!(mechanism.sends_password());
                return assert!(!login.authcid.is_empty() && !login.authcid.contains('\0'));
            }
            ServerStep::Failed(_) => break,
        };
    }
    let after = server.respond(b"again");
    assert!(matches!(after, ServerStep::Failed(Failure::Malformed(_))), "the exchange was over: {after:?}");
}

fn ask(mechanism: Mechanism, binding: Binding, input: &mut Input<'_>) {
    let mut client = Client::new(mechanism, Client::plain_login("alice", "secret".into()), binding);
    let _ = client.initial();
    for _ in 0..4 {
        let challenge = input.piece();
        // More rounds of PBKDF2 than this are allowed, but make the fuzzer slow.
        let digits = challenge.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 4 || client.respond(challenge).is_err() {
            return;
        }
    }
    let scram = matches!(mechanism, Mechanism::ScramSha256 | Mechanism::ScramSha256Plus);
    assert!(!scram || !client.is_complete(), "the server has proved itself without the client's nonce");
}
