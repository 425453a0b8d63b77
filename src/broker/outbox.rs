//! The outbox, as those who carry see it: lanes in which something waits, leases on what goes next, and what came of them.
//!
//! What follows of an attempt is decided here: a failure that may pass is tried again by a schedule, and when that is at its
//! end the delivery is dead. The other task of this file makes deliveries to many, behind their publish.
//!
//! **Invariant**: a delivery is sent only when the other side has said so, and what a process that ended had begun is begun
//! again. **Invariant**: nothing is leased while what comes of it could not be stored.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Broker, BrokerError, Inner};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::model::{AttemptOutcome, DeliveryId, Media, Medium, Outcome, Parcel, Timestamp};
use crate::store::{
    Ending, Expand, Expanded, FindLanes, FreeLeases, GiveUpLanes, Leased, OutboxEvent, StoreError, Turn, Verdict,
};

pub use crate::store::{LaneRow as Lane, Wanted};

/// Settings of the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbox {
    /// How long after each attempt that failed the next one comes at the latest; behind the last the delivery is dead.
    pub schedule: Vec<Duration>,
    /// How long what is due waits while its medium is held; behind that it is dead.
    pub expire_after: Duration,
    /// How long deliveries are kept when nothing more is tried.
    pub keep: Duration,
    /// What stands behind the `@` of message ids; `None` is the domain that mail comes from.
    pub domain: Option<String>,
}

impl Default for Outbox {
    fn default() -> Self {
        let minutes = [2, 10, 60, 6 * 60, 24 * 60].map(Duration::from_mins);
        Self {
            schedule: std::iter::once(Duration::from_secs(30)).chain(minutes).collect(),
            expire_after: Duration::from_hours(3 * 24),
            keep: Duration::from_hours(30 * 24),
            domain: None,
        }
    }
}

/// The longest that another side may ask to be left alone; what asks for more is asked again then.
pub const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);
/// The least time between two attempts: a draw of the dice may come to nothing.
const MIN_RETRY: Duration = Duration::from_secs(1);
/// Characters of what another side answered that are kept.
pub const MAX_ANSWER_CHARS: usize = 300;
/// After a failure of the storage.
const PAUSE: Duration = Duration::from_secs(1);
/// The domain of message ids where mail is not set up, so that none is mistaken for an address.
const NO_DOMAIN: &str = "tidings.invalid";

/// What wakes those who work behind the commits.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// Something may be due, or wait from now on.
    pub(super) due: Notify,
    /// Deliveries to many are to be made.
    pub(super) expand: Notify,
}

/// What is counted of deliveries.
const OUTCOMES: [&str; 5] = ["sent", "retried", "dead", "skipped", "cancelled"];

impl Signals {
    /// Makes the counters of each medium that can be asked for, so that nobody has to guess whether one is missing or zero.
    pub(super) fn begin(metrics: &Metrics) -> Self {
        for medium in Media::KNOWN {
            for outcome in OUTCOMES {
                let labels = [("medium", medium.as_str()), ("outcome", outcome)];
                drop(metrics.outbox_deliveries.get_or_create(&labels));
            }
            drop(metrics.outbox_held.get_or_create(&[("medium", medium.as_str())]));
        }
        Self::default()
    }

    /// Counts what a commit did to deliveries, and wakes whom it concerns.
    pub(super) fn note(&self, metrics: &Metrics, medium: Medium, event: OutboxEvent, count: u64) {
        let outcome = match event {
            OutboxEvent::Pending | OutboxEvent::PutBack => None,
            OutboxEvent::Sent => Some("sent"),
            OutboxEvent::Retried => Some("retried"),
            OutboxEvent::Dead => Some("dead"),
            OutboxEvent::Skipped => Some("skipped"),
            OutboxEvent::Cancelled => Some("cancelled"),
        };
        if let Some(outcome) = outcome {
            let labels = [("medium", medium.as_str()), ("outcome", outcome)];
            metrics.outbox_deliveries.get_or_create(&labels).inc_by(count);
        }
        if matches!(event, OutboxEvent::Pending | OutboxEvent::Retried | OutboxEvent::PutBack) {
            self.due.notify_one();
        }
    }
}

