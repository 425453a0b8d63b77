//! Whether the core still turns: a question that goes through the writer and the fan-out, and what can be seen of them
//! from outside.
//!
//! An accepted connection says nothing about a writer whose disk hangs; this does.

use std::time::Duration;

use tokio::time::Instant;

use super::Broker;

/// After how much silence the writer counts as stalled.
const STALLED: Duration = Duration::from_secs(5);

impl Broker {
    /// Resolves when the writer has come to a question of ours, and the fan-out to what the writer said then. At once while
    /// the file is rewritten. Ask once at a time, and give up by dropping it; the next question goes on waiting.
    pub async fn pulse(&self) {
        self.inner.asked.lock().get_or_insert_with(Instant::now);
        let mut turned = self.inner.turned.clone();
        turned.borrow_and_update();
        if self.inner.store.pulse().await {
            // It fails when the fan-out is gone: nothing will come any more, and nobody may take that for an answer.
            if turned.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        *self.inner.asked.lock() = None;
    }

    /// What is wrong, where the core has not answered for too long.
    pub(super) fn stalled(&self) -> Option<String> {
        let silent = self.inner.asked.lock().map(|since| since.elapsed()).filter(|silent| *silent >= STALLED)?;
        Some(format!("the writer has not answered for {} s; does the disk hang?", silent.as_secs()))
    }

    /// Sets the gauges that are looked at rather than counted.
    pub fn gauge(&self) {
        let metrics = self.metrics();
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let (database, wal) = self.inner.store.sizes();
        metrics.database.set(gauge(database));
        metrics.wal.set(gauge(wal));
        metrics.users_online.set(gauge(self.inner.hub.users_online() as u64));
        metrics.queue.set(gauge(self.inner.hub.queued_bytes() as u64));
        metrics.revocations.set(gauge(self.inner.revocations.len() as u64));
        metrics.ready.set(i64::from(self.health() == super::Health::Ready));
    }
}
