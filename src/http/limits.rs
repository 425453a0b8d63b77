//! Limits by user, address and key: how many streams are open, and how often something is done.
//!
//! **Invariant**: the newest is refused, never the oldest ended: two clients that end each other in turn would never rest.
//! **Invariant**: every map is bounded, by what is open or by [`MAX_BUCKETS`].
//!
//! How often one client polls, and how fast it sends over a WebSocket, is the transports' own.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter};
use parking_lot::Mutex;

use super::network::Address;
use super::problem;
use crate::metrics::Metrics;
use crate::model::{Credential, Identity, KeyId, UserId, UserIdentity};
use crate::wire::problem::Problem;

/// What an operator may set; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Live streams, long polls included, of one user.
    pub streams_per_user: Option<NonZeroU32>,
    /// The same from one address.
    pub streams_per_address: Option<NonZeroU32>,
    /// What may be done a second, in the long run.
    pub rates: Rates,
}

/// Limits a second, in the long run; ten times as much at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Connections from one address.
    pub connects_per_address: Option<NonZeroU32>,
    pub publishes_per_key: Option<NonZeroU32>,
    pub publishes_per_user: Option<NonZeroU32>,
    pub marks_per_user: Option<NonZeroU32>,
}

/// The settings, as metrics name them.
pub const LIMITS: [&str; 6] = [
    "streams_per_user",
    "streams_per_address",
    "connects_per_address",
    "publishes_per_key",
    "publishes_per_user",
    "marks_per_user",
];
/// How many seconds' worth may come at once.
const BURST_SECONDS: u32 = 10;
/// Keys that one rate is kept for at most; what comes beyond shares one bucket.
const MAX_BUCKETS: usize = 100_000;
/// A map is looked through for what can be forgotten every so many checks.
const FORGET_EVERY: u32 = 4_096;
/// After how many seconds who has too many streams may try again.
const STREAMS_RETRY: u32 = 5;

/// A limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// The setting, in `[limits]`.
    pub limit: &'static str,
    most: u32,
    /// Whole seconds.
    retry_after: u32,
}

impl From<Limited> for Problem {
    fn from(Limited { limit, most, retry_after }: Limited) -> Self {
        problem::TOO_MANY.for_now(
            format!("the limit {limit} is reached: at most {most}{}; `[limits] {limit}` sets it", unit(limit)),
            retry_after,
        )
    }
}

/// What a limit counts, for people.
fn unit(limit: &str) -> &'static str {
    if limit.starts_with("streams") { " live streams at once" } else { " a second in the long run" }
}

/// Everything that is counted against limits.
pub struct Meters {
    users: Arc<Seats<UserId>>,
    /// Streams that only one may be of, so that the next one takes the place of the one before.
    sole: Arc<Seats<Sole>>,
    addresses: Arc<Seats<Address>>,
    buckets: ArcSwap<AllBuckets>,
    metrics: Arc<Metrics>,
}

struct AllBuckets {
    rates: Rates,
    connects: Buckets<Address>,
    key_publishes: Buckets<KeyId>,
    user_publishes: Buckets<UserId>,
    marks: Buckets<UserId>,
}

impl AllBuckets {
    fn new(rates: Rates) -> Self {
        Self {
            connects: Buckets::new("connects_per_address", rates.connects_per_address),
            key_publishes: Buckets::new("publishes_per_key", rates.publishes_per_key),
            user_publishes: Buckets::new("publishes_per_user", rates.publishes_per_user),
            marks: Buckets::new("marks_per_user", rates.marks_per_user),
            rates,
        }
    }
}

/// A stream's places among those of its user and of its address, held for as long as it lives.
pub struct Seat {
    _user: Held<UserId>,
    _sole: Option<Held<Sole>>,
    _address: Option<Held<Address>>,
}

/// Whose stream ends when the next one of the same begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sole {
    Ticket(Arc<str>),
    /// A long poll of a client that names itself.
    Client(UserId, Arc<str>),
}

impl Sole {
    /// What a stream with this credential is the only one of.
    pub fn of(who: &UserIdentity) -> Option<Self> {
        match &who.credential {
            Credential::Ticket(id) => Some(Self::Ticket(id.clone())),
            Credential::Bearer | Credential::Cookie | Credential::Proxy => None,
        }
    }
}

impl Meters {
    pub fn new(rates: Rates, metrics: Arc<Metrics>) -> Self {
        let buckets = ArcSwap::from_pointee(AllBuckets::new(rates));
        Self { users: Arc::default(), sole: Arc::default(), addresses: Arc::default(), buckets, metrics }
    }

    /// Goes on with other rates; where they are the same, with what was used up.
    pub fn reconfigure(&self, rates: Rates) {
        if self.buckets.load().rates != rates {
            self.buckets.store(Arc::new(AllBuckets::new(rates)));
        }
    }

