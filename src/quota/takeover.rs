//! Taking over what earlier runs of this node held.
//!
//! At once where the old process is provably dead: it kept its records in the folder that this process has
//! locked (same boot of the same kernel, same device and inode of folder and lock file), or nothing else has
//! the database open. Every other run that bears this node's name may be alive (the folder may be a copy of
//! that of a running node), so it is watched: a run that gives a sign of life is never ended, and one that
//! gives none for [`MISSED`] heartbeats is fenced. Silence is measured between answers of the database by this
//! process's monotonic clock, so no two clocks are compared, and time for which the database was away does
//! not count.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Quota;
use crate::ids::RunId;
use crate::store::StoreError;
use crate::store::runs::{self, Fate, Pulse, Run};

/// An earlier run of this node that may be alive.
pub struct Watched {
    run: Run,
    /// Its first sign of life that was seen, and when.
    seen: Option<(Pulse, Instant)>,
}

/// How an earlier run of this node stands.
enum Standing {
    /// It has given a sign of life.
    Alive,
    /// It ended in order, or is fenced.
    Over,
}

/// A run is taken for dead after so many heartbeats that did not come. With what it takes to look, that is at
/// most 15 seconds.
const MISSED: u32 = 4;
/// The same for a run that an earlier version has entered: it has one heartbeat a minute.
const SILENCE_OF_EARLIER_VERSION: Duration = Duration::from_secs(150);
/// How often it is looked for signs of life.
const LOOK: Duration = Duration::from_millis(500);

// === impl Quota ===

impl Quota {
    /// What becomes of the units that a run held. They go back only where every record of it is in this
    /// process's folder. A run that may be alive, or may have records elsewhere, may have used them.
    pub(super) fn fate(&self, run: &Run) -> Fate {
        let own = self.current.run();
        let is_same_folder = run.folder.is_some() && run.folder == own.folder;
        if run.boot == own.boot && is_same_folder { Fate::Returned } else { Fate::Forfeited }
    }

    /// Takes over from the earlier runs of this node that are dead for certain. Returns the others, to be
    /// watched; also where the database did not answer.
    pub async fn look_at_earlier(&self) -> Vec<Watched> {
        let mut open: Vec<Watched> =
            self.earlier.iter().cloned().map(|run| Watched { run, seen: None }).collect();
        if let Err(error) = self.look_at(&mut open, &mut Vec::new()).await {
            self.look_failed(&mut open, &error);
        }
        self.tell_of(&open);
        open
    }

    /// Watches the earlier runs that may be alive, and fences each that gives no sign of life for long enough.
    /// Returns those that are alive: they are never touched. Tries until the database answers.
    pub async fn watch_earlier(&self, mut open: Vec<Watched>) -> Vec<RunId> {
        let mut alive = Vec::new();
        while !open.is_empty() && !self.closing.is_cancelled() {
            sleep(LOOK).await;
            if let Err(error) = self.look_at(&mut open, &mut alive).await {
                self.look_failed(&mut open, &error);
            }
        }
        alive.extend(open.into_iter().map(|one| one.run.id));
        self.spared.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&alive);
        alive
    }

    /// Silence counts only between answers of the database, so it begins anew.
    fn look_failed(&self, open: &mut [Watched], error: &StoreError) {
        self.metrics.store_errors.inc();
        tracing::error!(%error, "reading the heartbeats of earlier runs failed; trying again");
        for one in open {
            one.seen = None;
        }
    }

    fn tell_of(&self, open: &[Watched]) {
        for Watched { run, .. } in open {
            tracing::warn!(
                run = %run.id, node = run.node, seconds = self.silence_of(run).as_secs(),
                "an earlier run of this node may be alive (its data folder is not this one, or the machine was \
                 started since): not ready before it has given no sign of life for that long"
            );
        }
    }

    /// Decides about those that can be decided about now, and takes them out.
    async fn look_at(&self, open: &mut Vec<Watched>, alive: &mut Vec<RunId>) -> Result<(), StoreError> {
        let db = self.db.clone();
        let pulses = self.background.run(async move { runs::pulses(&db).await }).await;
        let pulses = pulses.map_err(|_| StoreError::closed())??;
        let mut pulses: HashMap<RunId, Pulse> = pulses.into_iter().map(|pulse| (pulse.id, pulse)).collect();
        let mut at = 0;
        while let Some(one) = open.get_mut(at) {
            let pulse = pulses.remove(&one.run.id);
            let Some(standing) = self.standing(one, pulse).await? else {
                at += 1;
                continue;
            };
            let Run { id, node, .. } = open.swap_remove(at).run;
            match standing {
                Standing::Alive => {
                    tracing::warn!(run = %id, node, "an earlier run of this node is alive and is left alone");
                    alive.push(id);
                }
                Standing::Over => tracing::info!(run = %id, node, "an earlier run of this node is over"),
            }
        }
        Ok(())
    }

    async fn standing(
        &self,
        one: &mut Watched,
        pulse: Option<Pulse>,
    ) -> Result<Option<Standing>, StoreError> {
        let Some(pulse) = pulse.filter(|pulse| !pulse.is_fenced) else { return Ok(Some(Standing::Over)) };
        let is_dead = self.alone || self.fate(&one.run) == Fate::Returned;
        let (first, since) = one.seen.get_or_insert_with(|| (pulse.clone(), Instant::now()));
        if !is_dead && *first != pulse {
            return Ok(Some(Standing::Alive));
        }
        if !is_dead && since.elapsed() < self.silence_of(&one.run) {
            return Ok(None);
        }
        let (db, now) = (self.db.clone(), self.clock.now());
        let fenced = self.background.run(async move { runs::fence(&db, &pulse, now).await }).await;
        let is_fenced = fenced.map_err(|_| StoreError::closed())??;
        Ok(is_fenced.then_some(Standing::Over))
    }

    fn silence_of(&self, run: &Run) -> Duration {
        if run.folder.is_some() { self.heartbeat * MISSED } else { SILENCE_OF_EARLIER_VERSION }
    }
}
