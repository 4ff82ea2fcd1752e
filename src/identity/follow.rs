//! Changes that others made: commands, and other nodes on the same database. Each stands in the audit trail,
//! whose numbers are in the order of commits, so none is missed.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::changes::Who;
use super::{Directory, Inner};
use crate::store::audit::changes::{self, Change};
use crate::store::{Db, StoreError};

/// How late a change of another's may be seen.
const EVERY: Duration = Duration::from_millis(300);
/// Changes read at a time; where there are more, everybody is looked at again.
const MOST: i64 = 200;

// === impl Directory ===

impl Directory {
    /// Follows the audit trail from here on, until the last of these is gone.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the database does not say where the trail ends.
    pub async fn follow(&self) -> Result<(), StoreError> {
        let db = self.0.db.clone();
        let end = self.0.background.run(async move { changes::end(&db).await });
        let from = end.await.unwrap_or(Ok(0))?;
        let (alive, ended) = mpsc::channel(1);
        let _ = self.0.alive.set(alive);
        let (inner, db) = (Arc::downgrade(&self.0), self.0.db.clone());
        self.0.background.keep("changes of users", follow(inner, db, from, ended));
        Ok(())
    }
}

async fn follow(inner: Weak<Inner>, db: Db, mut seen: i64, mut ended: mpsc::Receiver<Infallible>) {
    let mut is_away = false;
    loop {
        tokio::select! {
            _ = ended.recv() => return,
            () = sleep(EVERY) => {}
        }
        let read = changes::since(&db, seen, MOST).await;
        let Some(inner) = inner.upgrade() else { return };
        match read {
            Ok(found) => {
                is_away = false;
                seen = found.iter().map(|change| change.seq).fold(seen, i64::max);
                inner.forget_changed(found);
            }
            Err(error) if !is_away => {
                is_away = true;
                tracing::warn!(%error, "changes of users made elsewhere cannot be seen");
            }
            Err(_) => {}
        }
    }
}

// === impl Inner ===

impl Inner {
    fn forget_changed(&self, found: Vec<Change>) {
        if i64::try_from(found.len()).is_ok_and(|length| length >= MOST) {
            return self.forget(Who::All);
        }
        for change in found {
            if change.is_of_a_user() {
                self.forget(Who::Named(change.target));
            }
        }
    }
}
