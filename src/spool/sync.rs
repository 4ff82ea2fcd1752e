//! The task that makes what was written durable.
//!
//! Most of the time it sleeps for `sync_every`, looks at a few numbers, and syncs the files that have
//! something new. Whoever waits calls it at once, and all who call while a sync runs share the next.
//!
//! A sync that failed is never tried again on the same file: the kernel may have dropped what it could
//! not write, and would answer the second time that all is well. What is not known to be durable is
//! written again into a new file, until that succeeds.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use super::disk::{self, DiskFile};
use super::folder;
use super::frame::{HEADER, Head, size};
use super::room::{self, Want};
use super::segment::{Live, Rescue, Track};
use super::shared::Shared;
use super::{FRAME, lock};

pub(super) struct Task {
    shared: Arc<Shared>,
    /// What was given up and is not yet safe.
    rescues: Vec<Arc<Rescue>>,
    next_rescue: Instant,
    pause: Duration,
    next_look: Instant,
    failing: bool,
}

/// How often the disk's free space is asked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Waits between two attempts to write what a failed sync left, doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// At the end, a disk that refuses is asked this many times.
const LAST_ATTEMPTS: u32 = 5;

// === impl Task ===

impl Task {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        Self {
            shared,
            rescues: Vec::new(),
            next_rescue: now,
            pause: SHORTEST_PAUSE,
            next_look: now,
            failing: false,
        }
    }

    /// Ends when nobody can append any more and all is durable, or the disk has refused often enough.
    pub(super) async fn run(mut self) {
        let every = self.shared.options.sync_every.max(Duration::from_millis(1));
        let mut next = Instant::now() + every;
        while !self.shared.closing.load(Ordering::Acquire) {
            let all = tokio::select! {
                () = self.shared.wake.notified() => false,
                () = sleep_until(next) => true,
            };
            if all {
                next = Instant::now() + every;
            }
            self.round(all).await;
        }
        for _ in 0..LAST_ATTEMPTS {
            self.round(true).await;
            if !self.failing {
                break;
            }
            sleep_until(self.next_rescue.max(Instant::now() + SHORTEST_PAUSE)).await;
        }
        if self.failing {
            tracing::error!("the spool ends with records that are not durable: the disk refuses");
        }
        self.shared.closed.store(true, Ordering::Release);
    }

    /// Syncs everything that has something new, or only what somebody waits for.
    async fn round(&mut self, all: bool) {
        let due = self.due(all);
        let mut failing = false;
        if all || !due.is_empty() {
            failing |= !self.sync_folder().await;
        }
        if !failing {
            self.sync(due).await;
            self.rescue().await;
        }
        failing |= !self.rescues.is_empty();
        if failing != self.failing {
            self.failing = failing;
            self.shared.room.set(Want::Sync, failing);
        }
        lock(&self.shared.lives).retain(|_, live| !live.is_settled());
        self.shared.settled.notify_waiters();
        if all {
            self.look();
        }
    }

    /// What has something new, and how much of it there is now.
    fn due(&self, all: bool) -> Vec<(Arc<Live>, u64)> {
        let lives = lock(&self.shared.lives);
        let early = |live: &Live| live.is_wanted() || live.unsynced() >= self.shared.options.sync_bytes;
        let is_due = |live: &&Arc<Live>| live.unsynced() > 0 && (all || early(live)) && !live.is_given_up();
        lives.values().filter(is_due).map(|live| (Arc::clone(live), live.track.published())).collect()
    }

    /// A file is durable only when its name is.
    async fn sync_folder(&self) -> bool {
        if !self.shared.renamed.swap(false, Ordering::AcqRel) {
            return true;
        }
        let shared = Arc::clone(&self.shared);
        let Err(error) = blocking(move || shared.disk.sync_folder(&shared.options.folder)).await else {
            return true;
        };
        self.shared.renamed.store(true, Ordering::Release);
        self.report(&error, "the spool's folder cannot be synced; trying again");
        false
    }

    async fn sync(&mut self, due: Vec<(Arc<Live>, u64)>) {
        let syncs = due.into_iter().map(|(live, end)| async move {
            let file = Arc::clone(&live.file);
            (blocking(move || file.sync()).await, live, end)
        });
        for (synced, live, end) in join_all(syncs).await {
            match synced {
                Ok(()) => live.settle(end),
                Err(error) => {
                    let file = live.track.path.display();
                    self.report(
                        &error,
                        &format!("{file} cannot be synced; writing what is new into another"),
                    );
                    self.rescues.push(Arc::new(live.give_up()));
                    self.next_rescue = Instant::now();
                }
            }
        }
    }

    /// Tries once for each, at its pace.
    async fn rescue(&mut self) {
        if self.rescues.is_empty() || Instant::now() < self.next_rescue {
            return;
        }
        for rescue in std::mem::take(&mut self.rescues) {
            let (shared, given_up) = (Arc::clone(&self.shared), Arc::clone(&rescue));
            match blocking(move || save(&shared, &given_up)).await {
                Ok(()) => rescue.live.settle(rescue.live.track.published()),
                Err(error) => {
                    self.report(&error, "what a failed sync left cannot be written; trying again");
                    self.rescues.push(rescue);
                }
            }
        }
        self.pause =
            if self.rescues.is_empty() { SHORTEST_PAUSE } else { (self.pause * 2).min(LONGEST_PAUSE) };
        self.next_rescue = Instant::now() + self.pause;
    }

    /// Judges the quota and the disk again.
    pub(super) fn look(&mut self) {
        let shared = &self.shared;
        shared.room.review();
        shared.metrics.spool_bytes.set(i64::try_from(shared.room.bytes()).unwrap_or(i64::MAX));
        if Instant::now() < self.next_look {
            return;
        }
        self.next_look = Instant::now() + LOOK_EVERY;
        if let Ok(space) = shared.disk.space(&shared.options.folder) {
            shared.room.set(Want::Disk, space.free < room::floor(&shared.options, space));
        }
    }

    fn report(&self, error: &io::Error, what: &str) {
        self.shared.metrics.spool_sync_errors.inc();
        tracing::error!(%error, "{what}");
    }
}

