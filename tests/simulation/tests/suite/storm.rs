//! What goes wrong when: hosts that stop, that cannot reach the engines or anybody else, and clocks that jump.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use turmoil::Sim;

use crate::load::LOAD;
use crate::node::name;
use crate::world::{CLIENTS, NODES, Rates, World};

/// How often it is drawn whether something new goes wrong.
const DRAW_MILLIS: std::ops::Range<u64> = 100..900;
/// Before this everybody starts.
const BEGIN: Duration = Duration::from_secs(2);

/// What is wrong with a node, and until when.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Stopped(Duration),
    CutOff(Duration),
    Unheard(Duration),
}

/// Whom a node speaks to.
fn others(node: usize) -> impl Iterator<Item = String> {
    (0..NODES).filter(move |other| *other != node).map(name).chain([CLIENTS.to_owned()])
}

/// Draws what goes wrong, and ends it.
pub(crate) struct Storm {
    dice: StdRng,
    next: Duration,
    troubles: [Option<Trouble>; NODES],
    /// The node whose wall clock may be wrong.
    clock: Option<usize>,
    is_over: bool,
}

impl Storm {
    pub(crate) fn new(world: &World) -> Self {
        let mut dice = world.dice_for(1);
        let clock = dice.random_bool(0.4).then(|| dice.random_range(0..NODES));
        Self { dice, next: BEGIN, troubles: [None; NODES], clock, is_over: false }
    }

    /// To be called at each step of the simulation, between the turns of hosts.
    pub(crate) fn step(&mut self, world: &World, sim: &mut Sim<'_>) {
        if self.is_over || !world.is_ready.load(Ordering::Relaxed) {
            return;
        }
        let now = sim.elapsed();
        if now >= LOAD {
            self.end(world, sim);
            return;
        }
        for node in 0..NODES {
            match self.troubles[node] {
                Some(Trouble::Stopped(until)) if now >= until => {
                    sim.bounce(name(node));
                    self.troubles[node] = None;
                }
                Some(Trouble::CutOff(until)) if now >= until => {
                    world.cut_off(node, false);
                    self.troubles[node] = None;
                }
                Some(Trouble::Unheard(until)) if now >= until => {
                    others(node).for_each(|other| sim.repair(name(node), other));
                    self.troubles[node] = None;
                }
                _ => {}
            }
        }
        if now < self.next {
            return;
        }
        if self.next == BEGIN {
            world.set_rates(self.rates());
        }
        self.next = now + Duration::from_millis(self.dice.random_range(DRAW_MILLIS));
        let node = self.dice.random_range(0..NODES);
        let lasts = Duration::from_millis(self.dice.random_range(50..5_000));
        match self.dice.random_range(0..100) {
            0..10 if self.troubles[node].is_none() => {
                world.note(format_args!("node {node} is stopped"));
                world.count("crash");
                sim.crash(name(node));
                self.troubles[node] = Some(Trouble::Stopped(now + lasts));
            }
            10..16 if self.troubles[node].is_none() => {
                world.note(format_args!("node {node} is cut off"));
                world.count("partition");
                world.cut_off(node, true);
                self.troubles[node] = Some(Trouble::CutOff(now + lasts));
            }
            16..22 if self.troubles[node].is_none() => {
                world.note(format_args!("node {node} is not heard"));
                world.count("unheard");
                others(node).for_each(|other| sim.partition(name(node), other));
                self.troubles[node] = Some(Trouble::Unheard(now + lasts));
            }
            22..26 => {
                if let Some(node) = self.clock {
                    let seconds = [-600, 0, 600][self.dice.random_range(0..3)];
                    world.note(format_args!("node {node} is {seconds} s ahead"));
                    world.count("clock");
                    world.set_seconds_ahead(node, seconds);
                }
            }
            _ => {}
        }
    }

    /// How bad it is in this run.
    fn rates(&mut self) -> Rates {
        let scale = [0.3, 1.0, 2.0][self.dice.random_range(0..3)];
        Rates {
            refused: 0.005 * scale,
            lost: 0.01 * scale,
            unanswered: 0.015 * scale,
            late: 0.02 * scale,
            slow: 0.01 * scale,
            hint: 0.2,
        }
    }

    /// Everything is well again.
    fn end(&mut self, world: &World, sim: &mut Sim<'_>) {
        world.set_rates(Rates::NONE);
        for node in 0..NODES {
            world.cut_off(node, false);
            world.set_seconds_ahead(node, 0);
            match self.troubles[node] {
                Some(Trouble::Stopped(_)) => sim.bounce(name(node)),
                Some(Trouble::Unheard(_)) => others(node).for_each(|other| sim.repair(name(node), other)),
                _ => {}
            }
        }
        world.is_calm.store(true, Ordering::Relaxed);
        self.is_over = true;
    }
}
