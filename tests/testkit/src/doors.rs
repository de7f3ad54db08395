//! Where clients connect, when any of several nodes will do.

use std::net::SocketAddr;
use std::sync::Mutex;

use rand::Rng;
use rand::rngs::StdRng;

use crate::server::Server;

/// The addresses of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    /// Mail from anywhere.
    pub smtp: SocketAddr,
    /// Mail from users.
    pub submission: SocketAddr,
    /// Mail with an answer for each recipient.
    pub lmtp: SocketAddr,
    /// Reading.
    pub imap: SocketAddr,
}

impl Door {
    /// Of a started server.
    pub fn of(server: &Server) -> Self {
        Self {
            smtp: server.smtp(),
            submission: server.submission(),
            lmtp: server.lmtp(),
            imap: server.imap(),
        }
    }
}

/// The nodes, as clients know them: one that is down stays where it was, and whoever tries it goes elsewhere.
#[derive(Debug)]
pub struct Doors(Mutex<Vec<Door>>);

impl Doors {
    /// These; an invariant of whoever calls is that there is one.
    pub fn new(doors: Vec<Door>) -> Self {
        Self(Mutex::new(doors))
    }

    /// A node was started again, at other ports.
    pub fn set(&self, number: usize, door: Door) {
        if let Some(place) = self.lock().get_mut(number) {
            *place = door;
        }
    }

    /// All of them, as they are now.
    pub fn all(&self) -> Vec<Door> {
        self.lock().clone()
    }

    /// One of them, with its number, and another than `last` where there is another.
    pub fn choose(&self, random: &mut StdRng, last: Option<usize>) -> (usize, Door) {
        let doors = self.lock();
        let others: Vec<usize> = (0..doors.len()).filter(|number| Some(*number) != last).collect();
        let number = if others.is_empty() { 0 } else { others[random.random_range(0..others.len())] };
        (number, doors[number])
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Door>> {
        self.0.lock().expect("nobody panics with the lock")
    }
}
