//! The runtime behind the data plane.
//!
//! Workers run one thread each and never wait for a disk. What a request causes beyond its own
//! sockets (a key's first use, a reservation, the log) runs here and is awaited. Everything spawned
//! is tracked, so that shutdown waits for it.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// A handle to the runtime behind; clones are the same runtime.
#[derive(Clone, Debug)]
pub struct Background {
    runtime: Handle,
    tasks: TaskTracker,
    failed: watch::Sender<bool>,
}

/// The work was given up: it panicked, or the runtime is gone.
#[derive(Clone, Copy, Debug, Error)]
#[error("background work did not finish")]
pub struct Unfinished;

// === impl Background ===

impl Background {
    /// Work goes to `runtime`.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self { runtime, tasks: TaskTracker::new(), failed: watch::Sender::new(false) }
    }

    /// The same runtime for work that [`Background::finish`] of this one does not wait for.
    #[must_use]
    pub fn untracked(&self) -> Self {
        Self { tasks: TaskTracker::new(), ..self.clone() }
    }

    /// Runs `work` behind and waits for it. Dropping the wait does not stop the work, so that a
    /// client who leaves cannot cut a transaction in two.
    ///
    /// # Errors
    ///
    /// [`Unfinished`] when the work panicked or the runtime is shutting down.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Unfinished> {
        self.spawn(work).await.map_err(|_| Unfinished)
    }

    /// Starts `work` behind.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.tasks.spawn_on(work, &self.runtime)
    }

    /// Starts a task that the gateway cannot work without, and that ends only when it stops. When the task
    /// panics the log says so, and [`Background::failure`] ends.
    pub fn keep(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let failed = self.failed.clone();
        drop(self.spawn(async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                tracing::error!(task = name, "a background task panicked; restart this gateway");
                failed.send_replace(true);
            }
        }));
    }

    /// Waits until a task panics that was started with [`Background::keep`].
    pub async fn failure(&self) {
        let mut failed = self.failed.subscribe();
        if failed.wait_for(|failed| *failed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until everything started here has ended; nothing new may be started any more.
    pub async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::runtime::Handle;

    use super::Background;

    #[tokio::test]
    async fn of_tasks_that_end_only_one_that_panics_is_a_failure() {
        let background = Background::new(Handle::current());
        background.keep("well", async {});
        drop(background.spawn(async { panic!("a task that may fail") }));
        let untracked = background.untracked();
        background.finish().await;
        assert_eq!(background.failure().now_or_never(), None);
        untracked.keep("broken", async { panic!("a task that may not") });
        untracked.finish().await;
        assert_eq!(background.failure().now_or_never(), Some(()));
    }
}