    /// A place for one more stream. One that takes the place of another needs no further one: after a broken network the
    /// server may hold the other for half a minute.
    ///
    /// # Errors
    /// [`Limited`].
    pub fn seat(
        &self,
        limits: &Limits,
        user: &UserId,
        sole: Option<Sole>,
        address: Option<Address>,
    ) -> Result<Seat, Limited> {
        // One at a time: who opens faster than they end has no such excuse.
        let replaces = sole.as_ref().is_some_and(|sole| self.sole.count(sole) == 1);
        let most = |limit: Option<NonZeroU32>| if replaces { None } else { limit };
        let seated = (|| {
            let user = self.users.take(user.clone(), most(limits.streams_per_user), "streams_per_user")?;
            let take = |address| self.addresses.take(address, most(limits.streams_per_address), "streams_per_address");
            let address = address.map(take).transpose()?;
            let sole = sole.map(|sole| self.sole.take(sole, None, "")).transpose()?;
            Ok(Seat { _user: user, _sole: sole, _address: address })
        })();
        self.count(seated)
    }

    /// One more connection from an address.
    ///
    /// # Errors
    /// [`Limited`].
    pub fn connect(&self, address: Address) -> Result<(), Limited> {
        self.count(self.buckets.load().connects.check(&address))
    }

    /// One more publish.
    ///
    /// # Errors
    /// [`Limited`].
    pub fn publish(&self, by: &Identity) -> Result<(), Limited> {
        let buckets = self.buckets.load();
        self.count(match by {
            Identity::User(user) => buckets.user_publishes.check(&user.user),
            Identity::Key(key) => buckets.key_publishes.check(&key.id),
            Identity::Operator => Ok(()),
        })
    }

    /// One more mark.
    ///
    /// # Errors
    /// [`Limited`].
    pub fn mark(&self, user: &UserId) -> Result<(), Limited> {
        self.count(self.buckets.load().marks.check(user))
    }

    fn count<T>(&self, result: Result<T, Limited>) -> Result<T, Limited> {
        if let Err(limited) = &result {
            self.metrics.limited.get_or_create(&[("limit", limited.limit)]).inc();
        }
        result
    }
}

/// How many of something each has open. What nobody has takes no room.
struct Seats<K>(Mutex<HashMap<K, u32>>);

impl<K> Default for Seats<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq + Clone> Seats<K> {
    fn count(&self, key: &K) -> u32 {
        self.0.lock().get(key).copied().unwrap_or_default()
    }

    fn take(self: &Arc<Self>, key: K, most: Option<NonZeroU32>, limit: &'static str) -> Result<Held<K>, Limited> {
        let mut taken = self.0.lock();
        let count = taken.entry(key.clone()).or_default();
        match most {
            Some(most) if *count >= most.get() => Err(Limited { limit, most: most.get(), retry_after: STREAMS_RETRY }),
            _ => {
                *count += 1;
                Ok(Held { seats: self.clone(), key })
            }
        }
    }
}

/// One of them; dropping it gives it back.
struct Held<K: Hash + Eq> {
    seats: Arc<Seats<K>>,
    key: K,
}

impl<K: Hash + Eq> Drop for Held<K> {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock();
        if let Some(count) = taken.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

/// A token bucket (GCRA) for each key.
struct Buckets<K: Hash + Eq + Clone> {
    limit: &'static str,
    /// `None` where there is no limit.
    kept: Option<Kept<K>>,
}

struct Kept<K: Hash + Eq + Clone> {
    most: NonZeroU32,
    each: DefaultKeyedRateLimiter<K>,
    checks: AtomicU32,
    /// More keys are busy than are told apart.
    full: AtomicBool,
    /// What all of them share then: as much as those that are told apart could do.
    shared: DefaultDirectRateLimiter,
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    fn new(limit: &'static str, most: Option<NonZeroU32>) -> Self {
        let kept = most.map(|most| {
            let quota = Quota::per_second(most).allow_burst(most.saturating_mul(BURST));
            let all = most.saturating_mul(ALL_BUCKETS);
            Kept {
                most,
                each: RateLimiter::keyed(quota),
                checks: AtomicU32::new(0),
                full: AtomicBool::new(false),
                shared: RateLimiter::direct(Quota::per_second(all)),
            }
        });
        Self { limit, kept }
    }

