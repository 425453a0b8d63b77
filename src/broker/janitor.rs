//! Regular cleaning: what has outlived its time, or is too many, a bounded number at a time so that the writer is never
//! held: stored answers, tickets, entries that retention does not keep, rows of deleted topics, free pages.

use std::sync::Weak;
use std::time::Duration;

use super::{Broker, Inner};
use crate::lifecycle::Lifecycle;
use crate::model::UserKey;
use crate::store::{PruneDeliveries, PruneFailed, PruneIdempotency, PruneTickets, Shrink, StoreError};

/// Between two rounds.
const EVERY: Duration = Duration::from_mins(1);
/// How long a ticket that has run out is remembered: a laptop that slept is told `expired`, in-band, rather than that its
/// ticket never was one.
const TICKET_MEMORY: Duration = Duration::from_hours(30 * 24);
/// How long a scheduled notification that could not be delivered is kept for whoever asks what became of it.
const FAILED_MEMORY: Duration = Duration::from_hours(30 * 24);
/// Rows that one operation takes at most.
const BATCH: u32 = 500;
/// Pages of users that one round looks at: where there are many, retention comes by within minutes or hours.
const USER_PAGES: usize = 10;

/// Runs until the drain begins or the broker is gone.
pub(super) async fn run(broker: Weak<Inner>, lifecycle: Lifecycle) {
    let mut janitor = Janitor { after: UserKey(0) };
    loop {
        tokio::select! {
            () = lifecycle.draining() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let Some(inner) = broker.upgrade() else { return };
        let broker = Broker { inner };
        tokio::select! {
            () = lifecycle.draining() => return,
            cleaned = janitor.round(&broker) => if let Err(error) = cleaned {
                tracing::warn!(%error, "cleaning was not finished; it goes on at the next round");
            }
        }
    }
}

struct Janitor {
    /// The user that retention looked at last.
    after: UserKey,
}

impl Janitor {
    async fn round(&mut self, broker: &Broker) -> Result<(), StoreError> {
        let Inner { store, clock, .. } = &*broker.inner;
        let now = clock.now();
        let before = now.before(broker.config().idempotency_ttl);
        while store.write(PruneIdempotency { before, limit: BATCH }).await? == BATCH as usize {}
        let before = now.before(TICKET_MEMORY);
        while store.write(PruneTickets { before, limit: BATCH }).await? == BATCH as usize {}
        broker.note_used_keys().await?;
        broker.finish_erasures().await?;
        while store.write(PruneFailed { before: now.before(FAILED_MEMORY), limit: BATCH }).await? == BATCH as usize {}
        let before = now.before(broker.config().outbox.keep);
        while store.write(PruneDeliveries { before, limit: BATCH }).await? == BATCH as usize {}
        broker.retain_topics().await?;
        for _ in 0..USER_PAGES {
            let (_, last) = broker.retain_users(self.after).await?;
            self.after = last.unwrap_or(UserKey(0));
            if last.is_none() {
                break;
            }
        }
        while store.write(Shrink).await? {}
        Ok(())
    }
}
