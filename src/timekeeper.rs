//! Whether the machine's clock is right, and by what time the gateway goes where it is not.
//!
//! Each second the clock is compared with the machine's uptime, and every ten seconds with the clock of
//! PostgreSQL. A disagreement of more than a minute is a jump: [`Clock::now`] then goes on from when it was
//! trusted, so that no day begins and nothing is removed because of it, and readiness is red until the
//! clocks agree again or an operator says that the machine's is right. Between two starts a mark in the
//! database takes the place of memory. [`Standing`] is the rule, without any I/O.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Timestamp, Trust};
use crate::store::clock_marks::{self, Mark};
use crate::store::{Db, StoreError};
use crate::telemetry::Metrics;

mod standing;

pub use standing::{Disagreement, Opinion};
use standing::{Known, Reading, Standing};

/// Keeps the time of one process.
pub struct Timekeeper {
    sources: Sources,
    standing: Standing,
    boot: String,
    /// The database's clock less the uptime, when it was asked last.
    database: Option<i64>,
    /// How often the clock had been accepted when it was first found in doubt.
    accepted: Option<i64>,
    /// Looks since the database was asked, since the mark was noted, and since a warning was given.
    since_asked: u32,
    since_noted: u32,
    since_warned: u32,
}

/// What a timekeeper works with.
#[derive(Clone)]
pub struct Sources {
    /// Whose clock is compared, or where the mark is.
    pub db: Db,
    /// The clock that is compared, and told.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Where Linux says which start of the machine this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const EVERY: Duration = Duration::from_secs(1);
/// In looks: how often the database's clock is read, or an operator's word looked for.
const ASKED_EVERY: u32 = 10;
/// In looks: how often the mark is noted, and a warning repeated.
const HOURLY: u32 = 3600;
/// A lead or lag of more than this, in milliseconds, is warned of.
const WARNED: u64 = 5_000;
/// A database that takes longer to say what time it is has not said it.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is to be thought of the clock at the start of a process, which `clock` is told; for a command, which
/// writes no mark.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn consult(db: &Db, clock: &Clock) -> Result<Opinion, StoreError> {
    let boot = boot();
    let (standing, _, opinion) = first(db, clock, &boot).await?;
    standing.tell(clock);
    Ok(opinion)
}

/// A mark for what the machine's clock shows now.
#[must_use]
pub fn mark_of(clock: &Clock) -> Mark {
    let uptime = i64::try_from(clock.uptime().as_millis()).unwrap_or(i64::MAX);
    Mark { boot: boot(), uptime, trusted_at: clock.wall(), doubted_since: None, accepted: 0 }
}

async fn first(db: &Db, clock: &Clock, boot: &str) -> Result<(Standing, Option<i64>, Opinion), StoreError> {
    let mark = clock_marks::mark(db).await?;
    let newest = match (&db, &mark) {
        (Db::Sqlite { .. }, None) => clock_marks::newest_entry(db).await?,
        _ => None,
    };
    let database = ask(db, clock).await?;
    let reading = read(clock, database);
    let known = Known { boot, mark: mark.as_ref(), newest: newest.map(|at| at.0) };
    let mut standing = Standing::first(&reading, &known);
    let opinion = standing.look(&reading);
    Ok((standing, database, opinion))
}

/// The database's clock less the uptime, taken at the middle of the question.
async fn ask(db: &Db, clock: &Clock) -> Result<Option<i64>, StoreError> {
    if matches!(db, Db::Sqlite { .. }) {
        return Ok(None);
    }
    let before = clock.uptime();
    let shown = match clock.others() {
        Some(played) => Some(played),
        None => clock_marks::database_time(db).await?,
    };
    let middle = before + clock.uptime().saturating_sub(before) / 2;
    Ok(shown.map(|shown| shown.0.saturating_sub(i64::try_from(middle.as_millis()).unwrap_or(i64::MAX))))
}

fn read(clock: &Clock, database: Option<i64>) -> Reading {
    let uptime = i64::try_from(clock.uptime().as_millis()).unwrap_or(i64::MAX);
    let database = database.map(|offset| offset.saturating_add(uptime));
    Reading { wall: clock.wall().0, uptime, database }
}

#[expect(clippy::cast_precision_loss, reason = "a lead of more than 285,000 years is not exact")]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}

/// Empty where the system does not say.
fn boot() -> String {
    std::fs::read_to_string(BOOT_ID).map(|text| text.trim().to_owned()).unwrap_or_default()
}

