//! The quota's promises, on whichever database the tests run.

use std::sync::Arc;
use std::time::Duration;

use chrono_tz::Tz;

use super::{Quota, QuotaError, Reservation, Sources, Verdict};
use crate::background::Background;
use crate::clock::{Clock, Timestamp};
use crate::ids::{RunId, UserId};
use crate::plan::Allowance;
use crate::store::exchanges::{self, Exchange};
use crate::store::runs::{self, Run};
use crate::store::tests::{Fresh, NOW, balances, exchange, fresh, user};
use crate::store::{Db, exchanges as log};
use crate::telemetry::Metrics;

mod crowd;
mod days;
mod doubt;
mod ends;
mod made_up;
mod model;
mod nodes;
mod takeover;

const BOOT: &str = "boot";

/// More frequent than the gateway's, since the machine's time passes meanwhile.
const HEARTBEAT: Duration = Duration::from_millis(300);

/// One node of a gateway, as far as quota goes. Dropped, it was killed.
struct Node {
    quota: Quota,
    run: Run,
    metrics: Arc<Metrics>,
    db: Db,
    /// Rows that wait to be written.
    rows: Vec<Exchange>,
}

impl Node {
    /// Starts, and ends what it was before.
    async fn start(db: &Db, clock: &Clock, name: &str, boot: &str) -> Self {
        let node = Self::start_in_front_of_recovery(db, clock, name, boot).await;
        node.quota.recover().await;
        node
    }

    async fn start_in_front_of_recovery(db: &Db, clock: &Clock, name: &str, boot: &str) -> Self {
        Self::start_in_folder(db, clock, (name, boot), &format!("folder of {name}")).await
    }

    async fn start_in_folder(db: &Db, clock: &Clock, (name, boot): (&str, &str), folder: &str) -> Self {
        let run = Run {
            id: RunId::generate(),
            node: name.to_owned(),
            boot: boot.to_owned(),
            started_at: clock.now(),
            folder: Some(folder.to_owned()),
        };
        let earlier = runs::earlier(db, &run).await.unwrap();
        runs::begin(db, &run).await.unwrap();
        let metrics = Arc::new(Metrics::new());
        let quota = Quota::start(Sources {
            db: db.clone(),
            background: Background::new(tokio::runtime::Handle::current()),
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            run: run.clone(),
            earlier,
            alone: false,
            heartbeat: HEARTBEAT,
            renamed: Box::new(|_| {}),
            max_lease: 32,
        });
        Self { quota, run, metrics, db: db.clone(), rows: Vec::new() }
    }

    /// A conversation ends: charged or refunded, with a row.
    fn settle(&mut self, user: UserId, mut reservation: Reservation, wanted: Verdict) -> Verdict {
        reservation.dispatched();
        let (day, epoch) = reservation.ledger();
        let verdict = reservation.settle(wanted);
        self.rows.push(row(user, (day, epoch), verdict));
        verdict
    }

    /// Writes the rows that wait.
    async fn drain(&mut self) {
        log::append(&self.db, self.run.id, &self.rows).await.unwrap();
        self.rows.clear();
    }

    /// Lets go of what is idle, and waits until it is back.
    async fn tidy(&self) {
        self.quota.holdings.tidy();
        self.settled().await;
    }

    /// Waits until what is on its way back is back.
    async fn settled(&self) {
        let settled = async {
            while !self.quota.holdings.is_settled() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), settled).await.expect("all of it goes back");
    }
}

/// One node, one user.
struct Day {
    node: Node,
    user: UserId,
    allowance: Allowance,
    clock: Clock,
    database: Fresh,
}

impl Day {
    async fn of(per_day: i64) -> Self {
        Self::on(fresh().await, per_day).await
    }

    async fn on(database: Fresh, per_day: i64) -> Self {
        let user = user(&database.db, "ann").await;
        let clock = Clock::manual(NOW);
        let node = Node::start(&database.db, &clock, "node", BOOT).await;
        Self { node, user, allowance: Allowance { per_day, zone: Tz::UTC }, clock, database }
    }

    async fn reserve(&self) -> Result<Reservation, QuotaError> {
        self.node.quota.reserve(self.user, &self.allowance).await
    }

    /// One conversation, whole.
    async fn converse(&mut self, wanted: Verdict) -> Result<Verdict, QuotaError> {
        let reservation = self.reserve().await?;
        Ok(self.node.settle(self.user, reservation, wanted))
    }

    async fn left(&self) -> i64 {
        self.node.quota.left(self.user, &self.allowance).await.unwrap().left
    }

    async fn used(&self) -> i64 {
        let days = self.node.quota.used_since(self.user, 0).await.unwrap();
        days.iter().map(|day| day.units).sum()
    }
}

fn row(user: UserId, (day, epoch): (i64, i64), verdict: Verdict) -> Exchange {
    let verdict = match verdict {
        Verdict::Charged => exchanges::Verdict::Charged,
        Verdict::Refunded => exchanges::Verdict::Refunded,
    };
    Exchange { user_id: Some(user), quota_day: Some(day), quota_epoch: Some(epoch), verdict, ..exchange(1) }
}

fn at(instant: &str) -> Timestamp {
    Timestamp(chrono::DateTime::parse_from_rfc3339(instant).unwrap().timestamp_millis())
}

fn is_used_up<T>(outcome: &Result<T, QuotaError>) -> bool {
    matches!(outcome, Err(QuotaError::UsedUp { .. }))
}
