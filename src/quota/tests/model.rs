//! Whatever happens in whatever order: the quota does what a page of arithmetic says, and every row is
//! in balance after each step.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use super::{BOOT, Clock, Fresh, NOW, Node, QuotaError, Reservation, Timestamp, Tz, Verdict};
use super::{balances, fresh, row, user};
use crate::ids::UserId;
use crate::plan::Allowance;
use crate::store::exchanges;
use crate::store::quota;
use crate::store::tests::entry;
use crate::store::users::{self, QuotaChange, UserChange};

const HOUR: i64 = 3_600_000;

/// Something that happens. Numbers of nodes are 0 and 1; those of reservations are taken modulo.
#[derive(Clone, Debug)]
enum Event {
    Reserve { node: usize, times: usize },
    Settle { which: usize, wanted: Verdict },
    Drop { which: usize, dispatched: bool },
    Drain { node: usize },
    SetLeft(i64),
    SetReset(i64),
    SetPlan(i64),
    ResetAll,
    Sleep,
    Turn { hours: i64 },
    Kill { node: usize, power: bool },
}

fn event() -> impl Strategy<Value = Event> {
    let verdict = prop_oneof![Just(Verdict::Charged), Just(Verdict::Refunded)];
    prop_oneof![
        8 => (0..2_usize, 1..9_usize).prop_map(|(node, times)| Event::Reserve { node, times }),
        6 => (any::<usize>(), verdict).prop_map(|(which, wanted)| Event::Settle { which, wanted }),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(which, dispatched)| Event::Drop { which, dispatched }),
        2 => (0..2_usize).prop_map(|node| Event::Drain { node }),
        1 => (0..30_i64).prop_map(Event::SetLeft),
        1 => (0..30_i64).prop_map(Event::SetReset),
        1 => (0..60_i64).prop_map(Event::SetPlan),
        1 => Just(Event::ResetAll),
        2 => Just(Event::Sleep),
        2 => prop_oneof![Just(24), Just(13), Just(-24), Just(-7)].prop_map(|hours| Event::Turn { hours }),
        1 => (0..2_usize, any::<bool>()).prop_map(|(node, power)| Event::Kill { node, power }),
    ]
}

/// A day and an epoch.
type Ledger = (i64, i64);

/// The page of arithmetic.
struct Model {
    plan_limit: i64,
    reset: Option<i64>,
    epoch: i64,
    latest: i64,
    /// Allowance, and what is used, of every day that has begun.
    days: BTreeMap<Ledger, (i64, i64)>,
}

impl Model {
    fn usual(&self) -> i64 {
        self.reset.unwrap_or(self.plan_limit)
    }

    fn ledger(&self, today: i64) -> Ledger {
        (self.latest.max(today), self.epoch)
    }

    fn left(&self, today: i64) -> i64 {
        let (allowance, used) = self.days.get(&self.ledger(today)).copied().unwrap_or((self.usual(), 0));
        allowance - used
    }

    fn begin(&mut self, today: i64) -> &mut (i64, i64) {
        let (ledger, usual) = (self.ledger(today), self.usual());
        self.latest = ledger.0;
        self.days.entry(ledger).or_insert((usual, 0))
    }

    fn add(&mut self, ledger: Ledger, used: i64) {
        self.days.get_mut(&ledger).unwrap().1 += used;
    }
}

struct Story<'w> {
    world: &'w Fresh,
    clock: Clock,
    user: UserId,
    model: Model,
    nodes: Vec<Node>,
    /// With the number of their node.
    open: Vec<(usize, Reservation)>,
}

