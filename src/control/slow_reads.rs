//! The queue of lists, statistics, exports and ledger verification, as their handlers meet it.
//!
//! A handler whose reads may be slow takes a [`SlowTurn`], behind its caller. [`super::listed`] says of each
//! operation whether it does, and a test names every other one that reads.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::Control;
use super::problem::Problem;
use crate::store::SlowRead;

/// A turn in the queue of slow reads, held until the handler ends.
pub(super) struct SlowTurn(pub(super) SlowRead);

// === impl SlowTurn ===

impl FromRequestParts<Arc<Control>> for SlowTurn {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, control: &Arc<Control>) -> Result<Self, Problem> {
        let turn = control.slow_reads.turn().await;
        turn.map(Self).map_err(|why| {
            control.metrics.slow_reads_refused.inc();
            Problem::SlowReadsBusy(why)
        })
    }
}
