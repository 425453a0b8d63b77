//! The rules: who may publish what, what a mark does, what a stream begins with, who is who.
//!
//! Edges call [`Broker`] and nothing below it. A publish or a mark goes to the store's writer and comes back as the
//! answer; what subscribers see takes the other way, from the commit feed through [`fanout`] and the hub into a
//! [`Feed`]. **Invariant**: no method here writes to a subscriber, and nothing is shown before it is durable.
//!
//! Rank 3: imports `model`, `wire`, `clock`, `metrics`, `lifecycle`, `interleave`, `store`, `hub`.

mod account;
mod admission;
mod deliveries;
mod ending;
mod error;
mod explain;
mod fanout;
mod feed;
mod holds;
mod identity;
mod inbox;
mod intake;
#[cfg(test)]
mod interleavings;
mod janitor;
mod keys;
mod live;
mod message_log;
mod newest;
mod notifications;
mod opening;
mod outbox;
mod poll;
mod presence;
mod profiles;
mod publish;
mod pulse;
mod revocations;
mod schedule;
mod tally;
mod template;
mod tickets;
mod token;
mod topics;
mod unsubscribe;
mod upkeep;
mod users;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub use error::{AuthError, BrokerError};
pub use feed::{Feed, FeedItem, FeedRequest};
pub use holds::Hold;
pub use identity::Credentials;
pub use inbox::InboxQuery;
pub use intake::{IntakeState, Untaken, Went};
pub use message_log::Summary;
pub use outbox::{Lane, Lease, MAX_ANSWER_CHARS, MAX_RETRY_AFTER, Outbox, Wanted, next_try};
pub use poll::{MAX_POLL_EVENTS, PollRequest};
pub use publish::{Idempotency, Meanwhile, hash_body};
pub use template::{markdown, markdown_link};
pub use token::{JwtConfig, KeyFile, TokenClaims, VerifyingKey, mint_token};
pub use unsubscribe::{UnsubscribeKey, Unsubscription};

pub use crate::hub::Filter;
pub use crate::store::{
    Acquaintance, BALLAST_BYTES, Backup, Ballast, Failure, InboxState, Laid, Muting as Mute, OpenError, Registered,
    Retention, Unknown,
};

use crate::clock::Clock;
use crate::hub::{self, Hub};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::model::{Cursor, Epoch, Media, Timestamp, UserId, UserKey};
use crate::store::{self, Appear, Expanded, Policy, Store, StoreError};

/// Settings of the rules.
#[derive(Clone, Debug)]
pub struct Config {
    /// Silence after which a stream shows a sign of life.
    pub heartbeat: Duration,
    /// How old a stream gets at most before another takes its place; `None` is as old as it likes.
    pub max_age: Option<Duration>,
    /// How long a ticket is good for.
    pub ticket_ttl: Duration,
    /// How long a stream goes on on a proxy's word before the proxy is asked again.
    pub proxy_recheck: Duration,
    /// Within which it must be used first.
    pub ticket_first_use: Duration,
    /// How far back `everyone` reaches for someone new.
    pub everyone_horizon: Duration,
    /// How long answers are kept for their idempotency key.
    pub idempotency_ttl: Duration,
    pub unknown_topics: Unknown,
    pub unknown_users: Unknown,
    /// How far ahead a notification may be scheduled.
    pub schedule_horizon: Duration,
    pub retention: Retention,
    /// What carries notifications besides the inbox.
    pub media: Media,
    pub outbox: Outbox,
    pub jwt: JwtConfig,
    /// Makes and reads the links by which people unsubscribe; `None` where no mail was ever set up.
    pub unsubscribe: Option<UnsubscribeKey>,
    /// The operator's credential; `None` lets nobody in as operator.
    pub operator_secret: Option<OperatorSecret>,
    pub hub: hub::Config,
    pub store: store::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(15),
            max_age: Some(Duration::from_hours(6)),
            ticket_ttl: Duration::from_hours(12),
            ticket_first_use: Duration::from_mins(1),
            proxy_recheck: Duration::from_mins(15),
            everyone_horizon: Duration::from_hours(7 * 24),
            idempotency_ttl: Duration::from_hours(24),
            unknown_topics: Unknown::Create,
            unknown_users: Unknown::Create,
            schedule_horizon: Duration::from_hours(365 * 24),
            retention: Retention::default(),
            media: Media::default(),
            outbox: Outbox::default(),
            jwt: JwtConfig::default(),
            unsubscribe: None,
            operator_secret: None,
            hub: hub::Config::default(),
            store: store::Config::default(),
        }
    }
}

/// The operator's credential. Its `Debug` tells nothing.
#[derive(Clone)]
pub struct OperatorSecret(pub String);

impl std::fmt::Debug for OperatorSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OperatorSecret(…)")
    }
}

/// How the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Ready,
    Draining,
    /// It goes on, but not in full; why.
    Degraded(String),
}

/// The rules at work. Cheap to clone.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    /// Replaced as a whole by a reload.
    config: ArcSwap<Config>,
    started: Timestamp,
    clock: Clock,
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
    store: Store,
    hub: Arc<Hub>,
    tallies: Arc<Mutex<tally::Tallies>>,
    newest: Arc<newest::Newest>,
    admission: admission::Admission,
    /// Wakes whoever does what is due.
    due: Arc<Notify>,
    outbox: Arc<outbox::Signals>,
    keys: keys::Keyring,
    revocations: revocations::Revocations,
    /// Moves with each commit that the fan-out has seen.
    turned: watch::Receiver<u64>,
    /// Since when a sign of life is waited for.
    asked: Mutex<Option<Instant>>,
    running: publish::Running,
    templates: template::Ready,
    /// What the outbox can't carry for now.
    holds: Mutex<Vec<Hold>>,
    intake: Mutex<intake::Intake>,
}

