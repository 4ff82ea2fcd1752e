//! Notes when sessions are used: behind the call, once a minute for each session at most.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::background::Background;
use crate::clock::Timestamp;
use crate::store::Db;
use crate::store::sessions::{Standing, seen};

/// Writes down when sessions are used. What does not fit the places is left to the session's next call.
pub struct Sightings {
    db: Db,
    background: Background,
    places: Arc<Semaphore>,
}

/// Writes under way at a time.
const PLACES: usize = 8;

// === impl Sightings ===

impl Sightings {
    /// Writes into `db` on `background`.
    #[must_use]
    pub fn new(db: Db, background: Background) -> Self {
        Self { db, background, places: Arc::new(Semaphore::new(PLACES)) }
    }

    /// Notes that `session` is used from `ip`.
    pub(super) fn note(&self, session: &Standing, ip: IpAddr, now: Timestamp) {
        let is_known = session.last_used_at.is_some_and(|last| now.0.saturating_sub(last.0) < seen::EVERY);
        if is_known {
            return;
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let (db, id) = (self.db.clone(), session.id);
        drop(self.background.spawn(async move {
            if let Err(error) = seen::touch(&db, id, ip, now).await {
                tracing::debug!(%error, "failed to note the use of a session");
            }
            drop(place);
        }));
    }
}
