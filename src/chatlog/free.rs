//! How many bytes are kept of calls that cost nothing: of each user, a budget for each UTC day.
//!
//! A conversation that is charged is limited by the user's day. Anything else could be repeated at will, and
//! would fill the spool for everybody. Beyond the budget the row is written all the same, and says that it is
//! cut.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::ids::UserId;
use crate::telemetry::Metrics;

/// The budgets of a node. A file has them, so that a restart does not begin them anew; a process that is killed
/// loses at most the last ten seconds of it.
pub(super) struct FreeBytes {
    most: u64,
    path: PathBuf,
    used: Mutex<Used>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Used {
    day: i64,
    of: HashMap<UserId, u64>,
    /// Of users beyond [`MOST_USERS`], together.
    others: u64,
    is_new: bool,
    saved: Option<Instant>,
}

const DAY: i64 = 24 * 60 * 60 * 1000;
/// Users who are told apart on one day; the rest share one budget.
const MOST_USERS: usize = 100_000;
const BETWEEN_SAVES: Duration = Duration::from_secs(10);

// === impl FreeBytes ===

impl FreeBytes {
    pub(super) fn open(most: u64, path: PathBuf, metrics: Arc<Metrics>) -> Self {
        let text = fs::read_to_string(&path).unwrap_or_default();
        Self { most, path, used: Mutex::new(Used::read(&text)), metrics }
    }

    /// Takes so many bytes of a user's budget. False: they do not fit, and nothing was taken.
    pub(super) fn take(&self, user: UserId, bytes: u64, now: Timestamp) -> bool {
        if bytes == 0 {
            return true;
        }
        let Ok(mut counts) = self.used.lock() else { return false };
        let day = now.0.div_euclid(DAY);
        if counts.day != day {
            *counts = Used { day, saved: counts.saved, ..Used::default() };
        }
        let so_far = counts.of(user);
        let fits = so_far.saturating_add(bytes) <= self.most;
        if fits {
            *so_far += bytes;
            counts.is_new = true;
        } else {
            self.metrics.drop_from_log("free_budget");
        }
        fits
    }

    /// Writes the file, if there is something new and the last time is long enough ago, or at once.
    pub(super) fn save(&self, at_once: bool) {
        let text = {
            let Ok(mut used) = self.used.lock() else { return };
            let is_early = used.saved.is_some_and(|saved| saved.elapsed() < BETWEEN_SAVES);
            if !used.is_new || (is_early && !at_once) {
                return;
            }
            (used.is_new, used.saved) = (false, Some(Instant::now()));
            used.text()
        };
        if let Err(error) = self.put(&text) {
            tracing::debug!(%error, "what free calls used cannot be written");
        }
    }

    fn put(&self, text: &str) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        // One may be left of a process that was killed here.
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        fs::rename(&fresh, &self.path)
    }
}

// === impl Used ===

impl Used {
    fn of(&mut self, user: UserId) -> &mut u64 {
        if self.of.len() >= MOST_USERS && !self.of.contains_key(&user) {
            return &mut self.others;
        }
        self.of.entry(user).or_default()
    }

    fn text(&self) -> String {
        let mut text = format!("{} {}\n", self.day, self.others);
        for (user, bytes) in &self.of {
            let _ = writeln!(text, "{user} {bytes}");
        }
        text
    }

    /// What cannot be read is nothing.
    fn read(text: &str) -> Self {
        let pair = |line: &str| {
            let (first, second) = line.split_once(' ')?;
            Some((first.parse::<i64>().ok()?, second.parse::<u64>().ok()?))
        };
        let mut lines = text.lines();
        let Some((day, others)) = lines.next().and_then(pair) else { return Self::default() };
        let of = lines.take(MOST_USERS).filter_map(pair).map(|(user, bytes)| (UserId(user), bytes));
        Self { day, others, of: of.collect(), is_new: false, saved: None }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{DAY, FreeBytes, MOST_USERS};
    use crate::clock::Timestamp;
    use crate::ids::UserId;
    use crate::telemetry::Metrics;

    const NOW: Timestamp = Timestamp(20_000 * DAY + 7);

    #[test]
    fn each_user_has_a_budget_for_a_day_and_a_restart_goes_on_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let open = || FreeBytes::open(100, folder.path().join("free"), Arc::new(Metrics::new()));
        let (ann, bob) = (UserId(1), UserId(2));
        let free = open();
        assert!(free.take(ann, 60, NOW) && !free.take(ann, 41, NOW) && free.take(ann, 40, NOW));
        assert!(!free.take(ann, 1, NOW) && free.take(ann, 0, NOW) && free.take(bob, 100, NOW));
        free.save(false);
        let free = open();
        assert!(!free.take(ann, 1, NOW) && !free.take(bob, 1, NOW));
        assert!(free.take(ann, 100, Timestamp(NOW.0 + DAY)), "another day");
        std::fs::write(folder.path().join("free"), "nonsense\n1 2").unwrap();
        assert!(open().take(ann, 100, NOW));
    }

    #[test]
    fn users_without_end_share_what_the_last_ones_have() {
        let folder = tempfile::tempdir().unwrap();
        let free = FreeBytes::open(10, folder.path().join("free"), Arc::new(Metrics::new()));
        let most = i64::try_from(MOST_USERS).unwrap();
        assert!((0..most).all(|user| free.take(UserId(user), 10, NOW)));
        assert!(free.take(UserId(most), 10, NOW) && !free.take(UserId(most + 1), 1, NOW));
    }

    #[test]
    fn many_threads_take_no_more_than_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let free = FreeBytes::open(1000, folder.path().join("free"), Arc::new(Metrics::new()));
        let taken = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..400).filter(|_| free.take(UserId(1), 3, NOW)).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(taken, 333);
    }
}