impl Inner {
    fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }
}

impl Broker {
    /// Opens the database in a state directory, and starts the writer, the fan-out and the janitor on `lifecycle`.
    ///
    /// # Errors
    /// [`OpenError`], whose text says what to do.
    pub async fn open(
        data: &Path,
        config: Config,
        clock: Clock,
        metrics: Arc<Metrics>,
        lifecycle: &Lifecycle,
    ) -> Result<Self, OpenError> {
        let (store, feed) = Store::open(data, clock.now(), &config.store, metrics.clone(), lifecycle).await?;
        let hub = Hub::new(config.hub);
        let tallies = Arc::new(Mutex::new(tally::Tallies::default()));
        let keys = keys::Keyring::load(&store).await?;
        let revocations = revocations::Revocations::load(&store).await?;
        let (turns, turned) = watch::channel(0);
        let epoch = store.epoch().clone();
        let newest = Arc::new(newest::Newest::new(metrics.clone()));
        let signals = Arc::new(outbox::Signals::begin(&metrics));
        let fanout = fanout::Fanout::new(
            epoch,
            hub.clone(),
            tallies.clone(),
            newest.clone(),
            metrics.clone(),
            signals.clone(),
            turns,
        );
        lifecycle.spawn_core(fanout.run(feed));
        let inner = Inner {
            config: ArcSwap::from_pointee(config),
            started: clock.now(),
            clock,
            metrics,
            lifecycle: lifecycle.clone(),
            store,
            hub,
            tallies,
            newest,
            admission: admission::Admission::default(),
            due: Arc::default(),
            outbox: signals.clone(),
            keys,
            revocations,
            turned,
            asked: Mutex::default(),
            running: publish::Running::default(),
            templates: template::Ready::default(),
            intake: Mutex::default(),
            holds: Mutex::default(),
        };
        let this = Self { inner: Arc::new(inner) };
        // What fell due while nothing ran is done before the first stream begins.
        this.catch_up().await?;
        if this.inner.store.read(|session| session.snapshot(|reader| reader.expands())).await? == Expanded::More {
            signals.expand.notify_one();
        }
        lifecycle.spawn_core(outbox::expand(Arc::downgrade(&this.inner), signals, lifecycle.clone()));
        lifecycle.spawn_core(schedule::run(Arc::downgrade(&this.inner), lifecycle.clone()));
        lifecycle.spawn_core(tally::reread(Arc::downgrade(&this.inner), lifecycle.clone()));
        lifecycle.spawn_core(janitor::run(Arc::downgrade(&this.inner), lifecycle.clone()));
        Ok(this)
    }

    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    /// When this run began.
    pub fn started(&self) -> Timestamp {
        self.inner.started
    }

    /// The newest durable position.
    pub fn head(&self) -> Cursor {
        Cursor { epoch: self.inner.store.epoch().clone(), seq: self.inner.store.head() }
    }

    /// Bytes that are free where the database lies. `None` where it can't be told.
    pub fn disk_free(&self) -> Option<u64> {
        let free = rustix::fs::statvfs(self.inner.store.path()).ok()?;
        Some(free.f_bavail.saturating_mul(free.f_frsize))
    }

    /// The identity of the log.
    pub fn epoch(&self) -> &Epoch {
        self.inner.store.epoch()
    }

    pub fn config(&self) -> Arc<Config> {
        self.inner.config()
    }

    /// Goes on with other settings. What is fixed for as long as the server runs stays: the hub's and the store's limits,
    /// the operator's credential, and which media are set up, since what carries them is made at start.
    pub fn reconfigure(&self, config: Config) {
        let now = self.inner.config();
        let operator_secret = now.operator_secret.clone();
        let narrows = now.jwt.narrows(&config.jwt);
        let (store, media) = (now.store.clone(), now.media.clone());
        self.inner.config.store(Arc::new(Config { operator_secret, hub: now.hub, store, media, ..config }));
        if narrows {
            // A key that is gone may have been stolen: whoever streams by its tokens is judged anew.
            self.rotate_all();
        }
    }

    pub fn health(&self) -> Health {
        if let Some(reason) = self.inner.store.failure().or_else(|| self.stalled()) {
            Health::Degraded(reason)
        } else if self.inner.lifecycle.is_draining() {
            Health::Draining
        } else {
            Health::Ready
        }
    }

    /// Does what fell due while nothing ran. On a full disk that waits for room, and reading begins.
    async fn catch_up(&self) -> Result<(), StoreError> {
        for done in [self.settle_due().await.map(drop), self.finish_erasures().await] {
            match done {
                Ok(()) | Err(StoreError::Full) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Resolves with the reason when the database can't be written any more. The process must end then, so that it
    /// starts again from what is durable.
    pub async fn failed(&self) -> Failure {
        self.inner.store.failed().await
    }

    /// The operator's rules that publishes meet.
    fn policy(&self) -> Policy {
        let config = self.inner.config();
        let Config { unknown_topics, unknown_users, everyone_horizon, .. } = *config;
        let media = Arc::new(config.media.clone());
        Policy { topics: unknown_topics, users: unknown_users, everyone_horizon, media }
    }

    /// The user's number; someone new appears now, which fixes where `everyone` begins for them.
    async fn appear(&self, user: &UserId) -> Result<UserKey, BrokerError> {
        let now = self.inner.clock.now();
        let everyone_horizon = self.inner.config().everyone_horizon;
        Ok(self.inner.store.write(Appear { user: user.clone(), now, everyone_horizon }).await?)
    }
}
