//! Load: clients who ask for everything that is counted or kept, until they are told to stop, and who
//! come back when the gate was away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, join_all};
use tokio::task::JoinHandle;

use super::books::Heard;
use super::canary::{Act, Canary};
use super::client::Line;
use super::dice::Dice;
use super::people::Person;

/// What the clients ask for, in parts of a hundred; the rest are quick conversations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) verify: u64,
    pub(crate) notes: u64,
    pub(crate) failing: u64,
    pub(crate) slow: u64,
    pub(crate) long: u64,
    /// Bytes of each note.
    pub(crate) bulk: usize,
}

/// Clients at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Heard>>>,
}

/// What one client works with.
struct Client {
    addr: SocketAddr,
    people: Arc<Vec<Person>>,
    mix: Mix,
    numbers: Arc<AtomicU32>,
    dice: Dice,
    stop: Arc<AtomicBool>,
}

/// Requests under way of one client.
const AT_ONCE: usize = 8;

// === impl Mix ===

impl Mix {
    pub(crate) const EVERYTHING: Self =
        Self { verify: 10, notes: 15, failing: 15, slow: 20, long: 5, bulk: 100 };
    /// Notes of what was said, large ones; nothing else.
    pub(crate) const NOTES: Self = Self { verify: 0, notes: 100, failing: 0, slow: 0, long: 0, bulk: 3000 };
}

// === impl Load ===

impl Load {
    /// `clients` connections that use everybody's keys. `numbers` names requests, over all loads.
    pub(crate) fn start(
        addr: SocketAddr,
        people: &Arc<Vec<Person>>,
        mix: Mix,
        numbers: &Arc<AtomicU32>,
        (clients, dice): (usize, Dice),
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |n: usize| {
            let client = Client {
                addr,
                people: Arc::clone(people),
                mix,
                numbers: Arc::clone(numbers),
                dice: dice.fork(n as u64),
                stop: Arc::clone(&stop),
            };
            #[expect(clippy::disallowed_methods, reason = "its handle is kept and waited for")]
            tokio::spawn(client.work())
        };
        Self { clients: (0..clients).map(start).collect(), stop }
    }

    /// Waits for the answers under way; everything that was heard.
    pub(crate) async fn stop(self) -> Vec<Heard> {
        self.stop.store(true, Ordering::Release);
        join_all(self.clients).await.into_iter().flat_map(Result::unwrap).collect()
    }
}

// === impl Client ===

impl Client {
    async fn work(mut self) -> Vec<Heard> {
        let mut heard = Vec::new();
        while !self.stop.load(Ordering::Acquire) {
            let Some(mut line) = Line::open(self.addr).await else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            while !self.stop.load(Ordering::Acquire) {
                let calls: Vec<_> = (0..AT_ONCE).map(|_| self.call(&mut line)).collect();
                let answers = join_all(calls).await;
                let broken = answers.iter().any(|heard| heard.status == 0);
                heard.extend(answers);
                if broken {
                    break;
                }
            }
        }
        heard
    }

    fn call(&mut self, line: &mut Line) -> BoxFuture<'static, Heard> {
        let people = Arc::clone(&self.people);
        let person = &people[self.dice.below(people.len() as u64) as usize];
        let canary = Canary { user: person.number, number: self.numbers.fetch_add(1, Ordering::Relaxed) };
        let Mix { verify, notes, failing, slow, long, bulk } = self.mix;
        let mut throw = self.dice.below(100);
        let mut is = |part: u64| {
            let hit = throw < part;
            throw = throw.wrapping_sub(part);
            hit
        };
        if is(verify) {
            return line.verify_key(person, canary).boxed();
        }
        if is(notes) {
            return line.log_message(person, canary, bulk).boxed();
        }
        let act = if is(failing) {
            Act::Fail
        } else if is(slow) {
            Act::Slow
        } else if is(long) {
            Act::Long
        } else {
            Act::Quick
        };
        line.chat(person, canary, act).boxed()
    }
}