// === impl Timekeeper ===

impl Timekeeper {
    /// Compares the clocks for the first time, tells `clock` what came of it, and notes the mark; to be
    /// called before anything else goes by the clock.
    ///
    /// # Errors
    /// [`StoreError`], when the database does not answer.
    pub async fn begin(sources: Sources) -> Result<Self, StoreError> {
        let boot = boot();
        let (standing, database, opinion) = first(&sources.db, &sources.clock, &boot).await?;
        let mut this = Self {
            sources,
            standing,
            boot,
            database,
            accepted: None,
            since_asked: 0,
            since_noted: 0,
            since_warned: HOURLY,
        };
        this.settle(Trust::Confirmed, opinion);
        this.note().await?;
        Ok(this)
    }

    /// Goes on comparing until `stop`.
    pub async fn work(mut self, stop: CancellationToken) {
        let mut looks = interval(EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = looks.tick() => {}
            }
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "clock comparison failed");
            }
        }
        if let Err(error) = self.note().await {
            tracing::warn!(%error, "clock mark was not written");
        }
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        self.since_warned = self.since_warned.saturating_add(1);
        self.since_asked += 1;
        let clock = self.sources.clock.clone();
        let before = clock.trust();
        let has_stepped = clock.wall().0.abs_diff(clock.held().0) > WARNED;
        if self.since_asked >= ASKED_EVERY || has_stepped && before == Trust::Confirmed {
            self.since_asked = 0;
            let asked = tokio::time::timeout(PATIENCE, ask(&self.sources.db, &clock)).await;
            self.database = asked.map_err(|_| StoreError::closed())??.or(self.database);
        }
        let opinion = self.standing.look(&read(&clock, self.database));
        self.settle(before, opinion);
        if clock.trust() == Trust::Confirmed {
            self.accepted = None;
        } else if self.since_asked == 0 {
            self.hear_the_operator().await?;
        }
        self.since_noted += 1;
        if self.since_noted >= HOURLY {
            self.note().await?;
        }
        Ok(())
    }

    /// Takes up an acceptance that came after the doubt.
    async fn hear_the_operator(&mut self) -> Result<(), StoreError> {
        let accepted = clock_marks::mark(&self.sources.db).await?.map_or(0, |mark| mark.accepted);
        if accepted <= *self.accepted.get_or_insert(accepted) {
            return Ok(());
        }
        self.accepted = None;
        tracing::info!("clock was accepted by the operator");
        let before = self.sources.clock.trust();
        let opinion = self.standing.accept(&read(&self.sources.clock, self.database));
        self.settle(before, opinion);
        self.note().await
    }

    /// Tells the clock, the metrics and the log.
    fn settle(&mut self, before: Trust, opinion: Opinion) {
        let Opinion { lead, disagreement } = opinion;
        self.standing.tell(&self.sources.clock);
        let trust = self.sources.clock.trust();
        self.sources.metrics.clock_trusted.set(i64::from(disagreement.is_none()));
        let lead_seconds = seconds(lead);
        self.sources.metrics.clock_lead.set(lead_seconds);
        let is_news = trust != before;
        match disagreement {
            Some(why) if is_news || self.since_warned >= HOURLY => {
                self.since_warned = 0;
                tracing::error!(lead_seconds, %why, now = %self.sources.clock.now(),
                    "clock is not trusted: set it right, or, if it is, run `tollgate clock accept`");
            }
            None if is_news && before == Trust::Held => {
                tracing::info!(now = %self.sources.clock.now(), "clock is trusted again");
            }
            None if is_news && trust == Trust::Provisional => {
                tracing::warn!("clock is far ahead of the last entry: nothing is removed by it for a day");
            }
            None if lead.unsigned_abs() > WARNED && self.since_warned >= HOURLY => {
                self.since_warned = 0;
                tracing::warn!(lead_seconds, "clock is not exact");
            }
            _ => {}
        }
    }

    /// Notes the mark. PostgreSQL needs none: its own clock tells a start what time it is.
    async fn note(&mut self) -> Result<(), StoreError> {
        self.since_noted = 0;
        let clock = &self.sources.clock;
        if matches!(self.sources.db, Db::Postgres(_)) {
            return Ok(());
        }
        let mark = Mark {
            boot: self.boot.clone(),
            trusted_at: clock.held(),
            doubted_since: self.standing.doubted_since().map(Timestamp),
            ..mark_of(clock)
        };
        clock_marks::note(&self.sources.db, &mark).await
    }
}