/// The right to make one attempt. It is given back with what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub delivery: DeliveryId,
    attempt: u32,
    /// Attempts that the schedule counts, this one included.
    tries: u32,
    /// Since when the delivery was due.
    due: Timestamp,
}

/// When the next attempt comes after `tries` that failed; `None` where there is none. `dice` is from 0 up to 1: full jitter, so
/// that what failed together does not come back together. `after` is what the other side asked for.
pub fn next_try(schedule: &[Duration], tries: u32, after: Option<Duration>, dice: f64) -> Option<Duration> {
    let step = schedule.get(usize::try_from(tries).ok()?.checked_sub(1)?)?;
    let jittered = step.mul_f64(dice.clamp(0.0, 1.0)).max(MIN_RETRY);
    Some(jittered.max(after.unwrap_or_default().min(MAX_RETRY_AFTER)))
}

/// One short line, as it is kept.
fn line(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain.trim().chars().take(MAX_ANSWER_CHARS).collect()
}

impl Broker {
    /// Resolves when something may have become due since it was last called.
    pub async fn outbox_woken(&self) {
        self.inner.outbox.due.notified().await;
    }

    /// Lanes of a medium in which something may wait, those first that wait longest.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn lanes(&self, medium: Medium, limit: usize) -> Result<Vec<Lane>, BrokerError> {
        Ok(self.inner.store.read(move |session| session.snapshot(|reader| reader.lanes(medium, limit))).await?)
    }

    /// Gives leases back with what came of them, and takes new ones: one commit for all of it.
    ///
    /// # Errors
    /// [`BrokerError`]: nothing was given back and nothing taken.
    pub async fn turn(
        &self,
        ended: Vec<(Lease, Outcome)>,
        wanted: Vec<Wanted>,
    ) -> Result<Vec<(Lease, Parcel)>, BrokerError> {
        let now = self.inner.clock.now();
        let config = self.inner.config();
        let endings = ended.into_iter().map(|(lease, outcome)| Ending {
            delivery: lease.delivery,
            attempt: lease.attempt,
            verdict: verdict(&config.outbox.schedule, lease, outcome, now, dice()),
        });
        // What was sent and can't be noted would be sent again.
        let wanted = if self.inner.store.failure().is_some() { Vec::new() } else { wanted };
        let turn = Turn { endings: endings.collect(), wanted, now };
        if turn.endings.is_empty() && turn.wanted.is_empty() {
            return Ok(Vec::new());
        }
        let leased = self.inner.store.write(turn).await?;
        Ok(leased.into_iter().map(|leased| self.parcel(leased)).collect())
    }

    fn parcel(&self, leased: Leased) -> (Lease, Parcel) {
        let Leased { delivery, attempt, tries, due, .. } = leased;
        let parcel = Parcel {
            delivery,
            medium: leased.medium,
            address: leased.address,
            lane: leased.lane,
            message_id: self.message_id(delivery),
            attempt,
            notification: leased.notification,
            user: leased.user,
            category: leased.category,
            locale: leased.locale,
            written_in: leased.written_in,
            published_at: leased.published_at,
            bulk: leased.bulk,
            letter: leased.letter,
        };
        (Lease { delivery, attempt, tries, due }, parcel)
    }

    /// The identity of a delivery's messages, the same at each attempt.
    pub(super) fn message_id(&self, delivery: DeliveryId) -> String {
        let config = self.inner.config();
        let of_mail = config.media.email.as_ref().map(|mail| mail.domain.as_str());
        let domain = config.outbox.domain.as_deref().or(of_mail).unwrap_or(NO_DOMAIN);
        format!("{delivery}.{}@{domain}", self.epoch())
    }

    /// Frees what a process that has ended was at, gives up what waits for a robot that is not in the settings any more, and finds
    /// where something waits. To be done once, before the first lease.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn take_over(&self) -> Result<(), BrokerError> {
        let read = self.inner.store.read(|session| session.snapshot(|reader| reader.has_open_deliveries()));
        if !read.await? {
            return Ok(());
        }
        let mut freed = 0;
        loop {
            match self.inner.store.write(FreeLeases { now: self.inner.clock.now() }).await? {
                0 => break,
                some => freed += some,
            }
        }
        self.give_up_lanes().await?;
        for medium in Medium::ALL {
            let mut after = Some(String::new());
            while let Some(last) = after {
                let now = self.inner.clock.now();
                after = self.inner.store.write(FindLanes { medium, after: last, now }).await?;
            }
        }
        if freed > 0 {
            tracing::info!(deliveries = freed, "Attempts that the end of the last run cut short are made again");
        }
        Ok(())
    }

    /// Robots are the only lanes that settings name. Where there is none at all, what waits for them stays until there is.
    async fn give_up_lanes(&self) -> Result<(), BrokerError> {
        let (medium, media) = (Medium::DingTalk, Arc::new(self.inner.config().media.clone()));
        if !media.has(medium) {
            return Ok(());
        }
        let mut given_up = 0;
        loop {
            let operation = GiveUpLanes { medium, media: media.clone(), now: self.inner.clock.now() };
            match self.inner.store.write(operation).await? {
                0 => break,
                some => given_up += some,
            }
        }
        if given_up > 0 {
            tracing::warn!(
                deliveries = given_up,
                "Deliveries waited for robots that are not in the settings any more and are given up; `tidings delivery retry \
                 --dead --medium dingtalk` hands them to those that speak of their categories now"
            );
        }
        Ok(())
    }

    /// How many deliveries wait for each medium that something waits for.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn waiting(&self) -> Result<Vec<(Medium, u64)>, BrokerError> {
        let read = self.inner.store.read(|session| {
            session.snapshot(|reader| {
                Medium::ALL
                    .into_iter()
                    .map(|medium| Ok((medium, reader.pending(medium)?.0)))
                    .collect::<Result<Vec<_>, _>>()
            })
        });
        Ok(read.await?.into_iter().filter(|(_, count)| *count > 0).collect())
    }

    /// Tells the metrics how much waits, and for how long the first has been due.
    pub async fn gauge_outbox(&self) {
        let now = self.inner.clock.now();
        let read = self.inner.store.read(move |session| {
            session.snapshot(|reader| {
                Media::KNOWN
                    .into_iter()
                    .map(|medium| Ok((medium, reader.pending(medium)?)))
                    .collect::<Result<Vec<_>, _>>()
            })
        });
        // What can't be read stays as it was; readiness tells of it.
        for (medium, (count, first)) in read.await.unwrap_or_default() {
            let label = [("medium", medium.as_str())];
            let overdue = first.map(|first| now.since(first).as_secs()).unwrap_or_default();
            let metrics = self.metrics();
            metrics.outbox_pending.get_or_create(&label).set(i64::try_from(count).unwrap_or(i64::MAX));
            metrics.outbox_oldest.get_or_create(&label).set(i64::try_from(overdue).unwrap_or(i64::MAX));
        }
    }
}

