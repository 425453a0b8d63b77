//! The worker: one task that looks at lanes, leases what goes next, hands it to the adapters, and gives the leases back with
//! what came of them.
//!
//! It writes at most once a turn, for everything that ended and everything that begins; while that commit runs, further
//! attempts end, and the next turn takes them together. Where nothing is due it reads, now and then, and writes nothing.
//!
//! **Invariant**: a lane has as many attempts at a time as [`Adapter::at_once`] says, and all lanes of a medium together as
//! many as [`Workers::workers`]. **Invariant**: a lease is given back once, with what its adapter said first, which may be
//! before the attempt is over ([`Note`]); a panic or a hanging adapter is said to be `Later`. **Invariant**: an outcome is kept
//! until it is stored. **Invariant**: where a set-up is held ([`Holds`]) one attempt at a time finds out whether it still is, and
//! nothing else is begun.
//!
//! Deliberately not here: what a medium's protocol is (the adapters), and when something is tried again (`broker`).

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::hold::{Gate, HoldKey, Holds};
use super::progress::{MAX_NOTES, Note};
use super::{Adapter, Outcome, Progress, SetUp};
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
/// Deliveries that one transaction leases at most; publishes wait behind it. The lanes that are left out have theirs in the next.
const MAX_LEASED: usize = 1_000;

type LaneKey = (Medium, String);

/// An attempt whose adapter has not come back.
struct OnItsWay {
    lane: LaneKey,
    /// `None` where it was given back.
    leases: Vec<Option<Lease>>,
}

/// What one attempt came to, parcel by parcel.
struct Carried {
    attempt: u64,
    outcomes: Vec<Outcome>,
}

/// What is to be leased of a lane, and how much of it goes into one attempt.
struct Begin {
    wanted: Wanted,
    together: usize,
}

