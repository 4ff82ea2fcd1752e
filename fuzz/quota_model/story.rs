//! Arbitrary bytes as a story of one user's conversations: one to three nodes with the gateway's own accounts
//! and leases, a database that answers when it likes or not at all, clocks, admins, kills. After each event
//! the real thing is held against a page of arithmetic that counts conversations and nothing else.

use std::cell::Cell;

use arbitrary::{Arbitrary, Result, Unstructured};
use chrono_tz::Tz;
use tollgate::clock::{Clock, Timestamp};
use tollgate::quota::{QuotaError, Reservation, Verdict, Window};

mod book;
mod checks;
mod crash;
mod event;
mod model;
mod node;

use book::{Book, End, Entry, Ledger, USER};
use crash::Dead;
use event::{Edit, Event, Fault, ZONES};
use model::Model;
use node::{Node, Stage};

/// One story, told from bytes; panics when a promise is broken.
pub(super) fn tell(data: &[u8]) {
    let mut from = Unstructured::new(data);
    let Ok(mut story) = Story::begin(&mut from) else { return };
    let mut events = 0;
    while !from.is_empty() && events < MOST_EVENTS {
        let Ok(event) = Event::arbitrary(&mut from) else { break };
        story.note(&event);
        story.happens(&event);
        events += 1;
    }
    story.end();
}

/// A conversation under way.
struct Talk {
    node: usize,
    reservation: Reservation,
    ledger: Ledger,
    dispatched: bool,
    settled: Option<Verdict>,
}

/// Somebody in the line of a node.
struct Waiter {
    node: usize,
    waiting: tollgate::quota::rehearsal::Waiting,
    /// The least that was there for their node since they came.
    least: i64,
    /// Whether their node knew all along what it should.
    is_informed: bool,
    /// Failures of the database that their node had met when they came.
    failures: u64,
}

struct Story {
    clock: Clock,
    book: Book,
    model: Model,
    nodes: Vec<Node>,
    talks: Vec<Talk>,
    waiters: Vec<Waiter>,
    dead: Vec<Dead>,
    runs: u32,
    entries: u64,
    max_lease: i64,
    /// A living run was taken for dead: only what must hold even then is checked.
    silent: bool,
    /// The power has failed.
    lossy: bool,
    /// Somebody has set the clock.
    turned: bool,
    loud: bool,
    /// Which day it is, when and where.
    found: Cell<Option<(Timestamp, Tz, i64)>>,
}

const MOST_EVENTS: usize = 400;
/// More steps than all tellers together can have to do.
const MOST_STEPS: usize = 2_000;
/// Noons around which clocks are changed somewhere: in 2026, 2018 and 2011.
const NOONS: [i64; 6] = [
    1_774_785_600_000,
    1_792_929_600_000,
    1_775_361_600_000,
    1_777_032_000_000,
    1_518_955_200_000,
    1_325_246_400_000,
];

// === impl Story ===

impl Story {
    fn begin(from: &mut Unstructured<'_>) -> Result<Self> {
        let nodes = usize::from(from.int_in_range(1..=3_u8)?);
        let plan_limit = *from.choose(&[0, 1, 2, 3, 5, 8, 13, 20, 40, 80, 300])?;
        let max_lease = *from.choose(&[32, 1, 2, 8])?;
        let clock = Clock::manual(Timestamp(*from.choose(&NOONS)?));
        let model = Model::new(plan_limit, *from.choose(&ZONES)?);
        let mut story = Self {
            clock,
            book: Book::default(),
            model,
            nodes: Vec::new(),
            talks: Vec::new(),
            waiters: Vec::new(),
            dead: Vec::new(),
            runs: 0,
            entries: 0,
            max_lease,
            silent: false,
            lossy: false,
            turned: false,
            found: Cell::new(None),
            loud: std::env::var_os("TOLLGATE_FUZZ_STORY").is_some(),
        };
        for _ in 0..nodes {
            let node = story.start();
            story.nodes.push(node);
        }
        Ok(story)
    }

    #[expect(clippy::print_stderr, reason = "asked for by whoever looks into a finding")]
    fn note(&self, event: &Event) {
        if self.loud {
            let (nodes, row) = (self.nodes.len(), self.book.rows.get(&self.ledger()));
            eprintln!("{event:?} (of {nodes} nodes at {}; {:?} {row:?})", self.clock.now(), self.ledger());
        }
    }

    fn start(&mut self) -> Node {
        self.runs += 1;
        Node::new(&self.clock, self.runs, self.max_lease)
    }