/// What follows of an attempt.
fn verdict(schedule: &[Duration], lease: Lease, outcome: Outcome, now: Timestamp, dice: f64) -> Verdict {
    match outcome {
        Outcome::Sent { answer } => Verdict::Sent { answer: line(&answer) },
        Outcome::Never { reason } => Verdict::Dead { reason: line(&reason), outcome: AttemptOutcome::Never },
        Outcome::Later { reason, after } => match next_try(schedule, lease.tries, after, dice) {
            Some(wait) => Verdict::Again { reason: line(&reason), next_at: now.after(wait) },
            None => {
                let reason = format!("given up after {} attempts: {}", lease.tries, line(&reason));
                Verdict::Dead { reason: line(&reason), outcome: AttemptOutcome::Later }
            }
        },
        Outcome::NotTried { why, .. } | Outcome::Held { why, .. } => {
            Verdict::PutBack { reason: line(&why), due: lease.due }
        }
    }
}

/// A number from 0 up to 1.
fn dice() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness the middle is as good as any.
    aws_lc_rs::rand::fill(&mut bytes).map_or(0.5, |()| f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}

/// Makes and cancels deliveries to many, until the drain begins or the broker is gone.
pub(super) async fn expand(broker: Weak<Inner>, signals: Arc<Signals>, lifecycle: Lifecycle) {
    loop {
        tokio::select! {
            () = lifecycle.draining() => return,
            () = signals.expand.notified() => {}
        }
        loop {
            let Some(inner) = broker.upgrade() else { return };
            let operation = Expand { media: Arc::new(inner.config().media.clone()), now: inner.clock.now() };
            let expanded = inner.store.write(operation).await;
            drop(inner);
            match expanded {
                Ok(Expanded::All) => break,
                Ok(Expanded::More) if lifecycle.is_draining() => return,
                Ok(Expanded::More) => {}
                Err(StoreError::Stopped) => return,
                Err(error) => {
                    tracing::warn!(%error, "deliveries to many could not be made; it is tried again");
                    tokio::select! {
                        () = lifecycle.draining() => return,
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn schedule() -> Vec<Duration> {
        Outbox::default().schedule
    }

    #[test]
    fn attempts_come_within_the_schedule_and_end_behind_it() {
        let schedule = schedule();
        assert_eq!(schedule.len(), 6);
        for (tries, step) in (1..).zip(&schedule) {
            assert_eq!(next_try(&schedule, tries, None, 1.0), Some(*step));
            assert_eq!(next_try(&schedule, tries, None, 0.5), Some(*step / 2));
            assert_eq!(next_try(&schedule, tries, None, 0.0), Some(MIN_RETRY));
        }
        assert_eq!(next_try(&schedule, 7, None, 0.5), None);
        assert_eq!(next_try(&schedule, 7, Some(Duration::from_secs(1)), 0.5), None);
        assert_eq!(next_try(&[], 1, None, 0.5), None);
        assert_eq!(next_try(&schedule, 0, None, 0.5), None);
    }

    #[test]
    fn the_other_side_may_ask_for_a_day_at_most() {
        let after = |after: Duration| next_try(&schedule(), 1, Some(after), 0.5);
        assert_eq!(after(Duration::from_secs(3)), Some(Duration::from_secs(15)));
        assert_eq!(after(Duration::from_mins(5)), Some(Duration::from_mins(5)));
        assert_eq!(after(Duration::from_hours(24 * 365)), Some(MAX_RETRY_AFTER));
    }

    #[test]
    fn an_answer_is_kept_as_one_short_line() {
        assert_eq!(line(" 250 2.0.0 Ok\r\nqueued\0 "), "250 2.0.0 Ok  queued");
        assert_eq!(line(&"库".repeat(1_000)).chars().count(), MAX_ANSWER_CHARS);
    }

    #[test]
    fn what_follows_depends_on_what_came() {
        let lease = |tries| Lease { delivery: DeliveryId(1), attempt: 9, tries, due: NOW };
        let later = || Outcome::Later { reason: "451 busy".to_owned(), after: None };
        let verdict = |tries, outcome| verdict(&schedule(), lease(tries), outcome, NOW, 1.0);
        let next_at = NOW.after(Duration::from_secs(30));
        assert_eq!(verdict(1, later()), Verdict::Again { reason: "451 busy".to_owned(), next_at });
        let given_up =
            Verdict::Dead { reason: "given up after 7 attempts: 451 busy".to_owned(), outcome: AttemptOutcome::Later };
        assert_eq!(verdict(7, later()), given_up);
        let never = Outcome::Never { reason: "550 unknown".to_owned() };
        let dead = Verdict::Dead { reason: "550 unknown".to_owned(), outcome: AttemptOutcome::Never };
        assert_eq!(verdict(1, never), dead);
        // However often it was tried before.
        for tries in [1, 7] {
            let put_back = Verdict::PutBack { reason: "not yet".to_owned(), due: NOW };
            let not_tried = Outcome::NotTried { why: "not yet".to_owned(), after: Duration::from_mins(1) };
            assert_eq!(verdict(tries, not_tried), put_back);
            assert_eq!(verdict(tries, Outcome::Held { why: "not yet".to_owned(), remedy: "" }), put_back);
        }
    }
}
