//! Strays: deliveries that wait and that nothing will carry. They are given up for a reason that says so, and an operator has them
//! tried again when it is mended.
//!
//! A medium that has been held for too long gives up what has been due for as long ([`GiveUp`]); a lane that nothing serves any
//! more gives up all of its own ([`GiveUpLanes`]). **Invariant**: what is leased is left to whoever has the lease.

use std::sync::Arc;

use rusqlite::{OptionalExtension, params};

use super::commit::OutboxEvent;
use super::deliveries::Noted;
use super::leases::NEXT_LANE;
use super::writer::{Need, OpError, Operation, Tx};
use crate::model::{DeliveryId, Media, Medium, Timestamp};

const SELECT_OVERDUE: &str = "
    SELECT id FROM deliveries INDEXED BY deliveries_due
    WHERE state = 1 AND medium = ?1 AND next_at < ?2 ORDER BY next_at LIMIT ?3";
const SELECT_OVERDUE_IN_LANE: &str = "
    SELECT id FROM deliveries INDEXED BY deliveries_in_lane
    WHERE state = 1 AND medium = ?1 AND lane = ?2 AND next_at < ?3 ORDER BY next_at LIMIT ?4";
const GIVE_UP: &str = "
    UPDATE deliveries SET state = 4, next_at = NULL, reason = ?2, settled_at = ?3 WHERE id = ?1 AND state = 1";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[SELECT_OVERDUE, SELECT_OVERDUE_IN_LANE, GIVE_UP];

/// Deliveries that one transaction gives up at most.
const MAX_GIVEN_UP: usize = 500;

/// Gives up what has been due since before a moment, a bounded number at a time.
#[derive(Clone, Debug)]
pub struct GiveUp {
    pub medium: Medium,
    /// In this lane alone; `None` is in all of them.
    pub lane: Option<String>,
    pub due_before: Timestamp,
    /// Why, for people.
    pub reason: String,
    pub now: Timestamp,
}

impl Operation for GiveUp {
    /// How many were given up; none where there are no more.
    type Output = usize;

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<usize, OpError> {
        let overdue: Vec<DeliveryId> = match &self.lane {
            Some(lane) => tx
                .sql(SELECT_OVERDUE_IN_LANE)?
                .query_map(params![self.medium, lane, self.due_before, MAX_GIVEN_UP], |row| row.get(0))?
                .collect::<Result<_, _>>()?,
            None => tx
                .sql(SELECT_OVERDUE)?
                .query_map(params![self.medium, self.due_before, MAX_GIVEN_UP], |row| row.get(0))?
                .collect::<Result<_, _>>()?,
        };
        let mut noted = Noted::default();
        for delivery in &overdue {
            tx.sql(GIVE_UP)?.execute(params![delivery, self.reason, self.now])?;
            noted.add(self.medium, OutboxEvent::Dead);
        }
        noted.tell(tx);
        Ok(overdue.len())
    }
}

/// Gives up what waits in lanes of a medium that nothing serves, a bounded number at a time. It goes through all lanes in
/// which something waits, so it is for a medium that has few.
#[derive(Clone, Debug)]
pub struct GiveUpLanes {
    pub medium: Medium,
    pub media: Arc<Media>,
    pub now: Timestamp,
}

impl Operation for GiveUpLanes {
    /// How many were given up; none where there are no more.
    type Output = usize;

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<usize, OpError> {
        let mut last = String::new();
        loop {
            let next: Option<String> =
                tx.sql(NEXT_LANE)?.query_row(params![self.medium, last], |row| row.get(0)).optional()?;
            let Some(lane) = next else { return Ok(0) };
            if self.media.has_lane(self.medium, &lane) {
                last = lane;
                continue;
            }
            let name = self.medium.as_str();
            let reason = format!(
                "{name} has no `{lane}` in the settings any more; tried again, it goes to whoever speaks of its category now"
            );
            let lane = Some(lane);
            let give_up = GiveUp { medium: self.medium, lane, due_before: Timestamp::MAX, reason, now: self.now };
            return give_up.apply(tx);
        }
    }
}
