//! Regular cleaning: stored answers and tickets that have outlived their time, a bounded number at a time so that the
//! writer is never held.

use std::sync::Weak;
use std::time::Duration;

use super::Inner;
use crate::lifecycle::Lifecycle;
use crate::store::{PruneIdempotency, PruneTickets};

/// Between two rounds.
const EVERY: Duration = Duration::from_mins(1);
/// How long a ticket that has run out is remembered: a laptop that slept is told `expired`, in-band, rather than that its
/// ticket never was one.
const TICKET_MEMORY: Duration = Duration::from_hours(30 * 24);
/// Rows that one operation takes at most.
const BATCH: u32 = 500;

/// Runs until the drain begins or the broker is gone.
pub(super) async fn run(broker: Weak<Inner>, lifecycle: Lifecycle) {
    loop {
        tokio::select! {
            () = lifecycle.draining() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let Some(broker) = broker.upgrade() else { return };
        if let Err(error) = round(&broker).await {
            tracing::warn!(%error, "cleaning was not finished; it goes on at the next round");
        }
    }
}

async fn round(broker: &Inner) -> Result<(), crate::store::StoreError> {
    let now = broker.clock.now();
    let before = now.before(broker.config.idempotency_ttl);
    while broker.store.write(PruneIdempotency { before, limit: BATCH }).await? == BATCH as usize {}
    while broker.store.write(PruneTickets { before: now.before(TICKET_MEMORY), limit: BATCH }).await? == BATCH as usize
    {
    }
    Ok(())
}
