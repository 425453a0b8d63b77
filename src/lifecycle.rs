//! Shutdown phases, and the one place that spawns tasks.
//!
//! A server runs, then drains (no new connections, streams say `bye`, requests in flight finish), then stops.
//! **Invariant**: every task is spawned here, so that the end can wait for all of them.
//!
//! Rank 1: imports nothing of this crate; in unit tests `interleave`, which may schedule what is spawned.

use std::future::Future;
use std::panic::resume_unwind;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What came of a task that somebody waits for; `None` where the process ended before it. A panic goes on in the one who waits, whose
/// own edge counts it and answers for it: it is no failure of the store, and must not be told as one.
pub fn joined<T>(ended: Result<T, JoinError>) -> Option<T> {
    match ended.map_err(JoinError::try_into_panic) {
        Ok(done) => Some(done),
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(_cancelled)) => None,
    }
}

/// Shared by everything that runs. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    draining: CancellationToken,
    edges: TaskTracker,
    core: TaskTracker,
}

impl Lifecycle {
    /// Spawns what talks to the outside: connections, accept loops. The drain waits for these first.
    pub fn spawn_edge<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        self.edges.spawn(task)
    }

    /// Spawns what edges lean on: the writer, the fan-out. They end when their last user is gone.
    pub fn spawn_core<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        #[cfg(test)]
        let task = crate::interleave::adopt(task);
        self.core.spawn(task)
    }

    /// Begins the drain. Calling it again changes nothing.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Resolves when the drain begins.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Waits until every edge task has ended, at most `deadline`. Whether all did.
    pub async fn edges_ended(&self, deadline: Duration) -> bool {
        self.edges.close();
        tokio::time::timeout(deadline, self.edges.wait()).await.is_ok()
    }

    /// Waits until every core task has ended, at most `deadline`. Whether all did.
    pub async fn core_ended(&self, deadline: Duration) -> bool {
        self.core.close();
        tokio::time::timeout(deadline, self.core.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_panic_goes_on_in_whoever_waits_for_the_task() {
        let waits = async { joined(tokio::task::spawn_blocking(|| panic!("a fault of ours")).await) };
        let went_on = AssertUnwindSafe(waits).catch_unwind().await.map(drop);
        let said = went_on.expect_err("it panicked");
        assert_eq!(said.downcast_ref::<&str>(), Some(&"a fault of ours"));
    }

    #[tokio::test]
    async fn a_task_that_was_ended_is_no_panic() {
        let ended = Lifecycle::default().spawn_edge(std::future::pending::<()>());
        ended.abort();
        assert_eq!(joined(ended.await), None);
        assert_eq!(joined(tokio::task::spawn_blocking(|| 7).await), Some(7));
    }
}
