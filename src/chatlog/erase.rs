//! Taking somebody's words off the disk, so that they can be taken out of the database.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;

use super::aside::Person;
use super::drain::{Drain, Ended};
use super::gather::Gatherer;
use super::record::{self, Begin};
use super::{Backlog, Chatlog};
use crate::ids::{ExchangeId, UserId};
use crate::spool::{AppendError, Kind, Location, Mark, Writer};
use crate::store;

/// Somebody is to be forgotten; told how many files that were set aside went with them, if they are, as
/// far as the spool goes.
pub(super) struct Erasure {
    user: UserId,
    done: oneshot::Sender<Option<u64>>,
}

/// Words of theirs are still in the spool: a conversation is running, or the database or the disk does
/// not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("something this user said is still in the spool")]
pub struct StillThere;

/// Longest wait of whoever asks.
const PATIENCE: Duration = Duration::from_secs(30);

// === impl Chatlog ===

impl Chatlog {
    /// Writes everything a user said to the database and removes the files that it stood in, and of what
    /// was set aside all that is theirs or does not say whose it is; nothing of them is on the disk outside
    /// the database when this returns. Answers how many files were removed that had been set aside.
    ///
    /// # Errors
    ///
    /// [`StillThere`]
    pub async fn forget(&self, user: UserId) -> Result<u64, StillThere> {
        let (done, is_done) = oneshot::channel();
        let backlog = self.backlog();
        if let Ok(mut erasures) = backlog.0.erasures.lock() {
            erasures.push(Erasure { user, done });
        }
        backlog.0.hurry.notify_one();
        match tokio::time::timeout(PATIENCE, is_done).await {
            Ok(Ok(Some(files))) => Ok(files),
            _ => Err(StillThere),
        }
    }
}

// === impl Backlog ===

impl Backlog {
    fn erasures(&self) -> Vec<Erasure> {
        self.0.erasures.lock().map(|mut asked| std::mem::take(&mut *asked)).unwrap_or_default()
    }
}

// === impl Drain ===

impl Drain {
    /// Ends every file and empties it: rows are written, and what runs on is written again elsewhere.
    pub(super) async fn erase(&mut self) -> Result<(), Ended> {
        let asked = self.backlog.erasures();
        if asked.is_empty() {
            return Ok(());
        }
        self.seal().await?;
        self.write_all().await?;
        let writer = self.spool.writer();
        let moved = self.blocking(move |gatherer| (gatherer.copy_running(&writer), writer)).await?;
        let is_moved = match moved {
            (Ok(mark), writer) => {
                if let Some(mark) = mark {
                    writer.synced(mark).await;
                }
                self.blocking(Gatherer::leave_originals).await?;
                true
            }
            (Err(error), _) => {
                tracing::warn!(%error, "files of the spool cannot be emptied");
                false
            }
        };
        for Erasure { user, done } in asked {
            let is_gone = is_moved && !self.blocking(move |gatherer| gatherer.hears(user)).await?;
            let _ = done.send(if is_gone { self.clear(user).await? } else { None });
        }
        Ok(())
    }

    /// Removes what was set aside of somebody; how many files, if that could be done.
    async fn clear(&mut self, user: UserId) -> Result<Option<u64>, Ended> {
        let names = match store::deleted::names(&self.db, user).await {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(%error, "what was set aside cannot be looked through");
                return Ok(None);
            }
        };
        let person = Person { user, names };
        let cleared = self.blocking(move |gatherer| gatherer.clear(&person)).await?;
        Ok(cleared.inspect_err(|error| tracing::warn!(%error, "what was set aside cannot be removed")).ok())
    }
}

// === impl Gatherer ===

impl Gatherer {
    /// Writes the records of running conversations again; where the last one ends.
    fn copy_running(&mut self, writer: &Writer) -> Result<Option<Mark>, AppendError> {
        let mut last = None;
        for (id, kind, at) in self.running() {
            let payload = self.reader.payload(&at).map_err(AppendError::Failed)?;
            last = Some(writer.append(kind, id, &[&payload])?);
        }
        Ok(last)
    }

    /// Lets go of what was written again, and reads that.
    fn leave_originals(&mut self) {
        let originals = self.running();
        for (_, _, at) in &originals {
            self.reader.done(at);
        }
        for found in self.open.values_mut() {
            found.begin = None;
            found.parts.clear();
        }
        self.scan();
    }

    fn clear(&mut self, person: &Person) -> io::Result<u64> {
        Ok(self.aside.forget(person)? + person.leave_damage(&mut self.reader)?)
    }

    /// Whether a running conversation is this user's.
    fn hears(&self, user: UserId) -> bool {
        let begins = self.open.values().filter_map(|found| found.begin);
        let mut payloads = begins.filter_map(|at| self.reader.payload(&at).ok());
        payloads.any(|payload| record::read::<Begin<'_>>(&payload).is_ok_and(|(begin, _)| begin.user == user))
    }

    fn running(&self) -> Vec<(ExchangeId, Kind, Location)> {
        let of = |(id, found): (&ExchangeId, &super::gather::Found)| {
            let begin = found.begin.map(|at| (*id, Kind::Begin, at));
            let parts: Vec<_> = found.parts.iter().map(|at| (*id, Kind::Part, *at)).collect();
            begin.into_iter().chain(parts)
        };
        self.open.iter().flat_map(of).collect()
    }
}
