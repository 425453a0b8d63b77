//! Notifications that wait for their time, and the task that does what is due.
//!
//! **Invariant**: nothing is delivered, and nothing expires, before its moment; and at most a second after it, unless the
//! writer is behind. The task sleeps until the next moment, but never for long, since a wall clock can be set.

use std::sync::Weak;
use std::time::Duration;

use super::publish::may_publish;
use super::{Broker, BrokerError, Inner};
use crate::lifecycle::Lifecycle;
use crate::model::{Deliver, Draft, Identity, NotificationId, Principal, Timestamp};
use crate::store::{Reschedule, ScheduledRow, SettleDue, Settled, StoreError, When};
use crate::wire::status::{Scheduled, ScheduledPage};

/// Deliveries and expiries of one transaction at most.
const MAX_SETTLED: usize = 64;
/// The longest sleep while something waits.
const LOOK: Duration = Duration::from_millis(500);
/// After a failure of the storage.
const PAUSE: Duration = Duration::from_secs(1);
/// Rows that a page looks through for those which the caller may see.
const MAX_SCANNED: usize = 1_000;

/// Does what is due until the drain begins or the broker is gone.
pub(super) async fn run(broker: Weak<Inner>, lifecycle: Lifecycle) {
    loop {
        let Some(inner) = broker.upgrade() else { return };
        let woken = inner.due.clone();
        let this = Broker { inner };
        let pause = match this.settle_due().await {
            Ok(next) => next.map(|at| at.since(this.inner.clock.now()).min(LOOK)),
            // Readiness tells of it.
            Err(StoreError::Full) => Some(PAUSE),
            Err(error) => {
                tracing::warn!(%error, "what is due could not be done; it is tried again");
                Some(PAUSE)
            }
        };
        drop(this);
        let asleep = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = lifecycle.draining() => return,
            () = woken.notified() => {}
            () = asleep => {}
        }
    }
}

impl Broker {
    /// Does everything that is due; the moment of what comes next.
    pub(super) async fn settle_due(&self) -> Result<Option<Timestamp>, StoreError> {
        loop {
            let now = self.inner.clock.now();
            let operation = SettleDue { now, limit: MAX_SETTLED, policy: self.policy() };
            let Settled { delivered, failed, next, .. } = self.inner.store.write(operation).await?;
            self.inner.metrics.publishes.inc_by(u64::try_from(delivered).unwrap_or_default());
            self.inner.metrics.undelivered.inc_by(u64::try_from(failed).unwrap_or_default());
            if next.is_none_or(|next| next > now) {
                return Ok(next);
            }
        }
    }

    /// A page of what waits, the next due first, as far as the caller may publish it.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn scheduled(
        &self,
        by: &Identity,
        after: Option<(Timestamp, NotificationId)>,
        limit: usize,
    ) -> Result<ScheduledPage, BrokerError> {
        let by = by.clone();
        let read = self.inner.store.read(move |session| {
            session.snapshot(|reader| {
                let rows = reader.scheduled_page(after, MAX_SCANNED)?;
                let scanned_all = rows.len() < MAX_SCANNED;
                let last = rows.last().map(|row| (row.scheduled.due, row.scheduled.id));
                let mut items: Vec<Scheduled> = rows
                    .into_iter()
                    .filter(|row| may_govern(&by, row))
                    .map(|row| row.scheduled)
                    .take(limit + 1)
                    .collect();
                let next = if items.len() > limit {
                    items.truncate(limit);
                    items.last().map(|item| (item.due, item.id))
                } else if scanned_all {
                    None
                } else {
                    last
                };
                Ok(ScheduledPage { items, next })
            })
        });
        Ok(read.await?)
    }

    /// Changes one that waits: the new draft takes the place of the old one, which keeps its id. A draft that says
    /// nothing of when keeps the time.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn reschedule(
        &self,
        by: &Identity,
        id: NotificationId,
        mut draft: Draft,
    ) -> Result<Scheduled, BrokerError> {
        may_publish(by, &draft.to)?;
        self.find_scheduled(by, id).await?.ok_or(BrokerError::NotScheduled)?;
        if let Identity::User(user) = by {
            draft.content.sender = Some(user.user.as_str().to_owned());
        }
        let now = self.inner.clock.now();
        // The end is counted from the moment that stays where no other is named.
        let When { due, .. } = self.when(&draft, now).map_err(BrokerError::Invalid)?;
        // A moment that has come is one too; only a draft that names none keeps the old one.
        let due = due.or((draft.life.deliver != Deliver::Now).then_some(now));
        let operation = Reschedule { id, draft, due, policy: self.policy() };
        let row = self.inner.store.write(operation).await?;
        self.inner.due.notify_one();
        Ok(row.scheduled)
    }

    /// One that waits, where the caller may see it.
    pub(super) async fn find_scheduled(
        &self,
        by: &Identity,
        id: NotificationId,
    ) -> Result<Option<ScheduledRow>, BrokerError> {
        let read = self.inner.store.read(move |session| session.snapshot(|reader| reader.scheduled(id)));
        Ok(read.await?.filter(|row| may_govern(by, row)))
    }
}

/// Whether the caller may see, change and cancel it: whoever may publish it, and a user only what they asked for.
fn may_govern(by: &Identity, row: &ScheduledRow) -> bool {
    let own = match by {
        Identity::User(user) => row.publisher == Principal::User(user.user.clone()),
        Identity::Key(_) | Identity::Operator => true,
    };
    own && may_publish(by, &row.scheduled.to).is_ok()
}
