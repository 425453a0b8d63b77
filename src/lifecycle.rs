//! Shutdown phases, and the one place that spawns tasks.
//!
//! A server runs, then drains (no new connections, streams say `bye`, requests in flight finish), then stops.
//! **Invariant**: every task is spawned here, so that the end can wait for all of them.
//!
//! Rank 1: imports nothing of this crate.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Shared by everything that runs. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    draining: Signal,
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
        self.core.spawn(task)
    }

    /// Begins the drain. Calling it again changes nothing.
    pub fn drain(&self) {
        self.draining.raise();
    }

    pub fn is_draining(&self) -> bool {
        self.draining.is_raised()
    }

    /// Resolves when the drain begins.
    pub async fn draining(&self) {
        self.draining.raised().await;
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

/// Something that happens once and is told to many. Cheap to clone.
///
/// Every connection waits for one of these beside its real work and is polled at each delivery; a `CancellationToken`
/// takes two locks at each poll, which all connections share.
#[derive(Clone, Debug, Default)]
pub struct Signal {
    raised: Arc<AtomicBool>,
    token: CancellationToken,
}

impl Signal {
    /// Raises it. Doing so again changes nothing.
    pub fn raise(&self) {
        // In this order: whoever sees the token cancelled has seen the flag.
        self.raised.store(true, Ordering::Release);
        self.token.cancel();
    }

    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Resolves when it is raised.
    pub async fn raised(&self) {
        let mut cancelled = pin!(self.token.cancelled());
        let mut waiting: Option<Waker> = None;
        poll_fn(|cx| {
            // The token holds this waker already, and will use it.
            if !self.is_raised() && waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            waiting = Some(cx.waker().clone());
            cancelled.as_mut().poll(cx)
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_wakes_whoever_waits_and_passes_whoever_comes_later() {
        let signal = Signal::default();
        let waiting = tokio::join!(biased; async { signal.raised().await }, async { signal.raise() });
        assert_eq!(waiting, ((), ()));
        signal.raised().await;
    }

    #[tokio::test]
    async fn a_wait_that_moves_to_another_task_is_woken_there() {
        let signal = Signal::default();
        let mut raised = Box::pin({
            let signal = signal.clone();
            async move { signal.raised().await }
        });
        let polled = poll_fn(|cx| Poll::Ready(raised.as_mut().poll(cx).is_ready())).await;
        assert!(!polled);
        let tracker = TaskTracker::new();
        let elsewhere = tracker.spawn(raised);
        tokio::task::yield_now().await;
        signal.raise();
        elsewhere.await.expect("it ends");
    }
}