    fn check(&self, key: &K) -> Result<(), Limited> {
        let Some(kept) = &self.kept else { return Ok(()) };
        kept.check(key).map_err(|wait| {
            let retry_after = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
            Limited { limit: self.limit, most: kept.most.get(), retry_after }
        })
    }
}

const BURST: NonZeroU32 = NonZeroU32::new(BURST_SECONDS).expect("it is not zero");
#[expect(clippy::cast_possible_truncation, reason = "the constant fits")]
const ALL_BUCKETS: NonZeroU32 = NonZeroU32::new(MAX_BUCKETS as u32).expect("it is not zero");

impl<K: Hash + Eq + Clone> Kept<K> {
    /// How long to wait, where it is one too many.
    fn check(&self, key: &K) -> Result<(), Duration> {
        // The limiter never forgets by itself.
        if self.checks.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.each.retain_recent();
            self.each.shrink_to_fit();
            self.full.store(self.each.len() >= MAX_BUCKETS, Ordering::Relaxed);
        }
        let wait = |not_until: NotUntil<_>| not_until.wait_time_from(DefaultClock::default().now());
        if self.full.load(Ordering::Relaxed) {
            return self.shared.check().map_err(wait);
        }
        self.each.check_key(key).map_err(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{KeyIdentity, Scope};

    fn user(name: &str) -> UserId {
        UserId::new(name).expect("a user")
    }

    fn most(count: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(count)
    }

    fn meters(rates: Rates) -> Meters {
        Meters::new(rates, Arc::default())
    }

    #[test]
    fn the_ninth_stream_is_refused_and_has_room_when_one_ends() {
        let limits = Limits { streams_per_user: most(8), streams_per_address: most(10), ..Limits::default() };
        let meters = meters(Rates::default());
        let address = Address::new([192, 0, 2, 1].into());
        let seat = |name: &str| meters.seat(&limits, &user(name), None, Some(address));
        let mut alice: Vec<_> = (0..8).map(|_| seat("alice").map_err(|l| l.limit).expect("there is room")).collect();
        let refused = seat("alice").err().expect("it is one too many");
        assert_eq!(Problem::from(refused).status, 429);
        assert_eq!(refused.limit, "streams_per_user");
        let bob = [seat("bob").map_err(|l| l.limit), seat("bob").map_err(|l| l.limit)];
        assert!(bob.iter().all(Result::is_ok));
        assert_eq!(seat("carol").map(drop).map_err(|l| l.limit), Err("streams_per_address"));
        assert!(meters.seat(&limits, &user("carol"), None, None).is_ok(), "nobody can say where this one comes from");
        alice.pop();
        assert!(seat("alice").is_ok());
        drop((alice, bob));
        assert!(meters.users.0.lock().is_empty() && meters.addresses.0.lock().is_empty());
        let metrics = meters.metrics.text();
        assert!(metrics.contains("tidings_limited_total{limit=\"streams_per_user\"} 1"), "{metrics}");
    }

    #[test]
    fn who_takes_the_place_of_another_needs_no_further_one() {
        let limits = Limits { streams_per_user: most(1), ..Limits::default() };
        let meters = meters(Rates::default());
        let seat = |ticket: &str| {
            let sole = Some(Sole::Ticket(ticket.into()));
            meters.seat(&limits, &user("alice"), sole, None).map_err(|limited| limited.limit)
        };
        let first = seat("a").expect("there is room");
        assert!(seat("b").is_err(), "this one replaces nobody");
        let second = seat("a").expect("the first one ends");
        assert!(seat("a").is_err(), "but not yet");
        drop(first);
        let third = seat("a").expect("the second one ends");
        drop((second, third));
        assert!(meters.users.0.lock().is_empty() && meters.sole.0.lock().is_empty());
    }

    #[test]
    fn who_publishes_without_pause_is_held_back_and_no_other() {
        let meters = meters(Rates { publishes_per_key: most(5), ..Rates::default() });
        let key = |id: &str| {
            let scopes = [Scope::Publish].into();
            Identity::Key(KeyIdentity { id: KeyId(id.into()), name: id.into(), scopes })
        };
        let taken = (0..1_000).filter(|_| meters.publish(&key("a")).is_ok()).count();
        assert!((50..60).contains(&taken), "{taken}");
        assert!(meters.publish(&key("b")).is_ok() && meters.publish(&Identity::Operator).is_ok());
        let refused = Problem::from(meters.publish(&key("a")).expect_err("it is one too many"));
        assert_eq!((refused.status, refused.retry_after), (429, Some(1)));
        meters.reconfigure(Rates { publishes_per_key: most(5), ..Rates::default() });
        assert!(meters.publish(&key("a")).is_err(), "nothing has changed");
        meters.reconfigure(Rates::default());
        assert!(meters.publish(&key("a")).is_ok());
    }

    #[test]
    fn a_flood_of_names_takes_bounded_room() {
        let buckets = Buckets::<UserId>::new("marks_per_user", most(1));
        let keys = MAX_BUCKETS + 2 * FORGET_EVERY as usize;
        for number in 0..keys {
            // Twice, so that it is busy.
            let _ = (buckets.check(&user(&number.to_string())), buckets.check(&user(&number.to_string())));
        }
        let kept = buckets.kept.expect("there is a limit");
        assert!(kept.each.len() <= MAX_BUCKETS + FORGET_EVERY as usize, "{}", kept.each.len());
    }
}
