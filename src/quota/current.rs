//! The run under which this process holds units, and the next one when that was fenced.
//!
//! A run is fenced by another process that took its leases over, because the heartbeat had stopped: this
//! process was suspended, or cut off from the database. What it still has in memory is then no longer its
//! own, so it is dropped and a new run begins, with nothing in hand.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::ids::RunId;
use crate::store::runs::{self, Run};
use crate::store::{Db, StoreError};

/// Is told the name of the run under which everything after it is to be recorded.
pub type Renamed = Box<dyn Fn(RunId) + Send + Sync>;

pub(super) struct Current {
    run: Mutex<Run>,
    /// The last run whose heartbeat was refused.
    refused: Mutex<Option<RunId>>,
    bell: Notify,
    renamed: Renamed,
}

// === impl Current ===

impl Current {
    pub(super) fn new(run: Run, renamed: Renamed) -> Self {
        Self { run: Mutex::new(run), refused: Mutex::default(), bell: Notify::new(), renamed }
    }

    pub(super) fn run(&self) -> Run {
        self.run.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn id(&self) -> RunId {
        self.run.lock().unwrap_or_else(PoisonError::into_inner).id
    }

    /// The heartbeat of `run` was refused.
    pub(super) fn refuse(&self, run: RunId) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(run);
        self.bell.notify_one();
    }

    /// Waits until the heartbeat of the present run is refused.
    pub(super) async fn refused(&self) {
        loop {
            self.bell.notified().await;
            let refused = *self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            if refused == Some(self.id()) {
                return;
            }
        }
    }

    /// Enters a new run in place of one that was fenced. Nothing may be granted to it before what the old
    /// one left in memory is dropped.
    pub(super) async fn begin_anew(&self, db: &Db, now: Timestamp) -> Result<RunId, StoreError> {
        let old = self.run();
        let new = Run { id: RunId::generate(), started_at: now, ..old.clone() };
        runs::begin(db, &new).await?;
        tracing::error!(
            run = %old.id, new_run = %new.id, node = new.node,
            "this run was ended by another process after its heartbeat had stopped; a new run begins, and units in hand are forfeited"
        );
        let id = new.id;
        *self.run.lock().unwrap_or_else(PoisonError::into_inner) = new;
        (self.renamed)(id);
        Ok(id)
    }

    pub(super) fn rename_node(&self, node: &str) {
        node.clone_into(&mut self.run.lock().unwrap_or_else(PoisonError::into_inner).node);
    }
}