    fn happens(&mut self, event: &Event) {
        let before = self.ledger();
        match *event {
            Event::Take { node, times } => (0..times).for_each(|_| self.take(node % self.nodes.len())),
            Event::Leave { which } => drop(pick(&mut self.waiters, which)),
            Event::Dispatch { which } => {
                let at = which % self.talks.len().max(1);
                if let Some(talk) = self.talks.get_mut(at).filter(|talk| talk.settled.is_none()) {
                    talk.reservation.dispatched();
                    talk.dispatched = true;
                }
            }
            Event::Settle { which, refund, later } => self.settle(which, refund, later),
            Event::Drop { which } => self.drop_one(which),
            Event::Step { node, fault } => drop(self.step(node % self.nodes.len(), fault)),
            Event::Quiet => self.quiet(),
            Event::Tidy { node } => self.nodes[node % self.nodes.len()].hand.tidy(),
            Event::Drain { node, rows, again } => self.drain(node % self.nodes.len(), rows, again),
            Event::Edit { edit, told } => self.edit(edit, told % self.nodes.len()),
            Event::Pass { millis } => self.pass(millis),
            Event::PassToMidnight { before } => {
                let window = Window::at(self.clock.now(), self.model.zone);
                let millis = window.resets_at.0 - self.clock.now().0;
                self.pass(if before { millis - 1 } else { millis });
            }
            Event::Turn { millis } => self.turn(millis),
            Event::Zone(zone) => {
                self.model.zone = zone;
                self.nodes.iter_mut().for_each(|node| node.old_terms = true);
            }
            Event::Kill { node, power, lost, orderly } => {
                self.kill(node % self.nodes.len(), power, lost, orderly);
            }
            Event::Recover => self.recover(),
            Event::Silent { .. } if self.lossy => {}
            Event::Silent { node } => {
                let run = self.nodes[node % self.nodes.len()].run;
                self.book.close(run, tollgate::store::runs::Fate::Forfeited);
                self.silent = true;
            }
        }
        // A day that ends is no news to a node by itself; one that another node has begun is.
        let is_news =
            if self.nodes.len() > 1 { self.ledger() != before } else { self.ledger().1 != before.1 };
        if is_news {
            self.nodes.iter_mut().for_each(|node| node.old_round |= !matches!(node.stage, Stage::Idle));
        }
        self.hear();
        self.check();
    }

    fn pass(&self, millis: i64) {
        self.clock.advance(std::time::Duration::from_millis(millis.unsigned_abs()));
    }

    /// The clock jumps, which moves nothing; then an operator says that it was right to.
    fn turn(&mut self, millis: i64) {
        let before = self.clock.now();
        self.clock.turn(millis);
        assert!(millis.abs() <= 1_000 || self.clock.now() == before, "a jump of {millis} ms was followed");
        self.clock.anchor(self.clock.wall(), self.clock.uptime());
        self.turned = true;
    }

    fn ledger(&self) -> Ledger {
        self.model.ledger(self.today())
    }

    /// Asked for many times at each event, and slow to find.
    fn today(&self) -> i64 {
        let (now, zone) = (self.clock.now(), self.model.zone);
        match self.found.get() {
            Some((at, of, day)) if (at, of) == (now, zone) => day,
            _ => {
                let day = Window::at(now, zone).day;
                self.found.set(Some((now, zone, day)));
                day
            }
        }
    }

    fn take(&mut self, node: usize) {
        let now = self.clock.elapsed();
        let of = &mut self.nodes[node];
        if std::mem::take(&mut of.old_terms) {
            // What is here was asked for by the old ones.
            of.is_not_told(now);
        }
        match self.nodes[node].hand.take(USER, &self.model.terms()) {
            Ok(reservation) => self.admitted(node, reservation),
            Err(waiting) => {
                let of = &self.nodes[node];
                // Another node's unit that came back while this one was asking comes too late.
                let since = if self.nodes.len() > 1 { of.floor } else { i64::MAX };
                let least = since.min(self.available(node));
                let (failures, is_informed) = (of.failures, true);
                self.waiters.push(Waiter { node, waiting, least, is_informed, failures });
            }
        }
    }

    fn settle(&mut self, which: usize, refund: bool, later: bool) {
        let Some(mut talk) = pick(&mut self.talks, which) else { return };
        if talk.settled.is_none() {
            let wanted = if refund { Verdict::Refunded } else { Verdict::Charged };
            let verdict = talk.reservation.settle(wanted);
            if refund {
                self.asked_back(&talk, verdict);
            }
            talk.settled = Some(verdict);
            let end = if verdict == Verdict::Charged { End::Charged } else { End::Refunded };
            self.enter(talk.node, talk.ledger, end);
        }
        if later {
            self.talks.push(talk);
        } else {
            self.let_go(&talk);
        }
    }

    fn drop_one(&mut self, which: usize) {
        let Some(talk) = pick(&mut self.talks, which) else { return };
        if talk.settled.is_none() && talk.dispatched {
            self.enter(talk.node, talk.ledger, End::Charged);
        }
        self.let_go(&talk);
    }

