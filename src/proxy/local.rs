//! Spawning on the worker's own thread.

use std::future::Future;

use hyper::rt::Executor;

/// Runs hyper's tasks where the connection lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalExecutor;

impl<F: Future + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}
