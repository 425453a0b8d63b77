//! What the outbox can't carry for now, for those who ask how the server is and what becomes of a delivery.
//!
//! The edge that carries (`deliver`) tells; `/readyz`, `/metrics` and the log of deliveries show. It makes the server neither
//! ready nor not: what is due waits, and goes out by itself when the set-up is mended. What has been due for too long by then is
//! given up here. Why something is held stands in the log and with each delivery, not in `/readyz`, which anybody may ask.

use std::fmt;

use super::{Broker, BrokerError};
use crate::model::{Media, Medium, Timestamp};
use crate::store::GiveUp;
use crate::wire::delivery::Delivery;

/// Something by which nothing goes out for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub medium: Medium,
    /// The one lane that is held; `None` is the whole medium.
    pub lane: Option<String>,
    pub since: Timestamp,
    /// What was said last, in one line.
    pub why: String,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { medium, lane, since, .. } = self;
        match lane {
            Some(lane) => write!(f, "{} `{lane}` since {since}", medium.as_str()),
            None => write!(f, "{} since {since}", medium.as_str()),
        }
    }
}

impl Broker {
    /// Tells what is held now; all of it.
    pub fn tell_holds(&self, holds: Vec<Hold>) {
        for medium in Media::KNOWN {
            let held = holds.iter().filter(|hold| hold.medium == medium).count();
            let gauge = self.inner.metrics.outbox_held.get_or_create(&[("medium", medium.as_str())]);
            gauge.set(i64::try_from(held).unwrap_or(i64::MAX));
        }
        *self.inner.holds.lock() = holds;
    }

    /// What is held now.
    pub fn holds(&self) -> Vec<Hold> {
        self.inner.holds.lock().clone()
    }

    /// Why a delivery is not carried for now, where that is so.
    pub(super) fn held(&self, delivery: &Delivery) -> Option<String> {
        let holds = self.inner.holds.lock();
        let mut of_medium = holds.iter().filter(|hold| hold.medium == delivery.medium).peekable();
        of_medium.peek()?;
        let address = delivery.address.as_deref().unwrap_or_default();
        let lane = self.inner.config().media.lane(delivery.medium, &delivery.category, address);
        of_medium.find(|hold| hold.lane.is_none() || hold.lane == lane).map(|hold| hold.why.clone())
    }

    /// Gives up what has been due for as long as the settings let it wait, where the hold has lasted as long; how many there
    /// were.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn give_up_held(&self, hold: &Hold) -> Result<usize, BrokerError> {
        let (now, most) = (self.inner.clock.now(), self.inner.config().outbox.expire_after);
        if now.since(hold.since) < most {
            return Ok(0);
        }
        let reason = format!("expired: due for {} h, and nothing went out: {}", most.as_secs() / 3_600, hold.why);
        let mut given_up = 0;
        loop {
            let (lane, reason) = (hold.lane.clone(), reason.clone());
            let operation = GiveUp { medium: hold.medium, lane, due_before: now.before(most), reason, now };
            match self.inner.store.write(operation).await? {
                0 => break,
                some => given_up += some,
            }
        }
        if given_up > 0 {
            tracing::warn!(
                medium = hold.medium.as_str(),
                deliveries = given_up,
                "Deliveries have waited for too long and are given up; `tidings delivery retry --dead` has them tried again"
            );
        }
        Ok(given_up)
    }
}