    /// To be dropped now.
    fn let_go(&mut self, talk: &Talk) {
        let charged = talk.settled.map_or(talk.dispatched, |verdict| verdict == Verdict::Charged);
        if !charged {
            self.model.day(talk.ledger).used -= 1;
        }
    }

    /// A row waits to be written.
    fn enter(&mut self, node: usize, ledger: Ledger, end: End) {
        self.entries += 1;
        self.nodes[node].rows.push(Entry { id: self.entries, ledger, end });
    }

    fn drain(&mut self, node: usize, rows: u8, again: bool) {
        let Node { run, rows: waiting, .. } = &mut self.nodes[node];
        let count = usize::from(rows).min(waiting.len());
        self.book.append(*run, &waiting[..count]);
        if !again {
            waiting.drain(..count);
        }
    }

    fn edit(&mut self, edit: Edit, told: usize) {
        let today = self.today();
        match edit {
            Edit::Left(left) => self.book.set_left(today, left),
            Edit::Reset(reset) => self.book.set_reset(today, self.model.plan_limit, reset),
            Edit::Plan(limit) => self.book.set_plan(today, limit),
            Edit::ResetAll => self.book.epoch += 1,
        }
        self.model.edit(edit, today);
        if matches!(edit, Edit::Plan(_)) {
            self.nodes.iter_mut().for_each(|node| node.old_terms = true);
        }
        self.changed(Some(told));
    }

    /// Something is otherwise now, and who is not told may know it late.
    fn changed(&mut self, told: Option<usize>) {
        let now = self.clock.elapsed();
        for (n, node) in self.nodes.iter_mut().enumerate() {
            if told == Some(n) {
                node.hand.forget(USER);
                node.is_told();
            } else {
                node.is_not_told(now);
            }
        }
    }

    /// Whoever has waited may have word.
    fn hear(&mut self) {
        let (mut n, mut refused) = (0, Vec::new());
        while let Some(waiter) = self.waiters.get_mut(n) {
            let node = waiter.node;
            match waiter.waiting.word() {
                None => n += 1,
                Some(Ok(reservation)) => {
                    self.waiters.remove(n);
                    self.admitted(node, reservation);
                }
                Some(Err(error)) => refused.push((self.waiters.remove(n), error)),
            }
        }
        // Whoever came before them has been served.
        for (waiter, error) in &refused {
            self.refused(waiter, *error);
        }
        for n in 0..self.nodes.len() {
            let available = self.available(n);
            let is_informed = self.is_informed(n);
            let node = &mut self.nodes[n];
            if let Stage::Idle = node.stage {
                (node.old_round, node.floor) = (false, i64::MAX);
            }
            node.floor = node.floor.min(available);
            for waiter in self.waiters.iter_mut().filter(|waiter| waiter.node == n) {
                waiter.least = waiter.least.min(available);
                waiter.is_informed &= is_informed;
            }
        }
    }

    fn refused(&self, waiter: &Waiter, error: QuotaError) {
        let (node, least) = (&self.nodes[waiter.node], waiter.least.min(self.available(waiter.node)));
        match error {
            QuotaError::UsedUp { .. } if self.silent || !waiter.is_informed => {}
            QuotaError::UsedUp { .. } => assert!(least <= 0, "refused, with {least} left"),
            QuotaError::StoreDown => assert!(node.failures > waiter.failures, "nothing had failed"),
            QuotaError::NoSuchUser => panic!("the user is there"),
        }
    }

    /// All there is to do is done; nobody waits any more.
    fn quiet(&mut self) {
        let mut steps = 0;
        for node in 0..self.nodes.len() {
            while self.step(node, Fault::None) {
                self.hear();
                steps += 1;
                assert!(steps < MOST_STEPS, "the tellers never rest");
            }
        }
        self.hear();
        assert!(self.waiters.is_empty(), "somebody waits for ever");
    }

    /// Everything comes to rest, and then the day gives exactly what it has left.
    fn end(mut self) {
        self.quiet();
        self.recover();
        self.pass(70_000);
        for _ in 0..2 {
            self.nodes.iter().for_each(|node| node.hand.tidy());
            self.quiet();
            self.check();
        }
        for node in 0..self.nodes.len() {
            let rows = std::mem::take(&mut self.nodes[node].rows);
            self.book.append(self.nodes[node].run, &rows);
        }
        self.check();
        if self.silent {
            return;
        }
        let left = self.available(0).max(0);
        let before = self.model.day_of(self.ledger()).used;
        for _ in 0..=left {
            self.take(0);
            self.quiet();
        }
        assert_eq!(self.model.day_of(self.ledger()).used - before, left, "of {left} left");
        self.check();
    }
}

fn pick<T>(from: &mut Vec<T>, which: usize) -> Option<T> {
    (!from.is_empty()).then(|| from.remove(which % from.len()))
}