/// Writes the records of a file that was given up into a new one, and makes that durable.
fn save(shared: &Shared, rescue: &Rescue) -> io::Result<()> {
    let bytes = rescue.bytes()?;
    let (header, path, file) = shared.create()?;
    let saved = copy(rescue, &bytes, Track::new(shared.number(), path.clone(), header), &*file);
    let saved = saved.and_then(|track| {
        file.sync()?;
        shared.disk.sync_folder(&shared.options.folder)?;
        Ok(track)
    });
    match saved {
        Ok(track) => {
            track.seal();
            shared.show(&Arc::new(track));
            Ok(())
        }
        Err(error) => {
            folder::discard(&path);
            Err(error)
        }
    }
}

/// Puts every whole frame of `bytes` into `file`.
fn copy(rescue: &Rescue, bytes: &[u8], track: Track, file: &dyn DiskFile) -> io::Result<Track> {
    let (old, new) = (rescue.live.key, track.header.key());
    let (mut all, mut frame) = (Vec::with_capacity(bytes.len()), Vec::new());
    let (mut at, mut ordinal) = (0, 0);
    while let Some((head, whole)) = bytes.get(at..).filter(|rest| !rest.is_empty()).map(|rest| {
        let head = old.head(rest);
        let len = head.and_then(|head| usize::try_from(size(head.len)).ok());
        (head, len.and_then(|len| rest.get(..len)))
    }) {
        match (head, whole) {
            (Some(head), Some(whole)) if old.holds(rescue.from + at as u64, whole) => {
                let payload = whole.get(FRAME..FRAME + head.len as usize).unwrap_or_default();
                let offset = (HEADER + all.len()) as u64;
                new.encode(&mut frame, offset, &Head { ordinal, ..head }, &[payload]);
                all.extend_from_slice(&frame);
                (at, ordinal) = (at + whole.len(), ordinal + 1);
            }
            _ => at += 8,
        }
    }
    disk::write_all(file, &all, HEADER as u64)?;
    track.publish((HEADER + all.len()) as u64);
    Ok(track)
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
