//! Hints between nodes: datagrams over the simulated network, which are lost, doubled and late.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use engine::{Hints, LogId};
use turmoil::net::UdpSocket;

use crate::node::name;
use crate::world::{NODES, World};

const PORT: u16 = 4_222;
const LOG_BYTES: usize = engine::id::LOG_ID_BYTES;
/// Hints that go together.
const BATCH_MAX: usize = 8;

/// Begins to carry what this node's logs say, and what they hear.
pub(crate) async fn carry(world: &Arc<World>, node: usize, hints: &Hints) -> turmoil::Result {
    let socket = UdpSocket::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT)).await?;
    let socket = std::rc::Rc::new(socket);
    tokio::task::spawn_local(tell(world.clone(), node, hints.clone(), socket.clone()));
    tokio::task::spawn_local(listen(world.clone(), node, hints.clone(), socket));
    Ok(())
}

async fn tell(world: Arc<World>, node: usize, hints: Hints, socket: std::rc::Rc<UdpSocket>) {
    loop {
        for (log, seq) in hints.next(BATCH_MAX).await {
            let mut datagram = log.to_bytes().to_vec();
            datagram.extend(seq.to_be_bytes());
            for other in (0..NODES).filter(|other| *other != node) {
                tokio::task::spawn_local(send(world.clone(), socket.clone(), other, datagram.clone()));
            }
        }
    }
}

async fn send(world: Arc<World>, socket: std::rc::Rc<UdpSocket>, to: usize, datagram: Vec<u8>) {
    let chance = world.rates().hint;
    if world.chance(chance) {
        world.count("hint_lost");
        return;
    }
    if world.chance(chance) {
        world.count("hint_late");
        tokio::time::sleep(world.millis(100..6_000)).await;
    }
    let times = if world.chance(chance) { 2 } else { 1 };
    if times == 2 {
        world.count("hint_doubled");
    }
    for _ in 0..times {
        // A host that is down hears nothing, and that is all.
        let _ = socket.send_to(&datagram, (name(to), PORT)).await;
    }
}

async fn listen(world: Arc<World>, node: usize, hints: Hints, socket: std::rc::Rc<UdpSocket>) {
    let mut datagram = [0; 64];
    while let Ok((length, _)) = socket.recv_from(&mut datagram).await {
        let Some((log, seq)) = parse(&datagram[..length]) else { continue };
        world.hears(node, log, seq);
        world.note(format_args!("node {node} hears {log} {seq}"));
        hints.heard(log, seq);
        tokio::time::sleep(Duration::ZERO).await;
    }
}

fn parse(datagram: &[u8]) -> Option<(LogId, u64)> {
    let (log, seq) = datagram.split_at_checked(LOG_BYTES)?;
    Some((LogId::from_bytes(log)?, u64::from_be_bytes(seq.try_into().ok()?)))
}
