//! The worker: one task that looks at lanes, leases what goes next, hands it to the adapters, and gives the leases back with
//! what came of them.
//!
//! It writes at most once a turn, for everything that ended and everything that begins; while that commit runs, further
//! attempts end, and the next turn takes them together. Where nothing is due it reads, now and then, and writes nothing.
//!
//! **Invariant**: a lane has one attempt at a time, and all lanes of a medium together as many as [`Workers::workers`] says.
//! **Invariant**: a lease is given back once, with what its adapter said; a panic or a hanging adapter is said to be `Later`.
//! **Invariant**: an outcome is kept until it is stored.
//!
//! Deliberately not here: what a medium's protocol is (the adapters), and when something is tried again (`broker`).

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{Adapter, Outcome};
use crate::broker::{Broker, BrokerError, Lane, Lease, Wanted};
use crate::lifecycle::Lifecycle;
use crate::model::{Medium, Parcel, Timestamp};

/// Settings of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers {
    /// Attempts of each medium that are on their way at once.
    pub workers: usize,
    /// How long an adapter may take for one lane's parcels before it is given up. Adapters have shorter limits of their own.
    pub patience: Duration,
    /// How long a drain waits for what is on its way. What has not come back by then is begun again by the next start.
    pub grace: Duration,
}

impl Default for Workers {
    fn default() -> Self {
        Self { workers: 16, patience: Duration::from_mins(3), grace: Duration::from_secs(4) }
    }
}

/// The longest sleep while something waits for its time, since a wall clock can be set.
const LOOK: Duration = Duration::from_secs(1);
/// After a failure of the storage.
const PAUSE: Duration = Duration::from_secs(1);
/// Lanes that one look hands out, beside those that are busy or paused.
const LANES_A_LOOK: usize = 64;
/// Lanes whose pause is remembered. Of more than these, an adapter is asked again at each look.
const MAX_PAUSED: usize = 4_096;

type LaneKey = (Medium, String);

/// What one attempt came to.
struct Carried {
    lane: LaneKey,
    endings: Vec<(Lease, Outcome)>,
}

/// Runs until the drain has begun and everything on its way has come back.
pub(super) async fn run(broker: Broker, adapters: Vec<Arc<dyn Adapter>>, config: Workers, lifecycle: Lifecycle) {
    let mut worker = Worker {
        broker,
        adapters,
        config,
        carrying: JoinSet::new(),
        busy: HashSet::new(),
        paused: HashMap::new(),
        ended: Vec::new(),
    };
    tokio::select! {
        () = lifecycle.draining() => return,
        () = worker.begin() => {}
    }
    while !lifecycle.is_draining() {
        let next = match worker.turn().await {
            Ok(next) => next,
            Err(BrokerError::StorageStopped) => return,
            Err(error) => {
                tracing::warn!(%error, "The outbox could not be looked at; it is tried again");
                Some(PAUSE)
            }
        };
        let broker = worker.broker.clone();
        tokio::select! {
            () = lifecycle.draining() => break,
            () = broker.outbox_woken() => {}
            () = asleep(next) => {}
            carried = worker.carrying.join_next(), if !worker.carrying.is_empty() => worker.take(carried),
        }
        worker.take_ready();
    }
    let grace = worker.config.grace;
    if timeout(grace, worker.finish()).await.is_err() {
        tracing::warn!("What was on its way to others did not come back in time; the next start begins it again");
    }
}

async fn asleep(until: Option<Duration>) {
    match until {
        Some(span) => sleep(span).await,
        None => std::future::pending().await,
    }
}

struct Worker {
    broker: Broker,
    adapters: Vec<Arc<dyn Adapter>>,
    config: Workers,
    carrying: JoinSet<Carried>,
    /// Lanes with an attempt on its way; no more of a medium than there are workers.
    busy: HashSet<LaneKey>,
    /// Until when lanes are left alone.
    paused: HashMap<LaneKey, Instant>,
    /// What came of leases that are not given back yet.
    ended: Vec<(Lease, Outcome)>,
}

impl Worker {
    /// Takes over from the process before, and tells of what nothing carries any more.
    async fn begin(&mut self) {
        while let Err(error) = self.broker.take_over().await {
            tracing::warn!(%error, "The outbox could not be taken over; it is tried again");
            sleep(PAUSE).await;
        }
        for (medium, deliveries) in self.broker.waiting().await.unwrap_or_default() {
            if !self.adapters.iter().any(|adapter| adapter.medium() == medium) {
                tracing::warn!(
                    medium = medium.as_str(),
                    deliveries,
                    "Deliveries wait for a medium that is not set up any more; they stay until it is"
                );
            }
        }
    }

    /// Settles what has ended and begins what is due; how long to sleep where nobody wakes us, `None` where nothing waits.
    async fn turn(&mut self) -> Result<Option<Duration>, BrokerError> {
        let (wanted, next) = self.look().await?;
        let places: usize = wanted.iter().map(|wanted| wanted.most).sum();
        let leased = self.settle(wanted).await?;
        let next = match leased.len() {
            // Nothing may be leased while the store has trouble, or somebody was faster.
            0 if places > 0 => Some(PAUSE),
            // There may be more in lanes that were not looked at.
            some if some < places => next.map(|next| next.min(LOOK)).or(Some(LOOK)),
            _ => next,
        };
        let mut parcels: HashMap<LaneKey, (Vec<Lease>, Vec<Parcel>)> = HashMap::new();
        for (lease, parcel) in leased {
            let (leases, lane) = parcels.entry((parcel.medium, parcel.lane.clone())).or_default();
            leases.push(lease);
            lane.push(parcel);
        }
        for (lane, (leases, parcels)) in parcels {
            self.carry(lane, leases, parcels);
        }
        Ok(next)
    }