impl Story<'_> {
    async fn tell(&mut self, event: Event) {
        match event {
            Event::Reserve { node, times } => self.reserve(node, times).await,
            Event::Settle { which, wanted } => self.settle(which, wanted),
            Event::Drop { which, dispatched } => self.drop(which, dispatched),
            Event::Drain { node } => self.nodes[node].drain().await,
            Event::SetLeft(left) => {
                self.edit(Some(left), None, None).await;
                self.model.epoch += 1;
                self.model.begin(self.today()).0 = left;
            }
            Event::SetReset(reset) => {
                self.edit(None, Some(reset), None).await;
                self.model.begin(self.today());
                self.model.reset = Some(reset);
            }
            Event::SetPlan(limit) => {
                self.edit(None, None, Some(limit)).await;
                self.model.plan_limit = limit;
                let own = self.model.reset.is_some();
                let day = self.model.begin(self.today());
                day.0 = if own { day.0 } else { limit };
            }
            Event::ResetAll => {
                quota::reset_all(&self.world.db, &entry("limits.reset")).await.unwrap();
                self.model.latest = i64::MIN;
                self.model.epoch += 1;
                self.spread_the_word().await;
            }
            Event::Sleep => self.turn(6_000).await,
            Event::Turn { hours } => self.turn(hours * HOUR).await,
            Event::Kill { node, power } => self.kill(node, power).await,
        }
        self.check().await;
    }

    fn today(&self) -> i64 {
        self.nodes[0].quota.today(Tz::UTC).day
    }

    fn allowance(&self) -> Allowance {
        Allowance { per_day: self.model.plan_limit, zone: Tz::UTC }
    }

    /// What the other node has in hand of a day.
    fn elsewhere(&self, node: usize, (day, epoch): Ledger) -> i64 {
        self.nodes[1 - node].quota.holdings.unused(self.user, (day, Some(epoch)))
    }

    async fn reserve(&mut self, node: usize, times: usize) {
        for _ in 0..times {
            let ledger = self.model.ledger(self.today());
            let free = self.model.left(ledger.0) - self.elsewhere(node, ledger);
            let reserved = self.nodes[node].quota.reserve(self.user, &self.allowance()).await;
            match reserved {
                Ok(one) => {
                    assert!(free > 0, "one too many");
                    assert_eq!(one.ledger(), ledger);
                    self.model.begin(ledger.0).1 += 1;
                    self.open.push((node, one));
                }
                Err(QuotaError::UsedUp { .. }) => assert!(free <= 0, "{free} were left"),
                Err(other) => panic!("{other}"),
            }
        }
    }

    fn take(&mut self, which: usize) -> Option<(usize, Reservation)> {
        (!self.open.is_empty()).then(|| self.open.swap_remove(which % self.open.len()))
    }

    fn settle(&mut self, which: usize, wanted: Verdict) {
        let Some((node, one)) = self.take(which) else { return };
        let ledger = one.ledger();
        if self.nodes[node].settle(self.user, one, wanted) == Verdict::Refunded {
            self.model.add(ledger, -1);
        }
    }

    fn drop(&mut self, which: usize, dispatched: bool) {
        let Some((node, mut one)) = self.take(which) else { return };
        let ledger = one.ledger();
        if dispatched {
            one.dispatched();
            self.nodes[node].rows.push(row(self.user, ledger, Verdict::Charged));
        } else {
            self.model.add(ledger, -1);
        }
    }

    async fn edit(&mut self, left: Option<i64>, reset: Option<i64>, plan: Option<i64>) {
        let plan_limit = plan.unwrap_or(self.model.plan_limit);
        let change = UserChange {
            quota: Some(QuotaChange { day: self.today(), left, reset, plan_limit }),
            subscription_plan: plan.map(|limit| format!("plan{limit}")),
            ..UserChange::default()
        };
        users::update(&self.world.db, self.user, &change, NOW, &entry("user.update")).await.unwrap();
        self.spread_the_word().await;
    }

    /// One node is told, and the other sees for itself, later.
    async fn spread_the_word(&mut self) {
        self.nodes[0].quota.forget(self.user);
        self.turn(6_000).await;
    }

    async fn turn(&mut self, by: i64) {
        self.clock.set(Timestamp(self.clock.now().0 + by));
        for node in &self.nodes {
            node.tidy().await;
        }
    }

    /// What the killed run had in its files is written, what was under way is charged; the rest goes back,
    /// or, after a power failure, nobody gets it.
    async fn kill(&mut self, node: usize, power: bool) {
        let mut rows = std::mem::take(&mut self.nodes[node].rows);
        let mut lost: BTreeMap<Ledger, i64> = BTreeMap::new();
        let (here, elsewhere) = std::mem::take(&mut self.open).into_iter().partition(|(of, _)| *of == node);
        self.open = elsewhere;
        for (n, (_, mut one)) in Vec::from_iter::<Vec<(usize, Reservation)>>(here).into_iter().enumerate() {
            if n % 2 == 0 {
                rows.push(row(self.user, one.ledger(), Verdict::Charged));
            } else {
                *lost.entry(one.ledger()).or_default() += 1;
                self.model.add(one.ledger(), -1);
            }
            // Nobody settles it any more.
            one.dispatched();
        }
        for ledger @ (day, epoch) in self.model.days.keys() {
            let unused = self.nodes[node].quota.holdings.unused(self.user, (*day, Some(*epoch)));
            *lost.entry(*ledger).or_default() += unused;
        }
        let run = self.nodes[node].run.id;
        let boot = if power { format!("{BOOT} after {run}") } else { self.nodes[node].run.boot.clone() };
        let name = format!("{}-{node}", self.user);
        let next = Node::start_in_front_of_recovery(&self.world.db, &self.clock, &name, &boot).await;
        self.nodes[node] = next;
        exchanges::append(&self.world.db, run, &rows).await.unwrap();
        self.nodes[node].quota.recover().await;
        if power {
            for (ledger, units) in lost {
                self.model.add(ledger, units);
            }
        }
    }

    async fn check(&self) {
        for node in &self.nodes {
            node.settled().await;
        }
        balances(&self.world.db).await;
        let ledger = self.model.ledger(self.today());
        let left = self.model.left(ledger.0);
        for (number, node) in self.nodes.iter().enumerate() {
            let told = node.quota.left(self.user, &self.allowance()).await.unwrap();
            assert_eq!(told.day, ledger.0);
            assert_eq!(told.left, (left - self.elsewhere(number, ledger)).max(0), "node {number}");
        }
    }
}

#[test]
fn the_quota_does_what_arithmetic_says() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = runtime.block_on(fresh());
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let number = std::cell::Cell::new(0);
    proptest!(config, |(events in vec(event(), 1..40), limit in 0..60_i64)| {
        number.set(number.get() + 1);
        runtime.block_on(async {
            let clock = Clock::manual(NOW);
            let user = user(&world.db, &format!("user{}", number.get())).await;
            let mut nodes = Vec::new();
            for node in 0..2 {
                nodes.push(Node::start(&world.db, &clock, &format!("{user}-{node}"), BOOT).await);
            }
            let days = BTreeMap::new();
            let model = Model { plan_limit: limit, reset: None, epoch: 0, latest: i64::MIN, days };
            let mut story = Story { world: &world, clock, user, model, nodes, open: Vec::new() };
            for event in events {
                story.tell(event).await;
            }
        });
    });
}
