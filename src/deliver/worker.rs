//! The worker: one task that looks at lanes, leases what goes next, hands it to the adapters, and gives the leases back with
//! what came of them.
//!
//! It writes at most once a turn, for everything that ended and everything that begins; while that commit runs, further
//! attempts end, and the next turn takes them together. Where nothing is due it reads, now and then, and writes nothing.
//!
//! **Invariant**: a lane has as many attempts at a time as [`Adapter::at_once`] says, and all lanes of a medium together as
//! many as [`Workers::workers`]. **Invariant**: a lease is given back once, with what its adapter said; a panic or a hanging
//! adapter is said to be `Later`. **Invariant**: an outcome is kept until it is stored. **Invariant**: where a set-up is held
//! ([`Holds`]) one attempt at a time finds out whether it still is, and nothing else is begun.
//!
//! Deliberately not here: what a medium's protocol is (the adapters), and when something is tried again (`broker`).

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::hold::{Gate, HoldKey, Holds};
use super::{Adapter, Outcome, SetUp};
use crate::broker::{Broker, BrokerError, Lane, Lease, Wanted};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
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
/// Lanes that one look hands out, beside those that are busy, paused or held.
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
        busy: HashMap::new(),
        paused: HashMap::new(),
        holds: Holds::default(),
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
    /// How many attempts are on their way in each lane that has any; no more of a medium than there are workers.
    busy: HashMap<LaneKey, usize>,
    /// Until when lanes are left alone.
    paused: HashMap<LaneKey, Instant>,
    holds: Holds,
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
            self.carry(&lane, leases, parcels);
        }
        for hold in self.holds.prolonged() {
            self.broker.give_up_held(&hold).await?;
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
        let (mut wanted, mut next) = (Vec::new(), Next::default());
        let now = self.broker.clock().now();
        for adapter in self.adapters.clone() {
            let medium = adapter.medium();
            // Of each medium by itself: a robot that is slow holds up no mail.
            let busy: usize = self.busy.iter().filter(|((of, _), _)| *of == medium).map(|(_, attempts)| attempts).sum();
            let mut free = self.config.workers.saturating_sub(busy);
            if adapter.set_up() == SetUp::OfMedium {
                match self.holds.gate(&(medium, None), at) {
                    Gate::Open => {}
                    Gate::Probe => free = 1_usize.saturating_sub(busy),
                    Gate::Shut(span) => {
                        next.sooner(span);
                        continue;
                    }
                }
            }
            if free == 0 {
                continue;
            }
            let most = LANES_A_LOOK + self.busy.len() + self.paused.len() + self.holds.len();
            let lanes = self.broker.lanes(medium, most).await?;
            if lanes.len() == most {
                next.sooner(LOOK);
            }
            let mut open: Vec<Open> = Vec::new();
            for Lane { lane, next_at } in lanes {
                if next_at > now {
                    // They are in the order of their moments.
                    next.sooner(until(next_at, now));
                    break;
                }
                if open.len() == free {
                    break;
                }
                open.extend(self.open(&*adapter, lane, at, &mut next));
            }
            let shares = share(free, &open);
            let lanes = open.into_iter().zip(shares);
            wanted.extend(lanes.map(|(Open { lane, most, .. }, share)| Wanted { medium, lane, most: most * share }));
        }
        Ok((wanted, next.0))
    }

    /// What may begin in a lane in which something is due; `None` where nothing may.
    fn open(&mut self, adapter: &dyn Adapter, lane: String, at: Instant, next: &mut Next) -> Option<Open> {
        let key = (adapter.medium(), lane);
        let busy = self.busy.get(&key).copied().unwrap_or_default();
        let room = adapter.at_once().saturating_sub(busy);
        if room == 0 {
            return None;
        }
        if let Some(until) = self.paused.get(&key) {
            next.sooner(until.duration_since(at));
            return None;
        }
        let most = adapter.most_together().max(1);
        match self.holds.gate(&set_up(adapter, &key), at) {
            Gate::Shut(span) => {
                next.sooner(span);
                return None;
            }
            Gate::Probe if busy > 0 => return None,
            Gate::Probe => return Some(Open { lane: key.1, room: 1, most: 1 }),
            Gate::Open => {}
        }
        let pause = adapter.pause(&key.1);
        if !pause.is_zero() {
            next.sooner(pause.min(LOOK));
            self.pause(key, at + pause);
            return None;
        }
        Some(Open { lane: key.1, room, most })
    }

    fn pause(&mut self, lane: LaneKey, until: Instant) {
        if self.paused.len() < MAX_PAUSED {
            self.paused.insert(lane, until);
        }
    }

    /// Hands a lane's parcels to its adapter, as many together as it takes, each in a task of their own.
    fn carry(&mut self, lane: &LaneKey, mut leases: Vec<Lease>, mut parcels: Vec<Parcel>) {
        let Some(adapter) = self.adapters.iter().find(|adapter| adapter.medium() == lane.0).cloned() else { return };
        let most = adapter.most_together().max(1);
        while !leases.is_empty() {
            let later = most.min(leases.len());
            let rest = (leases.split_off(later), parcels.split_off(later));
            *self.busy.entry(lane.clone()).or_default() += 1;
            let attempt = Attempt {
                adapter: adapter.clone(),
                lane: lane.clone(),
                leases,
                patience: self.config.patience,
                metrics: self.broker.metrics().clone(),
            };
            self.carrying.spawn(attempt.make(parcels));
            (leases, parcels) = rest;
        }
    }

    fn take(&mut self, carried: Option<Result<Carried, tokio::task::JoinError>>) {
        match carried {
            Some(Ok(Carried { lane, endings })) => {
                if let Some(attempts) = self.busy.get_mut(&lane) {
                    *attempts -= 1;
                    if *attempts == 0 {
                        self.busy.remove(&lane);
                    }
                }
                // What passed may have passed before the set-up was found to be wrong.
                let (held, others): (Vec<_>, Vec<_>) = endings
                    .iter()
                    .map(|(_, outcome)| outcome)
                    .partition(|outcome| matches!(outcome, Outcome::Held { .. }));
                for outcome in others.into_iter().chain(held) {
                    self.heed(&lane, outcome);
                }
                if let Some(holds) = self.holds.news() {
                    self.broker.tell_holds(holds);
                }
                self.ended.extend(endings);
            }
            // Its panics are caught inside, and nobody aborts it.
            Some(Err(error)) => tracing::error!(%error, "An attempt was lost; the next start makes it again"),
            None => {}
        }
    }

    /// What an outcome says of others than its own parcel.
    fn heed(&mut self, lane: &LaneKey, outcome: &Outcome) {
        let Some(adapter) = self.adapters.iter().find(|adapter| adapter.medium() == lane.0) else { return };
        let set_up = set_up(&**adapter, lane);
        let at = Instant::now();
        match outcome {
            Outcome::Held { why, remedy } => self.holds.hold(&set_up, why, remedy, self.broker.clock().now(), at),
            Outcome::NotTried { after, .. } if after.is_zero() => {}
            Outcome::NotTried { after, .. } => self.pause(lane.clone(), at + *after),
            Outcome::Sent { .. } | Outcome::Later { .. } | Outcome::Never { .. } => {
                self.holds.lift(&set_up, outcome, at);
            }
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

/// One attempt at a lane's parcels.
struct Attempt {
    adapter: Arc<dyn Adapter>,
    lane: LaneKey,
    leases: Vec<Lease>,
    patience: Duration,
    metrics: Arc<Metrics>,
}

impl Attempt {
    async fn make(self, parcels: Vec<Parcel>) -> Carried {
        let Self { adapter, lane, leases, patience, metrics } = self;
        let (medium, name) = (lane.0.as_str(), lane.1.as_str());
        let sending = AssertUnwindSafe(async { adapter.send(name, parcels).await }).catch_unwind();
        let later = |reason: &str| Outcome::Later { reason: reason.to_owned(), after: None };
        let outcomes = match timeout(patience, sending).await {
            Ok(Ok(outcomes)) => outcomes,
            Ok(Err(_)) => {
                tracing::error!(medium, lane = name, "An adapter panicked; it is tried again");
                metrics.panics.inc();
                vec![later("the adapter panicked"); leases.len()]
            }
            Err(_) => {
                tracing::warn!(medium, lane = name, "An adapter did not come back; it is tried again");
                vec![later("no answer came in time"); leases.len()]
            }
        };
        // An adapter that says too little has not said that it was sent.
        let unsaid = std::iter::repeat_with(|| later("the adapter did not say what became of it"));
        Carried { endings: leases.into_iter().zip(outcomes.into_iter().chain(unsaid)).collect(), lane }
    }
}

/// A lane in which so many attempts may begin, with so many parcels each.
struct Open {
    lane: String,
    room: usize,
    most: usize,
}

/// How many attempts each lane begins of so many that are free: each has one before any has two.
fn share(mut free: usize, lanes: &[Open]) -> Vec<usize> {
    let mut shares = vec![0; lanes.len()];
    loop {
        let before = free;
        for (share, Open { room, .. }) in shares.iter_mut().zip(lanes) {
            if free > 0 && *share < *room {
                *share += 1;
                free -= 1;
            }
        }
        if free == before {
            return shares;
        }
    }
}

/// How long until there may be more to do; `None` where nobody knows of any.
#[derive(Debug, Default)]
struct Next(Option<Duration>);

impl Next {
    fn sooner(&mut self, span: Duration) {
        self.0 = Some(self.0.map_or(span, |next| next.min(span)));
    }
}

/// What is held together with a lane.
fn set_up(adapter: &dyn Adapter, (medium, lane): &LaneKey) -> HoldKey {
    match adapter.set_up() {
        SetUp::OfMedium => (*medium, None),
        SetUp::OfLane => (*medium, Some(lane.clone())),
    }
}

/// How long from now to a moment, but never for long.
fn until(at: Timestamp, now: Timestamp) -> Duration {
    at.since(now).min(LOOK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_has_one_attempt_before_any_has_two() {
        let shares = |free: usize, rooms: &[usize]| {
            let open: Vec<Open> = rooms.iter().map(|room| Open { lane: String::new(), room: *room, most: 1 }).collect();
            share(free, &open)
        };
        assert_eq!(shares(16, &[4]), [4]);
        assert_eq!(shares(5, &[4, 1, 4]), [2, 1, 2]);
        assert_eq!(shares(2, &[4, 4]), [1, 1]);
        assert_eq!(shares(3, &[]), Vec::<usize>::new());
    }
}