    /// Gives back what ended and leases what is wanted. What could not be stored is kept.
    async fn settle(&mut self, wanted: Vec<Wanted>) -> Result<Vec<(Lease, Parcel)>, BrokerError> {
        let turned = self.broker.turn(self.ended.clone(), wanted).await;
        if turned.is_ok() {
            self.ended.clear();
        }
        turned
    }

    /// What may be leased now, and how long until there may be more.
    async fn look(&mut self) -> Result<(Vec<Wanted>, Option<Duration>), BrokerError> {
        let at = Instant::now();
        self.paused.retain(|_, until| *until > at);
        let (mut wanted, mut next) = (Vec::new(), None);
        let now = self.broker.clock().now();
        let mut sooner = |span: Duration| next = Some(next.map_or(span, |next: Duration| next.min(span)));
        for adapter in self.adapters.clone() {
            let medium = adapter.medium();
            // Of each medium by itself: a robot that is slow holds up no mail.
            let busy = self.busy.iter().filter(|(of, _)| *of == medium).count();
            let mut free = self.config.workers.saturating_sub(busy);
            if free == 0 {
                continue;
            }
            let most = LANES_A_LOOK + self.busy.len() + self.paused.len();
            let lanes = self.broker.lanes(medium, most).await?;
            let looked_at_all = lanes.len() < most;
            for Lane { lane, next_at } in lanes {
                if next_at > now {
                    // They are in the order of their moments.
                    sooner(until(next_at, now));
                    break;
                }
                let key = (medium, lane);
                if self.busy.contains(&key) {
                    continue;
                }
                if let Some(until) = self.paused.get(&key) {
                    sooner(until.duration_since(at));
                    continue;
                }
                let pause = adapter.pause(&key.1);
                if !pause.is_zero() {
                    sooner(pause.min(LOOK));
                    if self.paused.len() < MAX_PAUSED {
                        self.paused.insert(key, at + pause);
                    }
                    continue;
                }
                if free == 0 {
                    break;
                }
                free -= 1;
                let most = adapter.most_together().max(1);
                wanted.push(Wanted { medium, lane: key.1, most });
            }
            if !looked_at_all {
                sooner(LOOK);
            }
        }
        Ok((wanted, next))
    }

    /// Hands a lane's parcels to its adapter, in a task of their own.
    fn carry(&mut self, lane: LaneKey, leases: Vec<Lease>, parcels: Vec<Parcel>) {
        let Some(adapter) = self.adapters.iter().find(|adapter| adapter.medium() == lane.0).cloned() else { return };
        self.busy.insert(lane.clone());
        let (patience, metrics) = (self.config.patience, self.broker.metrics().clone());
        self.carrying.spawn(async move {
            let name = lane.1.clone();
            let sending = AssertUnwindSafe(async { adapter.send(&name, parcels).await }).catch_unwind();
            let later = |reason: &str| Outcome::Later { reason: reason.to_owned(), after: None };
            let outcomes = match timeout(patience, sending).await {
                Ok(Ok(outcomes)) => outcomes,
                Ok(Err(_)) => {
                    tracing::error!(medium = lane.0.as_str(), lane = name, "An adapter panicked; it is tried again");
                    metrics.panics.inc();
                    vec![later("the adapter panicked"); leases.len()]
                }
                Err(_) => {
                    tracing::warn!(
                        medium = lane.0.as_str(),
                        lane = name,
                        "An adapter did not come back; it is tried again"
                    );
                    vec![later("no answer came in time"); leases.len()]
                }
            };
            // An adapter that says too little has not said that it was sent.
            let unsaid = std::iter::repeat_with(|| later("the adapter did not say what became of it"));
            Carried { endings: leases.into_iter().zip(outcomes.into_iter().chain(unsaid)).collect(), lane }
        });
    }

    fn take(&mut self, carried: Option<Result<Carried, tokio::task::JoinError>>) {
        match carried {
            Some(Ok(Carried { lane, endings })) => {
                self.busy.remove(&lane);
                self.ended.extend(endings);
            }
            // Its panics are caught inside, and nobody aborts it.
            Some(Err(error)) => tracing::error!(%error, "An attempt was lost; the next start makes it again"),
            None => {}
        }
    }

    /// Takes what else has ended by now.
    fn take_ready(&mut self) {
        while let Some(carried) = self.carrying.try_join_next() {
            self.take(Some(carried));
        }
    }

    /// Waits for what is on its way and gives it back.
    async fn finish(mut self) {
        loop {
            self.take_ready();
            if !self.ended.is_empty()
                && let Err(error) = self.settle(Vec::new()).await
            {
                if error == BrokerError::StorageStopped {
                    return;
                }
                tracing::warn!(%error, "What was carried could not be noted; it is tried again");
                sleep(PAUSE).await;
                continue;
            }
            match self.carrying.join_next().await {
                Some(carried) => self.take(Some(carried)),
                None => return,
            }
        }
    }
}

/// How long from now to a moment, but never for long.
fn until(at: Timestamp, now: Timestamp) -> Duration {
    at.since(now).min(LOOK)
}
