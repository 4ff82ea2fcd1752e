//! The runtime behind the data plane.
//!
//! Workers run one thread each and never wait for a disk. What a request causes beyond its own
//! sockets (a key's first use, a reservation, the log) runs here and is awaited. Everything spawned
//! is tracked, so that shutdown waits for it.

use std::future::Future;

use thiserror::Error;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// A handle to the runtime behind; clones are the same runtime.
#[derive(Clone, Debug)]
pub struct Background {
    runtime: Handle,
    tasks: TaskTracker,
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
        Self { runtime, tasks: TaskTracker::new() }
    }

    /// The same runtime for work that [`Background::finish`] of this one does not wait for.
    #[must_use]
    pub fn untracked(&self) -> Self {
        Self::new(self.runtime.clone())
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

    /// Waits until everything started here has ended; nothing new may be started any more.
    pub async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