/// Runs until the drain has begun and everything on its way has come back.
pub(super) async fn run(broker: Broker, adapters: Vec<Arc<dyn Adapter>>, config: Workers, lifecycle: Lifecycle) {
    let (desk, notes) = mpsc::channel(MAX_NOTES);
    let mut worker = Worker {
        broker,
        adapters,
        config,
        lifecycle: lifecycle.clone(),
        carrying: JoinSet::new(),
        attempts: HashMap::new(),
        last: 0,
        desk,
        notes,
        busy: HashMap::new(),
        paused: HashMap::new(),
        holds: Holds::default(),
        ended: Vec::new(),
        stored: Vec::new(),
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
            Some(note) = worker.notes.recv() => worker.take_note(note),
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
    lifecycle: Lifecycle,
    carrying: JoinSet<Carried>,
    /// What is on its way, by the number of its attempt, which is that of this worker alone.
    attempts: HashMap<u64, OnItsWay>,
    last: u64,
    /// Where adapters note what became of parcels while they are at it.
    desk: mpsc::Sender<Note>,
    notes: mpsc::Receiver<Note>,
    /// How many attempts are on their way in each lane that has any; no more of a medium than there are workers.
    busy: HashMap<LaneKey, usize>,
    /// Until when lanes are left alone.
    paused: HashMap<LaneKey, Instant>,
    holds: Holds,
    /// What came of leases that are not given back yet.
    ended: Vec<(Lease, Outcome)>,
    /// Those who wait until all of that is stored.
    stored: Vec<oneshot::Sender<()>>,
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
        let (looked, next) = self.look().await?;
        let all = looked.len();
        let begins = bounded(looked);
        // Those that were left out go at once.
        let next = if begins.len() < all { Some(Duration::ZERO) } else { next };
        let together: HashMap<LaneKey, usize> =
            begins.iter().map(|Begin { wanted, together }| ((wanted.medium, wanted.lane.clone()), *together)).collect();
        let places: usize = begins.iter().map(|begin| begin.wanted.most).sum();
        let leased = self.settle(begins.into_iter().map(|begin| begin.wanted).collect()).await?;
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
            let together = together.get(&lane).copied().unwrap_or(1);
            self.carry(&lane, leases, parcels, together);
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
            for stored in self.stored.drain(..) {
                // Whoever has given up waiting has stopped.
                let _ = stored.send(());
            }
        }
        turned
    }

    /// What may be leased now, and how long until there may be more.
    async fn look(&mut self) -> Result<(Vec<Begin>, Option<Duration>), BrokerError> {
        let at = Instant::now();
        self.paused.retain(|_, until| *until > at);
        let (mut begins, mut next) = (Vec::new(), Next::default());
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
            begins.extend(lanes.map(|(Open { lane, most, .. }, share)| Begin {
                wanted: Wanted { medium, lane, most: most * share },
                together: most,
            }));
        }
        Ok((begins, next.0))
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
        let most = adapter.most_together(&key.1).max(1);
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

    /// Hands a lane's parcels to its adapter, so many together, each in a task of their own.
    fn carry(&mut self, lane: &LaneKey, mut leases: Vec<Lease>, mut parcels: Vec<Parcel>, together: usize) {
        let Some(adapter) = self.adapters.iter().find(|adapter| adapter.medium() == lane.0).cloned() else { return };
        while !leases.is_empty() {
            let later = together.clamp(1, leases.len());
            let rest = (leases.split_off(later), parcels.split_off(later));
            *self.busy.entry(lane.clone()).or_default() += 1;
            self.last += 1;
            let on_its_way = OnItsWay { lane: lane.clone(), leases: leases.into_iter().map(Some).collect() };
            self.attempts.insert(self.last, on_its_way);
            let attempt = Attempt {
                number: self.last,
                adapter: adapter.clone(),
                lane: lane.clone(),
                progress: Progress::of(self.last, self.desk.clone(), self.lifecycle.clone()),
                patience: self.config.patience,
                metrics: self.broker.metrics().clone(),
            };
            self.carrying.spawn(attempt.make(parcels));
            (leases, parcels) = rest;
        }
    }

    /// Takes what an adapter says while it is still at it. Of what was given back before nothing counts.
    fn take_note(&mut self, Note { attempt, places, outcome, stored }: Note) {
        let Some(OnItsWay { lane, leases }) = self.attempts.get_mut(&attempt) else { return };
        let lane = lane.clone();
        for place in places {
            let lease = leases.get_mut(place).and_then(Option::take);
            self.ended.extend(lease.map(|lease| (lease, outcome.clone())));
        }
        self.heed(&lane, &outcome);
        self.tell_holds();
        self.stored.push(stored);
    }

    fn take(&mut self, carried: Option<Result<Carried, tokio::task::JoinError>>) {
        // What it noted was noted before it came back.
        self.take_notes();
        match carried {
            Some(Ok(Carried { attempt, outcomes })) => {
                let Some(OnItsWay { lane, leases }) = self.attempts.remove(&attempt) else { return };
                let endings: Vec<(Lease, Outcome)> =
                    leases.into_iter().zip(outcomes).filter_map(|(lease, outcome)| Some((lease?, outcome))).collect();
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
                self.tell_holds();
                self.ended.extend(endings);
            }
            // Its panics are caught inside, and nobody aborts it.
            Some(Err(error)) => tracing::error!(%error, "An attempt was lost; the next start makes it again"),
            None => {}
        }
    }

    fn tell_holds(&mut self) {
        if let Some(holds) = self.holds.news() {
            self.broker.tell_holds(holds);
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

    fn take_notes(&mut self) {
        while let Ok(note) = self.notes.try_recv() {
            self.take_note(note);
        }
    }

    /// Takes what else was noted and has ended by now.
    fn take_ready(&mut self) {
        self.take_notes();
        while let Some(carried) = self.carrying.try_join_next() {
            self.take(Some(carried));
        }
    }

    /// Waits for what is on its way and gives it back.
    async fn finish(mut self) {
        loop {
            self.take_ready();
            if !(self.ended.is_empty() && self.stored.is_empty())
                && let Err(error) = self.settle(Vec::new()).await
            {
                if error == BrokerError::StorageStopped {
                    return;
                }
                tracing::warn!(%error, "What was carried could not be noted; it is tried again");
                sleep(PAUSE).await;
                continue;
            }
            tokio::select! {
                Some(note) = self.notes.recv() => self.take_note(note),
                carried = self.carrying.join_next() => match carried {
                    Some(carried) => self.take(Some(carried)),
                    None => return,
                },
            }
        }
    }
}

/// One attempt at a lane's parcels.
struct Attempt {
    number: u64,
    adapter: Arc<dyn Adapter>,
    lane: LaneKey,
    progress: Progress,
    patience: Duration,
    metrics: Arc<Metrics>,
}

impl Attempt {
    async fn make(self, parcels: Vec<Parcel>) -> Carried {
        let Self { number, adapter, lane, progress, patience, metrics } = self;
        let (medium, name, count) = (lane.0.as_str(), lane.1.as_str(), parcels.len());
        let sending = AssertUnwindSafe(async { adapter.send(name, parcels, &progress).await }).catch_unwind();
        let later = |reason: &str| Outcome::Later { reason: reason.to_owned(), after: None };
        let mut outcomes = match timeout(patience, sending).await {
            Ok(Ok(outcomes)) => outcomes,
            Ok(Err(_)) => {
                tracing::error!(medium, lane = name, "An adapter panicked; it is tried again");
                metrics.panics.inc();
                vec![later("the adapter panicked"); count]
            }
            Err(_) => {
                tracing::warn!(medium, lane = name, "An adapter did not come back; it is tried again");
                vec![later("no answer came in time"); count]
            }
        };
        // An adapter that says too little has not said that it was sent.
        outcomes.resize(count, later("the adapter did not say what became of it"));
        Carried { attempt: number, outcomes }
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

/// What one transaction leases of all that is wanted, lane by lane in their order: [`MAX_LEASED`] deliveries.
fn bounded(begins: Vec<Begin>) -> Vec<Begin> {
    let mut left = MAX_LEASED;
    let mut kept = Vec::new();
    for mut begin in begins {
        begin.wanted.most = begin.wanted.most.min(left);
        left -= begin.wanted.most;
        if begin.wanted.most > 0 {
            kept.push(begin);
        }
    }
    kept
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

    #[test]
    fn one_turn_leases_no_more_than_one_transaction_may_and_the_first_lanes_first() {
        let begin = |lane: usize| {
            let wanted = Wanted { medium: Medium::DingTalk, lane: lane.to_string(), most: 300 };
            Begin { wanted, together: 300 }
        };
        let most = |begins: Vec<Begin>| -> Vec<(String, usize)> {
            bounded(begins).into_iter().map(|begin| (begin.wanted.lane, begin.wanted.most)).collect()
        };
        let lane = |lane: usize, most: usize| (lane.to_string(), most);
        assert_eq!(most((0..16).map(begin).collect()), [lane(0, 300), lane(1, 300), lane(2, 300), lane(3, 100)]);
        assert_eq!(most(vec![begin(0)]), [lane(0, 300)]);
    }
}
