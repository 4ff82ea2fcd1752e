//! Places where passwords are hashed: a few at a time, those who log in before those who register.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// As many places as there are cores, and two short lines before them.
#[derive(Debug)]
pub(super) struct Desks {
    all: usize,
    lines: Mutex<Lines>,
}

/// How soon it must be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum Urgency {
    /// Of an account that exists, or is said to.
    Now,
    /// Of strangers: after all others, and never at every place at once.
    Later,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Desk {
    desks: Arc<Desks>,
    urgency: Urgency,
}

#[derive(Debug, Default)]
struct Lines {
    taken: usize,
    taken_later: usize,
    now: VecDeque<oneshot::Sender<Desk>>,
    later: VecDeque<oneshot::Sender<Desk>>,
}

/// The line is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineFull;

/// Most who wait to log in, and most who wait to register.
const MOST_NOW: usize = 32;
const MOST_LATER: usize = 16;

// === impl Desks ===

impl Desks {
    /// So many places, at least one.
    pub(super) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { all: places.max(1), lines: Mutex::default() })
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// [`LineFull`] where too many wait already.
    pub(super) async fn take(self: &Arc<Self>, urgency: Urgency) -> Result<Desk, LineFull> {
        let waits = {
            let mut lines = self.lines();
            let (line, most) = lines.of(urgency);
            line.retain(|one| !one.is_closed());
            if line.len() >= most {
                return Err(LineFull);
            }
            let (sender, receiver) = oneshot::channel();
            line.push_back(sender);
            receiver
        };
        self.seat();
        // The sender is dropped only with the desks.
        waits.await.map_err(|_| LineFull)
    }

    /// Gives free places to those who wait. A place whose taker has left comes back by being dropped.
    fn seat(self: &Arc<Self>) {
        loop {
            let (sender, urgency) = {
                let mut lines = self.lines();
                let Some(next) = lines.next(self.all) else { return };
                next
            };
            let _ = sender.send(Desk { desks: Arc::clone(self), urgency });
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Lines ===

impl Lines {
    fn of(&mut self, urgency: Urgency) -> (&mut VecDeque<oneshot::Sender<Desk>>, usize) {
        match urgency {
            Urgency::Now => (&mut self.now, MOST_NOW),
            Urgency::Later => (&mut self.later, MOST_LATER),
        }
    }

    /// Who is next, with a place of `all` that is taken for them.
    fn next(&mut self, all: usize) -> Option<(oneshot::Sender<Desk>, Urgency)> {
        for urgency in [Urgency::Now, Urgency::Later] {
            let is_later = urgency == Urgency::Later;
            let is_free = self.taken < all && (!is_later || self.taken_later < all.saturating_sub(1).max(1));
            let (line, _) = self.of(urgency);
            line.retain(|one| !one.is_closed());
            if is_free && let Some(sender) = line.pop_front() {
                self.taken += 1;
                self.taken_later += usize::from(is_later);
                return Some((sender, urgency));
            }
        }
        None
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let mut lines = self.desks.lines();
        lines.taken = lines.taken.saturating_sub(1);
        if self.urgency == Urgency::Later {
            lines.taken_later = lines.taken_later.saturating_sub(1);
        }
        drop(lines);
        self.desks.seat();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;

    use super::{Desks, LineFull, MOST_LATER, MOST_NOW, Urgency};

    #[tokio::test]
    async fn those_who_log_in_go_first_and_strangers_never_take_every_place() {
        let desks = Desks::new(2);
        let stranger = desks.take(Urgency::Later).await.unwrap();
        let mut second = Box::pin(desks.take(Urgency::Later));
        assert!(second.as_mut().now_or_never().is_none(), "one place is left for logins");
        let login = desks.take(Urgency::Now).await.unwrap();
        let mut next = Box::pin(desks.take(Urgency::Now));
        assert!(next.as_mut().now_or_never().is_none());
        drop(stranger);
        let next = next.now_or_never().expect("before the stranger who came first").unwrap();
        assert!(second.as_mut().now_or_never().is_none());
        drop(next);
        assert!(second.as_mut().now_or_never().is_some());
        drop(login);
    }

    #[tokio::test]
    async fn a_line_is_bounded_and_who_leaves_it_holds_no_place() {
        for (urgency, most) in [(Urgency::Now, MOST_NOW), (Urgency::Later, MOST_LATER)] {
            let desks = Desks::new(1);
            let held = desks.take(urgency).await.unwrap();
            let mut line: Vec<_> = (0..most).map(|_| Box::pin(desks.take(urgency))).collect();
            assert!(line.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
            assert_eq!(desks.take(urgency).await.unwrap_err(), LineFull);
            drop(line);
            drop(held);
            assert!(desks.take(urgency).await.is_ok());
            assert_eq!(Arc::strong_count(&desks), 1);
        }
    }
}
